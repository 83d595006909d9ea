"""A node: one process's share of the fleet.

Rules:

1. An action begins only while the node may trust its registration; otherwise it drops all it has and registers anew.
2. User code runs on an actor only between a successful `activate()` and the end of its lock: never after a refusal.
3. An exclusive action that raises or is cancelled leaves no trace: its actor object is dropped without `deactivate()`,
   the next call makes another from the stored states under the same lock.
4. Arguments and results pass as JSON, so that nothing is shared by accident.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import anyio

from lazymig import _options, _sigterm
from lazymig._blocks import Block, Blocks
from lazymig._calls import Calls, offers_of
from lazymig._courier import Answer, Courier
from lazymig._fleet_view import FleetView
from lazymig._inspection import inspect
from lazymig._records import ActorKey
from lazymig._releases import starting
from lazymig._residents import Residents
from lazymig._slots import Slots, give_way, has_slot
from lazymig._turn import running_turn
from lazymig._uncut import finish
from lazymig.activation import DEFAULT_ACTIVATION_SECONDS
from lazymig.actor import Proxy
from lazymig.errors import (
    DefinitionError,
    NodeStoppedError,
    StoreError,
    UnknownActorTypeError,
)
from lazymig.fleet import Membership
from lazymig.hooks import NodeStopped, tell
from lazymig.suite import ActorType, Suite, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from types import TracebackType

    from lazymig._fleet_records import Call
    from lazymig._records import ActorRecord, NodeRecord
    from lazymig._rulings import Ruling
    from lazymig.activation import Activation
    from lazymig.hooks import Hook
    from lazymig.store import Store

A = TypeVar("A")

_log = logging.getLogger("lazymig.node")

DEFAULT_IDLE_SECONDS = 5.0
"""Below the default `hand_over_seconds`, so that a waiting process gets an actor that nobody uses."""

DEFAULT_MOVE_ON_SECONDS = 1.0
DEFAULT_MAX_ACTIVE = 100_000
DEFAULT_GRACE_SECONDS = 10.0


class Node:
    """Serves actors of its suites from a store, within ``async with``.

    Args:
        store: An open store.
        suites: The actor types it serves; none for a client.
        label: Its name for people; default host and process id.
        build: Name of the release it runs, for people.
        lease_seconds: How long after a heartbeat it counts as alive; then others may take its actors.
        activation_seconds: How long a call or a block waits for migrations of its actor, async functions and eager
            conversions of entries, before it gets `ActivationInProgressError`; they go on.
        max_migrations: How many activations run migrations at once, so that a deploy is no storm; more wait for them,
            in the order in which they came. None: as many as come. A migration that waits for another actor lets others
            run meanwhile: a lock of its own that those wait for, held across the wait, would hold all of them up.
        hand_over_seconds: How long a call that can't run here waits for a node that takes it, and a block for an
            actor that another node holds; 0 means not at all.
        idle_seconds: Actors unused for that long are deactivated; 0 means at once.
        move_on_seconds: An actor unused for that long is given up at its next call to a node of a newer release, if
            there is one; 0 means never.
        max_active: Of more active actors than that, the longest idle are deactivated. Busy ones never are.
        grace_seconds: How long running actions, and then `deactivate()`, may take when the node stops.
        drain_on_sigterm: A SIGTERM that nobody else handles drains the node before it ends the process.
        hooks: Called with every event, see `lazymig.hooks`.

    Raises:
        DefinitionError: Two suites have an actor type of the same name, a number is out of range, or label or build
            is no text of up to 200 bytes.
    """

    def __init__(  # noqa: PLR0913  (the contract's options)
        self,
        store: Store,
        suites: Iterable[Suite] = (),
        *,
        label: str | None = None,
        build: str | None = None,
        lease_seconds: float = 3.0,
        activation_seconds: float = DEFAULT_ACTIVATION_SECONDS,
        max_migrations: int | None = None,
        hand_over_seconds: float = 10.0,
        idle_seconds: float = DEFAULT_IDLE_SECONDS,
        move_on_seconds: float = DEFAULT_MOVE_ON_SECONDS,
        max_active: int = DEFAULT_MAX_ACTIVE,
        grace_seconds: float = DEFAULT_GRACE_SECONDS,
        drain_on_sigterm: bool = True,
        hooks: Iterable[Hook] = (),
    ) -> None:
        for name, value in {"lease": lease_seconds, "activation": activation_seconds}.items():
            _options.check_positive(f"{name}_seconds", value)
        _options.check_store(store)
        _options.check_count("max_active", max_active)
        if max_migrations is not None:
            _options.check_count("max_migrations", max_migrations)
        _options.check_flag("drain_on_sigterm", drain_on_sigterm)
        for name, value in {
            "hand_over": hand_over_seconds, "idle": idle_seconds, "move_on": move_on_seconds, "grace": grace_seconds
        }.items():  # fmt: skip
            _options.check_not_negative(f"{name}_seconds", value)
        self._drain_on_sigterm = drain_on_sigterm
        for name, text in {"label": label, "build": build}.items():
            _options.check_text(name, text)
        self.label = label or f"{socket.gethostname()}:{os.getpid()}"
        self._store = store
        self._types = _options.read_suites(suites)
        cure = "Write a list of functions: hooks=[function]."
        self._hooks: tuple[Any, ...] = tuple(_options.read_items("hooks", hooks, callable, cure))
        self.grace_seconds = grace_seconds
        self._membership = Membership(store, self.label, build, lease_seconds)
        self._residents = Residents(
            store, self._membership, self._hooks,
            label=self.label, idle_seconds=idle_seconds, max_active=max_active, activation_seconds=activation_seconds,
            slots=None if max_migrations is None else Slots(max_migrations),
        )  # fmt: skip
        self._membership.active = lambda: self._residents.active
        self._view = FleetView(store)
        self._calls = Calls(
            self._types, self._residents, self._membership, self._view, self._hooks,
            check_running=self._check_running, hand_over_seconds=hand_over_seconds, move_on_seconds=move_on_seconds,
        )  # fmt: skip
        self._courier = self._calls.courier = Courier(store, self._membership, self._view, self)
        self._blocks = Blocks(
            self._residents, self._membership, self._calls, self._hooks, self.label, hand_over_seconds
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._draining: asyncio.Task[None] | None = None
        self._is_running = False
        self._is_stopping = False

    def __repr__(self) -> str:
        """Show label and id."""
        return f"<Node {self.label} {self.node_id or '(stopped)'}>"

    @property
    def node_id(self) -> str:
        """Its incarnation: drawn at each start and re-registration; "" while it is not running."""
        return self._membership.node_id

    async def __aenter__(self) -> Self:
        """Register, and begin to send heartbeats.

        Raises:
            StoreError: The store can't be reached or written.
            MissingMigrationError: Its release is new to the store, and lacks a migration that an earlier one had.
            LateMigrationError: Its release is new to the store, and has a migration below what others had that does
                not say ``late=True``.
            WriteVersionError: It can't store a type at its write version.
            DefinitionError: It is running already, or a type's ``write_version`` is above what it supports.
        """
        if self._is_running:
            raise DefinitionError(f"node {self.label} is running already. Make a Node of its own for each use.")
        for actor_type in self._types.values():
            actor_type.check_write_version()
        for actor_type in self._types.values():
            actor_type.freeze()
        if self._types:
            self._membership.offers = offers_of(self._types)
            self._membership.ruling = self._ask
        await self._residents.locks.begin()
        self._is_running = True
        self._is_stopping = self._calls.is_draining = False
        self._courier.begin()
        for work in (self._residents.keep_house, self._courier.keep_looking):
            self._tasks.append(asyncio.create_task(work(), name=f"lazymig-{self.label}"))
        if self._drain_on_sigterm:
            _sigterm.watch(self)
        return self

    def _ask(self, record: NodeRecord, now: datetime) -> Ruling:
        """Return what is asked whenever it registers."""
        return starting(record, self._types, now)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop: let running actions finish, deactivate, give the locks up, sign off."""
        self._is_stopping = True
        self._courier.is_taking = False
        _sigterm.unwatch(self)
        try:
            await self._residents.leave(self.grace_seconds)
        finally:
            with anyio.CancelScope(shield=True):
                await finish(self._sign_off())

    async def _sign_off(self) -> None:
        self._is_running = False
        if (draining := self._draining) is not None:
            draining.cancel()
            await asyncio.wait([draining])
        await self._residents.stop_finishing()
        await self._courier.finish_serving(min(self._membership.lease_seconds, max(1.0, self.grace_seconds)))
        await self._courier.outbox.end_calls(NodeStoppedError(self.label))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        node_id = self.node_id
        try:
            await self._residents.locks.end()
        except StoreError as error:
            _log.warning("node %s could not sign off, its locks end with its lease: %s", self.label, error)
        tell(self._hooks, NodeStopped(node_id))

    # --- calls -------------------------------------------------------------------------------------------------

    @overload
    def actor(self, actor_type: ActorType[A], actor_id: str) -> A: ...

    @overload
    def actor(self, actor_type: str, actor_id: str) -> Any: ...

    def actor(self, actor_type: ActorType[Any] | str, actor_id: str) -> Any:
        """Return a proxy of an actor, typed as its class: awaiting an action on it calls the actor, active or not.

        Raises:
            InvalidKeyError: The id can't be one.
        """
        key = ActorKey(name_of(actor_type), actor_id)
        return Proxy(self.call, key.type, key.id)

    async def call(
        self, actor_type: ActorType[Any] | str, actor_id: str, action: str, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run an action of an actor, which is activated if need be, and return its result.

        An actor that is active on another node runs the action there, and one whose state, or whose action, needs
        another release is activated on a node of that release.

        Raises:
            UnknownActorTypeError: No node has such a type.
            UnknownActionError: No node has such an action.
            InvalidValueError: Arguments or result are not JSON, or larger than 1 MB.
            ReentrantCallError: The actor waits for this call.
            ActorLockedError: The node that holds the actor did not take the call in time; the action did not run.
            NewerStateError: No node that supports the state took the call in time; the action did not run.
            CallNotTakenError: Nobody took the call in time; the action did not run.
            CallLostError: The node that took the call died over it; the action may have run.
            QueueFullError: Too many calls wait for the actor; the action did not run.
            ActivationInProgressError: Its migrations take too long, and go on; the action did not run.
            ActivationError: The actor can't be activated; the action did not run.
            RemoteError: The action raised on another node.
            Exception: Whatever the action raised here.
        """
        self._check_running()
        key = ActorKey(name_of(actor_type), actor_id)
        self._calls.check_turn(key)
        calling = self._calls.call(key, action, list(args), kwargs)
        return await (give_way(calling) if has_slot() else calling)

    async def drain(self) -> None:
        """Take no new actors, let running actions end, and give all actors up; calls on them travel from then on.

        The node stays in the fleet as a client until it is left. Returns when nothing is held any more.
        """
        self._check_running()
        draining = self._draining
        if draining is None or draining.done():
            draining = self._begin_to_drain(is_known=False)
        await asyncio.shield(draining)

    def _begin_to_drain(self, *, is_known: bool) -> asyncio.Task[None]:
        self._draining = asyncio.create_task(self._drain(is_known=is_known))
        self._draining.add_done_callback(self._note_drained)
        return self._draining

    async def _drain(self, *, is_known: bool) -> None:
        was_draining, self._calls.is_draining = self._calls.is_draining, True
        try:
            if not is_known:
                await finish(self._store.drain(self.node_id))
        except StoreError:  # the others don't know
            self._calls.is_draining = was_draining
            raise
        await self._residents.give_all_up()

    def _note_drained(self, draining: asyncio.Task[None]) -> None:
        if not draining.cancelled() and (error := draining.exception()) is not None:
            _log.warning("node %s could not drain: %s", self.label, error)

    # --- for the courier ---------------------------------------------------------------------------------------

    async def serve(self, call: Call, node_id: str) -> Answer:
        """Run a call of another node; see `Work`."""
        return await self._calls.serve(call, node_id)

    async def give_up(self, key: ActorKey) -> None:
        """Let go of an actor that another node waits for; see `Work`."""
        await self._residents.give_up(key, "wanted")

    def note_fleet(self) -> None:
        """Drain when asked to, and stay so after a new registration; see `Work`."""
        me = next((node for node in self._view.nodes if node.node_id == self.node_id), None)
        is_free = not self._is_stopping and (self._draining is None or self._draining.done())
        if is_free and me is not None and me.is_draining != self._calls.is_draining:
            self._begin_to_drain(is_known=me.is_draining)  # a failed one is tried again: the store still says otherwise

    def activate(
        self, actor_type: ActorType[Any] | str, actor_id: str, *, wait_seconds: float | None = None
    ) -> contextlib.AbstractAsyncContextManager[Activation]:
        """Hold an actor for the length of an ``async with`` block, without an actor class.

        It enters even if the state is refused: then every load in it raises. The lock is given up on leaving.

        Args:
            actor_type: The type, or its name.
            actor_id: The actor's id.
            wait_seconds: How long to wait while another node, or this one, holds the actor. Default: the node's
                ``hand_over_seconds`` for another node, and as long as it takes on this one.

        Raises:
            UnknownActorTypeError: No suite has such a type.
            ReentrantCallError: The actor waits for this block, which would wait for ever.
            ActorLockedError: It is held elsewhere, and was not given up in time.
            DefinitionError: ``wait_seconds`` is no number of 0 or more.
        """
        if wait_seconds is not None:
            _options.check_not_negative("wait_seconds", wait_seconds)
        known = self._type(name_of(actor_type))
        return Block(self._blocks, ActorKey(known.name, actor_id), known, wait_seconds)

    async def inspect(self, actor_type: ActorType[Any] | str, actor_id: str) -> ActorRecord | None:
        """Return what is stored of an actor, beside its lock; nothing is checked, run or changed.

        Returns:
            None if it was never stored.

        Raises:
            CorruptStateError: It can't be read.
        """
        return await inspect(self._store, ActorKey(name_of(actor_type), actor_id))

    # --- checks ------------------------------------------------------------------------------------------------

    def _type(self, name: str) -> ActorType[Any]:
        known = self._types.get(name)
        if known is None:
            raise UnknownActorTypeError(name, self._types, self.label)
        return known

    def _check_running(self) -> None:
        if not self._is_running or (self._is_stopping and not self._has_turn()):
            raise NodeStoppedError(self.label)

    def _has_turn(self) -> bool:
        """Tell whether we are called from a turn on this node, which may end what it has begun."""
        turn = running_turn()
        while turn is not None and not (turn.is_running and turn.place is self._residents):
            turn = turn.parent
        return turn is not None
