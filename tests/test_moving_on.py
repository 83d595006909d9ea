"""Actors change their node: because somebody waits, because a newer release is there, or because theirs is drained."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import orjson
import pytest

from lazymig import Node, _outcome, errors, hooks, open_store
from lazymig._fleet_records import Call, CallStatus
from lazymig._records import ActorKey
from lazymig.testing import FaultyStore
from tests.boxes import KEY, LaterBox, Place, hold_silently, is_waited_for, knows, offers, owner, seem_to_run
from tests.processes import Line, Worker
from tests.test_node import settle, until

if TYPE_CHECKING:
    from lazymig.store import Store

LONG_SECONDS = 1_000.0
"""Longer than any test: what ends sooner was not waited for."""


async def enter(node: Node, log: list[str], name: str) -> None:
    """Hold the actor for a moment."""
    async with node.activate("Box", "a") as activation:
        log.append(name)
        await activation.state().migrate_and_load(default={"n": 0})


# --- wanted ----------------------------------------------------------------------------------------------------------


async def test_a_block_gets_an_idle_actor_from_its_owner(store: Store) -> None:
    here, there = Place(), Place()
    async with (
        there.run(store, idle_seconds=LONG_SECONDS) as other,
        here.run(store, hand_over_seconds=LONG_SECONDS) as node,
    ):
        assert await other.call("Box", "a", "add") == 1
        async with asyncio.timeout(60):
            await enter(node, there.log, "entered")
        assert there.log == ["activated", "add", "deactivated", "entered"]
        assert await other.call("Box", "a", "add") == 2


async def test_a_block_gets_a_busy_actor_after_its_turn(store: Store) -> None:
    here, there = Place(), Place()
    async with (
        there.run(store, idle_seconds=LONG_SECONDS) as other,
        here.run(store, hand_over_seconds=LONG_SECONDS) as node,
    ):
        holding = asyncio.create_task(other.call("Box", "a", "hold"))
        await there.inside.wait()
        entering = asyncio.create_task(enter(node, there.log, "entered"))
        await until(lambda: KEY in other._residents._wanted)
        assert there.log == ["activated", "hold"]
        there.gate.set()
        assert await holding == "held"
        async with asyncio.timeout(60):
            await entering
    assert there.log == ["activated", "hold", "held", "deactivated", "entered"]


async def test_the_owners_calls_do_not_keep_a_block_waiting_for_ever(store: Store) -> None:
    here, there = Place(), Place()
    async with there.run(store) as other, here.run(store, hand_over_seconds=LONG_SECONDS) as node:
        assert await other.call("Box", "a", "add") == 1
        entering = asyncio.create_task(enter(node, there.log, "entered"))
        async with asyncio.timeout(60):
            while not entering.done():
                await other.call("Box", "a", "add")
                await asyncio.sleep(0)
        await entering
        added = there.log.count("add") + here.log.count("add")
        assert await other.call("Box", "a", "add") == added + 1


async def test_a_block_that_gives_up_leaves_no_mark(store: Store) -> None:
    await hold_silently(store)
    async with Place().run(store) as node:
        with pytest.raises(errors.ActorLockedError):
            async with node.activate("Box", "a", wait_seconds=0.05):
                raise AssertionError("it was not given up")
        assert (await store.post.peek("silent", "nobody")).wanted == ()


# --- newer releases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "moves"), [(1e-9, True), (LONG_SECONDS, False), (0, False)])
async def test_an_idle_actor_goes_to_a_newer_release_at_its_next_call(
    store: Store, seconds: float, *, moves: bool
) -> None:
    old, new = Place("1.0.0"), Place("1.0.0", "2.0.0")
    async with old.run(store, move_on_seconds=seconds, idle_seconds=LONG_SECONDS) as node:
        assert await node.call("Box", "a", "add") == 1
        async with new.run(store) as newer:
            await until(knows(node, 2))
            assert await node.call("Box", "a", "add") == 2
            assert await owner(store) == (newer.node_id if moves else node.node_id)
            assert await node.call("Box", "a", "add") == 3
    assert old.log.count("add") == (1 if moves else 3)
    assert new.log.count("add") == (2 if moves else 0)


async def test_an_idle_actor_goes_to_a_newer_release_at_the_next_call_of_a_client(store: Store) -> None:
    old, new = Place("1.0.0"), Place("1.0.0", "2.0.0")
    async with old.run(store, move_on_seconds=1e-9, idle_seconds=LONG_SECONDS) as node, Node(store) as client:
        assert await node.call("Box", "a", "add") == 1
        async with new.run(store) as newer:
            await until(knows(node, 3))
            assert await client.call("Box", "a", "add") == 2
            assert await owner(store) == newer.node_id
    assert old.log == ["activated", "add", "deactivated"]


async def test_an_actor_that_its_newest_node_does_not_take_is_served_where_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazymig._calls.GUESS_SECONDS", 0.1)
    old = Place("1.0.0")
    async with old.run(store, move_on_seconds=1e-9, idle_seconds=LONG_SECONDS) as node, Node(store) as client:
        assert await node.call("Box", "a", "add") == 1
        await seem_to_run(store, "deaf", *offers("2.0.0", "add"))
        await until(knows(node, 3))
        assert await client.call("Box", "a", "add") == 2
    assert old.log.count("add") == 2


async def test_actors_stay_where_they_are_beside_the_same_release(store: Store) -> None:
    here, there = Place("1.0.0"), Place("1.0.0")
    async with here.run(store, move_on_seconds=1e-9, idle_seconds=LONG_SECONDS) as node, there.run(store):
        await until(knows(node, 2))
        for number in (1, 2, 3):
            assert await node.call("Box", "a", "add") == number
    assert there.log == []


async def test_a_newer_release_without_the_action_gets_no_actor(store: Store) -> None:
    old, new = Place("1.0.0", base=LaterBox), Place("1.0.0", "2.0.0")
    async with old.run(store, move_on_seconds=1e-9, idle_seconds=LONG_SECONDS) as node, new.run(store):
        await until(knows(node, 2))
        for _ in range(2):
            assert await node.call("Box", "a", "later") == "later"
    assert new.log == []


# --- draining --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["node", "store"])
async def test_a_drained_node_gives_all_up_and_its_calls_travel(store: Store, by: str) -> None:
    here, there = Place(), Place()
    seen: list[hooks.Event] = []
    async with here.run(store, hooks=[seen.append], label="here") as node, there.run(store) as other:
        keys = [ActorKey("Box", actor_id) for actor_id in ("a", "b", "c")]
        for key in keys:
            assert await node.call("Box", key.id, "add") == 1
        await (node.drain() if by == "node" else store.drain(node.node_id))
        await until(lambda: sum(isinstance(event, hooks.Deactivated) for event in seen) == 3)
        await until(lambda: not any(node._residents.is_here(key) for key in keys))
        assert {event.reason for event in seen if isinstance(event, hooks.Deactivated)} == {"drained"}
        assert [await owner(store, key) for key in keys] == [None, None, None]

        for actor_id in ("a", "new"):
            await node.call("Box", actor_id, "add")
            assert await owner(store, ActorKey("Box", actor_id)) == other.node_id
        with pytest.raises(errors.NodeDrainingError, match="here is draining"):
            async with node.activate("Box", "d"):
                raise AssertionError("it takes no new actors")
        assert await other.call("Box", "b", "add") == 2
        await node.drain()
    assert here.log.count("activated") == 3


async def test_a_draining_node_finishes_what_runs(store: Store) -> None:
    here, there = Place(), Place()
    async with here.run(store) as node, there.run(store) as other:
        holding = asyncio.create_task(other.call("Box", "a", "hold"))
        place = await first(here, there)
        draining = asyncio.create_task((node if place is here else other).drain())
        await settle()
        assert not draining.done()
        place.gate.set()
        assert await holding == "held"
        await draining
        assert await owner(store) is None
        assert await node.call("Box", "a", "add") == 101


async def first(*places: Place) -> Place:
    """Return the place where an action came to its middle first."""
    waiting = {asyncio.create_task(place.inside.wait()): place for place in places}
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return waiting[done.pop()]


async def test_a_drained_node_passes_on_what_was_sent_to_it_as_the_owner(store: Store) -> None:
    here, there = Place(), Place()
    async with here.run(store) as node, there.run(store):
        await node.drain()
        call = Call("late", KEY, "add", b"[[],{}]", "sender", 60.0, target=node.node_id)
        assert await store.post.send(call, max_waiting=100)
        async with asyncio.timeout(30):
            while not (answer := await answer_to(store, "late", "sender")):  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0)
        assert orjson.loads(answer) == {"result": 1}
    assert (here.log.count("activated"), there.log.count("add")) == (0, 1)


@pytest.mark.parametrize("caller", ["here", "there"])
async def test_calls_that_wait_behind_the_giving_up_of_a_drained_node_run_elsewhere(store: Store, caller: str) -> None:
    here, there = Place(), Place()
    async with here.run(store) as node:
        assert await node.call("Box", "a", "add") == 1
        holding = asyncio.create_task(node.call("Box", "a", "hold"))
        await here.inside.wait()
        draining = asyncio.create_task(node.drain())
        await until(lambda: KEY in node._residents._wanted)
        async with there.run(store) as other:
            late = asyncio.create_task((node if caller == "here" else other).call("Box", "a", "add"))
            if caller == "there":
                await until(lambda: bool(node._courier._serving))
            await settle()
            here.gate.set()
            assert await holding == "held"
            assert await late == 102
            await draining
            assert await owner(store) == other.node_id
    assert here.log.count("activated") == 1


async def test_a_draining_node_alone_takes_no_new_actor(store: Store) -> None:
    async with Place().run(store, hand_over_seconds=0.1) as node:
        await node.drain()
        with pytest.raises(errors.CallNotTakenError):
            await node.call("Box", "a", "add")
        assert await store.read(KEY) is None


async def test_a_node_stays_drained_after_a_new_registration(store: Store) -> None:
    async def list_is_read_first() -> None:
        """Let the node see its new registration in the list before it knows of it itself."""
        if counted.calls[-1:] == ["register"] and before:
            await until(lambda: all(status.node_id not in before for status in node._view.nodes))

    before: list[str] = []
    counted = FaultyStore(store, list_is_read_first)
    async with Place().run(counted) as node:
        await node.drain()
        before.append(node.node_id)
        node._membership.expire()
        async with asyncio.timeout(30):
            while not await is_drained_anew(store, before[0]):  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0.01)


async def is_drained_anew(store: Store, before: str) -> bool:
    (found,) = await store.nodes()
    return found.is_draining and found.node_id != before


# --- SIGTERM ---------------------------------------------------------------------------------------------------------


class RemoteGate:
    """Opens when the node drains, so that the action ends after the signal and not before."""

    def __init__(self, node: Node, line: Line) -> None:
        self._node = node
        self._line = line

    async def wait(self) -> None:
        self._line.tell("inside")
        await until(lambda: self._node._calls.is_draining)
        await settle()


async def work_until_told_to_end(line: Line, url: str) -> None:  # pragma: no cover  (in the worker)
    place = Place()
    async with open_store(url) as store, place.run(store) as node:
        place.gate = RemoteGate(node, line)  # type: ignore[assignment]
        await node.call("Box", "b", "add")
        line.tell(await node.call("Box", "a", "hold"))
        await asyncio.Event().wait()


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
async def test_sigterm_drains_a_process_before_it_ends_it(store: Store, url: str) -> None:
    with Worker(work_until_told_to_end, url) as worker:
        assert await worker.hear() == "inside"
        os.kill(worker.pid, signal.SIGTERM)
        assert await worker.rest() == ["held"]
        worker.kill()  # it has ended: this waits for its exit code
        assert worker.exit_code == -signal.SIGTERM
    for actor_id, expected in (("a", 100), ("b", 1)):
        found = await store.read(ActorKey("Box", actor_id))
        assert found is not None
        assert (found.owner, orjson.loads(found.states["state"])) == (None, {"n": expected})


# --- nothing is executed ---------------------------------------------------------------------------------------------


async def test_only_actions_can_be_called_whatever_a_caller_sends(store: Store) -> None:
    place, counted = Place(), FaultyStore(store)
    async with place.run(counted, idle_seconds=LONG_SECONDS) as node:
        names = ["__init__", "deactivate", "activate", "place", "__class__", "add.__globals__"]
        for name in names:
            call = Call(f"call {name}", KEY, name, b"[[],{}]", "intruder", 60.0, target=node.node_id)
            assert await store.post.send(call, max_waiting=100)
        await until(lambda: counted.calls.count("forward") == len(names) and not node._courier._serving)
        assert (await store.post.peek("nobody", "intruder")).answers == {}
    assert place.log == []


@pytest.mark.parametrize("arguments", [b"cos\nsystem\n(S'exit 1'\ntR.", b"null", b"[1]", b"[[], [], []]", b"\xff"])
async def test_arguments_that_are_none_are_refused_and_the_node_goes_on(store: Store, arguments: bytes) -> None:
    place = Place()
    async with place.run(store) as node:
        call = Call("bad", KEY, "echo", arguments, "intruder", 60.0, target=node.node_id)
        assert await store.post.send(call, max_waiting=100)
        async with asyncio.timeout(30):
            while not (state := await answer_to(store, "bad")):  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0)
        assert "error" in orjson.loads(state)
        assert "echo" not in place.log
        assert await node.call("Box", "a", "add") == 1


async def answer_to(store: Store, call_id: str, sender: str = "intruder") -> bytes | None:
    state = (await store.post.peek("nobody", sender)).answers.get(call_id)
    return None if state is None or state.status != CallStatus.DONE else state.result


@pytest.mark.parametrize(
    "name",
    ["_base", "_call", "annotations", "__builtins__", "__loader__", "__file__", "system", "Box", "LazymigErrors", ""],
)
async def test_a_forged_answer_makes_nothing_but_an_error(store: Store, name: str) -> None:
    await seem_to_run(store, "forger", *offers("1.0.0", "add"))
    error = {"type": name, "message": "as forged", "fields": {"key": {"actor": ["Box", "a"]}, "__class__": "x"}}
    async with Node(store) as node:
        call = asyncio.create_task(node.call("Box", "a", "add"))
        await is_waited_for(store, "forger")
        (taken,) = await store.post.take("forger", 9)
        await store.post.answer(taken.call_id, "forger", orjson.dumps({"error": error}), takes=1)
        with pytest.raises(errors.RemoteError) as caught:
            await call
    assert (caught.value.type, caught.value.message, caught.value.node_id) == (name, "as forged", "forger")


async def test_a_forged_class_stays_what_it_is(store: Store) -> None:
    forged = {
        "type": "QueueFullError", "message": "m",
        "fields": {"__class__": "x", "add_note": "x", "__reduce__": {"items": ["os.system", "x"]}},
    }  # fmt: skip
    with pytest.raises(errors.QueueFullError, match="m") as caught:
        _outcome.read(orjson.dumps({"error": forged}), "n1")
    assert type(caught.value) is errors.QueueFullError
