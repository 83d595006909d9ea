"""SQLite: opening and laying out a file, and a connection on aiosqlite's thread.

Rules:

1. One connection, one thread, one writer: operations queue, each is one trip and one transaction.
2. Commits are synced to disk (``synchronous=FULL``) unless the URL says otherwise; claims, releases and heartbeats are
   not, because a lock need not survive a power failure. In WAL mode a later sync covers what was written before it.
3. Writing transactions begin IMMEDIATE: one that begins as a reader and then writes can't wait for its turn.
4. The layout is looked at before anything is changed: a newer one, or another program's file, is left untouched.
5. Heartbeats are measured by the machine's monotonic clock, which all its processes share and no clock step moves;
   one from before a reboot lies in the future and counts as dead.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiosqlite

from lazymig._presence import Presence
from lazymig._sql import SqlStore
from lazymig._sqlite_sql import APPLICATION_ID, DIALECT, LAYOUTS
from lazymig.errors import (
    StoreClosedError,
    StoreError,
    StoreLayoutError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from lazymig._sql import Operation

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's transaction."""

PULSE_BUSY_SECONDS = 0.25
"""The same for a heartbeat: it counts from when it was sent, so it is better sent anew than sent late."""

SWITCH_RETRY_SECONDS = 0.005
"""How soon a refused switch to the write-ahead log is tried again."""

_READ_ONLY = frozenset({sqlite3.SQLITE_READONLY})
_UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_PRIMARY_CODE = 0xFF
"""SQLite's extended error codes carry the primary one in their lowest byte."""


def translate(error: sqlite3.Error, name: str) -> StoreError:
    """Return what a driver's error means to a user."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code in _READ_ONLY:
        return StoreReadOnlyError(
            f"{name} can't be written ({error}). Give this process the right to write file and folder."
        )
    if code in _UNREADABLE:
        return StoreLayoutError(f"{name} is no SQLite database, or a damaged one ({error}). Put a backup in its place.")
    if code == sqlite3.SQLITE_TOOBIG:
        return StoreError(f"a value is too large for {name} ({error}). Split the state.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreError(f"{name} can't be opened ({error}). Check the path and its folder's rights.")
    return StoreUnavailableError(f"{name} did not take the operation ({error}). Nothing was stored; try again.")


@contextmanager
def translating(name: str) -> Iterator[None]:
    """Let no driver error out."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, name) from error


def connect(path: Path, mode: str, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection in autocommit mode: transactions are begun by name."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_seconds, check_same_thread=False)


def drive(connection: sqlite3.Connection, operation: Operation[T], *, writes: bool) -> T:
    """Run one operation in one transaction; it is rolled back if anything raises."""
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        rows: list[Any] | None = None
        while True:
            try:
                statement, parameters = operation.send(rows)  # type: ignore[arg-type]  # a generator starts with None
            except StopIteration as end:
                found: T = end.value
                break
            rows = connection.execute(statement, parameters).fetchall()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found


def lay_out(connection: sqlite3.Connection, name: str, *, create: bool = True) -> None:
    """Bring the file to this release's layout in one transaction, or refuse it untouched.

    Raises:
        StoreLayoutError: It is another program's, of a newer layout, or empty and not to be made a store.
    """
    version = _layout_of(connection, name)
    if version == len(LAYOUTS):
        return
    if not version and not create:
        raise StoreLayoutError(f"{name} is empty. Check the path; 'lazymig import' or a Node makes a store of it.")
    journal = _write_ahead(connection)
    if journal != "wal":
        raise StoreError(f"{name} can't use a write-ahead log (journal mode {journal!r}). Keep it on a local disk.")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in LAYOUTS[_layout_of(connection, name) :]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(LAYOUTS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Switch to a write-ahead log; where several switch at once, SQLite refuses all but one instead of waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(SWITCH_RETRY_SECONDS)


_LAYOUT = "SELECT * FROM pragma_application_id, pragma_user_version, (SELECT COUNT(*) FROM sqlite_master)"
"""One statement, so that another process can't lay the file out between two looks at it."""


def _layout_of(connection: sqlite3.Connection, name: str) -> int:
    application, version, tables = connection.execute(_LAYOUT).fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreLayoutError(f"{name} is another program's database. Give lazymig a file of its own.")
    if version > len(LAYOUTS):
        raise StoreLayoutError(
            f"{name} has layout {version}, this release reads up to {len(LAYOUTS)}; it was not touched. "
            f"Use the release of lazymig that wrote it, or a newer one."
        )
    return int(version)


class _Connection(aiosqlite.Connection):
    """aiosqlite has no public way to run a function on its thread; this is the one place that uses the private one."""

    async def on_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        result: T = await self._execute(function, self._conn, *arguments)  # type: ignore[no-untyped-call]  # theirs
        return result

    async def ended(self) -> None:
        """Wait for the thread's end, after a failed start: it reports to the event loop, which must not be gone."""
        await asyncio.to_thread(self._thread.join)


class SQLitePulse:
    """Heartbeats on a connection of their own, so that neither a busy loop nor a busy store delays them."""

    def __init__(self, path: Path, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        with translating(name):
            self._connection = connect(path, "rw", PULSE_BUSY_SECONDS)
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def beat(self, node_id: str) -> bool:
        """See `Pulse.beat`."""
        with translating(self._name):
            return self._connection.execute(DIALECT.beat, {"at": self._clock(), "node": node_id}).rowcount == 1

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class SQLiteConnection:
    """Drives operations on aiosqlite's thread; the `Connection` of a SQLite store.

    Attributes:
        name: The store's URL.
        trips: How many operations were handed to the thread.
        commits: How many of them were durable.
    """

    def __init__(
        self, connection: _Connection, path: Path, name: str, *, is_full: bool, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.trips = 0
        self.commits = 0
        self.now = clock
        self._connection = connection
        self._path = path
        self._is_full = is_full
        self._is_syncing: bool | None = None
        self._is_closed = False
        self._presence = Presence(path.with_name(f"{path.name}-nodes"))

    async def run(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """See `Connection.run`."""
        if self._is_closed:
            raise StoreClosedError(self.name)
        self.trips += 1
        self.commits += durable
        with translating(self.name):
            return await self._connection.on_thread(partial(self._run, writes=writes, durable=durable), operation)

    def _run(
        self, connection: sqlite3.Connection, operation: Callable[[], Operation[T]], *, writes: bool, durable: bool
    ) -> T:
        if writes and (syncs := durable and self._is_full) != self._is_syncing:
            connection.execute(f"PRAGMA synchronous = {'FULL' if syncs else 'NORMAL'}")
            self._is_syncing = syncs
        return drive(connection, operation(), writes=writes)

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

    def is_dead(self, node_id: str) -> bool:
        """Tell whether the node's file lock is free."""
        return self._presence.is_dead(node_id)

    def open_pulse(self) -> SQLitePulse:
        """See `Store.open_pulse`."""
        return SQLitePulse(self._path, self.name, self.now)

    async def close(self) -> None:
        """Finish what is queued, close the file, give the file locks up."""
        self._is_closed = True
        try:
            await self._connection.close()
        finally:
            self._presence.close()


@asynccontextmanager
async def open_sqlite(
    path: Path, *, synchronous: str = "full", create: bool = True, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[SqlStore]:
    """Open the store in a SQLite file, made if it isn't there.

    Args:
        path: The file; its folder must exist.
        synchronous: "full", or "normal": a power failure may lose the last commits, never tear one.
        create: Whether a missing file is made.
        clock: Seconds of a clock that all processes on the file share and that never goes back.

    Raises:
        StoreError: It can't be opened, or is no store of this release; the file was not touched then.
    """
    name, path = _name_and_place(path)
    connection = _Connection(partial(connect, path, "rwc" if create else "rw"), iter_chunk_size=64)
    try:
        with translating(name):
            await connection
    except BaseException:
        await connection.ended()
        raise
    opened = SQLiteConnection(connection, path, name, is_full=synchronous == "full", clock=clock)
    try:
        with translating(name):
            await connection.on_thread(partial(lay_out, name=name, create=create))
        yield SqlStore(DIALECT, opened)
    finally:
        await opened.close()


def _name_and_place(path: Path) -> tuple[str, Path]:
    """Return what the store is called, and where it stays when the process changes its folder."""
    return f"sqlite:///{path}", path.resolve()
