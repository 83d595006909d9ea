"""Operations that a cancellation does not cut off: their end is awaited and noted, then the cancellation goes on.

Rules:

1. `uncut` is for a single operation of a store, which it drives in the task at hand: a task of its own would cost more
   than most operations in memory do. So what such an operation cancels by itself, by a timeout or a cancel scope, it
   does in a task of its own.
2. `finish` is for everything else, and makes that task.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

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


async def uncut(operation: Coroutine[Any, Any, T]) -> T:
    """Await a store's operation to its end; a cancellation that came meanwhile is raised after it."""
    found: T = await _Uncut(operation)
    return found


class _Uncut:
    """Drives a coroutine as ``await`` does, and keeps cancellations from what it waits for."""

    __slots__ = ("_cut", "_operation", "_shielded")

    def __init__(self, operation: Coroutine[Any, Any, Any]) -> None:
        self._operation = operation
        self._cut: asyncio.CancelledError | None = None
        self._shielded = ExitStack()

    def __await__(self) -> Generator[Any, Any, Any]:
        with self._shielded:
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
                while not waited.done():
                    turn = asyncio.get_running_loop().create_future()
                    waited.add_done_callback(partial(_end, turn))
                    yield from self._turn(turn)
        raise self._cut

    def _turn(self, turn: asyncio.Future[None] | None) -> Generator[Any, Any, None]:
        """Let others go on until a future is done; note a cancellation that came."""
        try:
            if turn is None:
                yield
            else:
                yield from turn
        except asyncio.CancelledError as error:
            if self._cut is None:  # a cancelled scope would cancel again in every turn of the loop
                self._cut = error
                self._shielded.enter_context(anyio.CancelScope(shield=True))
        except BaseException:  # the event loop is gone
            self._operation.close()
            raise


def _end(turn: asyncio.Future[None], _: asyncio.Future[Any]) -> None:
    if not turn.done():
        turn.set_result(None)
