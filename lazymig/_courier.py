"""A node's post: it takes calls of others, and answers them. Its own that travel are in its `Outbox`.

Rules:

1. A call taken by one incarnation is never begun by another: whoever died over it may have been told of as lost.
2. A take that failed may have taken effect, or may later: what this node has taken by the store, and never began, is
   served. What it began and could not answer is not: it is lost.
3. An answer that the store doesn't take is sent again, until the incarnation that took the call has ended. It names the
   take that it answers: this node may have passed the call on and taken it again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from lazymig._outbox import Outbox
from lazymig._uncut import finish, is_cancelled
from lazymig.errors import NodeStoppedError, StoreClosedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from anyio.abc import TaskGroup

    from lazymig._fleet_records import Call, Mail
    from lazymig._fleet_view import FleetView
    from lazymig._records import ActorKey
    from lazymig.fleet import Membership
    from lazymig.store import Store

_log = logging.getLogger("lazymig.node")

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

    def note_fleet(self) -> None:
        """Look at what is known of the fleet."""
        ...


class Answer:
    """What became of a call that was taken: an outcome, or a refusal before any code of the action ran.

    Args:
        outcome: As bytes; None for a refusal.
        needs: What the call needs, packed.
        target: Node id of who holds the actor, or is to have it.
        target_seconds: How long only that one may take the call; None: as long as it lives.
    """

    __slots__ = ("needs", "outcome", "target", "target_seconds")

    def __init__(
        self,
        outcome: bytes | None,
        *,
        needs: int = 0,
        target: str | None = None,
        target_seconds: float | None = None,
    ) -> None:
        self.outcome = outcome
        self.needs = needs
        self.target = target
        self.target_seconds = target_seconds


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
        self._serving: set[asyncio.Task[None]] = set()
        self._begun: set[tuple[str, str, int]] = set()
        self._is_cutting_off = False
        self._noted_as = ""
        self._wake = asyncio.Event()
        self.outbox = Outbox(self._post, membership, self._wake.set)
        self._taking = asyncio.Lock()
        self._tidy_due = membership.clock() + TIDY_LEASES * membership.lease_seconds
        self.is_taking = True

    def begin(self) -> None:
        """Take calls, and send some."""
        self.is_taking = True
        self.outbox.is_ending = False

    async def finish_serving(self, seconds: float) -> None:
        """Wait until the calls that were taken are answered; after that time they are cut off, and lost."""
        async with self._taking:  # what is on its way is served, too
            pass
        await self._wait_for_served(seconds)
        self._is_cutting_off = True
        for task in self._serving:
            task.cancel()
        await self._wait_for_served(seconds)
        self._is_cutting_off = False

    async def _wait_for_served(self, seconds: float) -> None:
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)

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
        if whom in {"", self.outbox.sender, self._membership.node_id}:
            self._wake.set()

    async def _look(self, group: TaskGroup) -> None:
        node_id = self._membership.node_id
        overdue = self.outbox.overdue  # both as before the store is asked: what ends meanwhile was not missed
        begun = self._begun_by(node_id)
        mail = await self._post.peek(node_id, self.outbox.sender)
        await self.outbox.note_answers(mail, overdue)
        await self._view.follow(mail.fleet)
        self._work.note_fleet()
        for key in mail.wanted:
            group.start_soon(self._give_up, key)
        async with self._taking:
            for call in await self._take(mail, begun, node_id):
                self._begun.add((node_id, call.call_id, call.takes))
                task = asyncio.create_task(self._serve(call, node_id))
                self._serving.add(task)
                task.add_done_callback(self._note_served)
        if self._membership.clock() >= self._tidy_due:
            await self._tidy()

    def _begun_by(self, node_id: str) -> set[tuple[str, int]]:
        return {(call_id, takes) for owner, call_id, takes in self._begun if owner == node_id}

    async def _take(self, mail: Mail, begun: set[tuple[str, int]], node_id: str) -> Sequence[Call]:
        """Take what is waiting, and what was taken without our knowing; beyond `MAX_SERVED` only what actions wait for.

        (Two nodes full of actions that call the other node's would otherwise wait for each other.)
        """
        missed: Sequence[Call] = ()
        begun |= self._begun_by(node_id)
        if mail.taken - begun:
            taken = await finish(self._post.taken(node_id))
            missed = [call for call in taken if (call.call_id, call.takes) not in begun]
        if not (mail.has_calls and self.is_taking and self._membership.is_fresh):
            return missed
        room = MAX_SERVED - len(self._serving) - len(missed)
        if room > 0:
            return [*missed, *await finish(self._post.take(node_id, room))]
        return [*missed, *await finish(self._post.take(node_id, MAX_SERVED, only_nested=True))]

    async def _give_up(self, key: ActorKey) -> None:
        try:
            await self._work.give_up(key)
        except NodeStoppedError:
            pass
        except Exception as error:  # a fault of ours: the node is to hear the others all the same
            context = {"message": f"{key} could not be given up", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _serve(self, call: Call, node_id: str) -> None:
        answer = await self._work.serve(call, node_id)
        if answer.outcome is None:
            send = partial(
                self._post.forward, needs=answer.needs, target=answer.target, target_seconds=answer.target_seconds
            )
        else:
            send = partial(self._post.answer, result=answer.outcome)
        await self._insist(node_id, partial(send, call.call_id, node_id, takes=call.takes))
        self._begun.discard((node_id, call.call_id, call.takes))

    def _note_served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._wake.set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            context = {"message": "a call of another node could not be served", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _insist(self, node_id: str, operation: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Try until the store answers, or the incarnation has ended, or the store is closed.

        A cancellation ends it only where we cut it off: an action may cancel the task that runs it.
        """
        while self._membership.node_id == node_id and not (self._is_cutting_off and is_cancelled()):
            try:
                await finish(operation())
            except StoreClosedError:
                return
            except StoreError as error:
                _log.warning("node %s can't send an answer yet: %s", node_id, error)
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(RETRY_SECONDS)
            except asyncio.CancelledError:  # whether it was sent is not known then
                continue
            else:
                return

    async def _tidy(self) -> None:
        self._tidy_due = self._membership.clock() + TIDY_LEASES * self._membership.lease_seconds
        for node_id in await self._post.tidy():
            if node_id != self._membership.node_id:
                await finish(self._store.forget(node_id))
