"""The SQL of records of failures on SQLite; see `lazymig._sqlite_sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig._sql_failures import FailureDialect
from lazymig._sql_operations import trip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._sql_operations import Operation

_MARK = """
    UPDATE actor SET failing = 1
    WHERE type = :type AND id = :id AND owner = :node AND number = :number AND lineage IS NOT NULL
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node)
    RETURNING type
"""

_PUT = """
    INSERT INTO failure (type, id, failed_at, retry_at, record) VALUES (:type, :id, :failed_at, :retry_at, :record)
    ON CONFLICT (type, id) DO UPDATE
    SET failed_at = excluded.failed_at, retry_at = excluded.retry_at, record = excluded.record
"""


def _note(of: Mapping[str, Any]) -> Operation[bool]:
    (rows,) = yield trip((_MARK, of))
    if rows:
        yield trip((_PUT, of))
    return bool(rows)


FAILURE_DIALECT = FailureDialect(
    note=_note,
    page="""
        SELECT type, id, failed_at, retry_at, record FROM failure
        WHERE (type, id) > (:type, :id) ORDER BY type, id LIMIT :limit
    """,
    page_of_type="""
        SELECT type, id, failed_at, retry_at, record FROM failure
        WHERE type = :type AND id > :id ORDER BY id LIMIT :limit
    """,
    retry="UPDATE failure SET retry_at = failed_at WHERE type = :type RETURNING 1",
    retry_one="UPDATE failure SET retry_at = failed_at WHERE type = :type AND id = :id RETURNING 1",
)
