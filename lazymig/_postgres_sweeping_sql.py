"""How PostgreSQL deals with many actors at once; see `lazymig._postgres_functions` for the rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lazymig._postgres_sql import IS_REGISTERED, SYNC_LATER, UNHEARD, in_schema
from lazymig._sql_operations import OtherEpoch, whole
from lazymig._sql_sweeping import SweepDialect, Swept

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lazymig._sql_operations import Operation, Statement

_CLAIM = f"""
    CREATE FUNCTION lazymig.sweep_claim(
        p_type text, p_lineage int8, p_state text, p_node text, p_number int8, p_after text, p_limit int8, p_now float8,
        OUT o_is_registered boolean, OUT o_ids text[], OUT o_values bytea[], OUT o_after text,
        OUT o_version int8, OUT o_epoch int8, OUT o_clock int8
    ) LANGUAGE plpgsql AS $$
    DECLARE
        v_taken text[];
    BEGIN
        {SYNC_LATER.replace("SELECT", "PERFORM")};
        SELECT EXISTS (SELECT 1 WHERE {IS_REGISTERED}) INTO o_is_registered;
        WITH plain AS (
            SELECT id FROM lazymig.actor
            WHERE type = %(type)s AND lineage = %(lineage)s AND id > %(after)s AND owner IS NULL
            AND base_lineage IS NULL AND NOT failing AND oldest IS NULL AND converting = 0 AND revision > 0
            AND EXISTS (
                SELECT 1 FROM lazymig.state
                WHERE state.type = actor.type AND state.id = actor.id AND state.name = %(state)s
            )
            AND {IS_REGISTERED} AND {UNHEARD} IS NULL
            ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), taken AS (
            UPDATE lazymig.actor SET owner = %(node)s, number = %(number)s FROM plain
            WHERE actor.type = %(type)s AND actor.id = plain.id RETURNING actor.id
        )
        SELECT array_agg(id), CASE WHEN count(*) = %(limit)s THEN max(id) END INTO v_taken, o_after FROM taken;
        SELECT array_agg(id ORDER BY id), array_agg(value ORDER BY id) INTO o_ids, o_values FROM lazymig.state
        WHERE type = %(type)s AND id = ANY(v_taken) AND name = %(state)s;
        IF cardinality(o_ids) IS DISTINCT FROM cardinality(v_taken) THEN
            UPDATE lazymig.actor SET owner = NULL, number = 0
            WHERE type = %(type)s AND id = ANY(v_taken) AND id <> ALL(COALESCE(o_ids, '{{}}'));
        END IF;
        SELECT version, epoch INTO o_version, o_epoch FROM lazymig.policy WHERE type = %(type)s;
        o_clock := extract(epoch FROM statement_timestamp()) * 1000000;
    END $$
"""  # noqa: S608  (constants are put in, no value)
"""One that somebody else is about to take is passed over. The states are read by a snapshot younger than the locks; one
that was removed before is given back."""

_COMMIT = """
    CREATE FUNCTION lazymig.sweep_commit(
        p_type text, p_state text, p_node text, p_number int8, p_ids text[], p_values bytea[], p_released text[],
        p_version int8, p_lineage int8, p_written_by int8, p_migrated_at int8, p_epoch int8,
        p_drops_previous boolean,
        OUT o_held text[], OUT o_is_other boolean, OUT o_version int8, OUT o_epoch int8
    ) LANGUAGE plpgsql AS $$
    DECLARE
        v_ids text[];
        v_values bytea[];
    BEGIN
        SELECT array_agg(id) INTO o_held FROM (
            SELECT id FROM lazymig.actor
            WHERE type = %(type)s AND id = ANY(%(ids)s || %(released)s) AND owner = %(node)s AND number = %(number)s
            AND EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = %(node)s)
            ORDER BY id FOR UPDATE
        ) AS held;
        SELECT version, epoch INTO o_version, o_epoch FROM lazymig.policy WHERE type = %(type)s;
        o_is_other := COALESCE(o_epoch, 0) <> %(epoch)s;
        IF o_is_other THEN
            RETURN;
        END IF;
        IF cardinality(%(released)s) > 0 THEN
            UPDATE lazymig.actor SET owner = NULL, number = 0
            WHERE type = %(type)s AND id = ANY(%(released)s) AND id = ANY(o_held);
        END IF;
        SELECT array_agg(id), array_agg(value) INTO v_ids, v_values
        FROM unnest(%(ids)s, %(values)s) AS put (id, value) JOIN unnest(o_held) AS held (id) USING (id);
        UPDATE lazymig.actor SET
            revision = revision + 1,
            version = %(version)s, lineage = %(lineage)s, written_by = %(written_by)s, migrated_at = %(migrated_at)s,
            owner = NULL, number = 0
        WHERE type = %(type)s AND id = ANY(v_ids);
        UPDATE lazymig.state SET value = put.value
        FROM unnest(v_ids, v_values) AS put (id, value)
        WHERE state.type = %(type)s AND state.name = %(state)s AND state.id = put.id AND state.value <> put.value;
        IF %(drops_previous)s THEN
            DELETE FROM lazymig.previous WHERE type = %(type)s AND id = ANY(v_ids);
        END IF;
    END $$
"""
"""The locks are got first, in order; then the policy is read, and who changes it waits for the end of this."""

FUNCTIONS = tuple(re.sub(r"%\((\w+)\)s", r"p_\1", text) for text in (_CLAIM, _COMMIT))
"""What lays them out, a statement each."""

_UNSETTLED = """
    SELECT id FROM (
        (
            SELECT id FROM lazymig.actor WHERE type = %(type)s AND converting <> 0 AND id > %(after)s
            ORDER BY id LIMIT %(limit)s
        )
        UNION (
            SELECT id FROM lazymig.actor WHERE type = %(type)s AND base_lineage IS NOT NULL AND id > %(after)s
            AND (base_lineage <> %(base)s OR base_revision <> revision) ORDER BY id LIMIT %(limit)s
        )
        UNION (
            SELECT DISTINCT id FROM lazymig.entry
            WHERE type = %(type)s AND id > %(after)s AND lineage = ANY(%(entries)s::int8[])
            ORDER BY id LIMIT %(limit)s
        )
    ) AS found
    ORDER BY id LIMIT %(limit)s
"""

_COUNT_UNSETTLED = """
    SELECT count(*) FROM lazymig.actor
    WHERE type = %(type)s AND lineage <> ALL(%(without)s::int8[]) AND (
        converting <> 0
        OR (base_lineage IS NOT NULL AND (base_lineage <> %(base)s OR base_revision <> revision))
        OR (oldest IS NOT NULL AND EXISTS (
            SELECT 1 FROM lazymig.entry
            WHERE entry.type = actor.type AND entry.id = actor.id AND entry.lineage = ANY(%(entries)s::int8[])
        ))
    )
"""


class PostgresSweepDealing:
    """See `lazymig._sql_sweeping.SweepDealing`.

    Args:
        schema: Of the functions.
    """

    def __init__(self, schema: str) -> None:
        self._claim = in_schema(
            "SELECT * FROM lazymig.sweep_claim(%(type)s, %(lineage)s, %(state)s, %(node)s, %(number)s, %(after)s, "
            "%(limit)s, %(now)s)",
            schema,
        )
        self._commit = in_schema(
            "SELECT * FROM lazymig.sweep_commit(%(type)s, %(state)s, %(node)s, %(number)s, %(ids)s, %(values)b, "
            "%(released)s, %(version)s, %(lineage)s, %(written_by)s, %(migrated_at)s, %(epoch)s, "
            "%(drops_previous)s)",
            schema,
        )
        self._unsettled = in_schema(_UNSETTLED, schema)
        self._count_unsettled = in_schema(_COUNT_UNSETTLED, schema)

    def claim(self, of: Mapping[str, Any]) -> Operation[Swept | None]:
        """See `SweepDealing.claim`."""
        ((row,),) = yield whole((self._claim, of))
        is_registered, ids, values, after, version, epoch, clock = row
        if not is_registered:
            return None
        rows = [*zip(ids or (), values or (), strict=True)]
        return Swept(rows, after, None if epoch is None else (version, epoch), clock)

    def commit(
        self, of: Mapping[str, Any], changes: Sequence[tuple[str, bytes]], released: Sequence[str]
    ) -> Operation[Collection[str] | OtherEpoch]:
        """See `SweepDealing.commit`."""
        ids, values = [actor_id for actor_id, _ in changes], [data for _, data in changes]
        columns = {**of, "ids": ids, "values": values, "released": [*released]}
        ((row,),) = yield whole((self._commit, columns))
        held, is_other, version, epoch = row
        if is_other:
            return OtherEpoch(version, epoch)
        known = set(held or ())
        return [actor_id for actor_id in ids if actor_id not in known]

    def unsettled(self, of: Mapping[str, Any], entries: Sequence[int]) -> Statement:
        """See `SweepDealing.unsettled`."""
        return self._unsettled, {**of, "entries": [*entries]}

    def count_unsettled(self, of: Mapping[str, Any], entries: Sequence[int], without: Sequence[int]) -> Statement:
        """See `SweepDealing.count_unsettled`."""
        return self._count_unsettled, {**of, "entries": [*entries], "without": [*without]}


_STATEMENTS = {
    "tidy_notes": """
        DELETE FROM lazymig.sweep
        WHERE type = %(type)s AND node <> %(node)s AND node NOT IN (SELECT incarnation FROM lazymig.node)
    """,
    "put_note": """
        INSERT INTO lazymig.sweep (type, node, at, progress)
        VALUES (
            %(type)s, %(node)s, (extract(epoch FROM clock_timestamp()) * 1000000)::int8, %(progress)b
        )
        ON CONFLICT (type, node) DO UPDATE SET at = excluded.at, progress = excluded.progress
    """,
    "notes": "SELECT type, node, at, progress FROM lazymig.sweep ORDER BY type, node",
    "pause": "INSERT INTO lazymig.sweep_pause (type) VALUES (%(type)s) ON CONFLICT (type) DO NOTHING RETURNING type",
    "go_on": "DELETE FROM lazymig.sweep_pause WHERE type = %(type)s RETURNING type",
    "is_paused": "SELECT 1 FROM lazymig.sweep_pause WHERE type = %(type)s",
    "paused": "SELECT type FROM lazymig.sweep_pause ORDER BY type",
}


def sweep_dialect(schema: str) -> SweepDialect:
    """Return how a schema is spoken to."""
    statements = {name: in_schema(statement, schema) for name, statement in _STATEMENTS.items()}
    return SweepDialect(PostgresSweepDealing(schema), **statements)
