"""The contract of stores as far as bases go, as tests: what newer software stored, kept where older software can't.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig._bases import NO_BASE, Base, BaseWrite, Kept
from lazymig._entries import Entry, Range
from lazymig._records import ActorKey, Commit, Fence, Marks
from lazymig.errors import LeaseLostError
from lazymig.testing.store_bench import StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed, commit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig.store import Store

FENCE = Fence("n1", 1)
NEW, NEWER = applied("1.0.0", "2.0.0"), applied("1.0.1", "2.1.0", floor="1.0.0")


class BaseSuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_without_one_there_is_none(self, store: Store) -> None:
        await store_base(store, 0, None)

        await expect_base(store, None)

    async def test_a_base_comes_back_from_claim_read_and_scan(self, store: Store) -> None:
        states = {"main": Kept(b'{"a":1}'), "gone": Kept(None), "empty": Kept(b""), "é": Kept(bytes(range(256)))}
        await store_base(store, 0, BaseWrite(NEW, -7, is_current=True, states=states))

        await expect_base(store, Base(NEW, 1, -7, states))

    async def test_it_is_current_when_the_commit_says_so_and_else_stays_what_it_is(self, store: Store) -> None:
        await store_base(store, 0, BaseWrite(NEW, 1))
        await expect_base(store, Base(NEW, 0, 1, {}))
        await store_base(store, 1, BaseWrite(NEW, 2, is_current=True))
        await expect_base(store, Base(NEW, 2, 2, {}))
        await store_base(store, 2, BaseWrite(NEWER, 3))
        await expect_base(store, Base(NEWER, 2, 3, {}))
        await store_base(store, 3, None)
        await expect_base(store, Base(NEWER, 2, 3, {}))
        await store_base(store, 4, BaseWrite(NEWER, 3, is_current=True))
        await expect_base(store, Base(NEWER, 5, 3, {}))

    async def test_its_states_are_put_dropped_and_left_one_by_one(self, store: Store) -> None:
        await store_base(store, 0, BaseWrite(NEW, states={name: Kept(name.encode()) for name in "abc"}))
        await store_base(store, 1, BaseWrite(NEW, states={"a": Kept(None), "b": None, "d": Kept(b"d"), "none": None}))

        await expect_base(store, Base(NEW, 0, 0, {"a": Kept(None), "c": Kept(b"c"), "d": Kept(b"d")}))

    async def test_a_base_that_was_removed_leaves_nothing_to_the_next_one(self, store: Store) -> None:
        await store_base(store, 0, BaseWrite(NEW, 5, is_current=True, states={"a": Kept(b"a"), "b": Kept(None)}))
        await store_base(store, 1, NO_BASE)
        await expect_base(store, None)
        await store_base(store, 2, BaseWrite(NEWER, 6, states={"c": Kept(b"c")}))
        await expect_base(store, Base(NEWER, 0, 6, {"c": Kept(b"c")}))
        await store_base(store, 3, NO_BASE)
        await store_base(store, 4, NO_BASE)
        await expect_base(store, None)

    async def test_states_entries_stamp_base_and_lock_change_in_one_commit(self, store: Store) -> None:
        await claimed(store, 1)
        put = {("log", "a"): Entry(b"1", NEW)}
        base = BaseWrite(NEW, 4, is_current=True, states={"main": Kept(b"new")})
        marks = Marks(0, NEW.highest)
        whole = Commit(KEY, FENCE, 0, SECOND, {"main": b"old"}, release=True, entries=put, marks=marks, base=base)
        assert await store.commit(whole) == 1

        found = await store.read(KEY)
        assert found is not None
        assert (found.stamp, dict(found.states), found.owner, found.marks) == (SECOND, {"main": b"old"}, None, marks)
        assert found.base == Base(NEW, 1, 4, {"main": Kept(b"new")})
        assert list((await store.entries(KEY, Range("log"), 9, 999)).data) == [b"1"]

    @pytest.mark.parametrize("wrong", [{"fence": Fence("n1", 2)}, {"fence": Fence("n2", 1)}, {"revision": 0}])
    async def test_a_commit_that_is_refused_leaves_the_base(self, store: Store, wrong: Mapping[str, Any]) -> None:
        await store_base(store, 0, BaseWrite(NEW, 5, is_current=True, states={"a": Kept(b"a")}))
        right = commit(FENCE, 1, FIRST, main=b"2")
        for base in (NO_BASE, BaseWrite(NEWER, states={"a": None, "b": Kept(b"b")})):
            with pytest.raises(LeaseLostError):
                await store.commit(right._replace(base=base, **wrong))

        await expect_base(store, Base(NEW, 1, 5, {"a": Kept(b"a")}))

    async def test_an_actor_whose_states_are_gone_keeps_its_base(self, store: Store) -> None:
        await store_base(store, 0, BaseWrite(NEW, states={"main": Kept(b"new")}))
        await store.commit(commit(FENCE, 1, FIRST, main=None))

        await expect_base(store, Base(NEW, 0, 0, {"main": Kept(b"new")}))
        assert await store.insert("Car", "main", [("a", b"1")]) == frozenset()

    async def test_bases_of_actors_whose_names_run_into_each_other_do_not_mix(self, store: Store) -> None:
        keys = [ActorKey("a", "bc"), ActorKey("ab", "c"), ActorKey("a", "b"), ActorKey("a", "none")]
        for number, key in enumerate(keys[:3]):
            await store.claim(key, FENCE)
            base = BaseWrite(NEW, number, states={"main": Kept(str(key).encode())})
            await store.commit(Commit(key, FENCE, 0, FIRST, {"main": b"1"}, base=base))
        await store.claim(keys[3], FENCE)
        await store.commit(Commit(keys[3], FENCE, 0, FIRST, {"main": b"1"}))
        await store.commit(Commit(keys[0], FENCE, 1, FIRST, {}, base=NO_BASE))

        found = {actor.key: actor.base for kind in ("a", "ab") for actor in await store.scan(kind)}
        assert found == {
            keys[0]: None,
            keys[1]: Base(NEW, 0, 1, {"main": Kept(str(keys[1]).encode())}),
            keys[2]: Base(NEW, 0, 2, {"main": Kept(str(keys[2]).encode())}),
            keys[3]: None,
        }

    async def test_a_large_base_comes_back(self, store: Store) -> None:
        states = {f"{number}" * 100: Kept(b"x" * 100_000) for number in range(9)}
        await store_base(store, 0, BaseWrite(NEW, states=states))

        await expect_base(store, Base(NEW, 0, 0, states))

    async def test_concurrent_commits_store_each_its_base(self, store: Store) -> None:
        keys = [ActorKey("Car", f"{number:02}") for number in range(20)]
        for key in keys:
            await store.claim(key, FENCE)
        bases = [BaseWrite(NEW, number, is_current=True, states={"main": Kept(b"1")}) for number in range(20)]
        changes = [
            Commit(key, FENCE, 0, FIRST, {"main": b"1"}, base=base) for key, base in zip(keys, bases, strict=True)
        ]
        await asyncio.gather(*map(store.commit, changes))

        found = [actor.base for actor in await store.scan("Car")]
        assert found == [Base(NEW, 1, number, {"main": Kept(b"1")}) for number in range(20)]


async def store_base(store: Store, revision: int, base: BaseWrite | None) -> None:
    """Store `KEY` with a change of its base, from a revision."""
    if not revision:
        await claimed(store, 1)
    change = commit(FENCE, revision, FIRST, main=b"%d" % revision)
    assert await store.commit(change._replace(base=base)) == revision + 1


async def expect_base(store: Store, base: Base | None) -> None:
    """Check what is kept of `KEY`, however it is read."""
    found = await store.read(KEY)
    assert found is not None
    assert found.base == base
    assert [actor.base for actor in await store.scan("Car")] == [base]
    assert (await claimed(store, 1)).actor.base == base
