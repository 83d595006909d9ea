"""How what an activation has is stored: its stamp, the shape of its states, its base, and the marks of its entries.

Rules:

1. What is stored was shaped for the write policy whose epoch the commit carries; for another one it is shaped anew.
2. The activation's states stay as they are, whatever shape they are stored in.
3. What is kept from before a major version belongs to an actor that has been at that one ever since: a commit that
   brings the actor down again drops it, or takes it to a yet higher one and keeps nothing, so that whoever restores it
   never loses what was stored in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig import _shapes
from lazymig._bases import NO_BASE, BaseWrite, Kept
from lazymig._holding import PolicyChangedError
from lazymig._records import NO_MARKS, Marks
from lazymig._version import is_newer_major
from lazymig.errors import ActivationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig import _plan
    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._records import Stamp
    from lazymig._running import Staged

_Writes = dict[str, "bytes | None"]


async def commit(  # noqa: PLR0913  (named, all but four)
    holding: Holding,
    lease: Lease,
    writes: _Writes,
    entries: Staged | None = None,
    *,
    riding: Staged | None = None,
    release: bool = False,
) -> None:
    """Store states and entries with their stamp, in the shape that the write policy asks for; needs a turn.

    Args:
        holding: What the activation has of the actor.
        lease: The actor's.
        writes: Name to encoded value; None removes the state.
        entries: See `Commit.entries`.
        riding: More of them, that were converted when they were read: not where they would be brought down again.
        release: Give the lock up in the same transaction.

    Raises:
        NewerStateError: This software stores nothing of the type any more.
    """
    while True:
        put = {**riding, **(entries or {})} if riding and holding.limit is None else entries
        if _is_settled(holding, lease):
            marks = _marks(holding, lease, lease.stamp, put, None) if put or lease.marks != NO_MARKS else None
            if await lease.commit(writes, lease.stamp, release=release, entries=put, marks=marks):
                await _note_stored(lease, writes, put, release=release)
                return
            continue
        try:
            await commit_once(holding, lease, writes, put, release=release)
        except PolicyChangedError:
            continue
        return


async def commit_once(  # noqa: PLR0913  (named, all but four)
    holding: Holding,
    lease: Lease,
    writes: _Writes,
    entries: Staged | None = None,
    *,
    plan: _plan.Plan | None = None,
    projected: Mapping[str, bytes] | None = None,
    release: bool = False,
    oldest: int | None = None,
) -> None:
    """Do as `commit`, but for the write policy that was last heard of.

    Args:
        holding: As there.
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
    main, values = holding.type.state, holding.values_for(plan)
    creates_main = writes.get(main) is not None and main not in values
    has_main = writes[main] is not None if main in writes else main in values
    puts = any(data is not None for data in writes.values())
    only_entries = not writes and plan is None
    shape = holding.shape(plan, creates_main=creates_main, has_main=has_main, puts=puts, only_entries=only_entries)
    if isinstance(shape, ActivationError):
        raise shape
    base = None
    if only_entries and shape.stays:
        pass  # states and base, and what is in memory of them, stay
    elif shape.keep is _shapes.Keep.AS_IT_IS and values is lease.states:
        if plan is None:
            holding.expect(None, shape.applied, is_base=False)
    else:
        full = left(values, writes) if projected is None else projected
        low = await _low(holding, lease, shape, writes, full, is_projected=projected is not None)
        base = _base_write(holding, lease, shape, writes, full, low, anew=main if creates_main else None)
        writes = _changes(lease.states, low)
        is_base = bool(low) and _is_base(holding, lease, shape, base)
        holding.expect(full if is_base or full != low else None, shape.applied, is_base=is_base)
    if entries and holding.limit is not None:
        entries = await holding.activation.lowered_entries(entries, holding.limit)
    marks = _marks(holding, lease, shape.stamp, entries, oldest)
    keeps = _keeps_previous(holding, lease, shape.stamp)
    if not await lease.commit(
        writes, shape.stamp, release=release, entries=entries, marks=marks, base=base, keeps_previous=keeps
    ):
        holding.expect_nothing()
        raise PolicyChangedError
    holding.settle()
    await _note_stored(lease, writes, entries, release=release)


def _is_base(holding: Holding, lease: Lease, shape: _shapes.Shape, base: BaseWrite | None) -> bool:
    """Tell whether the states in memory are what the base has afterwards."""
    if shape.keep is _shapes.Keep.ALL:
        return True
    return base is None and lease.base is not None and holding.memory is not None and holding.memory.is_base


def _is_settled(holding: Holding, lease: Lease) -> bool:
    """Tell whether the stamp stays, and there is nothing to bring down or to keep: as mostly."""
    stamp, plan, chain = lease.stamp, holding.plan, holding.type.chain
    written = lease.policy.version
    return (
        lease.base is None
        and (written is None or written == chain.release.highest)
        and holding.memory is None
        and plan is not None
        and stamp is not None
        and (holding.migrated_at is None or holding.migrated_at == stamp.migrated_at)
        and holding.type.state in lease.states
        and stamp.writer == chain.release
        and stamp.applied == plan.applied
        and chain.knows(stamp.applied)
    )


async def _note_stored(lease: Lease, writes: _Writes, entries: Staged | None, *, release: bool) -> None:
    has_removed = None in writes.values() or None in (entries or {}).values()
    if has_removed and not (lease.states or release or lease.marks.oldest is None):
        await lease.read_marks()  # it may be a new actor again


async def _low(  # noqa: PLR0913  (what it is made of)
    holding: Holding,
    lease: Lease,
    shape: _shapes.Shape,
    writes: _Writes,
    full: Mapping[str, bytes],
    *,
    is_projected: bool,
) -> Mapping[str, bytes]:
    """Return the states as they are stored."""
    if is_projected or shape.stays:
        return left(lease.states, writes)
    return await holding.activation.lowered(full, shape.lowers)


def _base_write(  # noqa: PLR0913, PLR0917  (likewise)
    holding: Holding,
    lease: Lease,
    shape: _shapes.Shape,
    writes: _Writes,
    full: Mapping[str, bytes],
    low: Mapping[str, bytes],
    *,
    anew: str | None,
) -> BaseWrite | None:
    """Return what becomes of the base; a state that is created anew is not what newer software had."""
    before, chain = lease.base, holding.type.chain
    kept = {} if before is None else before.states
    if shape.keep is _shapes.Keep.NOTHING or not low:
        return None if before is None else NO_BASE
    if shape.keep in {_shapes.Keep.AS_IT_IS, _shapes.Keep.WITHOUT_MAIN}:
        main = holding.type.state
        if shape.keep is _shapes.Keep.AS_IT_IS or before is None or main not in writes:
            return None
        return BaseWrite(before.applied, before.digest, states={main: Kept(None)})
    if shape.keep is _shapes.Keep.FIRST:
        changed_names = {*writes, *_changes(lease.states, low)}
        applied = holding.found().applied
        has_come_up = holding.plan is not None and before is not None and chain.knows(before.applied)
        if has_come_up and not chain.knows(applied):  # what the base was kept for has been mended
            found = {name: Kept(lease.states.get(name)) for name in changed_names}
            return BaseWrite(applied, states={**dict.fromkeys(kept), **found})
        first = {name: Kept(lease.states.get(name)) for name in changed_names if name not in kept or name == anew}
        applied, digest = (applied, 0) if before is None else (before.applied, before.digest)
        return BaseWrite(applied, digest, states=first) if first else None
    states = {name: Kept(full.get(name)) for name in {*full, *low}}
    changed: dict[str, Kept | None] = {name: of for name, of in states.items() if kept.get(name) != of}
    gone = dict.fromkeys(kept.keys() - states.keys())
    return BaseWrite(shape.applied, shape.digest, is_current=True, states={**gone, **changed})


def _marks(
    holding: Holding,
    lease: Lease,
    stamp: Stamp | None,
    entries: Staged | None,
    oldest: int | None,
) -> Marks | None:
    if not entries and lease.marks == NO_MARKS:
        return None
    converting = _mark(holding, lease, entries)
    is_over = holding.found().is_new or (stamp is not None and stamp.applied.highest >= converting)
    oldest = lowest(lease.marks.oldest if oldest is None else oldest, entries)
    marks = Marks(0 if is_over else converting, oldest)
    return None if marks == lease.marks and not entries else marks


def _keeps_previous(holding: Holding, lease: Lease, stamp: Stamp | None) -> bool | None:
    """Tell what becomes of what the actor was before a major version, see `Commit.keeps_previous`.

    An actor without migration-info is at the version that its suite infers, or at 0.0.0.
    """
    if stamp is None or not lease.revision:
        return None
    before, after = holding.found().applied.highest, stamp.applied.highest
    if is_newer_major(after, before):
        return holding.type.keeps_previous
    return False if is_newer_major(before, after) else None


def _mark(holding: Holding, lease: Lease, entries: Staged | None) -> int:
    """Return up to which version, packed, the actor has entries, if its stamp doesn't tell.

    Software that has not brought the actor up may put entries of a newer major: older software is refused from then
    on, as it is during a conversion.
    """
    converting = lease.marks.converting
    if not entries or holding.found().is_new:
        return converting
    highest = max((entry.applied.highest for entry in entries.values() if entry is not None), default=0)
    known = max(holding.found().applied.highest, converting)
    return highest if is_newer_major(highest, known) else converting


def lowest(oldest: int | None, entries: Staged | None) -> int | None:
    """Return what all entries are at least at once some more are stored, packed; None if there are none."""
    versions = [entry.applied.highest for entry in (entries or {}).values() if entry is not None]
    if oldest is not None:
        versions.append(oldest)
    return min(versions, default=None)


def left(stored: Mapping[str, bytes], writes: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Return states once some were written."""
    return {name: data for name, data in {**stored, **writes}.items() if data is not None}


def _changes(stored: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> _Writes:
    """Return what makes the wanted states of those that are stored."""
    changes: _Writes = {name: data for name, data in wanted.items() if stored.get(name) != data}
    return changes | dict.fromkeys(stored.keys() - wanted.keys())
