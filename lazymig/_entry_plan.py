"""Decide, without I/O, what is to be done with entries: convert them, or refuse them. They have stamps of their own.

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
from lazymig.errors import ActivationError, LateMigrationError, NewerStateError, StateTooOldError

if TYPE_CHECKING:
    from lazymig._conversions import Conversion
    from lazymig._entries import Place
    from lazymig._migrations import Chain
    from lazymig._plan import Found
    from lazymig._records import ActorKey, AppliedSet


def eager_tables(chain: Chain, found: Found) -> dict[str, int]:
    """Return the tables whose entries are converted before all else: name to the version, packed, they are brought to.

    Those of pending migrations, and of migrations that the software lacked which last stored the actor: it may have put
    entries. (An actor without a main state keeps its stamp; there the latter alone tells.) None if no entry is as old
    as that. Above the write version none is converted eagerly: that waits for the flip.
    """
    oldest, limit = found.marks.oldest, found.write_version
    if oldest is None:
        return {}
    if found.has_main:  # a base that is taken has them, but entries have no base
        pending = chain.pending(found.applied)
    elif found.stamp is None:
        pending = chain.migrations
    else:
        pending = ()
    if found.stamp is not None and found.stamp.writer != chain.release:
        lacked = {*pending, *chain.pending(found.stamp.writer)}
        pending = tuple(step for step in chain.migrations if step in lacked)
    return {
        table: step.packed  # the last one stands
        for step in pending
        if (step.packed > oldest or step.late) and (limit is None or step.packed <= limit)
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
