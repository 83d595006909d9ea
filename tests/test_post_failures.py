"""A store that fails while calls travel: what a caller is told is so, and nothing runs twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest

from lazymig import Node, errors
from lazymig.testing import Fault, FaultyStore
from tests.boxes import Place
from tests.test_node import until

if TYPE_CHECKING:
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
    """A take failed, so what was taken is asked for; when the answer comes, a call that it names has been answered."""

    async def end_meanwhile() -> None:
        if faulty.calls.count("taken") == 2 and faulty.calls[-1] == "taken" and not place.gate.is_set():
            place.gate.set()
            await until(lambda: not place.node._courier._serving)

    place = Place()
    faulty = FaultyStore(store, end_meanwhile)
    async with Node(store) as client, place.run(faulty):
        faulty.arm(Fault(0, "after", "error"))
        assert await client.call("Box", "a", "hold") == "held"
        assert faulty.calls[0] == "take"
        assert await client.call("Box", "a", "add") == 101
    assert place.log.count("hold") == 1


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
            while (await store.post.peek("nobody", client._courier._sender)).answers:  # noqa: ASYNC110
                await asyncio.sleep(0)
    assert place.log.count("hold") == 1
