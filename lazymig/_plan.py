"""Decide, without I/O, what an activation may do with the stored actor: refuse it, or run these migrations.

| stored                          | load                    | migrate-and-load                                   |
|---------------------------------|-------------------------|----------------------------------------------------|
| no state, no entry              | new: nothing to check   | nothing to run; stamped with all registered        |
| newer by a major                | NewerStateError         | NewerStateError                                    |
| below the baseline              | as stored               | StateTooOldError                                   |
| lacks a late one without consent| as stored               | LateMigrationError                                 |
| states, but no main state       | as stored, unless a     | nothing to run but eager conversions; other states |
|                                 | newer major wrote last  | and the stamp are left as they are                 |
| entries only                    | the same                | nothing to run but eager conversions; the stamp    |
|                                 |                         | gets all registered                                |
| else                            | as stored               | pending ones run, in order                         |

An actor without migration-info is at 0.0.0, or at the version its suite infers: that becomes the floor of its applied
set. Once no state and no entry is left the actor counts as new, whatever its last stamp was.

An actor whose entries were being converted is at the mark of that conversion, if it is higher than its stamp. Entries
have stamps of their own:

| stored entry                    | read                                                                         |
|---------------------------------|------------------------------------------------------------------------------|
| newer by a major                | NewerStateError                                                              |
| below the baseline              | StateTooOldError                                                             |
| lacks a late one without consent| LateMigrationError, if that one converts entries of the table                |
| else                            | converted by what is pending and has a conversion for the table, in order    |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lazymig import _version
from lazymig._records import NO_MARKS, AppliedSet, Marks, Stamp
from lazymig.errors import ActivationError, LateMigrationError, NewerStateError, StateTooOldError

if TYPE_CHECKING:
    from datetime import datetime

    from lazymig._conversions import Conversion
    from lazymig._entries import Place
    from lazymig._migrations import Chain, Migration
    from lazymig._records import ActorKey

EMPTY = AppliedSet()


class Found(NamedTuple):
    """What a plan needs to know of the stored actor.

    Attributes:
        stamp: As stored, None without migration-info.
        has_states: Whether any state is stored.
        has_main: Whether the main state is.
        inferred: Version that the suite infers where there is no stamp, packed; else 0.
        marks: Of its entries.
    """

    stamp: Stamp | None
    has_states: bool
    has_main: bool
    inferred: int = 0
    marks: Marks = NO_MARKS

    @property
    def is_new(self) -> bool:
        """Whether nothing is stored of it."""
        return not self.has_states and self.marks.oldest is None

    @property
    def applied(self) -> AppliedSet:
        """What counts as applied to the actor."""
        if self.stamp is not None:
            return self.stamp.applied
        return AppliedSet((), self.inferred) if self.inferred else EMPTY


class Plan(NamedTuple):
    """What to run and what to stamp.

    Attributes:
        steps: Migrations to run on the main state, in order.
        applied: The applied set afterwards.
        must_commit: Whether there is something to store although nothing was changed yet.
    """

    steps: tuple[Migration, ...]
    applied: AppliedSet
    must_commit: bool


def check(chain: Chain, found: Found, key: ActorKey | None) -> ActivationError | None:
    """Return why this software may not read the actor, None if it may. Only the major decides."""
    if found.is_new:
        return None
    stored = max(found.applied.highest, found.marks.converting)
    if not found.has_main and found.stamp is not None:
        stored = max(stored, found.stamp.writer.highest)  # nothing was migrated: the shapes are the last writer's
    if _version.is_newer_major(stored, chain.release.highest):
        return NewerStateError(key, _version.unpack(stored), chain.supported)
    return None


def decide(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    """Return what migrate-and-load has to do, or why it refuses.

    All actors with the same applied set have the same plan, so the chain keeps those that were made.
    """
    if not found.has_main or found.inferred or (found.marks is not NO_MARKS and found.marks.converting):
        return _decide(chain, found, key)
    applied = found.applied
    plan: Plan | ActivationError | None = chain.plans.get(applied)
    if plan is None:
        plan = _decide(chain, found, key)
        if isinstance(plan, Plan):
            chain.keep_plan(applied, plan)
    return plan


def _decide(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    if found.is_new:
        return Plan((), chain.release, must_commit=False)
    refusal = check(chain, found, key)
    if refusal is not None:
        return refusal
    applied = found.applied
    if not found.has_main:
        return Plan((), applied if found.has_states else applied.union(chain.release), must_commit=False)
    if applied.highest < chain.floor:
        return StateTooOldError(key, _version.unpack(applied.highest), _version.unpack(chain.floor))
    steps = chain.pending(applied)
    if late := [step.version for step in steps if step.packed < applied.highest and not step.late]:
        return LateMigrationError(key, _version.unpack(applied.highest), late)
    is_adopted = found.stamp is None and found.inferred > 0
    after = applied.union(AppliedSet(step.packed for step in steps)) if steps else applied
    return Plan(steps, after, must_commit=bool(steps) or is_adopted)


def eager_tables(chain: Chain, found: Found, plan: Plan) -> dict[str, int]:
    """Return the tables whose entries are converted before all else: name to the version, packed, they are brought to.

    Those of pending migrations, and of migrations that the software lacked which last stored the actor: it may have put
    entries. (An actor without a main state keeps its stamp; there the latter alone tells.) None if no entry is as old
    as that.
    """
    oldest = found.marks.oldest
    if oldest is None:
        return {}
    pending = plan.steps if found.has_main or found.stamp is not None else chain.migrations
    if found.stamp is not None and found.stamp.writer != chain.release:
        lacked = {*pending, *chain.pending(found.stamp.writer)}
        pending = tuple(step for step in chain.migrations if step in lacked)
    return {
        table: step.packed  # the last one stands
        for step in pending
        if step.packed > oldest or step.late
        for table, conversion in step.conversions.items()
        if conversion.is_eager
    }


class EntryPlan(NamedTuple):
    """What to do with an entry that was read.

    Attributes:
        steps: What converts it, in order.
        applied: The applied set afterwards.
    """

    steps: tuple[Conversion, ...]
    applied: AppliedSet


def decide_entry(
    chain: Chain, place: Place, applied: AppliedSet, highest: int, actor: ActorKey
) -> EntryPlan | ActivationError:
    """Return what brings an entry up, or why it is refused.

    Args:
        chain: Of its actor's type.
        place: The entry.
        applied: What was applied to it.
        highest: The version, packed, it is brought to: that of the software, or of the migration that reads it.
        actor: Its actor.
    """
    known = (place[0], applied, highest)
    plan: EntryPlan | None = chain.entry_plans.get(known)
    if plan is None:
        made = _decide_entry(chain, known, actor, place)
        if isinstance(made, ActivationError):
            return made
        plan = made
        chain.keep_entry_plan(known, plan)
    return plan


def _decide_entry(
    chain: Chain, known: tuple[str, AppliedSet, int], actor: ActorKey, place: Place
) -> EntryPlan | ActivationError:
    table, applied, highest = known
    stored = _version.unpack(applied.highest)
    if _version.is_newer_major(applied.highest, chain.release.highest):
        return NewerStateError(actor, stored, chain.supported, place=place)
    if applied.highest < chain.floor:
        return StateTooOldError(actor, stored, _version.unpack(chain.floor), place)
    steps = [step for step in chain.pending(applied) if step.packed <= highest and table in step.conversions]
    if late := [step.version for step in steps if step.packed < applied.highest and not step.late]:
        return LateMigrationError(actor, stored, late, place)
    return EntryPlan(tuple(step.conversions[table] for step in steps), applied.union(chain.release_up_to(highest)))


def stamp_after(
    chain: Chain, found: Found, plan: Plan | None, *, creates_main: bool, migrated_at: datetime | None = None
) -> Stamp | None:
    """Return the stamp of an actor once states are stored.

    Args:
        chain: Of its type.
        found: The stored actor.
        plan: Of the migrate-and-load that came before, None after `load()` alone.
        creates_main: Whether the main state was absent and is stored now.
        migrated_at: When migrations ran in this activation; None if none did.

    Nothing is stamped that was not migrated or created by this software: after `load()` alone the stamp stays, and
    `written_by` is the older of the two.
    """
    if not found.has_states and found.is_new:
        return Stamp(chain.release, chain.release)
    applied = found.applied if plan is None else plan.applied
    if creates_main:
        applied = applied.union(chain.release)
    if plan is None and not creates_main:
        return None if found.stamp is None else _loaded_only(found.stamp, chain.release)
    before = found.stamp
    if migrated_at is None and before is not None:
        migrated_at = before.migrated_at
    return Stamp(applied, chain.release, migrated_at)


def _loaded_only(stamp: Stamp, release: AppliedSet) -> Stamp:
    writer = release if release.highest < stamp.writer.highest else stamp.writer
    return Stamp(stamp.applied, writer, stamp.migrated_at)
