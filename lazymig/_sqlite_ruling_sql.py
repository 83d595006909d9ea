"""The SQL of rulings on SQLite; see `lazymig._sqlite_sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from lazymig._sql_rulings import Counting, RulingDialect
from lazymig._sqlite_sql import DIALECT
from lazymig._sqlite_sweeping_sql import POLICY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import Statement

_LINEAGES = "(SELECT value FROM json_each(:lineages))"

_OF_ENTRIES = f"""
    type = :type AND oldest IS NOT NULL AND EXISTS (
        SELECT 1 FROM entry WHERE entry.type = actor.type AND entry.id = actor.id AND entry.lineage IN {_LINEAGES}
    )
"""  # noqa: S608  (a constant is put in, no value)

_STRAGGLERS = """
    SELECT id FROM actor WHERE type = :type AND lineage = :lineage AND id > :after ORDER BY id LIMIT :limit
"""


def stragglers(of: Mapping[str, Any], lineages: Sequence[int]) -> list[Statement]:
    """See `RulingDialect`: one a lineage, so that each goes along the index from where the page begins."""
    return [(_STRAGGLERS, {**of, "lineage": lineage}) for lineage in lineages]


def numbers(values: Sequence[int]) -> str:
    """Return numbers as JSON."""
    return orjson.dumps(values).decode()


RULING_DIALECT = RulingDialect(
    statuses=DIALECT.statuses,
    policy=POLICY,
    releases="SELECT applied, checksums, build, seen_at FROM release WHERE type = :type",
    lineages="SELECT id, applied FROM lineage WHERE type = :type",
    sets="""
        WITH RECURSIVE found (lineage) AS (
            SELECT (
                SELECT lineage FROM actor WHERE type = :type AND lineage IS NOT NULL ORDER BY lineage LIMIT 1
            )
            UNION ALL
            SELECT (
                SELECT lineage FROM actor WHERE type = :type AND lineage > found.lineage ORDER BY lineage LIMIT 1
            ) FROM found WHERE found.lineage IS NOT NULL
        )
        SELECT lineage FROM found WHERE lineage IS NOT NULL
    """,
    bases="""
        WITH RECURSIVE found (base, lineage, writer) AS (
            SELECT * FROM (
                SELECT base_lineage, lineage, written_by FROM actor
                WHERE type = :type AND base_lineage IS NOT NULL
                ORDER BY base_lineage, lineage, written_by LIMIT 1
            )
            UNION ALL
            SELECT next.base_lineage, next.lineage, next.written_by
            FROM found JOIN actor AS next ON next.type = :type AND next.id = COALESCE(
                (
                    SELECT id FROM actor WHERE type = :type AND base_lineage = found.base
                    AND lineage = found.lineage AND written_by > found.writer ORDER BY written_by LIMIT 1
                ),
                (
                    SELECT id FROM actor WHERE type = :type AND base_lineage = found.base
                    AND lineage > found.lineage ORDER BY lineage, written_by LIMIT 1
                ),
                (
                    SELECT id FROM actor WHERE type = :type AND base_lineage > found.base
                    ORDER BY base_lineage, lineage, written_by LIMIT 1
                )
            )
        )
        SELECT base, lineage, writer FROM found
    """,
    oldest="SELECT min(oldest) FROM actor WHERE type = :type AND oldest IS NOT NULL",
    count_actors=f"SELECT count(*) FROM actor WHERE type = :type AND lineage IN {_LINEAGES}",  # noqa: S608
    of_bases=Counting.of(
        "actor",
        """type = :type AND base_lineage IS NOT NULL AND (base_lineage, lineage, written_by) IN (
            SELECT base.value, stamp.value, writer.value
            FROM json_each(:bases) AS base JOIN json_each(:lineages) AS stamp ON stamp.key = base.key
            JOIN json_each(:writers) AS writer ON writer.key = base.key
        )""",
    ),
    of_entries=Counting.of("actor", _OF_ENTRIES),
    of_entries_below=Counting.of("actor", f"{_OF_ENTRIES} AND oldest < :below"),
    of_converting=Counting.of("actor", "type = :type AND converting <> 0 AND converting >= :version"),
    of_failures=Counting.of("failure", "type = :type"),
    of_failing=Counting.of("failure JOIN actor USING (type, id)", f"type = :type AND lineage IN {_LINEAGES}"),
    put_policy="""
        INSERT INTO policy (type, version, epoch) VALUES (:type, :version, 1)
        ON CONFLICT (type) DO UPDATE SET version = excluded.version, epoch = epoch + 1
    """,
    put_release="""
        INSERT INTO release (type, applied, checksums, build, seen_at)
        VALUES (:type, :applied, :checksums, :build, :seen_at)
        ON CONFLICT (type, applied) DO UPDATE
        SET checksums = excluded.checksums, build = excluded.build, seen_at = excluded.seen_at
    """,
    entry_census="SELECT lineage, count(*) FROM entry WHERE type = :type GROUP BY lineage",
    stragglers=stragglers,
    numbers=numbers,
)
