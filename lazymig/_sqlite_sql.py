"""All SQL of the SQLite store: its layout, and the statements of its operations."""

from __future__ import annotations

from lazymig._sql import Dialect

APPLICATION_ID = 0x6C7A6D67
"""Marks a file as lazymig's ("lzmg"), so that another program's database is never taken for one."""

LAYOUTS = (
    """
    CREATE TABLE actor (
        type TEXT NOT NULL, id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        version INTEGER, lineage INTEGER, written_by INTEGER, migrated_at INTEGER,
        owner TEXT, number INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (type, id)
    ) WITHOUT ROWID;
    CREATE TABLE state (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (type, id, name)
    );
    CREATE TABLE lineage (
        id INTEGER PRIMARY KEY, type TEXT NOT NULL, applied TEXT NOT NULL,
        UNIQUE (type, applied)
    );
    CREATE TABLE node (incarnation TEXT PRIMARY KEY, label TEXT NOT NULL, build TEXT) WITHOUT ROWID;
    CREATE TABLE heartbeat (incarnation TEXT PRIMARY KEY, at REAL NOT NULL, lease REAL NOT NULL) WITHOUT ROWID;
    """,
)
"""The layout's versions: script N brings a file from version N to N + 1."""

_IS_ALIVE = """EXISTS (
    SELECT 1 FROM heartbeat WHERE incarnation = actor.owner AND at <= :now AND :now < at + lease
)"""

DIALECT = Dialect(
    add_node="INSERT INTO node (incarnation, label, build) VALUES (:node, :label, :build)",
    remove_node="DELETE FROM node WHERE incarnation = :node",
    add_heartbeat="INSERT INTO heartbeat (incarnation, at, lease) VALUES (:node, :at, :lease)",
    beat="UPDATE heartbeat SET at = :at WHERE incarnation = :node",
    remove_heartbeat="DELETE FROM heartbeat WHERE incarnation = :node",
    nodes="SELECT incarnation FROM node",
    claim=f"""
        INSERT INTO actor (type, id, revision, owner, number)
        SELECT :type, :id, 0, :node, :number WHERE EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
        ON CONFLICT (type, id) DO UPDATE SET owner = excluded.owner, number = excluded.number
        WHERE actor.owner IS NULL OR actor.owner IN (:node, :dead) OR NOT {_IS_ALIVE}
        RETURNING revision, lineage, written_by, migrated_at
    """,  # noqa: S608  (a constant is put in, no value)
    holder="""
        SELECT owner FROM actor WHERE type = :type AND id = :id
        AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    """,
    claimed_states="""
        SELECT name, value FROM state WHERE type = :type AND id = :id AND EXISTS (
            SELECT 1 FROM actor WHERE type = :type AND id = :id AND owner = :node AND number = :number
        )
    """,
    commit="""
        UPDATE actor SET
            revision = revision + 1,
            version = :version, lineage = :lineage, written_by = :written_by, migrated_at = :migrated_at,
            owner = CASE WHEN :keep THEN owner END, number = CASE WHEN :keep THEN number ELSE 0 END
        WHERE type = :type AND id = :id AND owner = :node AND number = :number AND revision = :revision
        AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
        RETURNING revision
    """,
    put_state="""
        INSERT INTO state (type, id, name, value) VALUES (:type, :id, :name, :value)
        ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value
    """,
    remove_state="DELETE FROM state WHERE type = :type AND id = :id AND name = :name",
    release="""
        UPDATE actor SET owner = NULL, number = 0
        WHERE type = :type AND id = :id AND owner = :node AND number = :number
        AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    """,
    forget_unstored="""
        DELETE FROM actor WHERE type = :type AND id = :id AND revision = 0 AND owner IS NULL
        AND NOT EXISTS (SELECT 1 FROM state WHERE type = :type AND id = :id)
    """,
    read="""
        SELECT revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
            lineage, written_by, migrated_at, state.name, state.value
        FROM actor LEFT JOIN node ON node.incarnation = actor.owner
        LEFT JOIN state ON state.type = actor.type AND state.id = actor.id
        WHERE actor.type = :type AND actor.id = :id
    """,
    scan="""
        SELECT page.id, revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
            lineage, written_by, migrated_at, state.name, state.value
        FROM (
            SELECT * FROM actor WHERE type = :type AND id > :after AND (
                revision <> 0 OR EXISTS (SELECT 1 FROM state WHERE state.type = actor.type AND state.id = actor.id)
            )
            ORDER BY id LIMIT :limit
        ) AS page
        LEFT JOIN node ON node.incarnation = page.owner
        LEFT JOIN state ON state.type = page.type AND state.id = page.id
        ORDER BY page.id
    """,
    census="SELECT lineage, COUNT(*) FROM actor WHERE type = :type AND revision <> 0 GROUP BY lineage",
    types="SELECT DISTINCT type FROM actor WHERE revision <> 0 ORDER BY type",
    insert_actor="""
        INSERT INTO actor (type, id, revision)
        SELECT :type, :id, 1 WHERE NOT EXISTS (SELECT 1 FROM state WHERE type = :type AND id = :id)
        ON CONFLICT (type, id) DO UPDATE SET revision = 1 WHERE revision = 0
        RETURNING revision
    """,
    find_lineage="SELECT id FROM lineage WHERE type = :type AND applied = :applied",
    add_lineage="INSERT INTO lineage (type, applied) VALUES (:type, :applied) ON CONFLICT DO NOTHING",
    lineage="SELECT type, applied FROM lineage WHERE id = :lineage",
)
