"""All SQL of the SQLite store: its layout, and the statements of its operations."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from lazymig._sql_operations import BRIEF_BYTES, Batch, Claimed, Dialect, last, trip
from lazymig._sql_post import PostDialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import EntryRow, Operation, Rows

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
        PRIMARY KEY (type, id)
    ) WITHOUT ROWID;
    CREATE TABLE state (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (type, id, name)
    );
    CREATE TABLE entry (
        type TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
        value BLOB NOT NULL, lineage INTEGER NOT NULL,
        PRIMARY KEY (type, id, name, key)
    ) WITHOUT ROWID;
    CREATE TABLE lineage (
        id INTEGER PRIMARY KEY, type TEXT NOT NULL, applied TEXT NOT NULL,
        UNIQUE (type, applied)
    );
    CREATE TABLE node (
        incarnation TEXT PRIMARY KEY, label TEXT NOT NULL, build TEXT,
        offers TEXT NOT NULL, draining INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE heartbeat (
        incarnation TEXT PRIMARY KEY, at REAL NOT NULL, lease REAL NOT NULL, active INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE offer (
        incarnation TEXT NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL, below INTEGER NOT NULL,
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

_ALIVE = "SELECT incarnation FROM heartbeat WHERE at <= :now AND :now < at + lease"

_IS_ALIVE = """EXISTS (
    SELECT 1 FROM heartbeat WHERE incarnation = actor.owner AND at <= :now AND :now < at + lease
)"""

# A call from before a reboot, when the clock began anew, lies in the future and is not taken.
_TAKEABLE = f"""
    SELECT number FROM call
    WHERE status = 0 AND action <> '' AND since <= :now AND :now < until AND (chain <> '[]' OR NOT :nested)
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node) AND (
        target = :node
        OR (target IS NULL OR target_until <= :now OR target NOT IN ({_ALIVE}))
        AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node AND NOT draining)
        AND EXISTS (
            SELECT 1 FROM offer
            WHERE incarnation = :node AND offer.type = call.type AND offer.action = call.action AND call.needs < below
        )
    )
    ORDER BY number LIMIT :limit
"""  # noqa: S608  (a constant is put in, no value)

_CALL = "number, id, type, actor, action, arguments, sender, chain, traceparent, needs, target, takes"

_STATE = f"status, result, taker, COALESCE(taker, '') IN ({_ALIVE}), needs, target"

_CLAIM = f"""
    INSERT INTO actor (type, id, revision, owner, number)
    SELECT :type, :id, 0, :node, :number WHERE EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    ON CONFLICT (type, id) DO UPDATE SET owner = excluded.owner, number = excluded.number
    WHERE actor.owner IS NULL OR actor.owner IN (:node, :dead) OR NOT {_IS_ALIVE}
    RETURNING revision, lineage, written_by, migrated_at, converting, CASE WHEN revision = 0 AND EXISTS (
            SELECT 1 FROM entry WHERE type = :type AND id = :id
        ) THEN 0 ELSE oldest END,
        (SELECT sum(length(value)) FROM state WHERE type = :type AND id = :id)
"""  # noqa: S608  (a constant is put in, no value)

_HOLDER = """
    SELECT owner FROM actor WHERE type = :type AND id = :id
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
"""

_STATES = "SELECT name, value FROM state WHERE type = :type AND id = :id"

_COMMIT = """
    UPDATE actor SET
        revision = revision + 1,
        version = :version, lineage = :lineage, written_by = :written_by, migrated_at = :migrated_at,
        owner = CASE WHEN :keep THEN owner END, number = CASE WHEN :keep THEN number ELSE 0 END
    WHERE type = :type AND id = :id AND owner = :node AND number = :number AND revision = :revision
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    RETURNING revision
"""

_PUT_STATE = """
    INSERT INTO state (type, id, name, value) VALUES (:type, :id, :name, :value)
    ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value
"""

_REMOVE_STATE = "DELETE FROM state WHERE type = :type AND id = :id AND name = :name"

MANY = 100
"""How many entries one statement puts, where there are so many: it takes a third less for each than one by one."""


def _put_entries(number: int) -> str:
    rows = ", ".join(f"(?1, ?2, ?{at}, ?{at + 1}, ?{at + 2}, ?{at + 3})" for at in range(3, 3 + 4 * number, 4))
    return f"""
        INSERT INTO entry (type, id, name, key, value, lineage) VALUES {rows}
        ON CONFLICT (type, id, name, key) DO UPDATE SET value = excluded.value, lineage = excluded.lineage
    """  # noqa: S608  (places of parameters are put in, no value)


_PUT_ENTRY, _PUT_ENTRIES = _put_entries(1), _put_entries(MANY)

_REMOVE_ENTRY = "DELETE FROM entry WHERE type = ?1 AND id = ?2 AND name = ?3 AND key = ?4"

_MARK = """
    UPDATE actor SET converting = :converting, oldest = CASE
        WHEN EXISTS (SELECT 1 FROM entry WHERE entry.type = actor.type AND entry.id = actor.id) THEN :oldest
    END
    WHERE type = :type AND id = :id
"""

_ENTRIES = """
    SELECT key, value, lineage FROM entry
    WHERE type = :type AND id = :id AND name = :name AND key >= :start AND key < :end
    ORDER BY key LIMIT :limit
"""

_ENTRIES_BACKWARDS = _ENTRIES.replace("ORDER BY key", "ORDER BY key DESC")

_RELEASE = """
    UPDATE actor SET owner = NULL, number = 0
    WHERE type = :type AND id = :id AND owner = :node AND number = :number
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    RETURNING revision
"""

_FORGET_UNSTORED = """
    DELETE FROM actor WHERE type = :type AND id = :id AND revision = 0 AND owner IS NULL
    AND NOT EXISTS (SELECT 1 FROM state WHERE type = :type AND id = :id)
    AND NOT EXISTS (SELECT 1 FROM entry WHERE type = :type AND id = :id)
"""


class SQLiteDealing:
    """See `lazymig._sql_operations.Dealing`: a statement costs little, and nobody comes between two of them."""

    def claim(self, of: Mapping[str, Any]) -> Operation[Claimed | None]:
        """See `Dealing.claim`."""
        (rows,) = yield trip((_CLAIM, of))
        if rows:
            *actor, size = rows[0]
            (states,) = yield Batch(((_STATES, of),), is_last=True, is_large=size is not None and size > BRIEF_BYTES)
            return Claimed(of["node"], actor, states)
        (rows,) = yield last((_HOLDER, of))
        return Claimed(rows[0][0]) if rows else None

    def commit(self, of: Mapping[str, Any], writes: Mapping[str, bytes | None]) -> Operation[int | None]:
        """See `Dealing.commit`."""
        (rows,) = yield trip((_COMMIT, of))
        if not rows:
            return None
        actor = {"type": of["type"], "id": of["id"]}
        for name, data in sorted(writes.items()):
            if data is None:
                yield trip((_REMOVE_STATE, actor | {"name": name}))
            else:
                yield trip((_PUT_STATE, actor | {"name": name, "value": data}))
        return int(rows[0][0])

    def commit_entries(
        self, of: Mapping[str, Any], writes: Mapping[str, bytes | None], entries: Sequence[EntryRow]
    ) -> Operation[int | None]:
        """See `Dealing.commit_entries`."""
        revision = yield from self.commit(of, writes)
        if revision is None:
            return None
        actor = of["type"], of["id"]
        kept = [row for row in entries if row[2] is not None]
        single = len(kept) - len(kept) % MANY
        if many := [(*actor, *chain.from_iterable(kept[start : start + MANY])) for start in range(0, single, MANY)]:
            yield Batch(((_PUT_ENTRIES, {}),), rows=many)
        if rest := [(*actor, *row) for row in kept[single:]]:
            yield Batch(((_PUT_ENTRY, {}),), rows=rest)
        if removed := [(*actor, name, key) for name, key, data, _ in entries if data is None]:
            yield Batch(((_REMOVE_ENTRY, {}),), rows=removed)
        yield trip((_MARK, of))
        return revision

    def entries(
        self, of: Mapping[str, Any], limit: int, max_bytes: int, *, is_reverse: bool
    ) -> Operation[tuple[Rows, bool]]:
        """See `Dealing.entries`; one entry more is read, to know whether there is one."""
        statement = _ENTRIES_BACKWARDS if is_reverse else _ENTRIES
        (rows,) = yield Batch(((statement, {**of, "limit": limit + 1}),), is_last=True, max_bytes=max_bytes)
        is_last = len(rows) <= limit and () not in rows[-1:]
        return rows if is_last else rows[: min(limit, len(rows) - 1)], is_last

    def release(self, held: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """See `Dealing.release`."""
        for lock in held:
            (rows,) = yield trip((_RELEASE, lock))
            if rows and rows[0][0] == 0:
                yield trip((_FORGET_UNSTORED, lock))


DIALECT = Dialect(
    dealing=SQLiteDealing(),
    end=b"\xff" * 8,
    add_node="INSERT INTO node (incarnation, label, build, offers) VALUES (:node, :label, :build, :offers)",
    add_offer="INSERT INTO offer (incarnation, type, action, below) VALUES (:node, :type, :action, :below)",
    count_change="UPDATE fleet SET changes = changes + 1",
    remove_node="DELETE FROM node WHERE incarnation = :node RETURNING incarnation",
    remove_offers="DELETE FROM offer WHERE incarnation = :node",
    drain="UPDATE node SET draining = 1 WHERE incarnation = :node RETURNING incarnation",
    statuses="""
        SELECT incarnation, label, build, :now - at, lease, draining, active, offers
        FROM node JOIN heartbeat USING (incarnation)
    """,
    add_heartbeat="INSERT INTO heartbeat (incarnation, at, lease) VALUES (:node, :at, :lease)",
    beat="UPDATE heartbeat SET at = :at, active = :active WHERE incarnation = :node",
    remove_heartbeat="DELETE FROM heartbeat WHERE incarnation = :node",
    nodes="SELECT incarnation FROM node",
    put_state=_PUT_STATE,
    read="""
        SELECT revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
            lineage, written_by, migrated_at, converting, oldest, state.name, state.value
        FROM actor LEFT JOIN node ON node.incarnation = actor.owner
        LEFT JOIN state ON state.type = actor.type AND state.id = actor.id
        WHERE actor.type = :type AND actor.id = :id
    """,
    scan="""
        SELECT page.id, revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
            lineage, written_by, migrated_at, converting, oldest, state.name, state.value
        FROM (
            SELECT * FROM actor WHERE type = :type AND id > :after AND (
                revision <> 0 OR oldest IS NOT NULL
                OR EXISTS (SELECT 1 FROM state WHERE state.type = actor.type AND state.id = actor.id)
            )
            ORDER BY id LIMIT :limit
        ) AS page
        LEFT JOIN node ON node.incarnation = page.owner
        LEFT JOIN state ON state.type = page.type AND state.id = page.id
        ORDER BY page.id
    """,
    count_entries="""
        SELECT COUNT(*) FROM entry
        WHERE type = :type AND id = :id AND name = :name AND key >= :start AND key < :end
    """,
    tables="""
        SELECT name, lineage, COUNT(*) FROM entry WHERE type = :type AND id = :id
        GROUP BY name, lineage ORDER BY name, lineage
    """,
    census="SELECT lineage, COUNT(*) FROM actor WHERE type = :type AND revision <> 0 GROUP BY lineage",
    types="SELECT DISTINCT type FROM actor WHERE revision <> 0 ORDER BY type",
    insert_actor="""
        INSERT INTO actor (type, id, revision)
        SELECT :type, :id, 1 WHERE NOT EXISTS (SELECT 1 FROM state WHERE type = :type AND id = :id)
        AND NOT EXISTS (SELECT 1 FROM entry WHERE type = :type AND id = :id)
        ON CONFLICT (type, id) DO UPDATE SET revision = 1 WHERE revision = 0
        RETURNING revision
    """,
    find_lineage="SELECT id FROM lineage WHERE type = :type AND applied = :applied",
    add_lineage="INSERT INTO lineage (type, applied) VALUES (:type, :applied) ON CONFLICT DO NOTHING",
    lineage="SELECT type, applied FROM lineage WHERE id = :lineage",
)

POST_DIALECT = PostDialect(
    send=f"""
        INSERT INTO call
            (id, type, actor, action, arguments, sender, chain, traceparent, needs, target, since, until, status)
        SELECT :call, :type, :id, :action, :arguments, :sender, :chain, :traceparent, :needs,
            COALESCE(:target, (SELECT owner FROM actor WHERE type = :type AND id = :id AND owner IN ({_ALIVE}))),
            :now, :now + :wait, 0
        WHERE :action = '' OR NOT EXISTS (
            SELECT 1 FROM call WHERE status = 0 AND type = :type AND actor = :id AND action <> '' AND :now < until
            LIMIT 1 OFFSET :others
        )
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    """,  # noqa: S608  (a constant is put in, no value)
    takeable=_TAKEABLE.replace(":limit", "1").replace(":nested", "false"),
    wanted="""
        SELECT call.type, call.actor FROM call JOIN actor ON actor.type = call.type AND actor.id = call.actor
        WHERE status = 0 AND action = '' AND since <= :now AND :now < until AND owner = :node
    """,
    answers=f"""
        SELECT id, {_STATE} FROM call
        WHERE sender = :sender AND (status IN (1, 2, 3) OR status = 0 AND until <= :now)
    """,  # noqa: S608
    fleet="SELECT changes FROM fleet",
    taken_ids="SELECT id, takes FROM call WHERE status = 1 AND taker = :node",
    take=f"""
        UPDATE call SET status = 1, taker = :node, takes = takes + 1 WHERE number IN ({_TAKEABLE})
        RETURNING {_CALL}
    """,  # noqa: S608
    taken=f"SELECT {_CALL} FROM call WHERE status = 1 AND taker = :node",  # noqa: S608
    answer="""
        UPDATE call SET status = 2, result = :result, until = :now + :keep
        WHERE id = :call AND status = 1 AND taker = :node AND takes = :takes RETURNING id
    """,
    forward="""
        UPDATE call SET status = 0, taker = NULL, target = :target, target_until = :now + :seconds,
            needs = MAX(needs, :needs)
        WHERE id = :call AND status = 1 AND taker = :node AND takes = :takes RETURNING id
    """,
    cancel="""
        INSERT INTO call (id, type, actor, action, arguments, sender, chain, needs, since, until, status)
        VALUES (:call, '', '', '', x'', :sender, '[]', 0, :now, :now + :keep, 4)
        ON CONFLICT (id) DO UPDATE SET status = 4, until = excluded.until WHERE status = 0
    """,
    cancel_stored="UPDATE call SET status = 4, until = :now + :keep WHERE id = :call AND status = 0",
    lose=f"""
        UPDATE call SET status = 3, until = :now + :keep
        WHERE id = :call AND status = 1 AND taker NOT IN ({_ALIVE})
    """,  # noqa: S608
    state=f"SELECT {_STATE} FROM call WHERE id = :call",  # noqa: S608
    remove="DELETE FROM call WHERE id = :call",
    tidy_calls=f"""
        DELETE FROM call
        WHERE (since > :now OR until + CASE WHEN status IN (0, 1) THEN :keep ELSE 0 END <= :now)
        AND NOT (status = 1 AND taker IN ({_ALIVE}))
    """,  # noqa: S608
    silent_nodes="SELECT incarnation FROM heartbeat WHERE at > :now OR at + :leases * lease <= :now",
)
