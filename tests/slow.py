"""Actors whose migration waits for a gate, for tests of callers that don't wait as long."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors, hooks
from lazymig._records import ActorKey
from tests.test_node import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig.store import Store

SOON = 0.02
KEY = ActorKey("Slow", "a")


class Slow(Actor):
    """Its migration waits for a gate."""

    bench: Bench

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.state = activation.state()

    async def activate(self) -> None:
        if not self.bench.loads_late:
            await self.state.migrate_and_load(default={"n": 0})
        self.bench.log.append("activated")

    async def deactivate(self) -> None:
        self.bench.log.append("deactivated")

    @action
    async def add(self) -> int:
        self.bench.log.append("add")
        await self.state.migrate_and_load(default={"n": 0})
        self.state.value["n"] += 1
        await self.state.persist()
        return int(self.state.value["n"])

    @action
    async def try_to_load(self) -> str:
        try:
            await self.state.migrate_and_load()
        except errors.ActivationInProgressError as error:
            return type(error).__name__
        return "loaded"

    @action(shared=True)
    async def read(self) -> int:
        return int(self.state.value["n"])

    @action
    async def wait_for(self, other: str) -> str:
        """Call another actor, whose migration calls this one."""
        with pytest.raises(errors.ActivationInProgressError):
            await self.bench.node.call("Slow", other, "add")
        self.bench.gate.set()
        await settle()
        return "waited"


class Bench:
    """A suite whose migration waits, and what it has done."""

    node: Node

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events: list[hooks.Event] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.does: Callable[[dict[str, Any], Any], Any] = lambda state, context: None
        self.loads_late = False
        self.cleaning_seconds = 0.0
        self.suite = Suite("slow")
        slow: type[Slow] = type("Slow", (Slow,), {"bench": self})
        self.slow = self.suite.actor_type("Slow", slow, context_factory=lambda activation: activation)
        self.slow.migration("1.0.0")(self._migrate)

    async def _migrate(self, state: dict[str, Any], context: Any) -> None:
        self.log.append("begun")
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            if self.cleaning_seconds:
                await asyncio.sleep(self.cleaning_seconds)
            self.log.append("cancelled")
            raise
        done = self.does(state, context)
        if done is not None:
            await done
        state["n"] += 10
        self.log.append("ended")

    def run(self, store: Store, **options: Any) -> Node:
        """Return a node with this suite."""
        settings: dict[str, Any] = {"activation_seconds": SOON, "hooks": [self.events.append]} | options
        self.node = Node(store, [self.suite], **settings)
        return self.node

    def told(self, kind: type[hooks.Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """See that no migration is left behind, and no exception that nobody saw."""
    untold: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: untold.append(context))
    before = asyncio.all_tasks()
    yield
    await settle()
    gc.collect()
    assert {task for task in asyncio.all_tasks() - before if "lazymig-migrations" in task.get_name()} == set()
    assert untold == []


async def insert(store: Store) -> None:
    """Store two actors that nobody migrated."""
    await store.insert("Slow", "state", [("a", b'{"n":1}'), ("b", b'{"n":2}')])


async def stored(store: Store, actor_id: str = "a") -> Any:
    found = await store.read(ActorKey("Slow", actor_id))
    assert found is not None
    return orjson.loads(found.states["state"])["n"]


async def leave_in_progress(bench: Bench) -> None:
    """Let a caller leave while the migration goes on."""
    with pytest.raises(errors.ActivationInProgressError):
        await bench.node.call("Slow", "a", "add")
    assert bench.log == ["begun"]


async def load(node: Node) -> Any:
    """Return the value that a block gets."""
    async with node.activate("Slow", "a", wait_seconds=10) as activation:
        return await activation.state().migrate_and_load()
