"""How many migrations run at once on a node: never more than it was told, in order, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors, rollout
from lazymig.fleet import Membership
from tests.slow import nothing_left
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lazymig.store import Store

NAMES = "abcdef"
SOON = 0.02


class Fleet:
    """Actors whose migration waits for a gate of its own, and what happened.

    Attributes:
        log: What began and ended, in order.
        gates: By actor; open where there is none.
        does: What the migration of an actor does before its gate.
    """

    def __init__(self, *gated: str) -> None:
        self.log: list[str] = []
        self.gates = {name: asyncio.Event() for name in gated}
        self.does: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.running: set[str] = set()
        self.most = 0
        self.suite = Suite("fleet")
        tug: type[Tug] = type("Tug", (Tug,), {"fleet": self})
        self.tug = self.suite.actor_type("Tug", tug, context_factory=lambda activation: activation.key.id)
        self.tug.migration("1.0.0")(self._migrate)

    async def _migrate(self, state: dict[str, Any], name: str) -> None:
        self.log.append(f"{name} begun")
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        try:
            if name in self.does:
                await self.does[name]()
            if name in self.gates:
                await self.gates[name].wait()
            else:
                await settle()
        finally:
            self.running.discard(name)
            self.log.append(f"{name} ended")

    def node(self, store: Store, count: int | None, **options: Any) -> Node:
        return Node(store, [self.suite], max_migrations=count, **{"hand_over_seconds": 5.0} | options)

    def begun(self) -> list[str]:
        return [entry.removesuffix(" begun") for entry in self.log if entry.endswith(" begun")]


class Tug(Actor):
    fleet: Fleet

    def __init__(self, activation: Activation) -> None:
        self.key = activation.key
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={})

    @action
    async def pull(self) -> str:
        return self.key.id

    @action
    async def ask(self, node: Node, other: str) -> str:
        """Call another actor; the node is handed by the test, in the same process."""
        return str(await node.call("Tug", other, "pull"))


@pytest.fixture
async def legacy(store: Store) -> AsyncIterator[Store]:
    async with nothing_left():
        await store.insert("Tug", "state", [(name, b"{}") for name in NAMES])
        yield store


def pulls(node: Node, names: str = NAMES) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(node.call("Tug", name, "pull")) for name in names]


async def pulls_in_turn(node: Node, names: str) -> list[asyncio.Task[Any]]:
    """Begin each call once the one before has its lock."""
    calls: list[asyncio.Task[Any]] = []
    for active, name in enumerate(names, node._residents.active + 1):
        calls += pulls(node, name)
        await until(lambda active=active: node._residents.active == active)  # type: ignore[misc]  # bound now
        await settle()
    return calls


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_never_more_run_at_once_and_as_many_as_may(legacy: Store, count: int) -> None:
    fleet = Fleet(*NAMES)
    async with fleet.node(legacy, count) as node:
        calls = pulls(node)
        for number in range(len(NAMES)):
            wanted = min(number + count, len(NAMES))
            await until(lambda wanted=wanted: len(fleet.begun()) == wanted)  # type: ignore[misc]  # bound now
            await settle()
            assert len(fleet.running) == wanted - number
            fleet.gates[fleet.begun()[number]].set()
        assert [*await asyncio.gather(*calls)] == [*NAMES]
    assert fleet.most == count


async def test_without_a_bound_all_run_at_once(legacy: Store) -> None:
    fleet = Fleet(*NAMES)
    async with fleet.node(legacy, None) as node:
        calls = pulls(node)
        await until(lambda: len(fleet.running) == len(NAMES))
        for gate in fleet.gates.values():
            gate.set()
        await asyncio.gather(*calls)


async def test_who_came_first_is_first(legacy: Store) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1) as node:
        calls = await pulls_in_turn(node, NAMES)
        fleet.gates["a"].set()
        await asyncio.gather(*calls)
    assert fleet.log == [f"{name} {what}" for name in NAMES for what in ("begun", "ended")]


async def test_plain_functions_count_too_until_they_are_stored(legacy: Store) -> None:
    suite = Suite("fleet")
    ran: list[str] = []
    tug = suite.actor_type("Tug", context_factory=lambda activation: activation.key.id)
    tug.migration("1.0.0")(lambda state, name: ran.append(name))

    async def load(node: Node, name: str) -> None:
        async with node.activate("Tug", name) as activation:
            await activation.state().migrate_and_load()
            assert activation.info is not None
            ran.append(f"{name} stored")

    async with Node(legacy, [suite], max_migrations=1) as node:
        await asyncio.gather(*(load(node, name) for name in NAMES))
    assert sorted(ran) == sorted([*NAMES, *(f"{name} stored" for name in NAMES)])
    assert dict((await rollout.census(legacy, "Tug")).versions) == {tug.supported: len(NAMES)}


async def test_actors_with_nothing_to_run_do_not_wait(legacy: Store) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1) as node:
        assert await node.call("Tug", "b", "pull") == "b"
        (call,) = pulls(node, "a")
        await until(lambda: fleet.running == {"a"})
        assert await node.call("Tug", "b", "pull") == "b"
        assert await node.call("Tug", "new", "pull") == "new"
        fleet.gates["a"].set()
        assert await call == "a"


async def test_who_is_cancelled_while_it_waits_leaves_lock_and_place(legacy: Store) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1) as node:
        first, second, third = await pulls_in_turn(node, "abc")
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await until(lambda: node._residents.active == 2)
        fleet.gates["a"].set()
        assert [await first, await third] == ["a", "c"]
        assert fleet.begun() == ["a", "c"]
        assert await legacy.failures.page() == []
        assert await node.call("Tug", "b", "pull") == "b"


async def test_waiting_counts_as_migrating_to_who_has_no_patience(legacy: Store) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1, activation_seconds=SOON) as node:
        for name in "ab":
            with pytest.raises(errors.ActivationInProgressError):
                await node.call("Tug", name, "pull")
        assert fleet.log == ["a begun"]
        fleet.gates["a"].set()
        await until(lambda: fleet.log == ["a begun", "a ended", "b begun", "b ended"])
        await until(lambda: node._residents.active == 0)
        assert await node.call("Tug", "b", "pull") == "b"


async def test_what_outlasts_its_caller_keeps_its_slot_until_it_ends(legacy: Store) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1, activation_seconds=SOON) as node:
        with pytest.raises(errors.ActivationInProgressError):
            await node.call("Tug", "a", "pull")
        with pytest.raises(errors.ActivationInProgressError):
            await node.call("Tug", "b", "pull")
        assert fleet.running == {"a"}
        fleet.gates["a"].set()
        await until(lambda: fleet.log[-1:] == ["b ended"])
    assert fleet.most == 1


async def test_one_that_fails_gives_its_slot_up(legacy: Store) -> None:
    fleet = Fleet()

    async def fail() -> None:
        raise ValueError("as asked")

    fleet.does["a"] = fail
    async with fleet.node(legacy, 1) as node:
        first, second = pulls(node, "ab")
        with pytest.raises(errors.MigrationFailedError):
            await first
        assert await second == "b"
        with pytest.raises(errors.QuarantinedError):
            await node.call("Tug", "a", "pull")


async def test_a_lock_that_is_lost_meanwhile_lets_nothing_run(legacy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1) as node:
        first, second = await pulls_in_turn(node, "ab")
        monkeypatch.setattr(Membership, "is_fresh", False)
        fleet.gates["a"].set()
        for call in (first, second):
            with pytest.raises(errors.LeaseLostError):
                await call
        monkeypatch.undo()
    assert fleet.begun() == ["a"]


async def test_a_node_that_stops_leaves_nobody_waiting(legacy: Store) -> None:
    fleet = Fleet("a")
    async with fleet.node(legacy, 1, activation_seconds=SOON, grace_seconds=SOON) as node:
        for name in "ab":
            with pytest.raises(errors.ActivationInProgressError):
                await node.call("Tug", name, "pull")
    assert fleet.log == ["a begun", "a ended"]


# --- migrations that call other actors -------------------------------------------------------------------------------


async def test_a_migration_that_calls_an_actor_that_migrates_too_does_not_wait_for_itself(legacy: Store) -> None:
    fleet = Fleet()
    async with fleet.node(legacy, 1) as node:
        fleet.does["a"] = lambda: node.call("Tug", "b", "pull")
        fleet.does["b"] = lambda: node.call("Tug", "c", "pull")
        assert await node.call("Tug", "a", "pull") == "a"
    assert fleet.log == ["a begun", "b begun", "c begun", "c ended", "b ended", "a ended"]


async def test_nor_for_one_that_others_have_begun_to_activate(legacy: Store) -> None:
    fleet = Fleet()
    go = asyncio.Event()
    async with fleet.node(legacy, 1) as node:

        async def call_b() -> None:
            await go.wait()
            await node.call("Tug", "b", "pull")

        fleet.does["a"] = call_b
        calls = await pulls_in_turn(node, "ab")  # b is locked, and waits for the slot of a
        go.set()
        assert await asyncio.gather(*calls) == ["a", "b"]
    assert fleet.log == ["a begun", "b begun", "b ended", "a ended"]


async def test_nor_for_one_whose_action_waits_for_a_slot(legacy: Store) -> None:
    fleet = Fleet()
    go = asyncio.Event()
    async with fleet.node(legacy, 1) as node:
        assert await node.call("Tug", "b", "pull") == "b"
        fleet.log.clear()

        async def call_b() -> None:
            await go.wait()
            await node.call("Tug", "b", "pull")

        async def ask_c() -> None:
            async with node.activate("Tug", "b"):
                await node.call("Tug", "c", "pull")

        fleet.does["a"] = call_b
        (first,) = pulls(node, "a")
        await until(lambda: fleet.running == {"a"})
        second = asyncio.create_task(ask_c())  # b is busy until c has come up
        await until(lambda: node._residents.active == 3)
        await settle()
        go.set()
        await asyncio.gather(first, second)
    assert fleet.log == ["a begun", "c begun", "c ended", "a ended"]


async def test_nor_where_the_call_comes_back_from_another_node(legacy: Store) -> None:
    fleet, other = Fleet(), Suite("others")
    here: list[Node] = []

    class Far(Actor):
        @action
        async def far(self) -> str:
            return str(await here[1].call("Tug", "b", "pull"))

    other.actor_type("Far", Far)
    async with fleet.node(legacy, 1) as node, Node(legacy, [other], hand_over_seconds=5.0) as far:
        here += [node, far]
        fleet.does["a"] = lambda: node.call("Far", "x", "far")
        assert await node.call("Tug", "a", "pull") == "a"
    assert fleet.log == ["a begun", "b begun", "b ended", "a ended"]


async def test_a_migration_that_holds_another_actor_in_a_block_shares_its_turn_with_it(legacy: Store) -> None:
    fleet = Fleet()
    async with fleet.node(legacy, 1) as node:

        async def hold_b() -> None:
            async with node.activate("Tug", "b") as activation:
                await activation.state().migrate_and_load()

        fleet.does["a"] = hold_b
        assert await node.call("Tug", "a", "pull") == "a"
    assert fleet.log == ["a begun", "b begun", "b ended", "a ended"]


async def test_after_its_call_a_migration_goes_on_only_in_a_slot(legacy: Store) -> None:
    fleet = Fleet("b", "c")
    back: list[str] = []
    async with fleet.node(legacy, 1) as node:

        async def call_b() -> None:
            back.append(await node.call("Tug", "b", "pull"))

        fleet.does["a"] = call_b
        (first,) = pulls(node, "a")
        await until(lambda: "b" in fleet.running)
        (second,) = pulls(node, "c")
        await until(lambda: node._residents.active == 3)
        await settle()
        fleet.gates["b"].set()
        await until(lambda: "c" in fleet.running)
        await settle()
        assert (fleet.log, back) == (["a begun", "b begun", "b ended", "c begun"], [])
        fleet.gates["c"].set()
        assert [await first, await second] == ["a", "c"]
    assert fleet.log[-2:] == ["c ended", "a ended"]


async def test_a_call_that_is_cut_off_leaves_the_slot_to_others(legacy: Store) -> None:
    fleet = Fleet("b")

    async def give_up_soon() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON):
                await node.call("Tug", "b", "pull")

    async with fleet.node(legacy, 1) as node:
        fleet.does["a"] = give_up_soon
        assert await node.call("Tug", "a", "pull") == "a"
        assert await node.call("Tug", "c", "pull") == "c"
    assert fleet.log == ["a begun", "b begun", "b ended", "a ended", "c begun", "c ended"]


async def test_a_task_that_a_migration_left_behind_calls_as_anybody_does(legacy: Store) -> None:
    fleet = Fleet()
    left: list[asyncio.Task[Any]] = []
    go = asyncio.Event()
    async with fleet.node(legacy, 1) as node:

        async def later() -> Any:
            await go.wait()
            return await node.call("Tug", "b", "pull")

        async def leave() -> None:
            left.append(asyncio.create_task(later()))

        fleet.does["a"] = leave
        await node.call("Tug", "a", "pull")
        go.set()
        assert await left[0] == "b"
        assert not node._residents.slots.is_full  # type: ignore[union-attr]  # it has some
        assert node._residents.slots._free._value == 1  # type: ignore[union-attr]
