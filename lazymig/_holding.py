"""A stored actor as one activation holds it: its lock, its turns, and what was decided for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _entry_plan, _plan, _quarantine, _shapes, _version
from lazymig._migrating import Migrating
from lazymig._slots import give_way, has_slot
from lazymig._turn import TURN
from lazymig.errors import (
    ActivationClosedError,
    ActivationError,
    ActivationInProgressError,
    LeaseLostError,
    QuarantinedError,
    ReadOnlyActionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime

    from lazymig._bases import Base
    from lazymig._lease import Lease
    from lazymig._records import ActorKey, AppliedSet
    from lazymig.activation import Activation
    from lazymig.suite import ActorType


_NO_TABLES: Mapping[str, int] = {}
_NO_STATES: Mapping[str, bytes] = {}


class PolicyChangedError(Exception):
    """The write policy is another one by now: what was to be stored has to be decided anew."""


class InMemory(NamedTuple):
    """The states as an activation has them, where that is not as they are stored.

    Attributes:
        revision: The actor's that they belong to.
        values: Name to encoded value; None: they are as stored.
        applied: What is applied to them.
        is_base: Whether they are what the base has.
    """

    revision: int
    values: Mapping[str, bytes] | None
    applied: AppliedSet
    is_base: bool


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
        handed: The states, encoded, that migrations under way began with.
        memory: The states as the activation has them; None: as stored.
    """

    __slots__ = (
        "_expected", "_inferred", "activation", "handed", "is_closed", "key", "lease", "memory", "migrated_at",
        "migrating", "plan", "refusal", "turns", "type",
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
        self.handed: Mapping[str, bytes] = {}
        self.memory: InMemory | None = None
        self._expected: InMemory | None = None
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
        taking = self._take_turn()
        return await (give_way(taking, self._give_turn) if has_slot() else taking)

    async def _give_turn(self) -> None:
        self.turns.release()

    async def _take_turn(self) -> Lease:
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
            if self._expected is not None:  # of a commit whose outcome was unknown
                self.settle()
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

    def check_quarantine(self, *, runs: bool) -> None:
        """Refuse to try again so soon what failed.

        Args:
            runs: Whether something is to run.
        """
        failure = None if self.lease is None else self.lease.failure
        if self.lease is None or failure is None:
            return
        applied = self.found().applied
        if _quarantine.holds_up(failure, self.type.chain, applied, runs=runs, now=self.lease.time):
            self.lease.doubt()  # an operator may let it be tried meanwhile
            version = _version.unpack(failure.version)
            raise QuarantinedError(self.key, version, failure.name, failure.error, failure.attempts, failure.retry_at)

    def note_up(self) -> None:
        """Let the next commit remove the record of a failure: the actor has come up to what failed."""
        if self.lease is not None and (failure := self.lease.failure) is not None:
            self.lease.clears_failure = self.type.chain.release.has(failure.version)

    def eager_tables(self) -> Mapping[str, int]:
        """Return the tables whose entries are to be converted first, see `lazymig._plan`."""
        if self.lease is None or self.lease.marks.oldest is None:
            return _NO_TABLES
        return _entry_plan.eager_tables(self.type.chain, self.found())

    @property
    def values(self) -> Mapping[str, bytes]:
        """The states as the activation has them, encoded."""
        if self.memory is not None and self.memory.values is not None:
            return self.memory.values
        return _NO_STATES if self.lease is None else self.lease.states

    def take(self, plan: _plan.Plan, projected: Mapping[str, bytes] | None = None) -> None:
        """Note that the actor has come up: with the base's states, or with some that nothing keeps, or as stored."""
        self.plan = plan
        if self.lease is None:
            return
        if plan.runs or self.lease.marks.oldest is None:  # else it may be one of the entries that failed
            self.note_up()
        if projected is not None:
            self.memory = InMemory(self.lease.revision, projected, plan.applied, is_base=False)
        elif plan.takes_base and self.memory is None and self.lease.base is not None:
            values = values_of(self.lease.base, self.lease.states)
            self.memory = InMemory(self.lease.revision, values, plan.applied, is_base=True)

    def expect(self, values: Mapping[str, bytes] | None, applied: AppliedSet, *, is_base: bool) -> None:
        """Note what the states are in memory once the next commit is acknowledged, or turns out to have been."""
        if self.lease is not None:
            self._expected = InMemory(self.lease.revision + 1, values, applied, is_base)

    def expect_nothing(self) -> None:
        """Note that nothing was stored after all."""
        self._expected = None

    def settle(self) -> None:
        """Note what has become of the last commit."""
        expected, self._expected = self._expected, None
        if expected is None or self.lease is None:
            return
        self._inferred = None  # the main state may be another one by now
        if expected.revision == self.lease.revision:
            self.memory = None if expected.values is None else expected
            if self.plan is not None and self.plan.applied is not expected.applied:  # the actor may be a new one
                self.plan = self.plan._replace(applied=expected.applied)

    def shape(
        self,
        plan: _plan.Plan | None = None,
        *,
        creates_main: bool,
        has_main: bool = True,
        puts: bool = True,
        only_entries: bool = False,
    ) -> _shapes.Shape | ActivationError:
        """Return how the actor is stored, or why it isn't; by the plan that is followed, or was."""
        if plan is not None:
            base = None if self.lease is None or not plan.takes_base else self.lease.base
            held, is_base = None if base is None else base.applied, base is not None
        elif self.memory is not None:
            held, is_base = self.memory.applied, self.memory.is_base
        else:
            held, is_base = None, False
        storing = _shapes.Storing(creates_main, has_main, puts, self.migrated_at, held, is_base, only_entries)
        return _shapes.shape(self.type.chain, self.found(), plan or self.plan, storing, self.key)

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
        if plan is None or self.lease is None:
            return self.values
        if self.lease.base is None:
            return self.lease.states
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
