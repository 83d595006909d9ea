"""Decide, without I/O, how an actor is stored: its stamp, the shape of its states, and what is kept as its base.

| software                            | states are stored     | stamp               | base                          |
|-------------------------------------|-----------------------|---------------------|-------------------------------|
| supports more than the write version| brought down to it    | up to it            | all states as they are; a base|
|                                     |                       |                     | of newer software stays, if   |
|                                     |                       |                     | they were not made of it      |
| knows all that stamp and base have  | as they are           | what is applied     | none                          |
| only loaded the actor, or lacks     | as they are           | as it was, or what  | kept; the first time a state  |
| something that stamp or base has    |                       | is applied          | is stored, what it was before |

Nothing is stamped that was not migrated or created by this software. Without a main state nothing is brought down: what
is stored has the shape of this software, and its stamp; what isn't stays as it is.
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
    WITHOUT_MAIN = "as it is, but for a main state that is removed"
    NOTHING = "nothing"


class Shape(NamedTuple):
    """How an actor is stored.

    Attributes:
        stamp: Afterwards.
        applied: What is applied to the states as the activation has them.
        keep: What becomes of the base.
        lowers: What brings the states down, the highest first.
        digest: Of what was run to make the states of what is stored, of a base only; 0 if nobody can tell.
        stays: Whether all states that are left stay as they are stored: without a main state nothing brings them down.
    """

    stamp: Stamp | None
    applied: AppliedSet
    keep: Keep
    lowers: tuple[Migration, ...] = ()
    digest: int = 0
    stays: bool = False


class Storing(NamedTuple):
    """What is to be stored.

    Attributes:
        creates_main: Whether the main state was absent and is stored now.
        has_main: Whether there is one afterwards.
        puts: Whether a state is stored, and not only removed.
        migrated_at: When migrations ran in this activation; None if none did.
        held: What is applied to the states as the activation has them, where they are not as stored; else None.
        takes_base: Whether it has those of the base.
        only_entries: Whether no state is stored or removed, nor brought up.
    """

    creates_main: bool
    has_main: bool = True
    puts: bool = True
    migrated_at: datetime | None = None
    held: AppliedSet | None = None
    takes_base: bool = False
    only_entries: bool = False


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
    is_plain = found.write_version is None and found.base is None and storing.has_main and not storing.creates_main
    if is_plain and plan is not None and chain.knows(plan.applied):  # as mostly
        return Shape(_stamp(chain, found, plan, storing, plan.applied), plan.applied, Keep.AS_IT_IS)
    return _shape(chain, found, plan, storing, key)


def _shape(
    chain: Chain, found: Found, plan: Plan | None, storing: Storing, key: ActorKey | None
) -> Shape | ActivationError:
    refusal = None if found.write_version is None else _plan.check(chain, found, key)
    if refusal is not None:
        return refusal
    if storing.only_entries and found.has_states and found.stamp is not None:
        return Shape(_stamp(chain, found, plan, storing, found.applied), found.applied, Keep.AS_IT_IS, stays=True)
    applied = _applied(chain, found, plan, storing)
    if _plan.has_to_lower(chain, found, applied, takes_base=storing.takes_base):
        if storing.has_main:
            return _lowered(chain, found, plan, storing, key)
        if not storing.puts:
            stamp = _stamp(chain, found, plan, storing, applied)
            stored = found.applied  # of the states that stay
            if not found.has_states:
                stored = _plan.stored_set(chain, found, applied, takes_base=storing.takes_base)
            stamp = None if stamp is None else stamp._replace(applied=stored)
            return Shape(stamp, applied, Keep.WITHOUT_MAIN, stays=True)
    stamp = _stamp(chain, found, plan, storing, applied)
    is_known = chain.knows(applied) and (found.base is None or chain.knows(found.base.applied))
    if found.base is None:
        return Shape(stamp, applied, Keep.AS_IT_IS if is_known else Keep.FIRST)
    has_come_up = plan is not None or storing.creates_main or storing.takes_base
    return Shape(stamp, applied, Keep.NOTHING if is_known and has_come_up else Keep.FIRST)


def _lowered(
    chain: Chain, found: Found, plan: Plan | None, storing: Storing, key: ActorKey | None
) -> Shape | ActivationError:
    if _plan.has_newer_base(chain, found):
        return _plan.newer_base(chain, found, key)
    written = found.write_version or 0
    if storing.creates_main or not found.has_base_main:  # the main state has what this software knows
        applied = chain.union(chain.release, found.applied.up_to(written))
    else:
        applied = _applied(chain, found, plan, storing)
    stored = _plan.stored_set(chain, found, applied, takes_base=storing.takes_base)
    lowers = [step for step in chain.migrations if step.packed > written and applied.has(step.packed)]
    digest = 0
    if chain.knows(applied):
        digest = chain.digest(_plan.made_above(chain, applied, stored))
    elif found.base is not None and storing.takes_base and stored == found.applied:
        digest = found.base.digest  # of newer software, which alone can tell
    stamp = _stamp(chain, found, plan, storing, applied) or Stamp(applied, chain.release)
    is_unrepaired = found.base is not None and plan is None and not storing.takes_base and not _plan.is_above(found)
    is_lesser = is_unrepaired or _plan.has_to_keep_base(chain, found, storing.takes_base)
    keep = Keep.FIRST if is_lesser and not storing.creates_main else Keep.ALL
    if keep is Keep.FIRST and _plan.is_above(found):  # nothing would keep what is stored
        return _plan.newer_base(chain, found, key)
    return Shape(stamp._replace(applied=stored), applied, keep, tuple(reversed(lowers)), digest)


def _applied(chain: Chain, found: Found, plan: Plan | None, storing: Storing) -> AppliedSet:
    """Return what is applied to the states as the activation has them.

    Where there is no main state nothing brings them up, and they are in the shape of who stored them last.
    """
    if found.is_new:
        return chain.release
    applied = found.applied
    if storing.held is not None:
        applied = chain.union(applied, storing.held)
    if plan is not None:
        applied = chain.union(applied, plan.applied)
    is_own = storing.creates_main or (plan is not None and storing.puts and not storing.has_main)
    return chain.union(applied, chain.release) if is_own else applied


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
        writer = before.writer if chain.knows(before.writer) else chain.release
        return Stamp(applied, writer, before.migrated_at)
    if migrated_at is None and before is not None:
        migrated_at = before.migrated_at
    return Stamp(applied, chain.release, migrated_at)
