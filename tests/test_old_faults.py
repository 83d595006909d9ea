"""Faults of the systems lazymig learned from, each as a test: they don't recur, on any store.

The numbers are those of the analysis they come from: W of Darlean's weaknesses, M of the model checker's traces, F of
the field survey. Fences that never repeat are in test_heartbeat.py, two processes of two releases in
test_stopped_processes.py, unreadable versions in a file in test_sqlite_corruption.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, MigrationInfo, Node, State, Suite, action, rollout
from lazymig._records import ActorKey, Commit, Fence, NodeRecord
from lazymig.errors import (
    CorruptStateError,
    DefinitionError,
    InvalidVersionError,
    LateMigrationError,
    LeaseLostError,
    MigrationFailedError,
    NewerStateError,
    NotLoadedError,
    StoreUnavailableError,
)
from lazymig.testing import Fault, FaultyStore, release
from suites.vehicles import vehicle

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig import ActorRecord
    from lazymig.store import Store

Step = tuple[str, "Callable[[Any, Any], Any]"]


pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines


class Careless(Actor):
    """Persists when it is let go, whatever happened: the models' examples do."""

    def __init__(self, activation: Activation) -> None:
        self.state: State[Any] = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"velocity": 0.0, "drivers": []})

    async def deactivate(self) -> None:
        await self.state.persist()

    @action
    async def accelerate(self, delta: float) -> float:
        self.state.value["velocity"] += delta
        velocity: float = self.state.value["velocity"]
        return velocity


def fleet(upto: str = "2.0.0") -> Suite:
    """Return the fleet's suite with the careless class, as the release ``upto``."""
    return release(_suite([(str(one.version), one.function) for one in vehicle.migrations]), upto)


def _suite(steps: list[Step], late: tuple[str, ...] = ()) -> Suite:
    suite = Suite("fleet")
    made = suite.actor_type("Vehicle", Careless, state="vehicle", context_factory=lambda activation: activation)
    for version, function in steps:
        made.migration(version, late=version in late)(function)
    return suite


def tagging(version: str, late: tuple[str, ...] = ()) -> Step:
    """Return a migration that notes its version in the state."""

    def tag(state: dict[str, Any], context: object) -> None:
        state.setdefault("ran", []).append(version)

    return version, tag


def serving(store: Store, suite: Suite) -> Node:
    """Return a node that lets go of every actor at once."""
    return Node(store, [suite], lease_seconds=1000.0, idle_seconds=0, hand_over_seconds=20.0)


async def bring_up(store: Store, suite: Suite, actor_id: str = "car") -> Any:
    async with serving(store, suite) as node, node.activate("Vehicle", actor_id) as activation:
        value = await activation.state().migrate_and_load(default={"velocity": 1.0})
        await activation.persist()
        return value


async def record_of(store: Store, actor_id: str = "car") -> ActorRecord:
    async with Node(store) as node:
        record = await node.inspect("Vehicle", actor_id)
        assert record is not None
        return record


def applied(record: ActorRecord) -> list[str]:
    return [] if record.info is None else [str(version) for version in record.info.applied]


async def insert(store: Store, value: bytes = b'{"velocity":36.0,"owner":"ann"}', *ids: str) -> None:
    await store.insert("Vehicle", "vehicle", [(actor_id, value) for actor_id in ids or ("car",)])


# --- refusals ------------------------------------------------------------------------------------------------------


async def test_w1_refusal_with_a_deactivate_that_persists_loses_nothing_of_400_actors(store: Store) -> None:
    ids = [f"car-{number}" for number in range(400)]
    await insert(store, b'{"velocity":36.0,"owner":"ann"}', *ids)
    async with serving(store, fleet("2.0.0")) as new:
        for actor_id in ids:
            assert await new.call("Vehicle", actor_id, "accelerate", 1.0) == 11.0
    async with Node(store, [fleet("1.1.0")], hand_over_seconds=0, idle_seconds=0) as old:
        for _ in range(2):
            for actor_id in ids:
                with pytest.raises(NewerStateError):
                    await old.call("Vehicle", actor_id, "accelerate", 1.0)
    for actor_id in ids:
        record = await record_of(store, actor_id)
        assert record.states == {"vehicle": {"velocity": 11.0, "owner": "ann", "drivers": ["ann"]}}
        assert applied(record) == ["1.0.0", "1.1.0", "2.0.0"]


async def test_w1c_failing_store_with_a_deactivate_that_persists_loses_nothing(store: Store) -> None:
    await insert(store)
    for at in range(4):
        for when in ("before", "after"):
            faulty = FaultyStore(store)
            async with serving(faulty, fleet()) as node:
                faulty.arm(Fault(at, when, "error"))
                try:
                    await node.call("Vehicle", "car", "accelerate", 0.0)
                except StoreUnavailableError:
                    assert faulty.has_struck
                faulty.arm(None)
            assert (await record_of(store)).states["vehicle"]["owner"] == "ann"
    assert (await record_of(store)).states == {"vehicle": {"velocity": 10.0, "owner": "ann", "drivers": ["ann"]}}


async def test_w2_failing_migration_with_a_deactivate_that_persists_stores_nothing(store: Store) -> None:
    def fail(state: dict[str, Any], context: object) -> None:
        state["half"] = True
        raise RuntimeError("broken")

    await insert(store)
    before = await record_of(store)
    async with serving(store, _suite([tagging("1.0.0"), tagging("1.1.0"), ("2.0.0", fail)])) as node:
        for _ in range(3):
            with pytest.raises(MigrationFailedError) as failed:
                await node.call("Vehicle", "car", "accelerate", 1.0)
            assert (str(failed.value.version), failed.value.name) == ("2.0.0", "fail")
            assert isinstance(failed.value.__cause__, RuntimeError)
            await rollout.retry(store, "Vehicle")
    record = await record_of(store)
    assert replace(record, quarantine=None) == before
    value = await bring_up(store, _suite([tagging("1.0.0"), tagging("1.1.0"), tagging("2.0.0")]))
    assert value["ran"] == ["1.0.0", "1.1.0", "2.0.0"]


async def test_w4_refused_state_is_refused_at_every_load(store: Store) -> None:
    await insert(store)
    await bring_up(store, fleet("2.0.0"))
    before = await record_of(store)
    async with serving(store, fleet("1.1.0")) as node, node.activate("Vehicle", "car") as activation:
        state = activation.state()
        for _ in range(3):
            for load in (state.load, state.migrate_and_load, activation.state("other").load):
                with pytest.raises(NewerStateError):
                    await load()
            for use in (state.persist, state.clear, activation.persist):
                with pytest.raises(NotLoadedError):
                    await use()
            with pytest.raises(NotLoadedError):
                _ = state.value
            with pytest.raises(NotLoadedError):
                state.value = {"velocity": 0.0}
    assert await record_of(store) == before


# --- stamps --------------------------------------------------------------------------------------------------------


async def test_w3_load_and_persist_never_stamp_what_was_not_migrated(store: Store) -> None:
    await insert(store)
    async with serving(store, fleet()) as node:
        async with node.activate("Vehicle", "car") as activation:
            state = activation.state()
            await state.load()
            state.value["note"] = 1
            await state.persist()
            assert activation.info is None
        record = await record_of(store)
        assert (record.info, record.states["vehicle"]["velocity"]) == (None, 36.0)
    assert (await bring_up(store, fleet()))["velocity"] == 10.0


async def test_w3b_older_minor_that_replaces_the_value_does_not_move_the_stamp_back(store: Store) -> None:
    three = [tagging("1.0.0"), tagging("1.1.0"), tagging("1.2.0")]
    await insert(store)
    await bring_up(store, _suite(three))
    async with serving(store, _suite(three[:1])) as node, node.activate("Vehicle", "car") as activation:
        state = activation.state()
        await state.migrate_and_load()
        state.value = {"fresh": True}
        await state.persist()
    record = await record_of(store)
    assert applied(record) == ["1.0.0", "1.1.0", "1.2.0"]
    assert record.info is not None
    assert str(record.info.written_by) == "1.0.0"
    assert await bring_up(store, _suite(three)) == {"fresh": True}


async def test_w7_and_w8_states_and_stamp_are_stored_together_or_not_at_all(store: Store) -> None:
    async def split(state: dict[str, Any], context: Activation) -> None:
        log = await context.state("log").migrate_and_load(default=[])
        assert log is not None
        log.append(state.pop("owner"))
        await context.state("log").persist()

    suite = _suite([tagging("1.0.0"), ("1.1.0", split), tagging("2.0.0")])
    await insert(store)
    before = await record_of(store)
    faulty = FaultyStore(store)
    async with serving(faulty, suite) as node:
        async with node.activate("Vehicle", "car") as activation:
            faulty.arm(Fault(0, "before", "error"))
            with pytest.raises(StoreUnavailableError):
                await activation.state().migrate_and_load()
            assert faulty.calls == ["commit"]
        assert await record_of(store) == before
        async with node.activate("Vehicle", "car") as activation:
            faulty.arm(None)
            await activation.state().migrate_and_load()
            assert faulty.calls == ["commit"]
            assert activation.state("log").info == activation.state().info
    record = await record_of(store)
    assert record.states == {"vehicle": {"velocity": 36.0, "ran": ["1.0.0", "2.0.0"]}, "log": ["ann"]}
    assert applied(record) == ["1.0.0", "1.1.0", "2.0.0"]
    async with serving(store, fleet("1.1.0")) as node, node.activate("Vehicle", "car") as activation:
        with pytest.raises(NewerStateError):
            await activation.state("log").load()


async def test_w15_stale_write_is_an_error(store: Store) -> None:
    await store.register(NodeRecord("node", "node", None, 1000.0))
    key = ActorKey("Vehicle", "car")
    await store.claim(key, Fence("node", 1))
    assert await store.commit(Commit(key, Fence("node", 1), 0, None, {"vehicle": b"1"})) == 1
    await store.claim(key, Fence("node", 2))
    for fence, revision in ((Fence("node", 1), 1), (Fence("node", 2), 0), (Fence("node", 3), 1)):
        with pytest.raises(LeaseLostError):
            await store.commit(Commit(key, fence, revision, None, {"vehicle": b"2"}))
    found = await store.read(key)
    assert found is not None
    assert found.states == {"vehicle": b"1"}


# --- versions ------------------------------------------------------------------------------------------------------

NO_VERSIONS = ["2.0", "v3.0.0", "1", "1.0.0.0", "01.0.0", "1.0.0-rc.1", "1.0.0+build", "", " 1.0.0", "1.0.1000000"]


@pytest.mark.parametrize("version", NO_VERSIONS)
async def test_w6_what_is_no_version_is_refused_at_registration_and_when_found(version: str) -> None:
    suite = Suite("fleet")
    made = suite.actor_type("Vehicle")
    with pytest.raises(InvalidVersionError):
        made.migration(version)(lambda state, context: state)
    with pytest.raises(InvalidVersionError):
        suite.actor_type("Other", baseline=version)
    info = {"version": version, "applied": [version], "written_by": "1.0.0", "migrated_at": None, "floor": None}
    with pytest.raises(CorruptStateError):
        MigrationInfo.from_json(info)


async def test_w6_inferred_version_that_is_none_is_refused_and_nothing_is_stored(store: Store) -> None:
    suite = Suite("fleet")
    suite.actor_type("Vehicle", Careless, state="vehicle", infer_version=lambda value: value["version"])
    for actor_id, version in (("a", b'"2.0"'), ("b", b'"v3.0.0"'), ("c", b"null")):
        await insert(store, b'{"version":%s}' % version, actor_id)
        before = await record_of(store, actor_id)
        async with serving(store, suite) as node:
            for _ in range(2):
                with pytest.raises(CorruptStateError):
                    await node.call("Vehicle", actor_id, "accelerate", 1.0)
        assert await record_of(store, actor_id) == before


def test_w5_and_f3_order_in_the_source_is_checked() -> None:
    for versions in (["2.0.0", "1.0.0"], ["1.0.0", "1.0.0"], ["0.0.0"], ["1.0.1", "1.0.0"]):
        with pytest.raises(DefinitionError):
            _suite([tagging(version) for version in versions])


async def test_f2_late_version_is_never_skipped_in_silence_nor_run_twice(store: Store) -> None:
    await insert(store)
    await bring_up(store, _suite([tagging("1.0.0"), tagging("1.1.0")]))
    before = await record_of(store)
    steps = [tagging("1.0.0"), tagging("1.0.1"), tagging("1.1.0")]
    with pytest.raises(LateMigrationError, match="1 stored actor is past it"):
        await bring_up(store, _suite(steps))
    async with serving(store, _suite(steps, late=("1.0.1",))):
        pass  # from now on its set was seen
    async with serving(store, _suite(steps)) as node:
        for _ in range(2):
            with pytest.raises(LateMigrationError) as late:
                await node.call("Vehicle", "car", "accelerate", 1.0)
            assert [str(version) for version in late.value.late] == ["1.0.1"]
    assert await record_of(store) == before
    for _ in range(3):
        value = await bring_up(store, _suite(steps, late=("1.0.1",)))
        assert value["ran"] == ["1.0.0", "1.1.0", "1.0.1"]
    assert applied(await record_of(store)) == ["1.0.0", "1.0.1", "1.1.0"]


async def test_m4_late_flag_that_is_added_later_runs_nothing_twice(store: Store) -> None:
    steps = [tagging("1.0.0"), tagging("1.0.1"), tagging("1.1.0")]
    await insert(store)
    await bring_up(store, _suite(steps), "new")  # created by software that has them all
    await bring_up(store, _suite(steps), "car")
    for late in (("1.0.1",), (), ("1.0.0", "1.0.1", "1.1.0")):
        assert await bring_up(store, _suite(steps, late=late), "new") == {"velocity": 1.0}
        assert (await bring_up(store, _suite(steps, late=late)))["ran"] == ["1.0.0", "1.0.1", "1.1.0"]


# --- values --------------------------------------------------------------------------------------------------------


async def test_w10_defaults_share_nothing(store: Store) -> None:
    default: dict[str, Any] = {"velocity": 0.0, "drivers": [], "at": {"x": [1]}}
    async with serving(store, fleet()) as node:
        for actor_id in ("a", "b"):
            async with node.activate("Vehicle", actor_id) as activation:
                state = activation.state()
                value = await state.migrate_and_load(default)
                other = await activation.state("other").migrate_and_load(default)
                assert value == other == {"velocity": 0.0, "drivers": [], "at": {"x": [1]}}
                value["drivers"].append(actor_id)
                value["at"]["x"].clear()
                await activation.persist()
        assert default == {"velocity": 0.0, "drivers": [], "at": {"x": [1]}}
        stored = (await record_of(store, "b")).states
        assert stored["vehicle"] == {"velocity": 0.0, "drivers": ["b"], "at": {"x": []}}
        assert stored["other"] == default


async def test_async_migrations_are_awaited_in_order(store: Store) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def first(state: dict[str, Any], context: object) -> dict[str, Any]:
        await gates[0].wait()
        return state | {"ran": ["first"]}

    def second(state: dict[str, Any], context: object) -> Any:
        async def later() -> None:
            await gates[1].wait()
            state["ran"].append("second")

        return later()  # what it returns is awaited, however it was made

    await insert(store)
    bringing_up = asyncio.create_task(bring_up(store, _suite([("1.0.0", first), ("2.0.0", second)])))
    for gate in gates:
        assert (await record_of(store)).info is None
        assert not bringing_up.done()
        gate.set()
    assert (await bringing_up)["ran"] == ["first", "second"]
    assert (await record_of(store)).states["vehicle"]["ran"] == ["first", "second"]


async def test_w2_migrations_see_what_is_stored_not_what_was_left_in_memory(store: Store) -> None:
    async def copy_log(state: dict[str, Any], context: Activation) -> None:
        state["log"] = await context.state("log").load()

    await insert(store)
    async with serving(store, _suite([])) as node, node.activate("Vehicle", "car") as activation:
        await activation.state("log").migrate_and_load(default=["stored"])
        await activation.persist()
    async with serving(store, _suite([("1.0.0", copy_log)])) as node, node.activate("Vehicle", "car") as activation:
        log = await activation.state("log").load()
        assert log is not None
        log.append("not persisted")
        await activation.state().migrate_and_load()
        assert activation.state().value["log"] == ["stored"]
        assert activation.state("log").value == ["stored", "not persisted"]
    assert (await record_of(store)).states["vehicle"]["log"] == ["stored"]
