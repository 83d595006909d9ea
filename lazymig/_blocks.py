"""Blocks: an actor held by hand for the length of an ``async with``, see `Node.activate`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lazymig._slots import give_way, has_slot
from lazymig._turn import in_turn
from lazymig.activation import Activation
from lazymig.errors import ActivationInProgressError, ActorLockedError, CorruptStateError, NodeDrainingError
from lazymig.hooks import Deactivated, tell

if TYPE_CHECKING:
    from types import TracebackType

    from lazymig._calls import Calls
    from lazymig._mailbox import Mailbox
    from lazymig._records import ActorKey
    from lazymig._residents import Residents
    from lazymig.fleet import Membership
    from lazymig.hooks import Hook
    from lazymig.suite import ActorType


class Blocks:
    """Opens the blocks of one node.

    Args:
        residents: The node's actors.
        membership: Its registration.
        calls: Its calls: who waits for whom, and whether it is draining.
        hooks: Told of what happens.
        label: The node's.
        hand_over_seconds: How long a block waits by default for an actor that another node holds.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (the node's parts)
        self,
        residents: Residents,
        membership: Membership,
        calls: Calls,
        hooks: tuple[Hook, ...],
        label: str,
        hand_over_seconds: float,
    ) -> None:
        self.residents = residents
        self.membership = membership
        self.calls = calls
        self.hooks = hooks
        self._label = label
        self._hand_over_seconds = hand_over_seconds

    async def take(self, key: ActorKey, wait_seconds: float | None) -> Mailbox:
        """Wait for a turn."""
        if wait_seconds is None:
            return await self.residents.take(key, shared=False)
        try:
            async with asyncio.timeout(wait_seconds):
                return await self.residents.take(key, shared=False, is_patient=True)
        except TimeoutError:
            if self.residents.is_finishing(key):
                raise ActivationInProgressError(key, wait_seconds) from None
            raise ActorLockedError(key, self.membership.node_id, wait_seconds) from None

    async def hold(
        self, mailbox: Mailbox, actor_type: ActorType[Any], wait_seconds: float | None, started: float
    ) -> Activation:
        """Get the actor's lock."""
        wait = self._hand_over_seconds if wait_seconds is None else wait_seconds
        left = max(0.0, wait - (self.membership.clock() - started))
        try:
            if self.calls.is_draining:
                raise NodeDrainingError(self._label)
            lease = await self.residents.locks.lock(mailbox, left, self.calls.courier.outbox.asking)
        except CorruptStateError as error:
            return Activation(mailbox.key, actor_type, None, hooks=self.hooks, refusal=error, started=started)
        return Activation(
            mailbox.key, actor_type, lease,
            hooks=self.hooks, started=started, is_block=True, activation_seconds=self.residents.finishing.seconds,
            slots=self.residents.slots,
        )  # fmt: skip


class Block:
    """One block; entered once."""

    __slots__ = ("_activation", "_blocks", "_key", "_mailbox", "_turn", "_type", "_wait_seconds")

    def __init__(self, blocks: Blocks, key: ActorKey, actor_type: ActorType[Any], wait_seconds: float | None) -> None:
        self._blocks = blocks
        self._key = key
        self._type = actor_type
        self._wait_seconds = wait_seconds

    async def __aenter__(self) -> Activation:
        """Wait for a turn, and for the lock."""
        entering = self._enter()
        return await (give_way(entering, self._leave) if has_slot() else entering)

    async def _enter(self) -> Activation:
        blocks, key = self._blocks, self._key
        blocks.calls.check_running()
        blocks.calls.check_turn(key, is_bounded=self._wait_seconds is not None)
        started = blocks.membership.clock()
        self._mailbox = await blocks.take(key, self._wait_seconds)
        try:
            blocks.calls.check_running()
            await blocks.residents.close(self._mailbox, "replaced")
            if self._mailbox.finishing is not None:
                await blocks.residents.finishing.wait(self._mailbox)
            self._activation = await blocks.hold(self._mailbox, self._type, self._wait_seconds, started)
        except BaseException:
            blocks.residents.give(self._mailbox, shared=False)
            raise
        self._turn = in_turn(key, blocks.residents, "activate", task=asyncio.current_task())
        self._turn.__enter__()
        return self._activation

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give lock and turn up."""
        await self._leave()

    async def _leave(self) -> None:
        blocks = self._blocks
        self._turn.__exit__()
        blocks.residents.finishing.begin(self._mailbox, self._activation.close())
        try:
            if self._mailbox.finishing is None:
                await blocks.residents.locks.unlock(self._mailbox)
            if blocks.hooks:
                tell(blocks.hooks, Deactivated(blocks.membership.node_id, self._key, "left"))
        finally:
            blocks.residents.give(self._mailbox, shared=False)
