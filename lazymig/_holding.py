"""A stored actor as one activation holds it: its lock, its turns, and what was decided for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lazymig import _plan, _shapes
from lazymig._migrating import Migrating
from lazymig._turn import TURN
from lazymig.errors import (
    ActivationClosedError,
    ActivationError,
    ActivationInProgressError,
    LeaseLostError,
    ReadOnlyActionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime

    from lazymig._bases import Base
    from lazymig._lease import Lease
    from lazymig._records import ActorKey
    from lazymig.activation import Activation
    from lazymig.suite import ActorType


_NO_TABLES: Mapping[str, int] = {}


class PolicyChangedError(Exception):
    """The write policy is another one by now: what was to be stored has to be decided anew."""


class Holding:
    """What an activation has of the stored actor.

    Args:
        activation: The activation.
        key: The actor.
        actor_type: Its type.
        lease: Its lock; None if it was refused.
        refusal: Why.

    Attributes:
        turns: Had by whoever works on the stored actor.
        plan: Of the migrate-and-load; None before it.
        migrated_at: When migrations ran in this activation.
        migrating: Migrations whose caller has left; they may have ended meanwhile.
        is_closed: Whether it has ended.
        activation: As given.
        has_lowered: Whether it has stored the states in an older shape.
        handed: The states, encoded, that migrations under way began with.
        projected: The states, encoded, as the activation has them where no base keeps them; else None.
    """

    __slots__ = (
        "_inferred", "activation", "handed", "has_lowered", "is_closed", "key", "lease", "migrated_at", "migrating",
        "plan", "projected", "refusal", "turns", "type",
    )  # fmt: skip

    def __init__(
        self,
        activation: Activation,
        key: ActorKey,
        actor_type: ActorType[Any],
        lease: Lease | None,
        refusal: ActivationError | None,
    ) -> None:
        self.activation = activation
        self.has_lowered = False
        self.handed: Mapping[str, bytes] = {}
        self.projected: Mapping[str, bytes] | None = None
        self.key = key
        self.type = actor_type
        self.lease = lease
        self.refusal = refusal
        self.turns = asyncio.Lock()
        self.plan: _plan.Plan | None = None
        self.migrated_at: datetime | None = None
        self.migrating: Migrating | None = None
        self.is_closed = False
        self._inferred: int | None = None

    async def take_turn(self) -> Lease:
        """Wait until no other task works on the stored actor; it is settled, and still ours.

        Whoever got the turn ends it by releasing `turns`.

        Raises:
            ActivationInProgressError: Migrations whose caller has left go on for too long.
        """
        await self.turns.acquire()
        while self.migrating is not None and not (self.migrating.task.done() or self.is_closed):
            self.turns.release()  # the others wait beside us, none for longer than its own time
            if await self.migrating.outlast(self.migrating.seconds):
                raise self._too_long(self.migrating)
            await self.turns.acquire()
        try:
            if self.refusal is not None:
                raise self.refusal
            if self.lease is not None and self.lease.is_lost:  # told even if the node found out first
                raise LeaseLostError(self.key)
            if self.is_closed or self.lease is None or self.lease.is_released:
                raise ActivationClosedError(self.key)
            await self.lease.check()
        except BaseException:
            self.turns.release()
            raise
        return self.lease

    @property
    def is_busy(self) -> bool:
        """Whether somebody works on the stored actor."""
        return self.turns.locked() or (self.migrating is not None and not self.migrating.task.done())

    async def migrate(self, run: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        """Run migrations in a task of their own, as if they ran here; needs a turn.

        Raises:
            ActivationInProgressError: They take too long, and go on.
        """
        migrating = Migrating(self.key, run, seconds)
        if await migrating.end_in_time():
            return
        if self.is_closed or self.lease is None or not self.lease.is_valid:  # what they make can't be stored
            if await migrating.stop():
                return
        else:
            self.migrating = migrating
        raise self._too_long(migrating)

    def raise_failure(self) -> None:
        """Raise what the migrations failed with that outlasted their caller; once."""
        migrating, self.migrating = self.migrating, None
        if migrating is not None and not migrating.task.cancelled():
            migrating.task.result()

    def _too_long(self, migrating: Migrating) -> ActivationError:
        if self.lease is not None and not self.lease.is_valid:
            return LeaseLostError(self.key)
        if self.is_closed:
            return ActivationClosedError(self.key)
        return ActivationInProgressError(self.key, migrating.seconds)

    def check_writable(self) -> None:
        """Refuse to store anything in a shared action."""
        turn = TURN.get()
        if turn is not None and turn.is_shared and turn.key == self.key and turn.is_running:
            raise ReadOnlyActionError(self.key, turn.action)

    def check_version(self) -> None:
        """Refuse what is newer by a major version."""
        refusal = _plan.check(self.type.chain, self.found(), self.key)
        if refusal is not None:
            raise refusal

    def found(self) -> _plan.Found:
        """Return what a plan needs to know."""
        if self.lease is None:
            raise self.refusal or ActivationClosedError(self.key)
        states, stamp = self.lease.states, self.lease.stamp
        main = states.get(self.type.state)
        if stamp is None and main is not None and self._inferred is None:
            self._inferred = self.type.infer(main, self.key)
        inferred = (self._inferred or 0) if stamp is None else 0
        base, written = self.lease.base, self.lease.policy.version
        if base is None and written is None:
            return _plan.Found(stamp, bool(states), main is not None, inferred, self.lease.marks)
        if base is None:
            return _plan.Found(stamp, bool(states), main is not None, inferred, self.lease.marks, write_version=written)
        kept = base.states.get(self.type.state)
        is_current = base.revision == self.lease.revision
        has_main = kept is None or kept.data is not None
        return _plan.Found(
            stamp, bool(states), main is not None, inferred, self.lease.marks, base, is_current, has_main, written
        )

    def decide(self) -> _plan.Plan | ActivationError:
        """Return what migrate-and-load has to do, or why it refuses."""
        return _plan.decide(self.type.chain, self.found(), self.key)

    def eager_tables(self) -> Mapping[str, int]:
        """Return the tables whose entries are to be converted first, see `lazymig._plan`."""
        if self.lease is None or self.lease.marks.oldest is None:
            return _NO_TABLES
        return _plan.eager_tables(self.type.chain, self.found())

    @property
    def values(self) -> Mapping[str, bytes]:
        """The states as the activation has them, encoded: those of the base once it was taken."""
        if self.projected is not None:
            return self.projected
        if self.lease is None:
            return {}
        base = None if self.lease.base is None else self._taken()
        return self.lease.states if base is None else values_of(base, self.lease.states)

    def _taken(self) -> Base | None:
        """Return the base that stands for the states as stored."""
        if self.lease is None or self.lease.base is None or (self.plan is None and not self.has_lowered):
            return None
        return _plan.base_to_take(self.type.chain, self.found())

    def shape(
        self, plan: _plan.Plan | None = None, *, creates_main: bool, has_main: bool = True
    ) -> _shapes.Shape | ActivationError:
        """Return how the actor is stored, or why it isn't."""
        plan = plan or self.plan
        takes_base = False
        if self.lease is not None and self.lease.base is not None:
            takes_base = plan.takes_base if self.plan is None and plan is not None else self._taken() is not None
        storing = _shapes.Storing(creates_main, has_main, self.migrated_at, takes_base)
        return _shapes.shape(self.type.chain, self.found(), plan, storing, self.key)

    def forget_inferred(self) -> None:
        """Note that the main state is another one by now."""
        self._inferred = None

    @property
    def limit(self) -> int | None:
        """The write version, packed, if this software supports more; else None."""
        written = None if self.lease is None else self.lease.policy.version
        return written if written is not None and written < self.type.chain.release.highest else None

    def is_projection(self, version: int) -> bool:
        """Tell whether what a migration, packed, makes of the actor is above the write version, or was once."""
        if self.lease is None:
            return False
        written, base = self.lease.policy.version, self.lease.base
        return (written is not None and version > written) or (base is not None and base.applied.has(version))

    def values_for(self, plan: _plan.Plan | None) -> Mapping[str, bytes]:
        """Return the states that what is run by a plan begins with."""
        if plan is None or self.lease is None or self.lease.base is None:
            return self.values
        return values_of(self.lease.base, self.lease.states) if plan.takes_base else self.lease.states


def values_of(base: Base, stored: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the states that a base stands for: those that it has, and those that older software left alone."""
    values = dict(stored)
    for name, kept in base.states.items():
        if kept.data is None:
            values.pop(name, None)
        else:
            values[name] = kept.data
    return values
