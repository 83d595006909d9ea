"""The contract of stores as far as going back goes, as tests: what an actor was before a commit across a major version.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig._bases import NO_BASE, BaseWrite, Kept
from lazymig._entries import Entry, Range
from lazymig._records import ActorKey, Commit, Fence, Marks, Previous
from lazymig.errors import LeaseLostError
from lazymig.testing.ruling_bench import pin
from lazymig.testing.store_bench import StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed, commit, expect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._records import Stamp
    from lazymig.store import Store

FENCE = Fence("n1", 1)
NEW = applied("1.0.0", "2.0.0")


class PreviousSuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_nothing_is_kept_of_an_actor_that_is_unknown_or_only_claimed(self, store: Store) -> None:
        assert await store.previous(KEY) is None
        await claimed(store, 1)
        assert await store.previous(KEY) is None

    async def test_nothing_is_kept_by_a_commit_that_does_not_say_so(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, main=b"2")

        assert await store.previous(KEY) is None

    async def test_stamp_and_all_states_are_kept_as_they_were_stored(self, store: Store) -> None:
        states: dict[str, Any] = {"main": b'{"a": 1}', "same": b"\x00\xff", "gone": b"", "é": bytes(range(256))}
        await put(store, 0, SECOND, **states)
        await put(store, 1, FIRST, keeps=True, main=b"2", gone=None, new=b"3")

        assert await store.previous(KEY) == Previous(SECOND, states)
        await expect(store, FIRST, main=b"2", same=states["same"], new=b"3", é=states["é"])

    async def test_a_commit_that_changes_no_state_keeps_them_too(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, keeps=True)

        assert await store.previous(KEY) == Previous(FIRST, {"main": b"1"})
        await expect(store, SECOND, main=b"1")

    async def test_an_imported_actor_had_no_stamp(self, store: Store) -> None:
        await store.insert("Car", "main", [("a", b"1")])
        await claimed(store, 1)
        await store.commit(commit(FENCE, 1, FIRST, main=b"2")._replace(keeps_previous=True))

        assert await store.previous(KEY) == Previous(None, {"main": b"1"})

    async def test_the_next_one_takes_the_place_of_all_that_was_kept(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1", other=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2", other=None)
        await put(store, 2, FIRST, keeps=True, main=b"3")

        assert await store.previous(KEY) == Previous(SECOND, {"main": b"2"})

    async def test_it_stays_until_a_commit_says_otherwise(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2")
        await put(store, 2, SECOND, main=b"3")
        await store.release([(KEY, FENCE)])
        await claimed(store, 2)
        await store.unregister("n1")
        assert await store.previous(KEY) == Previous(FIRST, {"main": b"1"})

        await store.claim(KEY, Fence("n2", 1))
        await store.commit(commit(Fence("n2", 1), 3, FIRST, main=b"4")._replace(keeps_previous=False))
        assert await store.previous(KEY) is None
        await expect(store, FIRST, main=b"4")

    async def test_of_an_actor_without_states_nothing_is_kept(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2")
        entry = {("log", "a"): Entry(b"1", NEW)}
        change = commit(FENCE, 2, SECOND, main=None)
        await store.commit(change._replace(entries=entry, marks=Marks(0, NEW.highest)))
        await put(store, 3, FIRST, keeps=True, main=b"3")

        assert await store.previous(KEY) is None

    @pytest.mark.parametrize("keeps", [None, True])
    async def test_it_goes_when_nothing_is_left_of_the_actor(self, store: Store, *, keeps: bool | None) -> None:
        await put(store, 0, FIRST, main=b"1", other=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2")
        await put(store, 2, SECOND, main=None)
        assert await store.previous(KEY) == Previous(FIRST, {"main": b"1", "other": b"1"})
        await put(store, 3, SECOND, keeps=keeps, other=None)

        assert await store.previous(KEY) is None

    async def test_it_stays_while_an_entry_or_a_base_is_left(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1")
        base = BaseWrite(NEW, states={"main": Kept(b"new")})
        entry = {("log", "a"): Entry(b"1", NEW)}
        first = commit(FENCE, 1, SECOND, main=b"2")._replace(keeps_previous=True, base=base)
        await store.commit(first._replace(entries=entry, marks=Marks(0, NEW.highest)))
        await put(store, 2, SECOND, main=None)
        await store.commit(commit(FENCE, 3, SECOND)._replace(base=NO_BASE))
        assert await store.previous(KEY) == Previous(FIRST, {"main": b"1"})

        last = commit(FENCE, 4, SECOND)._replace(entries={("log", "a"): None}, marks=Marks())
        await store.commit(last)
        assert await store.previous(KEY) is None

    @pytest.mark.parametrize("keeps", [True, False])
    @pytest.mark.parametrize(
        "wrong", [{"fence": Fence("n1", 2)}, {"fence": Fence("n2", 1)}, {"revision": 1}, {"revision": 3}, {"epoch": 1}]
    )
    async def test_a_commit_that_is_refused_keeps_and_drops_nothing(
        self, store: Store, wrong: Mapping[str, Any], *, keeps: bool
    ) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2")
        change = commit(FENCE, 2, FIRST, main=b"3")._replace(keeps_previous=keeps, **wrong)
        for refused in (change, change._replace(base=NO_BASE), change._replace(marks=Marks())):
            if "epoch" in wrong:
                await store.commit(refused)
            else:
                with pytest.raises(LeaseLostError):
                    await store.commit(refused)

        assert await store.previous(KEY) == Previous(FIRST, {"main": b"1"})
        await expect(store, SECOND, main=b"2")

    @pytest.mark.parametrize("keeps", [True, False])
    async def test_neither_does_one_of_a_node_that_is_not_registered(self, store: Store, *, keeps: bool) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2")
        await store.unregister("n1")
        with pytest.raises(LeaseLostError):
            await store.commit(commit(FENCE, 2, FIRST, main=b"3")._replace(keeps_previous=keeps))

        assert await store.previous(KEY) == Previous(FIRST, {"main": b"1"})

    async def test_what_was_imported_under_a_claim_is_not_kept_by_its_commit(self, store: Store) -> None:
        await claimed(store, 1)
        await store.insert("Car", "main", [("a", b"imported")])
        with pytest.raises(LeaseLostError):
            await store.commit(commit(FENCE, 0, FIRST, main=b"1")._replace(keeps_previous=True))

        assert await store.previous(KEY) is None
        await expect(store, None, main=b"imported")

    @pytest.mark.parametrize("keeps", [True, False])
    async def test_all_that_a_commit_stores_is_stored_with_it(self, store: Store, *, keeps: bool) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, FIRST, keeps=True, main=b"2")
        await pin(store, None)
        whole = Commit(
            KEY, FENCE, 2, SECOND, {"main": b"3"}, release=True, entries={("log", "a"): Entry(b"1", NEW)},
            marks=Marks(0, NEW.highest), epoch=1, base=BaseWrite(NEW, 4, is_current=True, states={"main": Kept(b"4")}),
            keeps_previous=keeps,
        )  # fmt: skip
        assert await store.commit(whole) == 3

        found = await store.read(KEY)
        assert found is not None
        assert (found.stamp, dict(found.states), found.owner) == (SECOND, {"main": b"3"}, None)
        assert found.base is not None
        assert list((await store.entries(KEY, Range("log"), 9, 999)).data) == [b"1"]
        assert await store.previous(KEY) == (Previous(FIRST, {"main": b"2"}) if keeps else None)

    async def test_it_shows_nowhere_else(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1")
        await put(store, 1, SECOND, keeps=True, main=b"2")

        assert dict(await store.census("Car")) == {SECOND.applied: 1}
        assert [dict(actor.states) for actor in await store.scan("Car")] == [{"main": b"2"}]
        assert dict((await claimed(store, 2)).actor.states) == {"main": b"2"}

    async def test_actors_whose_names_run_into_each_other_do_not_mix(self, store: Store) -> None:
        keys = [ActorKey("a", "bc"), ActorKey("ab", "c"), ActorKey("a", "b")]
        for number, key in enumerate(keys):
            await store.claim(key, FENCE)
            await store.commit(Commit(key, FENCE, 0, FIRST, {"main": b"%d" % number}))
            await store.commit(Commit(key, FENCE, 1, SECOND, {"main": b"new"}, keeps_previous=True))
        await store.commit(Commit(keys[0], FENCE, 2, FIRST, {}, keeps_previous=False))

        assert [await store.previous(key) for key in keys] == [
            None,
            Previous(FIRST, {"main": b"1"}),
            Previous(FIRST, {"main": b"2"}),
        ]

    async def test_many_large_states_are_kept(self, store: Store) -> None:
        states: dict[str, Any] = {f"{number}" * 100: b"x" * 100_000 + b"%d" % number for number in range(9)}
        await put(store, 0, FIRST, **states)
        await put(store, 1, SECOND, keeps=True, **dict.fromkeys(states, b"small"))

        assert await store.previous(KEY) == Previous(FIRST, states)

    async def test_concurrent_commits_keep_each_what_its_actor_was(self, store: Store) -> None:
        keys = [ActorKey("Car", f"{number:02}") for number in range(20)]
        for number, key in enumerate(keys):
            await store.claim(key, FENCE)
            await store.commit(Commit(key, FENCE, 0, FIRST, {"main": b"%d" % number}))
        changes = [Commit(key, FENCE, 1, SECOND, {"main": b"new"}, keeps_previous=True) for key in keys]
        await asyncio.gather(*map(store.commit, changes))

        kept = [await store.previous(key) for key in keys]
        assert kept == [Previous(FIRST, {"main": b"%d" % number}) for number in range(20)]

    async def test_a_cancelled_commit_kept_it_entirely_or_not_at_all(self, store: Store) -> None:
        await put(store, 0, FIRST, main=b"1", other=b"1")
        change = commit(FENCE, 1, SECOND, main=b"2", other=b"2")._replace(keeps_previous=True)
        task = asyncio.create_task(store.commit(change))
        task.cancel()
        await asyncio.wait([task])

        found = await store.read(KEY)
        assert found is not None
        kept = await store.previous(KEY)
        assert kept == (None if found.revision == 1 else Previous(FIRST, {"main": b"1", "other": b"1"}))


async def put(
    store: Store, revision: int, stamp: Stamp | None, /, *, keeps: bool | None = None, **writes: bytes | None
) -> None:
    """Store `KEY` once more, from a revision."""
    if not revision:
        await claimed(store, 1)
    change = commit(FENCE, revision, stamp, **writes)
    assert await store.commit(change._replace(keeps_previous=keeps)) == revision + 1
