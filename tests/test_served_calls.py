"""What a node does for calls of others: none is left unanswered, and none holds others up that it waits for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Actor, Node, Suite, action, errors, open_store
from lazymig import _courier as courier
from lazymig._records import ActorKey, Claim, Fence, Held
from lazymig.testing import Fault, FaultyStore
from tests.boxes import KEY, Place, hold_silently, is_waited_for, knows, offers, seem_to_run
from tests.processes import Worker
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig._fleet_records import Call, CallState
    from lazymig.store import Store
    from tests.processes import Line

LONG_SECONDS = 1_000.0


def suite_of(run: Callable[[Any], Awaitable[Any]], name: str = "Odd") -> Suite:
    """Return a suite with an actor type whose one action does as it is told."""

    class Odd(Actor):
        def __init__(self, activation: Any) -> None:
            self.key = activation.key

        @action
        async def run(self) -> Any:
            return await run(self)

    suite = Suite("odd")
    suite.actor_type(name, Odd)
    return suite


async def cancel_itself(_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def raise_cancelled(_: Any) -> None:
    raise asyncio.CancelledError("by the action")


@pytest.mark.parametrize("run", [cancel_itself, raise_cancelled])
async def test_a_call_whose_action_is_cancelled_by_itself_is_answered(
    store: Store, run: Callable[[Any], Awaitable[None]]
) -> None:
    async with Node(store, [suite_of(run)]) as node, Node(store) as client, asyncio.timeout(10):
        with pytest.raises(errors.RemoteError) as caught:
            await client.call("Odd", "a", "run")
        assert (caught.value.type, caught.value.node_id) == ("CancelledError", node.node_id)


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "at the answer"])
async def test_a_cancelled_action_is_answered_though_the_store_fails(store: Store, is_late: bool) -> None:  # noqa: FBT001
    async def run(odd: Any) -> None:
        ran.append(odd.key)
        if not is_late:
            await cancel_itself(odd)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # comes at the next await

    async def fail_twice(call_id: str, node_id: str, result: bytes, *, takes: int) -> bool:
        answers.append(call_id)
        if len(answers) <= 2:
            raise errors.StoreUnavailableError("planted")
        return await store.post.answer(call_id, node_id, result, takes=takes)

    ran: list[ActorKey] = []
    answers: list[str] = []
    faulty = FaultyStore(store)
    faulty.post.answer = fail_twice  # type: ignore[method-assign]
    async with Node(store) as client, Node(faulty, [suite_of(run)]), asyncio.timeout(10):
        if is_late:
            assert await client.call("Odd", "a", "run") is None
        else:
            with pytest.raises(errors.RemoteError):
                await client.call("Odd", "a", "run")
    assert len(ran) == 1


async def test_what_a_served_action_leaves_running_may_call_who_called_it(store: Store) -> None:
    """Nobody waits for it any more."""
    left: list[asyncio.Task[Any]] = []

    async def call_back_later(odd: Any) -> None:
        async def call_back() -> Any:
            await gate.wait()
            return await node.call("Box", "a", "add")

        left.append(asyncio.create_task(call_back()))

    gate, place = asyncio.Event(), Place()
    async with Node(store, [suite_of(call_back_later)]) as node, place.run(store) as other:

        async def call_odd(_: Any, value: Any) -> None:
            await other.call("Odd", "a", "run")

        place.suite.actor_types["Box"].actor_class.echo = action(call_odd)  # type: ignore[union-attr]
        await other.call("Box", "a", "echo", 1)
        gate.set()
        assert await left[0] == 1


@pytest.mark.parametrize("most", [1, 2])
async def test_nodes_full_of_actions_that_call_each_others_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(courier, "MAX_SERVED", most)
    here, there = Place(), Place()
    async with (
        here.run(store, idle_seconds=LONG_SECONDS) as one,
        there.run(store, idle_seconds=LONG_SECONDS) as two,
        Node(store, hand_over_seconds=60.0) as client,
    ):
        for name in ("a1", "a2", "c1", "c2"):
            assert await one.call("Box", name, "add") == 1
        for name in ("b1", "b2"):
            assert await two.call("Box", name, "add") == 1
        calls = [client.call("Box", f"a{number}", "go", [f"b{number}", f"c{number}"]) for number in (1, 2)]
        async with asyncio.timeout(10):
            assert await asyncio.gather(*calls) == ["c1", "c2"]


async def test_no_more_calls_are_served_at_a_time_than_the_node_takes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "MAX_SERVED", 2)
    place = Place()
    async with place.run(store) as node, Node(store) as client:
        calls = [asyncio.create_task(client.call("Box", name, "hold")) for name in "abc"]
        await until(lambda: place.log.count("hold") == 2)
        for _ in range(20):
            node._courier._wake.set()
            await settle()
        assert place.log.count("hold") == 2
        place.gate.set()
        assert await asyncio.gather(*calls) == ["held"] * 3


async def test_time_in_the_queue_of_its_own_node_is_no_time_for_the_hand_over(store: Store) -> None:
    there, here = Place(), Place()
    faulty = FaultyStore(store)
    later = 0.0
    async with there.run(store) as other, here.run(faulty, hand_over_seconds=60.0, lease_seconds=LONG_SECONDS) as node:
        node._membership.clock = lambda: time.monotonic() + later
        async with node.activate("Box", "a"):
            calling = asyncio.create_task(node.call("Box", "a", "add"))
            await settle()
            later = 100.0

            async def find_it_elsewhere(key: ActorKey, fence: Fence) -> Held:
                return Held(other.node_id)

            faulty.claim = find_it_elsewhere  # type: ignore[method-assign]
        assert await calling == 1
    assert (here.log.count("add"), there.log.count("add")) == (0, 1)


# --- asking for an actor ---------------------------------------------------------------------------------------------


async def test_who_waits_for_an_actor_asks_again_and_leaves_nothing(store: Store) -> None:
    await hold_silently(store)
    faulty, sent = FaultyStore(store), []

    async def send(call: Call, *, max_waiting: int) -> bool:
        sent.append(call)
        return await store.post.send(call, max_waiting=max_waiting)

    faulty.post.send = send  # type: ignore[method-assign]
    async with Place().run(faulty, lease_seconds=1.0) as node:
        with pytest.raises(errors.ActorLockedError):
            async with node.activate("Box", "a", wait_seconds=1.4):
                raise AssertionError
        assert len(sent) >= 2
        assert {(mark.key, mark.action, mark.wait_seconds) for mark in sent} == {(KEY, "", 1.0)}
        assert (await store.post.peek("silent", "nobody")).wanted == ()


async def test_an_asker_that_died_is_forgotten_after_a_lease(store: Store) -> None:
    await hold_silently(store)
    async with Place().run(store, lease_seconds=0.4) as node:
        waiting = asyncio.create_task(node.activate("Box", "a", wait_seconds=LONG_SECONDS).__aenter__())
        async with asyncio.timeout(30):
            while not (await store.post.peek("silent", "nobody")).wanted:  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0)
            for task in asyncio.all_tasks():  # as if its process had died
                if task.get_coro().__qualname__ == "Outbox._ask":  # type: ignore[union-attr]
                    task.cancel()
            while (await store.post.peek("silent", "nobody")).wanted:  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])


# --- what is learned -------------------------------------------------------------------------------------------------


async def test_a_node_that_is_not_there_any_more_is_waited_for_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer state was seen, and its node died: calls on other actors are tried here again."""
    monkeypatch.setattr("lazymig._calls.GUESS_SECONDS", 0.05)
    await seem_to_run(store, "newer", *offers("3.0.0", "add"))
    place, faulty = Place("1.0.0"), FaultyStore(store)
    async with place.run(faulty, hand_over_seconds=5.0) as node:
        await until(knows(node, 2))
        node._view.learn("Box", offers("3.0.0", "add")[0].registered.highest)
        for name in "abc":
            assert await node.call("Box", name, "add") == 1
    assert faulty.calls.count("send") == 1


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_node_is_left_though_its_store_does_not_answer_for_its_calls(store: Store) -> None:
    async def hang(call_id: str, sender: str, *, is_stored: bool = False) -> CallState:
        asked.append(call_id)
        await asyncio.Event().wait()
        raise AssertionError

    asked: list[str] = []
    faulty = FaultyStore(store)
    await seem_to_run(store, "silent", *offers("1.0.0", "add"))
    async with asyncio.timeout(30):
        async with Node(faulty, lease_seconds=0.5, hand_over_seconds=LONG_SECONDS) as client:
            calls = [asyncio.create_task(client.call("Box", "a", "add")) for _ in range(50)]
            await until(lambda: len(client._courier.outbox._awaited) == 50)
            await is_waited_for(store, "silent")
            faulty.post.cancel = hang  # type: ignore[method-assign]
        for call in calls:
            with pytest.raises(errors.CallLostError):
                await call
    assert len(set(asked)) == 50, "one after the other"


async def test_a_node_is_left_though_its_answers_are_not_taken(store: Store) -> None:
    async def fail(*_: object, **__: object) -> bool:
        raise errors.StoreUnavailableError("planted")

    place, faulty = Place(), FaultyStore(store)
    async with asyncio.timeout(30), Node(store, hand_over_seconds=LONG_SECONDS) as client:
        async with place.run(faulty, lease_seconds=0.5):
            faulty.post.answer = fail  # type: ignore[method-assign]
            calling = asyncio.create_task(client.call("Box", "a", "add"))
            await until(lambda: "add" in place.log)
        with pytest.raises(errors.CallLostError):
            await calling


async def test_a_drain_that_the_store_did_not_take_is_none(store: Store) -> None:
    place, faulty = Place(), FaultyStore(store)
    async with place.run(faulty) as node:
        faulty.arm(Fault(0, "before", "error"))
        with pytest.raises(errors.StoreUnavailableError):
            await node.drain()
        assert await node.call("Box", "a", "add") == 1
        await node.drain()
        assert [status.is_draining for status in await store.nodes()] == [True]
        assert isinstance(await store.claim(KEY, Fence(node.node_id, 100)), Claim)


async def hold_for_ever(line: Line, url: str) -> None:  # pragma: no cover  (in the worker)
    place = Place()
    async with open_store(url) as store, place.run(store, grace_seconds=0.2) as node:
        calling = asyncio.create_task(node.call("Box", "a", "hold"))
        await place.inside.wait()
        line.tell("inside")
        await calling


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_sigterm_ends_a_process_whose_actions_do_not_end(store: Store, url: str) -> None:
    with Worker(hold_for_ever, url) as worker:
        assert await worker.hear() == "inside"
        os.kill(worker.pid, signal.SIGTERM)
        assert await worker.rest() == []
        worker.kill()  # it has ended: this waits for its exit code
        assert worker.exit_code == -signal.SIGTERM
