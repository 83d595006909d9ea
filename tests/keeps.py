"""Where the simulated fleets keep their one actor: a store for each schedule, read beside the library."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from psycopg.pq import TransactionStatus

from lazymig import postgres as engine
from lazymig._postgres_copy_sql import copy_dialect
from lazymig._postgres_dealing import dialect
from lazymig._postgres_failure_sql import failure_dialect
from lazymig._postgres_post_sql import post_dialect
from lazymig._postgres_ruling_sql import ruling_dialect
from lazymig._sql import SqlStore
from lazymig._sql_failures import SqlFailures
from lazymig._sql_post import SqlPost
from lazymig._sqlite_opening import lay_out
from lazymig.memory import MemoryStore
from lazymig.sqlite import open_sqlite
from tests import beside, postgres
from tests.tallies import LEGACY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import psycopg

    from lazymig._sql_operations import Batch, Operation, Rows
    from lazymig.store import Store

T = TypeVar("T")

POLL_SECONDS = 0.4
"""How often a node looks for mail: time is virtual, and every look is a step of the schedule."""

UNSYNCED = "-c synchronous_commit=off"
"""No machine crashes here."""

TABLES = ("actor", "state", "lineage", "node", "heartbeat", "offer", "call")

Stored = tuple[tuple[str, ...], dict[str, Any]]
"""Applied versions as the stamp says, in order, and the states."""


class Keep(Protocol):
    """Keeps the actor ("Tally", "t")."""

    async def renew(self) -> None:
        """Forget everything but the actor as it was before there was a lazymig."""
        ...

    def open(self) -> AbstractAsyncContextManager[Store]:
        """Open the store for a process."""
        ...

    def free_locks(self, store: Store) -> None:
        """Free the file locks of a process, as the system does at its end."""
        ...

    def read(self) -> Stored:
        """Read the actor beside the library."""
        ...


class MemoryKeep:
    """One memory store for all processes: heartbeats alone tell who is dead."""

    async def renew(self) -> None:
        """See `Keep.renew`."""
        self._store = MemoryStore(asyncio.get_running_loop().time)
        self._store.post.poll_seconds = POLL_SECONDS
        await self._store.insert("Tally", "main", [("t", LEGACY)])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """See `Keep.open`."""
        yield self._store

    def free_locks(self, store: Store) -> None:
        """There are none."""

    def read(self) -> Stored:
        """See `Keep.read`."""
        (row,) = beside.read_memory(self._store).values()
        return row.applied or (), row.states


class SQLiteKeep:
    """A file, laid out once; each process has an inline connection of its own."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "fleet.db"
        self._locks = folder / "fleet.db-nodes"
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        lay_out(self._connection, "fleet.db")
        self._connection.execute("PRAGMA synchronous = OFF")

    async def renew(self) -> None:
        """See `Keep.renew`."""
        shutil.rmtree(self._locks, ignore_errors=True)
        self._connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute(
            "INSERT INTO actor (type, id, revision, lineage, written_by) VALUES ('Tally', 't', 1, 0, 0)"
        )
        self._connection.execute("INSERT INTO state VALUES ('Tally', 't', 'main', ?)", [LEGACY])
        self._connection.execute("COMMIT")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """See `Keep.open`."""
        clock = asyncio.get_running_loop().time
        async with open_sqlite(self._path, synchronous="normal", clock=clock, inline=True) as store:
            store.post.poll_seconds = POLL_SECONDS
            yield store

    def free_locks(self, store: Store) -> None:
        """See `Keep.free_locks`."""
        presence = store._connection._presence  # type: ignore[attr-defined]  # a process's end shows nowhere else
        while presence._held:
            os.close(presence._held.popitem()[1])

    def read(self) -> Stored:
        """See `Keep.read`."""
        (row,) = beside.rows(self._connection).values()
        return row.applied or (), row.states

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class PostgresKeep:
    """A schema, laid out once; each process has a connection of its own, on which an operation is a step."""

    def __init__(self, url: str) -> None:
        self._place = postgres.place(url)
        self._schema = postgres.schema_of(url)
        self._connection = postgres.connect(options=UNSYNCED)
        asyncio.run(self._lay_out())

    async def _lay_out(self) -> None:
        async with engine.open_postgres(self._place):
            pass

    async def renew(self) -> None:
        """See `Keep.renew`."""
        with self._connection.transaction():
            for table in TABLES:
                self._connection.execute(f"DELETE FROM {self._schema}.{table}")
            columns = "type, id, revision, lineage, written_by"
            self._connection.execute(f"INSERT INTO {self._schema}.actor ({columns}) VALUES ('Tally', 't', 1, 0, 0)")
            self._connection.execute(f"INSERT INTO {self._schema}.state VALUES ('Tally', 't', 'main', %s)", [LEGACY])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """See `Keep.open`."""
        with postgres.connect(options=UNSYNCED) as connection:
            opened = _SteppingConnection(_Stepping(connection), self._place, asyncio.get_running_loop().time)
            opened.poll_seconds = POLL_SECONDS
            post = SqlPost(post_dialect(self._schema), opened)
            dialects = dialect(self._schema), ruling_dialect(self._schema), copy_dialect(self._schema, self._schema)
            failures = SqlFailures(failure_dialect(self._schema), opened)
            yield SqlStore(*dialects, opened, post, failures)

    def free_locks(self, store: Store) -> None:
        """There are none."""

    def read(self) -> Stored:
        """See `Keep.read`."""
        (row,) = beside.rows_of_schema(self._connection, self._schema).values()
        return row.applied or (), row.states

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _Stepping:
    """Runs an operation on the event loop's thread: whole, so that nobody waits for a lock of somebody who waits."""

    trips = 0

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    async def run(self, operation: Callable[[], Operation[T]], **_: bool) -> T:
        """Take all its batches in one transaction."""
        await asyncio.sleep(0)
        found = self._take(operation())
        await asyncio.sleep(0)
        return found

    def _take(self, operation: Operation[T]) -> T:
        try:
            found = self._walk(operation)
        except BaseException:
            operation.close()
            self.connection.rollback()
            raise
        self.connection.commit()
        return found

    def _walk(self, operation: Operation[T]) -> T:
        rows: list[Rows] | None = None
        try:
            while True:
                rows = self._trip(operation.send(rows))  # type: ignore[arg-type]  # a generator starts with None
        except StopIteration as end:
            found: T = end.value
            return found

    def _trip(self, batch: Batch) -> list[Rows]:
        is_first = self.connection.info.transaction_status == TransactionStatus.IDLE
        with self.connection.pipeline():  # which is a transaction, where there is none yet
            if is_first and not batch.is_last:
                self.connection.execute("BEGIN")
            cursors = [self.connection.execute(*statement, binary=True) for statement in batch.statements]
        return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


class _SteppingConnection(engine.PostgresConnection):
    """The store's own, but for heartbeats and notifications, which would need a thread."""

    def __init__(self, driver: _Stepping, place: engine.Place, clock: Callable[[], float]) -> None:
        super().__init__(driver, place, clock)  # type: ignore[arg-type]  # it has what is used of a Driver
        self._beat = partial(driver.connection.execute, dialect(place.schema).beat)
        self._time = clock

    @asynccontextmanager
    async def watch(self, wake: Callable[[str], None]) -> AsyncIterator[None]:
        """See `Post.watch`: nothing quickens."""
        yield

    def open_pulse(self) -> Any:
        """See `Store.open_pulse`."""
        return self

    def beat(self, node_id: str, active: int = 0) -> bool:
        """See `Pulse.beat`."""
        return self._beat({"at": self._time(), "node": node_id, "active": active}).rowcount == 1

    def close(self) -> None:
        """See `Pulse.close`."""
