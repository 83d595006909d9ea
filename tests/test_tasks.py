"""Several tasks at work within one activation, and tasks that outlive what they were begun in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig._turn import TURN
from lazymig.testing import Fault, FaultyStore

if TYPE_CHECKING:
    from lazymig.store import Store


def plain(*migrations: Any) -> Suite:
    suite = Suite("plain")
    box = suite.actor_type("Box", state="main", context_factory=lambda activation: activation)
    for number, function in enumerate(migrations, 1):
        box.migration(f"{number}.0.0")(function)
    return suite


async def test_two_states_may_be_persisted_at_once(store: Store) -> None:
    async with Node(store, [plain()]) as node, node.activate("Box", "a") as activation:
        first, second = activation.state(), activation.state("other")
        await asyncio.gather(first.migrate_and_load(default={"n": 1}), second.migrate_and_load(default={"n": 2}))
        await asyncio.gather(first.persist(), second.persist())
        record = await node.inspect("Box", "a")
    assert record is not None
    assert record.states == {"main": {"n": 1}, "other": {"n": 2}}


async def test_a_load_beside_a_persist_never_brings_an_acknowledged_value_back(store: Store) -> None:
    async with Node(store, [plain()]) as node, node.activate("Box", "a") as activation:
        state = activation.state()
        await state.migrate_and_load(default={"n": 1})
        await state.persist()
        state.value["n"] = 2
        persisting = asyncio.create_task(state.persist())
        await asyncio.sleep(0)
        await asyncio.gather(persisting, state.load())
        await state.persist()
        record = await node.inspect("Box", "a")
    assert record is not None
    assert record.states == {"main": {"n": 2}}


async def test_a_load_beside_a_migration_stays_loaded(store: Store) -> None:
    async def slow(state: Any, context: Activation) -> None:
        await asyncio.sleep(0)
        state["done"] = True

    await store.insert("Box", "main", [("a", b"{}")])
    async with Node(store, [plain(slow)]) as node, node.activate("Box", "a") as activation:
        main, other = activation.state(), activation.state("other")
        await asyncio.gather(main.migrate_and_load(), other.load())
        assert (main.value, other.value) == ({"done": True}, None)


async def test_two_loaders_and_an_unknown_outcome_migrate_once(store: Store) -> None:
    ran: list[int] = []
    faulty = FaultyStore(store)
    await store.insert("Box", "main", [("a", b"{}")])
    async with Node(faulty, [plain(lambda state, context: ran.append(1))]) as node:
        faulty.arm(Fault(1, "after", "error"))
        async with node.activate("Box", "a") as activation:
            states = [activation.state(), activation.state("other")]
            found = await asyncio.gather(*(state.migrate_and_load() for state in states), return_exceptions=True)
            assert [type(one) for one in found] == [errors.StoreUnavailableError, type(None)]
    assert (ran, (await store.scan("Box"))[0].revision) == ([1], 2)


async def test_an_unsaved_change_survives_another_state_s_migration(store: Store) -> None:
    await store.insert("Box", "main", [("a", b"{}")])
    async with Node(store, [plain(lambda state, context: None)]) as node, node.activate("Box", "a") as activation:
        other = activation.state("other")
        await other.load()
        other.value = ["unsaved"]
        await activation.state().migrate_and_load()
        assert other.value == ["unsaved"]
        await activation.persist()
        record = await node.inspect("Box", "a")
    assert record is not None
    assert record.states["other"] == ["unsaved"]


async def test_a_task_that_outlives_its_migration_stores_for_good(store: Store) -> None:
    tasks: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    def leave_task(state: Any, context: Activation) -> None:
        async def later() -> None:
            await go.wait()
            await context.state("other").migrate_and_load(default={"n": 1})
            context.state("other").value["n"] = 2
            await context.state("other").persist()

        tasks.append(asyncio.create_task(later()))

    await store.insert("Box", "main", [("a", b"{}")])
    async with Node(store, [plain(leave_task)]) as node, node.activate("Box", "a") as activation:
        await activation.state().migrate_and_load()
        go.set()
        await tasks[0]
        record = await node.inspect("Box", "a")
    assert record is not None
    assert record.states["other"] == {"n": 2}


async def test_an_inferred_version_is_of_the_value_that_is_stored(store: Store) -> None:
    suite = Suite("plain")
    box = suite.actor_type("Box", state="main", infer_version=lambda value: value["version"])
    box.migration("1.0.0")(lambda state, context: None)
    box.migration("2.0.0")(lambda state, context: state.update(ran=True))
    await store.insert("Box", "main", [("a", b'{"version":"1.0.0"}')])
    async with Node(store, [suite]) as node, node.activate("Box", "a") as activation:
        state = activation.state()
        await state.load()
        state.value = {"version": "2.0.0"}
        await state.persist()
        assert await state.migrate_and_load() == {"version": "2.0.0"}


async def test_without_a_main_state_the_last_writer_s_major_counts(store: Store) -> None:
    older, newer = plain(lambda state, context: None), plain(lambda state, context: None, lambda state, context: None)
    async with Node(store, [older]) as node, node.activate("Box", "a") as activation:
        await activation.state().migrate_and_load(default={})
        await activation.state("log").migrate_and_load(default=[])
        await activation.persist()
        await activation.state().clear()
    async with Node(store, [newer]) as node, node.activate("Box", "a") as activation:
        await activation.state("log").migrate_and_load()
        activation.state("log").value = {"shape": "of 2.0.0"}
        await activation.persist()
    async with Node(store, [older]) as node, node.activate("Box", "a") as activation:
        for load in (activation.state("log").load, activation.state().migrate_and_load):
            with pytest.raises(errors.NewerStateError):
                await load()


async def test_a_shared_action_brings_nothing_up(store: Store) -> None:
    class Lazy(Actor):
        def __init__(self, activation: Activation) -> None:
            self.state = activation.state()

        @action(shared=True)
        async def look(self) -> Any:
            return await self.state.migrate_and_load()

    suite = Suite("lazy")
    suite.actor_type("Lazy", Lazy).migration("1.0.0")(lambda state, context: state.update(up=True))
    await store.insert("Lazy", "state", [("a", b"{}")])
    async with Node(store, [suite]) as node:
        with pytest.raises(errors.ReadOnlyActionError):
            await node.call("Lazy", "a", "look")
    assert (await store.scan("Lazy"))[0].states == {"state": b"{}"}


async def test_a_chain_of_tasks_keeps_no_ended_turn(store: Store) -> None:
    depths: list[int] = []

    class Ticker(Actor):
        node: Node
        done: asyncio.Event

        def __init__(self, activation: Activation) -> None:
            self.key = activation.key

        @action
        async def tick(self, left: int) -> None:
            turn, depth = TURN.get(), 0
            while turn is not None:
                turn, depth = turn.parent, depth + 1
            depths.append(depth)
            if left:
                loop = asyncio.get_running_loop()
                loop.call_soon(lambda: tasks.append(loop.create_task(self.node.call("Ticker", "a", "tick", left - 1))))
            else:
                self.done.set()

    tasks: list[asyncio.Task[Any]] = []
    suite = Suite("ticker")
    suite.actor_type("Ticker", Ticker)
    async with Node(store, [suite]) as node:
        Ticker.node, Ticker.done = node, asyncio.Event()
        await node.call("Ticker", "a", "tick", 50)
        await Ticker.done.wait()
        await asyncio.gather(*tasks)
    assert len(depths) == 51
    assert max(depths) <= 2
