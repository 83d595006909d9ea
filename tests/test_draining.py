"""Draining, and `deactivate()` that does what it should not: nothing stays behind, and the node goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Actor, Node, Suite, action, errors
from lazymig.testing import FaultyStore
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig.store import Store


def suite_of(end: Callable[[], Awaitable[None]], ended: list[str]) -> Suite:
    """Return a suite whose actors end as they are told."""

    class Odd(Actor):
        def __init__(self, activation: Any) -> None:
            self.id = activation.key.id

        async def deactivate(self) -> None:
            ended.append(self.id)
            await end()

        @action
        async def run(self) -> str:
            return str(self.id)

    suite = Suite("odd")
    suite.actor_type("Odd", Odd)
    return suite


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def test_a_node_goes_on_when_a_deactivation_cancels_its_own_task(store: Store) -> None:
    ended: list[str] = []
    async with Node(store, [suite_of(cancel_itself, ended)], idle_seconds=0.05) as node, Node(store) as client:
        for number in range(3):
            assert await client.call("Odd", str(number), "run") == str(number)
            await until(lambda number=number: len(ended) > number and node._residents.active == 0)  # type: ignore[misc]
        assert ended == ["0", "1", "2"]
        assert await client.call("Odd", "9", "run") == "9"


async def test_draining_gives_all_up_though_deactivations_cancel_their_own_task(store: Store) -> None:
    ended: list[str] = []
    async with Node(store, [suite_of(cancel_itself, ended)], idle_seconds=1_000) as node:
        for number in range(5):
            await node.call("Odd", str(number), "run")
        await node.drain()
        assert node._residents.active == 0
    assert sorted(ended) == list("01234")


async def test_a_node_left_while_it_drains_can_be_used_again(store: Store) -> None:
    ended: list[str] = []
    gate = asyncio.Event()
    node = Node(store, [suite_of(gate.wait, ended)], idle_seconds=1_000, grace_seconds=0.05)  # type: ignore[arg-type]
    async with node:
        await node.call("Odd", "a", "run")
        draining = asyncio.create_task(node.drain())
        await until(lambda: ended == ["a"])
    await asyncio.wait([draining])
    assert draining.cancelled()
    gate.set()
    async with node, asyncio.timeout(20):
        assert await node.call("Odd", "b", "run") == "b"
        await node.drain()
    assert ended == ["a", "b"]


async def test_a_node_that_was_told_to_drain_does_so_though_its_store_fails(store: Store) -> None:
    """And stays so after a new registration, of which the store must be told."""

    async def fail(node_id: str) -> bool:
        tries.append(node_id)
        if len(tries) <= 2:
            raise errors.StoreUnavailableError("planted")
        return await store.drain(node_id)

    tries: list[str] = []
    faulty = FaultyStore(store)
    faulty.drain = fail  # type: ignore[method-assign]
    async with Node(faulty, [suite_of(settle, [])], idle_seconds=1_000) as node:
        await node.call("Odd", "a", "run")
        await store.drain(node.node_id)
        await until(lambda: node._calls.is_draining and node._residents.active == 0)
        assert tries == []
        before = node.node_id
        await store.unregister(before)
        node._membership.expire()
        async with asyncio.timeout(30):
            while not any(found.is_draining for found in await store.nodes()):  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0.05)
        assert node.node_id != before
        assert node._calls.is_draining
        assert len(tries) == 3


async def test_who_asks_to_drain_while_the_node_does_so_by_itself_is_told_of_its_failure(store: Store) -> None:
    async def fail(node_id: str) -> bool:
        tries.append(node_id)
        if len(tries) > 1:
            return await store.drain(node_id)
        await gate.wait()
        raise errors.StoreUnavailableError("planted")

    tries: list[str] = []
    gate = asyncio.Event()
    faulty = FaultyStore(store)
    faulty.drain = fail  # type: ignore[method-assign]
    async with Node(faulty, [suite_of(settle, [])], idle_seconds=1_000) as node, asyncio.timeout(20):
        node._calls.is_draining = True  # as after a new registration
        await until(lambda: len(tries) == 1)
        draining = asyncio.create_task(node.drain())
        await settle()
        gate.set()
        with pytest.raises(errors.StoreUnavailableError):
            await draining
        await until(lambda: len(tries) == 2 and bool(node._draining and node._draining.done()))
        assert node._calls.is_draining
