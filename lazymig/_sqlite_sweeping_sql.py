"""How SQLite deals with many actors at once."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from lazymig._sql_operations import Batch, OtherEpoch, trip
from lazymig._sql_sweeping import SweepDialect, Swept

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lazymig._sql_operations import Operation, Rows, Statement

POLICY = "SELECT version, epoch FROM policy WHERE type = :type"

_NODE = "SELECT 1 FROM node WHERE incarnation = :node"

_CLAIM = """
    UPDATE actor SET owner = :node, number = :number WHERE type = :type AND id IN (
        SELECT id FROM actor AS plain INDEXED BY actor_lineage
        WHERE type = :type AND lineage = :lineage AND id > :after AND owner IS NULL
        AND base_lineage IS NULL AND failing = 0 AND oldest IS NULL AND converting = 0 AND revision > 0
        AND typeof(id) = 'text'
        ORDER BY id LIMIT :limit
    )
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
"""

_CLAIMED = """
    SELECT json_group_array(id) FROM (
        SELECT id FROM actor INDEXED BY actor_lineage
        WHERE type = :type AND lineage = :lineage AND id > :after AND owner = :node AND number = :number
        ORDER BY id LIMIT :limit
    )
"""
"""Of the claim itself nothing is returned: RETURNING takes longer than all of this."""

_STATES = """
    SELECT id, value FROM state
    WHERE type = :type AND id BETWEEN :first AND :last AND name = :state AND typeof(value) = 'blob' ORDER BY id
"""
"""Those in between that were not claimed are read, too: few are, and to ask for each would cost as much."""

_WITHIN = """
    type = :type AND id BETWEEN :first AND :last AND owner = :node AND number = :number
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
"""

_HELD = f"SELECT json_group_array(id) FROM actor WHERE {_WITHIN}"  # noqa: S608  (a constant is put in, no value)

_RELEASE = f"""
    UPDATE actor SET owner = NULL, number = 0 WHERE {_WITHIN} AND id IN (SELECT value FROM json_each(:released))
"""  # noqa: S608  (likewise)

_COMMIT = f"""
    UPDATE actor SET
        revision = revision + 1,
        version = :version, lineage = :lineage, written_by = :written_by, migrated_at = :migrated_at,
        owner = NULL, number = 0
    WHERE {_WITHIN}
"""  # noqa: S608  (likewise)

_DROP_PREVIOUS = """
    DELETE FROM previous WHERE type = :type AND id IN (SELECT value FROM json_each(:stored))
"""

MANY = 200
"""How many states one statement puts: each one more saves less."""


def _put_states(number: int) -> str:
    rows = ", ".join(f"(?1, ?{at}, ?2, ?{at + 1})" for at in range(3, 3 + 2 * number, 2))
    return f"""
        INSERT INTO state (type, id, name, value) VALUES {rows}
        ON CONFLICT (type, id, name) DO UPDATE SET value = excluded.value
    """  # noqa: S608  (places of parameters are put in, no value)


_PUT_STATE, _PUT_STATES = _put_states(1), _put_states(MANY)

_UNSETTLED = """
    SELECT id FROM (
        SELECT * FROM (
            SELECT id FROM actor WHERE type = :type AND converting <> 0 AND id > :after ORDER BY id LIMIT :limit
        )
        UNION SELECT * FROM (
            SELECT id FROM actor WHERE type = :type AND base_lineage IS NOT NULL AND id > :after
            AND (base_lineage <> :base OR base_revision <> revision) ORDER BY id LIMIT :limit
        )
        UNION SELECT * FROM (
            SELECT DISTINCT id FROM entry WHERE type = :type AND id > :after
            AND lineage IN (SELECT value FROM json_each(:entries)) ORDER BY id LIMIT :limit
        )
    )
    ORDER BY id LIMIT :limit
"""

_COUNT_UNSETTLED = """
    SELECT count(*) FROM actor
    WHERE type = :type AND lineage NOT IN (SELECT value FROM json_each(:without)) AND (
        converting <> 0
        OR (base_lineage IS NOT NULL AND (base_lineage <> :base OR base_revision <> revision))
        OR (oldest IS NOT NULL AND EXISTS (
            SELECT 1 FROM entry
            WHERE entry.type = actor.type AND entry.id = actor.id
            AND entry.lineage IN (SELECT value FROM json_each(:entries))
        ))
    )
"""


class SQLiteSweepDealing:
    """See `lazymig._sql_sweeping.SweepDealing`."""

    def claim(self, of: Mapping[str, Any]) -> Operation[Swept | None]:
        """See `SweepDealing.claim`; what was claimed and has no such state is given back."""
        _, nodes, ((listed,),), policies = yield trip((_CLAIM, of), (_NODE, of), (_CLAIMED, of), (POLICY, of))
        if not nodes:
            return None
        policy, ids = policies[0] if policies else None, orjson.loads(listed)
        rows: Rows = []
        if ids:
            of = {**of, "first": ids[0], "last": ids[-1]}
            (rows,) = yield trip((_STATES, of))
        if [row[0] for row in rows] != ids:
            known: dict[str, bytes] = dict(rows)
            rows = [(actor_id, known[actor_id]) for actor_id in ids if actor_id in known]
            if gone := [actor_id for actor_id in ids if actor_id not in known]:
                yield trip((_RELEASE, {**of, "released": orjson.dumps(gone).decode()}))
        return Swept(rows, ids[-1] if len(ids) == of["limit"] else None, policy)

    def commit(
        self, of: Mapping[str, Any], changes: Sequence[tuple[str, bytes]], released: Sequence[str]
    ) -> Operation[Collection[str] | OtherEpoch]:
        """See `SweepDealing.commit`: nobody comes between two statements, so those under the fence are all of them."""
        ids = sorted([*released, *(actor_id for actor_id, _ in changes)])
        of = {**of, "first": ids[0], "last": ids[-1], "released": orjson.dumps([*released]).decode()}
        policies, ((held,),) = yield trip((POLICY, of), (_HELD, of))
        version, epoch = policies[0] if policies else (None, None)
        if (epoch or 0) != of["epoch"]:
            return OtherEpoch(version, epoch)
        known = set(orjson.loads(held))
        kept = [change for change in changes if change[0] in known]
        yield trip(*([(_RELEASE, of)] if released else []), (_COMMIT, of))
        if of["drops_previous"]:
            yield trip((_DROP_PREVIOUS, of | {"stored": orjson.dumps([actor_id for actor_id, _ in kept]).decode()}))
        single = len(kept) - len(kept) % MANY
        parameters = of["type"], of["state"]
        if many := [(*parameters, *chain.from_iterable(kept[at : at + MANY])) for at in range(0, single, MANY)]:
            yield Batch(((_PUT_STATES, {}),), rows=many)
        if rest := [(*parameters, *change) for change in kept[single:]]:
            yield Batch(((_PUT_STATE, {}),), rows=rest)
        return [] if len(kept) == len(changes) else [actor_id for actor_id, _ in changes if actor_id not in known]

    def unsettled(self, of: Mapping[str, Any], entries: Sequence[int]) -> Statement:
        """See `SweepDealing.unsettled`."""
        return _UNSETTLED, {**of, "entries": orjson.dumps([*entries]).decode()}

    def count_unsettled(self, of: Mapping[str, Any], entries: Sequence[int], without: Sequence[int]) -> Statement:
        """See `SweepDealing.count_unsettled`."""
        lists = {"entries": orjson.dumps([*entries]).decode(), "without": orjson.dumps([*without]).decode()}
        return _COUNT_UNSETTLED, {**of, **lists}


SWEEP_DIALECT = SweepDialect(
    dealing=SQLiteSweepDealing(),
    tidy_notes="""
        DELETE FROM sweep WHERE type = :type AND node <> :node AND node NOT IN (SELECT incarnation FROM node)
    """,
    put_note="""
        INSERT INTO sweep (type, node, at, progress) VALUES (:type, :node, :at, :progress)
        ON CONFLICT (type, node) DO UPDATE SET at = excluded.at, progress = excluded.progress
    """,
    notes="SELECT type, node, at, progress FROM sweep ORDER BY type, node",
    pause="INSERT INTO sweep_pause (type) VALUES (:type) ON CONFLICT (type) DO NOTHING RETURNING type",
    go_on="DELETE FROM sweep_pause WHERE type = :type RETURNING type",
    is_paused="SELECT 1 FROM sweep_pause WHERE type = :type",
    paused="SELECT type FROM sweep_pause ORDER BY type",
)
