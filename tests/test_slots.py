"""Migrations that wait for other actors have no slot meanwhile, and leave nothing behind when they are cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.test_max_migrations import Fleet, legacy, pulls, pulls_in_turn
from tests.test_node import settle, until

if TYPE_CHECKING:
    from lazymig import Node
    from lazymig.store import Store

__all__ = ["legacy"]  # a fixture


async def someone_waits(node: Node) -> None:
    """Wait until somebody waits for a slot."""
    await until(lambda: bool(node._residents.slots._free._waiters))  # type: ignore[union-attr]  # it has some


async def test_who_is_cancelled_before_it_goes_on_leaves_the_actor_that_it_got(legacy: Store) -> None:
    fleet = Fleet("c")
    async with fleet.node(legacy, 1) as node:

        async def hold_b() -> None:
            async with node.activate("Tug", "b"):
                fleet.log.append("b held")

        fleet.does["a"] = hold_b
        async with node.activate("Tug", "b"):
            (first,) = pulls(node, "a")
            await until(lambda: fleet.running == {"a"})
            (second,) = pulls(node, "c")
            await until(lambda: "c" in fleet.running)
        await someone_waits(node)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with node.activate("Tug", "b", wait_seconds=0.0):
            pass
        fleet.gates["c"].set()
        assert await second == "c"
    assert "b held" not in fleet.log


async def test_migrations_that_share_an_activation_do_not_wait_for_each_other(legacy: Store) -> None:
    fleet = Fleet()
    go = asyncio.Event()
    async with fleet.node(legacy, 1) as node, node.activate("Tug", "f") as shared:

        async def load_f() -> None:
            await go.wait()
            await shared.state().migrate_and_load()

        fleet.does["a"] = fleet.does["b"] = load_f
        calls = await pulls_in_turn(node, "ab")
        go.set()
        assert await asyncio.gather(*calls) == ["a", "b"]
    assert sorted(fleet.begun()) == ["a", "b", "f"]


async def test_who_is_cancelled_before_it_goes_on_leaves_an_activation_that_others_share(legacy: Store) -> None:
    fleet = Fleet("c", "f")
    go = asyncio.Event()
    async with fleet.node(legacy, 1) as node, node.activate("Tug", "f") as shared:

        async def load_f() -> None:
            await go.wait()
            await shared.state().load()

        fleet.does["a"] = load_f
        (first,) = pulls(node, "a")
        await until(lambda: fleet.running == {"a"})
        second = asyncio.create_task(shared.state().migrate_and_load())
        await someone_waits(node)
        go.set()
        await until(lambda: "f" in fleet.running)  # a waits for it, without its slot
        (third,) = pulls(node, "c")
        await someone_waits(node)
        fleet.gates["f"].set()
        await second
        await until(lambda: "c" in fleet.running)
        await someone_waits(node)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with asyncio.timeout(5):
            assert await shared.state().load() == {}
        fleet.gates["c"].set()
        assert await third == "c"


async def test_of_tasks_of_a_migration_that_go_on_together_one_takes_the_slot(legacy: Store) -> None:
    fleet = Fleet("d")
    begin, go_on = asyncio.Event(), asyncio.Event()
    answers: list[str] = []
    async with fleet.node(legacy, 1) as node:
        await node.call("Tug", "b", "pull")

        async def call_b(go: asyncio.Event) -> None:
            await go.wait()
            answers.append(await node.call("Tug", "b", "pull"))

        async def call_twice() -> None:
            await asyncio.gather(call_b(begin), call_b(go_on))

        fleet.does["a"] = call_twice
        first, second = await pulls_in_turn(node, "ad")
        begin.set()
        await until(lambda: "d" in fleet.running)
        await someone_waits(node)
        go_on.set()
        await node.call("Tug", "b", "pull")
        await settle()  # both have called, and wait for the slot of d
        fleet.gates["d"].set()
        async with asyncio.timeout(5):
            assert [await first, await second] == ["a", "d"]
    assert answers == ["b", "b"]
