"""What gates promise, whatever the fleet."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lazymig import _version
from tests.worlds import An, World, applied, ask, node, packed, put

VERSIONS = ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.1.0"]


def in_words(versions: list[str], baseline: str | None) -> str:
    above = [version for version in sorted(versions) if baseline is None or version > baseline]
    return " ".join(above if baseline is None else [f"<={baseline}", *above])


SETS = st.builds(in_words, st.lists(st.sampled_from(VERSIONS), unique=True), st.none() | st.sampled_from(VERSIONS))
LATE = st.lists(st.sampled_from(VERSIONS), unique=True).map(" ".join)
NODES = st.builds(
    lambda label, registered, alive, late: node(label, registered, alive=alive, late=late),
    st.sampled_from("abcd"), SETS, st.booleans(), LATE,
)  # fmt: skip
ALIVE = st.builds(lambda label, registered, late: node(label, registered, late=late), st.sampled_from("ab"), SETS, LATE)
WRITTEN = st.none() | st.sampled_from(VERSIONS)
WORLDS = st.builds(
    World,
    nodes=st.lists(NODES, max_size=3, unique_by=lambda one: one.node_id).map(tuple),
    actors=st.lists(st.builds(An, st.none() | SETS, st.none() | SETS, st.none() | SETS, st.lists(SETS).map(tuple))).map(
        tuple
    ),
    written=WRITTEN,
    releases=st.lists(SETS, max_size=3, unique=True).map(tuple),
)


FLEETS = st.builds(
    World,
    nodes=st.lists(ALIVE, min_size=2, max_size=2, unique_by=lambda one: one.node_id).map(tuple),
    actors=st.lists(st.builds(An, SETS, entries=st.lists(SETS, max_size=1).map(tuple)), max_size=1).map(tuple),
    written=WRITTEN,
)
"""Those whose gates often say yes."""


@given(world=WORLDS | FLEETS, version=st.sampled_from(VERSIONS))
@settings(max_examples=300)
def test_whatever_was_changed_every_node_can_read_what_any_of_them_stores(world: World, version: str) -> None:
    for question in ("pin", "flip", "unpin"):
        ruled, _ = put(world, question, None if question == "unpin" else version, change=True)
        for written in ruled.policies.values():
            offers = [one.offers[0] for one in world.nodes]
            stored = [offer.registered.highest if written is None else written for offer in offers]
            assert all(offer.registered.floor <= at and offer.can_read(at) for offer in offers for at in stored)


@given(world=FLEETS, version=st.sampled_from(VERSIONS))
@settings(max_examples=300)
def test_once_writes_are_flipped_no_node_stores_what_another_may_not_run_a_version_on(
    world: World, version: str
) -> None:
    for question, at in (("flip", version), ("unpin", None)):
        if world.written == at or not ask(world, question, at):
            continue
        offers = [one.offers[0] for one in world.nodes]
        stored = [offer.registered for offer in offers]
        if at is not None:
            stored += [found for actor in world.actors for found in (actor.set, *map(applied, actor.entries)) if found]
        for offer in offers:
            for number in set(offer.registered.packed).difference(offer.late):
                if at is None or number <= packed(at):
                    assert not any(number < found.highest and not found.has(number) for found in stored)


@given(world=FLEETS, version=st.sampled_from(VERSIONS))
def test_a_release_that_may_come_back_runs_nothing_late_without_consent(world: World, version: str) -> None:
    if not ask(world, "roll_back", version):
        return
    offers = {one.offers[0].registered: one.offers[0] for one in world.nodes}
    stored = [
        *offers,
        *(found for actor in world.actors for found in (actor.set, *map(applied, actor.entries)) if found),
    ]
    for release in {*offers, *map(applied, world.releases)}:
        if release.highest == packed(version):
            strict = set(release.packed).difference(offers[release].late if release in offers else ())
            assert not any(n < found.highest and not found.has(n) for n in strict for found in stored)


@given(world=WORLDS, version=st.sampled_from(VERSIONS))
def test_a_retired_version_is_in_all_that_is_stored(world: World, version: str) -> None:
    if not ask(world, "retire", version):
        return
    for actor in world.actors:
        sets = [actor.set, *map(applied, actor.entries), *([] if actor.base is None else [applied(actor.base)])]
        assert all(found is not None and found.has(packed(version)) for found in sets)
    for one in world.nodes:
        stored = one.offers[0].registered
        assert stored.has(packed(version))
    assert world.written is None or _version.parse(world.written) >= _version.parse(version)


@given(world=WORLDS, version=st.sampled_from(VERSIONS))
def test_a_release_that_may_come_back_can_read_all_that_is_stored(world: World, version: str) -> None:
    if not ask(world, "roll_back", version):
        return
    below = _version.next_major(packed(version))
    for actor in world.actors:
        sets = [actor.set, *map(applied, actor.entries)]
        assert all(found is None or found.highest < below for found in sets)


@given(world=WORLDS, version=st.sampled_from(VERSIONS))
def test_a_gate_says_what_its_change_does(world: World, version: str) -> None:
    for question in ("pin", "flip", "unpin"):
        at = None if question == "unpin" else version
        gate, changed = ask(world, question, at), put(world, question, at, change=True)[0].answer
        assert (changed.allowed, changed.reasons) == (gate.allowed, gate.reasons)
