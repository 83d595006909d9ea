"""What is asked when a node starts, by hand: the ruling is sent facts instead of a store's answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, _version, errors
from lazymig._bases import NO_POLICY, WritePolicy
from lazymig._calls import offers_of
from lazymig._fleet_records import NodeStatus, Offer
from lazymig._records import AppliedSet, NodeRecord
from lazymig._releases import Changed, starting
from lazymig._rulings import AskActors, AskEntries, AskType, Counted, Release, Ruled, TypeFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig import ActorType

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def v(text: str) -> int:
    return _version.pack(_version.parse(text))


def applied(*versions: str, floor: str = "0.0.0") -> AppliedSet:
    return AppliedSet(map(v, versions), v(floor))


def seen(
    *versions: str, floor: str = "0.0.0", days_ago: int = 1, checksums: Mapping[int, int] | None = None
) -> Release:
    return Release(applied(*versions, floor=floor), checksums or {}, None, NOW - timedelta(days=days_ago))


def car(
    *versions: str, baseline: str | None = None, late: Sequence[str] = (), down: bool = True, write: str | None = None
) -> ActorType[Any]:
    made = Suite("fleet").actor_type("Car", baseline=baseline, write_version=write)
    for number in versions:

        def step(state: Any, context: Any) -> None:
            """Do nothing."""

        migration = made.migration(number, late=number in late)(step)
        if down:
            migration.down(lambda state, context: None)
    return made


def node_of(made: ActorType[Any]) -> NodeRecord:
    return NodeRecord("n1", "pod-1", "build 7", 3.0, offers_of({"Car": made}))


def other(node_id: str, offer: Offer, *, is_alive: bool = True) -> NodeStatus:
    return NodeStatus(node_id, f"pod {node_id}", None, 0.0, 3.0, is_alive, is_draining=False, active=0, offers=(offer,))


class Stored:
    """A store's answers about the type Car.

    Args:
        releases: Those seen.
        actors: Applied set, or None, to ids.
        entries: Applied set to ids of the actors that have such entries.
        facts: Others of `TypeFacts`.
    """

    def __init__(
        self,
        *releases: Release,
        actors: Mapping[AppliedSet | None, Sequence[str]] | None = None,
        entries: Mapping[AppliedSet, Sequence[str]] | None = None,
        **facts: Any,
    ) -> None:
        self.actors = actors or {}
        self.entries = entries or {}
        self.asked: list[Any] = []
        self.facts = TypeFacts(
            **{
                "policy": NO_POLICY, "releases": releases, "nodes": (), "unreadable": (),
                "known": frozenset({*self.entries, *filter(None, self.actors)}), "actors": frozenset(self.actors),
                "bases": frozenset(), "oldest": min((of.highest for of in self.entries), default=None),
            } | facts
        )  # fmt: skip

    def answer(self, question: Any) -> Any:
        self.asked.append(question)
        if isinstance(question, AskType):
            return self.facts
        assert question.actor_type == "Car"
        assert question.sets
        ids: set[str] = set()
        found: Mapping[Any, Sequence[str]] = self.actors if isinstance(question, AskActors) else self.entries
        if isinstance(question, AskEntries) and question.below is not None:
            assert all(one.highest < question.below for one in question.sets)
        ids.update(*(found.get(one, ()) for one in question.sets))
        return Counted(len(ids), tuple(sorted(ids)[:5]))

    def start(self, made: ActorType[Any]) -> Ruled:
        ruling = starting(node_of(made), {"Car": made}, NOW)
        question: Any = next(ruling)
        while True:
            try:
                question = ruling.send(self.answer(question))
            except StopIteration as end:
                ruled: Ruled = end.value
                return ruled


OLD = applied("1.0.0", "1.1.0")


# --- the set of versions -----------------------------------------------------------------------------------------


def test_the_first_release_starts_and_is_recorded() -> None:
    made = car("1.0.0", "1.1.0", baseline="0.9.0")
    ruled = Stored().start(made)

    release = Release(applied("1.0.0", "1.1.0", floor="0.9.0"), made.chain.checksums, "build 7", NOW)
    assert ruled == Ruled((), {}, (("Car", release),))
    assert set(release.checksums) == {v("1.0.0"), v("1.1.0")}


def test_a_set_seen_before_starts_again_whatever_else_was_seen() -> None:
    stored = Stored(
        seen("1.0.0", "1.1.0"), seen("1.0.0", "1.0.1", "1.1.0", "2.0.0"), seen("2.0.0", floor="1.1.0"),
        actors={OLD: ["a"], None: ["b"], applied("1.0.0", "1.0.1", "1.1.0", "2.0.0"): ["c"]},
    )  # fmt: skip

    assert stored.start(car("1.0.0", "1.1.0")).releases[0][1].applied == OLD
    assert stored.asked == [AskType("Car")]


def test_the_same_versions_above_another_baseline_are_another_set() -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={None: ["a"]})

    with pytest.raises(errors.MissingMigrationError):
        stored.start(car("1.1.0", baseline="1.0.0"))


@pytest.mark.parametrize("versions", [("1.0.0",), ("1.0.0", "1.1.0", "2.0.0"), ("1.0.0", "1.1.0", "1.1.1")])
def test_a_new_release_that_goes_on_or_ends_sooner_starts(versions: Sequence[str]) -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"], None: ["b"]})

    stored.start(car(*versions))
    assert stored.asked == [AskType("Car")]


def test_a_hotfix_below_what_was_seen_must_say_that_it_may_be_late() -> None:
    actors = {OLD: ["a", "b"], applied("1.0.0"): ["c"], applied("1.1.0", floor="1.0.5"): ["d"], None: ["e"]}
    stored = Stored(seen("1.0.0", "1.1.0"), actors=actors)
    hotfix = ("1.0.0", "1.0.1", "1.1.0")

    with pytest.raises(errors.LateMigrationError) as caught:
        stored.start(car(*hotfix))
    error = caught.value
    assert (error.key, error.actor_type, error.count) == (None, "Car", 2)
    assert (str(error.stored), list(map(str, error.late))) == ("1.1.0", ["1.0.1"])
    assert str(error) == (
        "Car has 1.0.1 new, though this store has seen 1.1.0 already: 2 stored actors are past it and never had it. "
        "If a migration may run on states of a later shape, register it with late=True; else give it a version above "
        "1.1.0."
    )
    stored.start(car(*hotfix, late=["1.0.1"]))


def test_a_hotfix_below_what_was_seen_is_refused_though_nothing_is_stored() -> None:
    stored = Stored(seen("1.0.0", "2.0.0"))

    with pytest.raises(
        errors.LateMigrationError, match=r"Car has 1\.0\.1, 1\.1\.0 new.* 0 stored actors are"
    ) as caught:
        stored.start(car("1.0.0", "1.0.1", "1.1.0", "2.0.0"))
    assert caught.value.count == 0
    assert stored.asked == [AskType("Car")]


def test_a_release_whose_highest_is_the_hotfix_is_as_late() -> None:
    with pytest.raises(errors.LateMigrationError, match="1 stored actor is past"):
        Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"]}).start(car("1.0.0", "1.0.1"))


def test_a_version_that_some_set_has_is_not_new() -> None:
    stored = Stored(seen("1.0.0", "1.0.1"), seen("1.0.0", "1.0.1", "1.1.0"), seen("2.0.0", floor="1.1.0"))

    stored.start(car("1.0.0", "1.0.1", "1.1.0", "2.0.0"))  # all but 2.0.0 say nothing of late=


def test_a_version_below_a_seen_baseline_is_not_new() -> None:
    Stored(seen("1.1.0", floor="1.0.0")).start(car("0.9.0", "1.1.0"))


def test_a_new_release_must_not_lack_what_was_seen() -> None:
    stored = Stored(
        seen("1.0.0", "1.0.1", "1.1.0"),
        actors={applied("1.0.0"): list("gfedcba"), None: ["h"], applied("1.0.0", "1.0.1"): ["i"], OLD: ["j"]},
    )

    with pytest.raises(errors.MissingMigrationError) as caught:
        stored.start(car("1.0.0", "1.1.0"))
    error = caught.value
    assert (error.actor_type, list(map(str, error.versions)), str(error.baseline)) == ("Car", ["1.0.1"], "1.0.1")
    assert (error.count, error.actors) == (8, ("a", "b", "c", "d", "e"))
    assert str(error) == (
        "Car has no migration 1.0.1, which an earlier release had on this store: 8 stored actors ('a', 'b', 'c', 'd', "
        "'e', …) are below 1.0.1. Put them back; they can be retired by a baseline once every actor and entry is at "
        "1.0.1 or above."
    )


def test_a_new_release_that_lacks_what_nothing_stored_needs_still_needs_a_baseline() -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"]})

    with pytest.raises(errors.MissingMigrationError, match=r"0 stored actors are below 1\.0\.0\. .*baseline='1\.0\.0'"):
        stored.start(car("1.1.0"))
    stored.start(car("1.1.0", baseline="1.0.0"))
    stored.start(car("1.2.0", baseline="1.1.0"))


@pytest.mark.parametrize("lowest", [None, applied(), applied("1.0.0"), applied(floor="0.5.0")])
def test_a_baseline_stands_for_what_is_gone_once_no_actor_is_below_it(lowest: AppliedSet | None) -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"], lowest: ["b"]})

    with pytest.raises(errors.MissingMigrationError, match=r"1 stored actor \('b'\) is below 1\.1\.0") as caught:
        stored.start(car("2.0.0", baseline="1.1.0"))
    assert list(map(str, caught.value.versions)) == ["1.0.0", "1.1.0"]


def test_a_baseline_stands_for_what_is_gone_once_no_entry_is_below_it() -> None:
    stored = Stored(
        seen("1.0.0", "1.1.0"),
        actors={OLD: ["a", "b"]},
        entries={applied("1.0.0"): ["b"], applied(): ["b"], OLD: ["a"]},
    )

    with pytest.raises(errors.MissingMigrationError, match=r"1 stored actor with entries \('b'\) is below 1\.1\.0"):
        stored.start(car("2.0.0", baseline="1.1.0"))
    assert stored.asked[1:] == [AskEntries("Car", frozenset({applied("1.0.0"), applied()}), v("1.1.0"))]

    stored = Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"]}, entries={applied("1.0.0"): []}, oldest=v("1.0.0"))
    stored.start(car("2.0.0", baseline="1.1.0"))  # the oldest is only a bound
    assert len(stored.asked) == 2


def test_a_baseline_that_is_too_low_stands_for_nothing_above_it() -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={applied("1.0.0"): ["a"]})

    with pytest.raises(errors.MissingMigrationError) as caught:
        stored.start(car("2.0.0", baseline="1.0.0"))
    assert (list(map(str, caught.value.versions)), caught.value.count) == (["1.1.0"], 1)


def test_a_baseline_that_was_seen_is_no_migration_that_is_lacked() -> None:
    stored = Stored(seen("1.1.0", floor="1.0.0"), actors={None: ["its suite infers the version"]})

    stored.start(car("1.1.0", "1.2.0", baseline="1.0.0"))


def test_the_oldest_release_may_come_new_to_a_store_of_newer_ones() -> None:
    Stored(seen("1.0.0", "2.0.0", "3.0.0"), actors={None: ["a"]}).start(car("1.0.0"))
    Stored(seen("1.0.0", "2.0.0", "3.0.0"), actors={None: ["a"]}).start(car())


@pytest.mark.parametrize(
    ("first", "second"), [(("1.0.0", "1.1.0"), ("1.0.0", "1.0.1")), (("1.0.0", "1.0.1"), ("1.0.0", "1.1.0"))]
)
def test_of_two_releases_that_would_skip_each_others_versions_one_starts(
    first: Sequence[str], second: Sequence[str]
) -> None:
    recorded = [release for _, release in Stored().start(car(*first)).releases]

    with pytest.raises((errors.LateMigrationError, errors.MissingMigrationError)):
        Stored(*recorded).start(car(*second))


# --- checksums ---------------------------------------------------------------------------------------------------


def test_a_changed_checksum_is_told_and_recorded() -> None:
    made = car("1.0.0", "1.1.0", "2.0.0")
    sums = made.chain.checksums
    one, two = v("1.0.0"), v("2.0.0")
    stored = Stored(
        seen("1.0.0", "1.1.0", "2.0.0", checksums=sums | {one: 1, two: 2}, days_ago=1),
        seen("1.0.0", "1.1.0", checksums=sums | {one: 7}, days_ago=2),
    )

    ruled = stored.start(made)
    assert ruled.answer == tuple(Changed("Car", _version.parse(text), "step") for text in ("1.0.0", "2.0.0"))
    assert ruled.releases[0][1].checksums == sums


def test_a_checksum_is_compared_with_the_one_that_was_seen_last() -> None:
    made = car("1.0.0")
    same, changed = made.chain.checksums, {v("1.0.0"): 1}

    for before, last, is_told in ((changed, same, False), (same, changed, True)):
        stored = Stored(seen(days_ago=1, checksums=last), seen("1.0.0", days_ago=2, checksums=before))
        assert bool(stored.start(made).answer) is is_told


def test_what_had_or_has_no_source_has_not_changed() -> None:
    made = Suite("fleet").actor_type("Car")
    made.migration("1.0.0")(eval("lambda s, c: s"))

    ruled = Stored(seen("1.0.0", checksums={v("1.0.0"): 1})).start(made)
    assert (ruled.answer, ruled.releases[0][1].checksums) == ((), {})
    assert Stored(seen("1.0.0")).start(car("1.0.0")).answer == ()


# --- the write version -------------------------------------------------------------------------------------------

PINNED = WritePolicy(v("1.0.0"), 1)


def test_a_node_that_can_store_the_write_version_starts() -> None:
    ruled = Stored(policy=PINNED).start(car("1.0.0", "1.1.0", "2.0.0", write="1.1.0"))

    assert ruled.policies == {}


def test_a_node_below_the_write_version_starts() -> None:
    Stored(policy=WritePolicy(v("2.0.0"), 3)).start(car("1.0.0", down=False))


def test_a_node_more_than_one_major_above_the_write_version_does_not_start() -> None:
    stored = Stored(seen("1.0.0", "2.0.0", "3.0.0"), policy=PINNED)

    with pytest.raises(errors.WriteVersionError) as caught:  # though its set was seen before
        stored.start(car("1.0.0", "2.0.0", "3.0.0"))
    assert (caught.value.actor_type, str(caught.value.write_version), caught.value.nodes) == ("Car", "1.0.0", ())
    assert str(caught.value) == (
        "the write version of Car is 1.0.0, and this node can't store it so: it supports 3.0.0, more than one major "
        "version above. Give it what it lacks, start a release that is nearer, or change the write version first."
    )


def test_a_node_that_lacks_ways_down_names_each() -> None:
    made = Suite("fleet").actor_type("Car")
    for number in ("1.0.0", "1.1.0", "2.0.0"):

        def step(state: Any, context: Any) -> None: ...

        migration = made.migration(number)(step)
        migration.entries("log")(step)
        if number == "1.1.0":
            migration.down(step)

    assert [what for _, what in made.chain.one_way] == [
        "1.0.0 (step) has no down", "1.0.0 (step) has no down for the entries of table 'log'",
        "1.1.0 (step) has no down for the entries of table 'log'",
        "2.0.0 (step) has no down", "2.0.0 (step) has no down for the entries of table 'log'",
    ]  # fmt: skip
    with pytest.raises(errors.WriteVersionError) as caught:
        Stored(policy=PINNED).start(made)
    assert caught.value.reason == (
        "it has no way down: 1.1.0 (step) has no down for the entries of table 'log', 2.0.0 (step) has no down, "
        "2.0.0 (step) has no down for the entries of table 'log'"
    )
    made.migrations[1].conversions["log"].down(lambda entry, context: None)
    made.migrations[2].conversions["log"].down(lambda entry, context: None)
    made.migrations[2].down(lambda state, context: None)
    Stored(policy=PINNED).start(made)


@pytest.mark.parametrize("write", ["0.0.0", "1.0.0", "1.1.0"])
def test_a_first_write_version_is_set_where_there_never_was_one(write: str) -> None:
    assert Stored().start(car("1.0.0", "1.1.0", write=write)).policies == {"Car": v(write)}


@pytest.mark.parametrize("policy", [PINNED, WritePolicy(None, 1), WritePolicy(v("1.1.0"), 9)])
def test_a_write_version_that_somebody_set_or_took_away_stays(policy: WritePolicy) -> None:
    blind = Stored(policy=policy, unreadable=["n7"], nodes=[other("n2", Offer("Car", applied()))])

    assert blind.start(car("1.0.0", "1.1.0", write="0.0.0")).policies == {}


def test_a_first_write_version_needs_a_node_that_can_store_it() -> None:
    with pytest.raises(errors.WriteVersionError, match=r"2\.0\.0 \(step\) has no down") as caught:
        Stored().start(car("1.0.0", "2.0.0", down=False, write="1.0.0"))
    assert caught.value.nodes == ()


def test_a_first_write_version_needs_every_node_of_the_type() -> None:
    (able,) = offers_of({"Car": car("1.0.0", "1.1.0")})
    low = Offer("Car", applied("0.9.0"))
    far = Offer("Car", applied("1.0.0", "3.0.0"))
    stored = Stored(
        nodes=[
            other("n2", able), other("n3", low), other("n4", far, is_alive=False), other("n5", Offer("Bus", applied())),
        ],
        unreadable=["n6"],
    )  # fmt: skip

    with pytest.raises(errors.WriteVersionError) as caught:
        stored.start(car("1.0.0", "1.1.0", write="1.0.0"))
    assert caught.value.nodes == ("n3", "n4", "n6")
    assert str(caught.value) == (
        "Car can't get its first write version, write_version='1.0.0': node pod n3 (n3): it supports 0.9.0 only; node "
        "pod n4 (n4): it supports 3.0.0, more than one major version above; node n6: what it registered can't be read. "
        "Replace or stop these nodes first, or leave write_version= out."
    )
    Stored(nodes=[other("n2", able), other("n5", Offer("Bus", applied()))]).start(car("1.0.0", write="1.0.0"))


def test_each_type_is_asked_for_by_itself_and_the_first_refusal_stands() -> None:
    suite = Suite("fleet")
    types = {name: suite.actor_type(name) for name in ("Van", "Bus")}
    types["Bus"].migration("1.0.0")(lambda state, context: None)
    ruling = starting(NodeRecord("n1", "pod", None, 3.0, offers_of(types)), types, NOW)

    facts = Stored().facts
    assert next(ruling) == AskType("Bus")
    assert ruling.send(facts) == AskType("Van")
    with pytest.raises(StopIteration) as end:
        ruling.send(facts)
    assert [(name, release.applied) for name, release in end.value.value.releases] == [
        ("Bus", applied("1.0.0")),
        ("Van", applied()),
    ]
