"""Operations that a cancellation does not cut off: their end is awaited and noted, then the cancellation goes on.

Rules:

1. `uncut` is for a single operation of a store, which it drives in the task at hand: a task of its own would cost more
   than most operations in memory do. So what such an operation cancels by itself, by a timeout or a cancel scope, it
   does in a task of its own.
2. `finish` is for everything else, and makes that task.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

T = TypeVar("T")


async def finish(operation: Coroutine[Any, Any, T]) -> T:
    """Await an operation to its end; a cancellation that came meanwhile is raised after it."""
    task = asyncio.ensure_future(operation)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):  # a cancelled scope would cancel again in every turn of the loop
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # taken note of: the operation has noted its own outcome
        raise


def is_cancelled() -> bool:
    """Tell whether it is we who are cancelled, not something that was awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def uncut(operation: Coroutine[Any, Any, T]) -> T:
    """Await a store's operation to its end; a cancellation that came meanwhile is raised after it."""
    found: T = await _Uncut(operation)
    return found


class _Uncut:
    """Drives a coroutine as ``await`` does, and keeps cancellations from what it waits for."""

    __slots__ = ("_cut", "_operation", "_shield")

    def __init__(self, operation: Coroutine[Any, Any, Any]) -> None:
        self._operation = operation
        self._cut: asyncio.CancelledError | None = None
        self._shield: anyio.CancelScope | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            while True:
                try:
                    waited = self._operation.send(None)
                except StopIteration as end:
                    if self._cut is None:
                        return end.value
                    break
                except BaseException:
                    if self._cut is None:
                        raise
                    break  # the operation has noted its own outcome
                if waited is None:  # it gives others a turn
                    yield from self._turn(None)
                    continue
                waited._asyncio_future_blocking = False  # noqa: SLF001  (asyncio's protocol: it is we who wait)
                if isinstance(waited, End):
                    waited = waited.future
                while not waited.done():
                    yield from self._turn(End(waited))
        finally:
            if self._shield is not None:
                self._shield.__exit__(None, None, None)
        raise self._cut

    def _turn(self, turn: End | None) -> Generator[Any, Any, None]:
        """Let others go on; note a cancellation that came."""
        try:
            yield turn
        except asyncio.CancelledError as error:
            if self._cut is None:  # a cancelled scope would cancel again in every turn of the loop
                self._cut = error
                self._shield = anyio.CancelScope(shield=True)
                self._shield.__enter__()
        except BaseException:  # the event loop is gone
            self._operation.close()
            raise


class End:
    """The end of a future, whatever it is, to be awaited once; to cancel who waits for it doesn't cancel the future.

    It is to a task what a future is, by asyncio's protocol, and wakes the task in the very turn in which the future's
    own waiters are woken: ``asyncio.shield`` would take a turn more, which costs as much as an operation in memory.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_cut", "_is_over", "_wake", "future")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future
        self._asyncio_future_blocking = True
        self._is_over = False
        self._cut: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Any, Any, None]:
        if not self.future.done():
            yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.future.get_loop()

    def add_done_callback(self, wake: Callable[[End], object], *, context: Context | None = None) -> None:
        self._wake = wake
        self._context = context
        self.future.add_done_callback(self._end, context=context)

    def _end(self, _: object) -> None:
        if not self._is_over:
            self._is_over = True
            self._wake(self)

    def cancel(self, msg: object = None) -> bool:
        if self._is_over or self.future.done():
            return False  # the task is woken already, and cancelled then
        self._is_over = True
        self._cut = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.get_loop().call_soon(self._wake, self, context=self._context)
        return True

    def result(self) -> None:
        if self._cut is not None:
            raise self._cut
