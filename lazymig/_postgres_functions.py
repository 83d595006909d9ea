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

from lazymig._postgres_sql import IS_REGISTERED, NOW, SYNC_LATER, UNHEARD

_NO_WAIT = SYNC_LATER.replace("SELECT", "PERFORM")

_SEEN_OWNER = """
    SELECT 1 FROM lazymig.actor AS seen WHERE seen.type = %(type)s AND seen.id = %(id)s AND seen.owner = actor.owner
"""
"""What the snapshot says of an owner counts only if it shows that owner: one that came later has no heartbeat in it."""

_OWNERS_HEARTBEAT = "SELECT 1 FROM lazymig.heartbeat WHERE incarnation = actor.owner"

_MAY_CLAIM = f"{IS_REGISTERED} AND {UNHEARD} IS NULL"

_FOUND = """
    RETURNING revision, lineage, written_by, migrated_at, converting, oldest, base_lineage, base_revision, base_digest,
        failing
    INTO o_revision, o_lineage, o_written_by, o_migrated_at, o_converting, o_oldest,
        o_base_lineage, o_base_revision, o_base_digest, v_failing
"""

_CLAIM = f"""
    CREATE FUNCTION lazymig.claim(
        p_type text, p_id text, p_node text, p_number int8, p_now float8, p_dead text,
        OUT o_is_registered boolean, OUT o_owner text, OUT o_revision int8, OUT o_lineage int8, OUT o_written_by int8,
        OUT o_migrated_at int8, OUT o_converting int8, OUT o_oldest int8,
        OUT o_base_lineage int8, OUT o_base_revision int8, OUT o_base_digest int8,
        OUT o_version int8, OUT o_epoch int8, OUT o_clock int8,
        OUT o_names text[], OUT o_values bytea[], OUT o_kept text[], OUT o_kept_values bytea[],
        OUT o_failed_at int8, OUT o_retry_at int8, OUT o_record text
    ) LANGUAGE plpgsql AS $$
    DECLARE
        v_failing boolean;
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
            IF o_revision = 0 AND (
                EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(type)s AND id = %(id)s)
                OR EXISTS (SELECT 1 FROM lazymig.base WHERE type = %(type)s AND id = %(id)s)
            ) THEN
                o_oldest := 0;
            END IF;
            IF o_base_lineage IS NOT NULL THEN
                SELECT array_agg(name), array_agg(value) INTO o_kept, o_kept_values
                FROM lazymig.base WHERE type = %(type)s AND id = %(id)s;
            END IF;
            IF v_failing THEN
                SELECT failed_at, retry_at, record INTO o_failed_at, o_retry_at, o_record
                FROM lazymig.failure WHERE type = %(type)s AND id = %(id)s;
            END IF;
            o_is_registered := true;
            o_owner := %(node)s;
            o_clock := extract(epoch FROM statement_timestamp()) * 1000000;
            SELECT array_agg(name), array_agg(value),
                (SELECT version FROM lazymig.policy WHERE policy.type = %(type)s),
                (SELECT epoch FROM lazymig.policy WHERE policy.type = %(type)s)
            INTO o_names, o_values, o_version, o_epoch
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
        p_epoch int8, p_names text[], p_values bytea[], p_removed text[],
        OUT o_revision int8, OUT o_version int8, OUT o_epoch int8
    ) LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE lazymig.actor SET
            revision = revision + 1,
            version = %(version)s, lineage = %(lineage)s, written_by = %(written_by)s, migrated_at = %(migrated_at)s,
            owner = CASE WHEN %(keep)s THEN owner END, number = CASE WHEN %(keep)s THEN number ELSE 0 END
        WHERE type = %(type)s AND id = %(id)s
        AND owner = %(node)s AND number = %(number)s AND revision = %(revision)s
        AND EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = %(node)s)
        AND COALESCE((SELECT epoch FROM lazymig.policy WHERE policy.type = %(type)s), 0) = %(epoch)s
        RETURNING revision INTO o_revision;
        IF NOT FOUND THEN
            SELECT version, epoch INTO o_version, o_epoch FROM lazymig.policy WHERE type = %(type)s;
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
        p_epoch int8, p_names text[], p_values bytea[], p_removed text[],
        p_tables text[], p_keys text[], p_data bytea[], p_lineages int8[],
        p_gone_tables text[], p_gone_keys text[], p_converting int8, p_oldest int8,
        OUT o_revision int8, OUT o_version int8, OUT o_epoch int8
    ) LANGUAGE plpgsql AS $$
    BEGIN
        SELECT * INTO o_revision, o_version, o_epoch FROM lazymig.commit(
            %(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s, %(version)s, %(lineage)s, %(written_by)s,
            %(migrated_at)s, %(epoch)s, %(names)s, %(values)s, %(removed)s
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

_COMMIT_BASE = """
    CREATE FUNCTION lazymig.commit_base(
        p_type text, p_id text, p_node text, p_number int8, p_revision int8, p_keep boolean,
        p_version int8, p_lineage int8, p_written_by int8, p_migrated_at int8,
        p_epoch int8, p_names text[], p_values bytea[], p_removed text[], p_has_entries boolean,
        p_tables text[], p_keys text[], p_data bytea[], p_lineages int8[],
        p_gone_tables text[], p_gone_keys text[], p_converting int8, p_oldest int8,
        p_base_lineage int8, p_base_digest int8, p_is_current boolean,
        p_kept text[], p_kept_values bytea[], p_dropped text[],
        OUT o_revision int8, OUT o_version int8, OUT o_epoch int8
    ) LANGUAGE plpgsql AS $$
    BEGIN
        IF %(has_entries)s THEN
            SELECT * INTO o_revision, o_version, o_epoch FROM lazymig.commit_entries(
                %(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s, %(version)s, %(lineage)s,
                %(written_by)s, %(migrated_at)s, %(epoch)s, %(names)s, %(values)s, %(removed)s, %(tables)s, %(keys)s,
                %(data)s, %(lineages)s, %(gone_tables)s, %(gone_keys)s, %(converting)s, %(oldest)s
            );
        ELSE
            SELECT * INTO o_revision, o_version, o_epoch FROM lazymig.commit(
                %(type)s, %(id)s, %(node)s, %(number)s, %(revision)s, %(keep)s, %(version)s, %(lineage)s,
                %(written_by)s, %(migrated_at)s, %(epoch)s, %(names)s, %(values)s, %(removed)s
            );
        END IF;
        IF o_revision IS NULL THEN
            RETURN;
        END IF;
        UPDATE lazymig.actor SET base_lineage = %(base_lineage)s, base_digest = %(base_digest)s, base_revision = CASE
            WHEN %(base_lineage)s IS NULL THEN NULL WHEN %(is_current)s THEN revision ELSE COALESCE(base_revision, 0)
        END
        WHERE type = %(type)s AND id = %(id)s;
        DELETE FROM lazymig.base WHERE type = %(type)s AND id = %(id)s
        AND (%(base_lineage)s IS NULL OR name = ANY(%(dropped)s));
        INSERT INTO lazymig.base (type, id, name, value)
        SELECT %(type)s, %(id)s, put.name, put.value FROM unnest(%(kept)s, %(kept_values)s) AS put (name, value)
        ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value;
    END $$
"""

_BLANK = """
    CREATE FUNCTION lazymig.blank(p_type text, p_id text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE lazymig.actor
        SET version = NULL, lineage = NULL, written_by = NULL, migrated_at = NULL, converting = 0, failing = false
        WHERE type = %(type)s AND id = %(id)s AND base_lineage IS NULL
        AND NOT EXISTS (SELECT 1 FROM lazymig.state WHERE type = %(type)s AND id = %(id)s)
        AND NOT EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(type)s AND id = %(id)s);
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        DELETE FROM lazymig.previous WHERE type = %(type)s AND id = %(id)s;
        DELETE FROM lazymig.failure WHERE type = %(type)s AND id = %(id)s;
        RETURN true;
    END $$
"""
"""Where nothing is left of an actor but its revision. Only who has just committed it calls it: the row is locked."""

_PREVIOUS = """
    CREATE FUNCTION lazymig.previous(
        p_type text, p_id text, p_revision int8,
        OUT o_before int8, OUT o_lineage int8, OUT o_written_by int8, OUT o_migrated_at int8,
        OUT o_names text[], OUT o_values bytea[]
    ) LANGUAGE plpgsql AS $$
    BEGIN
        SELECT revision, lineage, written_by, migrated_at INTO o_before, o_lineage, o_written_by, o_migrated_at
        FROM lazymig.actor WHERE type = %(type)s AND id = %(id)s AND revision = %(revision)s FOR UPDATE;
        SELECT array_agg(name), array_agg(value) INTO o_names, o_values
        FROM lazymig.state WHERE type = %(type)s AND id = %(id)s;
    END $$
"""
"""What a commit from a revision is about to replace, read by a snapshot younger than the row lock; the revision NULL,
from which nothing is committed, if the actor has another one."""

_KEEP = """
    CREATE FUNCTION lazymig.keep(
        p_type text, p_id text, p_names text[], p_values bytea[], p_lineage int8, p_written_by int8, p_migrated_at int8
    ) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM lazymig.previous WHERE type = %(type)s AND id = %(id)s;
        INSERT INTO lazymig.previous (type, id, name, value, lineage, written_by, migrated_at)
        SELECT %(type)s, %(id)s, kept.name, kept.value, %(lineage)s, %(written_by)s, %(migrated_at)s
        FROM unnest(%(names)s, %(values)s) AS kept (name, value);
    END $$
"""
"""Only who has just committed the actor calls it: the row is locked."""

_NOTE_FAILURE = """
    CREATE FUNCTION lazymig.note_failure(
        p_type text, p_id text, p_node text, p_number int8, p_failed_at int8, p_retry_at int8, p_record text
    ) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE lazymig.actor SET failing = true
        WHERE type = %(type)s AND id = %(id)s AND owner = %(node)s AND number = %(number)s AND lineage IS NOT NULL
        AND EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = %(node)s);
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        INSERT INTO lazymig.failure (type, id, failed_at, retry_at, record)
        VALUES (%(type)s, %(id)s, %(failed_at)s, %(retry_at)s, %(record)s)
        ON CONFLICT (type, id) DO UPDATE
        SET failed_at = excluded.failed_at, retry_at = excluded.retry_at, record = excluded.record;
        RETURN true;
    END $$
"""

_CLEAR_FAILURE = """
    CREATE FUNCTION lazymig.clear_failure(p_type text, p_id text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE lazymig.actor SET failing = false WHERE type = %(type)s AND id = %(id)s;
        DELETE FROM lazymig.failure WHERE type = %(type)s AND id = %(id)s;
    END $$
"""
"""Likewise."""

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
                AND NOT EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(types)s[n] AND id = %(ids)s[n])
                AND NOT EXISTS (SELECT 1 FROM lazymig.base WHERE type = %(types)s[n] AND id = %(ids)s[n]);
            END IF;
        END LOOP;
    END $$
"""  # noqa: S608  (likewise)

FUNCTIONS = tuple(
    re.sub(r"%\((\w+)\)s", r"p_\1", text)
    for text in (
        *(_CLAIM, _COMMIT, _COMMIT_ENTRIES, _COMMIT_BASE, _PREVIOUS, _KEEP, _BLANK, _NOTE_FAILURE, _CLEAR_FAILURE),
        _RELEASE,
    )
)
"""What lays them out, a statement each."""
