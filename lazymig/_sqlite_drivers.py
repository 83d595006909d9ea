"""Where SQLite's statements run: on aiosqlite's thread, or on the event loop's own.

Rules:

1. A driver takes one call after the other, and an operation is one transaction.
2. Writing transactions begin IMMEDIATE: one that begins as a reader and then writes can't wait for its turn.
3. What was begun on the thread goes on when its await is cancelled.
4. The inline driver is for deterministic schedulers: it gives others a turn before and after each statement, and waits
   for another connection's transaction on the event loop, never in SQLite. Cut off between two statements, the
   operation has not happened.
5. Text that is no UTF-8 is found out by failing: sqlite3 refuses the whole statement without saying whose text it is,
   and a decoder of ours for all text makes every page of a scan a third slower. The statement is executed again in the
   same transaction, so one that writes and returns rows must leave and mean the same when executed twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from functools import partial
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import aiosqlite
import anyio

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from lazymig._sql_operations import Batch, Operation

T = TypeVar("T")
Steps: TypeAlias = "Generator[None, None, T]"

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's transaction."""

RETRY_SECONDS = 0.005
"""How soon something that SQLite refuses instead of waiting is tried again."""

PRIMARY_CODE = 0xFF
"""SQLite's extended error codes carry the primary one in their lowest byte."""

_SECOND = itemgetter(1)

FETCHED = 64
"""How many rows are fetched at once where their bytes are counted."""

_NO_UTF8 = "Could not decode to UTF-8"
"""How sqlite3's error begins, which has no code."""


def connect(path: Path, mode: str, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection in autocommit mode: transactions are begun by name."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_seconds, check_same_thread=False)


def _fetch(connection: sqlite3.Connection, statement: str, parameters: Mapping[str, Any], batch: Batch) -> list[Any]:
    """Return a statement's rows; bytes of text that are no UTF-8 come as lone surrogates."""
    if batch.rows:
        return connection.executemany(statement, batch.rows).fetchall()
    try:
        return _read(connection.execute(statement, parameters), batch.max_bytes)
    except sqlite3.OperationalError as error:
        if not (connection.in_transaction and str(error).startswith(_NO_UTF8)):
            raise
    connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        return _read(connection.execute(statement, parameters), batch.max_bytes)
    finally:
        connection.text_factory = str


def _read(cursor: sqlite3.Cursor, max_bytes: int | None) -> list[Any]:
    if max_bytes is None:
        return cursor.fetchall()
    rows: list[Any] = []
    size = 0
    while more := cursor.fetchmany(FETCHED):
        try:
            added = sum(map(len, map(_SECOND, more)))
        except TypeError:  # a damaged row has a number there
            added = sum(_sizes(more))
        if size + added >= max_bytes:
            so_far = enumerate(accumulate(_sizes(more), initial=size))
            place = next(place for place, reached in so_far if reached >= max_bytes)
            rows += more[:place]
            if place < len(more) or cursor.fetchone():
                rows.append(())
            cursor.close()
            break
        rows += more
        size += added
    return rows


def _sizes(rows: Sequence[Any]) -> list[int]:
    return [len(row[1]) if isinstance(row[1], (bytes, str)) else 0 for row in rows]


class InTheWayError(Exception):
    """It is not for the event loop's thread; nothing was done."""


def steps(
    connection: sqlite3.Connection, operation: Operation[T], *, writes: bool, may_be_large: bool = True
) -> Steps[T]:
    """Run one operation in one transaction, a statement a step; it is rolled back if anything raises.

    A statement's error is raised in the operation, which may go on after it (see `lazymig._sqlite_groups`).

    Raises:
        InTheWayError: It turned out to be large, and may not be.
    """
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        resume: Callable[[Any], Batch] = operation.send
        outcome: Any = None
        while True:
            yield
            try:
                batch = resume(outcome)
            except StopIteration as end:
                found: T = end.value
                break
            if batch.is_large and not may_be_large:
                raise InTheWayError
            resume, outcome = operation.send, []
            try:
                for number, (statement, parameters) in enumerate(batch.statements):
                    if number:
                        yield
                    outcome.append(_fetch(connection, statement, parameters, batch))
            except Exception as error:  # not only SQLite's: memory may be short, a number too large
                resume, outcome = operation.throw, error
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found


def drive(walk: Steps[T]) -> T:
    """Take all steps at once."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            found: T = end.value
            return found


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another connection's transaction was in the way."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE == sqlite3.SQLITE_BUSY


class Driver(Protocol):
    """Where a connection's statements run, one call after the other.

    Attributes:
        pulse_busy_seconds: How long a heartbeat waits for another connection's transaction.
        has_groups: Whether operations that wait at the same time share a transaction.
    """

    pulse_busy_seconds: float
    has_groups: bool

    async def open(self) -> None:
        """Open the file; nothing is left of it if that fails."""
        ...

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function of the connection returns."""
        ...

    async def walk(self, begin: Callable[[sqlite3.Connection], Steps[T]]) -> T:
        """Take the steps of an operation."""
        ...

    async def close(self) -> None:
        """Finish what is queued, and close the file."""
        ...


async def _join(thread: threading.Thread) -> None:
    """Await a thread's end, whoever cancels."""
    joining = asyncio.ensure_future(asyncio.to_thread(thread.join))
    with anyio.CancelScope(shield=True):  # a cancelled scope would cancel again in every turn of the loop
        while not joining.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([joining])


class Thread(aiosqlite.Connection):
    """aiosqlite has no public way to run a function on its thread; this is the one place that uses the private one."""

    pulse_busy_seconds = 0.25
    """A heartbeat counts from when it was sent, so it is better sent anew than sent late."""

    has_groups = True

    async def open(self) -> None:
        """See `Driver.open`; cut off, it has closed what the thread opened meanwhile."""
        made: list[sqlite3.Connection] = []
        connect = self._connector

        def connect_and_note() -> sqlite3.Connection:
            made.append(connect())
            return made[0]

        self._connector = connect_and_note
        try:
            await self
        except BaseException:
            await _join(self._thread)  # it reports to the event loop, which must not be gone
            for connection in made:
                connection.close()
            raise

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """See `Driver.call`."""
        result: T = await self._execute(function, self._conn)  # type: ignore[no-untyped-call]  # theirs
        return result

    async def walk(self, begin: Callable[[sqlite3.Connection], Steps[T]]) -> T:
        """See `Driver.walk`."""
        return await self.call(lambda connection: drive(begin(connection)))


class Inline:
    """Runs on the event loop's thread, a turn a statement."""

    pulse_busy_seconds = 0.0
    has_groups = False

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._turns = asyncio.Lock()

    async def open(self) -> None:
        """See `Driver.open`."""
        self._connection = self._connect()

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """See `Driver.call`."""
        async with self._turns:
            return function(self._connection)

    async def walk(self, begin: Callable[[sqlite3.Connection], Steps[T]]) -> T:
        """See `Driver.walk`; cut off between two statements, it has not happened."""
        async with self._turns:
            walk = await self._begin(begin)
            with closing(walk):
                while True:
                    await asyncio.sleep(0)
                    try:
                        next(walk)
                    except StopIteration as end:
                        found: T = end.value
                        break
        await asyncio.sleep(0)
        return found

    async def _begin(self, begin: Callable[[sqlite3.Connection], Steps[T]]) -> Steps[T]:
        """Begin the transaction as soon as no other one is in the way."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + BUSY_SECONDS
        while True:
            await asyncio.sleep(0)
            walk = begin(self._connection)
            try:
                next(walk)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or clock() > deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return walk

    async def close(self) -> None:
        """See `Driver.close`."""
        self._connection.close()
