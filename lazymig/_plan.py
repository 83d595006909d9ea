"""Decide, without I/O, what an activation may do with the stored actor: refuse it, or run these migrations.

| stored                          | load                    | migrate-and-load                                   |
|---------------------------------|-------------------------|----------------------------------------------------|
| no state, no entry              | new: nothing to check   | nothing to run; stamped with all registered        |
| newer by a major                | NewerStateError         | NewerStateError                                    |
| below the baseline              | as stored               | StateTooOldError                                   |
| lacks a late one without consent| as stored               | LateMigrationError                                 |
| states, but no main state       | as stored               | nothing to run but eager conversions; other states |
|                                 |                         | and the stamp are left as they are                 |
| entries only                    | the same                | nothing to run but eager conversions; the stamp    |
|                                 |                         | gets all registered                                |
| else                            | as stored               | pending ones run, in order                         |

An actor without migration-info is at 0.0.0, or at the version its suite infers: that becomes the floor of its applied
set. Once no state and no entry is left the actor counts as new, whatever its last stamp was.

An actor whose entries were being converted is at the mark of that conversion, if it is higher than its stamp.

Where a write version is set, or older software stored last:

| actor                           | what is done                                                                 |
|---------------------------------|------------------------------------------------------------------------------|
| type is written at a version    | NewerStateError, on every path: this software stores nothing of it           |
| above the supported one         |                                                                              |
| base is current, and has what   | the base is taken in place of the states; what it lacks runs on it; what it  |
| the stamp lacks                 | has and the last writer lacked, who took it too, is reconciled with itself   |
| has a base, and the last writer | what the stamp lacks runs; what base has and writer or stamp lack is         |
| or the stamp lacks what it has  | reconciled, in order; a main state that older software created gets it anew  |
| base is of a newer minor, and   | as stored by the last writer, brought up as above; that base stays, and what |
| out of date                     | runs above the write version runs at each activation                         |
| the last writer lacked what the | StateTooOldError: what would reconcile it was retired                        |
| base has up to the baseline     |                                                                              |
| base is newer by a major        | as stored; NewerStateError where something is to run, or a base is to be made|

Above the write version what runs is a projection: its results are kept as the base, beside the states as stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lazymig import _version
from lazymig._records import NO_MARKS, AppliedSet, Marks
from lazymig.errors import ActivationError, LateMigrationError, NewerStateError, StateTooOldError

if TYPE_CHECKING:
    from lazymig._bases import Base
    from lazymig._migrations import Chain, Migration
    from lazymig._records import ActorKey, Stamp

EMPTY = AppliedSet()


class Found(NamedTuple):
    """What a plan needs to know of the stored actor.

    Attributes:
        stamp: As stored, None without migration-info.
        has_states: Whether any state is stored.
        has_main: Whether the main state is.
        inferred: Version that the suite infers where there is no stamp, packed; else 0.
        marks: Of its entries.
        base: What newer software last stored, None without one.
        is_current: Whether nobody stored since the base was made.
        has_base_main: Whether the base has a main state; if not, older software created the one that is stored.
        write_version: That its type is written at, packed; None: each node stores what it supports.
    """

    stamp: Stamp | None
    has_states: bool
    has_main: bool
    inferred: int = 0
    marks: Marks = NO_MARKS
    base: Base | None = None
    is_current: bool = False
    has_base_main: bool = True
    write_version: int | None = None

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
        applied: The applied set afterwards, of the states as the activation has them.
        must_commit: Whether there is something to store although nothing was changed yet.
        reconciles: Migrations whose `reconcile` runs, each after those of `steps` up to it.
        unrepaired: Migrations that older software has stored over, and that have no `reconcile` that can run.
        takes_base: Whether they run on the base, in place of the states as stored.
        keeps_base: Whether the base has something of newer software that none made here would have: what runs above
            the write version is not kept then.
    """

    steps: tuple[Migration, ...]
    applied: AppliedSet
    must_commit: bool
    reconciles: tuple[Migration, ...] = ()
    unrepaired: tuple[Migration, ...] = ()
    takes_base: bool = False
    keeps_base: bool = False

    @property
    def runs(self) -> bool:
        """Whether a migration runs by it, or a `reconcile`."""
        return bool(self.steps or self.reconciles)

    @property
    def is_async(self) -> bool:
        """Whether something of it is known to be async."""
        return any(step.is_async for step in self.steps) or any(step.reconciles_async for step in self.reconciles)


def check(chain: Chain, found: Found, key: ActorKey | None) -> ActivationError | None:
    """Return why this software may not read the actor, None if it may. Of what is stored only the major decides."""
    written = found.write_version
    if written is not None and written > chain.release.highest:
        return NewerStateError(key, _version.unpack(written), chain.supported, of="type")
    if found.is_new:
        return None
    stored = max(found.applied.highest, found.marks.converting)
    if _version.is_newer_major(stored, chain.release.highest):
        return NewerStateError(key, _version.unpack(stored), chain.supported)
    return None


def decide(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    """Return what migrate-and-load has to do, or why it refuses.

    All actors with the same applied set have the same plan, so the chain keeps those that were made.
    """
    if not found.has_main or found.inferred or (found.marks is not NO_MARKS and found.marks.converting):
        return _decide(chain, found, key)
    written = found.write_version
    if found.base is not None or (written is not None and written != chain.release.highest):
        return _decide(chain, found, key)
    applied = found.applied
    plan: Plan | ActivationError | None = chain.plans.get(applied)
    if plan is None:
        plan = _decide(chain, found, key)
        if isinstance(plan, Plan):
            chain.keep_plan(applied, plan)
    return plan


def _decide(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    refusal = check(chain, found, key)
    if refusal is not None:
        return refusal
    if found.is_new:
        return Plan((), chain.release, must_commit=False)
    if found.has_main:
        return _decide_main(chain, found, key)
    applied = found.applied
    return Plan((), applied if found.has_states else applied.union(chain.release), must_commit=False)


def _decide_main(chain: Chain, found: Found, key: ActorKey | None) -> Plan | ActivationError:
    applied = found.applied
    taken = base_to_take(chain, found)
    known = applied if taken is None else applied.union(taken.applied)
    if known.highest < chain.floor:
        return StateTooOldError(key, _version.unpack(known.highest), _version.unpack(chain.floor))
    if taken is None and _has_retired_drift(chain, found):
        writer = found.stamp.writer.highest if found.stamp is not None else 0
        return StateTooOldError(key, _version.unpack(writer), _version.unpack(chain.floor))
    steps = chain.pending(known)
    if late := [step.version for step in steps if step.packed < known.highest and not step.late]:
        return LateMigrationError(key, _version.unpack(known.highest), late)
    after = known.union(AppliedSet(step.packed for step in steps)) if steps else known
    lacked = _lacked(chain, found, is_taken=taken is not None)
    if has_newer_base(chain, found) and (steps or lacked or has_to_lower(chain, found, after)):
        return newer_base(chain, found, key)
    is_taken = taken is not None
    keeps_base = has_to_lower(chain, found, after, takes_base=is_taken) and has_to_keep_base(chain, found, is_taken)
    plan = Plan(steps, after, must_commit=False, takes_base=is_taken, keeps_base=keeps_base)
    if lacked:
        plan = _with_lacked(chain, found, plan, lacked)
    return plan._replace(must_commit=_must_commit(chain, found, plan))


def _must_commit(chain: Chain, found: Found, plan: Plan) -> bool:
    """Tell whether a plan has something to store: not what a store would only bring down to a write version."""
    if plan.steps or plan.reconciles or plan.unrepaired or (found.stamp is None and found.inferred > 0):
        return True
    if not plan.takes_base:
        return False
    return not found.applied.covers(stored_set(chain, found, plan.applied, takes_base=True))


# --- bases -----------------------------------------------------------------------------------------------------------


def base_to_take(chain: Chain, found: Found) -> Base | None:
    """Return the base that stands for the states: nobody stored since, and it has something that the stamp lacks.

    One that other functions made of what was stored doesn't: they were mended since. (Those of newer software can't be
    compared.)
    """
    base = found.base
    if base is None or not (found.is_current and found.has_base_main) or has_newer_base(chain, found):
        return None
    above = made_above(chain, base.applied, found.applied)
    has_to_keep = bool(above) and has_to_lower(chain, found, found.applied)  # what it has, it stores over
    if not has_to_keep and not any(chain.release.has(number) for number in above):
        return None
    if base.digest and chain.knows(base.applied) and chain.digest(above) != base.digest:
        return None
    return base


def made_above(chain: Chain, full: AppliedSet, stored: AppliedSet) -> list[int]:
    """Return the versions, packed, of what made a base of states as stored; of a floor those that are registered."""
    known = (step.packed for step in chain.migrations if full.has(step.packed))
    return [number for number in {*full.packed, *known} if not stored.has(number)]


def has_newer_base(chain: Chain, found: Found) -> bool:
    """Tell whether the base is out of reach."""
    return found.base is not None and _version.is_newer_major(found.base.applied.highest, chain.release.highest)


def has_to_keep_base(chain: Chain, found: Found, is_taken: bool) -> bool:  # noqa: FBT001  (a predicate's)
    """Tell whether the base has something of newer software that none made of the states as stored would have."""
    base = found.base
    if base is None or is_taken or chain.knows(base.applied):
        return False
    return not (is_above(found) and found.applied.covers(base.applied))


def is_above(found: Found) -> bool:
    """Tell whether the states as stored are above the write version, and were last stored so.

    Then nothing but a base of them keeps what they have.
    """
    written, stamp = found.write_version, found.stamp
    return written is not None and stamp is not None and min(stamp.applied.highest, stamp.writer.highest) > written


def newer_base(chain: Chain, found: Found, key: ActorKey | None) -> NewerStateError:
    """Return the refusal of software that would have to replace a base that is out of reach."""
    stored = 0 if found.base is None else found.base.applied.highest
    return NewerStateError(key, _version.unpack(stored), chain.supported, of="base")


def has_to_lower(chain: Chain, found: Found, applied: AppliedSet, *, takes_base: bool = False) -> bool:
    """Tell whether states of an applied set are stored in an older shape, and kept as a base.

    Only software that supports more than the write version does that, or that took a base; older software leaves what
    it doesn't know.
    """
    written = found.write_version
    if written is None or (chain.release.highest <= written and not takes_base):
        return False
    return applied.highest > written


def stored_set(chain: Chain, found: Found, applied: AppliedSet, *, takes_base: bool = False) -> AppliedSet:
    """Return the applied set that states are stored with which have ``applied``."""
    if not has_to_lower(chain, found, applied, takes_base=takes_base):
        return applied
    return applied.up_to(found.write_version or 0)


def _lacked(chain: Chain, found: Found, *, is_taken: bool) -> tuple[Migration, ...]:
    """Return the migrations that the base has, and that the last writer, or the stamp, lacked.

    A base that is taken has what the stamp lacks; but software that lacks some of it may have taken and stored it, too.
    """
    base, stamp = found.base, found.stamp
    if base is None:
        return ()
    writer = EMPTY if stamp is None else stamp.writer
    return tuple(
        step
        for step in chain.migrations
        if base.applied.has(step.packed)
        and not (writer.has(step.packed) and (is_taken or found.applied.has(step.packed)))
    )


def _has_retired_drift(chain: Chain, found: Found) -> bool:
    """Tell whether the last writer lacked what the base has and the baseline retired: nothing here can mend it."""
    base, stamp = found.base, found.stamp
    if base is None or stamp is None or not chain.floor:
        return False
    return any(
        number <= chain.floor and not stamp.writer.has(number)
        for number in (base.applied.floor, *base.applied.packed)
        if number
    )


def _with_lacked(chain: Chain, found: Found, plan: Plan, lacked: tuple[Migration, ...]) -> Plan:
    base = found.base
    if base is None or not found.has_base_main:  # older software created the main state
        again = {*plan.steps, *lacked}
        return plan._replace(steps=tuple(step for step in chain.migrations if step in again))
    repaired = tuple(step for step in lacked if step.reconciler is not None and _is_reached(chain, base, step))
    unrepaired = tuple(step for step in lacked if step not in repaired)
    return plan._replace(reconciles=repaired, unrepaired=unrepaired)


def _is_reached(chain: Chain, base: Base, step: Migration) -> bool:
    """Tell whether the base can be brought down to the shape after a migration; minor ones need no way down."""
    limit = _version.next_major(step.packed)
    return all(
        above.downgrade is not None or above.packed < limit
        for above in chain.migrations
        if above.packed > step.packed and base.applied.has(above.packed)
    )
