"""Where the simulated fleets keep their one actor: a store for each schedule, read beside the library."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from lazymig.memory import MemoryStore
from lazymig.sqlite import lay_out, open_sqlite
from tests import beside
from tests.tallies import LEGACY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lazymig.store import Store

POLL_SECONDS = 0.2
"""How often a node looks for mail: time is virtual, and every look is a step of the schedule."""

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
        for table in ("actor", "state", "lineage", "node", "heartbeat", "offer", "call"):
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("INSERT INTO actor (type, id, revision) VALUES ('Tally', 't', 1)")
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
