"""The contract of stores as far as copies go, as tests: whole actors are handed out, and taken.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lazymig._bases import NO_POLICY, Base, Kept, WritePolicy
from lazymig._quarantine import Failure
from lazymig._records import ActorKey, Fence, Marks, Previous, StoredActor
from lazymig._rulings import Release
from lazymig._version import pack, parse
from lazymig.copies import VALUE_BYTES, CopiedEntry, Outline, Put, TypeSettings, Whole
from lazymig.errors import CorruptStateError, LeaseLostError, StoreClosedError
from lazymig.testing.ruling_bench import facts, pin
from lazymig.testing.store_bench import LEASE_SECONDS, StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed, commit

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store
    from lazymig.testing.clock import ManualClock

ONE, TWO = pack(parse("1.0.0")), pack(parse("2.0.0"))
DAWN, DUSK = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), datetime(2026, 1, 2, 18, tzinfo=UTC)
OLD = Release(applied("1.0.0"), {ONE: -7}, "blue", DAWN)
FAILURE = Failure(TWO, "two", "ValueError: no", 3, DAWN, DUSK, "web-1", 7)
ENTRIES = (
    CopiedEntry("log", "a", b"1", applied("1.0.0")),
    CopiedEntry("log", "é", bytes(range(256)), applied()),
    CopiedEntry("tags", "a", b"", applied("1.0.1", "2.0.0", floor="1.0.0")),
)


class CopySuite(StoreBench):
    """Inherit it and give it `open`."""

    @pytest.mark.parametrize(
        "whole",
        [
            pytest.param(Whole(StoredActor(KEY, 1, None, {"main": b"\xff"})), id="imported"),
            pytest.param(Whole(StoredActor(KEY, 7, SECOND, {"main": b"1", "é": b""})), id="stamped"),
            pytest.param(Whole(StoredActor(KEY, 9, None, {})), id="cleared"),
            pytest.param(Whole(StoredActor(KEY, 3, FIRST, {}, marks=Marks(TWO, ONE)), ENTRIES), id="entries"),
            pytest.param(Whole(StoredActor(KEY, 4, SECOND, {"main": b"1"}, marks=Marks(0, 0)), ENTRIES), id="all"),
            pytest.param(
                Whole(
                    StoredActor(
                        KEY,
                        5,
                        FIRST,
                        {"main": b"1"},
                        base=Base(applied("2.0.0"), 4, -8, {"main": Kept(b"2"), "gone": Kept(None)}),
                    )
                ),
                id="base",
            ),
            pytest.param(
                Whole(
                    StoredActor(KEY, 5, FIRST, {"main": b"1"}, failure=FAILURE),
                    previous=Previous(SECOND, {"main": b"0", "é": b""}),
                ),
                id="failed",
            ),
            pytest.param(
                Whole(StoredActor(KEY, 5, FIRST, {"main": b"1"}), ENTRIES, Previous(None, {"main": b"\xff"})), id="kept"
            ),
        ],
    )
    async def test_what_is_put_is_read_as_it_was(self, store: Store, whole: Whole) -> None:
        assert await store.copies.put("Car", [whole]) == [Put.STORED]

        assert await store.copies.read("Car", ["a"]) == [whole]
        assert await store.read(KEY) == whole.actor
        assert await store.previous(KEY) == whole.previous
        assert [failure for _, failure in await store.failures.page("Car")] == [*filter(None, [whole.actor.failure])]
        assert [found.revision for found in await store.copies.outlines("Car")] == [whole.actor.revision]

    async def test_a_copied_actor_goes_on_where_it_was(self, store: Store) -> None:
        await store.copies.put("Car", [Whole(StoredActor(KEY, 7, FIRST, {"main": b"1"}))])

        claim = await claimed(store, 1)
        assert claim.actor.revision == 7
        assert await store.commit(commit(claim.fence, 7, FIRST, main=b"2")) == 8

    async def test_many_are_put_and_read_in_order_of_their_ids(self, store: Store) -> None:
        names = ["b", "a", "💥", "é", "B"]
        assert await store.copies.put("Car", [of(name) for name in names]) == [Put.STORED] * 5

        assert await store.copies.read("Car", ["💥", "none", *names]) == [of(name) for name in sorted(names)]
        assert await store.copies.read("Bus", names) == []

    async def test_what_an_older_one_had_is_gone(self, store: Store) -> None:
        base = Base(applied("2.0.0"), 1, 0, {"old": Kept(b"2")})
        old = StoredActor(KEY, 1, FIRST, {"main": b"1", "old": b"1"}, marks=Marks(0, 0), base=base, failure=FAILURE)
        await store.copies.put("Car", [Whole(old, ENTRIES, Previous(None, {"main": b"0"})), of("b")])
        new = Whole(StoredActor(KEY, 2, None, {"main": b"2"}), (ENTRIES[0],))
        assert await store.copies.put("Car", [new]) == [Put.STORED]

        assert await store.copies.read("Car", ["a", "b"]) == [new, of("b")]
        assert list(await store.failures.page("Car")) == []

    @pytest.mark.parametrize("revision", [4, 5])
    async def test_what_is_not_older_is_left_alone(self, store: Store, revision: int) -> None:
        kept = Whole(StoredActor(KEY, 5, FIRST, {"main": b"kept"}, marks=Marks(0, 0)), ENTRIES)
        await store.copies.put("Car", [kept])
        put = await store.copies.put("Car", [of("b"), Whole(StoredActor(KEY, revision, SECOND, {"main": b"1"}))])

        assert put == [Put.STORED, Put.NOT_OLDER]
        assert await store.copies.begin(KEY, revision, "draft", ENTRIES) is Put.NOT_OLDER
        assert await store.copies.read("Car", ["a"]) == [kept]

    async def test_what_a_living_node_holds_is_left_alone(self, store: Store, clock: ManualClock) -> None:
        await store.copies.put("Car", [Whole(StoredActor(KEY, 1, FIRST, {"main": b"1"}))])
        await claimed(store, 1)
        newer = Whole(StoredActor(KEY, 2, FIRST, {"main": b"2"}))

        assert await store.copies.put("Car", [newer, of("b")]) == [Put.HELD, Put.STORED]
        assert await store.copies.begin(KEY, 2, "draft", ENTRIES) is Put.HELD
        assert await store.commit(commit(Fence("n1", 1), 1, FIRST, main=b"held")) == 2
        clock.advance(LEASE_SECONDS)
        newest = newer.actor._replace(revision=3)
        assert await store.copies.put("Car", [Whole(newest)]) == [Put.STORED]
        with pytest.raises(LeaseLostError):
            await store.commit(commit(Fence("n1", 1), 3, FIRST, main=b"dead"))
        assert await store.read(KEY) == newest

    async def test_what_was_only_claimed_is_held_too(self, store: Store) -> None:
        await claimed(store, 1)

        assert await store.copies.put("Car", [Whole(StoredActor(KEY, 1, FIRST, {"main": b"1"}))]) == [Put.HELD]
        await store.forget("n1")
        assert await store.copies.put("Car", [Whole(StoredActor(KEY, 1, FIRST, {"main": b"1"}))]) == [Put.STORED]

    # --- drafts ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("has_older", [False, True])
    async def test_a_draft_is_no_actor_until_it_is_finished(self, store: Store, *, has_older: bool) -> None:
        if has_older:
            old = StoredActor(KEY, 1, FIRST, {"main": b"1"}, marks=Marks(0, 0))
            old = old._replace(failure=FAILURE)
            before = Previous(None, {"main": b"0"})
            await store.copies.put("Car", [Whole(old, (CopiedEntry("old", "a", b"1", applied()),), before)])
        assert await store.copies.begin(KEY, 6, "draft", ENTRIES[:1]) is Put.STORED
        await expect_nothing(store)
        assert await store.copies.add(KEY, "draft", ENTRIES[1:])
        await expect_nothing(store)
        actor = StoredActor(KEY, 6, SECOND, {"main": b"6"}, marks=Marks(0, 0), base=Base(applied("3.0.0"), 6, 1, {}))
        actor = actor._replace(failure=FAILURE)
        previous = Previous(FIRST, {"main": b"5"})
        assert await store.copies.finish(Whole(actor, previous=previous), "draft") is Put.STORED

        assert await store.copies.read("Car", ["a"]) == [Whole(actor, ENTRIES, previous)]
        assert (await claimed(store, 2)).actor._replace(owner=None, number=0) == actor

    async def test_a_draft_that_was_left_is_begun_anew(self, store: Store) -> None:
        await store.copies.begin(KEY, 6, "left", ENTRIES)
        assert await store.copies.begin(KEY, 6, "draft", ENTRIES[:1]) is Put.STORED

        assert not await store.copies.add(KEY, "left", ENTRIES[1:])
        actor = StoredActor(KEY, 6, SECOND, {}, marks=Marks(0, 0))
        assert await store.copies.finish(Whole(actor), "left") is Put.HELD
        assert await store.copies.finish(Whole(actor), "draft") is Put.STORED
        assert await store.copies.read("Car", ["a"]) == [Whole(actor, ENTRIES[:1])]
        assert await store.copies.finish(Whole(actor._replace(revision=7)), "draft") is Put.HELD

    async def test_an_actor_that_is_small_by_now_takes_the_place_of_its_draft(self, store: Store) -> None:
        await store.copies.begin(KEY, 6, "left", ENTRIES)
        with pytest.raises(CorruptStateError):
            await store.claim(KEY, Fence("n1", 1))
        assert await store.copies.put("Car", [of("a")]) == [Put.STORED]

        assert await store.copies.read("Car", ["a"]) == [of("a")]
        assert not await store.copies.add(KEY, "left", ENTRIES)

    async def test_an_import_does_not_fill_a_draft(self, store: Store) -> None:
        await store.copies.begin(KEY, 6, "draft", ENTRIES)

        assert await store.insert("Car", "main", [("a", b"1")]) == frozenset()
        await expect_nothing(store)

    async def test_entries_added_again_are_there_once(self, store: Store) -> None:
        await store.copies.begin(KEY, 6, "draft", ENTRIES)
        await store.copies.add(KEY, "draft", [entry._replace(data=b"again") for entry in ENTRIES])
        await store.copies.finish(Whole(StoredActor(KEY, 6, None, {})), "draft")

        (whole,) = await store.copies.read("Car", ["a"])
        assert [entry.data for entry in whole.entries] == [b"again"] * 3

    # --- outlines --------------------------------------------------------------------------------------------------

    async def test_outlines_are_pages_of_ids_in_order(self, store: Store) -> None:
        names = sorted(["a", "B", "é", "💥", "\uffff"])
        await store.copies.put("Car", [of(name) for name in names])
        await store.copies.put("Bus", [of("b", "Bus")])
        await store.claim(ActorKey("Car", "claimed"), Fence("n1", 1))
        await store.copies.begin(ActorKey("Car", "draft"), 1, "draft", ENTRIES)

        assert [found.id for found in await store.copies.outlines("Car")] == names
        assert [found.id for found in await store.copies.outlines("Car", limit=2)] == names[:2]
        assert [found.id for found in await store.copies.outlines("Car", after=names[1], limit=2)] == names[2:4]
        assert list(await store.copies.outlines("Car", after=names[-1])) == []

    async def test_a_size_counts_all_values(self, store: Store) -> None:
        base = Base(applied("2.0.0"), 1, 0, {"main": Kept(b"123"), "gone": Kept(None)})
        actor = StoredActor(KEY, 1, FIRST, {"main": b"12345", "other": b""}, marks=Marks(0, 0), base=base)
        await store.copies.put("Car", [Whole(actor, ENTRIES, Previous(None, {"main": b"1234567"}))])
        await store.copies.put("Car", [Whole(StoredActor(ActorKey("Car", "b"), 3, None, {}))])

        size = 5 + 3 + 1 + 256 + 7 + 8 * VALUE_BYTES
        assert list(await store.copies.outlines("Car")) == [Outline("a", 1, size), Outline("b", 3, 0)]

    # --- types -----------------------------------------------------------------------------------------------------

    async def test_types_have_an_actor_or_a_policy_or_a_release(self, store: Store) -> None:
        assert list(await store.copies.types()) == []
        await store.copies.put("Car", [Whole(StoredActor(KEY, 3, None, {}))])
        await pin(store, TWO, "Bus")
        await store.copies.note("Axle", TypeSettings(NO_POLICY, [OLD]))
        await store.claim(ActorKey("Door", "a"), Fence("n1", 1))

        assert list(await store.copies.types()) == ["Axle", "Bus", "Car"]

    async def test_settings_are_noted_as_they_were(self, store: Store) -> None:
        settings = TypeSettings(WritePolicy(ONE, 4), [OLD, Release(applied("1.0.0", "2.0.0"), {}, None, DUSK)])
        await store.copies.note("Car", settings)

        found = await store.copies.settings("Car")
        assert found.policy == settings.policy
        assert sorted(found.releases, key=seen_at) == list(settings.releases)
        assert (await facts(store)).policy == WritePolicy(ONE, 4)
        assert (await claimed(store, 1)).policy == WritePolicy(ONE, 4)
        assert await store.copies.settings("Bus") == TypeSettings(NO_POLICY, [])

    @pytest.mark.parametrize(("epoch", "version"), [(1, ONE), (2, ONE), (3, TWO)])
    async def test_a_policy_of_a_lower_epoch_gives_way(self, store: Store, epoch: int, version: int) -> None:
        await pin(store, TWO)
        await pin(store, ONE)
        await store.copies.note("Car", TypeSettings(WritePolicy(TWO, epoch), []))

        assert (await store.copies.settings("Car")).policy == WritePolicy(version, max(epoch, 2))

    async def test_a_commit_of_the_epoch_before_stores_nothing(self, store: Store) -> None:
        claim = await claimed(store, 1)
        await store.copies.note("Car", TypeSettings(WritePolicy(ONE, 4), []))

        assert await store.commit(commit(claim.fence, 0, FIRST, main=b"1")) == WritePolicy(ONE, 4)

    async def test_a_release_that_was_seen_later_stays(self, store: Store) -> None:
        later = OLD._replace(build="green", seen_at=DUSK)
        await store.copies.note("Car", TypeSettings(NO_POLICY, [later]))
        await store.copies.note("Car", TypeSettings(NO_POLICY, [OLD]))

        assert (await store.copies.settings("Car")).releases == [later]

    async def test_a_closed_store_is_named(self, tmp_path: Path, clock: ManualClock) -> None:
        async with self.open(tmp_path, clock) as store:
            pass
        for use in (store.copies.types, lambda: store.copies.put("Car", [of("a")])):
            with pytest.raises(StoreClosedError, match="open_store"):
                await use()


def of(name: str, actor_type: str = "Car") -> Whole:
    """Return an actor with a state and entries."""
    actor = StoredActor(ActorKey(actor_type, name), 1, FIRST, {"main": name.encode()}, marks=Marks(0, 0))
    return Whole(actor, ENTRIES[:2])


def seen_at(release: Release) -> Any:
    """Return when a release was seen."""
    return release.seen_at


async def expect_nothing(store: Store) -> None:
    """Check that nobody has the actor, nor can get it."""
    for node, number in (("n1", 1), ("n2", 1), ("n1", 2)):
        with pytest.raises(CorruptStateError, match="copy"):
            await store.claim(KEY, Fence(node, number))
    assert await store.read(KEY) is None
    assert await store.previous(KEY) is None
    assert list(await store.failures.page("Car")) == []
    assert list(await store.scan("Car")) == []
    assert list(await store.types()) == []
    assert dict(await store.census("Car")) == {}
    assert list(await store.copies.outlines("Car")) == []
    assert list(await store.copies.read("Car", ["a"])) == []
