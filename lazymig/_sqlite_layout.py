"""The layout of SQLite files.

An actor's `lineage` says, too, whether anything is stored of it: NULL if nothing is, 0 without migration-info. So an
index alone counts actors.
"""

from __future__ import annotations

APPLICATION_ID = 0x6C7A6D67
"""Marks a file as lazymig's ("lzmg"), so that another program's database is never taken for one."""

LAYOUTS = (
    """
    CREATE TABLE actor (
        type TEXT NOT NULL, id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        version INTEGER, lineage INTEGER, written_by INTEGER, migrated_at INTEGER,
        owner TEXT, number INTEGER NOT NULL DEFAULT 0,
        converting INTEGER NOT NULL DEFAULT 0, oldest INTEGER,
        base_lineage INTEGER, base_revision INTEGER, base_digest INTEGER,
        failing INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (type, id)
    ) WITHOUT ROWID;
    CREATE INDEX actor_lineage ON actor (type, lineage);
    CREATE INDEX actor_base ON actor (type, base_lineage, lineage, written_by) WHERE base_lineage IS NOT NULL;
    CREATE INDEX actor_oldest ON actor (type, oldest) WHERE oldest IS NOT NULL;
    CREATE INDEX actor_converting ON actor (type, converting) WHERE converting <> 0;
    CREATE TABLE state (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (type, id, name)
    );
    CREATE TABLE base (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        value BLOB,
        PRIMARY KEY (type, id, name)
    );
    CREATE TABLE previous (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        value BLOB NOT NULL, lineage INTEGER, written_by INTEGER, migrated_at INTEGER,
        PRIMARY KEY (type, id, name)
    );
    CREATE TABLE entry (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
        value BLOB NOT NULL, lineage INTEGER NOT NULL,
        PRIMARY KEY (type, id, name, key)
    ) WITHOUT ROWID;
    CREATE TABLE draft (
        type TEXT NOT NULL, id TEXT NOT NULL, draft TEXT NOT NULL,
        PRIMARY KEY (type, id)
    ) WITHOUT ROWID;
    CREATE TABLE failure (
        type TEXT NOT NULL, id TEXT NOT NULL,
        failed_at INTEGER NOT NULL, retry_at INTEGER NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (type, id)
    ) WITHOUT ROWID;
    CREATE TABLE lineage (
        id INTEGER PRIMARY KEY, type TEXT NOT NULL, applied TEXT NOT NULL,
        UNIQUE (type, applied)
    );
    CREATE TABLE sweep (
        type TEXT NOT NULL, node TEXT NOT NULL, at INTEGER NOT NULL, progress BLOB NOT NULL,
        PRIMARY KEY (type, node)
    ) WITHOUT ROWID;
    CREATE TABLE sweep_pause (type TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE policy (type TEXT PRIMARY KEY, version INTEGER, epoch INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE release (
        type TEXT NOT NULL, applied TEXT NOT NULL, checksums TEXT NOT NULL, build TEXT, seen_at INTEGER NOT NULL,
        PRIMARY KEY (type, applied)
    ) WITHOUT ROWID;
    CREATE TABLE node (
        incarnation TEXT PRIMARY KEY, label TEXT NOT NULL, build TEXT,
        offers TEXT NOT NULL, draining INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE heartbeat (
        incarnation TEXT PRIMARY KEY, at REAL NOT NULL, lease REAL NOT NULL, active INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE offer (
        incarnation TEXT NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL, below INTEGER NOT NULL,
        supported INTEGER NOT NULL,
        PRIMARY KEY (incarnation, type, action)
    ) WITHOUT ROWID;
    CREATE TABLE fleet (changes INTEGER NOT NULL);
    INSERT INTO fleet VALUES (0);
    CREATE TABLE call (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, arguments BLOB NOT NULL,
        sender TEXT NOT NULL, chain TEXT NOT NULL, traceparent TEXT,
        needs INTEGER NOT NULL, target TEXT, target_until REAL, since REAL NOT NULL, until REAL NOT NULL,
        status INTEGER NOT NULL, taker TEXT, takes INTEGER NOT NULL DEFAULT 0, result BLOB
    );
    CREATE INDEX call_waiting ON call (type, actor) WHERE status = 0;
    CREATE INDEX call_taken ON call (taker) WHERE status = 1;
    CREATE INDEX call_sender ON call (sender);
    """,
)
"""The layout's versions: script N brings a file from version N to N + 1."""
