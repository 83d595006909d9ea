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
from lazymig._sql_operations import Claimed, Dialect, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import Operation

_NO_WAIT = SYNC_LATER.replace("SELECT", "PERFORM")

_SEEN_OWNER = """
    SELECT 1 FROM lazymig.actor AS seen WHERE seen.type = %(type)s AND seen.id = %(id)s AND seen.owner = actor.owner
"""
"""What the snapshot says of an owner counts only if it shows that owner: one that came later has no heartbeat in it."""

_OWNERS_HEARTBEAT = "SELECT 1 FROM lazymig.heartbeat WHERE incarnation = actor.owner"

_MAY_CLAIM = f"{IS_REGISTERED} AND {UNHEARD} IS NULL"

_FOUND = "RETURNING revision, lineage, written_by, migrated_at INTO o_revision, o_lineage, o_written_by, o_migrated_at"

_CLAIM = f"""
    CREATE FUNCTION lazymig.claim(
        p_type text, p_id text, p_node text, p_number int8, p_now float8, p_dead text,
        OUT o_is_registered boolean, OUT o_owner text, OUT o_revision int8, OUT o_lineage int8, OUT o_written_by int8,
        OUT o_migrated_at int8, OUT o_clock int8, OUT o_names text[], OUT o_values bytea[]
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
                AND NOT EXISTS (SELECT 1 FROM lazymig.state WHERE type = %(types)s[n] AND id = %(ids)s[n]);
            END IF;
        END LOOP;
    END $$
"""  # noqa: S608  (likewise)

FUNCTIONS = tuple(re.sub(r"%\((\w+)\)s", r"p_\1", text) for text in (_CLAIM, _COMMIT, _RELEASE))
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
        self._release = in_schema("SELECT lazymig.release(%(types)s, %(ids)s, %(nodes)s, %(numbers)s)", schema)

    def claim(self, of: Mapping[str, Any]) -> Operation[Claimed | None]:
        """See `Dealing.claim`."""
        ((row,),) = yield whole((self._claim, of))
        is_registered, owner, revision, lineage, written_by, migrated_at, clock, names, values = row
        if not is_registered:
            return None
        if revision is None:
            return Claimed(owner)
        states = [*zip(names or (), values or (), strict=True)]
        return Claimed(owner, (revision, lineage, written_by, migrated_at), states, clock)

    def commit(self, of: Mapping[str, Any], writes: Mapping[str, bytes | None]) -> Operation[int | None]:
        """See `Dealing.commit`."""
        kept = {name: data for name, data in writes.items() if data is not None}
        removed = [name for name, data in writes.items() if data is None]
        states = {"names": [*kept], "values": [*kept.values()], "removed": removed}
        (((revision,),),) = yield whole((self._commit, {**of, **states}))
        return None if revision is None else int(revision)

    def release(self, held: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """See `Dealing.release`."""
        if not held:
            return
        columns = {f"{name}s": [lock[name] for lock in held] for name in ("type", "id", "node", "number")}
        yield whole((self._release, columns))
