"""SQLite: opening a file, a connection for the store's operations, and one for heartbeats.

Rules:

1. One writer: operations queue, each is one trip and one transaction (see `lazymig._sqlite_drivers`), or several that
   write share one (see `lazymig._sqlite_groups`). A brief one that finds the queue empty is carried out at once on the
   event loop's thread (see `lazymig._sqlite_here`).
2. Commits are synced to disk (``synchronous=FULL``) unless the URL says otherwise; claims, releases and heartbeats are
   not, because a lock need not survive a power failure. In WAL mode a later sync covers what was written before it.
3. After a failed sync that SQLite tells of, the connection writes the log anew before its next operation that writes
   (see `Syncing`). Until then heartbeats and other processes may append to it, and syncs that fail in SQLite's
   automatic checkpoints are not told.
4. The layout is looked at before anything is changed: a newer one, or another program's file, is left untouched.
5. Heartbeats are measured by the machine's monotonic clock, which all its processes share and no clock step moves;
   one from before a reboot lies in the future and counts as dead.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lazymig._presence import Presence
from lazymig._sql import SqlStore
from lazymig._sql_failures import SqlFailures
from lazymig._sql_post import SqlPost
from lazymig._sql_read_only import ReadOnly
from lazymig._sqlite_copy_sql import copy_dialect
from lazymig._sqlite_drivers import (
    Inline,
    InTheWayError,
    Thread,
    connect,
    is_busy,
    steps,
)
from lazymig._sqlite_errors import UNSYNCED, translating, trying
from lazymig._sqlite_failure_sql import FAILURE_DIALECT
from lazymig._sqlite_groups import Groups
from lazymig._sqlite_here import Here
from lazymig._sqlite_opening import check_readable, check_rights, lay_out
from lazymig._sqlite_post_sql import POST_DIALECT
from lazymig._sqlite_ruling_sql import RULING_DIALECT
from lazymig._sqlite_sql import DIALECT
from lazymig.errors import StoreClosedError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig._sql_operations import Operation
    from lazymig._sqlite_drivers import Driver, Steps

T = TypeVar("T")

BEAT_RETRY_SECONDS = 0.002
"""How soon a heartbeat that another connection's transaction was in the way of is tried again."""

_PIECE_BYTES = 1 << 20
"""How much of a log is in memory at once while it is rewritten: logs can grow large."""


class Syncing:
    """Drives the operations of one connection, each synced to disk or not.

    Args:
        rewrite_log: Writes the write-ahead log's bytes over themselves and syncs them (see `rewrite`).
        is_full: Whether those that must survive a crash of the machine are synced at once.

    Attributes:
        has_gap: Whether a sync failed, and the log was not written anew since.
    """

    def __init__(self, rewrite_log: Callable[[], None], *, is_full: bool) -> None:
        self._rewrite_log = rewrite_log
        self._is_full = is_full
        self._is_on: bool | None = None
        self.has_gap = False

    def steps(
        self, operation: Callable[[], Operation[T]], connection: sqlite3.Connection, *, writes: bool, durable: bool
    ) -> Steps[T]:
        """See `Connection.run`."""
        if self.has_gap and writes:
            self._mend_log(connection)
        if writes and (syncs := durable and self._is_full) != self._is_on:
            connection.execute(f"PRAGMA synchronous = {'FULL' if syncs else 'NORMAL'}")
            self._is_on = syncs
        try:
            return (yield from steps(connection, operation(), writes=writes))
        except sqlite3.Error as error:
            self.note(error)
            raise

    def note(self, error: sqlite3.Error) -> None:
        """Note a failure, which may have been one of a sync."""
        self.has_gap |= getattr(error, "sqlite_errorcode", 0) in UNSYNCED

    def _mend_log(self, connection: sqlite3.Connection) -> None:
        """Write the log anew after a failed sync, which leaves a gap in it: Linux forgets to write what it could not.

        After a power failure nothing behind the gap is read, and a database into which the log was half copied could
        not be mended from it; so this comes before any checkpoint. The write lock keeps others from appending.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._rewrite_log()
        except OSError as error:
            unsynced = sqlite3.OperationalError(f"the log can't be written anew: {error}")
            unsynced.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            unsynced.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise unsynced from error
        finally:
            connection.execute("ROLLBACK")
        self.has_gap = False


def rewrite(path: Path) -> None:
    """Write a file's bytes over themselves and sync them, because after a failed sync none counts as unwritten.

    A power failure meanwhile changes nothing that was on the disk. The descriptor is closed with no harm to SQLite:
    its POSIX locks are on the database and on ``-shm``, never on ``-wal``.
    """
    with path.open("r+b", buffering=0) as file:
        while piece := os.pread(file.fileno(), _PIECE_BYTES, file.tell()):
            file.write(piece)
        os.fsync(file.fileno())


class SQLitePulse:
    """Heartbeats on a connection of their own, so that neither a busy loop nor a busy store delays them."""

    def __init__(self, path: Path, name: str, clock: Callable[[], float], busy_seconds: float) -> None:
        self._name = name
        self._clock = clock
        self._busy_seconds = busy_seconds
        with translating(name):
            self._connection = connect(path, "rw", busy_seconds)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA busy_timeout = 0")

    def beat(self, node_id: str, active: int = 0) -> bool:
        """See `Pulse.beat`."""
        beat = {"at": self._clock(), "node": node_id, "active": active}
        deadline = time.monotonic() + self._busy_seconds
        with translating(self._name):
            while True:  # SQLite's own waiting looks ever less often, and would starve beside a busy process
                try:
                    return self._connection.execute(DIALECT.beat, beat).rowcount == 1
                except sqlite3.OperationalError as error:
                    if not is_busy(error) or time.monotonic() > deadline:
                        raise
                time.sleep(BEAT_RETRY_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class SQLiteConnection:
    """The `Connection` of a SQLite store.

    Attributes:
        name: The store's URL.
        trips: How many operations were begun.
        commits: How many of them were durable.
        driver: Where they run.
    """

    poll_seconds = 0.005
    is_outlived = False

    def __init__(  # noqa: PLR0913  (what `open_sqlite` was given)
        self, driver: Driver, path: Path, name: str, *, is_full: bool, clock: Callable[[], float], mode: str = "rw"
    ) -> None:
        self.name = name
        self.trips = 0
        self.commits = 0
        self.now = clock
        self.driver = driver
        self._path = path
        self._syncing = Syncing(partial(rewrite, path.with_name(f"{path.name}-wal")), is_full=is_full)
        self._here = Here(path, mode)
        self._groups = Groups(self._drive, self._write_here) if driver.has_groups else None
        self._is_closed = False
        self._has_ended = False
        self._is_full = is_full
        self._presence = Presence(path.with_name(f"{path.name}-nodes"))

    async def run(
        self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False, brief: bool = False
    ) -> T:
        """See `Connection.run`."""
        if self._is_closed:
            raise StoreClosedError(self.name)
        self.trips += 1
        self.commits += durable
        is_easy = brief and not (durable and self._is_full)
        with translating(self.name):
            if is_easy and self._groups is not None:
                with suppress(InTheWayError):
                    return self._groups.at_once(operation)
            return await trying(partial(self._run, operation, writes=writes, durable=durable, is_easy=is_easy))

    async def _run(
        self, operation: Callable[[], Operation[T]], *, writes: bool, durable: bool, is_easy: bool = False
    ) -> T:
        if not writes or self._groups is None:
            return await self._drive(operation, writes=writes, durable=durable)
        return await self._groups.run(operation, durable=durable, is_easy=is_easy)

    def _write_here(self, operation: Operation[T], count: int) -> T:
        if self._syncing.has_gap:
            raise InTheWayError
        try:
            return self._here.write(operation, count)
        except sqlite3.Error as error:
            self._syncing.note(error)
            raise InTheWayError from error

    async def _drive(self, operation: Callable[[], Operation[T]], *, durable: bool, writes: bool = True) -> T:
        if self._has_ended:  # closing was cut off before this had its turn
            raise StoreClosedError(self.name)
        return await self.driver.walk(partial(self._syncing.steps, operation, writes=writes, durable=durable))

    @asynccontextmanager
    async def watch(self, wake: Callable[[str], None]) -> AsyncIterator[None]:  # noqa: ARG002  (the Protocol's)
        """See `Post.watch`: on a file there is nothing to tell each other by; looking at it costs microseconds."""
        yield

    async def look(self, operation: Callable[[], Operation[T]]) -> T:
        """See `Connection.look`: on the event loop's thread, because readers wait for nobody in a write-ahead log."""
        if self._is_closed:
            raise StoreClosedError(self.name)
        with translating(self.name):
            return self._here.read(operation())

    async def exclude(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """See `Connection.exclude`: there is one writer at a time, and who only reads has one snapshot."""
        return await self.run(operation, writes=writes, durable=durable)

    async def forget(self, operation: Callable[[], Operation[T]]) -> T:
        """See `Connection.forget`: there is one writer at a time, so nothing is under way."""
        return await self.run(operation)

    def enter(self, node_id: str) -> None:
        """Take the node's file lock."""
        try:
            self._presence.enter(node_id)
        except OSError as error:
            raise StoreError(
                f"the lock files beside {self.name} can't be made ({error}). Give this process the right to."
            ) from error

    def leave(self, node_id: str) -> None:
        """Give the node's file lock up; remove the file of one that is dead."""
        self._presence.leave(node_id)
        self._presence.forget(node_id)

    def is_dead(self, node_id: str) -> bool | None:
        """Tell whether the node's file lock is free; None if there is no such file."""
        return self._presence.is_dead(node_id)

    def open_pulse(self) -> SQLitePulse:
        """See `Store.open_pulse`."""
        return SQLitePulse(self._path, self.name, self.now, self.driver.pulse_busy_seconds)

    async def close(self) -> None:
        """Finish what is queued, close the file, give the file locks up."""
        self._is_closed = True
        try:
            if self._groups is not None:
                await self._groups.end()
        finally:  # the driver finishes what was begun
            self._has_ended = True
            self._here.close()
            try:
                await self.driver.close()
            finally:
                self._presence.close()


@asynccontextmanager
async def open_sqlite(  # noqa: PLR0913  (named, all but one)
    path: Path,
    *,
    synchronous: str = "full",
    create: bool = True,
    read_only: bool = False,
    clock: Callable[[], float] = time.monotonic,
    inline: bool = False,
) -> AsyncIterator[SqlStore]:
    """Open the store in a SQLite file, made if it isn't there.

    Args:
        path: The file; its folder must exist.
        synchronous: "full", or "normal": a power failure may lose the last commits, never tear one.
        create: Whether a missing file is made.
        read_only: See `open_store`.
        clock: Seconds of a clock that all processes on the file share and that never goes back.
        inline: Whether statements run on the event loop's thread: for deterministic schedulers.

    Raises:
        StoreError: It can't be opened, or is no store of this release; the file was not touched then.
    """
    name, path = _name_and_place(path)
    if read_only:
        check_rights(path, name)
    mode = "ro" if read_only else "rw"
    opening = partial(connect, path, "rwc" if create and not read_only else mode)
    driver: Driver = Inline(partial(opening, busy_seconds=0.0)) if inline else Thread(opening, iter_chunk_size=64)
    with translating(name):
        await driver.open()
    opened = SQLiteConnection(driver, path, name, is_full=synchronous == "full", clock=clock, mode=mode)
    try:
        look = partial(check_readable, name=name) if read_only else partial(lay_out, name=name, create=create)
        with translating(name):
            await trying(partial(driver.call, look))
        lent = ReadOnly(opened) if read_only else opened
        dialects = DIALECT, RULING_DIALECT, copy_dialect(path)
        yield SqlStore(*dialects, lent, SqlPost(POST_DIALECT, lent), SqlFailures(FAILURE_DIALECT, lent))
    finally:
        await opened.close()


def _name_and_place(path: Path) -> tuple[str, Path]:
    """Return what the store is called, and where it stays when the process changes its folder."""
    return f"sqlite:///{path}", path.resolve()
