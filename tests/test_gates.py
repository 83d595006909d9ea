"""What gates say, and what is decided if they say yes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lazymig._rulings import AskActors, AskConverting, AskEntries, AskFailing, AskType
from lazymig.rollout import CODES
from tests.gate_cases import ALL_NEW, HOTFIX, MINOR, NEW, OLD, Case
from tests.roll_back_cases import ALL_CASES
from tests.worlds import TYPE, An, World, applied, ask, node, packed, put


@pytest.mark.parametrize(
    "case", ALL_CASES, ids=[f"{case.question}-{case.code}-{n}" for n, case in enumerate(ALL_CASES)]
)
def test_a_gate_says_no_for_one_reason_and_yes_once_it_is_mended(case: Case) -> None:
    gate = ask(case.broken, case.question, case.version)
    (reason,) = gate.reasons
    assert (gate.allowed, bool(gate)) == (False, False)
    assert (reason.code, reason.nodes, reason.count, len(reason.actors)) == (
        case.code,
        case.nodes,
        case.total,
        case.total,
    )
    assert case.says in reason.text
    assert reason.text.endswith(".")
    mended = ask(case.mended, case.question, case.version)
    assert mended.reasons == ()
    assert mended.allowed
    assert mended
    assert put(case.broken, case.question, case.version, change=True)[0].policies == {}


def test_every_code_has_a_case_but_those_of_the_store_itself() -> None:
    assert {case.code for case in ALL_CASES} == set(CODES) - {"store_failed", "corrupt"}


def test_all_reasons_are_given_at_once() -> None:
    world = World((node("a", MINOR, alive=False), node("b", NEW)), written="3.0.0", unreadable=("X",))
    assert [reason.code for reason in ask(world, "flip", "2.0.1").reasons] == [
        "unreadable_nodes", "unknown_version", "below_write_version", "not_supported", "not_supported", "silent_nodes",
    ]  # fmt: skip


def test_many_nodes_and_actors_are_counted_and_the_first_ones_named() -> None:
    nodes = tuple(node(f"n{number}", OLD) for number in range(1, 8))
    (reason,) = ask(World((*nodes, node("z", NEW))), "flip", "2.0.0").reasons
    assert len(reason.nodes) == 7
    assert "7 nodes, n1 (N1), n2 (N2), n3 (N3), n4 (N4), n5 (N5) and 2 more: each supports 1.0.0 only. " in reason.text
    (reason,) = ask(World(ALL_NEW, (An(OLD),) * 1_234), "retire", "2.0.0").reasons
    assert (reason.count, reason.actors) == (1_234, ("car-1", "car-10", "car-100", "car-1000", "car-1001"))
    assert "1,234 actors, 'car-1', 'car-10', 'car-100', 'car-1000', 'car-1001' and 1,229 more. " in reason.text


# --- what a change decides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "version", "world"),
    [
        ("pin", "1.0.0", World(ALL_NEW)),
        ("pin", "1.0.0", World(ALL_NEW, written="2.0.0")),
        ("pin", "0.0.0", World((node("a", OLD),), written="1.0.0")),
        ("pin", "7.0.0", World()),
        ("flip", "2.0.0", World(ALL_NEW, written="1.0.0")),
        ("flip", "2.0.0", World(ALL_NEW)),
        ("flip", "0.0.0", World((node("a", OLD),))),
        ("flip", "2.0.0", World(releases=(NEW,))),
        ("unpin", None, World(ALL_NEW, written="1.0.0")),
        ("unpin", None, World(written="1.0.0")),
        ("unpin", None, World((node("a", OLD), node("b", MINOR)), written="1.0.0")),
    ],
)
def test_a_change_that_is_allowed_is_decided_once(question: str, version: str | None, world: World) -> None:
    assert put(world, question, version)[0].policies == {}
    ruled, _ = put(world, question, version, change=True)
    assert ruled.policies == {TYPE: None if version is None else packed(version)}
    assert ruled.answer.is_changed
    after = replace(world, written=version, epoch=world.epoch + 1)
    repeated, asked = put(after, question, version, change=True)
    assert (repeated.policies, repeated.answer.allowed, repeated.answer.is_changed) == ({}, True, False)
    assert asked == [AskType(TYPE)]
    assert len(repeated.answer.notes) == 1


def test_what_is_so_already_is_noted() -> None:
    assert ask(World(written="1.0.0"), "pin", "1.0.0").notes == ("Vehicle is written at 1.0.0 already.",)
    assert ask(World(), "unpin").notes == ("Vehicle has no write version: each node stores what it supports.",)


def test_a_late_version_counts_when_it_is_the_one_flipped_to() -> None:
    world = World((node("a", "1.0.0 1.0.1 1.1.0"),), (An(MINOR),))
    assert [reason.code for reason in ask(world, "flip", "1.0.1").reasons] == ["late_without_consent"]
    assert ask(world, "flip", "1.0.0")


def test_a_write_version_of_the_next_major_is_one_that_the_release_cannot_read() -> None:
    gate = ask(World(ALL_NEW, written="2.0.0", releases=(OLD,)), "roll_back", "1.0.0")
    assert [reason.code for reason in gate.reasons] == ["nodes_store_newer", "write_version_above"]


def test_of_releases_that_end_at_a_version_all_must_be_fine() -> None:
    releases = ("<=0.5.0 1.1.0", "<=1.0.0 1.1.0")
    for seen in (releases, releases[::-1]):
        gate = ask(World(actors=(An("0.6.0"), An(OLD)), releases=seen), "roll_back", "1.1.0")
        assert [(reason.code, reason.actors) for reason in gate.reasons] == [("actors_too_old", ("car-1",))]


def test_an_actor_that_is_newer_itself_is_not_counted_for_its_base_too() -> None:
    world = World(actors=(An(NEW, base="1.0.0 1.1.0 2.0.0 3.0.0"),), releases=(OLD, MINOR))
    assert [reason.code for reason in ask(world, "roll_back", "1.0.0").reasons] == ["actors_newer"]


def test_what_is_newer_by_a_major_is_not_counted_as_late_too() -> None:
    world = World((node("a", HOTFIX),), (An(NEW, base=NEW, entries=(NEW,)),), written="1.1.0")
    assert [reason.code for reason in ask(world, "roll_back", "1.1.0").reasons] == ["actors_newer", "entries_newer"]


def test_all_releases_that_end_at_a_version_must_say_that_they_may_be_late() -> None:
    world = World((node("a", HOTFIX, late="1.0.1"),), (An(MINOR),))
    assert ask(world, "roll_back", "1.1.0")
    (reason,) = ask(replace(world, releases=("<=1.0.0 1.0.1 1.1.0",)), "roll_back", "1.1.0").reasons
    assert (reason.code, reason.actors) == ("late_without_consent", ("car-1",))


def test_a_flip_asks_for_late_versions_up_to_its_own() -> None:
    world = World((node("a", MINOR), node("b", HOTFIX)), (An(HOTFIX, entries=(MINOR,)),))
    assert ask(world, "flip", "1.0.0")
    assert [reason.nodes for reason in ask(world, "flip", "1.0.1").reasons if reason.nodes] == [("A",)]


def test_a_pin_notes_that_entries_have_no_base_and_that_nobody_has_it_yet() -> None:
    assert ask(World(ALL_NEW, (An(NEW),)), "pin", "1.0.0").notes == ()
    (note,) = ask(World(ALL_NEW, (An(NEW, entries=(NEW,)),)), "pin", "1.0.0").notes
    assert "they have no base" in note
    (note,) = ask(World(ALL_NEW), "pin", "1.0.5").notes
    assert note.startswith("no release of Vehicle has, or had, 1.0.5. Known are: 1.0.0, 1.1.0, 2.0.0.")
    assert ask(World((node("a", OLD),)), "pin", "0.0.0").notes == ()
    (note,) = ask(World(), "pin", "1.0.0").notes
    assert note == "no node has registered Vehicle yet, and none of it is stored."


def test_a_gate_has_a_title() -> None:
    titles = [ask(World(), question, "1.0.0").title for question in ("pin", "flip", "retire", "roll_back")]
    assert titles == [
        "pin Vehicle to 1.0.0",
        "flip Vehicle to 1.0.0",
        "retire 1.0.0 of Vehicle",
        "roll back Vehicle to 1.0.0",
    ]
    assert ask(World(), "unpin").title == "unpin Vehicle"


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_what_the_facts_say_is_not_counted() -> None:
    world = World(ALL_NEW, (An(NEW, entries=(NEW,)),) * 3, written="2.0.0", releases=(OLD, MINOR, NEW))
    for question, version in (("pin", "1.0.0"), ("unpin", None), ("flip", "2.0.0"), ("retire", "2.0.0")):
        assert put(world, question, version)[1] == [AskType(TYPE)]
    assert put(world, "roll_back", "2.0.0")[1] == [AskType(TYPE), AskConverting(TYPE, packed("3.0.0"))]


def test_entries_are_looked_for_only_where_an_actor_may_have_old_ones() -> None:
    world = World(ALL_NEW, (An(NEW, entries=(NEW, OLD)), An(NEW, entries=("1.0.0 2.0.0",))))
    assert put(world, "retire", "2.0.0")[1][1] == AskEntries(TYPE, frozenset({applied(OLD)}), packed("2.0.0"))
    assert put(world, "retire", "1.1.0")[1][1] == AskEntries(
        TYPE, frozenset({applied(OLD), applied("1.0.0 2.0.0")}), None
    )
    world = World(ALL_NEW, (An(OLD), An(NEW, entries=(NEW,))))
    old = frozenset({applied(OLD)})
    assert put(world, "retire", "2.0.0")[1] == [AskType(TYPE), AskActors(TYPE, old), AskFailing(TYPE, old)]
