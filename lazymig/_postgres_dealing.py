"""How PostgreSQL deals with locked actors: what calls `lazymig._postgres_functions`, and what reads beside the lock."""

from __future__ import annotations

from itertools import product, repeat
from typing import TYPE_CHECKING, Any

from lazymig._postgres_sql import STATEMENTS, in_schema
from lazymig._postgres_sweeping_sql import sweep_dialect
from lazymig._sql_operations import Claimed, Dialect, Found, OtherEpoch, last, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import BaseRows, Committed, EntryRow, Operation, Rows

ACTORS = """
    revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
    lineage, written_by, migrated_at, converting, oldest, base_lineage, base_revision, base_digest,
    states.names, states.data, kept.names, kept.data, failure.failed_at, failure.retry_at, failure.record
"""

OF_ACTORS = """
    LEFT JOIN lazymig.node ON node.incarnation = page.owner
    CROSS JOIN LATERAL (
        SELECT array_agg(name) AS names, array_agg(value) AS data FROM lazymig.state
        WHERE state.type = page.type AND state.id = page.id
    ) AS states
    LEFT JOIN LATERAL (
        SELECT array_agg(name) AS names, array_agg(value) AS data FROM lazymig.base
        WHERE base.type = page.type AND base.id = page.id
    ) AS kept ON page.base_lineage IS NOT NULL
    LEFT JOIN lazymig.failure ON page.failing AND failure.type = page.type AND failure.id = page.id
"""

_READ = f"""
    SELECT {ACTORS} FROM lazymig.actor AS page {OF_ACTORS} WHERE page.type = %(type)s AND page.id = %(id)s
"""  # noqa: S608  (constants are put in, no value)

_SCAN = f"""
    SELECT page.id, {ACTORS} FROM (
        SELECT * FROM lazymig.actor WHERE type = %(type)s AND id > %(after)s AND (
            revision <> 0 OR oldest IS NOT NULL OR base_lineage IS NOT NULL
            OR EXISTS (SELECT 1 FROM lazymig.state WHERE state.type = actor.type AND state.id = actor.id)
        )
        ORDER BY id LIMIT %(limit)s
    ) AS page {OF_ACTORS}
    ORDER BY page.id
"""  # noqa: S608  (likewise)

_ENTRIES = """
    SELECT key, value, lineage, is_last FROM (
        SELECT key, value, lineage,
            sum(octet_length(value)) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING) - octet_length(value) AS before,
            row_number() OVER (ORDER BY key) AS position,
            lead(key) OVER (ORDER BY key) IS NULL AS is_last
        FROM (
            SELECT key, value, lineage FROM lazymig.entry
            WHERE type = %(type)s AND id = %(id)s AND name = %(name)s AND key >= %(start)s AND key < %(end)s
            ORDER BY key LIMIT %(limit)s + 1
        ) AS page
    ) AS measured
    WHERE before < %(max_bytes)s AND position <= %(limit)s ORDER BY key
"""

_COMMITTED = (
    "%(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s, %(version)s, %(lineage)s, %(written_by)s, "
    "%(migrated_at)s, %(epoch)s, %(names)s, %(values)b, %(removed)s"
)

_COMMITTED_ENTRIES = (
    "%(tables)s, %(keys)s, %(data)b, %(lineages)s, %(gone_tables)s, %(gone_keys)s, %(converting)s, %(oldest)s"
)

_AFTERWARDS = {"puts_nothing": "blank", "clears_failure": "clear_failure"}
"""What a commit may ask for, see `lazymig._sql_operations.Dealing`, and the function that sees to it."""

_PREVIOUS = "previous(%(type)s, %(id)s, %(revision)s)"

_KEEP: Mapping[bool | None, tuple[str, ...]] = {
    None: (),
    False: ("keep(%(type)s, %(id)s, NULL, NULL, NULL, NULL, NULL)",),
    True: ("keep(%(type)s, %(id)s, o_names, o_values, o_lineage, o_written_by, o_migrated_at)",),
}
"""Likewise of ``keeps_previous``, by what it says; the last one after `_PREVIOUS`."""

_Flags = tuple[bool | None, ...]


def dialect(schema: str) -> Dialect:
    """Return how a schema is spoken to."""
    statements = {name: in_schema(statement, schema) for name, statement in STATEMENTS.items()}
    return Dialect(**statements, dealing=PostgresDealing(schema), sweeping=sweep_dialect(schema))


class PostgresDealing:
    """See `lazymig._sql_operations.Dealing`: each is one call of a function.

    Args:
        schema: Of the functions.
    """

    def __init__(self, schema: str) -> None:
        self._claim = in_schema(
            "SELECT * FROM lazymig.claim(%(type)s, %(id)s, %(node)s, %(number)s, %(now)s, %(dead)s)", schema
        )
        self._commit = _commits(f"commit({_COMMITTED})", schema)
        self._commit_entries = _commits(f"commit_entries({_COMMITTED}, {_COMMITTED_ENTRIES})", schema)
        self._commit_base = _commits(
            f"commit_base({_COMMITTED}, %(has_entries)s, {_COMMITTED_ENTRIES}, "
            "%(base_lineage)s, %(base_digest)s, %(is_current)s, %(kept)s, %(kept_values)b, %(dropped)s)",
            schema,
        )
        self._read = in_schema(_READ, schema)
        self._scan = in_schema(_SCAN, schema)
        self._entries = in_schema(_ENTRIES, schema)
        self._entries_backwards = in_schema(_ENTRIES.replace("ORDER BY key", "ORDER BY key DESC"), schema)
        self._release = in_schema("SELECT lazymig.release(%(types)s, %(ids)s, %(nodes)s, %(numbers)s)", schema)

    def claim(self, of: Mapping[str, Any]) -> Operation[Claimed | None]:
        """See `Dealing.claim`."""
        ((row,),) = yield whole((self._claim, of))
        is_registered, owner, revision, *columns, names, values, kept, kept_values, failed_at, retry_at, record = row
        if not is_registered:
            return None
        if revision is None:
            return Claimed(owner)
        *stamp, version, epoch, clock = columns
        actor = (revision, owner, of["number"], *stamp)
        found = Found(actor, _pairs(names, values), _pairs(kept, kept_values), _failure(failed_at, retry_at, record))
        return Claimed(owner, found, None if epoch is None else (version, epoch), clock)

    def commit(self, of: Mapping[str, Any], writes: Mapping[str, bytes | None]) -> Operation[Committed]:
        """See `Dealing.commit`."""
        ((row,),) = yield whole((self._commit[_flags(of)], {**of, **_columns(writes)}))
        return _committed(of, row)

    def commit_entries(
        self, of: Mapping[str, Any], writes: Mapping[str, bytes | None], entries: Sequence[EntryRow]
    ) -> Operation[Committed]:
        """See `Dealing.commit_entries`."""
        columns = {**of, **_columns(writes), **_entry_columns(entries)}
        ((row,),) = yield whole((self._commit_entries[_flags(of)], columns))
        return _committed(of, row)

    def commit_base(
        self,
        of: Mapping[str, Any],
        writes: Mapping[str, bytes | None],
        entries: Sequence[EntryRow] | None,
        base: BaseRows,
    ) -> Operation[Committed]:
        """See `Dealing.commit_base`."""
        rows = {
            "has_entries": entries is not None,
            "converting": None,
            "oldest": None,
            **_entry_columns(entries or ()),
            "kept": [*base.kept],
            "kept_values": [*base.kept.values()],
            "dropped": [*base.dropped],
        }
        columns = {**rows, **of, **_columns(writes), **base.columns}
        ((row,),) = yield whole((self._commit_base[_flags(of)], columns))
        return _committed(of, row)

    def read(self, of: Mapping[str, Any]) -> Operation[Found | None]:
        """See `Dealing.read`."""
        (rows,) = yield last((self._read, of))
        return found_in(rows[0]) if rows else None

    def scan(self, of: Mapping[str, Any]) -> Operation[list[tuple[Any, Found]]]:
        """See `Dealing.scan`."""
        (rows,) = yield last((self._scan, of))
        return [(row[0], found_in(row[1:])) for row in rows]

    def entries(
        self, of: Mapping[str, Any], limit: int, max_bytes: int, *, is_reverse: bool
    ) -> Operation[tuple[Rows, bool]]:
        """See `Dealing.entries`."""
        statement = self._entries_backwards if is_reverse else self._entries
        (rows,) = yield last((statement, {**of, "limit": limit, "max_bytes": max_bytes}))
        return [row[:3] for row in rows], not rows or rows[-1][3]

    def release(self, held: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """See `Dealing.release`."""
        if not held:
            return
        columns = {f"{name}s": [lock[name] for lock in held] for name in ("type", "id", "node", "number")}
        yield whole((self._release, columns))


def _flags(of: Mapping[str, Any]) -> _Flags:
    return (of["keeps_previous"], *(of[flag] for flag in _AFTERWARDS))


def _commits(call: str, schema: str) -> dict[_Flags, str]:
    """Return what commits, and calls with the same locks what else a commit asks for, by `_flags`.

    What an actor was is kept by two functions. A commit takes the revision that it begins from of the first one, so
    that this one reads what is about to be replaced.
    """
    statements = {}
    for keeps, *wanted in product(_KEEP, *repeat((False, True), len(_AFTERWARDS))):
        functions = [function for function, is_wanted in zip(_AFTERWARDS.values(), wanted, strict=True) if is_wanted]
        steps = [*_KEEP[keeps], *(f"{function}(%(type)s, %(id)s)" for function in functions)]
        more = "".join(f", CASE WHEN o_revision IS NOT NULL THEN lazymig.{step} END" for step in steps)
        source = f"{_PREVIOUS}, lazymig.{call.replace('%(revision)s', 'o_before')}" if keeps else call
        statement = f"SELECT o_revision, o_version, o_epoch{more} FROM lazymig.{source}"  # noqa: S608  (constants)
        statements[keeps, *wanted] = in_schema(statement, schema)
    return statements


def _committed(of: Mapping[str, Any], row: Sequence[Any]) -> Committed:
    revision, version, epoch = row[:3]
    if revision is None and (epoch or 0) != of["epoch"]:
        return OtherEpoch(version, epoch)
    return None if revision is None else int(revision)


def found_in(row: Sequence[Any]) -> Found:
    """Return an actor of a row of `ACTORS`."""
    *actor, names, values, kept, kept_values, failed_at, retry_at, record = row
    return Found(actor, _pairs(names, values), _pairs(kept, kept_values), _failure(failed_at, retry_at, record))


def _failure(*columns: Any) -> Rows:
    """Return the row of a failure; its columns are None if there is none."""
    return [] if columns[-1] is None else [columns]


def _pairs(names: Sequence[Any] | None, values: Sequence[Any] | None) -> Rows:
    """Return names with their values; both are None if there are none."""
    return [*zip(names or (), values or (), strict=True)]


def _entry_columns(entries: Sequence[EntryRow]) -> dict[str, list[Any]]:
    put = [row for row in entries if row[2] is not None]
    gone = [row for row in entries if row[2] is None]
    return {
        **dict(zip(("tables", "keys", "data", "lineages"), _turned(put), strict=True)),
        **dict(zip(("gone_tables", "gone_keys"), _turned(gone), strict=False)),
    }


def _columns(writes: Mapping[str, bytes | None]) -> dict[str, list[Any]]:
    kept = {name: data for name, data in writes.items() if data is not None}
    removed = [name for name, data in writes.items() if data is None]
    return {"names": [*kept], "values": [*kept.values()], "removed": removed}


def _turned(rows: Sequence[EntryRow]) -> list[list[Any]]:
    """Return rows as columns."""
    return [*map(list, zip(*rows, strict=True))] or [[], [], [], []]
