"""Gates and changes on stores: what they say of real nodes and stored actors, and what is changed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from semver import Version

from lazymig import ActorKey, Node, open_store, rollout
from lazymig._records import NodeRecord
from lazymig.errors import (
    DefinitionError,
    InvalidKeyError,
    InvalidVersionError,
    StoreClosedError,
    StoreUnavailableError,
)
from lazymig.testing import Fault, FaultyStore
from lazymig.testing.releases import release
from suites import vehicles
from tests.fleets import SILENT, execute, join, put
from tests.gate_cases import MINOR, NEW, OLD, Case
from tests.roll_back_cases import ALL_CASES
from tests.worlds import TYPE, An, World, node
from tests.worlds import ask as ask_by_hand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from lazymig.rollout import Gate
    from lazymig.store import Store

GATES: dict[str, Callable[..., Awaitable[Gate]]] = {
    "pin": rollout.gate_pin,
    "flip": rollout.gate_flip,
    "unpin": rollout.gate_unpin,
    "retire": rollout.gate_retire,
    "roll_back": rollout.gate_roll_back,
}
CHANGES: dict[str, Callable[..., Awaitable[Gate]]] = {
    "pin": rollout.pin,
    "flip": rollout.flip,
    "unpin": rollout.unpin,
}
PLACED = [case for case in ALL_CASES if not (case.broken.unreadable or case.broken.releases or case.mended.releases)]
"""The cases whose fleets can be put into a store by hand."""


def codes(gate: Gate) -> list[str]:
    return [reason.code for reason in gate.reasons]


def number(text: str) -> Version:
    return Version.parse(text)


async def place(store: Store, world: World) -> None:
    """Put a fleet into a store."""
    epoch = 0
    if world.written is not None:
        assert (await rollout.pin(store, TYPE, world.written)).is_changed
        epoch = 1
    for count, actor in enumerate(world.actors, 1):
        await put(store, f"car-{count}", actor, epoch)
    for one in world.nodes:
        lease = 60.0 if one.is_alive else SILENT
        await store.register(NodeRecord(one.node_id, one.label, one.build, lease, one.offers))


@pytest.mark.parametrize("case", PLACED, ids=[f"{case.question}-{case.code}-{n}" for n, case in enumerate(PLACED)])
async def test_a_gate_says_on_a_store_what_it_says_by_hand(store: Store, case: Case) -> None:
    await place(store, case.broken)
    version = () if case.version is None else (case.version,)
    gate = await GATES[case.question](store, TYPE, *version)
    (reason,) = gate.reasons
    assert (reason.code, reason.nodes, reason.count, len(reason.actors)) == (
        case.code, case.nodes, case.total, case.total,
    )  # fmt: skip
    assert case.says in reason.text
    if case.question in CHANGES:
        before = await rollout.status(store, TYPE)
        assert await CHANGES[case.question](store, TYPE, *version) == gate
        after = await rollout.status(store, TYPE)
        assert (after.write_version, after.epoch) == (before.write_version, before.epoch)


SETS = [OLD, MINOR, NEW, "1.0.0 2.0.0", "1.0.0 1.0.1 1.1.0", "<=1.1.0", "<=1.1.0 2.0.0", "3.0.0"]


def draw(seed: int) -> World:
    """Draw a fleet."""
    random = Random(seed)

    def some(*also: str | None) -> Any:
        return random.choice([*SETS, *also])

    def actor() -> An:
        stored = some(None)
        if stored is None:
            return An()
        entries = tuple(some() for _ in range(random.randrange(3)))
        converting = random.choice(["0.0.0", "0.0.0", "2.0.0"]) if entries else "0.0.0"
        return An(stored, random.choice([None, OLD, MINOR]), some(None, None, None), entries, converting)

    return World(
        nodes=tuple(node(f"n{n}", some(), alive=random.random() < 0.8) for n in range(random.randrange(4))),
        actors=(An(MINOR), *(actor() for _ in range(random.randrange(1, 10)))),
        written=random.choice([None, None, "1.0.0", "1.1.0", "2.0.0"]),
    )


@pytest.mark.parametrize("seed", range(12))
async def test_gates_count_on_a_store_what_is_counted_by_hand(store: Store, seed: int) -> None:
    world = draw(seed)
    await place(store, world)
    for question, gate in GATES.items():
        for version in ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "3.0.0"][: 1 if question == "unpin" else None]:
            given = None if question == "unpin" else version
            assert await gate(store, TYPE, *([] if given is None else [given])) == ask_by_hand(world, question, given)


# --- real nodes ------------------------------------------------------------------------------------------------------


async def test_real_nodes_of_two_releases_are_led_through_a_deploy(store: Store) -> None:
    old_suite = release(vehicles.suite, "1.1.0")
    async with Node(store, [old_suite], label="old", build="1") as old:
        await old.actor(old_suite.actor_types[TYPE], "car-1").accelerate(1.0)
        assert (await rollout.pin(store, vehicles.vehicle, "1.1.0")).is_changed
        async with Node(store, [vehicles.suite], label="new", build="2"):
            found = await rollout.status(store, TYPE)
            assert (found.phase, found.write_version, found.target) == (1, number("1.1.0"), number("2.0.0"))
            assert [(str(one.version), [node.label for node in one.nodes]) for one in found.releases] == [
                ("1.1.0", ["old"]), ("2.0.0", ["new"]),
            ]  # fmt: skip
            assert found.next.command == f"lazymig nodes drain {old.node_id}"
            assert codes(await rollout.flip(store, TYPE, "2.0.0")) == ["not_supported"]
            assert codes(await rollout.unpin(store, TYPE)) == ["cannot_read"]
            assert (await rollout.gate_unpin(store, TYPE)).reasons[0].nodes == (old.node_id,)
            await old.__aexit__(None, None, None)
            found = await rollout.status(store, TYPE)
            assert (found.phase, found.next.command) == (2, "lazymig rollout flip Vehicle 2.0.0")
            assert (await rollout.flip(store, TYPE, "2.0.0")).is_changed
            found = await rollout.status(store, TYPE)
            assert (found.phase, found.epoch) == (3, 2)
            assert codes(await rollout.gate_retire(store, TYPE, "2.0.0")) == ["actors_lack"]
            await put(store, "car-1", An(NEW), epoch=2)
            assert (await rollout.gate_retire(store, TYPE, "2.0.0")).allowed
            found = await rollout.status(store, TYPE)
            assert (found.phase, found.next.command) == (4, "lazymig gate retire Vehicle 2.0.0")
            gate = await rollout.gate_roll_back(store, TYPE, "1.1.0")
            assert codes(gate) == ["nodes_store_newer", "write_version_above", "actors_newer"]
            assert gate.reasons[2].actors == ("car-1",)


async def test_a_pin_names_each_way_down_that_a_node_lacks(store: Store) -> None:
    async with Node(store, [vehicles.suite], label="new") as node:
        gate = await rollout.pin(store, TYPE, "1.0.0")
        assert [(reason.code, reason.nodes) for reason in gate.reasons] == [("cannot_store", (node.node_id,))]
        assert "1.1.0 (driver_is_owner)" in gate.reasons[0].text
        assert "2.0.0" not in gate.reasons[0].text
        assert (await rollout.status(store, TYPE)).epoch == 0
        assert (await rollout.pin(store, TYPE, "1.1.0")).allowed


async def test_a_silent_node_keeps_writes_from_being_flipped_until_it_is_forgotten(store: Store) -> None:
    await join(store, "new", NEW)
    silent = await join(store, "sleeper", NEW, lease=SILENT)
    gate = await rollout.flip(store, TYPE, "2.0.0")
    assert [(reason.code, reason.nodes) for reason in gate.reasons] == [("silent_nodes", (silent,))]
    assert (await rollout.status(store, TYPE)).next.command == f"lazymig nodes forget {silent}"
    assert await rollout.forget(store, silent)
    assert not await rollout.forget(store, silent)
    assert (await rollout.flip(store, TYPE, "2.0.0")).is_changed


async def test_a_type_is_pinned_before_anybody_registers_it(store: Store) -> None:
    gate = await rollout.pin(store, TYPE, "0.0.0")
    assert (gate.is_changed, len(gate.notes)) == (True, 1)
    found = await rollout.status(store, TYPE)
    assert (found.is_known, found.write_version, found.epoch) == (True, number("0.0.0"), 1)
    assert codes(await rollout.flip(store, TYPE, "1.0.0")) == ["unknown_version"]
    assert not (await rollout.status(store, "Another")).is_known


async def test_a_change_is_made_once_and_each_raises_the_epoch(store: Store) -> None:
    await join(store, "new", NEW)
    seen = []
    for change, version in (("pin", "1.1.0"), ("pin", "1.1.0"), ("flip", "2.0.0"), ("flip", "2.0.0"), ("unpin", None)):
        gate = await CHANGES[change](store, TYPE, *([] if version is None else [version]))
        assert gate.allowed
        seen.append((gate.is_changed, (await rollout.status(store, TYPE)).epoch))
    assert seen == [(True, 1), (False, 1), (True, 2), (False, 2), (True, 3)]
    assert not (await rollout.unpin(store, TYPE)).is_changed
    assert not (await rollout.unpin(store, "Another")).is_changed


async def test_of_changes_at_the_same_time_each_sees_the_one_before(store: Store) -> None:
    await join(store, "new", NEW)
    gates = await asyncio.gather(*[rollout.flip(store, TYPE, "2.0.0") for _ in range(8)])
    assert sum(gate.is_changed for gate in gates) == 1
    assert all(gates)
    assert (await rollout.status(store, TYPE)).epoch == 1


async def test_types_have_write_versions_of_their_own(store: Store) -> None:
    await rollout.pin(store, TYPE, "1.0.0")
    await rollout.pin(store, "Lorry", Version(2, 0, 0))
    assert (await rollout.status(store, TYPE)).write_version == Version(1, 0, 0)
    assert (await rollout.status(store, "Lorry")).write_version == Version(2, 0, 0)


# --- what is no question ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [*GATES.values(), *CHANGES.values()])
async def test_what_is_no_question_is_an_error(store: Store, ask: Any) -> None:
    version = () if ask in {rollout.unpin, rollout.gate_unpin} else ("1.0.0",)
    for wrong in ("", "a\0b", 7, None, vehicles.Vehicle):
        with pytest.raises(InvalidKeyError, match="an actor type"):
            await ask(store, wrong, *version)
    with pytest.raises(DefinitionError, match="no open store"):
        await ask("sqlite:///x", TYPE, *version)
    if version:
        for wrong in ("1.0", "1.0.0-rc.1", 1, None):
            with pytest.raises(InvalidVersionError):
                await ask(store, TYPE, wrong)


async def test_of_a_node_id_too(store: Store) -> None:
    with pytest.raises(InvalidKeyError, match="a node id"):
        await rollout.forget(store, "")
    for wrong in ("", None):
        with pytest.raises(InvalidKeyError):
            await rollout.census(store, wrong)  # type: ignore[arg-type]  # None is wrong
        with pytest.raises(InvalidKeyError):
            await rollout.status(store, wrong)  # type: ignore[arg-type]  # likewise
    with pytest.raises(InvalidVersionError):
        rollout.stragglers(store, TYPE, below="x")


# --- a store that can't be asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_store_that_does_not_answer_is_a_no(store: Store, when: Any) -> None:
    await join(store, "new", NEW)
    away: Any = FaultyStore(store)
    away.arm(Fault(0, when, "error", times=99))
    for question, ask in GATES.items():
        gate = await ask(away, TYPE, *([] if question == "unpin" else ["1.1.0"]))
        assert codes(gate) == ["store_failed"]
        assert gate.reasons[0].text.startswith("the store could not be asked: planted: ")
        assert "unknown" not in gate.reasons[0].text
    gate = await rollout.pin(away, TYPE, "1.1.0")
    assert (gate.allowed, gate.is_changed) == (False, False)
    assert gate.reasons[0].text.endswith("is unknown: 'lazymig rollout status Vehicle' shows it.")
    assert ((await rollout.status(store, TYPE)).write_version is None) == (when == "before")
    repeated = await rollout.pin(store, TYPE, "1.1.0")
    assert (repeated.allowed, repeated.is_changed) == (True, when == "before")
    with pytest.raises(StoreUnavailableError):
        await rollout.status(away, TYPE)


async def test_a_closed_store_is_a_no(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/fleet.db") as store:
        pass
    assert codes(await rollout.gate_flip(store, TYPE, "1.0.0")) == ["store_failed"]
    assert codes(await rollout.flip(store, TYPE, "1.0.0")) == ["store_failed"]
    with pytest.raises(StoreClosedError):
        await rollout.census(store, TYPE)


async def test_a_lineage_that_cannot_be_read_is_a_no(store: Store, url: str) -> None:
    if url == "memory:":
        pytest.skip("the memory store keeps the objects themselves")
    await put(store, "car-1", An(OLD))
    await join(store, "new", NEW)
    await execute(url, "UPDATE {0}lineage SET applied = '{{'")
    async with open_store(url) as damaged:
        for question, ask in GATES.items():
            if question != "unpin":
                gate = await ask(damaged, TYPE, "1.1.0")
                assert codes(gate) == ["corrupt"]
                assert "can't be read: a set of versions, in the table release or lineage, is unreadable" in str(gate)
        gate = await rollout.flip(damaged, TYPE, "2.0.0")
        assert codes(gate) == ["corrupt"]
        assert "Nothing was changed." in gate.reasons[0].text


async def test_a_node_whose_row_cannot_be_read_is_a_no_until_it_is_forgotten(store: Store, url: str) -> None:
    if url == "memory:":
        pytest.skip("the memory store keeps the objects themselves")
    await join(store, "new", NEW)
    await execute(url, "UPDATE {0}node SET offers = 'x'")
    for question, version in (("pin", "1.0.0"), ("retire", "1.0.0"), ("flip", "1.0.0")):
        gate = await GATES[question](store, TYPE, version)
        assert gate.reasons[0].code == "unreadable_nodes"
        assert gate.reasons[0].nodes == ("NEW",)
    assert (await rollout.status(store, TYPE)).unreadable == ("NEW",)
    assert await rollout.forget(store, "NEW")
    assert (await rollout.pin(store, TYPE, "1.0.0")).allowed


# --- census ----------------------------------------------------------------------------------------------------------


async def test_a_census_counts_every_actor(store: Store) -> None:
    actors = [
        An(), An(), An(OLD), An(OLD, base=NEW), An(MINOR, entries=(OLD, OLD, MINOR)), An("1.1.0"), An("<=1.1.0"),
    ]  # fmt: skip
    for n, actor in enumerate(actors):
        await put(store, f"car-{n}", actor)
    found = await rollout.census(store, vehicles.vehicle)
    assert found.versions == {number("0.0.0"): 2, number("1.0.0"): 2, number("1.1.0"): 3}
    assert found.applied == {
        None: 2,
        (number("1.0.0"),): 2,
        (number("1.0.0"), number("1.1.0")): 1,
        (number("1.1.0"),): 2,
    }
    assert found.entries == {number("1.0.0"): 2, number("1.1.0"): 1}
    assert (found.actors, found.without_info, found.bases, found.quarantined) == (7, 2, 1, 0)
    assert await rollout.census(store, "Nobody") == rollout.Census()


async def test_stragglers_are_named_in_order_at_once_or_page_by_page(store: Store, monkeypatch: Any) -> None:
    from lazymig.rollout import _census

    monkeypatch.setattr(_census, "PAGE_ACTORS", 3)
    await store.insert(TYPE, "vehicle", [(f"car-{n:02}", b"{}") for n in range(7)])
    await put(store, "car-0a", An(OLD))
    await put(store, "car-0b", An(MINOR))
    behind = [*(f"car-{n:02}" for n in range(7)), "car-0a"]
    found = await rollout.stragglers(store, vehicles.vehicle, below="1.1.0")
    assert found == tuple(ActorKey(TYPE, actor_id) for actor_id in sorted(behind))
    assert [key async for key in rollout.stragglers(store, TYPE, below=Version(1, 1, 0))] == list(found)
    assert len(await rollout.stragglers(store, TYPE, below="1.0.0")) == 7
    assert len(await rollout.stragglers(store, TYPE, below="9.0.0")) == 9
    assert await rollout.stragglers(store, TYPE, below="0.0.0") == ()
    assert await rollout.stragglers(store, "Nobody", below="9.0.0") == ()


# --- what it costs ---------------------------------------------------------------------------------------------------


async def test_a_gate_that_need_not_count_makes_few_trips(store: Store, url: str) -> None:
    if url == "memory:":
        pytest.skip("the memory store makes none")
    await store.insert(TYPE, "vehicle", [(f"car-{n:04}", b"{}") for n in range(1_000)])
    await join(store, "new", NEW)
    counted: Any = store
    connection = counted._connection
    for question, version in (("pin", "1.1.0"), ("flip", "2.0.0"), ("unpin", None)):
        before = connection.trips
        assert await GATES[question](store, TYPE, *([] if version is None else [version]))
        assert connection.trips - before <= 3
