"""What a SQL store keeps of an actor from before a commit across a major version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig import _rows
from lazymig._records import Previous
from lazymig._sql_operations import last
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from lazymig._records import ActorKey
    from lazymig._sql_lineage import Lineage
    from lazymig._sql_operations import Operation, Rows


def read_previous(statement: str, key: ActorKey, lineage: Lineage) -> Operation[Previous | None]:
    """Read what is kept of an actor."""
    (rows,) = yield last((statement, {"type": key.type, "id": key.id}))
    return (yield from previous_of(key, rows, lineage))


def previous_of(key: ActorKey, rows: Rows, lineage: Lineage) -> Operation[Previous | None]:
    """Return what rows say of it: one for each state, every one with the stamp."""
    if not rows:
        return None
    stamps = {tuple(row[2:]) for row in rows}
    if len(stamps) > 1:
        raise CorruptStateError(key, "the states that are kept of it from before a major version have several stamps")
    stamp = yield from lineage.stamp(key, *stamps.pop())
    return Previous(stamp, _rows.read_states(key, 1, (row[:2] for row in rows)))
