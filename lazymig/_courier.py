"""A node's post: its own calls that travel, and those of others that it takes.

Rules:

1. A call that waits is cancelled by a compare-and-set, and only that promises that it did not run and will not. Once a
   node has taken it, it is waited for until it ends or that node is dead.
   An end that was noted counts more than what the store says then: noted calls are removed from it.
2. A call whose sending failed is cancelled before the error is told: it may have been stored, or may be stored later.
3. A call taken by one incarnation is never begun by another: whoever died over it may have been told of as lost.
4. A take that failed may have taken effect, or may later: what this node has taken by the store, and never began, is
   served. What it began and could not answer is not: it is lost.
5. An answer that the store doesn't take is sent again, until the incarnation that took the call has ended. It names the
   take that it answers: this node may have passed the call on and taken it again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from lazymig._fleet_records import Call, CallState, CallStatus
from lazymig._lease import finish
from lazymig.errors import NodeStoppedError, QueueFullError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from anyio.abc import TaskGroup

    from lazymig._fleet_records import Mail
    from lazymig._fleet_view import FleetView
    from lazymig._records import ActorKey
    from lazymig.fleet import Membership
    from lazymig.store import Store

_log = logging.getLogger("lazymig.node")

MAX_WAITING = 1_000
"""How many calls on one actor may wait for a node."""

SMALL_FLEET = 50
"""In larger fleets each node looks for mail less often, so that together they don't ask more."""

MAX_SERVED = 200
"""How many calls of others a node runs at a time; more wait for it, or for another node."""

RETRY_SECONDS = 0.25
"""How soon a store that failed is asked again."""

TIDY_LEASES = 10
"""How many lease times lie between two looks for calls and nodes that nobody needs any more."""


class Work(Protocol):
    """What the courier's node does with its mail."""

    async def serve(self, call: Call, node_id: str) -> Answer:
        """Run a call that this incarnation took."""
        ...

    async def give_up(self, key: ActorKey) -> None:
        """Let go of an actor that somebody waits for."""
        ...

    async def note_fleet(self) -> None:
        """Look at the fleet, which has changed."""
        ...


class Answer:
    """What became of a call that was taken: an outcome, or a refusal before any code of the action ran.

    Args:
        outcome: As bytes; None for a refusal.
        needs: What the call needs, packed.
        target: Node id of who holds the actor.
    """

    __slots__ = ("needs", "outcome", "target")

    def __init__(self, outcome: bytes | None, *, needs: int = 0, target: str | None = None) -> None:
        self.outcome = outcome
        self.needs = needs
        self.target = target


class Courier:
    """Sends and takes calls for one node.

    Args:
        store: Where they are kept.
        membership: The node's registration.
        view: What it knows of the others; kept up to date here.
        work: What is done with the mail.
    """

    def __init__(self, store: Store, membership: Membership, view: FleetView, work: Work) -> None:
        self._store = store
        self._post = store.post
        self._membership = membership
        self._view = view
        self._work = work
        self._sender = membership.draw()
        self._awaited: dict[str, asyncio.Future[CallState]] = {}
        self._overdue: set[str] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._begun: set[tuple[str, int]] = set()
        self._is_cutting_off = False
        self._noted_as = ""
        self._wake = asyncio.Event()
        self._taking = asyncio.Lock()
        self._tidy_due = membership.clock() + TIDY_LEASES * membership.lease_seconds
        self.is_taking = True

    # --- own calls ---------------------------------------------------------------------------------------------

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
            await self._cancel(call)
            raise
        finally:
            self._awaited.pop(call.call_id, None)
            self._overdue.discard(call.call_id)

    async def _send_and_wait(self, call: Call, ended: asyncio.Future[CallState]) -> CallState:
        try:
            is_sent = await finish(self._post.send(call, max_waiting=MAX_WAITING))
        except StoreError:
            state = await finish(self._post.cancel(call.call_id, self._sender))
            if state.status == CallStatus.CANCELLED and not ended.done():
                raise
        else:
            if not is_sent and not ended.done():  # (else it was ended before it came)
                raise QueueFullError(call.key, MAX_WAITING)
            self._wake.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(call.wait_seconds):
                    return await asyncio.shield(ended)
            state = await self._give_up_call(call.call_id)
        if ended.done():  # its end was noted, and the call removed, while it was cancelled
            return ended.result()
        if state.status in {CallStatus.CANCELLED, CallStatus.LOST}:
            return state
        self._overdue.add(call.call_id)
        return await asyncio.shield(ended)

    async def _give_up_call(self, call_id: str) -> CallState:
        """Cancel a call that was stored; one that is there no more ended long ago, and somebody tidied up."""
        state = await finish(self._post.lose(call_id))
        return state if state.status == CallStatus.LOST else await finish(self._post.cancel(call_id, self._sender))

    async def _cancel(self, call: Call) -> None:
        try:
            await finish(self._post.cancel(call.call_id, self._sender))
        except StoreError as error:
            _log.warning("the call of %s on %s could not be cancelled: %s", call.action, call.key, error)

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
            call_id, key, action, arguments, self._sender, wait_seconds, needs, target, chain, traceparent
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

    async def finish_serving(self) -> None:
        """Wait until the calls that were taken are answered; after a lease time they are cut off, and lost."""
        async with self._taking:  # what is on its way is served, too
            pass
        for _ in range(2):
            if self._serving:
                await asyncio.wait(self._serving, timeout=self._membership.lease_seconds)
            self._is_cutting_off = True
            for task in self._serving:
                task.cancel()
        self._is_cutting_off = False

    async def end_calls(self, error: Exception) -> None:
        """Let nobody wait any longer: a call that waits is cancelled and gets the error, one that was taken is lost.

        So is one of which the store doesn't say within a lease time what became of it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._membership.lease_seconds):
                await asyncio.gather(*(self._end_call(call_id, error) for call_id in list(self._awaited)))
        for call_id in list(self._awaited):
            self._note_end(call_id, CallState(CallStatus.LOST))

    async def _end_call(self, call_id: str, error: Exception) -> None:
        try:
            state = await self._post.cancel(call_id, self._sender)
        except StoreError:
            state = CallState(CallStatus.LOST)
        ended = self._awaited.get(call_id)
        if ended is None or ended.done():
            return
        if state.status == CallStatus.CANCELLED:
            ended.set_exception(error)
        else:
            ended.set_result(replace(state, status=CallStatus.LOST))

    # --- mail --------------------------------------------------------------------------------------------------

    async def keep_looking(self) -> None:
        """Look for mail again and again, until cancelled."""
        async with self._post.watch(self._note_mail), anyio.create_task_group() as group:
            while True:
                pause = self._post.poll_seconds * max(1.0, len(self._view.nodes) / SMALL_FLEET)
                try:
                    await self._look(group)
                except StoreError as error:
                    _log.warning("node %s can't see its mail: %s", self._membership.node_id, error)
                    pause = max(pause, RETRY_SECONDS)
                except Exception as error:  # a fault of ours or of the store's: who waits for this node must not hang
                    context = {"message": f"node {self._membership.node_id} can't read its mail", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(context)
                    pause = max(pause, RETRY_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                self._wake.clear()

    def _note_mail(self, whom: str) -> None:
        if whom in {"", self._sender, self._membership.node_id}:
            self._wake.set()

    async def _look(self, group: TaskGroup) -> None:
        node_id = self._membership.node_id
        overdue = frozenset(self._overdue)
        mail = await self._post.peek(node_id, self._sender)
        for call_id in overdue - mail.answers.keys():
            state = await self._give_up_call(call_id)
            if state.status in {CallStatus.CANCELLED, CallStatus.LOST}:
                self._note_end(call_id, state)
        await self._note_answers(mail)
        has_changed = await self._view.follow(mail.fleet)
        is_renamed = self._noted_as != self._membership.node_id
        if has_changed or is_renamed:  # the list may show us before we know our new name
            self._noted_as = self._membership.node_id
            if is_renamed:
                self._begun.clear()  # nothing of it is served again under another name
            await self._work.note_fleet()
        for key in mail.wanted:
            group.start_soon(self._give_up, key)
        async with self._taking:
            for call in await self._take(mail, node_id):
                self._begun.add((call.call_id, call.takes))
                task = asyncio.create_task(self._serve(call, node_id))
                self._serving.add(task)
                task.add_done_callback(self._note_served)
        if self._membership.clock() >= self._tidy_due:
            await self._tidy()

    async def _take(self, mail: Mail, node_id: str) -> Sequence[Call]:
        """Take what is waiting, and what was taken without our knowing; beyond `MAX_SERVED` only what actions wait for.

        (Two nodes full of actions that call the other node's would otherwise wait for each other.)
        """
        missed: Sequence[Call] = ()
        begun = frozenset(call_id for call_id, _ in self._begun)  # what is answered meanwhile was not missed
        if mail.taken - begun:
            missed = [call for call in await finish(self._post.taken(node_id)) if call.call_id not in begun]
        if not (mail.has_calls and self.is_taking and self._membership.is_fresh):
            return missed
        room = MAX_SERVED - len(self._serving) - len(missed)
        if room > 0:
            return [*missed, *await finish(self._post.take(node_id, room))]
        return [*missed, *await finish(self._post.take(node_id, MAX_SERVED, only_nested=True))]

    async def _note_answers(self, mail: Mail) -> None:
        ended = []
        for call_id, found in mail.answers.items():
            state = found
            if state.status == CallStatus.TAKEN and not state.is_taker_alive:
                state = await finish(self._post.lose(call_id))
            elif state.status == CallStatus.WAITING:
                state = await finish(self._post.cancel(call_id, self._sender))
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

    async def _give_up(self, key: ActorKey) -> None:
        with suppress(NodeStoppedError):
            await self._work.give_up(key)

    async def _serve(self, call: Call, node_id: str) -> None:
        answer = await self._work.serve(call, node_id)
        if self._is_cutting_off and _is_cancelled():
            return
        if answer.outcome is None:
            send = partial(self._post.forward, needs=answer.needs, target=answer.target)
        else:
            send = partial(self._post.answer, result=answer.outcome)
        if await self._insist(node_id, partial(send, call.call_id, node_id, takes=call.takes)):
            self._begun.discard((call.call_id, call.takes))

    def _note_served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._wake.set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            context = {"message": "a call of another node could not be served", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _insist(self, node_id: str, operation: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Try again until the store answers; False if it has not by the end of the incarnation or event loop."""
        while self._membership.node_id == node_id:
            try:
                await finish(operation())
            except StoreError as error:
                _log.warning("node %s can't send an answer yet: %s", node_id, error)
                if _is_cancelled():
                    return False
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return True
        return False

    async def _tidy(self) -> None:
        self._tidy_due = self._membership.clock() + TIDY_LEASES * self._membership.lease_seconds
        for node_id in await self._post.tidy():
            if node_id != self._membership.node_id:
                await finish(self._store.forget(node_id))


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
