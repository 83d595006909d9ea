"""The statements of the SQLite store's operations; `lazymig._sqlite_layout` has its tables."""

from __future__ import annotations

from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lazymig import _sqlite_previous_sql as previous_sql
from lazymig._rows import read_key
from lazymig._sql_operations import BRIEF_BYTES, Batch, Claimed, Dialect, Found, OtherEpoch, last, trip
from lazymig._sqlite_sweeping_sql import POLICY, SWEEP_DIALECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._sql_operations import BaseRows, Committed, EntryRow, Operation, Rows, Statement

ALIVE = "SELECT incarnation FROM heartbeat WHERE at <= :now AND :now < at + lease"

_IS_ALIVE = """EXISTS (
    SELECT 1 FROM heartbeat WHERE incarnation = actor.owner AND at <= :now AND :now < at + lease
)"""

_CLAIMED = """
    RETURNING revision, lineage, written_by, migrated_at, converting, CASE WHEN revision = 0 AND (
            EXISTS (SELECT 1 FROM entry WHERE type = :type AND id = :id)
            OR EXISTS (SELECT 1 FROM base WHERE type = :type AND id = :id)
        ) THEN 0 ELSE oldest END,
        base_lineage, base_revision, base_digest, failing, (SELECT epoch FROM policy WHERE type = :type),
        COALESCE((SELECT sum(length(value)) FROM state WHERE type = :type AND id = :id), 0) + CASE
            WHEN base_lineage IS NULL THEN 0
            ELSE COALESCE((SELECT sum(length(value)) FROM base WHERE type = :type AND id = :id), 0)
        END
"""

_CLAIM = f"""
    UPDATE actor SET owner = :node, number = :number WHERE type = :type AND id = :id
    AND (owner IS NULL OR owner IN (:node, :dead) OR NOT {_IS_ALIVE})
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    {_CLAIMED}
"""  # noqa: S608  (a constant is put in, no value)

_CLAIM_NEW = f"""
    INSERT INTO actor (type, id, revision, owner, number)
    SELECT :type, :id, 0, :node, :number WHERE EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    ON CONFLICT (type, id) DO UPDATE SET owner = excluded.owner WHERE actor.owner = :node AND actor.number = :number
    {_CLAIMED}
"""  # noqa: S608  (likewise)
"""The conflict is its own row, where it is executed twice (see `lazymig._sqlite_drivers`)."""

_HOLDER = """
    SELECT owner FROM actor WHERE type = :type AND id = :id
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
"""

_STATES = "SELECT name, value FROM state WHERE type = :type AND id = :id"

_KEPT = "SELECT name, value FROM base WHERE type = :type AND id = :id"

_FAILURE = "SELECT failed_at, retry_at, record FROM failure WHERE type = :type AND id = :id"

_READ = """
    SELECT revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
        lineage, written_by, migrated_at, converting, oldest, base_lineage, base_revision, base_digest, failing,
        state.name, state.value
    FROM actor LEFT JOIN node ON node.incarnation = actor.owner
    LEFT JOIN state ON state.type = actor.type AND state.id = actor.id
    WHERE actor.type = :type AND actor.id = :id
"""

_SCAN = """
    SELECT page.id, revision, node.incarnation, CASE WHEN node.incarnation IS NULL THEN 0 ELSE number END,
        lineage, written_by, migrated_at, converting, oldest, base_lineage, base_revision, base_digest, failing,
        state.name, state.value
    FROM (
        SELECT * FROM actor WHERE type = :type AND id > :after AND (
            revision <> 0 OR oldest IS NOT NULL OR base_lineage IS NOT NULL
            OR EXISTS (SELECT 1 FROM state WHERE state.type = actor.type AND state.id = actor.id)
        )
        ORDER BY id LIMIT :limit
    ) AS page
    LEFT JOIN node ON node.incarnation = page.owner
    LEFT JOIN state ON state.type = page.type AND state.id = page.id
    ORDER BY page.id
"""

_BASE_AT, _FAILING_AT, _STATE_AT = 8, 11, 12
"""Where the base's lineage is in what `_READ` returns, whether there is a failure, where a state's columns begin."""

_NO_STATE = (None, None)

_COMMIT = """
    UPDATE actor SET
        revision = revision + 1,
        version = :version, lineage = :lineage, written_by = :written_by, migrated_at = :migrated_at,
        owner = CASE WHEN :keep THEN owner END, number = CASE WHEN :keep THEN number ELSE 0 END
    WHERE type = :type AND id = :id AND owner = :node AND number = :number AND revision = :revision
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    AND COALESCE((SELECT epoch FROM policy WHERE type = :type), 0) = :epoch
    RETURNING revision
"""

_COMMIT_AS_BEFORE = _COMMIT.replace("version = :version, lineage = :lineage, written_by = :written_by,", "").replace(
    "RETURNING", "AND lineage = :lineage AND written_by = :written_by RETURNING"
)
"""Where the stamp's sets stay: naming a column in SET costs an entry of each index that has it, changed or not."""

_DROP_FAILURE = "DELETE FROM failure WHERE type = :type AND id = :id"

_BLANK = """
    UPDATE actor SET version = NULL, lineage = NULL, written_by = NULL, migrated_at = NULL, converting = 0, failing = 0
    WHERE type = :type AND id = :id AND base_lineage IS NULL
    AND NOT EXISTS (SELECT 1 FROM state WHERE type = :type AND id = :id)
    AND NOT EXISTS (SELECT 1 FROM entry WHERE type = :type AND id = :id)
    RETURNING revision
"""
"""Where nothing is left of an actor but its revision."""

_CLEAR_FAILURE = "UPDATE actor SET failing = 0 WHERE type = :type AND id = :id"

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

_SET_BASE = """
    UPDATE actor SET base_lineage = :base_lineage, base_digest = :base_digest, base_revision = CASE
        WHEN :base_lineage IS NULL THEN NULL WHEN :is_current THEN revision ELSE COALESCE(base_revision, 0)
    END
    WHERE type = :type AND id = :id
"""

_KEEP = """
    INSERT INTO base (type, id, name, value) VALUES (:type, :id, :name, :value)
    ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value
"""

_DROP = "DELETE FROM base WHERE type = :type AND id = :id AND name = :name"

_DROP_ALL = "DELETE FROM base WHERE type = :type AND id = :id"

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
    AND NOT EXISTS (SELECT 1 FROM base WHERE type = :type AND id = :id)
"""


class SQLiteDealing:
    """See `lazymig._sql_operations.Dealing`: a statement costs little, and nobody comes between two of them."""

    def claim(self, of: Mapping[str, Any]) -> Operation[Claimed | None]:
        """See `Dealing.claim`."""
        (rows,) = yield trip((_CLAIM, of))
        if not rows:
            (rows,) = yield trip((_CLAIM_NEW, of))
        if rows:
            revision, *stamp, failing, epoch, size = rows[0]
            actor = (revision, of["node"], of["number"], *stamp)
            base = stamp[_BASE_AT - 3]
            reads = [(_STATES, of), *_more(of, epoch, base, failing)]
            states, *more = yield Batch(reads, is_last=True, is_large=size > BRIEF_BYTES)
            policy = None if epoch is None else more.pop(0)[0]
            kept = [] if base is None else more.pop(0)
            return Claimed(of["node"], Found(actor, states, kept, *more), policy)
        (rows,) = yield last((_HOLDER, of))
        return Claimed(rows[0][0]) if rows else None

    def commit(self, of: Mapping[str, Any], writes: Mapping[str, bytes | None]) -> Operation[Committed]:
        """See `Dealing.commit`."""
        before = yield from previous_sql.stamp(of)
        may_be_as_before = of["revision"] and not of["has_new_sets"]
        (rows,) = (yield trip((_COMMIT_AS_BEFORE, of))) if may_be_as_before else [[]]
        if not rows:
            (rows,) = yield trip((_COMMIT, of))
        if not rows:
            (rows,) = yield trip((POLICY, of))
            version, epoch = rows[0] if rows else (None, None)
            return None if (epoch or 0) == of["epoch"] else OtherEpoch(version, epoch)
        yield from previous_sql.keep(of, before)
        actor = {"type": of["type"], "id": of["id"]}
        for name, data in sorted(writes.items()):
            if data is None:
                yield trip((_REMOVE_STATE, actor | {"name": name}))
            else:
                yield trip((_PUT_STATE, actor | {"name": name, "value": data}))
        yield from _blank(of)
        if of["clears_failure"]:
            yield trip((_CLEAR_FAILURE, of), (_DROP_FAILURE, of))
        return int(rows[0][0])

    def commit_entries(
        self, of: Mapping[str, Any], writes: Mapping[str, bytes | None], entries: Sequence[EntryRow]
    ) -> Operation[Committed]:
        """See `Dealing.commit_entries`."""
        revision = yield from self.commit({**of, "puts_nothing": False}, writes)
        if not isinstance(revision, int):
            return revision
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
        yield from _blank(of)
        return revision

    def commit_base(
        self,
        of: Mapping[str, Any],
        writes: Mapping[str, bytes | None],
        entries: Sequence[EntryRow] | None,
        base: BaseRows,
    ) -> Operation[Committed]:
        """See `Dealing.commit_base`."""
        of = {**of, **base.columns}
        first = {**of, "puts_nothing": False}
        if entries is None:
            revision = yield from self.commit(first, writes)
        else:
            revision = yield from self.commit_entries(first, writes, entries)
        if not isinstance(revision, int):
            return revision
        actor = {"type": of["type"], "id": of["id"]}
        dropped = [(_DROP, actor | {"name": name}) for name in base.dropped]
        kept = [(_KEEP, actor | {"name": name, "value": data}) for name, data in base.kept.items()]
        changes = [(_DROP_ALL, actor)] if base.columns["base_lineage"] is None else [*dropped, *kept]
        yield trip((_SET_BASE, of), *changes)
        yield from _blank(of)
        return revision

    def read(self, of: Mapping[str, Any]) -> Operation[Found | None]:
        """See `Dealing.read`."""
        (rows,) = yield trip((_READ, of))
        return (yield from self._found(of, rows)) if rows else None

    def scan(self, of: Mapping[str, Any]) -> Operation[list[tuple[Any, Found]]]:
        """See `Dealing.scan`."""
        (rows,) = yield trip((_SCAN, of))
        actors = [(actor_id, [row[1:] for row in of_actor]) for actor_id, of_actor in groupby(rows, itemgetter(0))]
        found = []
        for actor_id, columns in actors:
            key = read_key(of["type"], actor_id)
            found.append((actor_id, (yield from self._found({"type": key.type, "id": key.id}, columns))))
        return found

    def _found(self, of: Mapping[str, Any], rows: Rows) -> Operation[Found]:
        actor = rows[0][:_FAILING_AT]
        states = [row[_STATE_AT:] for row in rows if row[_STATE_AT:] != _NO_STATE]
        kept = [] if actor[_BASE_AT] is None else (yield trip((_KEPT, of)))[0]
        failure = (yield trip((_FAILURE, of)))[0] if rows[0][_FAILING_AT] else []
        return Found(actor, states, kept, failure)

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


def _blank(of: Mapping[str, Any]) -> Operation[None]:
    (rows,) = (yield trip((_BLANK, of))) if of["puts_nothing"] else [[]]
    if rows:
        yield trip((previous_sql.DROP, of), (_DROP_FAILURE, of))


def _more(of: Mapping[str, Any], epoch: Any, base: Any, failing: Any) -> list[Statement]:
    """Return what is read of an actor that few have: a write policy, a base, a failure."""
    policy = [] if epoch is None else [(POLICY, of)]
    kept = [] if base is None else [(_KEPT, of)]
    return [*policy, *kept, (_FAILURE, of)] if failing else [*policy, *kept]


DIALECT = Dialect(
    dealing=SQLiteDealing(),
    sweeping=SWEEP_DIALECT,
    end=b"\xff" * 8,
    add_node="INSERT INTO node (incarnation, label, build, offers) VALUES (:node, :label, :build, :offers)",
    add_offer="INSERT INTO offer (incarnation, type, action, below, supported) "
    "VALUES (:node, :type, :action, :below, :supported)",
    count_change="UPDATE fleet SET changes = changes + 1",
    remove_node="DELETE FROM node WHERE incarnation = :node RETURNING incarnation",
    remove_offers="DELETE FROM offer WHERE incarnation = :node",
    drain="UPDATE node SET draining = 1 WHERE incarnation = :node RETURNING incarnation",
    statuses="""
        SELECT incarnation, label, build, CASE typeof(at) WHEN 'real' THEN :now - at END, lease,
            draining, active, offers
        FROM node LEFT JOIN heartbeat USING (incarnation)
    """,
    add_heartbeat="INSERT INTO heartbeat (incarnation, at, lease) VALUES (:node, :at, :lease)",
    beat="UPDATE heartbeat SET at = :at, active = :active WHERE incarnation = :node",
    remove_heartbeat="DELETE FROM heartbeat WHERE incarnation = :node",
    nodes="SELECT incarnation FROM node",
    put_state=_PUT_STATE,
    count_entries="""
        SELECT COUNT(*) FROM entry
        WHERE type = :type AND id = :id AND name = :name AND key >= :start AND key < :end
    """,
    tables="""
        SELECT name, lineage, COUNT(*) FROM entry WHERE type = :type AND id = :id
        GROUP BY name, lineage ORDER BY name, lineage
    """,
    census="SELECT lineage, COUNT(*) FROM actor WHERE type = :type AND lineage IS NOT NULL GROUP BY lineage",
    types="""
        WITH RECURSIVE found (type) AS (
            SELECT min(type) FROM actor WHERE lineage IS NOT NULL
            UNION ALL
            SELECT (
                SELECT type FROM actor WHERE type > found.type AND lineage IS NOT NULL ORDER BY type LIMIT 1
            ) FROM found WHERE found.type IS NOT NULL
        )
        SELECT type FROM found WHERE type IS NOT NULL ORDER BY type
    """,
    insert_actor="""
        INSERT INTO actor (type, id, revision, lineage, written_by)
        SELECT :type, :id, 1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM state WHERE type = :type AND id = :id)
        AND NOT EXISTS (SELECT 1 FROM entry WHERE type = :type AND id = :id)
        AND NOT EXISTS (SELECT 1 FROM base WHERE type = :type AND id = :id)
        ON CONFLICT (type, id) DO UPDATE SET revision = 1, lineage = 0, written_by = 0 WHERE revision = 0
        RETURNING revision
    """,
    find_lineage="SELECT id FROM lineage WHERE type = :type AND applied = :applied",
    add_lineage="INSERT INTO lineage (type, applied) VALUES (:type, :applied) ON CONFLICT DO NOTHING",
    lineage="SELECT type, applied FROM lineage WHERE id = :lineage",
    previous=previous_sql.READ,
)
