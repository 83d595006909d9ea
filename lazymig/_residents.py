"""The actors of one node: making and dropping their objects, letting go of idle ones.

Rules:

1. All of an actor's comings and goings happen within a turn of its mailbox; the turn ends after the lock was given up.
2. When the registration can't be trusted any more, everything in memory is dropped first, without `deactivate()`; then
   the node registers as a new incarnation.
3. Migrations that outlast their activation keep the lock; whoever gets a turn before they have ended gives it back.
4. `deactivate()` may call other actors, so no turn of one actor is held while another one's is waited for here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import anyio

from lazymig._finishing import Finishing
from lazymig._locks import Locks
from lazymig._mailbox import Mailbox
from lazymig._turn import in_turn
from lazymig.activation import Activation
from lazymig.actor import is_quiet
from lazymig.errors import LazymigError, NodeStoppedError
from lazymig.hooks import Deactivated, DeactivationFailed, LeaseLost, MigrationChanged, NodeStarted, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyio.abc import TaskGroup

    from lazymig._records import ActorKey
    from lazymig._slots import Slots
    from lazymig.fleet import Membership
    from lazymig.hooks import Event, Hook
    from lazymig.store import Store
    from lazymig.suite import ActorType

_log = logging.getLogger("lazymig.node")

LET_GO_AT_ONCE = 100
"""How many idle actors run their `deactivate()` beside each other."""

LET_GO_TOGETHER = 500
"""How many that have none give their locks up in one trip."""


class Residents:
    """What a node has of its actors.

    Args:
        store: Where they are kept.
        membership: The node's registration.
        hooks: Told of what happens.
        label: The node's label, for its events.
        idle_seconds: Actors unused for that long are let go.
        max_active: Of more than that, the longest idle are let go.
        activation_seconds: How long callers wait for migrations.
        slots: For migrations; None: as many as come run at once.
    """

    def __init__(  # noqa: PLR0913  (the node's options)
        self,
        store: Store,
        membership: Membership,
        hooks: tuple[Hook, ...],
        *,
        label: str,
        idle_seconds: float,
        max_active: int,
        activation_seconds: float,
        slots: Slots | None,
    ) -> None:
        self.slots = slots
        self._membership = membership
        self._hooks = hooks
        self._label = label
        self._idle_seconds = idle_seconds
        self._max_active = max_active
        self._mailboxes: dict[ActorKey, Mailbox] = {}
        self._idle: OrderedDict[Mailbox, float] = OrderedDict()
        self._letting = anyio.CapacityLimiter(LET_GO_AT_ONCE)
        self._wanted: set[ActorKey] = set()
        self._going: set[ActorKey] = set()
        self._wake = asyncio.Event()
        self.locks = Locks(
            store,
            membership,
            drop_all=self.drop_all,
            note_start=self._note_start,
            wake=self._wake.set,
            label=label,
        )
        self.finishing = Finishing(self.locks, activation_seconds, self._note_end)

    # --- turns -------------------------------------------------------------------------------------------------

    async def take(self, key: ActorKey, *, shared: bool, is_patient: bool = False) -> Mailbox:
        """Wait for a turn on an actor.

        Raises:
            ActivationInProgressError: Migrations go on for too long, to who is not patient.
        """
        while True:
            mailbox = self._mailboxes.get(key)
            if mailbox is None:
                mailbox = self._mailboxes[key] = Mailbox(key)
            self._idle.pop(mailbox, None)
            try:
                await mailbox.take(shared=shared)
            except BaseException:
                self._note_idle(mailbox)
                raise
            if mailbox.finishing is None:
                return mailbox
            self.give(mailbox, shared=shared)
            await self.finishing.wait(mailbox, is_patient=is_patient)

    def give(self, mailbox: Mailbox, *, shared: bool) -> None:
        """End a turn."""
        mailbox.give(shared=shared)
        self._note_idle(mailbox)

    def _note_idle(self, mailbox: Mailbox) -> None:
        if not mailbox.is_free:
            return
        if mailbox.lease is None:
            self._mailboxes.pop(mailbox.key, None)
            return
        self._idle[mailbox] = self._membership.clock()
        if len(self._mailboxes) > self._max_active or not self._idle_seconds:
            self._wake.set()

    def _note_end(self, mailbox: Mailbox) -> None:
        if mailbox.key in self._wanted:
            self.locks.yield_to_others(mailbox.key)
        self._note_idle(mailbox)

    # --- actor objects -----------------------------------------------------------------------------------------

    async def open(self, mailbox: Mailbox, actor_type: ActorType[Any]) -> None:
        """Make sure that the actor is active; needs a turn.

        Raises:
            ActorLockedError: Another node has it.
            ActivationError: It can't be activated here; no user code ran if it was refused.
        """
        while not mailbox.is_active:
            async with mailbox.opening:
                if not mailbox.is_active:
                    self.drop(mailbox)
                    if mailbox.finishing is None:
                        await self._activate(mailbox, actor_type)
            await self.finishing.wait(mailbox)

    async def _activate(self, mailbox: Mailbox, actor_type: ActorType[Any]) -> None:
        started = self._membership.clock()
        lease = await self.locks.lock(mailbox, 0.0)
        activation = Activation(
            mailbox.key, actor_type, lease,
            hooks=self._hooks, started=started, activation_seconds=self.finishing.seconds, slots=self.slots,
        )  # fmt: skip
        try:
            refusal = activation.refusal()
            if refusal is not None:
                raise refusal
            actor = _make(actor_type, activation)
            with in_turn(mailbox.key, self, "activate"):
                await actor.activate()
            if activation.failure is not None:
                raise activation.failure
        except BaseException:
            self.finishing.begin(mailbox, activation.close())
            await self.finishing.unlock(mailbox)
            raise
        mailbox.actor = actor
        mailbox.activation = activation

    async def close(self, mailbox: Mailbox, reason: str) -> None:
        """Deactivate the actor, if it is active; the lock stays. Needs an exclusive turn."""
        actor = mailbox.actor
        try:
            if actor is not None and mailbox.is_active:
                await self._deactivate(mailbox.key, actor)
                self._tell(Deactivated, self._membership.node_id, mailbox.key, reason)
        finally:
            self.drop(mailbox)

    def drop(self, mailbox: Mailbox) -> None:
        """Forget the actor object; the lock stays."""
        self.finishing.begin(mailbox, mailbox.drop())

    async def _deactivate(self, key: ActorKey, actor: Any) -> None:
        if is_quiet(actor):
            return
        try:
            with in_turn(key, self, "deactivate"):  # in a task of its own, which it may cancel
                await asyncio.ensure_future(actor.deactivate())
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # it is we who are cancelled, not something that it awaited
            # Nobody awaits it, and its text may hold state values, which our own log never does.
            message = f"deactivate() of {key} failed; its lock is given up"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
            self._tell(DeactivationFailed, self._membership.node_id, key, type(error).__name__)

    def _note_start(self, before: str) -> None:
        self._tell(NodeStarted, self._membership.node_id, self._label, before or None)
        for changed in self._membership.changed:
            self._tell(MigrationChanged, self._membership.node_id, *changed)

    def drop_all(self) -> None:
        """Forget all actors at once: they may be active elsewhere."""
        for mailbox in list(self._mailboxes.values()):
            lease, mailbox.lease = mailbox.lease, None
            if lease is not None:
                lease.is_lost = True
                self._tell(LeaseLost, lease.fence.node, mailbox.key)
            if mailbox.finishing is not None:
                mailbox.finishing.cancel()
            self.drop(mailbox)
            if mailbox.is_free:
                self._mailboxes.pop(mailbox.key, None)
        self._idle.clear()
        self._going.clear()
        self.locks.forget()

    # --- letting go --------------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """Let go of idle actors, renew a lost registration, retry what failed; runs until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                await self._pause()
                try:
                    await self.locks.trust()
                    await self.locks.release_left()
                except NodeStoppedError:  # about to be cancelled
                    return
                except LazymigError as error:  # the store's fault, or refused anew: by its release, or by a damaged row
                    _log.warning("node %s: %s", self._label, error)
                self._let_go(group, self._surplus(), "evicted")
                self._let_go(group, self._expired(), "idle")

    async def _pause(self) -> None:
        seconds = self._membership.beat_seconds
        if self._idle_seconds:  # else whoever becomes idle wakes it
            seconds = min(seconds, max(self._idle_seconds / 4, 0.05))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _surplus(self) -> list[Mailbox]:
        surplus = max(0, len(self._mailboxes) - len(self._going) - self._max_active)
        return [mailbox for mailbox, _ in zip(self._idle, range(surplus), strict=False)]

    def _expired(self) -> list[Mailbox]:
        now = self._membership.clock()
        return [
            mailbox for mailbox, _ in takewhile(lambda idle: now - idle[1] >= self._idle_seconds, self._idle.items())
        ]

    def _let_go(self, group: TaskGroup, mailboxes: Iterable[Mailbox], reason: str) -> None:
        """Begin to let go of idle actors: a `deactivate()` that hangs holds up nothing but its own actor."""
        quiet = []
        for mailbox in mailboxes:
            del self._idle[mailbox]
            self._going.add(mailbox.key)
            if is_quiet(mailbox.actor):
                quiet.append(mailbox.key)
            else:
                group.start_soon(self._let_go_of, mailbox.key, reason)
        for start in range(0, len(quiet), LET_GO_TOGETHER):
            group.start_soon(self._let_go_together, quiet[start : start + LET_GO_TOGETHER], reason)

    @property
    def active(self) -> int:
        """How many actors this node holds."""
        return sum(mailbox.lease is not None for mailbox in list(self._mailboxes.values()))

    def is_here(self, key: ActorKey) -> bool:
        """Tell whether the actor is held, or about to be."""
        return key in self._mailboxes

    def is_finishing(self, key: ActorKey) -> bool:
        """Tell whether migrations of the actor go on that outlasted their activation."""
        mailbox = self._mailboxes.get(key)
        return mailbox is not None and mailbox.finishing is not None

    def idle_for(self, key: ActorKey) -> float:
        """Return for how many seconds a held actor was not used; 0 if it is in use, or not held."""
        mailbox = self._mailboxes.get(key)
        since = None if mailbox is None else self._idle.get(mailbox)
        return 0.0 if since is None else self._membership.clock() - since

    async def give_up(self, key: ActorKey, reason: str) -> None:
        """Let go of an actor as soon as those before us had their turn: somebody else waits for it."""
        if key in self._wanted or key not in self._mailboxes:
            return
        self._wanted.add(key)
        try:
            mailbox = await self.take(key, shared=False, is_patient=True)
            try:
                if mailbox.lease is not None:
                    await self.close(mailbox, reason)
                    await self.finishing.unlock(mailbox)
                    self.locks.yield_to_others(key)
            finally:
                self.give(mailbox, shared=False)
        finally:
            self._wanted.discard(key)

    async def give_all_up(self) -> None:
        """Let go of everything that is held now."""
        quiet = [key for key, mailbox in self._mailboxes.items() if mailbox.is_free and is_quiet(mailbox.actor)]
        for start in range(0, len(quiet), LET_GO_TOGETHER):
            await self._let_go_together(quiet[start : start + LET_GO_TOGETHER], "drained")
        async with anyio.create_task_group() as group:
            for key in list(self._mailboxes):
                group.start_soon(self.give_up, key, "drained")

    async def _let_go_of(self, key: ActorKey, reason: str) -> None:
        try:
            async with self._letting:
                mailbox = self._mailboxes.get(key)
                if mailbox is None or not mailbox.is_free:
                    return  # in use again: it will be idle anew, and takes no place of the others meanwhile
                mailbox = await self.take(key, shared=False, is_patient=True)
                try:
                    await self.close(mailbox, reason)
                    await self.finishing.unlock(mailbox)
                finally:
                    self.give(mailbox, shared=False)
        except Exception as error:  # a fault of ours: the others are let go of all the same
            context = {"message": f"{key} could not be let go of", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        finally:
            self._going.discard(key)

    async def _let_go_together(self, keys: Sequence[ActorKey], reason: str) -> None:
        """Let go of actors that have no `deactivate()`: no code of theirs runs, and nobody is waited for."""
        taken: list[Mailbox] = []
        try:
            for key in keys:
                mailbox = self._mailboxes.get(key)
                if mailbox is not None and mailbox.is_free and is_quiet(mailbox.actor):
                    taken.append(await self.take(key, shared=False))
                    await self.close(mailbox, reason)
            await self.finishing.unlock(*taken)
        except Exception as error:  # a fault of ours
            context = {"message": f"{len(keys)} actors could not be let go of", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        finally:
            for mailbox in taken:
                self.give(mailbox, shared=False)
            self._going.difference_update(keys)

    async def leave(self, grace_seconds: float) -> None:
        """Let go of everything: running actions get a grace time, then their locks are void."""
        with anyio.move_on_after(grace_seconds) as grace:
            while self._mailboxes:  # a deactivate() may activate others
                async with anyio.create_task_group() as group:
                    for key in list(self._mailboxes):
                        group.start_soon(self._leave, key)
        self.locks.has_ended = True
        if grace.cancelled_caught:
            busy = [mailbox for mailbox in self._mailboxes.values() if not mailbox.is_free]
            _log.warning("node %s: %d actors were still busy after %g s", self._label, len(busy), grace_seconds)
            for mailbox in busy:
                mailbox.refuse(NodeStoppedError(self._label))
        self.drop_all()

    async def _leave(self, key: ActorKey) -> None:
        mailbox = await self.take(key, shared=False, is_patient=True)
        try:
            await self.close(mailbox, "stopped")
            mailbox.lease = None  # freed by the node's end
        finally:
            self.give(mailbox, shared=False)

    async def stop_finishing(self) -> None:
        """Cancel the migrations that still go on, and wait for their end."""
        await self.finishing.stop(list(self._mailboxes.values()))

    def _tell(self, event: type[Event], *fields: Any) -> None:
        if self._hooks:
            tell(self._hooks, event(*fields))


def _make(actor_type: ActorType[Any], activation: Activation) -> Any:
    if actor_type.actor_class is None:
        raise AssertionError("calls are only made on types with a class")
    return actor_type.actor_class(activation)
