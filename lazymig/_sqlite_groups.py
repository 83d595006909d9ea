"""Writing operations that wait at the same time share one transaction, and so one sync.

Rules:

1. Nobody waits for others to come: an operation that finds the connection free goes alone and at once. Those that come
   while it is under way are the next group.
2. An easy one is carried out on the event loop's thread (see `lazymig._sqlite_here`), and so is a group of easy ones.
   Of many that come in one turn of the loop, a few go alone, the others are a group at its end: everybody else gets
   turns, and a transaction costs as much as an operation.
3. One's failure is its own: when one fails, the group is rolled back and begun anew with a savepoint for each.
4. Nobody is told that an operation is done before the group is committed; it is synced if one of them must be.
5. When the transaction fails as a whole, nothing of it was stored, and everybody is told so.
6. An operation that was begun, or waits, goes on when its await is cancelled.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lazymig._sql_operations import trip
from lazymig._sqlite_drivers import InTheWayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazymig._sql_operations import Operation, Statement

T = TypeVar("T")

LARGEST = 100
"""How many operations share a transaction at most: other processes wait for its end."""

FEW = 4
"""How many easy operations of one turn of the event loop go alone."""

_BEGIN: Statement = ("SAVEPOINT one", {})
_KEEP: Statement = ("RELEASE one", {})
_UNDO: Statement = ("ROLLBACK TO one", {})


class OneFailedError(Exception):
    """One of a group failed; nothing of the group was stored."""


class Drive(Protocol):
    """Drives an operation in a transaction of its own, on the thread."""

    async def __call__(self, operation: Callable[[], Operation[T]], *, durable: bool) -> T:
        """Return what it returns."""
        ...


@dataclass(slots=True)
class _Waiting:
    operation: Callable[[], Operation[Any]]
    is_durable: bool
    is_easy: bool
    ended: asyncio.Future[Any]


class Groups:
    """The writing operations of one file.

    Args:
        drive: Drives one of them, or a group.
        here: Drives it on the event loop's thread, or raises `InTheWayError`; told how many operations it is.

    Attributes:
        largest: See `LARGEST`.
    """

    def __init__(self, drive: Drive, here: Callable[[Operation[Any], int], Any]) -> None:
        self._drive = drive
        self._here = here
        self.largest = LARGEST
        self._waiting: list[_Waiting] = []
        self._rest: asyncio.Task[None] | None = None
        self._this_turn = 0
        self._is_turn_full = False
        self._idle = asyncio.Event()
        self._idle.set()

    def at_once(self, operation: Callable[[], Operation[T]]) -> T:
        """Carry an easy operation out here and now.

        Raises:
            InTheWayError: It has to wait, see `run`.
        """
        if self._this_turn == FEW or not self._idle.is_set():
            raise InTheWayError
        if not self._this_turn:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._this_turn += 1
        found: T = self._here(operation(), 1)
        return found

    async def run(self, operation: Callable[[], Operation[T]], *, durable: bool, is_easy: bool = False) -> T:
        """Drive an operation, with others if it has to wait.

        Args:
            operation: Makes it, anew each time it is called.
            durable: Whether it must survive a crash of the machine.
            is_easy: Whether it is brief, and not synced.
        """
        if self._idle.is_set() and is_easy and self._this_turn == FEW:
            self._is_turn_full = True
            self._idle.clear()
        if not self._idle.is_set():
            ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(operation, durable, is_easy, ended))
            return await ended
        self._idle.clear()
        try:
            return await self._drive(operation, durable=durable)
        finally:
            self._let_others()

    async def end(self) -> None:
        """Wait until nothing is under way any more."""
        await self._idle.wait()

    def _end_turn(self) -> None:
        self._this_turn = 0
        if self._is_turn_full:
            self._is_turn_full = False
            group = self._take()
            outcomes = None
            try:
                outcomes = self._share_here(group)
            finally:
                if outcomes is None:
                    self._begin(group, is_threads=True)
                else:
                    _tell(group, outcomes)
                    self._let_others()

    def _let_others(self) -> None:
        if self._waiting:
            self._begin(self._take())
        else:
            self._idle.set()

    def _take(self) -> list[_Waiting]:
        group, self._waiting = self._waiting[: self.largest], self._waiting[self.largest :]
        return group

    def _begin(self, group: list[_Waiting], *, is_threads: bool = False) -> None:
        begun: list[bool] = []
        self._rest = asyncio.create_task(self._go(group, begun, is_threads=is_threads))
        self._rest.add_done_callback(partial(self._note_end, group, begun))

    def _note_end(self, group: list[_Waiting], begun: list[bool], _: object) -> None:
        if not begun:  # it was cancelled before
            self._waiting = group + self._waiting
            self._let_others()

    async def _go(self, group: list[_Waiting], begun: list[bool], *, is_threads: bool) -> None:
        begun.append(True)
        try:
            outcomes = None if is_threads else self._share_here(group)
            if outcomes is None:
                outcomes = await self._share(group)
            _tell(group, outcomes)
        except BaseException:  # an event loop that ends cancels all its tasks; what was begun goes on
            for waiting in group:
                waiting.ended.cancel()
            raise
        finally:
            self._let_others()

    def _share_here(self, group: Sequence[_Waiting]) -> list[Any] | None:
        """Carry a group of easy ones out; return what each returned or raised, None if it is the thread's."""
        if not all(waiting.is_easy for waiting in group):
            return None
        operations = [waiting.operation for waiting in group]
        try:
            try:
                return self._here(_together(operations), len(group))  # type: ignore[no-any-return]  # it returns that
            except OneFailedError:
                return self._here(_apart(operations, is_here=True), len(group))  # type: ignore[no-any-return]
        except InTheWayError:
            return None

    async def _share(self, group: Sequence[_Waiting]) -> list[Any]:
        """Do the same on the thread."""
        operations = [waiting.operation for waiting in group]
        durable = any(waiting.is_durable for waiting in group)
        try:
            try:
                return await self._drive(partial(_together, operations), durable=durable)
            except OneFailedError:
                return await self._drive(partial(_apart, operations), durable=durable)
        except Exception as error:
            return [error] * len(group)


def _tell(group: Sequence[_Waiting], outcomes: Sequence[Any]) -> None:
    """Let everybody know the outcome."""
    for waiting, outcome in zip(group, outcomes, strict=True):
        if waiting.ended.done():  # its await was cancelled
            continue
        if isinstance(outcome, Exception):
            waiting.ended.set_exception(outcome)
        else:
            waiting.ended.set_result(outcome)


def _together(operations: Sequence[Callable[[], Operation[Any]]]) -> Operation[list[Any]]:
    """Carry operations out one after the other; return what each returned.

    Raises:
        OneFailedError: One raised.
    """
    outcomes: list[Any] = []
    for begin in operations:
        try:
            outcomes.append((yield from begin()))
        except Exception as error:
            raise OneFailedError from error
    return outcomes


def _apart(operations: Sequence[Callable[[], Operation[Any]]], *, is_here: bool = False) -> Operation[list[Any]]:
    """Carry operations out one after the other; return what each returned or raised.

    Raises:
        InTheWayError: SQLite failed here: the thread finds out why.
        sqlite3.Error: All was rolled back.
    """
    outcomes: list[Any] = []
    for begin in operations:
        operation = begin()
        try:
            yield trip(_BEGIN)
            batch = next(operation)
            while True:
                batch = operation.send((yield batch))
        except StopIteration as end:
            outcome = end.value
        except Exception as error:
            if is_here and isinstance(error, sqlite3.Error):
                raise InTheWayError from error
            try:
                yield trip(_UNDO)
            except Exception as undone:  # SQLite has rolled all of it back, as it does when the disk is full
                raise error if isinstance(error, sqlite3.Error) else undone from None
            outcome = error
        yield trip(_KEEP)
        outcomes.append(outcome)
    return outcomes
