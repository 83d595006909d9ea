"""The contract of stores as far as write policies go, as tests.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lazymig._bases import NO_POLICY, BaseWrite, Kept, WritePolicy
from lazymig._entries import Entry, Range
from lazymig._records import ActorKey, Claim, Commit, Fence, Held, Marks
from lazymig._version import pack, parse
from lazymig.errors import LeaseLostError
from lazymig.testing.post_bench import join, sees, send, take
from lazymig.testing.ruling_bench import answers, facts, pin
from lazymig.testing.store_bench import StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed, commit, expect

if TYPE_CHECKING:
    from lazymig.store import Store

ONE, TWO = pack(parse("1.0.0")), pack(parse("2.0.0"))
FENCE = Fence("n1", 1)
BUS = ActorKey("Bus", "a")


class PolicySuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_without_a_policy_a_claim_brings_none_and_a_commit_is_of_epoch_0(self, store: Store) -> None:
        assert (await claimed(store, 1)).policy == NO_POLICY
        assert await store.commit(commit(FENCE, 0, FIRST, main=b"1")) == 1
        assert await store.commit(commit(FENCE, 1, FIRST, main=b"2")._replace(epoch=1)) == NO_POLICY
        await expect(store, FIRST, main=b"1")

    async def test_each_change_raises_the_epoch_up_down_and_away(self, store: Store) -> None:
        for epoch, version in enumerate([TWO, ONE, 0, None, None, TWO], 1):
            await pin(store, version)
            assert (await claimed(store, epoch)).policy == WritePolicy(version, epoch)
            assert (await facts(store)).policy == WritePolicy(version, epoch)

    async def test_it_is_read_beside_rulings(self, store: Store) -> None:
        assert await store.policy("Car") == NO_POLICY
        for epoch, version in enumerate([TWO, 0, None], 1):
            await pin(store, version)
            assert await store.policy("Car") == WritePolicy(version, epoch)
        assert await store.policy("Bus") == NO_POLICY

    async def test_each_type_has_its_own(self, store: Store) -> None:
        await pin(store, TWO)

        assert (await claimed(store, 1)).policy == WritePolicy(TWO, 1)
        bus = await store.claim(BUS, FENCE)
        assert isinstance(bus, Claim)
        assert bus.policy == NO_POLICY
        assert await store.commit(Commit(BUS, FENCE, 0, FIRST, {"main": b"1"})) == 1
        await pin(store, ONE, "Bus")
        assert (await facts(store, "Bus")).policy == WritePolicy(ONE, 1)
        assert (await facts(store)).policy == WritePolicy(TWO, 1)

    @pytest.mark.parametrize("version", [0, ONE, None])
    async def test_a_commit_of_another_epoch_stores_nothing_at_all(self, store: Store, version: int | None) -> None:
        await claimed(store, 1)
        first = {("log", "a"): Entry(b"1", applied("1.0.0"))}
        base = BaseWrite(applied("2.0.0"), 7, is_current=True, states={"main": Kept(b"kept")})
        before = Commit(KEY, FENCE, 0, FIRST, {"main": b"1"}, entries=first, marks=Marks(oldest=ONE), base=base)
        assert await store.commit(before) == 1
        await pin(store, version)
        stored = await store.read(KEY)

        put = {("log", "a"): None, ("log", "b"): Entry(b"2", applied("2.0.0"))}
        late = Commit(
            KEY, FENCE, 1, SECOND, {"main": b"2", "other": b"3"}, release=True, entries=put, marks=Marks(5, 5)
        )
        for change in (late, late._replace(base=BaseWrite(None)), commit(FENCE, 1, SECOND, main=None)):
            assert await store.commit(change) == WritePolicy(version, 1)
        assert await store.read(KEY) == stored
        assert list((await store.entries(KEY, Range("log"), 9, 999)).keys) == ["a"]
        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")
        assert await store.commit(late._replace(epoch=1)) == 2

    async def test_a_commit_of_a_later_epoch_stores_nothing_either(self, store: Store) -> None:
        await pin(store, ONE)
        await claimed(store, 1)

        assert await store.commit(commit(FENCE, 0, FIRST, main=b"1")._replace(epoch=2)) == WritePolicy(ONE, 1)

    async def test_the_epoch_is_told_before_a_lost_lock(self, store: Store) -> None:
        await claimed(store, 1)
        await pin(store, ONE)

        assert await store.commit(commit(Fence("n2", 9), 5, FIRST, main=b"1")) == WritePolicy(ONE, 1)
        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n2", 9), 5, FIRST, main=b"1")._replace(epoch=1))

    async def test_a_ruling_that_is_no_change_changes_none(self, store: Store) -> None:
        await store.rule(answers(policies={"Car": ONE}))

        assert (await facts(store)).policy == NO_POLICY

    async def test_concurrent_commits_are_stored_or_told_the_change(self, store: Store) -> None:
        keys = [ActorKey("Car", f"{number:02}") for number in range(20)]
        for key in keys:
            await store.claim(key, FENCE)
        commits = [store.commit(Commit(key, FENCE, 0, FIRST, {"main": b"1"})) for key in keys]
        *outcomes, _ = await asyncio.gather(*commits, pin(store, ONE))

        for key, outcome in zip(keys, outcomes, strict=True):
            assert outcome in {1, WritePolicy(ONE, 1)}
            assert (await store.read(key) is not None) is (outcome == 1)

    async def test_a_call_goes_to_nobody_whose_release_is_below_the_write_version(self, store: Store) -> None:
        await join(store, "old", "1.0.0")
        await join(store, "new", "2.0.0")
        await pin(store, TWO)
        await send(store, "a")
        assert await take(store, "old") == []
        assert not await sees(store, "old")
        assert await sees(store, "new")
        assert await take(store, "new") == ["a"]
        for number, version in enumerate([ONE, 0, None]):
            await pin(store, version)
            await send(store, f"b{number}")
            assert await take(store, "old") == [f"b{number}"]

    async def test_a_call_for_one_node_goes_to_it_whatever_the_write_version(self, store: Store) -> None:
        await join(store, "old", "1.0.0")
        await pin(store, TWO)
        await send(store, "a", target="old")

        assert await take(store, "old") == ["a"]
