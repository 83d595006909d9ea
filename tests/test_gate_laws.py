"""What gates promise, whatever the fleet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazymig import _version
from tests.worlds import An, World, applied, ask, node, packed, put

VERSIONS = ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.1.0"]
SETS = st.lists(st.sampled_from(VERSIONS), unique=True).map(lambda found: " ".join(sorted(found)))
NODES = st.builds(
    lambda label, registered, alive: node(label, registered, alive=alive), st.sampled_from("abcd"), SETS, st.booleans()
)
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


@given(world=WORLDS, version=st.sampled_from(VERSIONS))
def test_whatever_was_changed_every_node_can_read_what_any_of_them_stores(world: World, version: str) -> None:
    for question in ("pin", "flip", "unpin"):
        ruled, _ = put(world, question, None if question == "unpin" else version, change=True)
        for written in ruled.policies.values():
            offers = [one.offers[0] for one in world.nodes]
            stored = [offer.registered.highest if written is None else written for offer in offers]
            assert all(offer.can_read(at) for offer in offers for at in stored)


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
