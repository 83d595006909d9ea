"""How operations are carried out on one connection of PostgreSQL: one of them, or several together.

Rules of several:

1. Each is one call of a function, see `lazymig._postgres_functions`. They are one pipeline, and so one transaction.
2. They lock in the order of their actors' keys, as everybody does who locks several: no two groups wait for each other.
3. A function tells a conflict by what it returns, and stores nothing then. If one raises, nothing of any was stored.
"""

from __future__ import annotations

from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from lazymig._postgres_sql import READ_ONLY, SYNC_LATER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from lazymig._sql_operations import Operation, Rows, Statement

T = TypeVar("T")

_COMMIT = "COMMIT"
_ENDING = "57P"
"""What a server says when it ends a connection; it may come between a commit and its answer."""


ALONE = object()
"""Stands for the outcome of an operation that can't go with others."""


class Walk:
    """One operation on one connection.

    Attributes:
        is_unknown: Whether a batch that ends a transaction was sent, and its answer did not come yet.
        trips: How many were made.
    """

    def __init__(self, connection: AsyncConnection[Any], *, syncs: bool, read_only: bool = False) -> None:
        self.is_unknown = False
        self.trips = 0
        self._connection = connection
        self._syncs = syncs
        self._read_only = read_only
        self._is_begun = False

    async def take(self, operation: Operation[T]) -> T:
        """Take all its batches; roll back what is not committed if one fails."""
        try:
            rows: list[Rows] | None = None
            while True:
                try:
                    batch = operation.send(rows)  # type: ignore[arg-type]  # a generator starts with None
                except StopIteration as end:
                    found: T = end.value
                    break
                if batch.is_whole and not (self._is_begun or self._read_only):
                    rows = [await self._call(*batch.statements[0])]
                else:
                    rows = await self._send(batch.statements, is_last=batch.is_last)
            if self._is_begun:
                await self._send([], is_last=True)
        except BaseException:
            operation.close()
            if self._is_begun and not self._connection.closed:
                with suppress(psycopg.Error):
                    await self._connection.rollback()
            raise
        return found

    async def take_together(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Take operations in one trip; return what each returned or raised, or `ALONE`: then take it by itself.

        Raises:
            psycopg.Error: One failed; nothing was stored of any, or it is unknown.
        """
        outcomes: list[Any] = [ALONE] * len(operations)
        begun: list[tuple[tuple[str, str], int, Statement]] = []
        for number, operation in enumerate(operations):
            try:
                batch = next(operation)
            except Exception as error:
                outcomes[number] = error
                continue
            if batch.is_whole:
                (statement,) = batch.statements
                begun.append((_first_key(statement[1]), number, statement))
        begun.sort(key=itemgetter(0))
        found = await self._send([statement for _, _, statement in begun], is_last=True)
        for (_, number, _), rows in zip(begun, found, strict=True):
            try:
                operations[number].send([rows])
            except StopIteration as end:
                outcomes[number] = end.value
            except Exception as error:
                outcomes[number] = error
        return outcomes

    async def _call(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        """Send a statement that is a transaction by itself."""
        self.trips += 1
        cursor = self._connection.cursor(binary=True)
        try:
            await cursor.execute(statement, parameters)
        except psycopg.Error as error:
            self.is_unknown = self._is_ended_by(error)
            raise
        return await cursor.fetchall()

    def _is_ended_by(self, error: psycopg.Error) -> bool:
        return self._connection.closed or (error.sqlstate or "").startswith(_ENDING)

    async def _send(self, statements: Sequence[Statement], *, is_last: bool) -> list[Rows]:
        if not statements and not (self._is_begun and is_last):
            return []
        before: list[Statement] = [] if self._is_begun or is_last else [("BEGIN", {})]
        if not self._is_begun and self._read_only:
            before.append((READ_ONLY, {}))
        if not self._is_begun and not self._syncs:
            before.append((SYNC_LATER, {}))
        after: list[Statement] = [(_COMMIT, {})] if self._is_begun and is_last else []
        self.trips += 1
        try:
            rows = await self._trip([*before, *statements, *after], ends=is_last)
        except psycopg.Error as error:
            self.is_unknown &= self._is_ended_by(error)
            raise
        self.is_unknown = False
        self._is_begun = not is_last
        return rows[len(before) : len(before) + len(statements)]

    async def _trip(self, statements: Sequence[Statement], *, ends: bool) -> list[Rows]:
        """Send statements, then read all answers."""
        cursors = [self._connection.cursor(binary=True) for _ in statements]
        async with self._connection.pipeline():
            try:
                for cursor, (statement, parameters) in zip(cursors, statements, strict=True):
                    self.is_unknown = ends and cursor is cursors[-1] and statement == _COMMIT
                    await cursor.execute(statement, parameters)
            except BaseException:
                await self._connection.close()
                raise
            self.is_unknown = ends
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]


def _first_key(parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Return type and id of the first actor that a function locks."""
    if "types" in parameters:
        return parameters["types"][0], parameters["ids"][0]
    return parameters["type"], parameters["id"]
