"""The SQL of rulings on PostgreSQL; see `lazymig._postgres_sql` for the rules."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig._postgres_sql import LOCK_POLICIES, LOCK_SOON, STATEMENTS, in_schema
from lazymig._sql_rulings import Counting, RulingDialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import Statement

_OF_ENTRIES = """
    type = %(type)s AND oldest IS NOT NULL AND EXISTS (
        SELECT 1 FROM lazymig.entry
        WHERE entry.type = actor.type AND entry.id = actor.id AND entry.lineage = ANY(%(lineages)s::int8[])
    )
"""

_STRAGGLERS = """
    SELECT id FROM unnest(%(lineages)s::int8[]) AS wanted (lineage) CROSS JOIN LATERAL (
        SELECT id FROM lazymig.actor WHERE type = %(type)s AND actor.lineage = wanted.lineage AND id > %(after)s
        ORDER BY id LIMIT %(limit)s
    ) AS found
    ORDER BY id LIMIT %(limit)s
"""
"""One statement, so one snapshot: no actor passes from one set to another between two."""


def _stragglers(statement: str, of: Mapping[str, Any], lineages: Sequence[int]) -> list[Statement]:
    return [(statement, {**of, "lineages": lineages})]


RULING_DIALECT = RulingDialect(
    statuses=STATEMENTS["statuses"],
    policy="SELECT version, epoch FROM lazymig.policy WHERE type = %(type)s",
    releases="SELECT applied, checksums, build, seen_at FROM lazymig.release WHERE type = %(type)s",
    lineages="SELECT id, applied FROM lazymig.lineage WHERE type = %(type)s",
    sets="""
        WITH RECURSIVE found (lineage) AS (
            (
                SELECT lineage FROM lazymig.actor WHERE type = %(type)s AND lineage IS NOT NULL
                ORDER BY lineage LIMIT 1
            )
            UNION ALL
            SELECT (
                SELECT lineage FROM lazymig.actor WHERE type = %(type)s AND lineage > found.lineage
                ORDER BY lineage LIMIT 1
            ) FROM found WHERE found.lineage IS NOT NULL
        )
        SELECT lineage FROM found WHERE lineage IS NOT NULL
    """,
    bases="""
        WITH RECURSIVE found (base, lineage, writer) AS (
            (
                SELECT base_lineage, lineage, written_by FROM lazymig.actor
                WHERE type = %(type)s AND base_lineage IS NOT NULL
                ORDER BY base_lineage, lineage, written_by LIMIT 1
            )
            UNION ALL
            SELECT next.* FROM found CROSS JOIN LATERAL (
                SELECT base_lineage, lineage, written_by FROM lazymig.actor
                WHERE type = %(type)s AND base_lineage IS NOT NULL
                AND (base_lineage, lineage, written_by) > (found.base, found.lineage, found.writer)
                ORDER BY base_lineage, lineage, written_by LIMIT 1
            ) AS next
        )
        SELECT base, lineage, writer FROM found
    """,
    oldest="SELECT min(oldest) FROM lazymig.actor WHERE type = %(type)s AND oldest IS NOT NULL",
    count_actors="SELECT count(*) FROM lazymig.actor WHERE type = %(type)s AND lineage = ANY(%(lineages)s::int8[])",
    of_bases=Counting.of(
        "lazymig.actor",
        """type = %(type)s AND base_lineage IS NOT NULL AND (base_lineage, lineage, written_by) IN (
            SELECT * FROM unnest(%(bases)s::int8[], %(lineages)s::int8[], %(writers)s::int8[])
        )""",
    ),
    of_entries=Counting.of("lazymig.actor", _OF_ENTRIES),
    of_entries_below=Counting.of("lazymig.actor", f"{_OF_ENTRIES} AND oldest < %(below)s"),
    of_converting=Counting.of("lazymig.actor", "type = %(type)s AND converting <> 0 AND converting >= %(version)s"),
    of_failures=Counting.of("lazymig.failure", "type = %(type)s"),
    of_failing=Counting.of(
        "lazymig.failure JOIN lazymig.actor USING (type, id)",
        "type = %(type)s AND lineage = ANY(%(lineages)s::int8[])",
    ),
    put_policy="""
        INSERT INTO lazymig.policy (type, version, epoch) VALUES (%(type)s, %(version)s, 1)
        ON CONFLICT (type) DO UPDATE SET version = excluded.version, epoch = policy.epoch + 1
    """,
    put_release="""
        INSERT INTO lazymig.release (type, applied, checksums, build, seen_at)
        VALUES (
            %(type)s, %(applied)s, %(checksums)s, %(build)s, (extract(epoch FROM clock_timestamp()) * 1000000)::int8
        )
        ON CONFLICT (type, md5(applied)) DO UPDATE
        SET checksums = excluded.checksums, build = excluded.build, seen_at = excluded.seen_at
    """,
    entry_census="SELECT lineage, count(*) FROM lazymig.entry WHERE type = %(type)s GROUP BY lineage",
    stragglers=partial(_stragglers, _STRAGGLERS),
    numbers=list,
    lock_policies=(LOCK_SOON, LOCK_POLICIES),
)


def ruling_dialect(schema: str) -> RulingDialect:
    """Return the statements for rulings about a schema."""
    changed: dict[str, Any] = {}
    for name in RulingDialect.__slots__:
        found = getattr(RULING_DIALECT, name)
        if isinstance(found, str):
            changed[name] = in_schema(found, schema)
        elif isinstance(found, Counting):
            changed[name] = Counting(*(in_schema(statement, schema) for statement in found))
        elif isinstance(found, tuple):
            changed[name] = tuple(in_schema(statement, schema) for statement in found)
    return replace(RULING_DIALECT, **changed, stragglers=partial(_stragglers, in_schema(_STRAGGLERS, schema)))
