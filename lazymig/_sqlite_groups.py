"""Writing operations that wait at the same time share one transaction, and so one sync.

Rules:

1. Nobody waits for others to come: an operation that finds the connection free goes alone and at once. Those that come
   while it is under way are the next group.
2. One's failure is its own: each operation of a group has a savepoint.
3. Nobody is told that an operation is done before the group is committed; it is synced if one of them must be.
4. When the transaction fails as a whole, nothing of it was stored, and everybody is told so.
5. An operation that was begun, or waits, goes on when its await is cancelled.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lazymig._sql_operations import Batch, trip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazymig._sql_operations import Operation, Statement

T = TypeVar("T")

LARGEST = 100
"""How many operations share a transaction at most: other processes wait for its end."""

_BEGIN: Statement = ("SAVEPOINT one", {})
_KEEP: Statement = ("RELEASE one", {})
_UNDO: Statement = ("ROLLBACK TO one", {})


class Drive(Protocol):
    """Drives an operation in a transaction of its own."""

    async def __call__(self, operation: Callable[[], Operation[T]], *, durable: bool) -> T:
        """Return what it returns."""
        ...


@dataclass(slots=True)
class _Waiting:
    operation: Callable[[], Operation[Any]]
    is_durable: bool
    ended: asyncio.Future[Any]


class Groups:
    """The writing operations of one connection.

    Args:
        drive: Drives one of them, or a group.
    """

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._waiting: list[_Waiting] = []
        self._rest: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, operation: Callable[[], Operation[T]], *, durable: bool) -> T:
        """Drive an operation, with others if it has to wait."""
        if not self._idle.is_set():
            ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(operation, durable, ended))
            return await ended
        self._idle.clear()
        try:
            return await self._drive(operation, durable=durable)
        finally:
            self._let_others()

    async def end(self) -> None:
        """Wait until nothing is under way any more."""
        await self._idle.wait()

    def _let_others(self, _: object = None) -> None:
        if self._waiting:
            self._rest = asyncio.create_task(self._go())
            self._rest.add_done_callback(self._let_others)  # even if it is cancelled before it begins
        else:
            self._idle.set()

    async def _go(self) -> None:
        group, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
        together = partial(_together, [waiting.operation for waiting in group])
        try:
            outcomes = await self._drive(together, durable=any(waiting.is_durable for waiting in group))
        except asyncio.CancelledError:  # an event loop that ends cancels all its tasks; what was begun goes on
            for waiting in group:
                waiting.ended.cancel()
            raise
        except Exception as error:
            outcomes = [error] * len(group)
        for waiting, outcome in zip(group, outcomes, strict=True):
            if waiting.ended.done():  # its await was cancelled
                continue
            if isinstance(outcome, Exception):
                waiting.ended.set_exception(outcome)
            else:
                waiting.ended.set_result(outcome)


def _together(operations: Sequence[Callable[[], Operation[Any]]]) -> Operation[list[Any]]:
    """Carry operations out one after the other; return what each returned or raised."""
    outcomes: list[Any] = []
    for begin in operations:
        operation = begin()
        try:
            yield trip(_BEGIN)
            batch = next(operation)
            while True:
                batch = operation.send((yield Batch(batch.statements)))
        except StopIteration as end:
            outcome = end.value
        except Exception as error:
            try:
                yield trip(_UNDO)
            except Exception:  # SQLite has rolled all of it back, as it does when the disk is full
                raise error from None
            outcome = error
        yield trip(_KEEP)
        outcomes.append(outcome)
    return outcomes
