"""The SQL of records of failures on PostgreSQL; see `lazymig._postgres_sql` for the rules."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig._postgres_sql import in_schema
from lazymig._sql_failures import FailureDialect
from lazymig._sql_operations import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._sql_operations import Operation

_NOTE = """
    SELECT lazymig.note_failure(
        %(type)s, %(id)s, %(node)s, %(number)s, %(failed_at)s, %(retry_at)s, %(record)s
    )
"""

_PAGE = """
    SELECT type, id, failed_at, retry_at, record FROM lazymig.failure
    WHERE (type, id) > (%(type)s, %(id)s) ORDER BY type, id LIMIT %(limit)s
"""

_PAGE_OF_TYPE = """
    SELECT type, id, failed_at, retry_at, record FROM lazymig.failure
    WHERE type = %(type)s AND id > %(id)s ORDER BY id LIMIT %(limit)s
"""

_RETRY = "UPDATE lazymig.failure SET retry_at = failed_at WHERE type = %(type)s RETURNING 1"


def _note(statement: str, of: Mapping[str, Any]) -> Operation[bool]:
    ((row,),) = yield whole((statement, of))
    return bool(row[0])


def failure_dialect(schema: str) -> FailureDialect:
    """Return how a schema is spoken to."""
    return FailureDialect(
        note=partial(_note, in_schema(_NOTE, schema)),
        page=in_schema(_PAGE, schema),
        page_of_type=in_schema(_PAGE_OF_TYPE, schema),
        retry=in_schema(_RETRY, schema),
        retry_one=in_schema(_RETRY.replace("RETURNING", "AND id = %(id)s RETURNING"), schema),
    )
