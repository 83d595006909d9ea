"""A stored actor as one activation holds it: its lock, its turns, and what was decided for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lazymig import _plan
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

    from lazymig._entries import Entry, Place
    from lazymig._lease import Lease
    from lazymig._records import ActorKey, Stamp
    from lazymig.suite import ActorType


class Holding:
    """What an activation has of the stored actor.

    Args:
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
    """

    __slots__ = (
        "_inferred", "is_closed", "key", "lease", "migrated_at", "migrating", "plan", "refusal", "turns", "type",
    )  # fmt: skip

    def __init__(
        self, key: ActorKey, actor_type: ActorType[Any], lease: Lease | None, refusal: ActivationError | None
    ) -> None:
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
        return _plan.Found(stamp, bool(states), main is not None, inferred, self.lease.marks)

    def decide(self) -> _plan.Plan | ActivationError:
        """Return what migrate-and-load has to do, or why it refuses."""
        return _plan.decide(self.type.chain, self.found(), self.key)

    def stamp_after(self, plan: _plan.Plan | None = None, *, creates_main: bool) -> Stamp | None:
        """Return the stamp of the actor once something is stored."""
        return _plan.stamp_after(
            self.type.chain, self.found(), plan or self.plan, creates_main=creates_main, migrated_at=self.migrated_at
        )

    async def commit(  # noqa: PLR0913  (named, all but three)
        self,
        lease: Lease,
        writes: dict[str, bytes | None],
        entries: Mapping[Place, Entry | None] | None = None,
        *,
        plan: _plan.Plan | None = None,
        release: bool = False,
        oldest: int | None = None,
    ) -> None:
        """Store states and entries with their stamp; needs a turn.

        Args:
            lease: The actor's.
            writes: Name to encoded value; None removes the state.
            entries: See `Commit.entries`.
            plan: What was run.
            release: Give the lock up in the same transaction.
            oldest: What all stored entries were found to be at least at, packed; None: nobody looked.
        """
        main = self.type.state
        creates_main = writes.get(main) is not None and main not in lease.states
        stamp = self.stamp_after(plan, creates_main=creates_main)
        marks = None
        if entries or lease.marks != NO_MARKS:
            converting = self._mark(lease, entries)
            is_over = self.found().is_new or (stamp is not None and stamp.applied.highest >= converting)
            oldest = lowest(lease.marks.oldest if oldest is None else oldest, entries)
            marks = Marks(0 if is_over else converting, oldest)
            if marks == lease.marks and not entries:
                marks = None
        await lease.commit(writes, stamp, release=release, entries=entries, marks=marks)
        if main in writes:
            self._inferred = None  # of another value
        has_removed = None in writes.values() or None in (entries or {}).values()
        if has_removed and not (lease.states or release or lease.marks.oldest is None):
            await lease.read_marks()  # it may be a new actor again

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
