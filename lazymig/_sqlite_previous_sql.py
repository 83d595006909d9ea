"""What SQLite keeps of an actor from before a commit across a major version; see `lazymig._sqlite_sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig._sql_operations import trip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._sql_operations import Operation, Rows

READ = "SELECT name, value, lineage, written_by, migrated_at FROM previous WHERE type = :type AND id = :id"

_STAMP = "SELECT lineage, written_by, migrated_at FROM actor WHERE type = :type AND id = :id"

_KEEP = """
    INSERT INTO previous (type, id, name, value, lineage, written_by, migrated_at)
    SELECT type, id, name, value, :lineage, :written_by, :migrated_at FROM state WHERE type = :type AND id = :id
"""

DROP = "DELETE FROM previous WHERE type = :type AND id = :id"


def stamp(of: Mapping[str, Any]) -> Operation[Rows]:
    """Return the stamp that a commit is about to replace, if it is to be kept."""
    return (yield trip((_STAMP, of)))[0] if of["keeps_previous"] else []


def keep(of: Mapping[str, Any], stamps: Rows) -> Operation[None]:
    """Keep the states, which are as they were, with their stamp; or nothing."""
    if of["keeps_previous"] is None:
        return
    actor = {"type": of["type"], "id": of["id"]}
    kept = [(_KEEP, actor | dict(zip(("lineage", "written_by", "migrated_at"), row, strict=True))) for row in stamps]
    yield trip((DROP, actor), *kept)
