"""Actors for tests with several nodes: each node has a place of its own, which notes what ran there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from semver import Version

from lazymig import Activation, Actor, Node, Suite, action, errors, traceparent
from lazymig._fleet_records import Offer
from lazymig._records import ActorKey, AppliedSet, Claim, Fence, NodeRecord
from lazymig._version import pack, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.store import Store

KEY = ActorKey("Box", "a")


class UnspeakableError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class UncommonError(BaseException):
    """No Exception, and no wish to end the process either; pytest's own outcomes are such."""


class Box(Actor):
    """Counts, and does what the tests ask for."""

    place: Place

    def __init__(self, activation: Activation) -> None:
        self.key = activation.key
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"n": 0})
        self.place.log.append("activated")

    async def deactivate(self) -> None:
        self.place.log.append("deactivated")

    @action
    async def add(self) -> int:
        self.place.log.append("add")
        self.state.value["n"] += 1
        await self.state.persist()
        total: int = self.state.value["n"]
        return total

    @action
    async def hold(self) -> str:
        self.place.log.append("hold")
        self.place.inside.set()
        await self.place.gate.wait()
        self.state.value["n"] += 100
        await self.state.persist()
        self.place.log.append("held")
        return "held"

    @action
    async def echo(self, value: Any) -> Any:
        self.place.log.append("echo")
        return value

    @action
    async def large(self) -> str:
        return "x" * 1_000_001

    @action
    async def trace(self) -> str | None:
        return traceparent.get()

    @action
    async def go(self, path: list[str]) -> str:
        return str(await self.place.node.call("Box", path[0], "go", path[1:])) if path else self.key.id

    @action
    async def fail(self, how: str) -> None:
        match how:
            case "cause":
                raise ValueError("out of range") from KeyError("deeper")
            case "lazymig":
                raise errors.NewerStateError(self.key, Version(3), Version(2, 1), ("x", "y"))
            case "surrogate":
                raise errors.UnknownActionError("Box", "\ud800", ["a"])
            case "large number":
                raise errors.QueueFullError(ActorKey("Box", "b"), 10**30)
            case "no exception":
                raise UncommonError("rare")
            case "no text":
                raise UnspeakableError
        raise AssertionError(how)


class LaterBox(Box):
    """A box of the next release."""

    @action
    async def later(self) -> str:
        self.place.log.append("later")
        return "later"


class Place:
    """The boxes of one node, at a release."""

    node: Node

    def __init__(self, *versions: str, base: type[Box] = Box) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.inside = asyncio.Event()
        self.suite = Suite("boxes")
        placed: type[Box] = type("Box", (base,), {"place": self})
        box = self.suite.actor_type("Box", placed)
        for version in versions:
            box.migration(version)(_same)

    def run(self, store: Store, **options: Any) -> Node:
        """Return a node with these boxes."""
        self.node = Node(store, [self.suite], **options)
        return self.node


def _same(state: Any, context: Any) -> Any:
    return state


def offers(version: str, *actions: str) -> tuple[Offer, ...]:
    """Return what a node that only seems to run can do."""
    return (Offer("Box", AppliedSet([pack(parse(version))]), actions),)


async def seem_to_run(store: Store, node_id: str, *offered: Offer) -> None:
    """Register a node that never does anything."""
    await store.register(NodeRecord(node_id, node_id, None, 1_000.0, offered))


async def hold_silently(store: Store, node_id: str = "silent") -> None:
    """Let a node that never does anything hold an actor."""
    await seem_to_run(store, node_id)
    assert isinstance(await store.claim(KEY, Fence(node_id, 1)), Claim)


async def is_waited_for(store: Store, node_id: str) -> None:
    """Return when a call waits for a node."""
    async with asyncio.timeout(10):
        while not (await store.post.peek(node_id, "nobody")).has_calls:  # noqa: ASYNC110  (in the store)
            await asyncio.sleep(0)


async def waiting_for(store: Store, node_id: str) -> list[str]:
    """Return the actions that wait for a node; they are taken."""
    return [call.action for call in await store.post.take(node_id, 100)]


async def owner(store: Store, key: ActorKey = KEY) -> str | None:
    """Return who holds an actor."""
    found = await store.read(key)
    assert found is not None
    return found.owner


def knows(node: Node, number: int) -> Callable[[], bool]:
    """Return whether a node has seen so many nodes."""
    return lambda: len(node._view.nodes) == number
