"""Notifications quicken travelling calls on PostgreSQL, and nothing depends on them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from lazymig import Actor, ActorKey, Node, Suite, action, open_store
from lazymig import postgres as lazymig_postgres
from lazymig._fleet_records import Call
from lazymig._records import NodeRecord
from lazymig.errors import InvalidStoreUrlError
from tests import postgres
from tests.test_node import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


async def test_notifications_quicken_calls_in_small_fleets_and_are_left_out_in_large_ones() -> None:
    class Box(Actor):
        @action
        async def name(self) -> str:
            return "a box"

    suite = Suite("boxes")
    suite.actor_type("Box", Box)
    with postgres.schema_url() as url:
        async with open_store(url) as store, open_store(url) as other, listening() as heard:
            store.post.poll_seconds = other.post.poll_seconds = 1_000.0
            async with Node(store, [suite]), Node(other) as client, asyncio.timeout(30):
                assert await client.call("Box", "a", "name") == "a box"
            assert await told(heard) >= {""}
            for number in range(51):
                await store.register(NodeRecord(f"n{number}", "n", None, 1_000.0))
            await store.post.send(Call("last", ActorKey("Box", "a"), "name", b"[[],{}]", "s", 1.0), max_waiting=9)
            assert await told(heard) == set()


async def test_a_connection_for_notifications_that_can_not_be_made_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail_once(place: Any) -> Any:
        tries.append(place)
        if len(tries) == 1:  # such as while a service file is written anew
            raise InvalidStoreUrlError(place.name, "planted")
        return await connect(place)

    tries: list[Any] = []
    heard: list[str] = []
    connect = lazymig_postgres._connect
    with postgres.schema_url() as url:
        async with open_store(url) as store:
            monkeypatch.setattr(lazymig_postgres, "_connect", fail_once)
            monkeypatch.setattr(lazymig_postgres, "LISTEN_AGAIN_SECONDS", 0.01)
            async with store.post.watch(heard.append), asyncio.timeout(30):
                await until(lambda: bool(heard))
    assert len(tries) == 2


@asynccontextmanager
async def listening() -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(postgres.server_url(), autocommit=True) as connection:
        await connection.execute("LISTEN lazymig_call")
        yield connection


async def told(connection: psycopg.AsyncConnection[Any]) -> set[str]:
    """Return what was notified so far: the server hands it out before its answer to a statement."""
    await connection.execute("SELECT 1")
    return {notification.payload async for notification in connection.notifies(timeout=0.2)}
