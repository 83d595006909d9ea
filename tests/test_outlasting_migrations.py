"""What becomes of a migration that outlasts its callers, of its lock and of its node; and which ones may."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from lazymig import Node, Suite, errors, hooks
from lazymig._migrating import Migrating
from tests.slow import KEY, SOON, Bench, insert, leave_in_progress, load, nothing_left, stored
from tests.test_costs import tasks_counted
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store


@pytest.fixture
async def bench(store: Store) -> AsyncIterator[Bench]:
    async with nothing_left():
        await insert(store)
        yield Bench()


# --- the lock, and the node's end ------------------------------------------------------------------------------------


async def test_heartbeats_keep_the_lock(store: Store, bench: Bench) -> None:
    async with bench.run(store, lease_seconds=1.0) as node, Node(store, [bench.suite]) as other:
        await leave_in_progress(bench)
        since = node._membership.clock()
        async with asyncio.timeout(20):
            while node._membership._acknowledged < since + 1.1:
                with pytest.raises(errors.ActorLockedError) as caught:
                    async with other.activate("Slow", "a", wait_seconds=0):
                        pass
                assert caught.value.owner == node.node_id
        waiting = asyncio.create_task(load(other))
        await until(lambda: KEY in node._residents._wanted)
        bench.gate.set()
        assert await waiting == {"n": 11}
    assert bench.log == ["begun", "ended"]


async def test_who_waits_on_another_node_gets_the_actor_before_those_who_come_after(store: Store, bench: Bench) -> None:
    got: list[str] = []

    async def get(node: Node, name: str) -> None:
        await load(node)
        got.append(name)

    async with bench.run(store) as node, Node(store, [bench.suite]) as other:
        await leave_in_progress(bench)
        waiting = asyncio.create_task(get(other, "other"))
        await until(lambda: KEY in node._residents._wanted)
        late = asyncio.create_task(get(node, "here"))
        await settle()
        bench.gate.set()
        await asyncio.gather(waiting, late)
    assert got == ["other", "here"]


async def test_a_stopping_node_lets_the_migration_end(store: Store, bench: Bench) -> None:
    async with bench.run(store):
        await leave_in_progress(bench)
        asyncio.get_running_loop().call_later(SOON, bench.gate.set)
    assert bench.log == ["begun", "ended"]
    assert await stored(store) == 11


async def test_beyond_the_grace_time_the_migration_is_cancelled(store: Store, bench: Bench) -> None:
    bench.cleaning_seconds = SOON
    async with bench.run(store, grace_seconds=SOON) as node:
        await leave_in_progress(bench)
        waiting = [asyncio.create_task(node.call("Slow", "a", name)) for name in ("add", "read")]
        node._residents.finishing.seconds = 10.0
    assert bench.log == ["begun", "cancelled"]
    for call in waiting:
        with pytest.raises((errors.NodeStoppedError, errors.ActivationInProgressError)):
            await call
    found = await store.read(KEY)
    assert found is not None
    assert (await stored(store), found.owner) == (1, None)


async def test_a_caller_whose_node_stops_takes_the_migration_with_it(store: Store, bench: Bench) -> None:
    async with bench.run(store, grace_seconds=SOON, activation_seconds=5 * SOON) as node:
        call = asyncio.create_task(node.call("Slow", "a", "add"))
        await bench.begun.wait()
    with pytest.raises(errors.LeaseLostError):
        await call
    assert bench.log == ["begun", "cancelled"]
    assert await stored(store) == 1


async def test_a_block_left_after_its_node_takes_the_migration_with_it(store: Store, bench: Bench) -> None:
    left, inside = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with node.activate("Slow", "a") as activation:
            with pytest.raises(errors.ActivationInProgressError):
                await activation.state().migrate_and_load()
            inside.set()
            await left.wait()

    async with bench.run(store, grace_seconds=SOON) as node:
        block = asyncio.create_task(hold())
        await inside.wait()
    assert bench.log == ["begun"]
    left.set()
    await block
    await until(lambda: bench.log == ["begun", "cancelled"])
    assert await stored(store) == 1


async def test_draining_waits_for_the_migration(store: Store, bench: Bench) -> None:
    async with bench.run(store) as node:
        await leave_in_progress(bench)
        draining = asyncio.create_task(node.drain())
        await asyncio.wait([draining], timeout=3 * SOON)
        assert not draining.done()
        assert (node._residents.active, node._residents.idle_for(KEY)) == (1, 0.0)
        bench.gate.set()
        await draining
        assert bench.log == ["begun", "ended"]
        assert node._residents.active == 0


async def test_a_migration_that_outlasted_its_caller_is_cancelled_when_the_lease_is_lost(
    store: Store, bench: Bench
) -> None:
    async with bench.run(store) as node:
        await leave_in_progress(bench)
        node._membership.expire()
        await node._residents.locks.trust()
        await until(lambda: "cancelled" in bench.log)
        assert await stored(store) == 1
        bench.gate.set()
        assert await node.call("Slow", "a", "add") == 12
        assert bench.told(hooks.LeaseLost) == 1
        assert bench.told(hooks.MigrationFailed) == 0


async def test_a_migration_that_a_block_waits_for_stores_nothing_when_the_lease_is_lost(
    store: Store, bench: Bench
) -> None:
    async with bench.run(store) as node:
        async with node.activate("Slow", "a") as activation:
            with pytest.raises(errors.ActivationInProgressError):
                await activation.state().migrate_and_load()
            node._membership.expire()
            await node._residents.locks.trust()
            with pytest.raises(errors.LeaseLostError):
                await activation.state().migrate_and_load()
            bench.gate.set()
            with pytest.raises(errors.LeaseLostError):
                await activation.state().migrate_and_load()
        assert await stored(store) == 1
    async with bench.run(store, activation_seconds=10.0) as node:  # of any disk's speed
        assert await node.call("Slow", "a", "add") == 12


# --- cancellation ----------------------------------------------------------------------------------------------------


async def test_a_cancelled_scope_takes_the_migration_with_it(store: Store, bench: Bench) -> None:
    async with bench.run(store, activation_seconds=10.0) as node:
        with anyio.move_on_after(SOON) as scope:
            await node.call("Slow", "a", "add")
        assert scope.cancelled_caught
        assert set(bench.log) == {"begun", "cancelled"}
        assert await stored(store) == 1


async def test_a_migration_that_goes_on_though_it_is_cancelled_is_waited_for() -> None:
    async def go_on() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            done.append("all the same")

    done: list[str] = []
    migrating = Migrating(KEY, go_on, 10.0)
    waiting = asyncio.create_task(migrating.end_in_time())
    await settle()
    waiting.cancel()
    assert await waiting
    assert done == ["all the same"]


async def test_a_migration_cancelled_before_it_began_leaves_nothing() -> None:
    async def run() -> None:
        raise AssertionError("it began")

    migrating = Migrating(KEY, run, 10.0)
    migrating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await migrating.end_in_time()


async def test_a_caller_cancelled_in_the_turn_in_which_its_time_is_over_takes_the_migration_with_it() -> None:
    async def run() -> None:
        await asyncio.Event().wait()

    migrating = Migrating(KEY, run, 0.0)
    waiting = asyncio.create_task(migrating.end_in_time())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.0, waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert migrating.task.cancelled()


# --- entries ---------------------------------------------------------------------------------------------------------


async def test_an_eager_conversion_goes_on_without_its_caller(store: Store, bench: Bench) -> None:
    begun, gate, converted = asyncio.Event(), asyncio.Event(), []
    suite = Suite("eager")
    plain = suite.actor_type("Plain")
    async with Node(store, [suite]) as node, node.activate("Plain", "a") as activation:
        await activation.state().migrate_and_load(default={})
        for number in range(3):
            await activation.table("log").put(str(number), {"n": number})
        await activation.persist()
    newer = Suite("eager")
    plain = newer.actor_type("Plain")

    @plain.migration("1.0.0")
    def one(state: Any, context: Any) -> None:
        """Leave the state alone."""

    @one.entries("log", eager=True)
    async def convert(entry: Any, context: Any) -> None:
        converted.append(entry["n"])
        begun.set()
        await gate.wait()
        entry["n"] += 10

    async with Node(store, [newer], activation_seconds=SOON) as node:
        with pytest.raises(errors.ActivationInProgressError, match="of its entries"):
            async with node.activate("Plain", "a") as activation:
                await activation.state().migrate_and_load()
        gate.set()
        async with node.activate("Plain", "a", wait_seconds=10) as activation:
            await activation.state().migrate_and_load()
            assert [entry async for entry in activation.table("log").scan()] == [
                ("0", {"n": 10}), ("1", {"n": 11}), ("2", {"n": 12})
            ]  # fmt: skip
    assert converted == [0, 1, 2]


# --- which migrations may take long ----------------------------------------------------------------------------------


class Async:
    async def __call__(self, state: Any, context: Any) -> None:
        """Do nothing."""


class Plain:
    def __call__(self, state: Any, context: Any) -> None:
        """Do nothing."""


def plain(state: Any, context: Any, more: int = 0) -> None:
    """Do nothing."""


async def slow(state: Any, context: Any, more: int = 0) -> None:
    """Do nothing."""


@functools.wraps(slow)
def wrapped(state: Any, context: Any) -> Any:
    return slow(state, context)


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (plain, False),
        (slow, True),
        (functools.partial(plain, more=1), False),
        (functools.partial(slow, more=1), True),
        (functools.partial(functools.partial(Async()), more=1), True),
        (Plain(), False),
        (Async(), True),
        (Plain().__call__, False),
        (Async().__call__, True),
        (wrapped, True),
        (functools.partial(wrapped), True),
        (Suite("other").actor_type("Other").migration("1.0.0")(slow), True),
        (dict.update, False),
    ],
)
def test_what_is_async_is_known_from_its_registration(function: Any, is_async: bool) -> None:  # noqa: FBT001
    migration = Suite("tried").actor_type("Tried").migration("1.0.0")(function)
    assert migration.is_async is is_async


@pytest.mark.parametrize(("function", "tasks"), [(plain, 0), (slow, 1)])
async def test_only_what_may_take_long_gets_a_task(store: Store, function: Any, tasks: int) -> None:
    suite = Suite("few")
    suite.actor_type("Few").migration("1.0.0")(function)
    await store.insert("Few", "state", [("a", b"{}"), ("b", b"{}")])
    async with Node(store, [suite]) as node, node.activate("Few", "a") as activation, tasks_counted() as made:
        await activation.state().migrate_and_load()
        await activation.state().migrate_and_load()
    assert [coroutine.__qualname__ for coroutine in made].count("Migrating._run") == tasks


@pytest.mark.parametrize("seconds", [0, -1, "30", None, float("nan"), True])
def test_a_node_refuses_what_is_no_time(seconds: Any) -> None:
    with pytest.raises(errors.DefinitionError, match="activation_seconds"):
        Node(object(), activation_seconds=seconds)  # type: ignore[arg-type]
