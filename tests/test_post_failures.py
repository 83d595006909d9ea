"""A store that fails while calls travel: what a caller is told is so, and nothing runs twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest

from lazymig import Node, errors
from lazymig._fleet_records import Call, CallState, CallStatus
from lazymig.testing import Fault, FaultyStore
from tests.boxes import KEY, Place, hold_silently, is_waited_for, offers, seem_to_run
from tests.test_node import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig.store import Store

When = Literal["before", "after", "later"]


@pytest.mark.parametrize("when", ["before", "after", "later"])
async def test_a_call_whose_sending_failed_ran_and_was_answered_or_never_runs(store: Store, when: When) -> None:
    place, faulty = Place(), FaultyStore(store)
    async with place.run(store) as other, Node(faulty) as client:
        assert await client.call("Box", "a", "add") == 1
        await until(lambda: faulty.calls[-1:] == ["remove"])
        faulty.arm(Fault(0, when, "error"))
        try:
            expected = await client.call("Box", "a", "add")
        except errors.StoreUnavailableError:
            expected = 1
        assert faulty.calls[:2] == ["send", "cancel"]
        assert await other.call("Box", "a", "add") == expected + 1
        assert await client.call("Box", "a", "add") == expected + 2
    assert place.log.count("add") == expected + 2


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [0, 1, 2], ids=["take", "claim", "answer"])
async def test_a_node_whose_store_fails_over_a_call_answers_it_all_the_same(store: Store, when: When, at: int) -> None:
    place, faulty = Place(), FaultyStore(store)
    async with Node(store) as client, place.run(faulty):
        faulty.arm(Fault(at, when, "error"))
        try:
            async with asyncio.timeout(10):
                assert await client.call("Box", "a", "echo", 7) == 7
        except errors.StoreUnavailableError:
            assert faulty.calls[1] == "claim"
        assert faulty.has_struck
        assert await client.call("Box", "a", "echo", 8) == 8
    assert place.log.count("echo") == (1 if at == 1 else 2)


async def test_a_call_that_ends_while_the_store_is_asked_for_missed_ones_runs_once(store: Store) -> None:
    """What this node has taken is asked for; when the answer comes, a call that it names has been answered."""
    place, faulty = Place(), FaultyStore(store)
    named: list[str] = []

    async def name_and_end(node_id: str) -> Sequence[Call]:
        found = await store.post.taken(node_id)
        if not named:
            named.extend(call.action for call in found)
            place.gate.set()
            await until(lambda: len(place.node._courier._serving) == 0)
        return found

    faulty.post.taken = name_and_end  # type: ignore[method-assign]
    async with Node(store) as client, place.run(faulty) as node:
        holding = asyncio.create_task(client.call("Box", "a", "hold"))
        await place.inside.wait()
        node._courier.is_taking = False
        calling = asyncio.create_task(client.call("Box", "b", "add"))
        await is_waited_for(store, node.node_id)
        assert len(await store.post.take(node.node_id, 9)) == 1
        assert (await holding, await calling) == ("held", 1)
        node._courier.is_taking = True
        assert await client.call("Box", "a", "add") == 101
    assert sorted(named) == ["add", "hold"]
    assert place.log.count("hold") == 1


async def test_a_call_is_served_that_a_failed_take_has_taken_long_after(store: Store) -> None:
    """It lands when nobody expects it any more."""
    place, faulty = Place(), FaultyStore(store)
    async with Node(store) as client, place.run(faulty) as node:
        calling = asyncio.create_task(client.call("Box", "a", "add"))
        node._courier.is_taking = False
        await is_waited_for(store, node.node_id)
        assert len(await store.post.take(node.node_id, 9)) == 1
        assert await calling == 1
    assert faulty.calls.count("taken") == 1
    assert place.log.count("add") == 1


async def test_a_call_passed_on_without_an_answer_is_not_passed_on_again_while_it_runs(store: Store) -> None:
    await hold_silently(store)
    place, faulty = Place(), FaultyStore(store)
    async with place.run(faulty) as node:
        faulty.arm(Fault(2, "after", "error"))
        call = Call("c", KEY, "hold", b"[[],{}]", "sender", 60.0, target=node.node_id)
        assert await store.post.send(call, max_waiting=9)
        await until(lambda: faulty.calls[:3] == ["take", "claim", "forward"])
        await store.unregister("silent")
        await place.inside.wait()
        await until(lambda: len(node._courier._serving) == 1)
        assert (await store.post.cancel("c", "sender")).status == CallStatus.TAKEN
        place.gate.set()
        await until(lambda: not node._courier._serving)
    assert (place.log.count("hold"), faulty.calls.count("forward")) == (1, 2)


async def test_a_call_that_was_passed_on_after_its_caller_gave_up_is_refused_not_lost(store: Store) -> None:
    async def take_first() -> None:
        if faulty.calls == ["send"]:
            taken.extend(await store.post.take("able", 9))

    taken: list[Call] = []
    faulty = FaultyStore(store, take_first)
    await seem_to_run(store, "able", *offers("1.0.0", "add"))
    async with Node(faulty, hand_over_seconds=1_000) as client:
        faulty.arm(Fault(0, "after", "error"))
        calling = asyncio.create_task(client.call("Box", "a", "add"))
        await until(lambda: len(client._courier.outbox._overdue) == 1)
        assert await store.post.forward(taken[0].call_id, "able", takes=1)
        with pytest.raises(errors.CallNotTakenError):
            await calling
        assert await store.post.take("able", 9) == []


async def test_a_call_that_was_passed_on_while_it_was_to_be_lost_is_still_waited_for(store: Store) -> None:
    """Its taker counted as dead when the caller looked, and passes it on before the caller gives it up."""

    async def pass_on_first(call_id: str) -> CallState:
        assert await store.post.forward(call_id, "able", takes=1)
        state = await store.post.lose(call_id)
        await seem_to_run(store, "able", *offers("1.0.0", "add"))
        assert len(await store.post.take("able", 9)) == 1
        assert await store.post.answer(call_id, "able", b'{"result":7}', takes=2)
        return state

    faulty = FaultyStore(store)
    faulty.post.lose = pass_on_first  # type: ignore[method-assign]
    await seem_to_run(store, "able", *offers("1.0.0", "add"))
    async with Node(faulty, hand_over_seconds=1_000) as client:
        calling = asyncio.create_task(client.call("Box", "a", "add"))
        await is_waited_for(store, "able")
        assert len(await store.post.take("able", 9)) == 1
        await store.unregister("able")
        assert await calling == 7


async def test_a_call_that_ends_while_its_caller_gives_it_up_has_its_result(store: Store) -> None:
    """Its end was noted, and its row removed, before the store was asked to cancel it."""

    async def cancel_late(call_id: str, sender: str, *, is_stored: bool = False) -> CallState:
        assert await store.post.answer(call_id, "able", b'{"result":7}', takes=1)
        await until(lambda: faulty.calls[-1] == "remove")
        return await store.post.cancel(call_id, sender, is_stored=is_stored)

    faulty = FaultyStore(store)
    faulty.post.cancel = cancel_late  # type: ignore[method-assign]
    await seem_to_run(store, "able", *offers("1.0.0", "add"))
    async with asyncio.timeout(30), Node(faulty, hand_over_seconds=0.2) as client:
        calling = asyncio.create_task(client.call("Box", "a", "add"))
        await is_waited_for(store, "able")
        assert len(await store.post.take("able", 9)) == 1
        assert await calling == 7


async def test_a_call_that_was_tidied_up_before_its_caller_looked_is_lost_not_refused(store: Store) -> None:
    async def forget_it() -> None:
        if faulty.calls[-1:] == ["send"]:
            await store.post.remove([call.call_id for call in await store.post.take("able", 9)])

    faulty = FaultyStore(store, forget_it)
    await seem_to_run(store, "able", *offers("1.0.0", "add"))
    async with Node(faulty, hand_over_seconds=0.2) as client:
        with pytest.raises(errors.CallLostError):
            await client.call("Box", "a", "add")


async def test_a_call_that_ended_and_was_tidied_up_while_its_caller_stood_still_is_lost(store: Store) -> None:
    await seem_to_run(store, "able", *offers("1.0.0", "add"))
    async with Node(store, hand_over_seconds=0.2) as client:
        calling = asyncio.create_task(client.call("Box", "a", "add"))
        await is_waited_for(store, "able")
        (call,) = await store.post.take("able", 9)
        await until(lambda: call.call_id in client._courier.outbox.overdue)
        await store.post.remove([call.call_id])
        with pytest.raises(errors.CallLostError):
            await calling


async def test_a_call_that_was_tidied_up_before_its_node_was_left_is_lost(store: Store) -> None:
    await seem_to_run(store, "able", *offers("1.0.0", "add"))
    async with Node(store, hand_over_seconds=1_000) as client:
        calling = asyncio.create_task(client.call("Box", "a", "add"))
        await is_waited_for(store, "able")
        await store.post.remove([call.call_id for call in await store.post.take("able", 9)])
    with pytest.raises(errors.CallLostError):
        await calling


async def test_a_node_stops_though_a_call_that_it_serves_never_ends(store: Store) -> None:
    place = Place()
    async with Node(store) as client:
        async with asyncio.timeout(30):
            async with place.run(store, grace_seconds=0.05, lease_seconds=0.5):
                calling = asyncio.create_task(client.call("Box", "a", "hold"))
                await place.inside.wait()
        with pytest.raises(errors.CallLostError):
            await calling
    assert "held" not in place.log


async def test_a_fault_while_looking_for_mail_is_told_and_does_not_make_a_node_deaf(store: Store) -> None:
    async def fail(*_: object) -> None:
        faulty.post.peek = store.post.peek
        raise KeyError("a fault")

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    place, faulty = Place(), FaultyStore(store)
    faulty.post.peek = fail  # type: ignore[assignment]  # it never returns
    async with place.run(faulty), Node(store) as client:
        assert await client.call("Box", "a", "add") == 1
    assert [type(error) for error in told] == [KeyError]


async def test_a_cancelled_callers_running_call_ends_and_leaves_nothing(store: Store) -> None:
    place = Place()
    async with place.run(store) as other, Node(store) as client:
        call = asyncio.create_task(client.call("Box", "a", "hold"))
        await place.inside.wait()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        place.gate.set()
        assert await other.call("Box", "a", "add") == 101
        async with asyncio.timeout(30):
            while (await store.post.peek("nobody", client._courier.outbox.sender)).answers:  # noqa: ASYNC110
                await asyncio.sleep(0)
    assert place.log.count("hold") == 1
