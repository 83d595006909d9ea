"""The contract of travelling calls as tests; `lazymig.store.Post` is the text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lazymig._fleet_records import Call, CallState, CallStatus
from lazymig._records import ActorKey, Claim, Fence, NodeRecord
from lazymig._version import pack, parse
from lazymig.testing.post_bench import HOSTILE, KEY, call, join, sees, send, take
from lazymig.testing.post_ends_suite import PostEndsSuite
from lazymig.testing.store_bench import LEASE_SECONDS, beat

if TYPE_CHECKING:
    from lazymig.store import Store
    from lazymig.testing.clock import ManualClock


class PostSuite(PostEndsSuite):
    """Calls that travel."""

    # --- who takes ---------------------------------------------------------------------------------------------

    async def test_a_call_comes_as_it_was_sent(self, store: Store) -> None:
        await join(store, "new")
        sent = Call(
            "c", ActorKey("Car", HOSTILE), "drive", b'[["\\u0000"],{}]', "s", 5.0, pack(parse("1.2.3")), None,
            (ActorKey("Bus", HOSTILE), KEY), HOSTILE,
        )  # fmt: skip
        assert await store.post.send(sent, max_waiting=9)

        (taken,) = await store.post.take("new", 9)
        assert (taken.call_id, taken.key, taken.action, taken.arguments) == ("c", sent.key, "drive", sent.arguments)
        assert (taken.sender, taken.needs, taken.target) == ("s", sent.needs, None)
        assert (taken.chain, taken.traceparent) == (sent.chain, HOSTILE)

    @pytest.mark.parametrize("name", ["call_id", "action", "sender"])
    async def test_hostile_text_is_text(self, store: Store, name: str) -> None:
        names = {"call_id": "c", "action": "drive", "sender": "s", name: HOSTILE}
        await join(store, "new", actions=(names["action"],))
        await send(store, names["call_id"], action=names["action"], sender=names["sender"])

        assert await take(store, "new") == [names["call_id"]]
        assert await store.post.answer(names["call_id"], "new", b"1", takes=1)
        assert list((await store.post.peek("n1", names["sender"])).answers) == [names["call_id"]]

    async def test_a_call_goes_to_the_living_owner(self, store: Store) -> None:
        await join(store, "new")
        assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)
        await send(store, "c")

        assert not await sees(store, "new")
        assert await take(store, "new") == []
        assert await sees(store, "n1")
        (taken,) = await store.post.take("n1", 9)
        assert taken.target == "n1"

    async def test_a_call_does_not_go_to_a_dead_owner(self, store: Store, clock: ManualClock) -> None:
        await store.claim(KEY, Fence("n1", 1))
        clock.advance(LEASE_SECONDS)
        await join(store, "new")
        await send(store, "c")

        (taken,) = await store.post.take("new", 9)
        assert taken.target is None

    async def test_a_call_does_not_go_to_who_released_the_actor(self, store: Store) -> None:
        await join(store, "new")
        await store.claim(KEY, Fence("n1", 1))
        await store.release([(KEY, Fence("n1", 1))])
        await send(store, "c")

        assert await take(store, "n1") == []
        assert await take(store, "new") == ["c"]

    async def test_a_target_that_was_named_counts_more_than_the_owner(self, store: Store) -> None:
        await store.claim(KEY, Fence("n1", 1))
        await send(store, "c", target="n2")

        assert await take(store, "n1") == []
        assert await take(store, "n2") == ["c"]

    @pytest.mark.parametrize("end", ["lease", "unregister", "forget", "replace"])
    async def test_a_call_for_a_node_that_died_goes_to_another(
        self, store: Store, clock: ManualClock, end: str
    ) -> None:
        await join(store, "new")
        await send(store, "c", target="n1")
        assert await take(store, "new") == []

        if end == "lease":
            clock.advance(LEASE_SECONDS)
            assert beat(store, "new")
        elif end == "replace":
            await store.register(NodeRecord("n3", "label", None, LEASE_SECONDS), replaces="n1")
        else:
            await (store.unregister("n1") if end == "unregister" else store.forget("n1"))
        assert await sees(store, "new")
        assert await take(store, "new") == ["c"]

    @pytest.mark.parametrize(
        ("needs", "action", "actor_type"),
        [("3.0.0", "drive", "Car"), ("0.0.0", "fly", "Car"), ("0.0.0", "drive", "Bus")],
        ids=["version", "action", "type"],
    )
    async def test_only_who_can_do_it_takes_a_call(
        self, store: Store, needs: str, action: str, actor_type: str
    ) -> None:
        await join(store, "old", "2.9.0")
        await join(store, "able", "3.0.0", type=actor_type, actions=("brake", action))
        await send(store, "c", needs=needs, action=action, key=ActorKey(actor_type, "a"))

        for node_id in ("old", "n1", "stranger"):
            assert not await sees(store, node_id)
            assert await take(store, node_id) == []
        assert await take(store, "able") == ["c"]

    async def test_a_node_reads_all_of_its_own_major_version(self, store: Store) -> None:
        await join(store, "old", "2.0.0")
        await send(store, "c", needs="2.99.0")

        assert await take(store, "old") == ["c"]

    async def test_a_draining_node_takes_only_what_is_for_it(self, store: Store) -> None:
        await join(store, "new")
        await store.drain("new")
        await send(store, "c")
        assert await take(store, "new") == []
        assert not await sees(store, "new")

        await send(store, "d", target="new")
        assert await take(store, "new") == ["d"]

    async def test_an_unregistered_node_takes_nothing_even_if_it_is_for_it(self, store: Store) -> None:
        await send(store, "c", target="stranger")
        assert not await sees(store, "stranger")
        assert await take(store, "stranger") == []

    async def test_a_call_whose_time_is_over_is_not_taken(self, store: Store, clock: ManualClock) -> None:
        await join(store, "new")
        await send(store, "c", seconds=5.0)
        clock.advance(5.0)

        assert not await sees(store, "new")
        assert await take(store, "new") == []
        assert (await store.post.cancel("c", "s")).status == CallStatus.CANCELLED

    async def test_a_forwarded_call_gets_no_more_time(self, store: Store, clock: ManualClock) -> None:
        await join(store, "new")
        await send(store, "c", seconds=5.0)
        assert await take(store, "new") == ["c"]
        clock.advance(5.0)
        assert await store.post.forward("c", "new", takes=1)

        assert await take(store, "new") == []
        assert (await store.post.peek("n1", "s")).answers["c"].status == CallStatus.WAITING

    async def test_each_call_goes_to_one_of_those_who_take_at_once(self, store: Store) -> None:
        nodes = [f"taker-{number}" for number in range(6)]
        for node_id in nodes:
            await join(store, node_id)
        for number in range(30):
            await send(store, f"c{number}", key=ActorKey("Car", str(number)))

        found: list[str] = []
        while page := [
            call.call_id for calls in await asyncio.gather(*(store.post.take(node_id, 3) for node_id in nodes))
            for call in calls
        ]:  # fmt: skip
            found += page
        assert sorted(found) == sorted(f"c{number}" for number in range(30))

    async def test_calls_come_oldest_first_and_no_more_than_asked_for(self, store: Store) -> None:
        await join(store, "new")
        names = ["z", "a", "m", "b", "y"]
        for name in names:
            await send(store, name)

        assert await take(store, "new", 2) == names[:2]
        assert await take(store, "new", 2) == names[2:4]
        assert await take(store, "new", 2) == names[4:]
        assert [call.call_id for call in await store.post.taken("new")] == names

    # --- queue -------------------------------------------------------------------------------------------------

    async def test_no_more_calls_wait_than_are_allowed(self, store: Store) -> None:
        await join(store, "new")
        assert [await store.post.send(call(name), max_waiting=2) for name in "abc"] == [True, True, False]
        assert await store.post.send(call("d", key=ActorKey("Car", "b")), max_waiting=2)
        assert await store.post.send(call("mark", action=""), max_waiting=2)

        assert await take(store, "new", 1) == ["a"]
        assert await store.post.send(call("e"), max_waiting=2)
        assert sorted(await take(store, "new")) == ["b", "d", "e"]

    async def test_calls_whose_time_is_over_take_no_room(self, store: Store, clock: ManualClock) -> None:
        assert await store.post.send(call("a", seconds=5.0), max_waiting=1)
        clock.advance(5.0)
        assert await store.post.send(call("b"), max_waiting=1)

    # --- cancelling --------------------------------------------------------------------------------------------

    async def test_a_waiting_call_is_cancelled_for_good(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c")
        assert (await store.post.cancel("c", "s")).status == CallStatus.CANCELLED

        assert await take(store, "new") == []
        assert (await store.post.cancel("c", "s")).status == CallStatus.CANCELLED
        assert (await store.post.lose("c")).status == CallStatus.CANCELLED
        assert (await store.post.peek("n1", "s")).answers == {}

    async def test_a_call_that_was_cancelled_before_it_came_never_comes(self, store: Store) -> None:
        await join(store, "new")
        assert (await store.post.cancel("c", "s")).status == CallStatus.CANCELLED
        assert not await store.post.send(call("c"), max_waiting=9)

        assert not await sees(store, "new")
        assert await take(store, "new") == []
        assert (await store.post.peek("n1", "s")).answers == {}

    async def test_a_call_is_stored_once(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c")
        assert not await store.post.send(call("c", action="else"), max_waiting=9)
        assert [taken.action for taken in await store.post.take("new", 9)] == ["drive"]
        assert not await store.post.send(call("c"), max_waiting=9)
        assert await take(store, "new") == []

    async def test_a_taken_call_is_not_cancelled(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c", needs="1.0.0")
        assert await take(store, "new") == ["c"]

        expected = CallState(CallStatus.TAKEN, None, "new", is_taker_alive=True, needs=pack(parse("1.0.0")))
        assert await store.post.cancel("c", "s") == expected
        assert await store.post.answer("c", "new", b"1", takes=1)
        assert (await store.post.cancel("c", "s")).result == b"1"
