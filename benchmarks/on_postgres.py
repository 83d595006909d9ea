"""Cases on PostgreSQL, over a connection of psycopg to the same server: commits of both are as durable."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.on_sqlite import activate, each, giving_up, migrated, serving
from benchmarks.servers import postgres_url
from benchmarks.things import value
from lazymig import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Block, Size
    from lazymig import Node

LOAD = "SELECT value FROM plain WHERE id = %s"
SAVE = "UPDATE plain SET value = %s, version = '1.3.0' WHERE id = %s"
RESTORE = "UPDATE plain SET value = %s, version = NULL WHERE version IS NOT NULL"


@asynccontextmanager
async def place(number: int, migrations: int) -> AsyncIterator[tuple[Node, Any, list[str]]]:
    """Yield a node on a new schema, a connection of psycopg with a plain table, and the ids in both."""
    psycopg = import_module("psycopg")
    ids = [f"{n:08}" for n in range(number)]
    data = orjson.dumps(value())
    with postgres_url() as url:
        async with open_store(url) as store, serving(store, migrations) as node:
            for start in range(0, number, 1_000):
                await store.insert("Car", "state", [(actor_id, data) for actor_id in ids[start : start + 1_000]])
            conninfo, _, schema = url.partition("schema=")
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
                await connection.execute(f"SET search_path TO {schema}")
                await connection.execute("CREATE TABLE plain (id text PRIMARY KEY, value bytea, version text)")
                async with connection.cursor().copy("COPY plain (id, value) FROM STDIN (FORMAT binary)") as copy:
                    copy.set_types(["text", "bytea"])
                    for actor_id in ids:
                        await copy.write_row((actor_id, data))
                yield node, connection, ids


@asynccontextmanager
async def cold(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A cold activation under its lock, over one SELECT by key, decoded."""
    async with place(20 * size.calls, 0) as (node, connection, ids):

        async def load(actor_id: str) -> Any:
            cursor = await connection.execute(LOAD, [actor_id])
            (data,) = await cursor.fetchone()
            return orjson.loads(data)

        yield giving_up(node, each(ids, size.calls, partial(activate, node))), each(ids, size.calls, load)


@asynccontextmanager
async def pending(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """An activation with three pending migrations, over SELECT, three functions and UPDATE by hand."""
    async with place(size.total + size.calls, 3) as (node, connection, ids):

        async def upgrade(actor_id: str) -> None:
            cursor = await connection.execute(LOAD, [actor_id])
            (data,) = await cursor.fetchone()
            await connection.execute(SAVE, [migrated(data), actor_id])

        async def restore() -> float:
            seconds = await plain()
            await connection.execute(RESTORE, [orjson.dumps(value())])
            return seconds

        plain = each(ids, size.calls, upgrade)
        yield giving_up(node, each(ids, size.calls, partial(activate, node))), restore
