"""The contract of stores as tests: a store that passes them keeps what `lazymig.store` promises.

A store joins with one class::

    class TestMyStore(StoreSuite):
        def open(self, folder, clock):
            return open_my_store(folder / "store", clock=clock)
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

import pytest

from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, Stamp
from lazymig._version import pack, parse
from lazymig.errors import LeaseLostError, StoreClosedError
from lazymig.testing.store_bench import LEASE_SECONDS, StoreBench, beat

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store
    from lazymig.testing.clock import ManualClock

KEY = ActorKey("Car", "a")


def applied(*versions: str, floor: str | None = None) -> AppliedSet:
    """Return an applied set of versions given as text."""
    return AppliedSet((pack(parse(version)) for version in versions), 0 if floor is None else pack(parse(floor)))


FIRST = Stamp(applied("1.0.0"), applied("1.0.0"))
SECOND = Stamp(
    applied("1.0.1", "2.0.0", floor="1.0.0"), applied("1.0.0", "2.0.0"), datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)
)


class StoreSuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_claim_of_an_unknown_actor_is_empty(self, store: Store) -> None:
        claim = await claimed(store, 1)

        assert (claim.fence, claim.actor.revision) == (Fence("n1", 1), 0)
        assert (claim.actor.stamp, dict(claim.actor.states)) == (None, {})
        assert claim.now.tzinfo is not None

    async def test_an_actor_that_was_only_claimed_is_unknown(self, store: Store) -> None:
        await claimed(store, 1)

        assert await store.read(KEY) is None
        assert list(await store.scan("Car")) == []
        assert dict(await store.census("Car")) == {}
        assert list(await store.types()) == []

    async def test_a_second_node_learns_who_holds_the_actor(self, store: Store) -> None:
        await claimed(store, 1)

        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")
        await store.commit(commit(Fence("n1", 1), 0, v=b"1"))

    async def test_the_own_node_claims_again_and_its_earlier_fence_is_void(self, store: Store) -> None:
        await claimed(store, 1)
        again = await claimed(store, 2)

        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 0, v=b"old"))
        assert await store.commit(commit(again.fence, 0, v=b"1")) == 1

    async def test_a_claim_needs_a_registered_node(self, store: Store) -> None:
        with pytest.raises(LeaseLostError):
            await store.claim(KEY, Fence("stranger", 1))

        assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)

    async def test_a_claim_on_a_held_actor_needs_a_registered_node_too(self, store: Store) -> None:
        await claimed(store, 1)

        with pytest.raises(LeaseLostError):
            await store.claim(KEY, Fence("stranger", 1))

    async def test_one_of_many_concurrent_claims_wins(self, store: Store) -> None:
        nodes = [f"racer-{number}" for number in range(8)]
        for node_id in nodes:
            await store.register(NodeRecord(node_id, "racer", None, LEASE_SECONDS))

        found = await asyncio.gather(*(store.claim(KEY, Fence(node_id, 1)) for node_id in nodes))

        winners = [claim.fence.node for claim in found if isinstance(claim, Claim)]
        assert len(winners) == 1
        assert {held.owner for held in found if isinstance(held, Held)} == set(winners)

    async def test_increments_under_contention_are_never_lost(self, store: Store) -> None:
        workers = [f"worker-{number}" for number in range(6)]
        for node_id in workers:
            await store.register(NodeRecord(node_id, "worker", None, LEASE_SECONDS))
        await asyncio.gather(*(increment(store, node_id) for node_id in workers))

        found = await store.read(KEY)
        assert found is not None
        assert (found.states["count"], found.revision) == (b"60", 60)

    async def test_a_slow_node_is_not_dead(self, store: Store, clock: ManualClock) -> None:
        await claimed(store, 1)
        clock.advance(LEASE_SECONDS - 0.001)

        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")

    async def test_a_node_whose_lease_ran_out_loses_its_actors(self, store: Store, clock: ManualClock) -> None:
        await claimed(store, 1)
        clock.advance(LEASE_SECONDS)

        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)
        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 0, v=b"1"))

    async def test_a_heartbeat_keeps_a_node_alive(self, store: Store, clock: ManualClock) -> None:
        await claimed(store, 1)
        clock.advance(LEASE_SECONDS - 1)
        assert beat(store, "n1")
        clock.advance(LEASE_SECONDS - 1)

        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")

    async def test_a_heartbeat_of_an_unknown_node_is_told_so(self, store: Store) -> None:
        assert not beat(store, "stranger")

    async def test_an_unregistered_node_holds_nothing(self, store: Store) -> None:
        await claimed(store, 1)
        await store.unregister("n1")

        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 0, v=b"1"))
        assert not beat(store, "n1")
        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)
        await store.unregister("n1")

    async def test_a_replaced_node_holds_nothing(self, store: Store) -> None:
        await claimed(store, 1)
        await store.register(NodeRecord("n3", "label", None, LEASE_SECONDS), replaces="n1")

        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 0, v=b"1"))
        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)

    async def test_states_and_stamp_come_back_as_committed(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, SECOND, main=b'{"a":1}', other=b"[]"))

        claim = await claimed(store, 2)
        assert claim.actor.stamp == SECOND
        assert dict(claim.actor.states) == {"main": b'{"a":1}', "other": b"[]"}
        assert claim.actor.revision == 1

    async def test_a_commit_may_leave_the_actor_without_a_stamp(self, store: Store) -> None:
        await store.insert("Car", "main", [("a", b"1")])
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 1, main=b"2"))

        found = await store.read(KEY)
        assert found is not None
        assert (found.stamp, found.states["main"]) == (None, b"2")

    async def test_revisions_count_commits_and_go_on_after_a_clear(self, store: Store) -> None:
        await claimed(store, 1)

        assert await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1")) == 1
        assert await store.commit(commit(Fence("n1", 1), 1, FIRST, main=None)) == 2
        await store.release([(KEY, Fence("n1", 1))])
        assert (await claimed(store, 2)).actor.revision == 2
        assert await store.commit(commit(Fence("n1", 2), 2, FIRST, main=b"3")) == 3

    @pytest.mark.parametrize("fence", [Fence("n1", 2), Fence("n2", 1), Fence("stranger", 1)])
    async def test_a_commit_under_another_fence_stores_nothing(self, store: Store, fence: Fence) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1"))

        with pytest.raises(LeaseLostError):
            await store.commit(commit(fence, 1, SECOND, main=b"2", other=b"2"))
        await expect(store, FIRST, main=b"1")

    @pytest.mark.parametrize("revision", [0, 2])
    async def test_a_commit_from_another_revision_stores_nothing(self, store: Store, revision: int) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1"))

        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), revision, SECOND, main=b"2"))
        await expect(store, FIRST, main=b"1")

    async def test_a_commit_removes_one_state_and_keeps_the_others(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1", other=b"2"))
        await store.commit(commit(Fence("n1", 1), 1, FIRST, main=None))

        await expect(store, FIRST, other=b"2")

    async def test_a_commit_can_release_the_lock(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(Commit(KEY, Fence("n1", 1), 0, FIRST, {"main": b"1"}, release=True))

        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 1, SECOND, main=b"2"))
        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)

    async def test_a_cancelled_commit_happened_entirely_or_not_at_all(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1", other=b"1"))
        task = asyncio.create_task(store.commit(commit(Fence("n1", 1), 1, SECOND, main=b"2", other=b"2")))
        task.cancel()
        await asyncio.wait([task])

        found = await store.read(KEY)
        assert found is not None
        new = (2, SECOND, {"main": b"2", "other": b"2"})
        assert (found.revision, found.stamp, dict(found.states)) in [(1, FIRST, {"main": b"1", "other": b"1"}), new]

    async def test_a_released_actor_is_free(self, store: Store) -> None:
        await claimed(store, 1)
        await store.release([(KEY, Fence("n1", 1))])

        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)

    async def test_a_stale_release_frees_nothing(self, store: Store) -> None:
        await claimed(store, 1)
        await claimed(store, 2)
        await store.release([(KEY, Fence("n1", 1)), (KEY, Fence("n2", 1)), (ActorKey("Car", "never"), Fence("n1", 3))])

        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")

    async def test_many_locks_are_given_up_at_once(self, store: Store) -> None:
        keys = [ActorKey("Car", str(number)) for number in range(5)]
        for number, key in enumerate(keys):
            await store.claim(key, Fence("n1", number))
        await store.release([(key, Fence("n1", number)) for number, key in enumerate(keys)])

        found = [await store.claim(key, Fence("n2", number)) for number, key in enumerate(keys)]
        assert all(isinstance(claim, Claim) for claim in found)

    async def test_reading_shows_the_holder_while_it_is_registered(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1"))

        found = await store.read(KEY)
        assert found is not None
        assert (found.owner, found.number) == ("n1", 1)
        await store.unregister("n1")
        found = await store.read(KEY)
        assert found is not None
        assert (found.owner, found.number) == (None, 0)

    async def test_a_scan_goes_by_code_point_page_by_page(self, store: Store) -> None:
        ids = ["_", "a", "B", "A b", "Ab", "é", "z", "\U0001f697", "\uffff", "10", "9", "o'neil", 'say "hi"', "a/b"]
        await store.insert("Car", "main", [(actor_id, b"1") for actor_id in ids])
        await store.insert("Bus", "main", [("other", b"1")])

        found: list[str] = []
        while page := await store.scan("Car", after=found[-1] if found else "", limit=3):
            assert len(page) <= 3
            found += [actor.key.id for actor in page]
        assert found == sorted(ids)

    async def test_a_scan_brings_every_state_of_each_actor(self, store: Store) -> None:
        for number, name in enumerate("abc"):
            await store.claim(ActorKey("Car", name), Fence("n1", number))
            writes = {"x": name.encode(), "y": b"2"}
            await store.commit(Commit(ActorKey("Car", name), Fence("n1", number), 0, FIRST, writes))

        found = {actor.key.id: dict(actor.states) for actor in await store.scan("Car", after="a", limit=2)}
        assert found == {"b": {"x": b"b", "y": b"2"}, "c": {"x": b"c", "y": b"2"}}

    async def test_the_census_counts_stored_actors_by_applied_set(self, store: Store) -> None:
        await store.insert("Car", "main", [("legacy-1", b"1"), ("legacy-2", b"1")])
        for number, stamp in enumerate([FIRST, FIRST, SECOND]):
            key = ActorKey("Car", str(number))
            await store.claim(key, Fence("n1", number))
            await store.commit(Commit(key, Fence("n1", number), 0, stamp, {"main": b"1"}))

        assert dict(await store.census("Car")) == {None: 2, FIRST.applied: 2, SECOND.applied: 1}
        assert dict(await store.census("Bus")) == {}

    async def test_types_are_those_of_stored_actors_in_order(self, store: Store) -> None:
        await store.insert("b", "main", [("x", b"1")])
        await store.insert("a", "main", [("x", b"1")])
        await store.claim(ActorKey("only claimed", "x"), Fence("n1", 1))

        assert list(await store.types()) == ["a", "b"]

    async def test_insert_stores_only_what_does_not_exist(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1"))

        assert await store.insert("Car", "main", [("a", b"2"), ("b", b"2")]) == {"b"}
        await expect(store, FIRST, main=b"1")

    async def test_a_cleared_actor_exists_for_insert(self, store: Store) -> None:
        await claimed(store, 1)
        await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1"))
        await store.commit(commit(Fence("n1", 1), 1, FIRST, main=None))

        assert await store.insert("Car", "main", [("a", b"2")]) == frozenset()

    async def test_what_was_inserted_under_a_claim_is_not_overwritten(self, store: Store) -> None:
        await claimed(store, 1)

        assert await store.insert("Car", "main", [("a", b"imported")]) == {"a"}
        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1"))
        await expect(store, None, main=b"imported")

    async def test_long_keys_and_values_come_back(self, store: Store) -> None:
        key = ActorKey("T" * 200, "\U0001f697" * 250)
        await store.claim(key, Fence("n1", 1))
        await store.commit(Commit(key, Fence("n1", 1), 0, FIRST, {"n" * 200: b'"' + b"x" * 1_000_000 + b'"'}))

        found = await store.read(key)
        assert found is not None
        assert len(found.states["n" * 200]) == 1_000_002

    async def test_a_closed_store_says_so(self, tmp_path: Path, clock: ManualClock) -> None:
        async with self.open(tmp_path, clock) as store:
            pass

        with pytest.raises(StoreClosedError, match="open_store"):
            await store.read(KEY)


async def claimed(store: Store, number: int) -> Claim:
    """Claim `KEY` for node "n1"."""
    claim = await store.claim(KEY, Fence("n1", number))
    assert isinstance(claim, Claim)
    return claim


def commit(fence: Fence, revision: int, stamp: Stamp | None = None, /, **writes: bytes | None) -> Commit:
    """Return a commit on `KEY`."""
    return Commit(KEY, fence, revision, stamp, writes)


async def expect(store: Store, stamp: Stamp | None, **states: bytes) -> None:
    """Check what is stored of `KEY`."""
    found = await store.read(KEY)
    assert found is not None
    assert (found.stamp, dict(found.states)) == (stamp, states)


async def increment(store: Store, node_id: str) -> None:
    """Add 1 to a counter ten times, each time under the lock."""
    done = 0
    for number in count(1):
        claim = await store.claim(KEY, Fence(node_id, number))
        await asyncio.sleep(0)
        if isinstance(claim, Held):
            continue
        value = b"%d" % (int(claim.actor.states.get("count", b"0")) + 1)
        await store.commit(Commit(KEY, claim.fence, claim.actor.revision, FIRST, {"count": value}, release=True))
        done += 1
        if done == 10:
            return
