"""SQL of the PostgreSQL store: the layout of its tables, and the statements of its operations.

Rules:

1. What is done under an actor's lock is a function of the schema, see `lazymig._postgres_functions`.
2. Names carry the schema: nothing relies on a session's settings. `lazymig.` stands for the schema that was chosen.
3. Keys order by code point: `COLLATE "C"` in an UTF-8 database.
4. A crash of the server loses the claims, releases and heartbeats that did not wait for the disk, while the nodes live
   on. So heartbeats are unlogged: a crash empties their table (and a standby that takes over never had them), every
   node registers anew at its next beat, and drops what it had. Until all have, or their leases are over, nobody claims:
   who doesn't know of the crash yet may still read what it has in memory.
5. No index on what each claim and commit changes (owner, number, revision), nor on a condition about it, and room in
   each page: then updates stay in it (HOT) and leave no garbage. So `lineage` says, too, whether anything is stored of
   an actor: NULL if nothing is, 0 without migration-info.
6. Commits read the table of policies plainly, and hold its weakest lock until they have ended. Who changes a policy
   takes the strongest: it waits for all of them, and those that wait behind it read it anew. Comparing alone is not
   enough: a commit that waited for a row lock would compare what it had read before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = frozenset({"schema", "partitions", "pool"})
"""Of a store's URL; all others are libpq's, and left as they are written."""

TABLES = (
    *("actor", "base", "call", "draft", "entry", "failure", "fleet", "heartbeat", "layout", "lineage", "node", "offer"),
    *("policy", "previous", "recovery", "release", "state", "sweep", "sweep_pause"),
)
"""What a schema holds that is laid out."""

PARTITIONED = ("actor", "base", "entry", "previous", "state")
"""What grows with the actors; each is one table, or as many partitions as were asked for when the layout was made."""

_ROOM = "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)"
"""Storage of what is updated: the next version of a row fits beside it, and what is dead is cleared away early."""

LAYOUTS = (
    f"""
    CREATE TABLE lazymig.layout (version int4 NOT NULL, partitions int4 NOT NULL);
    CREATE TABLE lazymig.actor (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
        revision int8 NOT NULL,
        version int8, lineage int8, written_by int8, migrated_at int8,
        owner text COLLATE "C", number int8 NOT NULL DEFAULT 0,
        converting int8 NOT NULL DEFAULT 0, oldest int8,
        base_lineage int8, base_revision int8, base_digest int8,
        failing boolean NOT NULL DEFAULT false,
        PRIMARY KEY (type, id)
    ) /* partitions */;
    CREATE INDEX actor_lineage ON lazymig.actor (type, lineage, id);
    CREATE INDEX actor_base ON lazymig.actor (type, base_lineage, lineage, written_by) WHERE base_lineage IS NOT NULL;
    CREATE INDEX actor_oldest ON lazymig.actor (type, oldest) WHERE oldest IS NOT NULL;
    CREATE INDEX actor_converting ON lazymig.actor (type, converting) WHERE converting <> 0;
    CREATE TABLE lazymig.state (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (type, id, name)
    ) /* partitions */;
    CREATE TABLE lazymig.base (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
        value bytea,
        PRIMARY KEY (type, id, name)
    ) /* partitions */;
    CREATE TABLE lazymig.previous (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
        value bytea NOT NULL, lineage int8, written_by int8, migrated_at int8,
        PRIMARY KEY (type, id, name)
    ) /* partitions */;
    CREATE TABLE lazymig.entry (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL, value bytea NOT NULL, lineage int8 NOT NULL,
        PRIMARY KEY (type, id, name, key)
    ) /* partitions */;
    CREATE TABLE lazymig.draft (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, draft text COLLATE "C" NOT NULL,
        PRIMARY KEY (type, id)
    );
    CREATE TABLE lazymig.failure (
        type text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
        failed_at int8 NOT NULL, retry_at int8 NOT NULL, record text NOT NULL,
        PRIMARY KEY (type, id)
    ) {_ROOM};
    CREATE TABLE lazymig.lineage (
        id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, type text COLLATE "C" NOT NULL, applied text NOT NULL
    );
    CREATE UNIQUE INDEX lineage_by_set ON lazymig.lineage (type, md5(applied));
    CREATE TABLE lazymig.sweep (
        type text COLLATE "C" NOT NULL, node text COLLATE "C" NOT NULL, at int8 NOT NULL, progress bytea NOT NULL,
        PRIMARY KEY (type, node)
    ) {_ROOM};
    CREATE TABLE lazymig.sweep_pause (type text COLLATE "C" PRIMARY KEY);
    CREATE TABLE lazymig.policy (type text COLLATE "C" PRIMARY KEY, version int8, epoch int8 NOT NULL);
    CREATE TABLE lazymig.release (
        type text COLLATE "C" NOT NULL, applied text NOT NULL, checksums text NOT NULL, build text,
        seen_at int8 NOT NULL
    );
    CREATE UNIQUE INDEX release_by_set ON lazymig.release (type, md5(applied));
    CREATE TABLE lazymig.node (
        incarnation text COLLATE "C" PRIMARY KEY, label text NOT NULL, build text, lease float8 NOT NULL,
        offers text NOT NULL, draining boolean NOT NULL DEFAULT false
    );
    CREATE UNLOGGED TABLE lazymig.heartbeat (
        incarnation text COLLATE "C" PRIMARY KEY, at float8 NOT NULL, lease float8 NOT NULL,
        active int8 NOT NULL DEFAULT 0
    ) {_ROOM};
    CREATE UNLOGGED TABLE lazymig.recovery (one boolean PRIMARY KEY DEFAULT true, until float8 NOT NULL);
    CREATE TABLE lazymig.offer (
        incarnation text COLLATE "C" NOT NULL, type text COLLATE "C" NOT NULL, action text COLLATE "C" NOT NULL,
        below int8 NOT NULL, supported int8 NOT NULL,
        PRIMARY KEY (incarnation, type, action)
    );
    CREATE TABLE lazymig.fleet (changes int8 NOT NULL) {_ROOM};
    INSERT INTO lazymig.fleet VALUES (0);
    CREATE TABLE lazymig.call (
        number int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE,
        type text COLLATE "C" NOT NULL, actor text COLLATE "C" NOT NULL, action text COLLATE "C" NOT NULL,
        arguments bytea NOT NULL, sender text COLLATE "C" NOT NULL, chain text NOT NULL, traceparent text,
        needs int8 NOT NULL, target text COLLATE "C", target_until float8, since float8 NOT NULL, until float8 NOT NULL,
        status int2 NOT NULL, taker text COLLATE "C", takes int4 NOT NULL DEFAULT 0, result bytea
    ) {_ROOM};
    CREATE INDEX call_waiting ON lazymig.call (type, actor) WHERE status = 0;
    CREATE INDEX call_taken ON lazymig.call (taker) WHERE status = 1;
    CREATE INDEX call_sender ON lazymig.call (sender);
    """,  # noqa: S608  (a constant is put in, no value)
)
"""The layout's versions: script N brings a schema from version N to N + 1. (A set of many versions is longer than an
index takes, therefore the hash.)"""


def script(number: int, schema: str, partitions: int) -> list[str]:
    """Return the statements that bring a schema from a layout to the next one."""
    clause = "PARTITION BY HASH (type, id)" if partitions > 1 else _ROOM
    statements = [in_schema(text, schema) for text in LAYOUTS[number].replace("/* partitions */", clause).split(";")]
    if number == 0 and partitions > 1:
        statements += [
            in_schema(
                f"CREATE TABLE lazymig.{table}_{part} PARTITION OF lazymig.{table} "
                f"FOR VALUES WITH (MODULUS {partitions}, REMAINDER {part}) {_ROOM}",
                schema,
            )
            for table in PARTITIONED
            for part in range(partitions)
        ]
    return [statement for statement in statements if statement.strip()]


def in_schema(statement: str, schema: str) -> str:
    """Return a statement with the names of a schema, which is a checked identifier."""
    return statement.replace("lazymig.", f'"{schema}".')


SERVER = """
    SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'),
        current_setting('transaction_isolation'),
        pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'
"""
"""What must be known of a server before it is used."""

LAID_OUT = """
    SELECT relname, has_table_privilege(pg_class.oid, 'SELECT') AND (
        relname = 'layout' OR NOT %(writes)s OR has_table_privilege(pg_class.oid, 'INSERT')
        AND has_table_privilege(pg_class.oid, 'UPDATE') AND has_table_privilege(pg_class.oid, 'DELETE')
    )
    FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %(schema)s AND relname = ANY(%(tables)s)
"""
"""Which of our tables are there, and whether we may use them."""

LAYOUT = "SELECT version, partitions FROM lazymig.layout"
SET_LAYOUT = "UPDATE lazymig.layout SET version = %(version)s"
ADD_LAYOUT = "INSERT INTO lazymig.layout (version, partitions) VALUES (%(version)s, %(partitions)s)"
LOCK_LAYOUT = "SELECT pg_advisory_xact_lock(1819962727, hashtext(%(schema)s))"
"""The number spells "lzmg", so that other programs' locks are not in the way."""

HAS_SCHEMA = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)"
ADD_SCHEMA = 'CREATE SCHEMA "{schema}"'

NOW = "COALESCE(%(now)s::float8, extract(epoch FROM statement_timestamp()))"

SYNC_LATER = "SELECT set_config('synchronous_commit', 'off', true)"
"""For this transaction alone: its commit doesn't wait for the disk."""

IS_REGISTERED = """
    EXISTS (SELECT 1 FROM lazymig.node JOIN lazymig.heartbeat USING (incarnation) WHERE incarnation = %(node)s)
"""

UNHEARD = f"""
    CASE WHEN EXISTS (SELECT 1 FROM lazymig.recovery WHERE {NOW} < until) THEN (
        SELECT incarnation FROM lazymig.node
        WHERE NOT EXISTS (SELECT 1 FROM lazymig.heartbeat WHERE heartbeat.incarnation = node.incarnation) LIMIT 1
    ) END
"""  # noqa: S608  (likewise)
"""Who was registered before a crash of the server, and may not know of it yet; nodes are looked through only then."""

ALIVE = f"SELECT incarnation FROM lazymig.heartbeat WHERE {NOW} < at + lease"  # noqa: S608  (likewise)

LOCK_SOON = "SELECT set_config('lock_timeout', '200ms', true)"
LOCK_NODES = "LOCK TABLE lazymig.node IN ACCESS EXCLUSIVE MODE"
"""Waits for every claim and commit under way, which have read the table; those that wait behind it read it anew."""

LOCK_IN_TURN = "SELECT set_config('lock_timeout', '10s', true)"
LOCK_RULINGS = "LOCK TABLE lazymig.policy IN SHARE ROW EXCLUSIVE MODE"
"""Lets one ruling at a time through, and holds no commit up: many nodes that start at once can wait in turn."""

LOCK_POLICIES = "LOCK TABLE lazymig.policy IN ACCESS EXCLUSIVE MODE"
"""See rule 6."""

READ_ONLY = "SELECT set_config('transaction_read_only', 'on', true)"
"""For this transaction alone, which a pooler may give another server connection than the one before."""

STATEMENTS: Mapping[str, str] = {
    "add_node": """
        INSERT INTO lazymig.node (incarnation, label, build, lease, offers)
        VALUES (%(node)s, %(label)s, %(build)s, %(lease)s, %(offers)s)
    """,
    "add_offer": """
        INSERT INTO lazymig.offer (incarnation, type, action, below, supported)
        VALUES (%(node)s, %(type)s, %(action)s, %(below)s, %(supported)s)
    """,
    "count_change": "UPDATE lazymig.fleet SET changes = changes + 1",
    "remove_node": "DELETE FROM lazymig.node WHERE incarnation = %(node)s RETURNING incarnation",
    "remove_offers": "DELETE FROM lazymig.offer WHERE incarnation = %(node)s",
    "drain": "UPDATE lazymig.node SET draining = true WHERE incarnation = %(node)s RETURNING incarnation",
    "statuses": f"""
        SELECT incarnation, label, build, greatest(COALESCE({NOW} - at, node.lease), 0), node.lease, draining,
            COALESCE(active, 0), offers
        FROM lazymig.node LEFT JOIN lazymig.heartbeat USING (incarnation)
    """,  # noqa: S608  (constants are put in, no value)
    "add_heartbeat": """
        INSERT INTO lazymig.heartbeat (incarnation, at, lease)
        VALUES (%(node)s, COALESCE(%(at)s::float8, extract(epoch FROM clock_timestamp())), %(lease)s)
    """,
    "beat": """
        UPDATE lazymig.heartbeat
        SET at = COALESCE(%(at)s::float8, extract(epoch FROM clock_timestamp())), active = %(active)s
        WHERE incarnation = %(node)s
    """,
    "remove_heartbeat": "DELETE FROM lazymig.heartbeat WHERE incarnation = %(node)s",
    "nodes": "SELECT incarnation FROM lazymig.node",
    "put_state": """
        INSERT INTO lazymig.state (type, id, name, value)
        VALUES (%(type)s, %(id)s, %(name)s, %(value)s::bytea)
        ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value
    """,
    "count_entries": """
        SELECT count(*) FROM lazymig.entry
        WHERE type = %(type)s AND id = %(id)s AND name = %(name)s AND key >= %(start)s AND key < %(end)s
    """,
    "tables": """
        SELECT name, lineage, count(*) FROM lazymig.entry WHERE type = %(type)s AND id = %(id)s
        GROUP BY name, lineage ORDER BY name, lineage
    """,
    "census": """
        SELECT lineage, count(*) FROM lazymig.actor WHERE type = %(type)s AND lineage IS NOT NULL GROUP BY lineage
    """,
    "types": """
        WITH RECURSIVE found (type) AS (
            (SELECT type FROM lazymig.actor WHERE lineage IS NOT NULL ORDER BY type LIMIT 1)
            UNION ALL
            SELECT (
                SELECT type FROM lazymig.actor WHERE type > found.type AND lineage IS NOT NULL ORDER BY type LIMIT 1
            ) FROM found WHERE found.type IS NOT NULL
        )
        SELECT type FROM found WHERE type IS NOT NULL ORDER BY type
    """,
    "insert_actor": """
        INSERT INTO lazymig.actor (type, id, revision, lineage, written_by)
        SELECT %(type)s::text, %(id)s::text, 1, 0, 0
        WHERE NOT EXISTS (SELECT 1 FROM lazymig.state WHERE type = %(type)s AND id = %(id)s)
        AND NOT EXISTS (SELECT 1 FROM lazymig.entry WHERE type = %(type)s AND id = %(id)s)
        AND NOT EXISTS (SELECT 1 FROM lazymig.base WHERE type = %(type)s AND id = %(id)s)
        ON CONFLICT (type, id) DO UPDATE SET revision = 1, lineage = 0, written_by = 0 WHERE actor.revision = 0
        RETURNING revision
    """,
    "find_lineage": """
        SELECT id FROM lazymig.lineage
        WHERE type = %(type)s AND md5(applied) = md5(%(applied)s::text) AND applied = %(applied)s::text
    """,
    "add_lineage": """
        INSERT INTO lazymig.lineage (type, applied) VALUES (%(type)s, %(applied)s) ON CONFLICT DO NOTHING
    """,
    "lineage": "SELECT type, applied FROM lazymig.lineage WHERE id = %(lineage)s",
    "previous": """
        SELECT name, value, lineage, written_by, migrated_at FROM lazymig.previous WHERE type = %(type)s AND id = %(id)s
    """,
    "note_recovery": f"""
        INSERT INTO lazymig.recovery (until) SELECT {NOW} + COALESCE(max(lease), 0) FROM lazymig.node
        ON CONFLICT DO NOTHING
    """,  # noqa: S608  (likewise)
}
