"""Cases about entries of tables, on a SQLite file."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.on_sqlite import place
from lazymig import Node, Suite
from lazymig.testing.releases import release

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterator

    from benchmarks.measure import Block, Size
    from benchmarks.on_sqlite import Place
    from lazymig.store import Store

ENTRY_BYTES = 200
"""Of an entry's value, as JSON."""

MAKE = """
    CREATE TABLE entries (
        type TEXT, id TEXT, name TEXT, key TEXT, value BLOB, version INTEGER, PRIMARY KEY (type, id, name, key)
    ) WITHOUT ROWID
"""
INSERT = "INSERT INTO entries VALUES ('Log', ?, 'log', ?, ?, 1)"
SELECT = "SELECT key, value FROM entries WHERE type = 'Log' AND id = ? AND name = 'log' ORDER BY key"
CONVERT = """
    UPDATE entries SET version = 2, value = CAST(json_set(
        json_remove(value, '$.message'),
        '$.level', substr(value ->> 'message', 1, instr(value ->> 'message', ': ') - 1),
        '$.text', substr(value ->> 'message', instr(value ->> 'message', ': ') + 2)
    ) AS BLOB)
    WHERE type = 'Log' AND id = ? AND name = 'log'
"""


def suite(*, is_eager: bool) -> Suite:
    """Return a suite whose release 2.0.0 splits the message of each entry."""
    made = Suite("logs")
    log = made.actor_type("Log")

    @log.migration("1.0.0")
    def one(_state: Any, _context: Any) -> None:
        pass

    @log.migration("2.0.0")
    def two(_state: Any, _context: Any) -> None:
        pass

    @two.entries("log", eager=is_eager)
    def split(entry: Any, _context: Any) -> None:
        level, _, text = entry.pop("message").partition(": ")
        entry["level"] = level
        entry["text"] = text

    return made


def pairs(number: int) -> Iterator[tuple[str, Any]]:
    """Yield entries of the older release."""
    for n in range(number):
        entry: dict[str, Any] = {"at": 1_700_000_000 + n, "by": "somebody", "tags": ["a", "b"], "message": "INFO: "}
        entry["message"] += "x" * (ENTRY_BYTES - len(orjson.dumps(entry)))
        yield f"{n:09}", entry


async def fill(store: Store, actor_id: str, number: int) -> None:
    """Store an actor with so many entries by the older release."""
    async with (
        Node(store, [release(suite(is_eager=False), "1.0.0")]) as node,
        node.activate("Log", actor_id) as activation,
    ):
        await activation.state().migrate_and_load(default={"name": actor_id})
        await activation.persist()
        await activation.table("log").put_many(pairs(number))


def _insert(connection: sqlite3.Connection, actor_id: str, number: int) -> None:
    connection.execute(MAKE.replace("TABLE", "TABLE IF NOT EXISTS"))
    connection.executemany(INSERT, ((actor_id, key, orjson.dumps(entry)) for key, entry in pairs(number)))


async def _fill_plain(at: Place, actor_id: str, number: int) -> None:
    await at.transact(_insert, actor_id, number, durable=False)


@asynccontextmanager
async def activation(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """Activate an actor with many entries that none has read yet; without any."""
    async with place("normal") as at:
        await fill(at.store, "many", size.actors)
        await fill(at.store, "none", 0)
        async with Node(at.store, [suite(is_eager=False)]) as node:

            async def block(actor_id: str) -> float:
                started = time.perf_counter()
                for _ in range(size.calls):
                    async with node.activate("Log", actor_id) as held:
                        await held.state().migrate_and_load()
                return (time.perf_counter() - started) / size.calls

            yield lambda: block("many"), lambda: block("none")


@asynccontextmanager
async def conversion(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """Convert all entries of an actor eagerly; by one statement. A call is an entry, a block a new actor."""
    async with place("normal") as at:
        numbers = count()
        async with Node(at.store, [suite(is_eager=True)]) as node:

            async def ours() -> float:
                actor_id = f"{next(numbers):04}"
                await fill(at.store, actor_id, size.calls)
                started = time.perf_counter()
                async with node.activate("Log", actor_id) as held:
                    await held.state().migrate_and_load()
                return (time.perf_counter() - started) / size.calls

            async def base() -> float:
                actor_id = f"{next(numbers):04}"
                await _fill_plain(at, actor_id, size.calls)
                started = time.perf_counter()
                await at.transact(_convert, actor_id, durable=True)
                return (time.perf_counter() - started) / size.calls

            yield ours, base


def _convert(connection: sqlite3.Connection, actor_id: str) -> None:
    connection.execute(CONVERT, [actor_id])


@asynccontextmanager
async def scan(size: Size, *, is_at_once: bool) -> AsyncIterator[tuple[Block, Block]]:
    """Read all entries of an actor; by one SELECT, decoded: row by row, or fetched at once. A call is an entry."""
    async with place("normal") as at:
        await fill(at.store, "a", size.calls)
        await _fill_plain(at, "a", size.calls)
        older = release(suite(is_eager=False), "1.0.0")
        async with Node(at.store, [older]) as node, node.activate("Log", "a") as held:
            await held.state().migrate_and_load()
            log = held.table("log")

            async def ours() -> float:
                found = 0
                started = time.perf_counter()
                async for _, entry in log.scan():
                    found += len(entry)
                seconds = time.perf_counter() - started
                _check(found, size.calls)
                return seconds / size.calls

            async def base() -> float:
                found = 0
                started = time.perf_counter()
                if is_at_once:
                    for _, data in await at.transact(_select, "a", durable=False):
                        found += len(orjson.loads(data))
                else:
                    async with at.plain.execute(SELECT, ["a"]) as cursor:
                        async for _, data in cursor:
                            found += len(orjson.loads(data))
                seconds = time.perf_counter() - started
                _check(found, size.calls)
                return seconds / size.calls

            yield ours, base


def _select(connection: sqlite3.Connection, actor_id: str) -> list[Any]:
    return connection.execute(SELECT, [actor_id]).fetchall()


def _check(found: int, entries: int) -> None:
    if found != 4 * entries:
        raise AssertionError(f"{found} fields of {entries} entries")
