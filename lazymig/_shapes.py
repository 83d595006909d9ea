"""Decide, without I/O, how an actor is stored: its stamp, the shape of its states, and what is kept as its base.

| software                            | states are stored     | stamp               | base                          |
|-------------------------------------|-----------------------|---------------------|-------------------------------|
| supports more than the write version| brought down to it    | up to it            | all states as they are; a base|
|                                     |                       |                     | of newer software stays, if   |
|                                     |                       |                     | they were not made of it      |
| knows all that stamp and base have  | as they are           | what is applied     | none                          |
| only loaded the actor, or lacks     | as they are           | as it was, or what  | kept; the first time a state  |
| something that stamp or base has    |                       | is applied          | is stored, what it was before |

Nothing is stamped that was not migrated or created by this software.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from lazymig import _plan
from lazymig._records import Stamp

if TYPE_CHECKING:
    from datetime import datetime

    from lazymig._migrations import Chain, Migration
    from lazymig._plan import Found, Plan
    from lazymig._records import ActorKey, AppliedSet
    from lazymig.errors import ActivationError


class Keep(Enum):
    """What becomes of the base."""

    AS_IT_IS = "as it is"
    FIRST = "what this software stores over for the first time"
    ALL = "all states as they are"
    NOTHING = "nothing"


class Shape(NamedTuple):
    """How an actor is stored.

    Attributes:
        stamp: Afterwards.
        applied: What is applied to the states as the activation has them.
        keep: What becomes of the base.
        lowers: What brings the states down, the highest first.
        digest: Of what was run to make the states of what is stored; of a base only.
    """

    stamp: Stamp | None
    applied: AppliedSet
    keep: Keep
    lowers: tuple[Migration, ...] = ()
    digest: int = 0


class Storing(NamedTuple):
    """What is to be stored.

    Attributes:
        creates_main: Whether the main state was absent and is stored now.
        has_main: Whether there is one afterwards.
        migrated_at: When migrations ran in this activation; None if none did.
        takes_base: Whether the activation has the states of the base.
    """

    creates_main: bool
    has_main: bool = True
    migrated_at: datetime | None = None
    takes_base: bool = False


def shape(
    chain: Chain, found: Found, plan: Plan | None, storing: Storing, key: ActorKey | None
) -> Shape | ActivationError:
    """Return how an actor is stored, or why it isn't.

    Args:
        chain: Of its type.
        found: The stored actor.
        plan: Of the migrate-and-load that came before, None after `load()` alone.
        storing: What is to be stored.
        key: The actor.
    """
    refusal = None if found.write_version is None else _plan.check(chain, found, key)
    if refusal is not None:
        return refusal
    applied = _applied(chain, found, plan, storing)
    if found.write_version is None and found.base is None and chain.knows(applied):
        return Shape(_stamp(chain, found, plan, storing, applied), applied, Keep.AS_IT_IS)
    if storing.has_main and _plan.has_to_lower(chain, found, applied, takes_base=storing.takes_base):
        if storing.creates_main and found.write_version is not None:  # what the base gets has what this software knows
            applied = _joined(chain.release, found.applied.up_to(found.write_version))
        stamp = _stamp(chain, found, plan, storing, applied)
        return _lowered(chain, found, storing, key, applied, stamp)
    stamp = _stamp(chain, found, plan, storing, applied)
    is_known = chain.knows(applied) and (found.base is None or chain.knows(found.base.applied))
    if found.base is None:
        keep = Keep.AS_IT_IS if is_known else Keep.FIRST
    elif is_known and (plan is not None or storing.creates_main or storing.takes_base):
        keep = Keep.NOTHING
    else:
        keep = Keep.FIRST
    return Shape(stamp, applied, keep)


def _lowered(  # noqa: PLR0913, PLR0917  (as `shape`)
    chain: Chain, found: Found, storing: Storing, key: ActorKey | None, applied: AppliedSet, full: Stamp | None
) -> Shape | ActivationError:
    if _plan.has_newer_base(chain, found):
        return _plan.newer_base(chain, found, key)
    stored = _plan.stored_set(chain, found, applied, takes_base=storing.takes_base)
    written = found.write_version or 0
    lowers = [step for step in chain.migrations if step.packed > written and applied.has(step.packed)]
    if found.base is not None and storing.takes_base and not chain.knows(applied):
        digest = found.base.digest  # of newer software: only that one can tell
    else:
        digest = chain.digest(number for number in applied.packed if not stored.has(number))
    stamp = None if full is None else full._replace(applied=stored)
    keep = Keep.FIRST if _plan.has_to_keep_base(chain, found, storing.takes_base) else Keep.ALL
    return Shape(stamp, applied, keep, tuple(reversed(lowers)), digest)


def _applied(chain: Chain, found: Found, plan: Plan | None, storing: Storing) -> AppliedSet:
    """Return what is applied to the states as the activation has them."""
    if found.is_new:
        return chain.release
    applied = found.applied
    if storing.takes_base and found.base is not None:
        applied = _joined(applied, found.base.applied)
    if plan is not None:
        applied = _joined(applied, plan.applied)
    return _joined(applied, chain.release) if storing.creates_main else applied


def _joined(first: AppliedSet, second: AppliedSet) -> AppliedSet:
    """Return what either has; mostly they are equal."""
    return first if first is second or first == second else first.union(second)


def stamp_after(chain: Chain, found: Found, plan: Plan | None, storing: Storing) -> Stamp | None:
    """Return the stamp of an actor once states are stored as they are; as `shape`."""
    return _stamp(chain, found, plan, storing, _applied(chain, found, plan, storing))


def _stamp(chain: Chain, found: Found, plan: Plan | None, storing: Storing, applied: AppliedSet) -> Stamp | None:
    """Do the same for what is applied; after `load()` alone the stamp stays, and the writer is the older of the two."""
    if found.is_new:
        return Stamp(applied, chain.release)
    before, migrated_at = found.stamp, storing.migrated_at
    if plan is None and not storing.creates_main:
        if before is None:
            return None
        writer = chain.release if chain.release.highest < before.writer.highest else before.writer
        return Stamp(applied, writer, before.migrated_at)
    if migrated_at is None and before is not None:
        migrated_at = before.migrated_at
    return Stamp(applied, chain.release, migrated_at)
