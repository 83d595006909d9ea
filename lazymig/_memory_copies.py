"""Whole actors of the store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig._bases import NO_POLICY
from lazymig._entries import Entry
from lazymig._memory_rows import Row, Table
from lazymig.copies import VALUE_BYTES, CopiedEntry, Outline, Put, TypeSettings, Whole
from lazymig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lazymig._bases import WritePolicy
    from lazymig._memory_rulings import MemoryRulings
    from lazymig._records import ActorKey


class MemoryCopies:
    """See `lazymig.copies.Copies`.

    Args:
        check_open: Raises if the store was closed.
        rows: The actors.
        policies: The write policies by type.
        rulings: Have the releases.
        holder: Returns the living node that holds an actor.
    """

    def __init__(
        self,
        check_open: Callable[[], None],
        rows: dict[ActorKey, Row],
        policies: dict[str, WritePolicy],
        rulings: MemoryRulings,
        holder: Callable[[ActorKey], str | None],
    ) -> None:
        self._check_open = check_open
        self._rows = rows
        self._policies = policies
        self._releases = rulings.releases
        self._holder = holder
        self._drafts: dict[ActorKey, str] = {}

    async def types(self) -> Sequence[str]:
        """See `Copies.types`."""
        self._check_open()
        stored = {key.type for key, row in self._rows.items() if row.revision}
        return sorted({*stored, *self._policies, *(actor_type for actor_type, _ in self._releases)})

    async def settings(self, actor_type: str) -> TypeSettings:
        """See `Copies.settings`."""
        self._check_open()
        releases = [release for (of, _), release in self._releases.items() if of == actor_type]
        return TypeSettings(self._policies.get(actor_type, NO_POLICY), releases)

    async def outlines(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[Outline]:
        """See `Copies.outlines`."""
        self._check_open()
        keys = sorted(key for key, row in self._rows.items() if key.type == actor_type and row.revision)
        found = [(key, self._rows[key]) for key in keys if key.id > after]
        return [Outline(key.id, row.revision, sum(_sizes(row))) for key, row in found[:limit]]

    async def read(self, actor_type: str, ids: Sequence[str]) -> Sequence[Whole]:
        """See `Copies.read`."""
        self._check_open()
        wanted = set(ids)
        keys = sorted(key for key in self._rows if key.type == actor_type and key.id in wanted)
        rows = [(key, self._rows[key]) for key in keys if self._rows[key].revision]
        return [Whole(row.stored(key), _entries(row), row.previous) for key, row in rows]

    async def note(self, actor_type: str, settings: TypeSettings) -> None:
        """See `Copies.note`."""
        self._check_open()
        for release in settings.releases:
            known = self._releases.get((actor_type, release.applied))
            if known is None or known.seen_at < release.seen_at:
                self._releases[actor_type, release.applied] = release
        if settings.policy.epoch > self._policies.get(actor_type, NO_POLICY).epoch:
            self._policies[actor_type] = settings.policy

    async def put(self, actor_type: str, wholes: Sequence[Whole]) -> Sequence[Put]:  # noqa: ARG002  (the Protocol's)
        """See `Copies.put`."""
        self._check_open()
        outcomes = []
        for whole in wholes:
            key = whole.actor.key
            outcome = self._refusal(key, whole.actor.revision)
            if outcome is Put.STORED:
                row = self._rows[key] = Row()
                _add(row, whole.entries)
                _become(row, whole)
                self._drafts.pop(key, None)
            outcomes.append(outcome)
        return outcomes

    async def begin(self, key: ActorKey, revision: int, draft: str, entries: Sequence[CopiedEntry]) -> Put:
        """See `Copies.begin`."""
        self._check_open()
        outcome = self._refusal(key, revision)
        if outcome is Put.STORED:
            self._rows[key] = Row()
            self._drafts[key] = draft
            _add(self._rows[key], entries)
        return outcome

    async def add(self, key: ActorKey, draft: str, entries: Sequence[CopiedEntry]) -> bool:
        """See `Copies.add`."""
        self._check_open()
        is_there = self._drafts.get(key) == draft
        if is_there:
            _add(self._rows[key], entries)
        return is_there

    async def finish(self, whole: Whole, draft: str) -> Put:
        """See `Copies.finish`."""
        self._check_open()
        key = whole.actor.key
        if self._drafts.get(key) != draft:
            return Put.HELD
        del self._drafts[key]
        _become(self._rows[key], whole)
        return Put.STORED

    async def backup(self, file: Path, progress: Callable[[float], object]) -> None:  # noqa: ARG002  (the Protocol's)
        """See `Copies.backup`."""
        raise StoreError("memory: ends with its process, and has no backup. Copy it to a store in a file.")

    def _refusal(self, key: ActorKey, revision: int) -> Put:
        if key in self._rows and self._rows[key].revision >= revision:
            return Put.NOT_OLDER
        return Put.STORED if key in self._drafts or self._holder(key) is None else Put.HELD


def _become(row: Row, whole: Whole) -> None:
    actor = whole.actor
    row.revision, row.states, row.base = actor.revision, dict(actor.states), actor.base
    row.stamp, row.marks, row.fence = actor.stamp, actor.marks, None
    row.failure, row.previous = actor.failure, whole.previous


def _add(row: Row, entries: Sequence[CopiedEntry]) -> None:
    for table, key, data, applied in entries:
        row.tables.setdefault(table, Table()).put(key, Entry(data, applied))


def _entries(row: Row) -> tuple[CopiedEntry, ...]:
    tables = sorted(row.tables.items())
    return tuple(CopiedEntry(name, key, *table.entries[key]) for name, table in tables for key in table.keys)


def _sizes(row: Row) -> Iterator[int]:
    for data in row.states.values():
        yield VALUE_BYTES + len(data)
    for kept in () if row.base is None else row.base.states.values():
        yield VALUE_BYTES + len(kept.data or b"")
    for data in () if row.previous is None else row.previous.states.values():
        yield VALUE_BYTES + len(data)
    for entry in _entries(row):
        yield VALUE_BYTES + len(entry.data)
