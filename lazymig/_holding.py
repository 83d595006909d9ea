"""A stored actor as one activation holds it: its lock, its turns, and what was decided for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazymig import _plan, _shapes
from lazymig._bases import NO_BASE, BaseWrite, Kept
from lazymig._migrating import Migrating
from lazymig._records import NO_MARKS, Marks
from lazymig._turn import TURN
from lazymig._version import is_newer_major
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
    from lazymig._entries import Entry, Place
    from lazymig._lease import Lease
    from lazymig._records import ActorKey, Stamp
    from lazymig.activation import Activation
    from lazymig.suite import ActorType

_Writes = dict[str, "bytes | None"]


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
        handed: The states, encoded, that migrations under way began with.
        projected: The states, encoded, as the activation has them where no base keeps them; else None.
    """

    __slots__ = (
        "_activation", "_has_lowered", "_inferred", "handed", "is_closed", "key", "lease", "migrated_at", "migrating",
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
        self._activation = activation
        self._has_lowered = False
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

    @property
    def values(self) -> Mapping[str, bytes]:
        """The states as the activation has them, encoded: those of the base once it was taken."""
        if self.projected is not None:
            return self.projected
        if self.lease is None:
            return {}
        base = self._taken()
        return self.lease.states if base is None else values_of(base, self.lease.states)

    def _taken(self) -> Base | None:
        """Return the base that stands for the states as stored."""
        if self.lease is None or self.lease.base is None or (self.plan is None and not self._has_lowered):
            return None
        return _plan.base_to_take(self.type.chain, self.found())

    def shape(
        self, plan: _plan.Plan | None = None, *, creates_main: bool, has_main: bool = True
    ) -> _shapes.Shape | ActivationError:
        """Return how the actor is stored, or why it isn't."""
        plan = plan or self.plan
        takes_base = plan.takes_base if self.plan is None and plan is not None else self._taken() is not None
        storing = _shapes.Storing(creates_main, has_main, self.migrated_at, takes_base)
        return _shapes.shape(self.type.chain, self.found(), plan, storing, self.key)

    async def commit(
        self,
        lease: Lease,
        writes: _Writes,
        entries: Mapping[Place, Entry | None] | None = None,
        *,
        release: bool = False,
    ) -> None:
        """Store states and entries with their stamp, in the shape that the write policy asks for; needs a turn.

        Args:
            lease: The actor's.
            writes: Name to encoded value; None removes the state.
            entries: See `Commit.entries`.
            release: Give the lock up in the same transaction.

        Raises:
            NewerStateError: This software stores nothing of the type any more.
        """
        while True:
            with suppress(PolicyChangedError):
                await self.commit_once(lease, writes, entries, release=release)
                return

    async def commit_once(  # noqa: PLR0913  (named, all but three)
        self,
        lease: Lease,
        writes: _Writes,
        entries: Mapping[Place, Entry | None] | None = None,
        *,
        plan: _plan.Plan | None = None,
        projected: Mapping[str, bytes] | None = None,
        release: bool = False,
        oldest: int | None = None,
    ) -> None:
        """Do as `commit`, but for the write policy that was last heard of.

        Args:
            lease: As there.
            writes: As there.
            entries: As there.
            plan: What was run.
            projected: All states with what was run above the write version; ``writes`` are without that then.
            release: As there.
            oldest: What all stored entries were found to be at least at, packed; None: nobody looked.

        Raises:
            PolicyChangedError: It has changed; nothing was stored.
        """
        main, values = self.type.state, self.values_for(plan)
        creates_main = writes.get(main) is not None and main not in values
        has_main = writes[main] is not None if main in writes else main in values
        shape = self.shape(plan, creates_main=creates_main, has_main=has_main)
        if isinstance(shape, ActivationError):
            raise shape
        base, full = None, values
        if shape.keep is not _shapes.Keep.AS_IT_IS:
            full = left(values, writes) if projected is None else projected
            low = await self._low(lease, shape, writes, full, is_projected=projected is not None)
            base = self._base_write(lease, shape, writes, full, low)
            writes = _changes(lease.states, low)
        if entries and self.limit is not None:
            entries = await self._activation.lowered_entries(entries, self.limit)
        marks = self._marks(lease, shape.stamp, entries, oldest)
        if not await lease.commit(writes, shape.stamp, release=release, entries=entries, marks=marks, base=base):
            raise PolicyChangedError
        self._has_lowered |= bool(shape.lowers)
        if shape.lowers and shape.keep is _shapes.Keep.FIRST:
            self.projected = full
        else:
            self.projected = None
        if main in writes:
            self._inferred = None  # of another value
        has_removed = None in writes.values() or None in (entries or {}).values()
        if has_removed and not (lease.states or release or lease.marks.oldest is None):
            await lease.read_marks()  # it may be a new actor again

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

    async def _low(
        self, lease: Lease, shape: _shapes.Shape, writes: _Writes, full: Mapping[str, bytes], *, is_projected: bool
    ) -> Mapping[str, bytes]:
        """Return the states as they are stored."""
        if is_projected:
            return left(lease.states, writes)
        return await self._activation.lowered(full, shape.lowers)

    def _base_write(
        self, lease: Lease, shape: _shapes.Shape, writes: _Writes, full: Mapping[str, bytes], low: Mapping[str, bytes]
    ) -> BaseWrite | None:
        """Return what becomes of the base."""
        before = lease.base
        kept = {} if before is None else before.states
        if shape.keep is _shapes.Keep.NOTHING or not low:
            return None if before is None else NO_BASE
        if shape.keep is _shapes.Keep.FIRST:
            first = {name: Kept(lease.states.get(name)) for name in writes if name not in kept}
            applied, digest = (self.found().applied, 0) if before is None else (before.applied, before.digest)
            return BaseWrite(applied, digest, states=first) if first else None
        states = {name: Kept(full.get(name)) for name in {*full, *low}}
        changed: dict[str, Kept | None] = {name: of for name, of in states.items() if kept.get(name) != of}
        gone = dict.fromkeys(kept.keys() - states.keys())
        return BaseWrite(shape.applied, shape.digest, is_current=True, states={**gone, **changed})

    def _marks(
        self, lease: Lease, stamp: Stamp | None, entries: Mapping[Place, Entry | None] | None, oldest: int | None
    ) -> Marks | None:
        if not entries and lease.marks == NO_MARKS:
            return None
        converting = self._mark(lease, entries)
        is_over = self.found().is_new or (stamp is not None and stamp.applied.highest >= converting)
        oldest = lowest(lease.marks.oldest if oldest is None else oldest, entries)
        marks = Marks(0 if is_over else converting, oldest)
        return None if marks == lease.marks and not entries else marks

    def _mark(self, lease: Lease, entries: Mapping[Place, Entry | None] | None) -> int:
        """Return up to which version, packed, the actor has entries, if its stamp doesn't tell.

        Software that has not brought the actor up may put entries of a newer major: older software is refused from then
        on, as it is during a conversion.
        """
        converting = lease.marks.converting
        if not entries or self.found().is_new:
            return converting
        highest = max((entry.applied.highest for entry in entries.values() if entry is not None), default=0)
        known = max(self.found().applied.highest, converting)
        return highest if is_newer_major(highest, known) else converting


def lowest(oldest: int | None, entries: Mapping[Place, Entry | None] | None) -> int | None:
    """Return what all entries are at least at once some more are stored, packed; None if there are none."""
    versions = [entry.applied.highest for entry in (entries or {}).values() if entry is not None]
    if oldest is not None:
        versions.append(oldest)
    return min(versions, default=None)


def values_of(base: Base, stored: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the states that a base stands for: those that it has, and those that older software left alone."""
    values = dict(stored)
    for name, kept in base.states.items():
        if kept.data is None:
            values.pop(name, None)
        else:
            values[name] = kept.data
    return values


def left(stored: Mapping[str, bytes], writes: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Return states once some were written."""
    return {name: data for name, data in {**stored, **writes}.items() if data is not None}


def _changes(stored: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> _Writes:
    """Return what makes the wanted states of those that are stored."""
    changes: _Writes = {name: data for name, data in wanted.items() if stored.get(name) != data}
    return changes | dict.fromkeys(stored.keys() - wanted.keys())
