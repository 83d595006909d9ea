"""Migrations of one actor that may outlast who waits for them.

Rules:

1. As long as the caller waits for them they are as if it ran them itself: to cancel it is to cancel them, and what
   comes of that comes to it.
2. Whoever has waited for too long leaves, and they go on under the lease that they were begun with. Nobody uses it, or
   the handles of the states, until they have ended.
3. They run in a turn of their own, which ends with them: they can't wait for their own actor. Once the caller has left,
   those that waited for it don't wait for them.
4. What they fail with is told once: to who asks for it within the activation, or to the hooks once that has ended.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig._turn import in_turn, running_turn
from lazymig._uncut import finish
from lazymig.errors import ActivationError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lazymig._records import ActorKey
    from lazymig._turn import Turn

_log = logging.getLogger("lazymig.node")


class Migrating:
    """Migrations of one actor, in a task of their own.

    Args:
        key: The actor.
        run: Runs and commits them.
        seconds: How long callers wait for them.

    Attributes:
        key: The actor.
        seconds: As given.
        task: Theirs.
        at_end: Awaited by the task when they have ended, however they did; None for nothing.
    """

    __slots__ = ("_turn", "at_end", "key", "seconds", "task")

    def __init__(self, key: ActorKey, run: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        self.key = key
        self.seconds = seconds
        self.at_end: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._turn: Turn | None = None
        self.task = asyncio.create_task(self._run(run), name=f"lazymig-migrations-of-{key}")

    async def _run(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            around = running_turn()
            if around is None:  # of no node
                await run()
                return
            with in_turn(self.key, around.place, "activate") as self._turn:
                await run()
        finally:
            if self.at_end is not None:
                await self.at_end()

    async def end_in_time(self) -> bool:
        """Wait for their end as if the caller ran them; tell whether it came in time.

        Raises:
            BaseException: What they failed with.
        """
        waiting = _Waiting(self.task)
        timer = self.task.get_loop().call_later(self.seconds, waiting.end)
        try:
            await waiting
        except asyncio.CancelledError:  # of the caller alone: it came in the very turn in which the time was over
            await self.stop()
            raise
        finally:
            timer.cancel()
        if self.task.done():
            self.task.result()
            return True
        if self._turn is not None:
            self._turn.parent = None
        return False

    async def outlast(self, seconds: float | None) -> bool:
        """Wait for their end, and for nothing of theirs; tell whether it did not come in time."""
        return not (await asyncio.wait([self.task], timeout=seconds))[0]

    def cancel(self) -> None:
        """Cancel them, once."""
        if not self.task.cancelling():
            self.task.cancel()

    async def stop(self) -> bool:
        """Cancel them, and wait for their end; tell whether they ended well all the same."""
        self.cancel()
        await finish(self.outlast(None))
        return not self.task.cancelled() and self.task.exception() is None

    def tell_end(self, tell: Callable[[ActivationError], None]) -> None:
        """Tell what they fail with, or have failed with: nobody else asks for it."""
        self.task.add_done_callback(partial(_tell_failure, self.key, tell))


class _Waiting(asyncio.Future[None]):
    """The end of a task, or of the patience with it; to cancel who waits for it is to cancel the task."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        super().__init__(loop=task.get_loop())
        self._task = task
        task.add_done_callback(self.end)

    def end(self, *_: object) -> None:
        if not self.done():
            self.set_result(None)

    def cancel(self, msg: Any | None = None) -> bool:
        return not self.done() and self._task.cancel(msg)


def _tell_failure(key: ActorKey, tell: Callable[[ActivationError], None], task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, ActivationError):
        tell(error)
    elif isinstance(error, StoreError):
        _log.warning("migrations of %s, which nobody waited for any more, failed: %s", key, error)
    elif error is not None:
        message = f"migrations of {key}, which nobody waited for any more, failed"
        task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})
