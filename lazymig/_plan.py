"""Decide, without I/O, what an activation may do with the stored actor: refuse it, or run these migrations.

| stored                          | load                    | migrate-and-load                                   |
|---------------------------------|-------------------------|----------------------------------------------------|
| no state                        | new: nothing to check   | nothing to run; stamped with all registered        |
| newer by a major                | NewerStateError         | NewerStateError                                    |
| below the baseline              | as stored               | StateTooOldError                                   |
| lacks a late one without consent| as stored               | LateMigrationError                                 |
| states, but no main state       | as stored, unless a     | nothing to run; other states are left as they are  |
|                                 | newer major wrote last  |                                                    |
| else                            | as stored               | pending ones run, in order                         |

An actor without migration-info is at 0.0.0, or at the version its suite infers: that becomes the floor of its applied
set. Once no state is left the actor counts as new, whatever its last stamp was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lazymig import _version
from lazymig._records import AppliedSet, Stamp
from lazymig.errors import ActivationError, LateMigrationError, NewerStateError, StateTooOldError

if TYPE_CHECKING:
    from datetime import datetime

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
    """

    stamp: Stamp | None
    has_states: bool
    has_main: bool
    inferred: int = 0

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
    if not found.has_states:
        return None
    stored = found.applied.highest
    if not found.has_main and found.stamp is not None:
        stored = max(stored, found.stamp.writer.highest)  # nothing was migrated: the shapes are the last writer's
    if _version.is_newer_major(stored, chain.release.highest):
        return NewerStateError(key, _version.unpack(stored), chain.supported)
    return None


def decide(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    """Return what migrate-and-load has to do, or why it refuses.

    All actors with the same applied set have the same plan, so the chain keeps those that were made.
    """
    if not found.has_main or found.inferred:
        return _decide(chain, found, key)
    applied = found.applied
    plan: Plan | ActivationError | None = chain.plans.get(applied)
    if plan is None:
        plan = _decide(chain, found, key)
        if isinstance(plan, Plan):
            chain.keep_plan(applied, plan)
    return plan


def _decide(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    if not found.has_states:
        return Plan((), chain.release, must_commit=False)
    refusal = check(chain, found, key)
    if refusal is not None:
        return refusal
    applied = found.applied
    if not found.has_main:
        return Plan((), applied, must_commit=False)
    if applied.highest < chain.floor:
        return StateTooOldError(key, _version.unpack(applied.highest), _version.unpack(chain.floor))
    steps = chain.pending(applied)
    if late := [step.version for step in steps if step.packed < applied.highest and not step.late]:
        return LateMigrationError(key, _version.unpack(applied.highest), late)
    is_adopted = found.stamp is None and found.inferred > 0
    after = applied.union(AppliedSet(step.packed for step in steps)) if steps else applied
    return Plan(steps, after, must_commit=bool(steps) or is_adopted)


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
    if not found.has_states:
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
