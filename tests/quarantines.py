"""Actors whose migrations fail as they are told to, on a store whose time is told, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig._inspection import inspect
from lazymig._records import ActorKey, Claim
from lazymig.fleet import Machine, on_machine
from lazymig.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig._quarantine import Quarantine
    from lazymig._records import Fence, Held, StoredActor
    from lazymig.store import Store

KEY = ActorKey("Ship", "a")
BEGIN = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)


class TimedStore:
    """Passes every operation on to a store, but its claims tell the time of a clock."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self._store = store
        self._begin = clock()
        self.clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.clock() - self._begin)

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        found = await self._store.claim(key, fence)
        return found._replace(now=self.now) if isinstance(found, Claim) else found


class Ship(Actor):
    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"new": True})

    @action
    async def look(self) -> Any:
        return self.state.value

    @action
    async def keep(self) -> None:
        self.state.value["kept"] = True
        await self.state.persist()


class Yard:
    """Releases of a suite, and a store.

    Attributes:
        ran: How often the failing migration was begun.
        fails: What it raises; None for nothing.
        events: Of all nodes.
        clock: The store's and the nodes'.
    """

    def __init__(self, store: Store) -> None:
        self.clock = ManualClock()
        self.timed: Any = TimedStore(store, self.clock)
        self.store: Store = self.timed
        self.ran = 0
        self.fails: Exception | None = ValueError("no mast")
        self.events: list[Any] = []

    def suite(self, two: Callable[[Yard], Callable[[Any, Any], Any]] | None = None, **options: Any) -> Suite:
        """Return a release whose last migration, 2.0.0, is the one that fails, or another one."""
        suite = Suite("ships")
        ship = suite.actor_type("Ship", Ship, context_factory=lambda activation: activation, **options)
        ship.migration("1.0.0")(add_sails)
        ship.migration("2.0.0")((two or failing)(self))
        return suite

    def node(self, suite: Suite | None = None, **options: Any) -> Node:
        """Return a node of a release, on a machine whose clock is told."""
        settings: dict[str, Any] = {"lease_seconds": 1e9, "idle_seconds": 0, "label": "web-1", "hand_over_seconds": 0}
        with on_machine(Machine(self.clock)):
            hooks = [self.events.append]
            return Node(self.store, [suite or self.suite()], hooks=hooks, **settings | options)

    async def call(self, suite: Suite | None = None, name: str = "look") -> Any:
        """Call the actor on a node of its own."""
        async with self.node(suite) as node:
            return await node.call("Ship", "a", name)

    async def outcome(self, suite: Suite | None = None) -> str:
        """Return what comes of a call: "ok", or the error's name."""
        try:
            await self.call(suite)
        except errors.ActivationError as error:
            return type(error).__name__
        return "ok"

    async def insert(self) -> StoredActor:
        """Import the actor; return it as stored."""
        await self.timed.insert("Ship", "state", [("a", b'{"masts":1}')])
        return await self.read()

    async def read(self) -> StoredActor:
        found = await self.timed.read(KEY)
        assert found is not None
        return found  # type: ignore[no-any-return]  # the store's

    async def record(self) -> Quarantine | None:
        """Return what `Node.inspect` shows of the quarantine."""
        found = await inspect(self.store, KEY)
        assert found is not None
        return found.quarantine

    def at(self, moment: datetime) -> None:
        """Let it be a later moment."""
        self.clock.advance((moment - self.timed.now) / timedelta(seconds=1))


def add_sails(state: Any, context: Any) -> None:
    state["sails"] = 2


def failing(yard: Yard) -> Callable[[Any, Any], None]:
    def hoist(state: Any, context: Any) -> None:
        yard.ran += 1
        state["half"] = True
        if yard.fails is not None:
            raise yard.fails
        state["hoisted"] = True

    return hoist


def failing_as_well(yard: Yard) -> Callable[[Any, Any], None]:
    def hoist(state: Any, context: Any) -> None:
        """The same, described otherwise."""
        yard.ran += 1
        state["half"] = True
        if yard.fails is not None:  # a comment counts for nothing
            raise yard.fails
        state["hoisted"] = True

    return hoist


def failing_otherwise(yard: Yard) -> Callable[[Any, Any], None]:
    def hoist(state: Any, context: Any) -> None:
        yard.ran += 1
        raise KeyError("rope")

    return hoist


def mended(yard: Yard) -> Callable[[Any, Any], None]:
    def hoist(state: Any, context: Any) -> None:
        state["hoisted"] = True

    return hoist
