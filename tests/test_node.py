from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig import ActorType
    from lazymig.store import Store


class Counter(Actor):
    """Counts, and does what the tests ask for."""

    log: list[str]
    gate: asyncio.Event

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.state = activation.state()
        self.log.append("made")

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"n": 0})
        self.log.append("activated")

    async def deactivate(self) -> None:
        self.log.append("deactivated")

    @action
    async def add(self, number: int = 1, *, then: str = "") -> int:
        self.state.value["n"] += number
        if then == "wait":
            await self.gate.wait()
        if then == "fail":
            raise RuntimeError("as asked")
        if then == "persist and fail":
            await self.state.persist()
            raise RuntimeError("as asked")
        await self.state.persist()
        total: int = self.state.value["n"]
        return total

    @action(shared=True)
    async def read(self, *, then: str = "") -> int:
        self.log.append("reading")
        if then == "wait":
            await self.gate.wait()
        if then == "persist":
            await self.state.persist()
        if then == "clear":
            await self.state.clear()
        if then == "persist all":
            await self.activation.persist()
        self.log.append("read")
        total: int = self.state.value["n"]
        return total

    @action
    async def echo(self, value: Any) -> Any:
        self.log.append(repr(value))
        return value

    @action
    async def bad_result(self) -> Any:
        self.state.value["n"] = 1_000
        return {1, 2}

    async def hidden(self) -> None: ...


class Bench:
    """A suite of counters, and what they logged."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        counter: type[Counter] = type("Counter", (Counter,), {"log": self.log, "gate": self.gate})
        self.suite = Suite("bench")
        self.counter: ActorType[Counter] = self.suite.actor_type("Counter", counter)
        self.plain = self.suite.actor_type("Plain")


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0)


async def settle() -> None:
    """Let every task go as far as it can without the outside."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_exclusive_actions_take_turns_in_order(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        assert await asyncio.gather(*(counter.add() for _ in range(20))) == list(range(1, 21))
        assert bench.log == ["made", "activated"]


async def test_an_exclusive_action_waits_for_the_running_one(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        first = asyncio.create_task(counter.add(then="wait"))
        await until(lambda: "activated" in bench.log)
        second = asyncio.create_task(counter.read())
        await settle()
        assert "reading" not in bench.log
        bench.gate.set()
        assert (await first, await second) == (1, 1)


async def test_shared_actions_run_beside_each_other(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        readers = [asyncio.create_task(counter.read(then="wait")) for _ in range(3)]
        await until(lambda: bench.log.count("reading") == 3)
        writer = asyncio.create_task(counter.add())
        late_reader = asyncio.create_task(counter.read())
        await settle()
        assert bench.log.count("reading") == 3
        bench.gate.set()
        assert [await reader for reader in readers] == [0, 0, 0]
        assert (await writer, await late_reader) == (1, 1)
        assert bench.log.count("made") == 1


@pytest.mark.parametrize("then", ["persist", "clear", "persist all"])
async def test_a_shared_action_only_reads(store: Store, bench: Bench, then: str) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        await counter.add(5)
        with pytest.raises(errors.ReadOnlyActionError, match="'read' of Counter 'a' is a shared action"):
            await counter.read(then=then)
        assert await counter.add() == 6


@pytest.mark.parametrize("then", ["fail", "persist and fail"])
async def test_an_action_that_raises_leaves_no_trace(store: Store, bench: Bench, then: str) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        await counter.add(1)
        with pytest.raises(RuntimeError, match="as asked"):
            await counter.add(10, then=then)
        assert await counter.read() == (1 if then == "fail" else 11)
        assert bench.log.count("made") == 2
        assert "deactivated" not in bench.log


async def test_a_cancelled_action_leaves_no_trace_and_keeps_the_lock(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node, Node(store, [bench.suite], hand_over_seconds=0) as other:
        counter = node.actor(bench.counter, "a")
        await counter.add(1)
        task = asyncio.create_task(counter.add(10, then="wait"))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(errors.ActorLockedError) as caught:
            await other.actor(bench.counter, "a").read()
        assert caught.value.owner == node.node_id
        assert await counter.read() == 1


async def test_a_cancelled_waiter_passes_its_turn_on(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        first = asyncio.create_task(counter.add(then="wait"))
        await until(lambda: "activated" in bench.log)
        waiting = [asyncio.create_task(counter.add()) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        bench.gate.set()
        await asyncio.wait([first, *waiting])
        assert [task.cancelled() for task in waiting] == [True, False, False]
        assert waiting[2].result() == 3


async def test_a_result_that_is_no_json_counts_as_a_raise(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        with pytest.raises(errors.InvalidValueError, match="the result of bad_result on Counter 'a'"):
            await counter.bad_result()
        assert await counter.read() == 0


async def test_arguments_and_results_share_nothing(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        value = {"list": [1]}
        result = await node.actor(bench.counter, "a").echo(value)
        assert result == value
        assert result is not value
        assert result["list"] is not value["list"]
        with pytest.raises(errors.InvalidValueError, match=r"call of echo on Counter 'a'"):
            await node.call("Counter", "a", "echo", (1, 2))
        with pytest.raises(TypeError):
            await node.call("Counter", "a", "add", wrong=1)


async def test_unknown_types_and_actions_name_the_known_ones(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        with pytest.raises(errors.UnknownActorTypeError, match="Counter, Plain"):
            await node.actor("Conter", "a").add()
        with pytest.raises(errors.UnknownActorTypeError):
            async with node.activate("Conter", "a"):
                pass
        for name in ("hidden", "ad", "activate", "deactivate", "__init__"):
            with pytest.raises(errors.UnknownActionError, match="add, bad_result, echo, read"):
                await node.call("Counter", "a", name)
        with pytest.raises(errors.UnknownActionError, match="known: none"):
            await node.actor("Plain", "a").add()
        with pytest.raises(AttributeError):
            _ = node.actor("Counter", "a")._private
        with pytest.raises(errors.InvalidKeyError):
            node.actor("Counter", "")
    assert bench.log == []


class Caller(Actor):
    """Calls others through the node."""

    node: Node

    def __init__(self, activation: Activation) -> None:
        self.key = activation.key

    @action
    async def call(self, path: list[str]) -> str:
        if not path:
            return self.key.id
        return str(await self.node.call("Caller", path[0], "call", path[1:]))

    @action
    async def hold(self, actor_id: str) -> None:
        async with self.node.activate("Caller", actor_id):
            pass

    @action
    async def call_later(self) -> None:
        asyncio.get_running_loop().call_soon(lambda: None)
        self.later.append(asyncio.create_task(self.node.call("Caller", self.key.id, "late")))

    @action
    async def late(self) -> str:
        return "late"

    later: list[asyncio.Task[Any]]


async def test_an_actor_that_waits_for_itself_gets_an_error(store: Store) -> None:
    suite = Suite("callers")
    caller: type[Caller] = type("Caller", (Caller,), {"later": []})
    suite.actor_type("Caller", caller)
    async with Node(store, [suite]) as node:
        caller.node = node
        assert await node.call("Caller", "a", "call", ["b", "c"]) == "c"
        for path in (["a"], ["b", "a"], ["b", "c", "b"]):
            with pytest.raises(errors.ReentrantCallError, match="waits for itself"):
                await node.call("Caller", "a", "call", path)
        with pytest.raises(errors.ReentrantCallError) as caught:
            await node.call("Caller", "a", "hold", "a")
        assert [key.id for key in (*caught.value.chain, caught.value.key)] == ["a", "a"]
        await node.call("Caller", "a", "call_later")
        assert await caller.later[0] == "late"


async def test_a_second_activation_in_the_process_queues(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite], hand_over_seconds=0) as node:
        entered: list[str] = []

        async def second() -> None:
            async with node.activate("Plain", "a") as activation:
                entered.append("second")
                assert await activation.state().load() == {"x": 1}

        async with node.activate("Plain", "a") as activation:
            task = asyncio.create_task(second())
            await activation.state().migrate_and_load(default={"x": 1})
            await settle()
            assert entered == []
            with pytest.raises(errors.ActorLockedError) as caught:
                async with node.activate("Plain", "a", wait_seconds=0):
                    pass
            assert caught.value.owner == node.node_id
            with pytest.raises(errors.ReentrantCallError):
                async with node.activate("Plain", "a"):
                    pass
            await activation.persist()
        await task
        assert entered == ["second"]


async def test_node_activate_takes_the_place_of_the_actor_object(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node:
        counter = node.actor(bench.counter, "a")
        await counter.add(1)
        async with node.activate(bench.counter, "a") as activation:
            assert bench.log[-1] == "deactivated"
            await activation.state().migrate_and_load()
            activation.state().value["n"] = 50
            await activation.persist()
        assert await counter.read() == 50


async def test_an_activation_stays_locked_until_it_is_left(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite]) as node, Node(store, [bench.suite]) as other:
        async with node.activate("Plain", "a"):
            with pytest.raises(errors.ActorLockedError) as caught:
                async with other.activate("Plain", "a", wait_seconds=0.02):
                    pass
            assert caught.value.owner == node.node_id
            waiting = asyncio.create_task(hold(other))
            await settle()
        await waiting


async def hold(node: Node) -> None:
    async with node.activate("Plain", "a"):
        pass
