"""What becomes of an actor whose migration fails: recorded, held up, tried again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, errors, hooks, open_store, rollout
from lazymig._version import parse
from lazymig.testing import FaultyStore, release
from lazymig.testing.faults import Fault
from tests.quarantines import BEGIN, KEY, Yard, add_sails, failing_as_well, failing_otherwise, mended
from tests.test_node import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.store import Store

SECOND = timedelta(seconds=1)
INSTANT = timedelta(microseconds=1)


@pytest.fixture
async def yard(store: Store) -> Yard:
    yard = Yard(store)
    await yard.insert()
    return yard


# --- what is recorded ------------------------------------------------------------------------------------------------


async def test_a_migration_that_raises_is_recorded_with_the_actor(yard: Yard) -> None:
    assert await yard.record() is None
    assert await yard.outcome() == "MigrationFailedError"

    record = await yard.record()
    assert record == rollout.Quarantine(
        KEY, parse("2.0.0"), "hoist", "ValueError: no mast", 1, BEGIN, BEGIN + SECOND, "web-1"
    )


async def test_nothing_but_the_record_changes(yard: Yard) -> None:
    before = await yard.read()
    for _ in range(3):
        await yard.outcome()
        yard.clock.advance(300)

    after = await yard.read()
    assert after.failure is not None
    assert after._replace(failure=None) == before
    assert await yard.store.census("Ship") == {None: 1}


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_result_that_is_no_json_is_recorded_like_what_raises(yard: Yard, *, is_async: bool) -> None:
    async def later(state: Any, context: Any) -> Any:
        return {"x": float("nan")}

    def now(state: Any, context: Any) -> Any:
        return {"x": float("nan")}

    assert await yard.outcome(yard.suite(lambda _: later if is_async else now)) == "MigrationFailedError"
    record = await yard.record()
    assert record is not None
    assert (str(record.version), record.attempts) == ("2.0.0", 1)
    assert "no JSON: $.x" in record.error


async def test_a_new_actor_runs_nothing_and_has_no_record(store: Store) -> None:
    yard = Yard(store)
    assert await yard.call() == {"new": True}
    assert await store.failures.page() == []


@pytest.mark.parametrize(
    "fails", [errors.StoreUnavailableError("gone"), errors.LeaseLostError(KEY), KeyboardInterrupt()]
)
async def test_what_is_not_the_migrations_fault_is_not_recorded(yard: Yard, fails: Any) -> None:
    yard.fails = fails
    with pytest.raises(type(fails)):
        async with yard.node() as node, node.activate("Ship", "a") as activation:
            await activation.state().migrate_and_load()
    assert await yard.record() is None


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_migration_that_is_cancelled_is_not_recorded(yard: Yard, *, swallows: bool) -> None:
    begun = asyncio.Event()

    async def wait(state: Any, context: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if swallows:
                raise ValueError("cut off") from None
            raise

    call = asyncio.create_task(yard.call(yard.suite(lambda _: wait)))
    await begun.wait()
    call.cancel()
    with pytest.raises((asyncio.CancelledError, errors.MigrationFailedError)):
        await call
    assert await yard.record() is None


async def test_a_migration_that_outlasts_its_caller_is_recorded_before_the_lock_is_given_up(yard: Yard) -> None:
    gate = asyncio.Event()

    async def late(state: Any, context: Any) -> None:
        await gate.wait()
        raise ValueError("late")

    yard.store = faulty = FaultyStore(yard.store)
    async with yard.node(yard.suite(lambda _: late), activation_seconds=0.001) as node:
        with pytest.raises(errors.ActivationInProgressError):
            await node.call("Ship", "a", "look")
        faulty.arm(None)
        gate.set()
        await until(lambda: not node._residents.is_finishing(KEY))
        assert faulty.calls == ["failures.note", "release"]
        with pytest.raises(errors.QuarantinedError):
            await node.call("Ship", "a", "look")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failure_that_can_not_be_recorded_is_told_all_the_same(
    yard: Yard, caplog: pytest.LogCaptureFixture, when: Any
) -> None:
    yard.store = faulty = FaultyStore(yard.store)
    async with yard.node() as node:
        faulty.arm(Fault(1, when, "error"))
        with pytest.raises(errors.MigrationFailedError, match="no mast"):
            await node.call("Ship", "a", "look")
        assert faulty.calls == ["claim", "failures.note", "release"]
    assert "could not be recorded" in caplog.text
    assert [type(event).__name__ for event in yard.events if isinstance(event, hooks.ActorEvent)] == ["MigrationFailed"]
    assert (await yard.record() is None) == (when == "before")


async def test_hooks_are_told_once_and_without_what_the_error_says(yard: Yard) -> None:
    for _ in range(3):
        await yard.outcome()
    told = [event for event in yard.events if isinstance(event, hooks.ActorEvent)]
    assert [type(event).__name__ for event in told] == ["ActorQuarantined", "MigrationFailed"]
    two = parse("2.0.0")
    assert told[0] == hooks.ActorQuarantined(told[0].node, KEY, two, "hoist", "ValueError", 1, BEGIN + SECOND)


# --- until the next try ----------------------------------------------------------------------------------------------


async def test_until_the_next_try_activations_fail_at_once(yard: Yard) -> None:
    await yard.outcome()
    yard.clock.advance(0.5)
    yard.store = faulty = FaultyStore(yard.store)
    async with yard.node() as node:
        faulty.arm(None)
        with pytest.raises(
            errors.QuarantinedError, match=r"2\.0\.0 \(hoist\) failed once.*ValueError: no mast"
        ) as held:
            await node.call("Ship", "a", "look")
        assert faulty.calls == ["claim", "release"]
    error = held.value
    assert (error.key, str(error.version), error.name, error.reason) == (KEY, "2.0.0", "hoist", "ValueError: no mast")
    assert (error.attempts, error.retry_at) == (1, BEGIN + SECOND)
    assert yard.ran == 1


async def test_the_back_off_doubles_from_a_second_to_five_minutes(yard: Yard) -> None:
    waits = []
    for attempts in range(1, 13):
        assert await yard.outcome() == "MigrationFailedError"
        record = await yard.record()
        assert record is not None
        assert (record.attempts, record.failed_at) == (attempts, yard.timed.now)
        waits.append((record.retry_at - record.failed_at) / SECOND)
        yard.at(record.retry_at - INSTANT)
        assert await yard.outcome() == "QuarantinedError"
        yard.at(record.retry_at)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert yard.ran == 12


async def test_a_migration_that_took_long_is_tried_again_that_long_after_it_failed(yard: Yard) -> None:
    async def slow(state: Any, context: Any) -> None:
        yard.clock.advance(100)
        raise ValueError("late")

    await yard.outcome(yard.suite(lambda _: slow))
    record = await yard.record()
    assert record is not None
    assert (record.failed_at, record.retry_at) == (BEGIN + 100 * SECOND, BEGIN + 101 * SECOND)


async def test_a_migration_that_succeeds_takes_the_record_away_with_its_commit(yard: Yard) -> None:
    before = await yard.read()
    await yard.outcome()
    yard.clock.advance(1)
    yard.fails = None

    assert await yard.call() == {"masts": 1, "sails": 2, "half": True, "hoisted": True}
    after = await yard.read()
    assert (after.failure, after.revision) == (None, before.revision + 1)
    assert await yard.store.failures.page() == []


async def test_load_alone_is_not_held_up_and_a_persist_after_it_leaves_the_record(yard: Yard) -> None:
    await yard.outcome()
    async with yard.node() as node, node.activate("Ship", "a") as activation:
        assert await activation.state().load() == {"masts": 1}
        activation.state().value["masts"] = 2
        await activation.persist()
        with pytest.raises(errors.QuarantinedError):
            await activation.state().migrate_and_load()
    found = await yard.read()
    assert found.failure is not None
    assert found.states == {"state": b'{"masts":2}'}


async def test_where_nothing_would_run_nothing_is_held_up(yard: Yard) -> None:
    await yard.outcome()
    async with yard.node() as node, node.activate("Ship", "a") as activation:
        await activation.state("other").load()
        activation.state("other").value = 1
        await activation.state("other").persist()
        await activation.state().load()
        await activation.state().clear()
    assert (await yard.read()).failure is not None

    assert await yard.call() == {"new": True}
    await yard.call(name="keep")
    assert (await yard.read()).failure is None


async def test_when_nothing_is_left_of_the_actor_the_record_goes(yard: Yard) -> None:
    await yard.outcome()
    async with yard.node() as node, node.activate("Ship", "a") as activation:
        await activation.state().load()
        await activation.state().clear()
    assert (await yard.read()).failure is None
    assert await yard.call() == {"new": True}


async def test_an_operator_lets_it_be_tried_at_once_and_the_back_off_goes_on(yard: Yard) -> None:
    await yard.outcome()
    assert await rollout.retry(yard.store, "Ship", "a") == 1
    assert await yard.outcome() == "MigrationFailedError"
    record = await yard.record()
    assert record is not None
    assert (record.attempts, record.retry_at - record.failed_at) == (2, 2 * SECOND)
    assert await yard.outcome() == "QuarantinedError"


async def test_a_block_that_holds_the_lock_follows_time_and_operators(yard: Yard) -> None:
    async with yard.node() as node, node.activate("Ship", "a") as activation:
        load = activation.state().migrate_and_load
        with pytest.raises(errors.MigrationFailedError):
            await load()
        with pytest.raises(errors.QuarantinedError):
            await load()
        yard.clock.advance(1)
        with pytest.raises(errors.MigrationFailedError):
            await load()
        with pytest.raises(errors.QuarantinedError):
            await load()
        await rollout.retry(yard.store, "Ship")
        yard.fails = None
        assert await load() == {"masts": 1, "sails": 2, "half": True, "hoisted": True}
    assert yard.ran == 3
    assert (await yard.read()).failure is None


# --- other code ------------------------------------------------------------------------------------------------------


async def test_a_release_with_the_same_code_is_held_up(yard: Yard) -> None:
    await yard.outcome()
    assert await yard.outcome(yard.suite(failing_as_well)) == "QuarantinedError"
    assert yard.ran == 1


async def test_a_release_with_changed_code_tries_at_once(yard: Yard) -> None:
    await yard.outcome()
    assert await yard.outcome(yard.suite(mended)) == "ok"
    assert (await yard.read()).failure is None


async def test_changed_code_that_fails_too_begins_to_count_anew(yard: Yard) -> None:
    for _ in range(3):
        await yard.outcome()
        yard.clock.advance(300)
    now = yard.timed.now
    assert await yard.outcome(yard.suite(failing_otherwise)) == "MigrationFailedError"
    record = await yard.record()
    assert record is not None
    assert (record.error, record.attempts, record.retry_at) == ("KeyError: 'rope'", 1, now + SECOND)


async def test_a_change_of_a_migration_that_runs_before_it_is_tried_at_once(yard: Yard) -> None:
    """The result is looked at after the last one: which of them made what is no JSON can't be told."""

    def spoil(state: Any, context: Any) -> None:
        state["x"] = float("nan")

    def release_with(first: Callable[[Any, Any], None]) -> Suite:
        suite = Suite("ships")
        ship = suite.actor_type("Ship")
        ship.migration("1.0.0")(first)
        ship.migration("2.0.0")(mended(yard))
        return suite

    async def load(suite: Suite) -> Any:
        async with yard.node(suite) as node, node.activate("Ship", "a") as activation:
            return await activation.state().migrate_and_load()

    for error in (errors.MigrationFailedError, errors.QuarantinedError):
        with pytest.raises(error):
            await load(release_with(spoil))
    record = await yard.record()
    assert record is not None
    assert str(record.version) == "2.0.0"
    assert await load(release_with(add_sails)) == {"masts": 1, "sails": 2, "hoisted": True}


async def test_a_release_that_lacks_the_migration_works_on_and_leaves_the_record(yard: Yard) -> None:
    await yard.outcome()
    older = release(yard.suite(), "1.0.0")
    assert await yard.call(older) == {"masts": 1, "sails": 2}
    await yard.call(older, "keep")
    assert (await yard.read()).failure is not None
    assert await yard.outcome() == "MigrationFailedError", "what has to run before it is not the same any more"
    assert await yard.outcome() == "QuarantinedError"


async def test_a_newer_release_tries_no_sooner_for_what_it_adds(yard: Yard) -> None:
    await yard.outcome()
    newer = yard.suite()
    newer.actor_types["Ship"].migration("3.0.0")(lambda state, context: None)
    assert await yard.outcome(newer) == "QuarantinedError"


async def test_newer_state_is_refused_as_ever(yard: Yard) -> None:
    await yard.outcome()
    yard.fails = None
    await rollout.retry(yard.store, "Ship")
    await yard.call()
    assert await yard.outcome(release(yard.suite(), "1.0.0")) == "NewerStateError"


# --- several nodes, restarts -----------------------------------------------------------------------------------------


async def test_the_error_reaches_who_calls_from_elsewhere_and_nobody_else_tries(yard: Yard) -> None:
    options: dict[str, Any] = {"hand_over_seconds": 5.0}
    async with (
        yard.node(**options) as first,
        yard.node(**options) as second,
        yard.node(Suite("client"), **options) as client,
    ):
        with pytest.raises(errors.MigrationFailedError):
            await client.call("Ship", "a", "look")
        for node in (client, second, first):
            with pytest.raises(errors.QuarantinedError) as held:
                await node.call("Ship", "a", "look")
            assert (held.value.key, held.value.retry_at) == (KEY, BEGIN + SECOND)
    assert yard.ran == 1


async def test_of_nodes_that_come_at_the_same_time_one_tries(yard: Yard) -> None:
    await yard.outcome()
    yard.clock.advance(1)
    async with yard.node() as first, yard.node() as second:
        calls = [node.call("Ship", "a", "look") for node in (first, second) * 5]
        found = await asyncio.gather(*calls, return_exceptions=True)
    kinds = {type(error) for error in found}
    assert errors.MigrationFailedError in kinds
    assert kinds <= {errors.MigrationFailedError, errors.QuarantinedError, errors.ActorLockedError}
    assert yard.ran == 2


async def test_the_record_survives_a_restart(url: str) -> None:
    if url == "memory:":
        pytest.skip("the memory store forgets everything")
    async with open_store(url) as store:
        yard = Yard(store)
        await yard.insert()
        await yard.outcome()
        record = await yard.record()
    async with open_store(url) as store:
        again = Yard(store)
        assert await again.record() == record
        assert await again.outcome() == "QuarantinedError"
        assert await again.outcome(again.suite(mended)) == "ok"


# --- what else runs ------------------------------------------------------------------------------------------------


async def test_a_reconcile_that_raises_is_recorded_and_counts_as_code_of_its_migration(store: Store) -> None:
    yard = Yard(store)

    def make(reconcile: Callable[[Any, Any, Any], None]) -> Suite:
        suite = Suite("ships")
        ship = suite.actor_type("Ship")
        ship.migration("1.0.0")(add_sails)
        ship.migration("1.1.0")(mended(yard)).reconcile(reconcile)
        return suite

    def broken(state: Any, base: Any, context: Any) -> None:
        raise ValueError("no base")

    def whole(state: Any, base: Any, context: Any) -> None:
        state["n"] += base["n"]

    async def keep(suite: Suite) -> None:
        async with yard.node(suite) as node, node.activate("Ship", "a") as activation:
            value = await activation.state().migrate_and_load(default={"n": 0})
            value["n"] += 1
            await activation.persist()

    await keep(make(broken))
    await keep(release(make(broken), "1.0.0"))
    for error in (errors.MigrationFailedError, errors.QuarantinedError):
        with pytest.raises(error):
            await keep(make(broken))
    record = await yard.record()
    assert record is not None
    assert (str(record.version), record.name, record.error) == ("1.1.0", "reconcile of hoist", "ValueError: no base")
    await keep(make(whole))
    assert (await yard.read()).failure is None


def logs(convert: Callable[[Any, Any], None], *, eager: bool) -> Suite:
    suite = Suite("ships")
    ship = suite.actor_type("Ship")
    ship.migration("1.0.0")(add_sails)
    ship.migration("1.1.0")(lambda state, context: None).entries("log", eager=eager)(convert)
    return suite


def broken_entry(entry: Any, context: Any) -> None:
    if entry["n"]:
        raise ValueError("no ink")


async def fill_log(yard: Yard) -> None:
    async with yard.node(release(logs(broken_entry, eager=True), "1.0.0")) as node, node.activate("Ship", "a") as held:
        await held.state().migrate_and_load(default={})
        await held.table("log").put_many((f"{number}", {"n": number}) for number in range(2))
        await held.persist()


async def test_an_eager_conversion_that_raises_is_recorded_and_goes_on_later(store: Store) -> None:
    yard = Yard(store)
    await fill_log(yard)

    async def load(suite: Suite) -> None:
        async with yard.node(suite) as node, node.activate("Ship", "a") as activation:
            await activation.state().migrate_and_load()

    for error in (errors.MigrationFailedError, errors.QuarantinedError):
        with pytest.raises(error):
            await load(logs(broken_entry, eager=True))
    record = await yard.record()
    assert record is not None
    assert record.error == "entry '1' of table 'log': ValueError: no ink"
    yard.clock.advance(1)
    with pytest.raises(errors.MigrationFailedError):
        await load(logs(broken_entry, eager=True))
    record = await yard.record()
    assert record is not None
    assert record.attempts == 2
    await load(logs(lambda entry, context: None, eager=True))
    assert (await yard.read()).failure is None


async def test_an_entry_that_is_converted_when_it_is_read_is_no_matter_of_quarantine(store: Store) -> None:
    yard = Yard(store)
    await fill_log(yard)
    async with yard.node(logs(broken_entry, eager=False)) as node, node.activate("Ship", "a") as activation:
        await activation.state().migrate_and_load()
        for _ in range(2):
            with pytest.raises(errors.MigrationFailedError):
                await activation.table("log").get("1")
    assert await yard.record() is None


async def test_an_entry_that_a_sweep_could_not_convert_stays_recorded_whoever_stores_the_actor(store: Store) -> None:
    yard = Yard(store)
    await fill_log(yard)

    async def keep(suite: Suite) -> None:
        async with yard.node(suite) as node, node.activate("Ship", "a") as activation:
            value: Any = await activation.state().migrate_and_load()
            value["kept"] = value.get("kept", 0) + 1
            await activation.persist()

    suite = logs(broken_entry, eager=False)
    await keep(suite)
    assert [one.key for one in (await rollout.sweep(yard.store, suite, "Ship")).failed] == [KEY]
    before = await yard.record()
    assert before is not None
    await keep(suite)
    assert await yard.record() == before
    yard.clock.advance(1)

    assert (await rollout.sweep(yard.store, logs(lambda entry, context: None, eager=False), "Ship")).is_complete
    assert await yard.record() is None


async def test_the_way_down_of_a_persist_is_no_matter_of_quarantine(store: Store) -> None:
    yard = Yard(store)

    def no_way(state: Any, context: Any) -> None:
        raise ValueError("no way")

    suite = Suite("ships")
    ship = suite.actor_type("Ship", write_version="1.0.0")
    ship.migration("1.0.0")(add_sails)
    ship.migration("1.1.0")(mended(yard)).down(no_way)
    async with yard.node(suite) as node, node.activate("Ship", "a") as activation:
        await activation.state().migrate_and_load(default={"n": 0})
        with pytest.raises(errors.MigrationFailedError, match="down of hoist"):
            await activation.persist()
    assert await store.failures.page() == []


# --- census and gates ------------------------------------------------------------------------------------------------


async def test_census_and_gates_count_quarantined_actors(yard: Yard) -> None:
    await yard.outcome()
    async with yard.node():
        counted = await rollout.census(yard.store, "Ship")
        assert (counted.quarantined, dict(counted.versions)) == (1, {parse("0.0.0"): 1})
        gate = await rollout.gate_retire(yard.store, "Ship", "2.0.0")
        assert [(reason.code, reason.count, reason.actors) for reason in gate.reasons] == [("actors_lack", 1, ("a",))]
        assert "1 of them is quarantined, 'a': 'lazymig quarantine list Ship' says why" in gate.reasons[0].text
        assert "quarantined" in (await rollout.status(yard.store, "Ship")).next.text
        yard.fails = None
    await rollout.retry(yard.store, "Ship")
    await yard.call()
    assert (await rollout.census(yard.store, "Ship")).quarantined == 0


async def test_quarantined_actors_are_read_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazymig.rollout._quarantined.PAGE_RECORDS", 2)
    yard = Yard(store)
    names = [f"{number}" for number in range(5)]
    await store.insert("Ship", "state", [(name, b"{}") for name in names])
    async with yard.node() as node:
        for name in names:
            with pytest.raises(errors.MigrationFailedError):
                await node.call("Ship", name, "look")
    assert [one.key.id async for one in rollout.quarantined(store)] == names
    assert [one.key.id async for one in rollout.quarantined(store, "Ship")] == names
    assert [one async for one in rollout.quarantined(store, "Boat")] == []
    assert await rollout.retry(store, "Ship", "9") == 0
    assert await rollout.retry(store, "Ship") == 5


async def test_what_is_no_store_type_or_id_is_refused(store: Store) -> None:
    with pytest.raises(errors.DefinitionError, match="no open store"):
        rollout.quarantined("sqlite:///x")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(errors.InvalidKeyError):
        rollout.quarantined(store, "")
    with pytest.raises(errors.InvalidKeyError):
        await rollout.retry(store, "Ship", "")


# --- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_batches", [False, True])
async def test_a_sweep_records_what_fails_and_leaves_what_is_quarantined(yard: Yard, *, in_batches: bool) -> None:
    def hoist(state: Any, context: Any) -> None:
        yard.ran += 1
        if state["masts"] == 1 and yard.fails is not None:
            raise yard.fails

    def make() -> Suite:
        suite = Suite("ships")
        ship = suite.actor_type("Ship", context_factory=None if in_batches else lambda activation: activation)
        ship.migration("1.0.0")(add_sails)
        ship.migration("2.0.0")(hoist)
        return suite

    await yard.timed.insert("Ship", "state", [(f"b{number}", b'{"masts":2}') for number in range(3)])
    first = await rollout.sweep(yard.store, make(), "Ship")
    assert (first.migrated, [(one.key, str(one.version)) for one in first.failed]) == (3, [(KEY, "2.0.0")])
    record = await yard.record()
    assert record is not None
    assert (record.attempts, record.error) == (1, "ValueError: no mast")
    assert record.node.startswith("sweep of Ship")

    ran = yard.ran
    again = await rollout.sweep(yard.store, make(), "Ship")
    assert (again.migrated, [str(one.version) for one in again.failed], yard.ran) == (0, ["2.0.0"], ran)
    assert "is quarantined until" in again.failed[0].error
    yard.fails = None
    await rollout.retry(yard.store, "Ship")
    assert (await rollout.sweep(yard.store, make(), "Ship")).migrated == 1
    assert (await yard.read()).failure is None
