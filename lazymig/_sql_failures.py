"""Records of migrations that failed, over SQL; see `lazymig._sql_operations` for what an operation is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from lazymig import _rows
from lazymig._quarantine import Failure
from lazymig._records import ActorKey
from lazymig._sql_commits import of_lock
from lazymig._sql_operations import last
from lazymig.errors import CorruptStateError, InvalidKeyError, LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._records import Fence
    from lazymig._sql_operations import Connection, Operation, Rows


class Noting(Protocol):
    """How an engine records a failure under an actor's lock."""

    def __call__(self, of: Mapping[str, Any]) -> Operation[bool]:
        """Record it; False if the fence is not valid, or nothing is stored of the actor.

        Args:
            of: Actor and fence; ``failed_at``, ``retry_at`` and ``record``.
        """
        ...


@dataclass(frozen=True, slots=True)
class FailureDialect:
    """The statements of one engine for records of failures; parameters are named and bound.

    Attributes:
        note: Records one.
        page: Reads some of all types.
        page_of_type: Reads some of one.
        retry: Lets the next try of all of a type come at once.
        retry_one: Lets that of one actor.
    """

    note: Noting
    page: str
    page_of_type: str
    retry: str
    retry_one: str


class SqlFailures:
    """See `lazymig.failures.Failures`.

    Args:
        dialect: The statements.
        connection: Drives them.
    """

    def __init__(self, dialect: FailureDialect, connection: Connection) -> None:
        self._sql = dialect
        self._connection = connection

    async def note(self, key: ActorKey, fence: Fence, failure: Failure) -> None:
        """See `Failures.note`."""
        of = {**of_lock(key, fence), **write_failure(failure)}
        if not await self._connection.run(partial(self._sql.note, of), durable=True):
            raise LeaseLostError(key)

    async def page(
        self, actor_type: str | None = None, *, after: ActorKey | None = None, limit: int = 500
    ) -> Sequence[tuple[ActorKey, Failure]]:
        """See `Failures.page`."""
        statement = self._sql.page if actor_type is None else self._sql.page_of_type
        first_type, first_id = ("", "") if after is None else (after.type, after.id)
        if actor_type is not None:
            if first_type > actor_type:
                return []
            first_type, first_id = actor_type, first_id if first_type == actor_type else ""
        of = {"type": first_type, "id": first_id, "limit": limit}
        return await self._connection.run(partial(_page, statement, of), writes=False)

    async def retry(self, actor_type: str, actor_id: str | None = None) -> int:
        """See `Failures.retry`."""
        statement = self._sql.retry if actor_id is None else self._sql.retry_one
        return await self._connection.run(
            partial(_retry, statement, {"type": actor_type, "id": actor_id}), durable=True
        )


def _page(statement: str, of: Mapping[str, Any]) -> Operation[list[tuple[ActorKey, Failure]]]:
    (rows,) = yield last((statement, of))
    keys = [_read_key(*row[:2]) for row in rows]
    return [(key, read_failure(key, row[2:])) for key, row in zip(keys, rows, strict=True)]


def _retry(statement: str, of: Mapping[str, Any]) -> Operation[int]:
    (rows,) = yield last((statement, of))
    return len(rows)


def _read_key(actor_type: Any, actor_id: Any) -> ActorKey:
    try:
        return ActorKey(actor_type, actor_id)
    except InvalidKeyError as error:
        raise CorruptStateError(None, f"a record of a failed migration names no actor ({error})") from None


def write_failure(failure: Failure) -> dict[str, Any]:
    """Return the columns of a record."""
    record = [failure.version, failure.name, failure.error, failure.attempts, failure.node, failure.checksum]
    return {
        "failed_at": _rows.write_time(failure.failed_at),
        "retry_at": _rows.write_time(failure.retry_at),
        "record": orjson.dumps(record).decode(),
    }


def find_failure(key: ActorKey, rows: Rows) -> Failure | None:
    """Return an actor's record, if there is a row of it."""
    return read_failure(key, rows[0]) if rows else None


def read_failure(key: ActorKey, row: Sequence[Any]) -> Failure:
    """Return the record that `write_failure` wrote: ``failed_at``, ``retry_at``, ``record``."""
    failed_at, retry_at, record = row
    failed = _rows.read_moment(key, "when its migration failed", failed_at)
    retry = _rows.read_moment(key, "when its migration is tried again", retry_at)
    try:
        version, name, error, attempts, node, checksum = orjson.loads(record)
        is_sound = all(map(_is_count, (version, attempts, checksum))) and {*map(type, (name, error, node))} == {str}
    except (ValueError, TypeError):
        is_sound = False
    if not (is_sound and attempts):
        raise CorruptStateError(key, "the record of its failed migration is unreadable")
    return Failure(version, name, error, attempts, failed, retry, node, checksum)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
