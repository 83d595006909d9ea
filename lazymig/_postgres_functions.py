"""What PostgreSQL does with locked actors: functions of the schema, each called by one statement in one trip.

Rules:

1. The server keeps the plans of a function's statements. What is sent to it is planned anew each time, which takes
   longer than carrying it out; prepared statements would be kept as well, but in a session, which poolers share.
2. Each statement of a function has a snapshot of its own. So a claim reads the states by one that is younger than the
   row lock; what the claiming statement itself reads, it reads by a snapshot from before it waited for the lock.
3. For the same reason a claim measures heartbeats by `statement_timestamp()`, which is the call's: beside heartbeats
   from before the wait, the time after it would make every owner look dead. Heartbeats note `clock_timestamp()`. And
   whoever registered and claimed during the wait has no heartbeat in that snapshot at all.
4. Who takes an actor because of a heartbeat's age has a fresh one by the same clock: when that steps, or a standby
   takes over, nobody takes from anybody before having been heard. (A clock of tests doesn't step.)
5. Nearly all claims find an actor that is free: a short statement gets those, because a plan is paid for by its tables.
6. A claim and a release don't wait for the disk, a commit does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lazymig._postgres_sql import IS_REGISTERED, NOW, STATEMENTS, SYNC_LATER, UNHEARD, in_schema
from lazymig._sql_operations import Claimed, Dialect, last, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import EntryRow, Operation, Rows

_NO_WAIT = SYNC_LATER.replace("SELECT", "PERFORM")

_SEEN_OWNER = """
    SELECT 1 FROM lazymig.actor AS seen WHERE seen.type = %(type)s AND seen.id = %(id)s AND seen.owner = actor.owner
"""
"""What the snapshot says of an owner counts only if it shows that owner: one that came later has no heartbeat in it."""

_OWNERS_HEARTBEAT = "SELECT 1 FROM lazymig.heartbeat WHERE incarnation = actor.owner"

_MAY_CLAIM = f"{IS_REGISTERED} AND {UNHEARD} IS NULL"

_FOUND = """
    RETURNING revision, lineage, written_by, migrated_at, converting, oldest
    INTO o_revision, o_lineage, o_written_by, o_migrated_at, o_converting, o_oldest
"""

_CLAIM = f"""
    CREATE FUNCTION lazymig.claim(
        p_type text, p_id text, p_node text, p_number int8, p_now float8, p_dead text,
        OUT o_is_registered boolean, OUT o_owner text, OUT o_revision int8, OUT o_lineage int8, OUT o_written_by int8,
        OUT o_migrated_at int8, OUT o_converting int8, OUT o_oldest int8, OUT o_clock int8,
        OUT o_names text[], OUT o_values bytea[]
    ) LANGUAGE plpgsql AS $$
    BEGIN
        {_NO_WAIT};
        UPDATE lazymig.actor SET owner = %(node)s, number = %(number)s
        WHERE type = %(type)s AND id = %(id)s AND (owner IS NULL OR owner IN (%(node)s, %(dead)s))
        AND {_MAY_CLAIM}
        {_FOUND};
        IF NOT FOUND THEN
            INSERT INTO lazymig.actor (type, id, revision, owner, number)
            SELECT %(type)s, %(id)s, 0, %(node)s, %(number)s
            WHERE {_MAY_CLAIM}
            ON CONFLICT (type, id) DO UPDATE SET owner = excluded.owner, number = excluded.number
            WHERE actor.owner IS NULL OR actor.owner IN (%(node)s, %(dead)s)
            OR EXISTS ({_SEEN_OWNER}) AND (NOT EXISTS ({_OWNERS_HEARTBEAT})
            OR NOT EXISTS ({_OWNERS_HEARTBEAT} AND {NOW} < at + lease) AND (
                %(now)s IS NOT NULL
                OR EXISTS (SELECT 1 FROM lazymig.heartbeat WHERE incarnation = %(node)s AND {NOW} < at + lease)
            ))
            {_FOUND};
        END IF;
        IF FOUND THEN
            IF o_revision = 0 AND EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(type)s AND id = %(id)s) THEN
                o_oldest := 0;
            END IF;
            o_is_registered := true;
            o_owner := %(node)s;
            o_clock := extract(epoch FROM statement_timestamp()) * 1000000;
            SELECT array_agg(name), array_agg(value) INTO o_names, o_values
            FROM lazymig.state WHERE type = %(type)s AND id = %(id)s;
        ELSE
            SELECT true, COALESCE(
                (SELECT owner FROM lazymig.actor WHERE type = %(type)s AND id = %(id)s), {UNHEARD}
            ) INTO o_is_registered, o_owner WHERE {IS_REGISTERED};
        END IF;
    END $$
"""  # noqa: S608  (constants are put in, no value)

_COMMIT = """
    CREATE FUNCTION lazymig.commit(
        p_type text, p_id text, p_node text, p_number int8, p_revision int8, p_keep boolean,
        p_version int8, p_lineage int8, p_written_by int8, p_migrated_at int8,
        p_names text[], p_values bytea[], p_removed text[], OUT o_revision int8
    ) LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE lazymig.actor SET
            revision = revision + 1,
            version = %(version)s, lineage = %(lineage)s, written_by = %(written_by)s, migrated_at = %(migrated_at)s,
            owner = CASE WHEN %(keep)s THEN owner END, number = CASE WHEN %(keep)s THEN number ELSE 0 END
        WHERE type = %(type)s AND id = %(id)s
        AND owner = %(node)s AND number = %(number)s AND revision = %(revision)s
        AND EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = %(node)s)
        RETURNING revision INTO o_revision;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        FOR n IN 1 .. cardinality(%(names)s) LOOP
            INSERT INTO lazymig.state (type, id, name, value) VALUES (%(type)s, %(id)s, %(names)s[n], %(values)s[n])
            ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value;
        END LOOP;
        IF cardinality(%(removed)s) > 0 THEN
            DELETE FROM lazymig.state WHERE type = %(type)s AND id = %(id)s AND name = ANY(%(removed)s);
        END IF;
    END $$
"""

_COMMIT_ENTRIES = """
    CREATE FUNCTION lazymig.commit_entries(
        p_type text, p_id text, p_node text, p_number int8, p_revision int8, p_keep boolean,
        p_version int8, p_lineage int8, p_written_by int8, p_migrated_at int8,
        p_names text[], p_values bytea[], p_removed text[],
        p_tables text[], p_keys text[], p_data bytea[], p_lineages int8[],
        p_gone_tables text[], p_gone_keys text[], p_converting int8, p_oldest int8, OUT o_revision int8
    ) LANGUAGE plpgsql AS $$
    BEGIN
        o_revision := lazymig.commit(
            %(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s,
            %(version)s, %(lineage)s, %(written_by)s, %(migrated_at)s, %(names)s, %(values)s, %(removed)s
        );
        IF o_revision IS NULL THEN
            RETURN;
        END IF;
        INSERT INTO lazymig.entry (type, id, name, key, value, lineage)
        SELECT %(type)s, %(id)s, put.name, put.key, put.value, put.lineage
        FROM unnest(%(tables)s, %(keys)s, %(data)s, %(lineages)s) AS put (name, key, value, lineage)
        ON CONFLICT (type, id, name, key) DO UPDATE SET value = excluded.value, lineage = excluded.lineage;
        IF cardinality(%(gone_keys)s) > 0 THEN
            DELETE FROM lazymig.entry USING unnest(%(gone_tables)s, %(gone_keys)s) AS gone (name, key)
            WHERE entry.type = %(type)s AND entry.id = %(id)s AND entry.name = gone.name AND entry.key = gone.key;
        END IF;
        UPDATE lazymig.actor SET converting = %(converting)s, oldest = CASE
            WHEN EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(type)s AND id = %(id)s) THEN %(oldest)s
        END
        WHERE type = %(type)s AND id = %(id)s;
    END $$
"""

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

_RELEASE = f"""
    CREATE FUNCTION lazymig.release(p_types text[], p_ids text[], p_nodes text[], p_numbers int8[])
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_revision int8;
    BEGIN
        {_NO_WAIT};
        FOR n IN 1 .. cardinality(%(ids)s) LOOP
            UPDATE lazymig.actor SET owner = NULL, number = 0
            WHERE type = %(types)s[n] AND id = %(ids)s[n] AND owner = %(nodes)s[n] AND number = %(numbers)s[n]
            AND EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = %(nodes)s[n])
            RETURNING revision INTO v_revision;
            IF v_revision = 0 THEN
                DELETE FROM lazymig.actor
                WHERE type = %(types)s[n] AND id = %(ids)s[n] AND revision = 0 AND owner IS NULL
                AND NOT EXISTS (SELECT 1 FROM lazymig.state WHERE type = %(types)s[n] AND id = %(ids)s[n])
                AND NOT EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(types)s[n] AND id = %(ids)s[n]);
            END IF;
        END LOOP;
    END $$
"""  # noqa: S608  (likewise)

FUNCTIONS = tuple(re.sub(r"%\((\w+)\)s", r"p_\1", text) for text in (_CLAIM, _COMMIT, _COMMIT_ENTRIES, _RELEASE))
"""What lays them out, a statement each."""


def dialect(schema: str) -> Dialect:
    """Return how a schema is spoken to."""
    statements = {name: in_schema(statement, schema) for name, statement in STATEMENTS.items()}
    return Dialect(**statements, dealing=PostgresDealing(schema))


class PostgresDealing:
    """See `lazymig._sql_operations.Dealing`: each is one call of a function.

    Args:
        schema: Of the functions.
    """

    def __init__(self, schema: str) -> None:
        self._claim = in_schema(
            "SELECT * FROM lazymig.claim(%(type)s, %(id)s, %(node)s, %(number)s, %(now)s, %(dead)s)", schema
        )
        self._commit = in_schema(
            "SELECT lazymig.commit(%(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s, %(version)s, "
            "%(lineage)s, %(written_by)s, %(migrated_at)s, %(names)s, %(values)b, %(removed)s)",
            schema,
        )
        self._commit_entries = in_schema(
            "SELECT lazymig.commit_entries(%(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s, "
            "%(version)s, %(lineage)s, %(written_by)s, %(migrated_at)s, %(names)s, %(values)b, %(removed)s, "
            "%(tables)s, %(keys)s, %(data)b, %(lineages)s, %(gone_tables)s, %(gone_keys)s, %(converting)s, %(oldest)s)",
            schema,
        )
        self._entries = in_schema(_ENTRIES, schema)
        self._entries_backwards = in_schema(_ENTRIES.replace("ORDER BY key", "ORDER BY key DESC"), schema)
        self._release = in_schema("SELECT lazymig.release(%(types)s, %(ids)s, %(nodes)s, %(numbers)s)", schema)

    def claim(self, of: Mapping[str, Any]) -> Operation[Claimed | None]:
        """See `Dealing.claim`."""
        ((row,),) = yield whole((self._claim, of))
        is_registered, owner, revision, lineage, written_by, migrated_at, converting, oldest, clock, names, values = row
        if not is_registered:
            return None
        if revision is None:
            return Claimed(owner)
        states = [*zip(names or (), values or (), strict=True)]
        return Claimed(owner, (revision, lineage, written_by, migrated_at, converting, oldest), states, clock)

    def commit(self, of: Mapping[str, Any], writes: Mapping[str, bytes | None]) -> Operation[int | None]:
        """See `Dealing.commit`."""
        (((revision,),),) = yield whole((self._commit, {**of, **_columns(writes)}))
        return None if revision is None else int(revision)

    def commit_entries(
        self, of: Mapping[str, Any], writes: Mapping[str, bytes | None], entries: Sequence[EntryRow]
    ) -> Operation[int | None]:
        """See `Dealing.commit_entries`."""
        put = [row for row in entries if row[2] is not None]
        gone = [row for row in entries if row[2] is None]
        rows = {
            **dict(zip(("tables", "keys", "data", "lineages"), _turned(put), strict=True)),
            **dict(zip(("gone_tables", "gone_keys"), _turned(gone), strict=False)),
        }
        (((revision,),),) = yield whole((self._commit_entries, {**of, **_columns(writes), **rows}))
        return None if revision is None else int(revision)

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


def _columns(writes: Mapping[str, bytes | None]) -> dict[str, list[Any]]:
    kept = {name: data for name, data in writes.items() if data is not None}
    removed = [name for name, data in writes.items() if data is None]
    return {"names": [*kept], "values": [*kept.values()], "removed": removed}


def _turned(rows: Sequence[EntryRow]) -> list[list[Any]]:
    """Return rows as columns."""
    return [*map(list, zip(*rows, strict=True))] or [[], [], [], []]
