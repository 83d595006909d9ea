"""The contract of stores as far as sweeps go, as tests.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lazymig._bases import NO_POLICY, BaseWrite, Kept, WritePolicy
from lazymig._entries import Entry
from lazymig._records import NO_MARKS, ActorKey, Claim, Commit, Fence, Held, Marks, NodeRecord, Stamp
from lazymig._version import pack, parse
from lazymig.testing.failure_suite import failure, note
from lazymig.testing.ruling_bench import pin
from lazymig.testing.store_bench import LEASE_SECONDS, StoreBench
from lazymig.testing.store_suite import FIRST, SECOND, applied, claimed

if TYPE_CHECKING:
    from lazymig.store import Store
    from lazymig.sweeping import Batch

ONE, TWO = pack(parse("1.0.0")), pack(parse("2.0.0"))
FENCE, OTHER = Fence("n1", 100), Fence("n2", 100)
AFTER = Stamp(applied("1.0.0", "2.0.0"), applied("1.0.0", "2.0.0"), datetime(2026, 5, 4, 3, 2, 1, 123456, UTC))


async def put(store: Store, actor_id: str, **how: Any) -> None:
    """Store an actor, at 1.0.0 with a main state of its id unless told otherwise, and free it."""
    key, fence = ActorKey("Car", actor_id), Fence("n2", 1)
    claim = await store.claim(key, fence)
    assert isinstance(claim, Claim)
    standard = {"stamp": FIRST, "writes": {"main": actor_id.encode()}, "release": True}
    assert await store.commit(Commit(key, fence, claim.actor.revision, **{**standard, **how}))


async def sweep(store: Store, fence: Fence = FENCE, **how: Any) -> Batch:
    """Claim plain actors at 1.0.0."""
    batch = await store.sweeping.claim("Car", FIRST.applied, "main", fence, **how)
    assert batch is not None
    return batch


async def finish(store: Store, batch: Batch, **how: Any) -> Any:
    """Store something of each actor of a batch."""
    changes = [(actor_id, b"new " + data) for actor_id, data in zip(batch.ids, batch.data, strict=True)]
    return await store.sweeping.commit(
        "Car", "main", batch.fence, **{"changes": changes, "stamp": AFTER, "epoch": 0, **how}
    )


async def expect(store: Store, actor_id: str, data: bytes, stamp: Stamp | None, revision: int) -> None:
    """Check what is stored of an actor, and that it is free."""
    found = await store.read(ActorKey("Car", actor_id))
    assert found is not None
    assert (found.states["main"], found.stamp, found.revision) == (data, stamp, revision)
    assert found.owner is None


class SweepSuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_plain_actors_of_a_set_are_claimed_in_order_with_one_state_of_each(self, store: Store) -> None:
        for actor_id in ("b", "a", "ä", "Z"):
            await put(store, actor_id)
        await put(store, "newer", stamp=SECOND)

        batch = await sweep(store)

        assert (batch.fence, batch.ids) == (FENCE, ["Z", "a", "b", "ä"])
        assert batch.data == [b"Z", b"a", b"b", "ä".encode()]
        assert (batch.policy, batch.now.tzinfo) == (NO_POLICY, UTC)

    async def test_what_was_claimed_together_is_held_as_by_single_claims(self, store: Store) -> None:
        await put(store, "a")
        await sweep(store)

        key = ActorKey("Car", "a")
        assert await store.claim(key, Fence("n2", 2)) == Held("n1")
        found = await store.read(key)
        assert found is not None
        assert (found.owner, found.number) == FENCE
        assert await store.commit(Commit(key, FENCE, 1, SECOND, {"main": b"2"}, release=True)) == 2
        await expect(store, "a", b"2", SECOND, 2)

    async def test_what_is_not_plain_is_passed_over(self, store: Store) -> None:
        await put(store, "entries", entries={("log", "a"): Entry(b"1", FIRST.applied)}, marks=Marks(0, ONE))
        await put(store, "converting", marks=Marks(TWO))
        await put(store, "base", base=BaseWrite(AFTER.applied, 7, is_current=True, states={"main": Kept(b"kept")}))
        await put(store, "other state", writes={"other": b"1"})
        await put(store, "cleared")
        await put(store, "cleared", writes={"main": None})
        await put(store, "held")
        assert isinstance(await store.claim(ActorKey("Car", "held"), Fence("n2", 2)), Claim)
        assert isinstance(await store.claim(ActorKey("Car", "unstored"), Fence("n2", 2)), Claim)
        await put(store, "failing")
        await note(store, ActorKey("Car", "failing"), failure())
        await put(store, "plain")

        assert (await sweep(store)).ids == ["plain"]
        for actor_id in ("entries", "converting", "base", "other state", "failing"):
            found = await store.read(ActorKey("Car", actor_id))
            assert found is not None
            assert found.owner is None

    async def test_the_next_ones_come_after_an_id_up_to_a_limit(self, store: Store) -> None:
        for number in range(7):
            await put(store, f"{number}")

        def seen(batch: Batch) -> tuple[list[str], str | None]:
            return list(batch.ids), batch.after

        assert seen(await sweep(store, limit=3)) == (["0", "1", "2"], "2")
        assert seen(await sweep(store, Fence("n1", 101), after="3", limit=2)) == (["4", "5"], "5")
        assert seen(await sweep(store, OTHER, limit=3)) == (["3", "6"], None)
        assert seen(await sweep(store, Fence("n2", 101))) == ([], None)

    async def test_what_lacks_the_state_holds_nobody_up(self, store: Store) -> None:
        for number in range(6):
            await put(store, f"{number}", writes={"main" if number in {3, 5} else "other": b"1"})

        ids: list[str] = []
        after: str | None = ""
        for number in range(10):
            if after is not None:
                batch = await sweep(store, Fence("n1", 300 + number), after=after, limit=2)
                ids, after = [*ids, *batch.ids], batch.after

        assert (ids, after) == (["3", "5"], None)
        for number in (0, 1, 2, 4):
            found = await store.read(ActorKey("Car", f"{number}"))
            assert found is not None
            assert found.owner is None

    async def test_a_node_that_is_not_registered_gets_none(self, store: Store) -> None:
        await put(store, "a")

        assert await store.sweeping.claim("Car", FIRST.applied, "main", Fence("nobody", 1)) is None
        assert (await sweep(store)).ids == ["a"]

    async def test_imported_actors_have_no_set(self, store: Store) -> None:
        await store.insert("Car", "main", [("a", b"1")])
        await put(store, "b")

        batch = await store.sweeping.claim("Car", None, "main", FENCE)

        assert batch is not None
        assert (batch.ids, batch.data) == (["a"], [b"1"])
        assert list(await finish(store, batch)) == []
        await expect(store, "a", b"new 1", AFTER, 2)

    async def test_a_set_that_nobody_has_is_no_actors(self, store: Store) -> None:
        await put(store, "a")

        batch = await store.sweeping.claim("Car", applied("9.9.9"), "main", FENCE)

        assert batch is not None
        assert list(batch.ids) == []

    async def test_a_commit_stores_states_and_stamp_and_frees_the_actors(self, store: Store) -> None:
        ids = [f"{number:03}" for number in range(450)]
        for actor_id in ids:
            await put(store, actor_id, writes={"main": b"1", "other": b"2"})
        await put(store, "else", stamp=SECOND)

        assert list(await finish(store, await sweep(store))) == []

        for actor_id in ids:
            await expect(store, actor_id, b"new 1", AFTER, 2)
        found = await store.read(ActorKey("Car", "000"))
        assert found is not None
        assert found.states["other"] == b"2"
        await expect(store, "else", b"else", SECOND, 1)
        assert dict(await store.census("Car")) == {AFTER.applied: 450, SECOND.applied: 1}

    @pytest.mark.parametrize("drops", [True, False])
    async def test_what_is_kept_of_them_goes_with_a_commit_that_says_so(self, store: Store, *, drops: bool) -> None:
        for actor_id in "abc":
            await put(store, actor_id)
            await put(store, actor_id, keeps_previous=True)
        batch = await sweep(store)
        assert isinstance(await store.claim(ActorKey("Car", "c"), Fence("n1", 101)), Claim)

        how: dict[str, Any] = {"changes": [("a", b"2"), ("c", b"2")], "released": ["b"], "drops_previous": drops}
        assert list(await finish(store, batch, **how)) == ["c"]

        has = [await store.previous(ActorKey("Car", actor_id)) is not None for actor_id in "abc"]
        assert has == [not drops, True, True]

    async def test_of_those_released_nothing_is_stored(self, store: Store) -> None:
        for actor_id in "abc":
            await put(store, actor_id)
        batch = await sweep(store)

        assert list(await finish(store, batch, changes=[("b", b"2")], released=["a", "c"])) == []

        await expect(store, "a", b"a", FIRST, 1)
        await expect(store, "b", b"2", AFTER, 2)
        await expect(store, "c", b"c", FIRST, 1)

    async def test_a_commit_may_only_release(self, store: Store) -> None:
        await put(store, "a")
        await sweep(store)

        assert list(await finish(store, await sweep(store), changes=[], released=["a"])) == []

        await expect(store, "a", b"a", FIRST, 1)

    async def test_those_that_another_fence_took_are_named_and_left_alone(self, store: Store) -> None:
        for actor_id in "abc":
            await put(store, actor_id)
        batch = await sweep(store)
        taken = await store.claim(ActorKey("Car", "b"), Fence("n1", 101))
        assert isinstance(taken, Claim)

        assert list(await finish(store, batch)) == ["b"]

        await expect(store, "a", b"new a", AFTER, 2)
        await expect(store, "c", b"new c", AFTER, 2)
        found = await store.read(ActorKey("Car", "b"))
        assert found is not None
        assert (found.revision, found.number, found.states["main"]) == (1, 101, b"b")

    async def test_a_forgotten_node_stores_nothing(self, store: Store) -> None:
        for actor_id in "ab":
            await put(store, actor_id)
        batch = await sweep(store)
        await store.forget("n1")

        assert list(await finish(store, batch)) == ["a", "b"]

        await expect(store, "a", b"a", FIRST, 1)
        await store.register(NodeRecord("n3", "label", None, LEASE_SECONDS))
        assert isinstance(await store.claim(ActorKey("Car", "b"), Fence("n3", 1)), Claim)

    async def test_a_commit_of_another_epoch_does_nothing_at_all(self, store: Store) -> None:
        for actor_id in "ab":
            await put(store, actor_id)
        batch = await sweep(store)
        await pin(store, ONE)

        assert await finish(store, batch, changes=[("a", b"2")], released=["b"]) == WritePolicy(ONE, 1)

        for actor_id in "ab":
            found = await store.read(ActorKey("Car", actor_id))
            assert found is not None
            assert (found.revision, found.owner) == (1, "n1")
        assert list(await finish(store, batch, epoch=1)) == []
        await expect(store, "a", b"new a", AFTER, 2)

    async def test_a_claim_brings_the_policy(self, store: Store) -> None:
        await put(store, "a")
        await pin(store, TWO)

        assert (await sweep(store)).policy == WritePolicy(TWO, 1)

    async def test_an_actor_is_got_by_one_of_many(self, store: Store) -> None:
        for number in range(40):
            await put(store, f"{number:02}")

        batches = await asyncio.gather(*(sweep(store, Fence("n1", 200 + number), limit=7) for number in range(8)))

        ids = [actor_id for batch in batches for actor_id in batch.ids]
        assert len(ids) == len(set(ids))
        for batch in batches:
            if batch.ids:
                assert list(await finish(store, batch)) == []
        assert len((await sweep(store)).ids) == 40 - len(ids)

    async def test_unsettled_are_those_whose_stamp_does_not_tell_all(self, store: Store) -> None:
        old, new, full = applied("1.0.0"), applied("1.0.0", "2.0.0"), AFTER.applied
        kept = {"main": Kept(b"kept")}
        await put(store, "plain")
        await put(store, "converting", marks=Marks(TWO))
        await put(store, "base", base=BaseWrite(full, 7, is_current=True, states=kept))
        await put(store, "older base", base=BaseWrite(full, 7, is_current=True, states=kept))
        await put(store, "older base", marks=NO_MARKS)
        await put(store, "old entry", entries={("log", "a"): Entry(b"1", old)}, marks=Marks(0, ONE))
        two = {("log", "a"): Entry(b"1", new), ("log", "b"): Entry(b"1", old)}
        await put(store, "two entries", entries=two, marks=Marks(0, ONE))
        await put(store, "new entry", entries={("log", "a"): Entry(b"1", new)}, marks=Marks(0, TWO))
        find = store.sweeping.unsettled

        assert await find("Car", frozenset(), full) == ["converting", "older base"]
        assert await find("Car", frozenset(), None) == ["base", "converting", "older base"]
        assert await find("Car", frozenset(), applied("9.9.9")) == ["base", "converting", "older base"]
        assert await find("Car", frozenset({old}), full) == ["converting", "old entry", "older base", "two entries"]
        assert await find("Car", frozenset({old}), full, after="converting", limit=2) == ["old entry", "older base"]
        assert await find("Car", frozenset({new}), full, after="cz") == ["new entry", "older base", "two entries"]
        assert await find("Bus", frozenset({old, new}), None) == []

    async def test_unsettled_are_counted_but_for_those_of_some_sets(self, store: Store) -> None:
        old, new = applied("1.0.0"), applied("1.0.0", "2.0.0")
        await put(store, "plain")
        await put(store, "converting", marks=Marks(TWO))
        await put(store, "base", base=BaseWrite(new, 7, is_current=True, states={"main": Kept(b"kept")}))
        two = {("log", "a"): Entry(b"1", new), ("log", "b"): Entry(b"1", old)}
        await put(store, "entries", entries=two, marks=Marks(0, ONE))
        await put(store, "newer", stamp=AFTER, entries=two, marks=Marks(0, ONE))
        await put(store, "unstamped", stamp=None, marks=Marks(TWO))
        count = store.sweeping.count_unsettled

        assert await count("Car", frozenset({old}), None, without=frozenset()) == 5
        assert await count("Car", frozenset({old}), new, without=frozenset()) == 4
        assert await count("Car", frozenset(), None, without=frozenset()) == 3
        assert await count("Car", frozenset({old}), None, without=frozenset({new})) == 4
        assert await count("Car", frozenset({old}), None, without=frozenset({old, None})) == 1
        assert await count("Bus", frozenset({old}), None, without=frozenset()) == 0

    async def test_sweeps_note_how_far_they_are(self, store: Store) -> None:
        note = store.sweeping.note
        assert list(await store.sweeping.notes()) == []
        assert not await note("Car", "n2", b'{"a":1}')
        assert not await note("Car", "n1", b"1")
        assert not await note("Bus", "n1", b"2")
        assert not await note("Car", "n1", b"3")

        found = await store.sweeping.notes()

        expected = [("Bus", "n1", b"2"), ("Car", "n1", b"3"), ("Car", "n2", b'{"a":1}')]
        assert [(of.actor_type, of.node_id, of.progress) for of in found] == expected
        assert all(of.noted_at.tzinfo is UTC for of in found)

    async def test_what_ended_sweeps_noted_stays_until_the_next_one_of_the_type(self, store: Store) -> None:
        await store.sweeping.note("Car", "n1", b"1")
        await store.sweeping.note("Bus", "n1", b"1")
        await store.unregister("n1")
        assert len(await store.sweeping.notes()) == 2

        await store.sweeping.note("Car", "n2", b"2")

        assert [(of.actor_type, of.node_id) for of in await store.sweeping.notes()] == [("Bus", "n1"), ("Car", "n2")]

    async def test_a_type_pauses_until_it_goes_on(self, store: Store) -> None:
        assert await store.sweeping.pause("Car", is_paused=True)
        assert not await store.sweeping.pause("Car", is_paused=True)

        assert set(await store.sweeping.paused()) == {"Car"}
        assert await store.sweeping.note("Car", "n1", b"1")
        assert not await store.sweeping.note("Bus", "n1", b"1")
        assert await store.sweeping.pause("Car", is_paused=False)
        assert not await store.sweeping.pause("Car", is_paused=False)
        assert not await store.sweeping.note("Car", "n1", b"1")
        assert set(await store.sweeping.paused()) == set()

    async def test_a_claim_of_one_is_a_claim_of_its_own(self, store: Store) -> None:
        await claimed(store, 1)
        await put(store, "b")

        assert (await sweep(store)).ids == ["b"]
