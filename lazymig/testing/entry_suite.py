"""The contract of stores as far as entries of tables go, as tests.

A store joins with one class, as it joins `lazymig.testing.store_suite`; `EntryPageSuite` is the part about ranges and
pages, which `EntrySuite` has too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lazymig._entries import Count, Entry, Range
from lazymig._records import NO_MARKS, ActorKey, Claim, Commit, Fence, Held, Marks
from lazymig.errors import LeaseLostError, StoreClosedError
from lazymig.testing.entry_page_suite import MARKS, EntryPageSuite, all_of, entry, fill, found_in
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lazymig._records import StoredActor
    from lazymig.store import Store
    from lazymig.testing.clock import ManualClock

FENCE = Fence("n1", 1)
CONVERTING = Marks(3, 2)
OTHER = ActorKey("Car", "b")


class EntrySuite(EntryPageSuite):
    """Inherit it and give it `open`."""

    async def test_entries_come_back_as_they_were_put(self, store: Store) -> None:
        stamps = [applied("1.0.0"), applied(), applied("1.0.1", "2.0.0", floor="1.0.0"), applied("1.0.0", "3.0.0")]
        data = [b'{"a":1}', b"", bytes(range(256)), b"\xff\xfe\x00'\"\\"]
        put = {("log", str(number)): Entry(*pair) for number, pair in enumerate(zip(data, stamps, strict=True))}
        await fill(store, put)

        page = await store.entries(KEY, Range("log"), 10, 1_000_000)
        assert (list(page.keys), list(page.data), list(page.applied)) == (["0", "1", "2", "3"], data, stamps)
        assert page.is_last

    async def test_an_entry_is_replaced_with_its_stamp_and_another_one_removed(self, store: Store) -> None:
        await fill(store, {("log", name): entry(name) for name in "abc"})
        later = Entry(b"later", applied("2.0.0"))
        await store.commit(change(1, {("log", "a"): later, ("log", "b"): None, ("log", "d"): entry("d")}))

        assert await all_of(store, "log") == {"a": later, "c": entry("c"), "d": entry("d")}

    async def test_removing_what_is_not_there_is_no_error(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a"), ("none", "a"): None})
        await store.commit(change(1, {("log", "b"): None, ("other", "a"): None}))

        assert await all_of(store, "log") == {"a": entry("a")}

    async def test_tables_and_actors_do_not_mix(self, store: Store) -> None:
        await fill(store, {("log", "same"): entry("1"), ("lo", "same"): entry("2"), ("Log", "same"): entry("3")})
        await store.claim(OTHER, FENCE)
        await store.commit(Commit(OTHER, FENCE, 0, FIRST, {}, entries={("log", "same"): entry("4")}, marks=MARKS))
        await store.commit(change(1, {("lo", "same"): None}))

        assert await found_in(store, Range("log")) == {"same": entry("1")}
        assert await found_in(store, Range("lo")) == {}
        assert await found_in(store, Range("Log")) == {"same": entry("3")}
        assert await found_in(store, Range("log"), OTHER) == {"same": entry("4")}

    async def test_actors_whose_names_run_into_each_other_do_not_mix(self, store: Store) -> None:
        keys = [ActorKey("a", "bc"), ActorKey("ab", "c"), ActorKey("a", "b")]
        tables = ["d", "d", "cd"]
        for key, table in zip(keys, tables, strict=True):
            await store.claim(key, FENCE)
            put = {(table, "e"): entry(str(key))}
            await store.commit(Commit(key, FENCE, 0, FIRST, {}, entries=put, marks=MARKS))

        for key, table in zip(keys, tables, strict=True):
            assert await found_in(store, Range(table), key) == {"e": entry(str(key))}
            assert [count.table for count in await store.tables(key)] == [table]

    @pytest.mark.parametrize("fence", [Fence("n1", 2), Fence("n2", 1), Fence("stranger", 1)])
    async def test_a_commit_under_another_fence_stores_no_entry_and_no_mark(self, store: Store, fence: Fence) -> None:
        await fill(store, {("log", "a"): entry("a")})

        with pytest.raises(LeaseLostError):
            await store.commit(wrong(fence, 1))
        await expect_unchanged(store)

    @pytest.mark.parametrize("revision", [0, 2])
    async def test_a_commit_from_another_revision_stores_no_entry_and_no_mark(
        self, store: Store, revision: int
    ) -> None:
        await fill(store, {("log", "a"): entry("a")})

        with pytest.raises(LeaseLostError):
            await store.commit(wrong(FENCE, revision))
        await expect_unchanged(store)

    async def test_a_commit_of_an_unregistered_node_stores_no_entry_and_no_mark(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")})
        await store.unregister("n1")

        with pytest.raises(LeaseLostError):
            await store.commit(wrong(FENCE, 1))
        await expect_unchanged(store)

    async def test_entries_states_stamp_and_lock_change_in_one_commit(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")})
        put = {("log", "a"): None, ("log", "b"): entry("b")}
        last = Commit(KEY, FENCE, 1, SECOND, {"main": b"2"}, release=True, entries=put, marks=Marks(7, 5))

        assert await store.commit(last) == 2
        found = await store.read(KEY)
        assert found is not None
        assert (found.revision, found.stamp, dict(found.states), found.owner) == (2, SECOND, {"main": b"2"}, None)
        assert found.marks == Marks(7, 5)
        assert await all_of(store, "log") == {"b": entry("b")}
        with pytest.raises(LeaseLostError):
            await store.commit(wrong(FENCE, 2))
        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)

    async def test_a_cancelled_commit_stored_all_its_entries_or_none(self, store: Store) -> None:
        await fill(store, {("log", name): entry("old") for name in "abc"})
        put = {("log", name): entry("new") for name in "bcd"}
        task = asyncio.create_task(store.commit(change(1, put, Marks(5, 6))))
        task.cancel()
        await asyncio.wait([task])

        actor = await store.read(KEY)
        assert actor is not None
        found = {key: one.data for key, one in (await all_of(store, "log")).items()}
        old, new = {"a": b"old", "b": b"old", "c": b"old"}, {"a": b"old", "b": b"new", "c": b"new", "d": b"new"}
        assert (actor.revision, actor.marks, found) in [(1, MARKS, old), (2, Marks(5, 6), new)]

    async def test_concurrent_commits_one_of_which_fails_store_each_its_own(self, store: Store) -> None:
        keys = [ActorKey("Car", f"{number:02}") for number in range(12)]
        for key in keys:
            await store.claim(key, FENCE)
        commits = [
            Commit(
                key,
                FENCE,
                1 if number == 5 else 0,
                FIRST,
                {"main": key.id.encode()},
                entries=both_tables(key),
                marks=CONVERTING,
            )
            for number, key in enumerate(keys)
        ]
        outcomes = await asyncio.gather(*map(store.commit, commits), return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [*[int] * 5, LeaseLostError, *[int] * 6]
        for number, key in enumerate(keys):
            found = await store.read(key)
            expected = None if number == 5 else ({"main": key.id.encode()}, CONVERTING)
            assert (None if found is None else (dict(found.states), found.marks)) == expected
            assert await found_in(store, Range("log"), key) == ({} if number == 5 else {key.id: entry(key.id)})

    async def test_marks_come_back_from_claim_read_and_scan(self, store: Store) -> None:
        marks = Marks(converting=2**62, oldest=2**61)
        await fill(store, {("log", "a"): entry("a")}, marks)

        assert await seen_by_all(store) == [marks] * 3
        await store.commit(Commit(KEY, FENCE, 1, FIRST, {"main": b"2"}))
        assert await seen_by_all(store) == [marks] * 3, "a commit without marks leaves them as they are"
        await store.commit(change(2, {}, Marks(0, 0)))
        assert await seen_by_all(store) == [Marks(0, 0)] * 3

    async def test_an_actor_without_entries_has_no_marks(self, store: Store) -> None:
        claim = await claimed(store, 1)
        await store.commit(Commit(KEY, FENCE, 0, FIRST, {"main": b"1"}))

        assert claim.actor.marks == NO_MARKS
        assert await seen_by_all(store) == [NO_MARKS] * 3

    async def test_no_oldest_is_kept_when_no_entry_is_left(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a"), ("other", "a"): entry("a")}, Marks(5, 4))
        await store.commit(change(1, {("log", "a"): None}, Marks(5, 4))._replace(writes={"main": b"1"}))
        assert await seen_by_all(store) == [Marks(5, 4)] * 3
        await store.commit(change(2, {("other", "a"): None}, Marks(5, 4)))
        assert await seen_by_all(store) == [Marks(5, None)] * 3
        await store.commit(change(3, {}, Marks(0, 4)))

        assert await seen_by_all(store) == [NO_MARKS] * 3

    async def test_an_actor_of_which_nothing_is_left_has_no_marks(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")}, Marks(5, 4))
        await store.commit(change(1, {("log", "a"): None, ("log", "b"): entry("b")}, Marks(5, 4)))
        assert await seen_by_all(store) == [Marks(5, 4)] * 3
        await store.commit(change(2, {("log", "b"): None}, Marks(5, 4)))
        assert await seen_by_all(store) == [NO_MARKS] * 3
        await store.commit(change(3, {}, Marks(5, 4)))

        assert await seen_by_all(store) == [NO_MARKS] * 3

    async def test_tables_are_counted_by_table_and_stamp(self, store: Store) -> None:
        first, second = applied("1.0.0"), applied("1.0.1", "2.0.0", floor="1.0.0")
        stamps = {
            ("b", "1"): first,
            ("b", "2"): second,
            ("b", "3"): second,
            ("B", "1"): first,
            ("\U0001f697", "1"): first,
        }
        await fill(store, {place: Entry(b"1", stamp) for place, stamp in stamps.items()} | {("a", "1"): entry("1")})
        await store.commit(change(1, {("a", "1"): None}))

        counts = await store.tables(KEY)
        assert [count.table for count in counts] == ["B", "b", "b", "\U0001f697"]
        assert {*counts} == {
            Count("B", first, 1),
            Count("b", first, 1),
            Count("b", second, 2),
            Count("\U0001f697", first, 1),
        }

    async def test_an_unknown_actor_has_no_entries(self, store: Store) -> None:
        for _ in range(2):
            page = await store.entries(KEY, Range("log"), 10, 1_000)
            assert (list(page.keys), list(page.data), list(page.applied), page.is_last) == ([], [], [], True)
            assert await store.count_entries(KEY, Range("log")) == 0
            assert list(await store.tables(KEY)) == []
            await claimed(store, 1)

    async def test_entries_are_read_and_counted_beside_the_lock(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")})

        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")
        assert await all_of(store, "log") == {"a": entry("a")}
        assert await store.count_entries(KEY, Range("log")) == 1

    async def test_an_actor_with_entries_only_is_known(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")})
        await store.release([(KEY, FENCE)])

        found = await store.read(KEY)
        assert found is not None
        assert (found.revision, dict(found.states), found.marks) == (1, {}, MARKS)
        assert [actor.key for actor in await store.scan("Car")] == [KEY]
        assert dict(await store.census("Car")) == {FIRST.applied: 1}
        assert list(await store.types()) == ["Car"]

    async def test_entries_outlive_releases_and_takeovers(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")})
        await store.release([(KEY, FENCE)])
        claim = await store.claim(KEY, Fence("n2", 1))
        assert isinstance(claim, Claim)
        await store.unregister("n2")

        assert (claim.actor.revision, claim.actor.marks) == (1, MARKS)
        assert await all_of(store, "log") == {"a": entry("a")}

    async def test_an_import_touches_no_actor_with_entries_only(self, store: Store) -> None:
        await fill(store, {("log", "a"): entry("a")})

        assert await store.insert("Car", "main", [(KEY.id, b"1"), ("new", b"1")]) == {"new"}
        found = await store.read(KEY)
        assert found is not None
        assert (dict(found.states), found.marks) == ({}, MARKS)
        assert await all_of(store, "log") == {"a": entry("a")}

    async def test_an_import_under_a_claim_voids_a_commit_of_entries(self, store: Store) -> None:
        await claimed(store, 1)
        await store.insert("Car", "main", [(KEY.id, b"1")])

        with pytest.raises(LeaseLostError):
            await store.commit(change(0, {("log", "a"): entry("a")}))
        assert await all_of(store, "log") == {}
        assert await seen_by_all(store) == [NO_MARKS] * 3

    async def test_the_longest_names_and_a_large_entry_come_back(self, store: Store) -> None:
        key = ActorKey("T" * 200, "\U0001f697" * 250)
        table, names = "é" * 100, ["k" * 1_000, "\U0010ffff" * 250]
        large = Entry(b"\x00\xff" * 1_000_000, FIRST.applied)
        await store.claim(key, FENCE)
        put = {(table, name): large for name in names}
        await store.commit(Commit(key, FENCE, 0, FIRST, {}, entries=put, marks=MARKS))

        assert await all_of(store, table, key) == dict.fromkeys(names, large)
        assert await store.count_entries(key, Range(table)) == 2
        assert list(await store.tables(key)) == [Count(table, FIRST.applied, 2)]

    async def test_keys_that_no_text_compresses_can_be_as_long(self, store: Store) -> None:
        key = ActorKey(scattered(100, 1), scattered(500, 2))
        put = {(scattered(100, 3), scattered(500, seed)): entry("a") for seed in range(4, 8)}
        await store.claim(key, FENCE)
        await store.commit(Commit(key, FENCE, 0, FIRST, {}, entries=put, marks=MARKS))

        assert await all_of(store, scattered(100, 3), key) == {name: one for (_, name), one in sorted(put.items())}

    async def test_a_closed_store_says_so_of_entries(self, tmp_path: Path, clock: ManualClock) -> None:
        async with self.open(tmp_path, clock) as store:
            pass

        with pytest.raises(StoreClosedError, match="open_store"):
            await store.entries(KEY, Range("log"), 1, 1)
        with pytest.raises(StoreClosedError, match="open_store"):
            await store.count_entries(KEY, Range("log"))
        with pytest.raises(StoreClosedError, match="open_store"):
            await store.tables(KEY)


def both_tables(key: ActorKey) -> dict[tuple[str, str], Entry | None]:
    """Return a put in one table and a removal in another, named after an actor."""
    return {("log", key.id): entry(key.id), ("other", key.id): None}


def change(revision: int, entries: Mapping[tuple[str, str], Entry | None], marks: Marks = MARKS) -> Commit:
    """Return a commit of entries on `KEY`."""
    return Commit(KEY, FENCE, revision, FIRST, {}, entries=entries, marks=marks)


def wrong(fence: Fence, revision: int) -> Commit:
    """Return a commit that would change everything of an actor."""
    put = {("log", "a"): None, ("log", "b"): entry("b"), ("other", "a"): entry("a")}
    return Commit(KEY, fence, revision, SECOND, {"main": b"2"}, entries=put, marks=Marks(9, 9))


async def expect_unchanged(store: Store) -> None:
    """Check that `KEY` has what `fill` stored, an entry named "a"."""
    found = await store.read(KEY)
    assert found is not None
    assert (found.revision, found.stamp, dict(found.states), found.marks) == (1, FIRST, {}, MARKS)
    assert await all_of(store, "log") == {"a": entry("a")}
    assert await all_of(store, "other") == {}


async def seen_by_all(store: Store) -> list[Marks]:
    """Return the marks of `KEY` by claim, read and scan."""
    claim = await store.claim(KEY, FENCE)
    assert isinstance(claim, Claim)
    read: StoredActor | None = await store.read(KEY)
    assert read is not None
    (scanned,) = await store.scan(KEY.type)
    return [claim.actor.marks, read.marks, scanned.marks]


def scattered(length: int, seed: int) -> str:
    """Return text of two bytes a character in which nothing repeats."""
    points = []
    for _ in range(length):
        seed = (seed * 1_103_515_245 + 12_345) % 2**31
        points.append(chr(0x80 + (seed >> 8) % 0x700))
    return "".join(points)
