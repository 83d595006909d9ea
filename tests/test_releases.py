"""What is asked when a node starts, by hand: of the sets of versions that were seen, and of their checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lazymig import Suite, _version, errors
from lazymig._calls import offers_of
from lazymig._records import AppliedSet, NodeRecord
from lazymig._releases import Changed, starting
from lazymig._rulings import AskEntries, AskSeen, AskType, Release, Ruled
from tests.facts import NOW, Stored, applied, car, seen, v

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    assert stored.asked == [AskSeen("Car")]


def test_the_same_versions_above_another_baseline_are_another_set() -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={None: ["a"]})

    with pytest.raises(errors.MissingMigrationError):
        stored.start(car("1.1.0", baseline="1.0.0"))


@pytest.mark.parametrize("versions", [("1.0.0",), ("1.0.0", "1.1.0", "2.0.0"), ("1.0.0", "1.1.0", "1.1.1")])
def test_a_new_release_that_goes_on_or_ends_sooner_starts(versions: Sequence[str]) -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"], None: ["b"]})

    stored.start(car(*versions))
    assert stored.asked == [AskSeen("Car")]


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
    assert stored.asked == [AskSeen("Car"), AskType("Car")]


def test_a_release_whose_highest_is_the_hotfix_is_as_late() -> None:
    with pytest.raises(errors.LateMigrationError, match="1 stored actor is past"):
        Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"]}).start(car("1.0.0", "1.0.1"))


def test_a_version_that_some_set_has_is_not_new() -> None:
    stored = Stored(seen("1.0.0", "1.0.1"), seen("1.0.0", "1.0.1", "1.1.0"), seen("2.0.0", floor="1.1.0"))

    stored.start(car("1.0.0", "1.0.1", "1.1.0", "2.0.0"))  # all but 2.0.0 say nothing of late=


def test_a_version_below_a_seen_baseline_is_not_new() -> None:
    Stored(seen("1.1.0", floor="1.0.0")).start(car("0.9.0", "1.1.0"))


def test_a_hotfix_below_a_retired_baseline_is_new_where_older_sets_lack_it() -> None:
    stored = Stored(seen("1.0.0", "1.1.0"), seen("2.0.0", floor="1.1.0"), actors={OLD: ["a"]})
    hotfix = ("1.0.0", "1.0.1", "1.1.0", "2.0.0")

    with pytest.raises(errors.LateMigrationError, match=r"Car has 1\.0\.1 new.* 1 stored actor is past"):
        stored.start(car(*hotfix))
    stored.start(car(*hotfix, late=["1.0.1"]))
    Stored(seen(*hotfix), *stored.facts.releases, actors=stored.actors).start(car(*hotfix))  # it was seen


@pytest.mark.parametrize("kind", ["actors", "entries"])
def test_a_hotfix_below_a_seen_baseline_is_new_where_what_is_stored_lacks_it(kind: str) -> None:
    stored = Stored(seen("2.0.0", floor="1.1.0"), **{kind: {OLD: ["a"]}})  # type: ignore[arg-type]  # one of two

    with pytest.raises(errors.LateMigrationError, match=r"Car has 1\.0\.1 new"):
        stored.start(car("1.0.1", "2.0.0", baseline="1.0.0"))


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
    assert stored.asked[2:] == [AskEntries("Car", frozenset({applied("1.0.0"), applied()}), v("1.1.0"))]

    stored = Stored(seen("1.0.0", "1.1.0"), actors={OLD: ["a"]}, entries={applied("1.0.0"): []}, oldest=v("1.0.0"))
    stored.start(car("2.0.0", baseline="1.1.0"))  # the oldest is only a bound
    assert len(stored.asked) == 3


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


def test_each_type_is_asked_for_by_itself_and_the_first_refusal_stands() -> None:
    suite = Suite("fleet")
    types = {name: suite.actor_type(name) for name in ("Van", "Bus")}
    types["Bus"].migration("1.0.0")(lambda state, context: None)
    ruling = starting(NodeRecord("n1", "pod", None, 3.0, offers_of(types)), types, NOW)

    facts = Stored().answer(AskSeen("Bus"))
    assert next(ruling) == AskSeen("Bus")
    assert ruling.send(facts) == AskSeen("Van")
    with pytest.raises(StopIteration) as end:
        ruling.send(facts)
    assert [(name, release.applied) for name, release in end.value.value.releases] == [
        ("Bus", applied("1.0.0")),
        ("Van", applied()),
    ]
