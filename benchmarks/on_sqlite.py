"""Cases on a SQLite file."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from benchmarks.things import FUNCTIONS, STATE_BYTES, suite, value
from lazymig import Node, open_store
from lazymig._sqlite_drivers import Thread, connect

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Sequence

    from benchmarks.measure import Block, Size
    from lazymig.store import Store

T = TypeVar("T")

LOAD = "SELECT value FROM plain WHERE id = ?"
LOCK = """
    INSERT INTO plain (id, owner) VALUES (?, 'n')
    ON CONFLICT (id) DO UPDATE SET owner = excluded.owner WHERE owner IS NULL RETURNING value
"""
SAVE = """
    UPDATE plain SET value = ?, revision = revision + 1, version = ? WHERE id = ? AND owner = 'n' RETURNING revision
"""
RESTORE = "UPDATE plain SET owner = NULL, value = ?1 WHERE value <> ?1"


@dataclass(frozen=True, slots=True)
class Place:
    """A store in a new file, and a plain table in another one beside it.

    Attributes:
        store: The store.
        plain: What runs functions of a connection on a thread, as the store does.
        is_full: Whether what must survive a power failure is synced.
    """

    store: Any
    plain: Thread
    is_full: bool

    async def transact(self, function: Callable[..., T], *arguments: Any, durable: bool) -> T:
        """Run a function of the plain table's connection in a transaction, as durable as the store's."""
        return await self.plain.call(partial(self._transact, function, arguments, durable and self.is_full))

    def _transact(self, function: Callable[..., T], arguments: Any, syncs: bool, connection: sqlite3.Connection) -> T:  # noqa: FBT001
        if self.is_full:  # else it is NORMAL for good
            connection.execute(f"PRAGMA synchronous = {'FULL' if syncs else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        found = function(connection, *arguments)
        connection.execute("COMMIT")
        return found


@asynccontextmanager
async def place(synchronous: str) -> AsyncIterator[Place]:
    """Make both files, on the disk that temporary files are on."""
    with tempfile.TemporaryDirectory(prefix="lazymig-") as folder:
        async with open_store(f"sqlite:///{folder}/fleet.db?synchronous={synchronous}") as store:
            plain = Thread(partial(connect, Path(folder) / "plain.db", "rwc"), iter_chunk_size=64)
            await plain.open()
            await plain.call(_make)
            try:
                yield Place(store, plain, synchronous == "full")
            finally:
                await plain.close()


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE plain (id TEXT PRIMARY KEY, value BLOB, owner TEXT, revision INTEGER DEFAULT 0, version TEXT)"
    )


async def fill(store: Store, number: int, size: int = STATE_BYTES) -> list[str]:
    """Store so many actors as old software left them; return their ids."""
    ids = [f"{n:08}" for n in range(number)]
    data = orjson.dumps(value(size))
    for start in range(0, number, 10_000):
        await store.insert("Car", "state", [(actor_id, data) for actor_id in ids[start : start + 10_000]])
    return ids


async def fill_both(at: Place, number: int, size: int = STATE_BYTES) -> list[str]:
    """Fill the store, and the plain table with as many rows; return their ids."""
    ids = await fill(at.store, number, size)
    data = orjson.dumps(value(size))
    await at.transact(_insert, [(actor_id, data) for actor_id in ids], durable=False)
    return ids


def _insert(connection: sqlite3.Connection, rows: list[tuple[str, bytes]]) -> None:
    connection.executemany("INSERT INTO plain (id, value) VALUES (?, ?)", rows)


def _lock(connection: sqlite3.Connection, actor_id: str) -> bytes:
    (data,) = connection.execute(LOCK, [actor_id]).fetchone()
    return bytes(data)


def _save(connection: sqlite3.Connection, actor_id: str, data: bytes) -> None:
    (revision,) = connection.execute(SAVE, [data, "1.3.0", actor_id]).fetchone()
    if not revision:
        raise AssertionError("fenced off")


def each(ids: Sequence[T], calls: int, call: Callable[[T], Any]) -> Block:
    """Return a block that makes a call for each of the next ids."""
    starts = count(0, calls)

    async def block() -> float:
        start = next(starts) % (len(ids) - calls + 1)
        started = time.perf_counter()
        for actor_id in ids[start : start + calls]:
            await call(actor_id)
        return (time.perf_counter() - started) / calls

    return block


def at_once(ids: list[str], calls: int, call: Callable[[str], Any]) -> Block:
    """Return a block that makes a call for each of the next ids at the same time."""
    starts = count(0, calls)

    async def block() -> float:
        start = next(starts) % (len(ids) - calls + 1)
        started = time.perf_counter()
        await asyncio.gather(*(call(actor_id) for actor_id in ids[start : start + calls]))
        return (time.perf_counter() - started) / calls

    return block


def giving_up(node: Node, block: Block) -> Block:
    """Return a block after which, beside the clock, the node gives up what it holds."""

    async def then_give_up() -> float:
        seconds = await block()
        await node._residents.give_all_up()
        return seconds

    return then_give_up


def serving(store: Store, migrations: int) -> Node:
    """Return a node that keeps what it has active."""
    return Node(store, [suite(migrations)], idle_seconds=10_000, lease_seconds=1_000, max_active=10_000_000)


@asynccontextmanager
async def cold(
    size: Size, *, migrations: int = 0, state_bytes: int = STATE_BYTES
) -> AsyncIterator[tuple[Block, Block]]:
    """A cold activation under its lock, nothing pending, over a load of the same bytes in one trip, decoded."""
    async with place("normal") as at, serving(at.store, migrations) as node:
        ids = in_disorder(await fill_both(at, max(size.actors, 20 * size.calls), state_bytes))[: 20 * size.calls]
        if migrations:
            await upgrade_all(node, ids)

        async def load(actor_id: str) -> Any:
            rows = await at.plain.execute_fetchall(LOAD, [actor_id])
            return [orjson.loads(data) for (data,) in rows]

        yield giving_up(node, each(ids, size.calls, partial(activate, node))), each(ids, size.calls, load)


def in_disorder(ids: list[str]) -> list[str]:
    """Return ids spread over the whole store."""
    return random.Random(1).sample(ids, len(ids))  # noqa: S311  (an order)


async def activate(node: Node, actor_id: str) -> None:
    """Call an actor that is not active."""
    await node.call("Car", actor_id, "echo", 1)


async def activate_all(node: Node, ids: Sequence[str]) -> None:
    """Call all, a hundred at a time."""
    for start in range(0, len(ids), 100):
        await asyncio.gather(*(activate(node, actor_id) for actor_id in ids[start : start + 100]))


async def upgrade_all(node: Node, ids: Sequence[str]) -> None:
    """Activate all once, so that nothing is pending any more."""
    await activate_all(node, ids)
    await node._residents.give_all_up()


@asynccontextmanager
async def pending(
    size: Size, *, synchronous: str = "normal", state_bytes: int = STATE_BYTES
) -> AsyncIterator[tuple[Block, Block]]:
    """An activation with three pending migrations, over a hand-written claim, three functions and a fenced save."""
    async with place(synchronous) as at, serving(at.store, 3) as node:
        ids = await fill_both(at, size.total + size.calls, state_bytes)

        async def upgrade(actor_id: str) -> None:
            data = await at.transact(_lock, actor_id, durable=False)
            await at.transact(_save, actor_id, migrated(data), durable=True)

        ours = each(ids, size.calls, partial(activate, node))
        yield giving_up(node, ours), restoring(at, each(ids, size.calls, upgrade), state_bytes)


def migrated(data: bytes) -> bytes:
    """Return what the three functions make of a state."""
    state = orjson.loads(data)
    for function in FUNCTIONS:
        function(state)
    return orjson.dumps(state)


def restoring(at: Place, block: Block, state_bytes: int = STATE_BYTES) -> Block:
    """Return a block after which, beside the clock, the plain table is as before."""
    old = orjson.dumps(value(state_bytes))

    async def then_restore() -> float:
        seconds = await block()
        await at.transact(lambda connection: connection.execute(RESTORE, [old]), durable=False)
        return seconds

    return then_restore


@asynccontextmanager
async def crowd(size: Size, synchronous: str) -> AsyncIterator[tuple[Block, Block]]:
    """A hundred activations at once with three pending migrations, over a synchronous read, change and write each."""
    async with place(synchronous) as at, serving(at.store, 3) as node:
        ids = await fill_both(at, size.total + size.calls)
        starts = count(0, size.calls)

        async def plain() -> float:
            start = next(starts) % (len(ids) - size.calls + 1)
            return await at.plain.call(partial(_change_each, ids[start : start + size.calls], at.is_full))

        yield giving_up(node, at_once(ids, size.calls, partial(activate, node))), restoring(at, plain)


def _change_each(ids: list[str], is_full: bool, connection: sqlite3.Connection) -> float:  # noqa: FBT001
    if is_full:
        connection.execute("PRAGMA synchronous = FULL")
    started = time.perf_counter()
    for actor_id in ids:
        connection.execute("BEGIN IMMEDIATE")
        (data,) = connection.execute(LOAD, [actor_id]).fetchone()
        connection.execute("UPDATE plain SET value = ? WHERE id = ?", [migrated(data), actor_id])
        connection.execute("COMMIT")
    return (time.perf_counter() - started) / len(ids)


@asynccontextmanager
async def grouped(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """The same hundred, synced to disk, with and without sharing transactions."""
    async with (
        place("full") as at,
        place("full") as apart,
        serving(at.store, 3) as node,
        serving(apart.store, 3) as lonely,
    ):
        apart.store._connection._groups.largest = 1
        ids = await fill(at.store, size.total + size.calls)
        more = await fill(apart.store, 2 * (size.total + size.calls))
        ours = giving_up(node, at_once(ids, size.calls, partial(activate, node)))
        yield ours, giving_up(lonely, at_once(more, size.calls, partial(activate, lonely)))


@asynccontextmanager
async def populated(size: Size, few: int) -> AsyncIterator[tuple[Block, Block]]:
    """A cold activation in a store of many actors of 300 bytes, spread over it, over one in a store of few."""
    async with (
        place("normal") as at,
        place("normal") as beside,
        serving(at.store, 0) as node,
        serving(beside.store, 0) as other,
    ):
        sides = []
        for where, number, serves in ((at, size.actors, node), (beside, few, other)):
            ids = in_disorder(await fill(where.store, number, 300))
            sides.append(giving_up(serves, each(ids, size.calls, partial(activate, serves))))
        yield sides[0], sides[1]
