"""Every store call of each scenario fails or is cut off, before and after it took effect; the rules hold afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig.memory import MemoryStore
from lazymig.sqlite import open_sqlite
from lazymig.testing import Fault, FaultyStore, ManualClock, release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from lazymig._records import StoredActor
    from lazymig.store import Store

LEASE_SECONDS = 30.0
LEGACY = b'{"n":0,"note":"hi"}'

suite = Suite("faults")


class Account(Actor):
    """Persists wherever it can, as careless code does."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"n": 0})

    async def deactivate(self) -> None:
        self.state.value["bye"] = True
        await self.state.persist()

    @action
    async def add(self, number: int) -> int:
        self.state.value["n"] += number
        await self.state.persist()
        total: int = self.state.value["n"]
        return total

    @action
    async def spoil(self) -> None:
        self.state.value["n"] = -1_000
        raise RuntimeError("as asked")


account = suite.actor_type("Account", Account, state="main", context_factory=lambda a: a)


@account.migration("1.0.0")
def by_hundreds(state: Any, context: Activation) -> None:
    state["n"] += 100


@account.migration("1.1.0")
async def move_note(state: Any, context: Activation) -> None:
    notes = await context.state("notes").migrate_and_load(default=[])
    notes.append(state.pop("note"))


@account.migration("2.0.0")
def by_thousands(state: Any, context: Activation) -> Any:
    return {**state, "n": state["n"] + 1_000}


class Scenario(Protocol):
    """Works on actor "a" through a node; notes every revision that was acknowledged to it."""

    def __call__(self, node: Node, acknowledged: list[int]) -> Awaitable[None]: ...


async def revision(node: Node) -> int:
    record = await node.inspect("Account", "a")
    assert record is not None
    return record.revision


async def by_block(node: Node, acknowledged: list[int]) -> None:
    async with node.activate("Account", "a") as activation:
        state = activation.state()
        await state.migrate_and_load()
        acknowledged.append(2)
        for step in range(2):
            state.value["n"] += 1
            await activation.persist()
            acknowledged.append(3 + step)
        await activation.state("notes").load()
        await activation.state("notes").clear()
        acknowledged.append(5)
        state.value["n"] += 1
        await activation.persist(release=True)
        acknowledged.append(6)


async def by_calls(node: Node, acknowledged: list[int]) -> None:
    proxy = node.actor(account, "a")
    assert await proxy.add(1) == 1_101
    acknowledged.append(3)
    with pytest.raises(RuntimeError, match="as asked"):
        await proxy.spoil()
    assert await proxy.add(1) == 1_102
    acknowledged.append(4)


async def by_load(node: Node, acknowledged: list[int]) -> None:
    async with node.activate("Account", "a") as activation:
        value = await activation.state().load()
        assert value is not None
        value["n"] = 7
        await activation.persist()
        acknowledged.append(2)


async def on_a_new_actor(node: Node, acknowledged: list[int]) -> None:
    proxy = node.actor(account, "new")
    assert await proxy.add(1) == 1


SCENARIOS: dict[str, Scenario] = {f.__name__: f for f in (by_block, by_calls, by_load, on_a_new_actor)}
FAULTS = [("before", "error"), ("after", "error"), ("before", "cancel"), ("after", "cancel")]
INTERRUPTS = [("before", "interrupt"), ("after", "interrupt")]


@asynccontextmanager
async def opened(kind: str, folder: Path, clock: ManualClock) -> AsyncIterator[Store]:
    if kind == "memory":
        yield MemoryStore(clock)
    else:
        async with open_sqlite(folder / "store.db", synchronous="normal", clock=clock) as store:
            yield store


async def attempt(
    store: FaultyStore, scenario: Scenario, fault: Fault | None
) -> tuple[list[int], BaseException | None]:
    """Run a scenario under a fault in a task of its own; return what was acknowledged, and what it died of."""
    acknowledged: list[int] = []

    async def run() -> None:
        store.arm(fault, asyncio.current_task())
        async with Node(store, [suite], hand_over_seconds=0, lease_seconds=LEASE_SECONDS) as node:
            await scenario(node, acknowledged)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
    return acknowledged, error


async def history(kind: str, folder: Path, scenario: Scenario) -> tuple[int, list[Any]]:
    """Return how many calls the scenario makes, and every state the actor goes through, without faults."""
    snapshots: list[Any] = []
    async with opened(kind, folder, ManualClock()) as inner:
        await inner.insert("Account", "main", [("a", LEGACY)])
        watched = Watched(inner, snapshots)
        await watched.note()
        _, error = await attempt(watched, scenario, None)
        assert error is None
        return len(watched.calls), snapshots


class Watched(FaultyStore):
    """Notes what is stored after every commit."""

    def __init__(self, store: Store, snapshots: list[Any]) -> None:
        super().__init__(store)
        self._inner = store
        self._snapshots = snapshots

    async def note(self) -> None:
        self._snapshots.append([shape(actor) for actor in await self._inner.scan("Account")])

    async def commit(self, commit: Any) -> int:
        found = await super().commit(commit)
        await self.note()
        return found


def shape(actor: StoredActor) -> tuple[Any, ...]:
    applied = None if actor.stamp is None else actor.stamp.applied
    return (actor.key.id, actor.revision, applied, dict(actor.states))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize(("when", "how"), FAULTS + INTERRUPTS)
async def test_whatever_call_fails_the_stored_actor_is_whole(
    kind: str, name: str, when: Any, how: Any, tmp_path: Path
) -> None:
    calls, snapshots = await history(kind, tmp_path, SCENARIOS[name])
    assert calls >= 5
    for number in range(calls):
        clock = ManualClock()
        folder = tmp_path / str(number)
        folder.mkdir()
        async with opened(kind, folder, clock) as inner:
            await inner.insert("Account", "main", [("a", LEGACY)])
            store = FaultyStore(inner)
            acknowledged, error = await attempt(store, SCENARIOS[name], Fault(number, when, how))
            where = f"{how} {when} call {number} ({store.calls})"
            assert store.has_struck, where
            assert error is None or isinstance(error, (errors.LazymigError, asyncio.CancelledError)), where
            found = [shape(actor) for actor in await inner.scan("Account")]
            assert found in snapshots, where
            assert snapshots.index(found) >= snapshots_acknowledged(snapshots, acknowledged), where
            clock.advance(LEASE_SECONDS)
            await check_it_goes_on(inner, found, where)


def snapshots_acknowledged(snapshots: list[Any], acknowledged: list[int]) -> int:
    """Return the index of the snapshot with the last acknowledged revision."""
    revision = acknowledged[-1] if acknowledged else 0
    return next((index for index, found in enumerate(snapshots) if found[0][1] >= revision), len(snapshots))


async def check_it_goes_on(store: Store, found: list[tuple[Any, ...]], where: str) -> None:
    """Check that another node gets the actor at once and finds the migrations applied exactly once."""
    legacy = next(shown for shown in found if shown[0] == "a")
    async with Node(store, [suite], hand_over_seconds=0) as node, node.activate("Account", "a") as activation:
        value: Any = await activation.state().migrate_and_load()
        assert value["n"] % 100 in {0, 1, 2, 3, 7}, where
        assert value["n"] // 100 == 11, where
        assert legacy[2] is None or value["n"] >= 1_100, where
        assert "note" not in value, where


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(("when", "how"), FAULTS)
async def test_a_caller_that_tries_again_ends_where_it_would_have(
    kind: str, when: Any, how: Any, tmp_path: Path
) -> None:
    """Setting a value again after an unknown outcome stores it once: the outcome is read, never guessed."""
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with opened(kind, folder, ManualClock()) as inner:
            await inner.insert("Account", "main", [("a", LEGACY)])
            store = FaultyStore(inner)
            async with Node(store, [suite], hand_over_seconds=0, lease_seconds=LEASE_SECONDS) as node:
                store.arm(Fault(number, when, how))
                async with entered_at_last(node) as activation:
                    state = activation.state()
                    await persistently(state.migrate_and_load)
                    for _ in range(3):
                        state.value["n"] += 1
                        await persistently(activation.persist)
                store.arm(None)
            found = [shape(actor) for actor in await inner.scan("Account")]
            assert [(shown[1], shown[3]["main"]) for shown in found] == [(5, b'{"n":1103}')], number


async def persistently(operation: Callable[[], Awaitable[Any]]) -> None:
    for _ in range(2):
        try:
            await operation()
        except (errors.StoreError, asyncio.CancelledError):
            continue
        return
    await operation()


@asynccontextmanager
async def entered_at_last(node: Node) -> AsyncIterator[Activation]:
    block: AbstractAsyncContextManager[Activation] = node.activate("Account", "a")
    try:
        activation = await block.__aenter__()
    except (errors.StoreError, asyncio.CancelledError):
        block = node.activate("Account", "a")
        activation = await block.__aenter__()
    yield activation
    with contextlib.suppress(asyncio.CancelledError):
        await block.__aexit__(None, None, None)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(("when", "how"), FAULTS + INTERRUPTS)
async def test_refused_state_keeps_every_byte_whatever_call_fails(
    kind: str, when: Any, how: Any, tmp_path: Path
) -> None:
    older = release(suite, "1.1.0")
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with opened(kind, folder, ManualClock()) as inner:
            async with Node(inner, [suite]) as node:
                await node.actor(account, "a").add(1)
            before = [shape(actor) for actor in await inner.scan("Account")]
            store = FaultyStore(inner)

            async def call_old_software(store: FaultyStore = store, number: int = number) -> None:
                store.arm(Fault(number, when, how), asyncio.current_task())
                async with Node(store, [older], hand_over_seconds=0) as node:
                    for _ in range(3):
                        with pytest.raises((errors.ActivationError, errors.StoreError)):
                            await node.actor(account, "a").add(1)

            await asyncio.gather(asyncio.create_task(call_old_software()), return_exceptions=True)
            assert [shape(actor) for actor in await inner.scan("Account")] == before, number


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(("when", "how"), FAULTS + INTERRUPTS)
async def test_a_lock_that_could_not_be_given_up_is_given_up_later(
    kind: str, when: Any, how: Any, tmp_path: Path
) -> None:
    """The node lives on, so nobody takes its locks: it must not forget one that it doesn't use."""
    for number in range(3):  # claim, commit, release
        folder = tmp_path / str(number)
        folder.mkdir()
        async with opened(kind, folder, ManualClock()) as inner:
            store = FaultyStore(inner)
            async with Node(store, [suite]) as node, Node(inner, [suite]) as other:

                async def visit(store: FaultyStore = store, node: Node = node, number: int = number) -> None:
                    store.arm(Fault(number, when, how), asyncio.current_task())
                    async with node.activate("Account", "a") as activation:
                        await activation.state().migrate_and_load(default={"n": 1})
                        await activation.persist()

                await asyncio.gather(asyncio.create_task(visit()), return_exceptions=True)
                assert store.has_struck, f"call {number}"
                store.arm(None)
                async with other.activate("Account", "a", wait_seconds=5) as activation:
                    assert await activation.state().load() in (None, {"n": 1})
