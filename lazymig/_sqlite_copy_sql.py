"""The SQL of copies on SQLite; see `lazymig._sqlite_sql`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import _sqlite_previous_sql as previous_sql
from lazymig._sql_copies import CopyDialect
from lazymig._sql_operations import Batch, trip
from lazymig._sqlite_backup import back_up
from lazymig._sqlite_sql import DIALECT
from lazymig._sqlite_sweeping_sql import POLICY
from lazymig.copies import VALUE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lazymig._sql_copy_rows import Values
    from lazymig._sql_operations import Found, Operation, Rows

_TAKE = """
    INSERT INTO actor (
        type, id, revision, version, lineage, written_by, migrated_at, converting, oldest,
        base_lineage, base_revision, base_digest, failing
    ) VALUES (
        :type, :id, :revision, :version, :lineage, :written_by, :migrated_at, :converting, :oldest,
        :base_lineage, :base_revision, :base_digest, :failing
    )
    ON CONFLICT (type, id) DO UPDATE SET
        revision = excluded.revision, version = excluded.version, lineage = excluded.lineage,
        written_by = excluded.written_by, migrated_at = excluded.migrated_at,
        converting = excluded.converting, oldest = excluded.oldest, base_lineage = excluded.base_lineage,
        base_revision = excluded.base_revision, base_digest = excluded.base_digest,
        failing = excluded.failing, owner = NULL, number = 0
    WHERE actor.revision < max(excluded.revision, :below) AND (
        actor.owner IS NULL
        OR EXISTS (SELECT 1 FROM draft WHERE draft.type = actor.type AND draft.id = actor.id)
        OR NOT EXISTS (
            SELECT 1 FROM node JOIN heartbeat USING (incarnation)
            WHERE incarnation = actor.owner AND at <= :now AND :now < at + lease
        )
    )
    RETURNING id
"""
"""Who claims a draft learns that it is none, and gives it up: so it is nobody's, whatever its row says."""

_CLEAR = tuple(
    f"DELETE FROM {table} WHERE type = :type AND id = :id"  # noqa: S608  (a constant is put in, no value)
    for table in ("state", "base", "previous", "failure", "entry", "draft")
)

_FILL = (
    "INSERT INTO state (type, id, name, value) VALUES (?1, ?2, ?3, ?4)",
    "INSERT INTO base (type, id, name, value) VALUES (?1, ?2, ?3, ?4)",
    """
    INSERT INTO previous (type, id, name, value, lineage, written_by, migrated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    """,
    "INSERT INTO failure (type, id, failed_at, retry_at, record) VALUES (?1, ?2, ?3, ?4, ?5)",
    """
    INSERT INTO entry (type, id, name, key, value, lineage) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (type, id, name, key) DO UPDATE SET value = excluded.value, lineage = excluded.lineage
    """,
)
"""In order of `Values`."""

_ENTRIES = "SELECT name, key, value, lineage FROM entry WHERE type = :type AND id = :id ORDER BY name, key"


class SQLiteCopyDealing:
    """See `lazymig._sql_copies.CopyDealing`."""

    def read(self, actor_type: str, ids: Sequence[str]) -> Operation[list[tuple[Any, Found, Rows, Rows]]]:
        """See `CopyDealing.read`: a transaction is one snapshot."""
        found = []
        for actor_id in ids:
            of = {"type": actor_type, "id": actor_id}
            actor = yield from DIALECT.dealing.read(of)
            if actor is not None:
                entries, previous = yield trip((_ENTRIES, of), (previous_sql.READ, of))
                found.append((actor_id, actor, entries, previous))
        return found

    def take(self, of: Mapping[str, Any], actors: Sequence[Mapping[str, Any]]) -> Operation[set[str]]:
        """See `CopyDealing.take`."""
        answers = yield trip(*((_TAKE, {**of, **actor}) for actor in actors))
        return {actor_id for rows in answers for (actor_id,) in rows}

    def clear(self, actor_type: str, ids: Sequence[str]) -> Operation[None]:
        """See `CopyDealing.clear`."""
        yield trip(*((clear, {"type": actor_type, "id": actor_id}) for actor_id in ids for clear in _CLEAR))

    def fill(self, actor_type: str, values: Values) -> Operation[None]:
        """See `CopyDealing.fill`."""
        for statement, rows in zip(_FILL, values.tables, strict=True):
            if rows:
                yield Batch(((statement, {}),), rows=[(actor_type, *row) for row in rows])


def copy_dialect(path: Path) -> CopyDialect:
    """Return how a file is spoken to."""
    return CopyDialect(**_STATEMENTS, dealing=SQLiteCopyDealing(), backup=partial(back_up, path))


_STATEMENTS: Mapping[str, str] = {
    "types": """
        SELECT DISTINCT type FROM actor WHERE revision <> 0
        UNION SELECT type FROM release UNION SELECT type FROM policy ORDER BY type
    """,
    "outlines": f"""
        SELECT id, revision,
            COALESCE((
                SELECT sum({VALUE_BYTES} + length(value)) FROM state
                WHERE state.type = actor.type AND state.id = actor.id
            ), 0) + COALESCE((
                SELECT sum({VALUE_BYTES} + length(value)) FROM previous
                WHERE previous.type = actor.type AND previous.id = actor.id
            ), 0) + COALESCE((
                SELECT sum({VALUE_BYTES} + COALESCE(length(value), 0)) FROM base
                WHERE base.type = actor.type AND base.id = actor.id
            ), 0) + COALESCE((
                SELECT sum({VALUE_BYTES} + length(value)) FROM entry
                WHERE entry.type = actor.type AND entry.id = actor.id
            ), 0)
        FROM actor WHERE type = :type AND id > :after AND (
            revision <> 0 OR oldest IS NOT NULL OR base_lineage IS NOT NULL
            OR EXISTS (SELECT 1 FROM state WHERE state.type = actor.type AND state.id = actor.id)
        )
        ORDER BY id LIMIT :limit
    """,  # noqa: S608  (a constant is put in, no value)
    "policy": POLICY,
    "releases": "SELECT applied, checksums, build, seen_at FROM release WHERE type = :type",
    "put_policy": """
        INSERT INTO policy (type, version, epoch) VALUES (:type, :version, :epoch)
        ON CONFLICT (type) DO UPDATE SET version = excluded.version, epoch = excluded.epoch
        WHERE policy.epoch < excluded.epoch
    """,
    "put_release": """
        INSERT INTO release (type, applied, checksums, build, seen_at)
        VALUES (:type, :applied, :checksums, :build, :seen_at)
        ON CONFLICT (type, applied) DO UPDATE
        SET checksums = excluded.checksums, build = excluded.build, seen_at = excluded.seen_at
        WHERE release.seen_at < excluded.seen_at
    """,
    "revision": "SELECT revision FROM actor WHERE type = :type AND id = :id",
    "has_draft": "SELECT 1 FROM draft WHERE type = :type AND id = :id AND draft = :draft",
    "put_draft": "INSERT INTO draft (type, id, draft) VALUES (:type, :id, :draft)",
    "lock_draft": "SELECT 1 FROM draft WHERE type = :type AND id = :id AND draft = :draft",
    "end_draft": "DELETE FROM draft WHERE type = :type AND id = :id AND draft = :draft RETURNING id",
}
