"""The SQL of copies on PostgreSQL; see `lazymig._postgres_sql` for the rules."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig._postgres_dealing import ACTORS, OF_ACTORS, found_in
from lazymig._postgres_sql import LOCK_POLICIES, LOCK_SOON, NOW, OPTIONS, in_schema
from lazymig._sql_copies import CopyDialect
from lazymig._sql_copy_rows import NOTHING, EntryValue, FailureValue, NamedValue, PreviousValue
from lazymig._sql_operations import last, trip
from lazymig.copies import VALUE_BYTES
from lazymig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lazymig._sql_copy_rows import Values
    from lazymig._sql_operations import Found, Operation, Rows

_READ = f"""
    SELECT entries.names, entries.keys, entries.data, entries.lineages,
        before.names, before.data, before.lineages, before.writers, before.times, page.id, {ACTORS}
    FROM (
        SELECT * FROM lazymig.actor WHERE type = %(type)s AND id = ANY(%(ids)s)
    ) AS page {OF_ACTORS}
    CROSS JOIN LATERAL (
        SELECT array_agg(name ORDER BY name, key) AS names, array_agg(key ORDER BY name, key) AS keys,
            array_agg(value ORDER BY name, key) AS data, array_agg(lineage ORDER BY name, key) AS lineages
        FROM lazymig.entry WHERE entry.type = page.type AND entry.id = page.id
    ) AS entries
    CROSS JOIN LATERAL (
        SELECT array_agg(name) AS names, array_agg(value) AS data, array_agg(lineage) AS lineages,
            array_agg(written_by) AS writers, array_agg(migrated_at) AS times
        FROM lazymig.previous WHERE previous.type = page.type AND previous.id = page.id
    ) AS before
    ORDER BY page.id
"""  # noqa: S608  (constants are put in, no value)
"""One statement, so one snapshot."""

_TAKE = f"""
    INSERT INTO lazymig.actor (
        type, id, revision, version, lineage, written_by, migrated_at, converting, oldest,
        base_lineage, base_revision, base_digest, failing
    )
    SELECT %(type)s::text, put.* FROM unnest(
        %(id)s::text[], %(revision)s::int8[], %(version)s::int8[], %(lineage)s::int8[], %(written_by)s::int8[],
        %(migrated_at)s::int8[], %(converting)s::int8[], %(oldest)s::int8[], %(base_lineage)s::int8[],
        %(base_revision)s::int8[], %(base_digest)s::int8[], %(failing)s::boolean[]
    ) AS put
    ON CONFLICT (type, id) DO UPDATE SET
        revision = excluded.revision, version = excluded.version, lineage = excluded.lineage,
        written_by = excluded.written_by, migrated_at = excluded.migrated_at,
        converting = excluded.converting, oldest = excluded.oldest, base_lineage = excluded.base_lineage,
        base_revision = excluded.base_revision, base_digest = excluded.base_digest,
        failing = excluded.failing, owner = NULL, number = 0
    WHERE actor.revision < greatest(excluded.revision, %(below)s) AND (
        actor.owner IS NULL
        OR actor.revision = 0
        AND EXISTS (SELECT 1 FROM lazymig.draft WHERE draft.type = actor.type AND draft.id = actor.id)
        OR EXISTS (
            SELECT 1 FROM lazymig.actor AS seen
            WHERE seen.type = actor.type AND seen.id = actor.id AND seen.owner = actor.owner
        ) AND (
            NOT EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = actor.owner)
            OR EXISTS (SELECT 1 FROM lazymig.heartbeat WHERE incarnation = actor.owner AND {NOW} >= at + lease)
        )
    )
    RETURNING id
"""  # noqa: S608  (a constant is put in, no value)
"""Who claims a draft learns that it is none, and gives it up: so it is nobody's, whatever its row says; a
draft of the snapshot whose row has a revision by now was finished. An owner whom the snapshot doesn't show came later,
and lives; so may one without a heartbeat, after a crash of the server."""

_CLEAR = tuple(
    f"DELETE FROM lazymig.{table} WHERE type = %(type)s AND id = ANY(%(ids)s)"  # noqa: S608  (likewise)
    for table in ("draft", "state", "base", "previous", "failure", "entry")
)
"""The draft first: who adds to it has locked it, so the entries that it adds are there, and go, once that is gone."""

_PUT_STATES = """
    INSERT INTO lazymig.state (type, id, name, value)
    SELECT %(type)s::text, put.* FROM unnest(%(id)s::text[], %(name)s::text[], %(value)b::bytea[]) AS put
"""

_FILL = (
    _PUT_STATES,
    _PUT_STATES.replace("lazymig.state", "lazymig.base"),
    """
    INSERT INTO lazymig.previous (type, id, name, value, lineage, written_by, migrated_at)
    SELECT %(type)s::text, put.* FROM unnest(
        %(id)s::text[], %(name)s::text[], %(value)b::bytea[],
        %(lineage)s::int8[], %(written_by)s::int8[], %(migrated_at)s::int8[]
    ) AS put
    """,
    """
    INSERT INTO lazymig.failure (type, id, failed_at, retry_at, record)
    SELECT %(type)s::text, put.* FROM unnest(
        %(id)s::text[], %(failed_at)s::int8[], %(retry_at)s::int8[], %(record)s::text[]
    ) AS put
    """,
    """
    INSERT INTO lazymig.entry (type, id, name, key, value, lineage)
    SELECT %(type)s::text, put.* FROM unnest(
        %(id)s::text[], %(name)s::text[], %(key)s::text[], %(value)b::bytea[], %(lineage)s::int8[]
    ) AS put
    ON CONFLICT (type, id, name, key) DO UPDATE SET value = excluded.value, lineage = excluded.lineage
    """,
)
"""In order of `Values`; the parameters are columns."""

_COLUMNS = tuple(value._fields for value in (NamedValue, NamedValue, PreviousValue, FailureValue, EntryValue))


class PostgresCopyDealing:
    """See `lazymig._sql_copies.CopyDealing`.

    Args:
        schema: Of the tables.
    """

    def __init__(self, schema: str) -> None:
        self._read = in_schema(_READ, schema)
        self._take = in_schema(_TAKE, schema)
        self._clear = [in_schema(clear, schema) for clear in _CLEAR]
        self._fill = [in_schema(put, schema) for put in _FILL]

    def read(self, actor_type: str, ids: Sequence[str]) -> Operation[list[tuple[Any, Found, Rows, Rows]]]:
        """See `CopyDealing.read`."""
        (rows,) = yield last((self._read, {"type": actor_type, "ids": [*ids]}))
        return [(row[9], found_in(row[10:]), _turned(row[:4]), _turned(row[4:9])) for row in rows]

    def take(self, of: Mapping[str, Any], actors: Sequence[Mapping[str, Any]]) -> Operation[set[str]]:
        """See `CopyDealing.take`."""
        columns = {name: [actor[name] for actor in actors] for name in NOTHING}
        (rows,) = yield trip((self._take, {**of, **columns, "id": [actor["id"] for actor in actors]}))
        return {actor_id for (actor_id,) in rows}

    def clear(self, actor_type: str, ids: Sequence[str]) -> Operation[None]:
        """See `CopyDealing.clear`."""
        yield trip(*((clear, {"type": actor_type, "ids": [*ids]}) for clear in self._clear))

    def fill(self, actor_type: str, values: Values) -> Operation[None]:
        """See `CopyDealing.fill`."""
        puts = []
        for statement, names, rows in zip(self._fill, _COLUMNS, values.tables, strict=True):
            if rows:
                columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
                puts.append((statement, {**columns, "type": actor_type}))
        if puts:
            yield trip(*puts)


def _turned(columns: Sequence[Sequence[Any] | None]) -> Rows:
    """Return columns as rows; they are None if there are none."""
    return [*zip(*(column or () for column in columns), strict=True)]


def copy_dialect(schema: str, url: str) -> CopyDialect:
    """Return how a schema is spoken to.

    Args:
        schema: Of the tables.
        url: The store's, its password hidden.
    """
    statements = {name: in_schema(statement, schema) for name, statement in _STATEMENTS.items()}
    locks = [in_schema(lock, schema) for lock in (LOCK_SOON, LOCK_POLICIES)]
    return CopyDialect(
        **statements, dealing=PostgresCopyDealing(schema), lock_policies=locks, backup=partial(_refuse, schema, url)
    )


async def _refuse(schema: str, url: str, file: Path, progress: Callable[[float], object]) -> None:  # noqa: ARG001  (the Protocol's)
    raise StoreError(
        f"{url} is backed up by PostgreSQL's own tools. Run: {dump_line(schema, url, file)} (and to restore it into "
        f"another database: pg_restore --dbname=URL {shlex.quote(str(file))})."
    )


def dump_line(schema: str, url: str, file: Path) -> str:
    """Return what a shell takes to dump a schema: all of it but the locks, nodes and calls of the past.

    A password is not in it: libpq takes it from PGPASSWORD or ``~/.pgpass``.
    """
    start, _, query = url.replace(":***@", "@").partition("?")
    pairs = [(option, *option.partition("=")) for option in query.split("&") if option]
    options = [option for option, name, _, value in pairs if name not in OPTIONS and value != "***"]
    words = [
        "pg_dump",
        "--format=custom",
        f"--schema={schema}",
        f"--exclude-table-data={schema}.(node|heartbeat|offer|call|sweep)",
        f"--file={file}",
        f"--dbname={start}{'?' if options else ''}{'&'.join(options)}",
    ]
    return " ".join(map(shlex.quote, words))


_STATEMENTS: Mapping[str, str] = {
    "types": """
        SELECT DISTINCT type FROM lazymig.actor WHERE revision <> 0
        UNION SELECT type FROM lazymig.release UNION SELECT type FROM lazymig.policy ORDER BY type
    """,
    "outlines": f"""
        SELECT page.id, page.revision, (states.size + kept.size + before.size + entries.size)::int8 FROM (
            SELECT * FROM lazymig.actor WHERE type = %(type)s AND id > %(after)s AND (
                revision <> 0 OR oldest IS NOT NULL OR base_lineage IS NOT NULL
                OR EXISTS (SELECT 1 FROM lazymig.state WHERE state.type = actor.type AND state.id = actor.id)
            )
            ORDER BY id LIMIT %(limit)s
        ) AS page
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum({VALUE_BYTES} + octet_length(value)), 0) AS size FROM lazymig.state
            WHERE state.type = page.type AND state.id = page.id
        ) AS states
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum({VALUE_BYTES} + COALESCE(octet_length(value), 0)), 0) AS size FROM lazymig.base
            WHERE base.type = page.type AND base.id = page.id
        ) AS kept
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum({VALUE_BYTES} + octet_length(value)), 0) AS size FROM lazymig.previous
            WHERE previous.type = page.type AND previous.id = page.id
        ) AS before
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum({VALUE_BYTES} + octet_length(value)), 0) AS size FROM lazymig.entry
            WHERE entry.type = page.type AND entry.id = page.id
        ) AS entries
        ORDER BY page.id
    """,  # noqa: S608  (a constant is put in, no value)
    "policy": "SELECT version, epoch FROM lazymig.policy WHERE type = %(type)s",
    "releases": "SELECT applied, checksums, build, seen_at FROM lazymig.release WHERE type = %(type)s",
    "put_policy": """
        INSERT INTO lazymig.policy (type, version, epoch) VALUES (%(type)s, %(version)s, %(epoch)s)
        ON CONFLICT (type) DO UPDATE SET version = excluded.version, epoch = excluded.epoch
        WHERE policy.epoch < excluded.epoch
    """,
    "put_release": """
        INSERT INTO lazymig.release (type, applied, checksums, build, seen_at)
        VALUES (%(type)s, %(applied)s, %(checksums)s, %(build)s, %(seen_at)s)
        ON CONFLICT (type, md5(applied)) DO UPDATE
        SET checksums = excluded.checksums, build = excluded.build, seen_at = excluded.seen_at
        WHERE release.seen_at < excluded.seen_at
    """,
    "revision": "SELECT revision FROM lazymig.actor WHERE type = %(type)s AND id = %(id)s",
    "has_draft": "SELECT 1 FROM lazymig.draft WHERE type = %(type)s AND id = %(id)s AND draft = %(draft)s",
    "put_draft": "INSERT INTO lazymig.draft (type, id, draft) VALUES (%(type)s, %(id)s, %(draft)s)",
    "lock_draft": """
        SELECT 1 FROM lazymig.draft WHERE type = %(type)s AND id = %(id)s AND draft = %(draft)s FOR UPDATE
    """,
    "end_draft": """
        DELETE FROM lazymig.draft WHERE type = %(type)s AND id = %(id)s AND draft = %(draft)s RETURNING id
    """,
}
