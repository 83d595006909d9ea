"""The contract of stores as far as rulings go, and what is counted beside them, as tests.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from lazymig._bases import NO_BASE, NO_POLICY, BaseWrite, WritePolicy
from lazymig._entries import Entry
from lazymig._fleet_records import Offer
from lazymig._records import ActorKey, Claim, Commit, Fence, Marks, NodeRecord, Stamp
from lazymig._rulings import (
    NOBODY,
    AskActors,
    AskBases,
    AskConverting,
    AskEntries,
    AskType,
    Based,
    Counted,
    Release,
    Ruled,
)
from lazymig._version import pack, parse
from lazymig.errors import LazymigError, LeaseLostError
from lazymig.testing.ruling_bench import answers, ask, facts, pin, put
from lazymig.testing.store_bench import LEASE_SECONDS, StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed, commit

if TYPE_CHECKING:
    from lazymig._rulings import Ruling
    from lazymig.store import Store

A, B, C = applied("1.0.0"), applied("1.0.0", "1.1.0"), applied("2.0.0", floor="1.0.0")
ONE, TWO = pack(parse("1.0.0")), pack(parse("2.0.0"))
SEEN = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)
RELEASE = Release(B, {ONE: 2**63, TWO: 7}, "build", SEEN)
OFFER = Offer("Car", B, ("drive", "park"), late=(ONE,), one_way=((TWO, "2.0.0 has no down"), (ONE, "é")))

SKEW = timedelta(minutes=1)
"""How far a server's clock may be from ours, where these tests run."""


class RefusedError(LazymigError):
    """What a ruling of these tests raises."""


class RulingSuite(StoreBench):
    """Inherit it and give it `open`."""

    # --- what is known of a type -------------------------------------------------------------------------------

    async def test_of_a_type_that_nobody_knows_nothing_is_known_but_the_nodes(self, store: Store) -> None:
        found = await facts(store)

        assert found._replace(nodes=()) == (NO_POLICY, [], (), [], frozenset(), frozenset(), frozenset(), None)
        assert found.nodes == await store.nodes()
        assert [node.node_id for node in found.nodes] == ["n1", "n2"]

    async def test_what_actors_and_bases_and_entries_have_is_told(self, store: Store) -> None:
        await store.insert("Car", "main", [("imported", b"1")])
        await put(store, "a", Stamp(A, B))
        await put(store, "b", Stamp(A, C), BaseWrite(B))
        await put(store, "c", Stamp(A, C), BaseWrite(C))
        await put(store, "d", None, BaseWrite(C), entries={("log", "x"): Entry(b"1", B)}, marks=Marks(0, ONE))
        await put(store, "e", Stamp(C, C), entries={("log", "x"): Entry(b"1", B)}, marks=Marks(TWO, TWO))
        await put(store, "other", Stamp(B, B), actor_type="Bus")

        found = await facts(store)
        assert found.actors == {None, A, C}
        assert found.bases == {Based(A, C, B), Based(A, C, C), Based(None, None, C)}
        assert found.known >= {A, B, C}
        assert found.oldest == ONE
        assert (await facts(store, "Bus")).actors == {B}

    async def test_actors_that_were_only_claimed_are_not_counted(self, store: Store) -> None:
        await claimed(store, 1)

        assert (await facts(store)).actors == frozenset()
        assert await ask(store, AskActors("Car", frozenset({None, A}))) == NOBODY
        assert await store.stragglers("Car", frozenset({None, A})) == []

    async def test_an_actor_of_which_nothing_is_left_is_counted_nowhere_and_its_revision_goes_on(
        self, store: Store
    ) -> None:
        everything = frozenset({None, A, FIRST.applied})
        place = ("log", "x")
        await put(store, "a", FIRST, BaseWrite(B), entries={place: Entry(b"1", B)}, marks=Marks(TWO, ONE))
        for change in (
            {"writes": {"main": None}},
            {"base": NO_BASE, "writes": {}},
        ):
            await put(store, "a", FIRST, **change)
            assert (await facts(store)).actors == {FIRST.applied}, "there is an entry"
        await put(store, "a", FIRST, writes={}, entries={place: None}, marks=Marks(TWO, ONE))
        for _ in range(2):
            found = await facts(store)
            assert (found.actors, found.bases, found.oldest) == (frozenset(), frozenset(), None)
            assert await store.census("Car") == {}
            assert await store.types() == await store.stragglers("Car", everything) == []
            assert await ask(store, AskActors("Car", everything)) == NOBODY
            assert await ask(store, AskConverting("Car", 1)) == NOBODY
            await put(store, "a", FIRST, writes={})
        (seen,) = await store.scan("Car")
        assert (seen.revision, seen.stamp, seen) == (6, None, await store.read(ActorKey("Car", "a")))
        await put(store, "a", Stamp(A, B))
        assert await store.census("Car") == {A: 1}
        assert await ask(store, AskActors("Car", everything)) == Counted(1, ("a",))

    async def test_an_actor_is_counted_by_a_base_alone(self, store: Store) -> None:
        await put(store, "a", Stamp(A, B), BaseWrite(B), writes={})
        assert await ask(store, AskBases("Car", frozenset({Based(A, B, B)}))) == Counted(1, ("a",))
        await put(store, "a", Stamp(A, B), writes={"main": None})
        assert await store.census("Car") == {A: 1}
        await put(store, "a", Stamp(A, B), NO_BASE, writes={})

        assert await store.census("Car") == {}

    async def test_an_actor_whose_first_commit_stores_nothing_is_not_counted(self, store: Store) -> None:
        await put(store, "a", FIRST, writes={})
        await put(store, "b", FIRST, NO_BASE, writes={"main": None}, entries={("log", "x"): None}, marks=Marks(1, 1))

        assert await store.census("Car") == {}
        assert [actor.revision for actor in await store.scan("Car")] == [1, 1]

    async def test_a_commit_that_is_refused_leaves_the_stamp_as_it_is(self, store: Store) -> None:
        await put(store, "a", FIRST)
        claim = await store.claim(ActorKey("Car", "a"), Fence("n1", 1))
        assert isinstance(claim, Claim)
        wrong = Commit(ActorKey("Car", "a"), claim.fence, 5, SECOND, {"main": None})
        for refused in (wrong, wrong._replace(base=NO_BASE), wrong._replace(marks=Marks(0, None))):
            with pytest.raises(LeaseLostError):
                await store.commit(refused)

        assert await store.census("Car") == {FIRST.applied: 1}

    async def test_a_base_that_was_removed_is_told_no_more(self, store: Store) -> None:
        await put(store, "a", FIRST, BaseWrite(B))
        await put(store, "a", FIRST, NO_BASE)

        assert (await facts(store)).bases == frozenset()

    async def test_nodes_are_told_as_they_registered(self, store: Store) -> None:
        await store.register(NodeRecord("n3", "a label", None, LEASE_SECONDS, [OFFER, Offer("Bus", C)]))
        await store.drain("n3")

        first, *_ = (await facts(store)).nodes
        assert (first.node_id, first.is_draining, first.offers) == ("n3", True, (Offer("Bus", C), OFFER))
        assert (await store.nodes())[0] == first

    # --- how many ----------------------------------------------------------------------------------------------

    async def test_actors_are_counted_by_their_sets_and_the_first_named(self, store: Store) -> None:
        names = ["B", "a", "b", "\U0001f697", "é", "_", "Z"]
        for name in names:
            await put(store, name, FIRST)
        await put(store, "second", SECOND)
        await store.insert("Car", "main", [("imported", b"1"), ("A", b"1")])

        async def count(*sets: object) -> object:
            return await ask(store, AskActors("Car", frozenset(sets)))  # type: ignore[arg-type]  # of sets or None

        assert await count(FIRST.applied) == Counted(7, tuple(sorted(names)[:5]))
        assert await count(None) == Counted(2, ("A", "imported"))
        assert await count(SECOND.applied, None, applied("9.0.0")) == Counted(3, ("A", "imported", "second"))
        assert await count(applied("9.0.0")) == await count() == NOBODY
        assert await ask(store, AskActors("Bus", frozenset({FIRST.applied}))) == NOBODY

    async def test_bases_are_counted_by_what_they_have_in_common(self, store: Store) -> None:
        await put(store, "a", Stamp(A, A), BaseWrite(B))
        await put(store, "b", Stamp(A, B), BaseWrite(B))
        await put(store, "c", Stamp(A, B), BaseWrite(B))
        await put(store, "d", None, BaseWrite(C))
        await put(store, "e", Stamp(A, B))

        async def count(*of: Based) -> object:
            return await ask(store, AskBases("Car", frozenset(of)))

        assert await count(Based(A, B, B)) == Counted(2, ("b", "c"))
        assert await count(Based(A, A, B), Based(None, None, C), Based(C, C, C)) == Counted(2, ("a", "d"))
        assert await count(Based(B, A, B)) == await count() == NOBODY

    async def test_actors_are_counted_by_their_entries(self, store: Store) -> None:
        await put(store, "a", FIRST, entries={("log", "x"): Entry(b"1", A)}, marks=Marks(0, ONE))
        two = {("log", "x"): Entry(b"1", A), ("log", "y"): Entry(b"1", C), ("other", "x"): Entry(b"1", A)}
        await put(store, "b", FIRST, entries=two, marks=Marks(0, ONE))
        await put(store, "c", FIRST, entries={("log", "x"): Entry(b"1", C)}, marks=Marks(0, TWO))
        await put(store, "d", FIRST)

        async def count(below: int | None, *sets: object) -> object:
            return await ask(store, AskEntries("Car", frozenset(sets), below))  # type: ignore[arg-type]  # likewise

        assert await count(None, A) == await count(TWO, A) == Counted(2, ("a", "b"))
        assert await count(None, C) == Counted(2, ("b", "c"))
        assert await count(None, A, C, B) == Counted(3, ("a", "b", "c"))
        assert await count(None, B) == await count(ONE, A) == await count(None) == NOBODY
        assert await store.entry_census("Car") == {A: 3, C: 2}
        assert await store.entry_census("Bus") == {}

    async def test_actors_are_counted_whose_entries_are_converted(self, store: Store) -> None:
        for name, converting in {"a": 0, "b": ONE, "c": TWO}.items():
            await put(store, name, FIRST, entries={("log", "x"): Entry(b"1", A)}, marks=Marks(converting, ONE))

        assert await ask(store, AskConverting("Car", ONE)) == Counted(2, ("b", "c"))
        assert await ask(store, AskConverting("Car", ONE + 1)) == Counted(1, ("c",))
        assert await ask(store, AskConverting("Car", TWO + 1)) == NOBODY

    async def test_stragglers_come_in_order_page_by_page(self, store: Store) -> None:
        first = ["a", "c", "é", "\ue000"]
        second = ["B", "b", "d", "\U0001f697"]
        for names, stamp in ((first, FIRST), (second, SECOND), (["none"], Stamp(B, B))):
            for name in names:
                await put(store, name, stamp)
        await store.insert("Car", "main", [("imported", b"1")])
        sets = frozenset({FIRST.applied, SECOND.applied, None, applied("9.0.0")})
        expected = sorted([*first, *second, "imported"])

        assert list(await store.stragglers("Car", sets)) == expected
        found: list[str] = []
        while page := await store.stragglers("Car", sets, after=found[-1] if found else "", limit=2):
            assert len(page) <= 2
            found += page
        assert found == expected
        assert await store.stragglers("Car", frozenset()) == await store.stragglers("Bus", sets) == []

    # --- what is decided ---------------------------------------------------------------------------------------

    async def test_releases_are_recorded_in_place_of_one_with_the_same_set(self, store: Store) -> None:
        bare = Release(C, {}, None, SEEN)
        decided = [("Car", RELEASE), ("Car", bare), ("Bus", bare)]
        assert await store.rule(answers(releases=decided), is_change=True) == []
        assert await releases(store) == sorted([RELEASE[:3], bare[:3]], key=str)
        later = RELEASE._replace(checksums={ONE: 1}, build=None)
        await store.rule(answers(releases=[("Car", later)]), is_change=True)

        assert await releases(store) == sorted([later[:3], bare[:3]], key=str)
        assert await releases(store, "Bus") == [bare[:3]]

    async def test_a_release_is_seen_by_the_stores_clock_whatever_a_nodes_says(self, store: Store) -> None:
        skewed = [RELEASE._replace(seen_at=SEEN.replace(year=year)) for year in (2126, 1999)]
        begun, seen = datetime.now(UTC), []
        for release in skewed:
            await store.rule(answers(releases=[("Car", release)]), is_change=True)
            (found,) = (await facts(store)).releases
            seen.append(found.seen_at)

        assert begun - SKEW < seen[0] <= seen[1] < datetime.now(UTC) + SKEW

    async def test_an_answer_may_ask_again_and_a_ruling_without_questions_is_one(self, store: Store) -> None:
        await put(store, "a", FIRST)

        def ruling() -> Ruling:
            known = yield AskType("Car")
            counted = yield AskActors("Car", known.actors)
            return Ruled((known.actors, counted.total))

        for is_change in (False, True):
            assert await store.rule(ruling, is_change=is_change) == ({FIRST.applied}, 1)
            assert await store.rule(answers(), is_change=is_change) == []

    async def test_a_ruling_that_raises_changes_nothing(self, store: Store) -> None:
        def refuse() -> Ruling:
            yield AskType("Car")
            raise RefusedError

        with pytest.raises(RefusedError):
            await store.rule(refuse, is_change=True)
        with pytest.raises(RefusedError):
            await store.register(NodeRecord("n3", "n3", None, LEASE_SECONDS), replaces="n1", ruling=refuse)
        assert [node.node_id for node in await store.nodes()] == ["n1", "n2"]
        assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)

    async def test_a_ruling_that_raises_harms_no_commit_beside_it(self, store: Store) -> None:
        keys = [ActorKey("Car", f"{number:02}") for number in range(9)]
        for key in keys:
            await store.claim(key, Fence("n1", 1))

        def refuse() -> Ruling:
            yield AskType("Car")
            raise RefusedError

        commits = [store.commit(Commit(key, Fence("n1", 1), 0, FIRST, {"main": b"1"})) for key in keys]
        refused = [store.rule(refuse, is_change=True) for _ in range(3)]
        outcomes = await asyncio.gather(*commits[:5], *refused, *commits[5:], return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [int] * 5 + [RefusedError] * 3 + [int] * 4

    async def test_a_registration_is_ruled_before_it_is_seen_and_without_the_replaced_node(self, store: Store) -> None:
        decided = answers(AskType("Car"), policies={"Car": ONE}, releases=[("Car", RELEASE)])
        node = NodeRecord("n3", "n3", None, LEASE_SECONDS, [OFFER])
        (known,) = await store.register(node, replaces="n1", ruling=decided)

        assert [other.node_id for other in known.nodes] == ["n2"]
        found = await facts(store)
        assert [other.node_id for other in found.nodes] == ["n2", "n3"]
        assert (found.policy, await releases(store)) == (WritePolicy(ONE, 1), [RELEASE[:3]])

    async def test_a_registration_without_a_ruling_has_no_answer(self, store: Store) -> None:
        assert await store.register(NodeRecord("n3", "n3", None, LEASE_SECONDS)) is None

    async def test_nodes_that_start_together_are_ruled_one_by_one(self, store: Store) -> None:
        def register(number: int) -> object:
            node = NodeRecord(f"new-{number}", "new", None, LEASE_SECONDS)
            return store.register(node, ruling=answers(AskType("Car")))

        found = await asyncio.gather(*map(register, range(8)))  # type: ignore[call-overload]  # of coroutines
        assert sorted(len(known.nodes) for (known,) in found) == [2, 3, 4, 5, 6, 7, 8, 9]

    async def test_changes_that_come_together_are_made_one_by_one(self, store: Store) -> None:
        await asyncio.gather(*(pin(store, ONE) for _ in range(6)))

        assert (await facts(store)).policy == WritePolicy(ONE, 6)
        await claimed(store, 1)
        assert await store.commit(commit(Fence("n1", 1), 0, FIRST, main=b"1")._replace(epoch=6)) == 1


async def releases(store: Store, actor_type: str = "Car") -> list[tuple[object, ...]]:
    """Return what is recorded of a type's releases but when they were seen."""
    return sorted((release[:3] for release in (await facts(store, actor_type)).releases), key=str)
