"""A sweep brings idle actors to the version that their type is written at, each counted once."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors, hooks, rollout
from lazymig._records import Marks
from lazymig._version import parse
from lazymig.rollout import SweepReport
from lazymig.testing import FaultyStore
from tests.cars import Cars, car, put, put_legacy, sweep, value
from tests.wallets import write_at

if TYPE_CHECKING:
    from lazymig.store import Store

V0, V1, V11, V2 = map(parse, ("0.0.0", "1.0.0", "1.1.0", "2.0.0"))


@pytest.fixture
def cars() -> Cars:
    return Cars()


async def test_all_are_brought_up_from_whatever_version_they_are_at(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a", "b", "ä")
    await put(store, cars.release("1.1.0"), "c", "d")
    await put_legacy(store, "e")
    await put(store, cars.release("1.0.0"), "e")
    await put(store, cars.suite, "new")

    report = await sweep(store, cars.suite)

    assert (report.migrated, report.current, report.busy, report.newer, report.left) == (6, 1, 0, 0, 0)
    assert dict(report.from_versions) == {V0: 3, V1: 1, V11: 2}
    assert (report.failed, report.ended, report.passes, report.is_complete) == ((), "finished", 2, True)
    assert report.types == ("Car",)
    assert await value(store, "ä") == {"id": "ä", "speed": 2, "drivers": ["nobody"]}
    assert await value(store, "c") == {"id": "c", "speed": 2, "drivers": ["ann"]}
    assert (await rollout.census(store, "Car")).versions == {V2: 7}


async def test_an_actor_is_stored_as_an_activation_stores_it(store: Store, cars: Cars) -> None:
    await put_legacy(store, "swept", "activated")
    await put(store, cars.suite, "activated")

    await sweep(store, cars.suite)

    swept, activated = await car(store, "swept"), await car(store, "activated")
    assert swept.stamp is not None
    assert activated.stamp is not None
    assert swept.stamp.migrated_at is not None
    assert swept.stamp._replace(migrated_at=None) == activated.stamp._replace(migrated_at=None)
    assert orjson.loads(swept.states["car"]) == {**orjson.loads(activated.states["car"]), "id": "swept"}
    assert (swept.revision, swept.owner, swept.marks) == (activated.revision, None, Marks())


async def test_a_second_sweep_finds_nothing_and_stores_nothing(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a", "b")
    await sweep(store, cars.suite)
    before = [await car(store, actor_id) for actor_id in "ab"]

    report = await sweep(store, cars.suite)

    assert (report.migrated, report.current, report.passes) == (0, 2, 1)
    assert [await car(store, actor_id) for actor_id in "ab"] == before


async def test_a_type_without_actors_is_complete(store: Store, cars: Cars) -> None:
    report = await sweep(store, cars.suite)

    assert (report.actors, report.ended, report.is_complete) == (0, "finished", True)


async def test_nothing_is_left_of_its_node(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a")

    await sweep(store, cars.suite)

    assert await store.nodes() == []


async def test_an_actor_that_a_node_holds_is_left_and_comes_again(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a", "b", "c")
    async with Node(store, [cars.release("1.0.0")]) as node, node.activate("Car", "b") as activation:
        await activation.state().migrate_and_load()

        report = await sweep(store, cars.suite)

        assert (report.migrated, report.busy, report.current, report.is_complete) == (2, 1, 0, False)
        assert (await car(store, "b")).owner == node.node_id
    report = await sweep(store, cars.suite)
    assert (report.migrated, report.busy, report.current) == (1, 0, 2)


async def test_one_that_fails_is_named_and_the_others_go_on(store: Store) -> None:
    cars = Cars("b")
    await put_legacy(store, "a", "b", "c")
    before = await car(store, "b")

    report = await sweep(store, cars.suite)

    assert (report.migrated, report.current, report.ended, report.is_complete) == (2, 0, "finished", False)
    (failed,) = report.failed
    assert (failed.key.id, failed.version) == ("b", V2)
    assert "no such driver" in failed.error
    after = await car(store, "b")
    assert (after.states, after.stamp, after.revision, after.owner) == (before.states, None, 1, None)
    assert {cars.ran[actor_id, "2.0.0"] for actor_id in "ac"} == {1}


@pytest.mark.parametrize("result", [float("nan"), {1: 2}, object()])
async def test_what_is_no_json_is_a_failure(store: Store, cars: Cars, result: object) -> None:
    @cars.suite.actor_types["Car"].migration("2.1.0")
    def spoil(state: Any, context: Any) -> Any:
        return result if state["id"] == "b" else None

    await put_legacy(store, "a", "b", "c")

    report = await sweep(store, cars.suite)

    assert (report.migrated, [one.key.id for one in report.failed]) == (2, ["b"])
    assert "no JSON" in report.failed[0].error


async def test_a_state_that_is_no_json_is_a_failure(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a", "c")
    await store.insert("Car", "car", [("b", b"{")])

    report = await sweep(store, cars.suite)

    assert (report.migrated, [one.key.id for one in report.failed]) == (2, ["b"])


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_context_factory_that_raises_fails_its_actor_and_no_other(store: Store, *, dry_run: bool) -> None:
    def factory(activation: Activation) -> int:
        return 60 // int(activation.key.id)

    suite = Suite("cars")
    type_ = suite.actor_type("Car", state="car", context_factory=factory)
    type_.migration("1.0.0")(lambda state, context: {"speed": context})
    await put_legacy(store, "0", "1", "2")

    report = await rollout.sweep(store, suite, "Car", dry_run=dry_run)

    (failed,) = report.failed
    assert (report.migrated, failed.key.id, failed.version) == (2, "0", None)
    assert "ZeroDivisionError" in failed.error
    assert failed.error.endswith("Correct the context factory of Car, or what it uses.")
    assert (await car(store, "0")).owner is None


async def test_it_ends_once_too_many_have_failed(store: Store) -> None:
    ids = [f"{number:02}" for number in range(40)]
    await put_legacy(store, *ids)

    report = await sweep(store, Cars(*ids).suite, max_failures=3)

    assert report.ended == "failures"
    assert 3 <= len(report.failed) < 40
    assert len(report.failed) + report.left == 40


async def test_it_ends_at_its_limit_and_goes_on_when_begun_again(store: Store, cars: Cars) -> None:
    await put_legacy(store, *(f"{number:02}" for number in range(40)))

    report = await sweep(store, cars.suite, limit=7)
    assert (report.migrated, report.left, report.current, report.ended) == (7, 33, 0, "limit")
    assert not report.is_complete
    report = await sweep(store, cars.suite)

    assert (report.migrated, report.current, report.left) == (33, 7, 0)
    assert set(cars.ran.values()) == {1}


@pytest.mark.parametrize("kind", [asyncio.Event, threading.Event])
async def test_it_ends_after_the_batch_at_hand_once_it_is_told_to(store: Store, cars: Cars, kind: Any) -> None:
    stop = kind()
    ids = [f"{number:03}" for number in range(100)]
    await put_legacy(store, *ids)

    @cars.suite.actor_types["Car"].migration("2.1.0")
    def stop_at(state: Any, context: Any) -> None:
        stop.set()

    report = await sweep(store, cars.suite, stop=stop)

    assert report.ended == "stopped"
    assert 0 < report.migrated < 100
    assert report.migrated + report.left == 100
    found = [await car(store, actor_id) for actor_id in ids]
    assert {(one.revision, one.owner) for one in found} == {(1, None), (2, None)}
    assert (await sweep(store, cars.suite)).migrated == report.left


@pytest.mark.parametrize("is_of_older_software", [False, True])
async def test_what_appears_behind_it_is_found_before_it_ends(
    store: Store, cars: Cars, *, is_of_older_software: bool
) -> None:
    older = cars.release("1.0.0")
    await put_legacy(store, *(f"m{number:03}" for number in range(60)))
    appeared: list[asyncio.Task[None]] = []

    @cars.suite.actor_types["Car"].migration("2.1.0")
    def let_one_appear(state: Any, context: Any) -> None:
        if state["id"] == "m040":
            appears = put(store, older, "a", "b") if is_of_older_software else put_legacy(store, "a", "b")
            appeared.append(asyncio.create_task(appears))

    async def wait_for_them() -> None:
        if appeared:
            await asyncio.wait(appeared)

    report = await sweep(FaultyStore(store, wait_for_them), cars.suite)

    assert (report.migrated, report.is_complete) == (62, True)
    assert report.passes == (3 if is_of_older_software else 2)
    assert set(cars.ran.values()) == {1}


async def test_what_older_software_stores_behind_it_is_mended_and_counted_once(store: Store, cars: Cars) -> None:
    await put(store, cars.release("1.0.0"), "a", "z")
    older = cars.release("1.0.0")

    @cars.suite.actor_types["Car"].migrations[1].reconcile
    def same_driver(state: Any, base: Any, context: Any) -> None:
        state["driver"] = base["driver"]

    upto = cars.release("1.1.0")
    stored: list[int] = []

    async def store_a(report: SweepReport) -> None:
        async with Node(store, [older]) as node, node.activate("Car", "a") as activation:
            state: Any = await activation.state().load()
            state["speed"] = 7
            await activation.persist()

    def once(report: SweepReport) -> None:
        if report.passes == 2 and not stored:
            stored.append(1)
            tasks.append(asyncio.create_task(store_a(report)))

    tasks: list[asyncio.Task[None]] = []
    report = await sweep(store, upto, progress=once)
    await asyncio.gather(*tasks)
    report += SweepReport()
    assert report.migrated == 2
    assert (await sweep(store, upto)).actors == 2
    assert await value(store, "a") == {"id": "a", "speed": 7, "driver": "nobody"}
    assert (await car(store, "a")).base is None


async def test_one_that_older_software_gives_an_entry_meanwhile_is_counted_once(store: Store, cars: Cars) -> None:
    older = cars.release("2.0.0")
    step = cars.suite.actor_types["Car"].migration("2.1.0")(lambda state, context: None)
    step.entries("log")(lambda entry, context: None)
    await put_legacy(store, "a", "b")
    given: list[str] = []

    async def give_an_entry() -> None:
        if not given and (await car(store, "a")).revision > 1:
            given.append("a")
            async with Node(store, [older]) as node, node.activate("Car", "a") as activation:
                await activation.state("car").migrate_and_load()
                await activation.table("log").put("x", 1)
                await activation.persist()

    report = await sweep(FaultyStore(store, give_an_entry), cars.suite)

    assert given
    assert (report.migrated, report.actors, dict(report.from_versions)) == (2, 2, {V0: 2})


async def test_a_version_of_which_none_came_up_is_not_counted(store: Store) -> None:
    await put_legacy(store, "a")

    report = await sweep(store, Cars("a").suite)

    assert (len(report.failed), dict(report.from_versions)) == (1, {})


async def test_actors_newer_by_a_major_are_counted_and_left_alone(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a")
    await put(store, cars.suite, "b")
    before = await car(store, "b")

    report = await sweep(store, cars.release("1.1.0"))

    assert (report.migrated, report.newer, report.current, report.failed, report.is_complete) == (1, 1, 0, (), False)
    assert await car(store, "b") == before


async def test_an_actor_without_a_main_state_needs_nothing(store: Store, cars: Cars) -> None:
    async with Node(store, [cars.release("1.1.0")]) as node, node.activate("Car", "a") as activation:
        await activation.state("notes").migrate_and_load(default="text")
        await activation.persist()

    report = await sweep(store, cars.suite)

    assert (report.migrated, report.current, report.left, report.passes, report.is_complete) == (0, 1, 0, 1, True)


async def test_late_migrations_and_baselines_are_failures_by_name(store: Store, cars: Cars) -> None:
    await put_legacy(store, "old")
    await put(store, cars.suite, "new")
    retired = Suite("cars")
    retired.actor_type("Car", state="car", baseline="2.0.0").migration("2.1.0")(lambda state, context: None)

    with pytest.raises(errors.MissingMigrationError):
        await sweep(store, retired)
    assert await store.nodes() == []


async def test_migrations_may_be_async_or_return_awaitables(store: Store) -> None:
    suite = Suite("cars")
    car_type = suite.actor_type("Car", state="car")

    async def wait(state: Any) -> None:
        await asyncio.sleep(0)
        state["waited"] = state.get("waited", 0) + 1

    car_type.migration("1.0.0")(lambda state, context: wait(state))

    @car_type.migration("1.1.0")
    async def again(state: Any, context: Any) -> None:
        await wait(state)

    await put_legacy(store, "a", "b")
    assert (await sweep(store, cars_at := suite)).migrated == 2

    assert cars_at is suite
    assert (await value(store, "b"))["waited"] == 2


async def test_plain_migrations_that_return_awaitables_run_one_by_one(store: Store) -> None:
    suite = Suite("cars")

    async def wait(state: Any) -> None:
        await asyncio.sleep(0)
        state["waited"] = state.get("waited", 0) + 1

    suite.actor_type("Car", state="car").migration("1.0.0")(lambda state, context: wait(state))
    await put_legacy(store, "a", "b")

    assert (await sweep(store, suite)).migrated == 2

    assert (await value(store, "b"))["waited"] == 1


async def test_a_context_object_is_handed_to_each(store: Store) -> None:
    suite, rates = Suite("cars"), {"EUR": 2}

    @suite.actor_type("Car", state="car", context=rates).migration("1.0.0")
    def convert(state: Any, context: Any) -> None:
        state["price"] = context["EUR"]

    await put_legacy(store, "a", "b")

    assert (await sweep(store, suite)).migrated == 2
    assert (await value(store, "a"))["price"] == 2


async def test_what_migrations_share_is_each_ones_own(store: Store) -> None:
    suite, rates = Suite("cars"), {"EUR": 2}
    car_type = suite.actor_type("Car", state="car", context=rates)

    @car_type.migration("1.0.0")
    def take_rates(state: Any, context: Any) -> None:
        state["rates"] = context

    @car_type.migration("1.1.0")
    def add_its_own(state: Any, context: Any) -> None:
        state["rates"]["of"] = state["id"]

    ids = [f"{number:02}" for number in range(40)]
    await put_legacy(store, *ids)

    assert (await sweep(store, suite)).migrated == 40

    assert [(await value(store, actor_id))["rates"] for actor_id in ids] == [{"EUR": 2, "of": one} for one in ids]


async def test_a_context_factory_reaches_other_states(store: Store) -> None:
    suite = Suite("cars")
    car_type = suite.actor_type("Car", state="car", context_factory=lambda activation: activation)

    @car_type.migration("1.0.0")
    async def take_notes(state: Any, context: Activation) -> None:
        notes = await context.state("notes").migrate_and_load(default=[])
        notes.append(state["id"])

    await put_legacy(store, "a", "b")

    assert (await sweep(store, suite)).migrated == 2
    assert (await car(store, "b")).states["notes"] == b'["b"]'


async def test_inferred_versions_are_asked_for(store: Store) -> None:
    suite = Suite("cars")
    car_type = suite.actor_type("Car", state="car", infer_version=lambda value: value.get("v", "0.0.0"))
    for version in ("1.0.0", "1.1.0"):
        car_type.migration(version)(lambda state, context: state.update(n=state.get("n", 0) + 1))
    await store.insert("Car", "car", [("a", b"{}"), ("b", b'{"v":"1.0.0"}'), ("c", b'{"v":"1.1.0"}')])

    report = await sweep(store, suite)

    assert report.migrated == 3
    assert [(await value(store, actor_id)).get("n") for actor_id in "abc"] == [2, 1, None]
    assert (await sweep(store, suite)).current == 3


async def test_an_unstamped_actor_of_a_type_without_migrations_needs_nothing(store: Store) -> None:
    suite = Suite("cars")
    suite.actor_type("Car", state="car")
    await put_legacy(store, "a")

    report = await sweep(store, suite)

    assert (report.migrated, report.current, report.is_complete) == (0, 1, True)


async def test_it_may_be_refused_by_what_the_type_is_written_at(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a")
    await write_at(store, "2.0.0", "Car")

    with pytest.raises(errors.NewerStateError, match="written at 2"):
        await sweep(store, cars.release("1.1.0"))
    assert await store.nodes() == []


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": "7"}, "limit is '7'"),
        ({"max_failures": 0}, "max_failures is 0"),
        ({"actors_per_second": 0}, "actors_per_second is 0"),
        ({"bytes_per_second": -1.0}, "bytes_per_second is -1.0"),
        ({"hooks": [1]}, "hooks has 1"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    store: Store, cars: Cars, option: dict[str, Any], text: str
) -> None:
    with pytest.raises(errors.DefinitionError, match=text):
        await rollout.sweep(store, cars.suite, "Car", **option)


async def test_a_type_that_the_suite_lacks_is_refused(store: Store, cars: Cars) -> None:
    with pytest.raises(errors.UnknownActorTypeError, match="Bus"):
        await rollout.sweep(store, cars.suite, "Bus")
    with pytest.raises(errors.DefinitionError, match="no suite"):
        await rollout.sweep(store, [cars.suite], "Car")  # type: ignore[arg-type]


async def test_progress_tells_how_far_it_is(store: Store, cars: Cars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazymig.rollout._sweep.PROGRESS_SECONDS", 0.0)
    await put_legacy(store, *(f"{number:03}" for number in range(100)))
    told: list[SweepReport] = []

    report = await sweep(store, cars.suite, progress=told.append)

    assert told[-1] == report
    assert [one.ended for one in told[:-1]] == ["running"] * (len(told) - 1)
    assert [one.migrated for one in told] == sorted(one.migrated for one in told)
    assert {one.migrated + one.left for one in told[:-1] if one.passes == 1} >= {100}
    assert len({one.migrated for one in told}) > 2


async def test_what_it_did_is_json(store: Store) -> None:
    cars = Cars("b")
    await put_legacy(store, "a", "b")

    document = json.loads(json.dumps((await sweep(store, cars.suite)).to_json()))

    assert document["failed"][0]["error"].startswith("migration 2.0.0")
    del document["failed"][0]["error"], document["seconds"], document["rate"]
    assert document == {
        "types": ["Car"],
        "actors": 2,
        "migrated": 1,
        "from_versions": {"0.0.0": 1},
        "current": 0,
        "busy": 0,
        "newer": 0,
        "failed": [{"type": "Car", "id": "b", "version": "2.0.0"}],
        "left": 0,
        "ended": "finished",
        "complete": False,
        "passes": 2,
        "bytes_before": 18,
        "bytes_after": 43,
        "preflight": None,
    }


async def test_reports_of_other_types_can_be_added(store: Store, cars: Cars) -> None:
    await put_legacy(store, "a", "b")
    buses = Suite("buses")
    buses.actor_type("Bus", state="car").migration("1.0.0")(lambda state, context: None)
    await store.insert("Bus", "car", [("x", b"1")])

    first = await sweep(store, cars.suite, limit=1)
    second = await rollout.sweep(store, buses, "Bus")
    both = first + second

    assert (both.types, both.migrated, both.left, both.ended) == (("Bus", "Car"), 2, 1, "limit")
    assert dict(both.from_versions) == {V0: 2}
    assert both.seconds == pytest.approx(first.seconds + second.seconds)
    assert both == second + first
    with pytest.raises(errors.DefinitionError, match="Car"):
        both + first


async def test_hooks_are_told_of_each_migration_that_was_stored(store: Store) -> None:
    cars = Cars("b")
    await put_legacy(store, "a", "b")
    told: list[Any] = []

    await sweep(store, cars.suite, hooks=[told.append])

    applied = [(event.key.id, event.version) for event in told if isinstance(event, hooks.MigrationApplied)]
    assert applied == [("a", V1), ("a", V11), ("a", V2)]
    failed = [(event.key.id, event.version) for event in told if isinstance(event, hooks.MigrationFailed)]
    assert failed == [("b", V2)]


# --- beside others -----------------------------------------------------------------------------------------------


async def test_a_call_on_an_actor_that_is_being_swept_goes_on_afterwards(store: Store) -> None:
    suite, begun, go_on = Suite("cars"), asyncio.Event(), asyncio.Event()

    class Car(Actor):
        def __init__(self, activation: Activation) -> None:
            self.state = activation.state("car")

        async def activate(self) -> None:
            await self.state.migrate_and_load()

        @action
        async def show(self) -> Any:
            return self.state.value

    car_type = suite.actor_type("Car", Car, state="car")

    @car_type.migration("1.0.0")
    async def wait(state: Any, context: Any) -> None:
        begun.set()
        await go_on.wait()
        state["n"] = 1

    await put_legacy(store, "a")
    async with Node(store, [suite]) as node, asyncio.TaskGroup() as group:
        sweeping = group.create_task(sweep(store, suite))
        await begun.wait()
        showing = group.create_task(node.call("Car", "a", "show"))
        await asyncio.sleep(0.05)
        assert not showing.done()
        go_on.set()
        assert (await sweeping).migrated == 1
        assert (await showing)["n"] == 1


async def test_two_sweeps_bring_each_actor_up_once(store: Store, cars: Cars) -> None:
    ids = [f"{number:03}" for number in range(200)]
    await put_legacy(store, *ids)

    reports = await asyncio.gather(sweep(store, cars.suite), sweep(store, cars.suite))

    assert sum(report.migrated for report in reports) == 200
    assert set(cars.ran.values()) == {1}
    assert {(await car(store, actor_id)).revision for actor_id in ids} == {2}
    assert all(not report.failed for report in reports)


async def test_a_sweep_that_was_forgotten_registers_anew_and_goes_on(store: Store, cars: Cars) -> None:
    await put_legacy(store, *(f"{number:03}" for number in range(60)))
    forgotten: list[asyncio.Task[Any]] = []

    async def forget() -> None:
        for node in await store.nodes():
            await store.forget(node.node_id)

    @cars.suite.actor_types["Car"].migration("2.1.0")
    def be_forgotten(state: Any, context: Any) -> None:
        if state["id"] == "020":
            forgotten.append(asyncio.create_task(forget()))

    report = await sweep(store, cars.suite)

    assert forgotten
    assert (await rollout.census(store, "Car")).versions == {parse("2.1.0"): 60}
    assert report.is_complete
    assert await store.nodes() == []


class Noting:
    """Lets a sweep note how far it is at every step; it has noted often once `often` is set."""

    def __init__(self, store: Store) -> None:
        self.often = asyncio.Event()
        self.spied = FaultyStore(store, self._look)
        self.spied.arm(None)

    async def _look(self) -> None:
        if self.spied.calls.count("sweeping.note") >= 5:
            self.often.set()


@pytest.fixture
def noting(store: Store, monkeypatch: pytest.MonkeyPatch) -> Noting:
    monkeypatch.setattr("lazymig.rollout._sweep.NOTE_SECONDS", 0.0)
    return Noting(store)


async def test_a_pause_is_noticed_and_ends(store: Store, cars: Cars, noting: Noting) -> None:
    await put_legacy(store, *(f"{number:03}" for number in range(40)))
    await store.sweeping.pause("Car", is_paused=True)

    sweeping = asyncio.create_task(sweep(noting.spied, cars.suite))
    await noting.often.wait()
    assert "sweeping.claim" not in noting.spied.calls
    (note,) = await store.sweeping.notes()
    assert json.loads(note.progress)["migrated"] == 0
    await store.sweeping.pause("Car", is_paused=False)

    assert (await sweeping).migrated == 40
    (note,) = await store.sweeping.notes()
    found = json.loads(note.progress)
    assert (found["migrated"], found["ended"]) == (40, "finished")
    assert found["label"].startswith("sweep of Car on ")


async def test_a_pause_is_told_as_progress(
    store: Store, cars: Cars, noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_legacy(store, "a")
    await store.sweeping.pause("Car", is_paused=True)
    stop = asyncio.Event()
    told: list[SweepReport] = []

    def tell(report: SweepReport) -> None:
        told.append(report)
        if report.is_paused:
            stop.set()

    monkeypatch.setattr("lazymig.rollout._sweep.PROGRESS_SECONDS", 0.0)
    report = await sweep(noting.spied, cars.suite, stop=stop, progress=tell)

    assert any(one.is_paused for one in told)
    assert (told[-1], report.is_paused, report.left) == (report, False, 1)


async def test_a_paused_sweep_can_be_stopped(store: Store, cars: Cars, noting: Noting) -> None:
    await put_legacy(store, "a")
    await store.sweeping.pause("Car", is_paused=True)
    stop = asyncio.Event()

    sweeping = asyncio.create_task(sweep(noting.spied, cars.suite, stop=stop))
    await noting.often.wait()
    stop.set()

    assert (await sweeping).ended == "stopped"
    assert (await car(store, "a")).revision == 1


async def test_a_batch_takes_two_operations(store: Store, cars: Cars) -> None:
    await put_legacy(store, *(f"{number:04}" for number in range(3_000)))
    spied = FaultyStore(store)
    spied.arm(None)

    await sweep(spied, cars.suite)

    claims = spied.calls.count("sweeping.claim")
    assert spied.calls.count("sweeping.commit") == claims <= 12  # batches of 16, 32, … 1,000
    singles = {"claim", "commit", "release"} & set(spied.calls)
    assert not singles
