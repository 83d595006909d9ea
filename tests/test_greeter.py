"""Changed logic without downtime: the deploy steps that suites/greeter.py documents, with two releases side by side."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node
from lazymig.errors import UnknownActionError
from suites.greeter import RELEASES, Switchboard, software

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store

STEPS = list(pairwise(RELEASES))


@asynccontextmanager
async def running(store: Store, release: int) -> AsyncIterator[Node]:
    """Run a process of a release."""
    switchboard = Switchboard()
    async with Node(store, [software(release, switchboard)], label=f"release {release}") as node:
        switchboard.node = node
        yield node


async def owner(node: Node, actor_id: str) -> str | None:
    record = await node.inspect("Greeter", actor_id)
    assert record is not None
    return record.owner


async def settle_in(node: Node, release: int, actor_id: str, *, service: bool) -> None:
    """Bring an actor up on a node: the greeter by greeting once, or the service by welcoming somebody else."""
    if service:
        assert (await node.call("Reception", actor_id, "welcome", {"name": "Eve"}))["text"] == "Hello, Eve!"
    else:
        await greet_as(node, release, actor_id)
        assert await owner(node, actor_id) == node.node_id


async def greet_as(node: Node, release: int, actor_id: str) -> Any:
    """Call a greeter as the software of a release does; return the one text."""
    if release <= 2:
        return (await node.call("Greeter", actor_id, "greet", {"name": "Ann"}))["text"]
    action = "greet" if release >= 5 else "greet_v1"
    return (await node.call("Greeter", actor_id, action, {"names": ["Ann"]}))["texts"][0]


async def times(node: Node, actor_id: str) -> int:
    record = await node.inspect("Greeter", actor_id)
    assert record is not None
    stored: int = record.states["state"]["times"]
    return stored


@pytest.mark.parametrize(("before", "after"), STEPS)
async def test_every_caller_is_answered_at_every_step_wherever_the_actors_are(
    store: Store, before: int, after: int
) -> None:
    async with running(store, before) as old, running(store, after) as new:
        for greeter_at, service_at, asked in product((old, new), repeat=3):
            actor_id = f"{greeter_at.label}, {service_at.label}, {asked.label}"
            await settle_in(greeter_at, before if greeter_at is old else after, actor_id, service=False)
            await settle_in(service_at, before, actor_id, service=True)
            for release in (before, after):
                assert await greet_as(asked, release, actor_id) == "Hello, Ann!"
            for options in ({"name": "Ann"}, {"name": "Ann", "language": "en"}):
                assert (await asked.call("Reception", actor_id, "welcome", options))["text"] == "Hello, Ann!"
            assert await times(asked, actor_id) == 6


@pytest.mark.parametrize(("before", "after"), STEPS)
async def test_what_the_old_process_had_is_answered_by_the_new_one_when_it_is_gone(
    store: Store, before: int, after: int
) -> None:
    async with running(store, after) as new:
        async with running(store, before) as old:
            await settle_in(old, before, "a", service=False)
            await settle_in(old, before, "a", service=True)
        assert (await new.call("Reception", "a", "welcome", {"name": "Ann"}))["text"] == "Hello, Ann!"
        assert await greet_as(new, after, "a") == "Hello, Ann!"
        assert (await owner(new, "a"), await times(new, "a")) == (new.node_id, 4)


async def test_an_additional_parameter_and_result_field_count_where_the_new_release_answers(store: Store) -> None:
    options = {"name": "Ann", "language": "nl"}
    async with running(store, 1) as old, running(store, 2) as new:
        for asked in (old, new):
            await settle_in(old, 1, f"old {asked.label}", service=False)
            assert await asked.call("Greeter", f"old {asked.label}", "greet", options) == {"text": "Hello, Ann!"}
            await settle_in(new, 2, f"new {asked.label}", service=False)
            expected = {"text": "Hallo, Ann!", "times": 2}
            assert await asked.call("Greeter", f"new {asked.label}", "greet", options) == expected


async def test_an_action_that_only_the_new_release_has_moves_the_actor_once(store: Store) -> None:
    async with running(store, 2) as old, running(store, 3) as new:
        for asked in (old, new):
            actor_id = f"asked of {asked.label}"
            await settle_in(old, 2, actor_id, service=False)
            everybody = {"names": ["Ann", "Bo"], "language": "pt"}
            result = await asked.call("Greeter", actor_id, "greet_v1", everybody)
            assert result == {"texts": ["Olá, Ann!", "Olá, Bo!"], "times": 3}
            assert await owner(asked, actor_id) == new.node_id
            for again in (old, new):
                assert "times" in await again.call("Greeter", actor_id, "greet", {"name": "Cy"})
                assert (await again.call("Greeter", actor_id, "greet_v1", everybody))["texts"][0] == "Olá, Ann!"
                assert await owner(again, actor_id) == new.node_id


async def test_a_service_of_the_old_release_hands_over_what_only_the_new_one_offers(store: Store) -> None:
    async with running(store, 2) as old, running(store, 3):
        await settle_in(old, 2, "a", service=True)
        for _ in range(2):
            result = await old.call("Reception", "a", "welcome_all", {"names": ["Ann", "Bo"]})
            assert result["texts"] == ["Hello, Ann!", "Hello, Bo!"]


async def test_a_client_without_software_welcomes_at_every_step(store: Store) -> None:
    async with Node(store) as client:
        for before, after in STEPS:
            async with running(store, before), running(store, after):
                for options in ({"name": "Ann"}, {"name": "Bo", "language": "en"}):
                    result = await client.call("Reception", "a", "welcome", options)
                    assert result["text"] == f"Hello, {options['name']}!"


class Traffic:
    """Callers that welcome Ann again and again, each at a reception of its own."""

    def __init__(self, client: Node) -> None:
        self.client = client
        self.answered = dict.fromkeys(("a", "b", "c"), 0)
        self.is_over = False
        self._answer = asyncio.Event()

    async def keep_calling(self, actor_id: str) -> None:
        while not self.is_over:
            result = await self.client.call("Reception", actor_id, "welcome", {"name": "Ann"})
            assert result["text"] == "Hello, Ann!"
            self.answered[actor_id] += 1
            self._answer.set()

    async def answer_everybody(self) -> None:
        """Return when each caller has had three more answers."""
        enough = {actor_id: number + 3 for actor_id, number in self.answered.items()}
        while any(self.answered[actor_id] < number for actor_id, number in enough.items()):
            self._answer.clear()
            await self._answer.wait()


@pytest.mark.parametrize("is_drained", [False, True], ids=["stopped", "drained"])
async def test_no_call_fails_while_two_processes_are_replaced_release_by_release(
    store: Store, *, is_drained: bool
) -> None:
    async with AsyncExitStack() as stack:
        traffic = Traffic(await stack.enter_async_context(Node(store)))
        processes = [AsyncExitStack(), AsyncExitStack()]
        nodes = []
        for process in processes:
            stack.push_async_callback(process.aclose)
            nodes.append(await process.enter_async_context(running(store, 1)))
        async with asyncio.TaskGroup() as callers:
            for actor_id in traffic.answered:
                callers.create_task(traffic.keep_calling(actor_id))
            for release in (*RELEASES, max(RELEASES)):
                for process in processes:
                    await traffic.answer_everybody()
                    old = process.pop_all()
                    nodes.append(await process.enter_async_context(running(store, release)))
                    if is_drained:
                        await nodes.pop(0).drain()
                        await traffic.answer_everybody()
                    await old.aclose()
            await traffic.answer_everybody()
            traffic.is_over = True
        for actor_id, number in traffic.answered.items():
            assert await times(traffic.client, actor_id) == number


async def test_an_action_that_no_release_has_names_those_that_there_are(store: Store) -> None:
    async with running(store, 2) as old, running(store, 3) as new:
        await settle_in(old, 2, "a", service=False)
        for asked in (old, new):
            with pytest.raises(UnknownActionError) as unknown:
                await asked.call("Greeter", "a", "greet_v2", {"names": ["Ann"]})
            assert unknown.value.known == ("greet", "greet_v1")
        assert await times(old, "a") == 1
