"""A node's own calls that travel: sent, waited for, given up.

Rules:

1. A call that waits is cancelled by a compare-and-set, and only that promises that it did not run and will not. Once a
   node has taken it, it is waited for until it ends or that node is dead.
   An end that was noted counts more than what the store says then: noted calls are removed from it.
2. A call whose sending failed is cancelled before the error is told: it may have been stored, or may be stored later.
   One that was stored, and is there no more, ended long ago: somebody tidied up.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lazymig._fleet_records import Call, CallState, CallStatus
from lazymig._uncut import finish
from lazymig.errors import QueueFullError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig._fleet_records import Mail
    from lazymig._records import ActorKey
    from lazymig.fleet import Membership
    from lazymig.post import Post

_log = logging.getLogger("lazymig.node")

MAX_WAITING = 1_000
"""How many calls on one actor may wait for a node."""


class Outbox:
    """The calls of one node that travel.

    Args:
        post: Where they are kept.
        membership: The node's registration.
        wake: Lets the node look for mail soon.

    Attributes:
        sender: Who gets the answers; the same through all registrations.
        is_ending: Nothing is sent any more.
    """

    def __init__(self, post: Post, membership: Membership, wake: Callable[[], None]) -> None:
        self._post = post
        self._membership = membership
        self._wake = wake
        self._awaited: dict[str, asyncio.Future[CallState]] = {}
        self._stored: set[str] = set()
        self._overdue: set[str] = set()
        self.sender = membership.draw()
        self.is_ending = False

    async def call(self, call: Call) -> CallState:
        """Let a call travel, and return its end: done, lost or cancelled.

        Raises:
            QueueFullError: Too many wait for the actor; it was not made.
            StoreError: The store failed, and the call did not and will not run; or its outcome can't be known.
        """
        ended: asyncio.Future[CallState] = asyncio.get_running_loop().create_future()
        self._awaited[call.call_id] = ended
        try:
            return await self._send_and_wait(call, ended)
        except asyncio.CancelledError:
            try:
                await finish(self._cancel(call.call_id))
            except StoreError as error:
                _log.warning("the call of %s on %s could not be cancelled: %s", call.action, call.key, error)
            raise
        finally:
            self._awaited.pop(call.call_id, None)
            self._stored.discard(call.call_id)
            self._overdue.discard(call.call_id)

    async def _send_and_wait(self, call: Call, ended: asyncio.Future[CallState]) -> CallState:
        try:
            is_sent = await finish(self._post.send(call, max_waiting=MAX_WAITING))
        except StoreError:
            state = await finish(self._cancel(call.call_id))
            if state.status == CallStatus.CANCELLED and not ended.done():
                raise
        else:
            if is_sent:
                self._stored.add(call.call_id)
            elif not self.is_ending:  # (else it is being ended, before it came)
                raise QueueFullError(call.key, MAX_WAITING)
            self._wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(call.wait_seconds):
                    return await asyncio.shield(ended)
            state = await finish(self._cancel(call.call_id))
        if ended.done():  # its end was noted, and the call removed, while it was cancelled
            return ended.result()
        if state.status in {CallStatus.CANCELLED, CallStatus.LOST}:
            return state
        self._stored.add(call.call_id)
        self._overdue.add(call.call_id)
        return await asyncio.shield(ended)

    async def _cancel(self, call_id: str) -> CallState:
        return await self._post.cancel(call_id, self.sender, is_stored=call_id in self._stored)

    def new_call(  # noqa: PLR0913  (a call's fields)
        self,
        key: ActorKey,
        action: str,
        arguments: bytes,
        wait_seconds: float,
        *,
        needs: int = 0,
        target: str | None = None,
        chain: tuple[ActorKey, ...] = (),
        traceparent: str | None = None,
    ) -> Call:
        """Return a call of this node."""
        call_id = self._membership.draw()
        return Call(
            call_id, key, action, arguments, self.sender, wait_seconds, needs, target, chain, traceparent
        )  # fmt: skip

    @asynccontextmanager
    async def asking(self, key: ActorKey, seconds: float) -> AsyncIterator[None]:
        """Ask an actor's holder to let go of it, for as long as the block lasts.

        Each mark lasts for a lease time at most, so that the holder is not asked for a process that has died.
        """
        marks: list[str] = []
        task = asyncio.create_task(self._ask(key, min(seconds, self._membership.lease_seconds), marks))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            with suppress(StoreError):  # they end by themselves
                await finish(self._post.remove(marks))

    async def _ask(self, key: ActorKey, seconds: float, marks: list[str]) -> None:
        while True:
            mark = self.new_call(key, "", b"", seconds)
            marks.append(mark.call_id)
            try:
                await finish(self._post.send(mark, max_waiting=MAX_WAITING))
                if outdated := marks[:-1]:
                    await finish(self._post.remove(outdated))
                    del marks[:-1]
            except StoreError as error:
                _log.warning("the holder of %s could not be asked to let go: %s", key, error)
            await asyncio.sleep(seconds / 2)

    async def end_calls(self, error: Exception) -> None:
        """Let nobody wait any longer: a call that waits is cancelled and gets the error, one that was taken is lost.

        So is one of which the store doesn't say within a lease time what became of it.
        """
        self.is_ending = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._membership.lease_seconds):
                await asyncio.gather(*(self._end_call(call_id, error) for call_id in list(self._awaited)))
        for call_id in list(self._awaited):
            self._note_end(call_id, CallState(CallStatus.LOST))

    async def _end_call(self, call_id: str, error: Exception) -> None:
        try:
            state = await self._cancel(call_id)
        except StoreError:
            state = CallState(CallStatus.LOST)
        ended = self._awaited.get(call_id)
        if ended is None or ended.done():
            return
        if state.status == CallStatus.CANCELLED:
            ended.set_exception(error)
        else:
            ended.set_result(replace(state, status=CallStatus.LOST))

    @property
    def overdue(self) -> frozenset[str]:
        """Ids of the calls whose time is over, and which somebody may have taken."""
        return frozenset(self._overdue)

    async def note_answers(self, mail: Mail, overdue: frozenset[str]) -> None:
        """Note the ends of calls.

        Args:
            mail: What was found.
            overdue: As it was before that.
        """
        ended = []
        for call_id in overdue - mail.answers.keys():  # it waits again, was cancelled, or is there no more
            state = await finish(self._cancel(call_id))
            if state.status in {CallStatus.CANCELLED, CallStatus.LOST}:
                self._note_end(call_id, state)
        for call_id, found in mail.answers.items():
            state = found
            if state.status == CallStatus.TAKEN and not state.is_taker_alive:
                state = await finish(self._post.lose(call_id))
            elif state.status == CallStatus.WAITING:
                state = await finish(self._post.cancel(call_id, self.sender, is_stored=True))
            if state.status in {CallStatus.TAKEN, CallStatus.WAITING}:  # it was passed on meanwhile
                continue
            self._note_end(call_id, state)
            if state.status != CallStatus.CANCELLED:  # a cancelled one keeps out what is on its way
                ended.append(call_id)
        if ended:
            await finish(self._post.remove(ended))

    def _note_end(self, call_id: str, state: CallState) -> None:
        awaited = self._awaited.get(call_id)
        if awaited is not None and not awaited.done():
            awaited.set_result(state)
