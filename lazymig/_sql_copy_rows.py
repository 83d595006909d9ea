"""The rows that whole actors are to a SQL store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _rows
from lazymig._sql_failures import write_failure
from lazymig.copies import CopiedEntry
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._records import ActorKey
    from lazymig._sql_lineage import Lineage
    from lazymig._sql_operations import Operation, Rows
    from lazymig.copies import Whole


class NamedValue(NamedTuple):
    """A state, or one of a base.

    Attributes:
        id: The actor's.
        name: The state's.
        value: Encoded; None only in a base: there was none.
    """

    id: str
    name: str
    value: bytes | None


class EntryValue(NamedTuple):
    """An entry.

    Attributes:
        id: The actor's.
        name: The table's.
        key: The entry's.
        value: Encoded.
        lineage: Names what was applied to it.
    """

    id: str
    name: str
    key: str
    value: bytes
    lineage: int


class PreviousValue(NamedTuple):
    """A state as it was before a commit across a major version.

    Attributes:
        id: The actor's.
        name: The state's.
        value: Encoded.
        lineage: Of the stamp then.
        written_by: Likewise.
        migrated_at: Likewise.
    """

    id: str
    name: str
    value: bytes
    lineage: int | None
    written_by: int | None
    migrated_at: int | None


class FailureValue(NamedTuple):
    """The record of a migration that failed, as `write_failure` gives it.

    Attributes:
        id: The actor's.
        failed_at: When it did.
        retry_at: When it is tried again.
        record: The rest.
    """

    id: str
    failed_at: int
    retry_at: int
    record: str


class Values(NamedTuple):
    """What is stored of actors beside their rows.

    Attributes:
        states: Their states.
        kept: Those of their bases.
        previous: Those from before a major version.
        failures: Their records of failures.
        entries: Their entries, in order.
    """

    states: list[NamedValue]
    kept: list[NamedValue]
    previous: list[PreviousValue]
    failures: list[FailureValue]
    entries: list[EntryValue]

    @property
    def tables(self) -> tuple[Sequence[tuple[Any, ...]], ...]:
        """The same, in this order."""
        return tuple(self)


NOTHING: Mapping[str, Any] = {
    "revision": 0,
    "version": None,
    "lineage": None,
    "written_by": None,
    "migrated_at": None,
    "converting": 0,
    "oldest": None,
    "base_lineage": None,
    "base_revision": None,
    "base_digest": None,
    "failing": False,
}
"""The row of an actor of which nothing is stored."""


def values_of(wholes: Sequence[Whole], lineage: Lineage) -> Operation[Values]:
    """Return all that is stored of actors beside their rows."""
    values = Values([], [], [], [], [])
    for actor, entries, previous in wholes:
        key = actor.key
        values.states.extend(NamedValue(key.id, *state) for state in sorted(actor.states.items()))
        if actor.base is not None:
            values.kept.extend(NamedValue(key.id, name, kept.data) for name, kept in sorted(actor.base.states.items()))
        if previous is not None:
            stamp = yield from lineage.columns(key.type, previous.stamp)
            columns = stamp["lineage"], stamp["written_by"], stamp["migrated_at"]
            values.previous.extend(PreviousValue(key.id, *state, *columns) for state in sorted(previous.states.items()))
        if actor.failure is not None:
            values.failures.append(FailureValue(key.id, **write_failure(actor.failure)))
        values.entries.extend((yield from entry_values(key, entries, lineage)))
    return values


def entry_values(key: ActorKey, entries: Sequence[CopiedEntry], lineage: Lineage) -> Operation[list[EntryValue]]:
    """Return rows of entries in order."""
    numbers = {}
    for applied in {entry.applied for entry in entries}:
        numbers[applied] = yield from lineage.id(key.type, applied)
    rows = [EntryValue(key.id, entry.table, entry.key, entry.data, numbers[entry.applied]) for entry in entries]
    return sorted(rows)


def entries_of(key: ActorKey, rows: Rows, lineage: Lineage) -> Operation[list[CopiedEntry]]:
    """Return entries of their rows: table, key, value and lineage, table by table."""
    sets = {}
    for number in dict.fromkeys(row[3] for row in rows):
        try:
            sets[number] = yield from lineage.get(key, number)
        except CorruptStateError as error:
            raise CorruptStateError(key, f"of an entry, {error.reason}") from error
    by_table: dict[Any, list[Any]] = {}
    for name, *row in rows:
        by_table.setdefault(name, []).append(row)
    entries = []
    for name, of_table in by_table.items():
        table = _rows.read_table(key, name)
        keys, data, numbers = _rows.read_entries(key, table, of_table)
        columns = zip(keys, data, map(sets.__getitem__, numbers), strict=True)
        entries += [CopiedEntry(table, entry_key, value, applied) for entry_key, value, applied in columns]
    return entries
