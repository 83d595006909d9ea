"""The contract of stores as tests: the ends of travelling calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lazymig._fleet_records import CallStatus
from lazymig._records import ActorKey, Fence, NodeRecord
from lazymig._version import pack, parse
from lazymig.testing.post_bench import HOSTILE, KEY, LONG_SECONDS, join, offer, sees, send, take, wanted
from lazymig.testing.store_bench import LEASE_SECONDS, StoreBench, beat

if TYPE_CHECKING:
    from lazymig.store import Store
    from lazymig.testing.clock import ManualClock


class PostEndsSuite(StoreBench):
    """Inherited by `PostSuite`."""

    async def test_only_the_taker_answers_and_once(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c")
        assert not await store.post.answer("c", "new", b"early", takes=1)
        assert await take(store, "new") == ["c"]

        assert not await store.post.answer("c", "n1", b"other", takes=1)
        assert not await store.post.answer("unknown", "new", b"x", takes=1)
        assert await store.post.answer("c", "new", b"first", takes=1)
        assert not await store.post.answer("c", "new", b"second", takes=1)
        assert not await store.post.forward("c", "new", takes=1)
        found = (await store.post.peek("n1", "s")).answers["c"]
        assert (found.status, found.result, found.taker) == (CallStatus.DONE, b"first", "new")
        assert list(await store.post.taken("new")) == []

    async def test_only_the_taker_forwards_and_once(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c")
        assert not await store.post.forward("c", "new", takes=1)
        assert await take(store, "new") == ["c"]

        assert not await store.post.forward("c", "n1", takes=1)
        assert await store.post.forward("c", "new", target="n2", takes=1)
        assert not await store.post.forward("c", "new", takes=1)
        assert not await store.post.answer("c", "new", b"late", takes=1)
        assert await take(store, "new") == []
        assert await take(store, "n2") == ["c"]

    async def test_what_comes_late_from_an_earlier_take_counts_no_more(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c")
        (first,) = await store.post.take("new", 9)
        assert await store.post.forward("c", "new", takes=first.takes)
        (second,) = await store.post.take("new", 9)
        assert (first.takes, second.takes) == (1, 2)

        assert not await store.post.forward("c", "new", takes=first.takes)
        assert not await store.post.answer("c", "new", b"late", takes=first.takes)
        assert [again.takes for again in await store.post.taken("new")] == [2]
        assert await store.post.answer("c", "new", b"1", takes=second.takes)

    async def test_a_node_sees_what_it_has_taken(self, store: Store) -> None:
        await join(store, "new")
        await join(store, "other")
        for name in ("answered", "passed on", "open"):
            await send(store, name)
        assert (await store.post.peek("new", "s")).taken == frozenset()
        assert len(await take(store, "new")) == 3
        await store.post.answer("answered", "new", b"1", takes=1)
        await store.post.forward("passed on", "new", takes=1)
        assert (await store.post.peek("new", "s")).taken == {("open", 1)}
        assert (await store.post.peek("other", "s")).taken == frozenset()

    async def test_a_target_counts_as_long_as_it_is_to(self, store: Store, clock: ManualClock) -> None:
        for node_id in ("new", "newest"):
            await join(store, node_id)
        await send(store, "c", seconds=LONG_SECONDS)
        assert await take(store, "new") == ["c"]
        assert await store.post.forward("c", "new", takes=1, target="newest", target_seconds=1.0)
        clock.advance(0.9)
        assert await take(store, "new") == []
        clock.advance(0.2)
        assert await sees(store, "new")
        assert await take(store, "new") == ["c"]
        assert await store.post.forward("c", "new", takes=2, target="newest")
        clock.advance(2.0)
        assert await take(store, "new") == []
        assert await take(store, "newest") == ["c"]

    async def test_a_call_that_was_stored_and_is_there_no_more_is_lost_not_cancelled(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "c")
        await send(store, "waiting")
        await store.post.remove(["c"])
        assert (await store.post.cancel("c", "s", is_stored=True)).status == CallStatus.LOST
        assert (await store.post.cancel("waiting", "s", is_stored=True)).status == CallStatus.CANCELLED
        assert await take(store, "new") == []

    async def test_calls_that_an_action_waits_for_can_be_taken_alone(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "outer")
        for name in ("inner", "next"):
            await send(store, name, chain=(ActorKey("Car", "b"),))
        taken = [await store.post.take("new", 1, only_nested=True) for _ in range(3)]
        assert [[call.call_id for call in calls] for calls in taken] == [["inner"], ["next"], []]
        assert await take(store, "new") == ["outer"]

    async def test_forwarding_raises_what_a_call_needs_and_never_lowers_it(self, store: Store) -> None:
        await join(store, "old", "1.0.0")
        await join(store, "new", "4.0.0")
        await send(store, "c")
        assert await take(store, "old") == ["c"]
        steps = (("3.0.0", "3.0.0"), ("2.0.0", "3.0.0"), ("0.0.0", "3.0.0"), ("4.0.0", "4.0.0"))
        for takes, (asked, expected) in enumerate(steps, 1):
            taker = "old" if takes == 1 else "new"
            assert await store.post.forward("c", taker, needs=pack(parse(asked)), takes=takes)
            assert await take(store, "old") == []
            (again,) = await store.post.take("new", 9)
            assert (again.needs, again.target) == (pack(parse(expected)), None)

    @pytest.mark.parametrize("end", ["lease", "unregister", "forget"])
    async def test_a_call_is_lost_only_when_its_taker_is_dead(self, store: Store, clock: ManualClock, end: str) -> None:
        await join(store, "new")
        await send(store, "c", seconds=LONG_SECONDS)
        assert (await store.post.lose("c")).status == CallStatus.WAITING
        assert await take(store, "new") == ["c"]
        assert (await store.post.lose("c")).status == CallStatus.TAKEN
        assert (await store.post.peek("n1", "s")).answers["c"].is_taker_alive

        if end == "lease":
            clock.advance(LEASE_SECONDS)
        else:
            await (store.unregister("new") if end == "unregister" else store.forget("new"))
        seen = (await store.post.peek("n1", "s")).answers["c"]
        assert (seen.status, seen.taker, seen.is_taker_alive) == (CallStatus.TAKEN, "new", False)
        assert (await store.post.lose("c")).status == CallStatus.LOST
        await join(store, "another")
        assert not await store.post.answer("c", "new", b"late", takes=1)
        assert not await store.post.forward("c", "new", takes=1)
        assert await take(store, "another") == []
        assert (await store.post.cancel("c", "s")).status == CallStatus.LOST

    async def test_a_dead_taker_may_answer_as_long_as_nobody_gave_the_call_up(
        self, store: Store, clock: ManualClock
    ) -> None:
        await join(store, "new")
        await send(store, "c", seconds=LONG_SECONDS)
        assert await take(store, "new") == ["c"]
        clock.advance(LEASE_SECONDS)

        assert await store.post.answer("c", "new", b"1", takes=1)
        assert (await store.post.lose("c")).status == CallStatus.DONE

    async def test_an_unknown_call_is_lost(self, store: Store) -> None:
        assert (await store.post.lose("unknown")).status == CallStatus.LOST

    async def test_answers_are_those_of_the_sender_which_were_taken_or_have_ended(
        self, store: Store, clock: ManualClock
    ) -> None:
        await join(store, "new")
        for name in ("taken", "done"):
            await send(store, name)
        await take(store, "new")
        await store.post.answer("done", "new", b"1", takes=1)
        await send(store, "not mine", sender="other")
        await send(store, "expired", seconds=1.0)
        await send(store, "waiting")
        await store.post.cancel("cancelled", "s")

        assert set((await store.post.peek("n1", "s")).answers) == {"taken", "done"}
        clock.advance(1.0)
        found = (await store.post.peek("n1", "s")).answers
        expected = {"taken": CallStatus.TAKEN, "done": CallStatus.DONE, "expired": CallStatus.WAITING}
        assert {name: state.status for name, state in found.items()} == expected

    # --- marks, cleaning up ------------------------------------------------------------------------------------

    async def test_a_mark_tells_the_owner_that_somebody_waits(self, store: Store, clock: ManualClock) -> None:
        await join(store, "new", actions=("", "drive"))
        await send(store, "before", action="", seconds=5.0)
        assert await wanted(store) == ()
        await store.claim(KEY, Fence("n1", 1))
        assert await wanted(store) == (KEY,)
        assert await wanted(store, "n2") == ()
        assert await take(store, "n1") == await take(store, "new") == []

        await store.post.remove(["before"])
        assert await wanted(store) == ()
        await send(store, "again", action="", seconds=5.0)
        assert await wanted(store) == (KEY,)
        clock.advance(5.0)
        assert await wanted(store) == ()

    async def test_what_was_removed_is_gone(self, store: Store) -> None:
        await join(store, "new")
        await send(store, "waiting")
        await store.post.remove(["waiting", "unknown", HOSTILE])
        await store.post.remove([])

        assert await take(store, "new") == []

    async def test_old_calls_are_tidied_up_and_running_ones_are_not(self, store: Store, clock: ManualClock) -> None:
        await store.register(NodeRecord("lasting", "label", None, 100 * LONG_SECONDS, offer()))
        for name in ("taken", "done"):
            await send(store, name)
        assert await take(store, "lasting") == ["taken", "done"]
        await store.post.answer("done", "lasting", b"1", takes=1)
        await send(store, "waiting")
        await store.post.tidy()
        assert set((await store.post.peek("n1", "s")).answers) == {"taken", "done"}

        clock.advance(LONG_SECONDS)
        await store.post.tidy()
        assert set((await store.post.peek("n1", "s")).answers) == {"taken"}
        await store.unregister("lasting")
        await store.post.tidy()
        assert (await store.post.peek("n1", "s")).answers == {}

    async def test_a_lost_call_is_kept_long_enough_to_be_told(self, store: Store, clock: ManualClock) -> None:
        await join(store, "new")
        await send(store, "c", seconds=1.0)
        assert await take(store, "new") == ["c"]
        clock.advance(LEASE_SECONDS)
        await store.post.tidy()

        assert set((await store.post.peek("n1", "s")).answers) == {"c"}

    async def test_nodes_silent_for_ten_lease_times_are_named(self, store: Store, clock: ManualClock) -> None:
        await join(store, "new")
        clock.advance(10 * LEASE_SECONDS - 1)
        assert beat(store, "new")
        assert list(await store.post.tidy()) == []
        clock.advance(1)

        assert sorted(await store.post.tidy()) == ["n1", "n2"]
        assert await store.forget("n1")
        assert list(await store.post.tidy()) == ["n2"]
