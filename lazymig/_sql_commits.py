"""What a commit is to a SQL store."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lazymig._sql_operations import BRIEF_BYTES, NO_BASE_ROWS, BaseRows

if TYPE_CHECKING:
    from lazymig._bases import BaseWrite
    from lazymig._records import ActorKey, Commit, Fence
    from lazymig._sql_lineage import Lineage
    from lazymig._sql_operations import Committed, Dealing, EntryRow, Operation

BRIEF_STATES = 20
"""Up to how many states a commit that counts as brief stores."""


def looks_brief(commit: Commit) -> bool:
    """Tell whether it stores little; of what is removed, or kept, nobody knows how much it was."""
    if commit.keeps_previous is not None:
        return False
    sizes = [BRIEF_BYTES + 1 if data is None else len(data) for data in commit.writes.values()]
    if commit.base is not None:
        sizes += _sizes(commit.base)
    return len(sizes) <= BRIEF_STATES and sum(sizes) <= BRIEF_BYTES and not commit.entries


def puts_nothing(commit: Commit) -> bool:
    """Tell whether there may be nothing left of the actor afterwards, but its revision."""
    has_base = commit.base is not None and commit.base.applied is not None
    return not has_base and not any(put is not None for put in (*commit.writes.values(), *commit.entries.values()))


def store(dealing: Dealing, commit: Commit, lineage: Lineage) -> Operation[Committed]:
    """Store what it says."""
    stamp = yield from lineage.columns(commit.key.type, commit.stamp)
    of = {**of_lock(commit.key, commit.fence), **stamp, "revision": commit.revision, "keep": not commit.release}
    of |= {"epoch": commit.epoch, "puts_nothing": puts_nothing(commit)}
    of |= {"has_new_sets": commit.has_new_sets, "keeps_previous": commit.keeps_previous}
    of["clears_failure"] = commit.clears_failure
    entries = None
    if commit.marks is not None:
        of |= {"converting": commit.marks.converting, "oldest": commit.marks.oldest}
        entries = yield from _entry_rows(commit, lineage)
    if commit.base is not None:
        base = yield from _base_rows(commit.key.type, commit.base, lineage)
        return (yield from dealing.commit_base(of, commit.writes, entries, base))
    if entries is not None:
        return (yield from dealing.commit_entries(of, commit.writes, entries))
    return (yield from dealing.commit(of, commit.writes))


def of_lock(key: ActorKey, fence: Fence) -> dict[str, Any]:
    """Return an actor and a fence as parameters."""
    return {"type": key.type, "id": key.id, "node": fence.node, "number": fence.number}


def _entry_rows(commit: Commit, lineage: Lineage) -> Operation[list[EntryRow]]:
    """Return what a commit stores of entries, in order of their keys."""
    sets = {id(entry.applied): entry.applied for entry in commit.entries.values() if entry is not None}
    ids = {}  # by object: most entries of a commit have the same one
    for of, applied in sets.items():
        ids[of] = yield from lineage.id(commit.key.type, applied)
    return [
        (table, name, None, None) if entry is None else (table, name, entry[0], ids[id(entry[1])])
        for (table, name), entry in sorted(commit.entries.items(), key=itemgetter(0))
    ]


def _sizes(base: BaseWrite) -> list[int]:
    """Return how many bytes are stored of each state of a base; of what is removed it isn't known."""
    if base.applied is None:
        return [BRIEF_BYTES + 1]
    return [BRIEF_BYTES + 1 if kept is None else len(kept.data or b"") for kept in base.states.values()]


def _base_rows(actor_type: str, base: BaseWrite, lineage: Lineage) -> Operation[BaseRows]:
    if base.applied is None:
        return NO_BASE_ROWS
    number = yield from lineage.id(actor_type, base.applied)
    columns = {"base_lineage": number, "base_digest": base.digest, "is_current": base.is_current}
    ordered = sorted(base.states.items())
    kept = {name: value.data for name, value in ordered if value is not None}
    return BaseRows(columns, kept, [name for name, value in ordered if value is None])
