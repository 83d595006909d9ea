"""What rolling deploys cost: gates and the census on many actors, and activations under a write version, on SQLite."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.measure import repeated
from benchmarks.on_sqlite import activate, each, fill, giving_up, serving
from benchmarks.things import suite, value
from lazymig import Node, open_store, rollout
from lazymig._sqlite_drivers import Thread, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Block, Size
    from lazymig import Suite
    from lazymig.store import Store

FLEET = """
    INSERT INTO actor (type, id, revision, version, lineage, written_by)
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :actors)
    SELECT 'Car', printf('%08d', i), 1, version, lineage, written_by FROM n, actor WHERE id = 'pattern'
"""
COUNT = "SELECT lineage, COUNT(*) FROM actor WHERE type = 'Car' GROUP BY lineage"


@asynccontextmanager
async def fleet(actors: int) -> AsyncIterator[tuple[Store, Path]]:
    """Yield a store with many actors that are up to date, as a row each, and its file."""
    with tempfile.TemporaryDirectory(prefix="lazymig-") as folder:
        path = Path(folder) / "fleet.db"
        async with open_store(f"sqlite:///{path}") as store:
            await store.insert("Car", "state", [("pattern", orjson.dumps(value()))])
            async with Node(store, [suite(3)]) as node, node.activate("Car", "pattern") as activation:
                await activation.state().migrate_and_load()
            with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
                connection.execute(FLEET, {"actors": actors})
            yield store, path


@asynccontextmanager
async def gate(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A gate that says yes, so that no actor is counted, beside a SELECT by key."""
    async with fleet(size.actors) as (store, path):
        plain = Thread(partial(connect, path, "rw"), iter_chunk_size=64)
        await plain.open()
        try:

            async def ask() -> None:
                if not (await rollout.gate_retire(store, "Car", "1.3.0")).allowed:
                    raise AssertionError("all actors have it")

            async def select() -> Any:
                return await plain.execute_fetchall("SELECT * FROM actor WHERE type = 'Car' AND id = 'pattern'", [])

            yield repeated(ask, size.calls), repeated(select, size.calls)
        finally:
            await plain.close()


@asynccontextmanager
async def census(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A census, over a bare GROUP BY."""
    async with fleet(size.actors) as (store, path):
        plain = Thread(partial(connect, path, "rw"), iter_chunk_size=64)
        await plain.open()
        try:

            async def ask() -> Any:
                return await rollout.census(store, "Car")

            async def group() -> Any:
                return await plain.execute_fetchall(COUNT, [])

            yield repeated(ask, size.calls), repeated(group, size.calls)
        finally:
            await plain.close()


def _with_ways_down(migrations: int) -> Suite:
    made = suite(migrations)
    for migration in made.actor_types["Car"].migrations:
        migration.down(_as_it_is)
    return made


def _as_it_is(state: Any, context: object) -> None:
    """Change nothing: nothing is brought down here."""


@asynccontextmanager
async def pinned(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A cold activation that takes a base of the state's size, over one of a state without a base; nothing pending."""
    options: dict[str, Any] = {"idle_seconds": 10_000, "lease_seconds": 1_000, "max_active": 10_000_000}
    with tempfile.TemporaryDirectory(prefix="lazymig-") as folder:
        async with (
            open_store(f"sqlite:///{folder}/pinned.db?synchronous=normal") as store,
            open_store(f"sqlite:///{folder}/plain.db?synchronous=normal") as other,
            serving(other, 0) as plain,
        ):
            await rollout.pin(store, "Car", "0.0.0")
            async with Node(store, [_with_ways_down(3)], **options) as node:
                ids = await fill(store, 20 * size.calls)
                await fill(other, 20 * size.calls)
                for actor_id in ids:
                    await activate(node, actor_id)  # makes its base
                await node._residents.give_all_up()
                yield (
                    giving_up(node, each(ids, size.calls, partial(activate, node))),
                    giving_up(plain, each(ids, size.calls, partial(activate, plain))),
                )
