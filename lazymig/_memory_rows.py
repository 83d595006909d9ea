"""The rows of the store in memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lazymig._bases import Base
from lazymig._records import NO_MARKS, ActorKey, Marks, Previous, StoredActor

if TYPE_CHECKING:
    from lazymig._bases import BaseWrite
    from lazymig._entries import Entry, Range
    from lazymig._quarantine import Failure
    from lazymig._records import AppliedSet, Fence, Stamp


@dataclass(slots=True)
class Table:
    """The entries of an actor's table."""

    entries: dict[str, Entry] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    """In order."""

    def put(self, key: str, entry: Entry | None) -> None:
        """Store an entry; None removes it."""
        if entry is None:
            if self.entries.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]
        else:
            if key not in self.entries:
                insort(self.keys, key)
            self.entries[key] = entry

    def within(self, of: Range) -> tuple[int, int]:
        """Return where the keys of a range begin and end."""
        return bisect_left(self.keys, of.start), bisect_left(self.keys, of.end)


@dataclass(slots=True)
class Row:
    """An actor with what belongs to it."""

    revision: int = 0
    stamp: Stamp | None = None
    states: dict[str, bytes] = field(default_factory=dict)
    fence: Fence | None = None
    marks: Marks = NO_MARKS
    tables: dict[str, Table] = field(default_factory=dict)
    base: Base | None = None
    previous: Previous | None = None
    failure: Failure | None = None

    @property
    def has_entries(self) -> bool:
        """Whether any is left."""
        return any(table.keys for table in self.tables.values())

    @property
    def is_draft(self) -> bool:
        """Whether it is copied in part only; see `Copies.begin`."""
        return self.revision == 0 and self.has_entries

    @property
    def is_blank(self) -> bool:
        """Whether nothing is stored of it but its revision."""
        return not self.states and self.base is None and not self.has_entries

    @property
    def applied(self) -> AppliedSet | None:
        """What was applied to it, None without migration-info."""
        return None if self.stamp is None else self.stamp.applied

    @property
    def is_plain(self) -> bool:
        """Whether nothing belongs to it but its states and its stamp."""
        return self.base is None and self.failure is None and self.marks == NO_MARKS and not self.has_entries

    def keep(self, keeps: bool | None) -> None:  # noqa: FBT001  (the commit's)
        """Keep stamp and states as they are, or nothing any more; see `Commit.keeps_previous`."""
        if keeps is not None:
            self.previous = Previous(self.stamp, dict(self.states)) if keeps and self.states else None

    def change_base(self, change: BaseWrite) -> None:
        """Store a base, after the revision has risen."""
        if change.applied is None:
            self.base = None
            return
        before = 0 if self.base is None else self.base.revision
        states = {} if self.base is None else dict(self.base.states)
        for name, kept in change.states.items():
            if kept is None:
                states.pop(name, None)
            else:
                states[name] = kept
        revision = self.revision if change.is_current else before
        self.base = Base(change.applied, revision, change.digest, states)

    def tidy(self, *, clears_failure: bool) -> None:
        """Leave nothing of an actor but its revision if no value is, nor a record that is to go."""
        if self.is_blank:
            self.stamp, self.marks, self.previous = None, NO_MARKS, None
        if self.is_blank or clears_failure:
            self.failure = None

    def stored(self, key: ActorKey) -> StoredActor:
        """Return the actor as others see it."""
        owner, number = (None, 0) if self.fence is None else (self.fence.node, self.fence.number)
        states = dict(self.states)
        return StoredActor(key, self.revision, self.stamp, states, owner, number, self.marks, self.base, self.failure)
