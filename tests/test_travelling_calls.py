"""A call finds its actor: it runs where the actor is, or where its state or its action is known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lazymig import Node, _outbox, errors, traceparent
from lazymig._fleet_records import Call, CallStatus
from lazymig.testing import FaultyStore
from tests.boxes import (
    KEY,
    LaterBox,
    Place,
    hold_silently,
    is_waited_for,
    knows,
    offers,
    owner,
    seem_to_run,
    waiting_for,
)
from tests.test_node import settle, until

if TYPE_CHECKING:
    from lazymig.store import Store


async def test_a_call_runs_where_the_actor_is_active(store: Store) -> None:
    here, there = Place(), Place()
    async with here.run(store) as node, there.run(store) as other:
        assert await other.call("Box", "a", "add") == 1
        assert await node.call("Box", "a", "add") == 2
        assert await node.call("Box", "a", "echo", {"x": [1, None, "é"]}) == {"x": [1, None, "é"]}
        assert await owner(store) == other.node_id
    assert here.log == []
    assert there.log == ["activated", "add", "add", "echo", "deactivated"]


async def test_many_calls_from_everywhere_are_each_run_once(store: Store) -> None:
    places = [Place(), Place(), Place()]
    async with places[0].run(store) as a, places[1].run(store) as b, places[2].run(store) as c:
        calls = [node.call("Box", "a", "add") for node in (a, b, c) for _ in range(10)]
        assert sorted(await asyncio.gather(*calls)) == list(range(1, 31))
    assert sum(place.log.count("add") for place in places) == 30


# --- releases --------------------------------------------------------------------------------------------------------


async def store_at(store: Store, release: str, *actor_ids: str) -> None:
    """Store actors that need a release."""
    async with Place("1.0.0", release).run(store) as node:
        for actor_id in actor_ids:
            assert await node.call("Box", actor_id, "add") == 1


async def test_too_new_a_state_goes_to_a_capable_node_and_the_next_one_at_first_try(store: Store) -> None:
    await store_at(store, "2.0.0", "a", "b")
    old, new, counted = Place("1.0.0"), Place("1.0.0", "2.0.0"), FaultyStore(store)
    async with new.run(store), old.run(counted) as node:
        await until(knows(node, 2))
        counted.arm(None)
        assert await node.call("Box", "a", "add") == 2
        assert (counted.calls.count("claim"), counted.calls.count("send")) == (1, 1)
        counted.arm(None)
        assert await node.call("Box", "b", "add") == 2
        assert (counted.calls.count("claim"), counted.calls.count("send")) == (0, 1)
    assert old.log == []


async def test_what_a_refusal_taught_keeps_nobody_from_older_states(store: Store) -> None:
    await store_at(store, "2.0.0", "a")
    old = Place("1.0.0")
    async with old.run(store, hand_over_seconds=0.1) as node:
        with pytest.raises(errors.NewerStateError):
            await node.call("Box", "a", "add")
        assert await node.call("Box", "new", "add") == 1


async def test_a_client_without_suites_calls(store: Store) -> None:
    there = Place()
    async with there.run(store), Node(store) as client:
        assert await client.call("Box", "a", "add") == 1
        assert await client.actor("Box", "a").add() == 2
        with pytest.raises(errors.UnknownActorTypeError) as unknown_type:
            await client.call("Bax", "a", "add")
        with pytest.raises(errors.UnknownActionError) as unknown:
            await client.call("Box", "a", "subtract")
    assert unknown_type.value.known == ("Box",)
    assert {"add", "echo"} <= set(unknown.value.known)
    assert not set(unknown.value.known) & {"activate", "deactivate", "__init__"}


async def test_unknown_names_are_refused_without_a_call(store: Store) -> None:
    counted = FaultyStore(store)
    async with Place(base=LaterBox).run(store), Place().run(counted) as node:
        counted.arm(None)
        with pytest.raises(errors.UnknownActionError) as caught:
            await node.call("Box", "a", "subtract")
        with pytest.raises(errors.UnknownActorTypeError):
            await node.call("Bax", "a", "add")
        assert "send" not in counted.calls
        assert "claim" not in counted.calls
    assert "later" in caught.value.known


@pytest.mark.parametrize("caller", ["owner", "client"])
async def test_an_action_that_only_another_release_has_moves_the_actor_once(store: Store, caller: str) -> None:
    old, new = Place(), Place(base=LaterBox)
    async with old.run(store) as node, new.run(store), Node(store) as client:
        assert await node.call("Box", "a", "add") == 1
        calling = node if caller == "owner" else client
        assert await calling.call("Box", "a", "later") == "later"
        assert await calling.call("Box", "a", "add") == 2
        assert await calling.call("Box", "a", "later") == "later"
    assert old.log == ["activated", "add", "deactivated"]
    assert new.log == ["activated", "later", "add", "later", "deactivated"]


# --- nobody takes it -------------------------------------------------------------------------------------------------


async def test_a_call_for_a_silent_owner_is_given_up_and_never_runs(store: Store) -> None:
    await hold_silently(store)
    place = Place()
    async with place.run(store, hand_over_seconds=0.1) as node:
        with pytest.raises(errors.ActorLockedError) as caught:
            await node.call("Box", "a", "add")
        assert (caught.value.owner, caught.value.key) == ("silent", KEY)
        assert await waiting_for(store, "silent") == []
        await store.unregister("silent")
        assert await node.call("Box", "a", "add") == 1
    assert place.log.count("add") == 1


async def test_a_waiting_call_runs_as_soon_as_the_silent_owner_is_gone(store: Store) -> None:
    await hold_silently(store)
    place = Place()
    async with place.run(store, hand_over_seconds=1_000) as node:
        call = asyncio.create_task(node.call("Box", "a", "add"))
        await is_waited_for(store, "silent")
        await store.unregister("silent")
        async with asyncio.timeout(30):
            assert await call == 1
    assert place.log.count("add") == 1


async def test_a_state_that_nobody_can_read_is_refused_and_names_who_could(store: Store) -> None:
    await store_at(store, "2.0.0", "a")
    old = Place("1.0.0")
    async with old.run(store, hand_over_seconds=0.1) as node:
        with pytest.raises(errors.NewerStateError) as caught:
            await node.call("Box", "a", "add")
        assert (str(caught.value.stored), str(caught.value.supported)) == ("2.0.0", "1.0.0")
        assert caught.value.capable == ()

        await seem_to_run(store, "able", *offers("2.3.0", "add"))
        await until(knows(node, 2))
        for _ in range(2):
            with pytest.raises(errors.NewerStateError) as caught:
                await node.call("Box", "a", "add")
            assert caught.value.capable == ("able",)
            assert await waiting_for(store, "able") == []
    assert old.log == []


async def test_a_call_that_nobody_takes_is_given_up_and_never_runs(store: Store) -> None:
    await seem_to_run(store, "able", *offers("1.0.0", "later"))
    place = Place()
    async with place.run(store, hand_over_seconds=0.1) as node:
        with pytest.raises(errors.CallNotTakenError) as caught:
            await node.call("Box", "a", "later")
        assert (caught.value.key, caught.value.action) == (KEY, "later")
        assert await waiting_for(store, "able") == []


async def test_a_queue_that_is_full_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "MAX_WAITING", 2)
    await hold_silently(store)
    async with Place().run(store) as node:
        calls = [asyncio.create_task(node.call("Box", "a", "add")) for _ in range(2)]
        outbox = node._calls.courier.outbox
        await until(lambda: len(outbox._stored) == 2)
        with pytest.raises(errors.QueueFullError) as caught:
            await node.call("Box", "a", "add")
        assert caught.value.key == KEY
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert await waiting_for(store, "silent") == []


async def test_a_cancelled_caller_leaves_nothing_waiting(store: Store) -> None:
    await hold_silently(store)
    place = Place()
    async with place.run(store) as node:
        call = asyncio.create_task(node.call("Box", "a", "add"))
        await is_waited_for(store, "silent")
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await waiting_for(store, "silent") == []
        await store.unregister("silent")
        assert await node.call("Box", "a", "add") == 1
    assert place.log.count("add") == 1


@pytest.mark.parametrize("end", ["unregistered", "silent"])
async def test_a_call_whose_taker_dies_is_lost_and_runs_nowhere_else(store: Store, end: str) -> None:
    here, there, third = Place(), Place(), Place()
    async with here.run(store) as node, third.run(store), there.run(store, lease_seconds=0.5) as other:
        taker = other.node_id
        assert await other.call("Box", "a", "add") == 1
        call = asyncio.create_task(node.call("Box", "a", "hold"))
        await there.inside.wait()
        if end == "unregistered":
            await store.unregister(taker)
        else:
            await other._membership._stop_heart()
        with pytest.raises(errors.CallLostError) as caught:
            await call
        assert (caught.value.key, caught.value.action, caught.value.node_id) == (KEY, "hold", taker)
        assert await node.call("Box", "a", "add") == 2
        there.gate.set()
        await until(lambda: not other._courier._serving)
        assert await node.call("Box", "a", "add") == 3
    assert (here.log + there.log + third.log).count("hold") == 1
    assert "held" not in there.log


async def test_a_call_that_waits_for_its_turn_when_its_node_registers_anew_never_begins(store: Store) -> None:
    there = Place()
    async with there.run(store) as other, Node(store) as node:
        holding = asyncio.create_task(other.call("Box", "a", "hold"))
        await there.inside.wait()
        call = asyncio.create_task(node.call("Box", "a", "add"))
        await until(lambda: len(other._courier._serving) == 1)
        await settle()
        other._membership.expire()
        assert await other.call("Box", "b", "echo", 1) == 1
        with pytest.raises(errors.CallLostError):
            await call
        there.gate.set()
        with pytest.raises(errors.LeaseLostError):
            await holding
        await until(lambda: not other._courier._serving)
    assert there.log.count("add") == 0


async def test_a_call_that_its_node_passes_on_and_takes_again_at_once_is_served(store: Store) -> None:
    async def free_meanwhile() -> None:
        if counted.calls[-1:] == ["forward"] and not freed:
            freed.append("silent")
            await store.unregister("silent")
            await until(lambda: counted.calls.count("take") == 2)

    async def status() -> CallStatus | None:
        state = (await store.post.peek("nobody", "sender")).answers.get("again")
        return state.status if state else None

    await hold_silently(store)
    freed: list[str] = []
    place, counted = Place(), FaultyStore(store, free_meanwhile)
    async with place.run(counted) as node:
        call = Call("again", KEY, "add", b"[[],{}]", "sender", 60.0, target=node.node_id)
        assert await store.post.send(call, max_waiting=9)
        async with asyncio.timeout(30):
            while await status() != CallStatus.DONE:  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0)
    assert place.log.count("add") == 1


# --- errors ----------------------------------------------------------------------------------------------------------


async def test_an_error_raised_elsewhere_comes_with_type_message_and_cause(store: Store) -> None:
    there = Place()
    async with there.run(store) as other, Node(store) as node:
        with pytest.raises(errors.RemoteError, match="ValueError: out of range") as caught:
            await node.call("Box", "a", "fail", "cause")
        assert (caught.value.type, caught.value.message) == ("ValueError", "out of range")
        assert caught.value.node_id == other.node_id
    cause = caught.value.__cause__
    assert isinstance(cause, errors.RemoteError)
    assert (cause.type, cause.message) == ("KeyError", "'deeper'")


async def test_an_error_of_lazymig_comes_back_as_its_class_with_fields(store: Store) -> None:
    async with Place().run(store), Node(store) as node:
        with pytest.raises(errors.NewerStateError, match=r"stored at 3\.0\.0") as caught:
            await node.call("Box", "a", "fail", "lazymig")
    assert (str(caught.value.stored), str(caught.value.supported)) == ("3.0.0", "2.1.0")
    assert (caught.value.key, caught.value.capable) == (KEY, ("x", "y"))


@pytest.mark.parametrize("how", ["surrogate", "large number", "no text", "no exception"])
async def test_an_error_that_is_hard_to_tell_is_told_all_the_same(store: Store, how: str) -> None:
    async with Place().run(store), Node(store) as node:
        with pytest.raises(errors.LazymigError):
            async with asyncio.timeout(10):
                await node.call("Box", "a", "fail", how)
        assert await node.call("Box", "a", "add") == 1


async def test_an_activation_that_fails_elsewhere_is_told_as_here(store: Store) -> None:
    await store.insert("Box", "state", [("a", b"[]")])
    there = Place()
    there.suite.actor_types["Box"].migration("1.0.0")(lambda state, context: state["missing"])
    async with there.run(store), Node(store) as node:
        with pytest.raises(errors.MigrationFailedError) as caught:
            await node.call("Box", "a", "add")
    assert caught.value.key == KEY
    assert str(caught.value.version) == "1.0.0"


@pytest.mark.parametrize("path", [["b", "a"], ["b", "a2", "b"]])
async def test_actors_that_wait_for_each_other_over_two_nodes_get_an_error_at_once(
    store: Store, path: list[str]
) -> None:
    here, there = Place(), Place()
    async with here.run(store, hand_over_seconds=1_000) as node, there.run(store, hand_over_seconds=1_000) as other:
        for actor_id in ("a", "a2"):
            assert await node.call("Box", actor_id, "go", []) == actor_id
        assert await other.call("Box", "b", "go", []) == "b"
        with pytest.raises(errors.ReentrantCallError) as caught:
            async with asyncio.timeout(20):
                await node.call("Box", "a", "go", path)
        assert [key.id for key in (*caught.value.chain, caught.value.key)] == ["a", *path]
        assert await other.call("Box", "a", "go", ["b"]) == "b"


# --- what travels ----------------------------------------------------------------------------------------------------


async def test_the_callers_trace_arrives(store: Store) -> None:
    async with Place().run(store), Node(store) as node:
        assert await node.call("Box", "a", "trace") is None
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        token = traceparent.set(trace)
        assert await node.call("Box", "a", "trace") == trace
        traceparent.reset(token)
        assert await node.call("Box", "a", "trace") is None


async def test_arguments_and_results_are_bounded(store: Store) -> None:
    there, counted = Place(), FaultyStore(store)
    async with there.run(store), Node(counted) as node:
        assert len(await node.call("Box", "a", "echo", "x" * 900_000)) == 900_000
        counted.arm(None)
        with pytest.raises(errors.InvalidValueError, match="more than 1,000,000"):
            await node.call("Box", "a", "echo", "x" * 1_000_000)
        assert counted.calls == []
        with pytest.raises(errors.InvalidValueError, match="result of large on Box 'a'"):
            await node.call("Box", "a", "large")
        with pytest.raises(errors.InvalidValueError):
            await node.call("Box", "a", "echo", {1, 2})


async def test_wrong_arguments_are_the_errors_of_the_action(store: Store) -> None:
    async with Place().run(store), Node(store) as node:
        with pytest.raises(errors.RemoteError, match="TypeError"):
            await node.call("Box", "a", "add", 1, wrong=2)


# --- stopping --------------------------------------------------------------------------------------------------------


async def test_a_stopping_node_gives_calls_back_and_they_run_elsewhere(store: Store) -> None:
    here, there = Place(), Place()
    async with here.run(store) as node:
        async with there.run(store) as other:
            holding = asyncio.create_task(other.call("Box", "a", "hold"))
            await there.inside.wait()
            calls = [asyncio.create_task(node.call("Box", "a", "add")) for _ in range(3)]
            await until(lambda: len(other._courier._serving) == 3)
            await settle()
            asyncio.get_running_loop().call_soon(there.gate.set)
        assert await holding == "held"
        assert sorted(await asyncio.gather(*calls)) == [101, 102, 103]
    assert (here.log + there.log).count("add") == 3
    assert here.log.count("add") > 0


async def test_a_node_that_stops_lets_its_own_callers_go(store: Store) -> None:
    await hold_silently(store)
    async with Place().run(store, grace_seconds=0.05) as node:
        call = asyncio.create_task(node.call("Box", "a", "add"))
        await is_waited_for(store, "silent")
    with pytest.raises(errors.NodeStoppedError):
        await call
