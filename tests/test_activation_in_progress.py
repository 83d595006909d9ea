"""A migration too long for its callers: they get an error in time, it goes on, and nobody uses the actor meanwhile."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Node, errors, hooks, rollout
from tests.slow import KEY, SOON, Bench, insert, leave_in_progress, load, nothing_left, stored
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store

WHERE: ContextVar[str] = ContextVar("where", default="nowhere")


@pytest.fixture
async def bench(store: Store) -> AsyncIterator[Bench]:
    async with nothing_left():
        await insert(store)
        yield Bench()


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_the_caller_leaves_and_the_migration_ends_and_is_stored_once(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        with pytest.raises(
            errors.ActivationInProgressError, match=r"go on\. Call or activate it again later"
        ) as caught:
            await node.call("Slow", "a", "add")
        assert (caught.value.key, caught.value.waited_seconds) == (KEY, SOON)
        assert (await stored(store), node._residents.active) == (1, 1)
        bench.gate.set()
        await until(lambda: node._residents.active == 0)
        assert await stored(store) == 11
        assert await node.call("Slow", "a", "add") == 12
    assert bench.log == ["begun", "ended", "activated", "add", "deactivated"]
    assert bench.told(hooks.MigrationApplied) == 1
    assert bench.told(hooks.MigrationFailed) == bench.told(hooks.StateRefused) == 0


async def test_every_caller_gets_the_error_whether_it_waited_already_or_comes_later(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        calls = [asyncio.create_task(node.call("Slow", "a", name)) for name in ("add", "read", "add", "read", "read")]
        for call in calls:
            with pytest.raises(errors.ActivationInProgressError):
                await call
        with pytest.raises(errors.ActivationInProgressError):
            await node.call("Slow", "a", "read")
        assert bench.log == ["begun"]
        bench.gate.set()
        await until(lambda: node._residents.active == 0)
        assert sorted(await asyncio.gather(*(node.call("Slow", "a", "add") for _ in range(3)))) == [12, 13, 14]


async def test_who_waits_when_the_migration_ends_has_its_turn_in_order(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        await leave_in_progress(bench)
        node._residents.finishing.seconds = 10.0
        calls = [asyncio.create_task(node.call("Slow", "a", "add")) for _ in range(3)]
        await settle()
        bench.gate.set()
        assert await asyncio.gather(*calls) == [12, 13, 14]


async def test_shared_callers_wait_and_leave_together(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        calls = [asyncio.create_task(node.call("Slow", "a", "read")) for _ in range(3)]
        for call in calls:
            with pytest.raises(errors.ActivationInProgressError):
                await call
        node._residents.finishing.seconds = 10.0
        calls = [asyncio.create_task(node.call("Slow", "a", "read")) for _ in range(3)]
        await settle()
        bench.gate.set()
        assert await asyncio.gather(*calls) == [11, 11, 11]
    assert bench.log.count("begun") == 1


async def test_a_travelling_call_gets_the_error_from_where_the_migration_runs(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node, Node(store) as client:
        with pytest.raises(errors.ActivationInProgressError) as caught:
            await client.call("Slow", "a", "add")
        assert (caught.value.key, caught.value.waited_seconds) == (KEY, SOON)
        bench.gate.set()
        await until(lambda: node._residents.active == 0)
        assert await client.call("Slow", "a", "add") == 12
    assert bench.log.count("begun") == 1


async def test_a_caller_cancelled_in_time_takes_the_migration_with_it(store: Store, bench: Bench) -> None:
    async with bench.run(store, activation_seconds=10.0) as node:
        call = asyncio.create_task(node.call("Slow", "a", "add"))
        await bench.begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert bench.log == ["begun", "cancelled"]
        assert await stored(store) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON), node.activate("Slow", "a") as activation:
                await activation.state().migrate_and_load()
        bench.gate.set()
        assert await node.call("Slow", "a", "add") == 12


async def test_a_caller_cancelled_while_it_waits_again_leaves_alone(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        await leave_in_progress(bench)
        call = asyncio.create_task(node.call("Slow", "a", "add"))
        await settle()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        bench.gate.set()
        await until(lambda: node._residents.active == 0)
        assert await stored(store) == 11
    assert "cancelled" not in bench.log


async def test_a_failure_that_nobody_waits_for_is_told_and_the_next_call_tries_again(
    store: Store, bench: Bench
) -> None:
    async def fail() -> None:
        raise ValueError("as asked")

    bench.does = lambda _state, _context: fail()
    async with bench.run(store) as node:
        await leave_in_progress(bench)
        bench.gate.set()
        await until(lambda: bool(bench.told(hooks.MigrationFailed)))
        await settle()
        assert await stored(store) == 1
        assert bench.told(hooks.MigrationFailed) == 1
        bench.does = lambda _state, _context: None
        await rollout.retry(store, "Slow")
        assert await node.call("Slow", "a", "add") == 12


async def test_an_action_that_migrates_is_not_followed_by_a_second_migration(store: Store, bench: Bench) -> None:
    bench.loads_late = True
    async with bench.run(store) as node:
        for _ in range(2):
            with pytest.raises(errors.ActivationInProgressError):
                await node.call("Slow", "a", "add")
        assert bench.log == ["activated", "add", "begun"]
        bench.gate.set()
        await until(lambda: node._residents.active == 0)
        assert await node.call("Slow", "a", "add") == 12
    assert bench.log.count("begun") == 1


async def test_an_actor_that_swallows_the_error_keeps_its_lock_when_it_is_let_go(store: Store, bench: Bench) -> None:
    bench.loads_late = True
    async with bench.run(store, idle_seconds=SOON) as node, Node(store, [bench.suite]) as other:
        assert await node.call("Slow", "a", "try_to_load") == "ActivationInProgressError"
        await until(lambda: "deactivated" in bench.log)
        await settle()
        with pytest.raises(errors.ActivationInProgressError):
            await node.call("Slow", "a", "add")
        with pytest.raises(errors.ActorLockedError):
            async with other.activate("Slow", "a", wait_seconds=0):
                pass
        bench.gate.set()
        await until(lambda: node._residents.active == 0)
        assert await stored(store) == 11
    assert bench.log.count("begun") == 1


async def test_a_block_waits_for_the_migration_of_an_actor_that_swallowed_the_error(store: Store, bench: Bench) -> None:
    bench.loads_late = True
    async with bench.run(store) as node:
        assert await node.call("Slow", "a", "try_to_load") == "ActivationInProgressError"
        with pytest.raises(errors.ActivationInProgressError):
            async with node.activate("Slow", "a"):
                pass
        bench.gate.set()
        assert await load(node) == {"n": 11}
    assert bench.log.count("begun") == 1


# --- what a migration may do meanwhile -------------------------------------------------------------------------------


async def test_a_migration_cannot_wait_for_its_own_actor_even_when_its_caller_has_left(
    store: Store, bench: Bench
) -> None:
    bench.does = lambda _state, _context: bench.node.call("Slow", "a", "read")
    async with bench.run(store) as node:
        await leave_in_progress(bench)
        node._residents.finishing.seconds = 10.0
        bench.gate.set()
        await until(lambda: bool(bench.told(hooks.MigrationFailed)))
        await settle()
        assert bench.told(hooks.MigrationFailed) == 1
    failed = next(event for event in bench.events if isinstance(event, hooks.MigrationFailed))
    assert failed.error == "ReentrantCallError"


async def test_a_migration_may_wait_for_an_actor_that_does_not_wait_for_it_any_more(store: Store, bench: Bench) -> None:
    bench.loads_late = True

    async def call_back() -> None:
        bench.log.append(await bench.node.call("Slow", "c", "try_to_load"))

    bench.does = lambda _state, _context: call_back()
    async with bench.run(store) as node:
        assert await node.call("Slow", "c", "wait_for", "a") == "waited"
        await until(lambda: "ended" in bench.log)
    assert "loaded" in bench.log
    assert bench.told(hooks.MigrationFailed) == 0


async def test_a_migration_sees_the_context_of_its_caller(store: Store, bench: Bench) -> None:
    bench.gate.set()
    bench.does = lambda state, _context: state.update(where=WHERE.get())
    WHERE.set("here")
    async with bench.run(store) as node, node.activate("Slow", "a") as activation:
        assert await activation.state().migrate_and_load() == {"n": 11, "where": "here"}


# --- blocks ----------------------------------------------------------------------------------------------------------


async def test_a_block_may_load_again_and_gets_the_value_in_the_end(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        async with node.activate("Slow", "a") as activation:
            state = activation.state()
            for _ in range(2):
                with pytest.raises(errors.ActivationInProgressError):
                    await state.migrate_and_load()
            for use in (state.load, activation.state("o").load, lambda: activation.table("log").get("k")):
                with pytest.raises(errors.ActivationInProgressError):
                    await use()
            with pytest.raises(errors.NotLoadedError):
                assert state.value
            bench.gate.set()
            assert activation._holding.migrating is not None
            activation._holding.migrating.seconds = 10.0
            value = await state.migrate_and_load()
            assert value == {"n": 11}
            value["n"] += 1
            await activation.persist()
        assert await stored(store) == 12
    assert bench.log == ["begun", "ended"]


async def test_tables_of_a_block_can_be_used_once_the_migration_has_ended(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node, node.activate("Slow", "a") as activation:
        with pytest.raises(errors.ActivationInProgressError):
            await activation.state().migrate_and_load()
        bench.gate.set()
        assert activation._holding.migrating is not None
        await asyncio.wait([activation._holding.migrating.task])
        await activation.table("log").put("k", 1)
        assert await activation.table("log").get("k") == 1


async def test_a_block_that_loads_again_gets_what_the_migration_failed_with_once(store: Store, bench: Bench) -> None:
    async def fail() -> None:
        raise ValueError("as asked")

    bench.does = lambda _state, _context: fail()
    async with bench.run(store) as node:
        async with node.activate("Slow", "a") as activation:
            with pytest.raises(errors.ActivationInProgressError):
                await activation.state().migrate_and_load()
            bench.gate.set()
            await until(lambda: activation._holding.migrating is not None and activation._holding.migrating.task.done())
            bench.does = lambda _state, _context: None
            await rollout.retry(store, "Slow")
            with pytest.raises(errors.MigrationFailedError, match="as asked"):
                await activation.state().migrate_and_load()
            assert bench.log == ["begun"]
            assert await activation.state().migrate_and_load() == {"n": 11}
        assert bench.told(hooks.MigrationFailed) == 1
        assert node._residents.active == 0


async def test_a_block_left_meanwhile_keeps_the_lock_until_the_migration_has_ended(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        with pytest.raises(errors.ActivationInProgressError):
            async with node.activate("Slow", "a") as activation:
                await activation.state().migrate_and_load()
        for seconds, waited in ((None, SOON), (0, 0), (SOON, SOON)):
            with pytest.raises(errors.ActivationInProgressError) as caught:
                async with node.activate("Slow", "a", wait_seconds=seconds):
                    pass
            assert caught.value.waited_seconds == waited
        waiting = asyncio.create_task(load(node))
        await settle()
        bench.gate.set()
        assert await waiting == {"n": 11}
    assert bench.log == ["begun", "ended"]


async def test_a_state_that_a_migration_changes_is_not_read_or_reset_by_a_block_meanwhile(
    store: Store, bench: Bench
) -> None:
    async def change(state: dict[str, Any], context: Activation) -> None:
        other = context.state("other")
        value = await other.migrate_and_load(default={})
        value["changed"] = True
        bench.begun.set()
        await again.wait()

    again = asyncio.Event()
    bench.does = change
    bench.gate.set()
    async with bench.run(store) as node, node.activate("Slow", "a") as activation:
        other = activation.state("other")
        bench.begun.clear()
        with pytest.raises(errors.ActivationInProgressError):
            await activation.state().migrate_and_load()
        with pytest.raises(errors.NotLoadedError):
            assert other.value
        for load in (other.load, other.migrate_and_load):
            with pytest.raises(errors.ActivationInProgressError):
                await load()
        again.set()
        await until(lambda: activation._holding.plan is not None)
        assert await other.load() == {"changed": True}


async def test_a_task_that_still_waits_when_its_block_is_left_takes_the_migration_with_it(
    store: Store, bench: Bench
) -> None:
    async with bench.run(store, activation_seconds=3 * SOON) as node:
        async with node.activate("Slow", "a") as activation:
            loading = asyncio.create_task(activation.state().migrate_and_load())
            await bench.begun.wait()
        with pytest.raises(errors.LeaseLostError):
            await loading
        assert bench.log == ["begun", "cancelled"]
        assert await stored(store) == 1


async def test_tasks_of_a_block_each_wait_for_their_own_time(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node, node.activate("Slow", "a") as activation:
        loads = [asyncio.create_task(activation.state(name).migrate_and_load()) for name in (None, "b", "c")]
        await asyncio.wait(loads)
        assert [type(load.exception()) for load in loads] == [errors.ActivationInProgressError] * 3
        bench.gate.set()
        await until(lambda: activation._holding.plan is not None)
    assert bench.log == ["begun", "ended"]
