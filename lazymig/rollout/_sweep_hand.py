"""The node that a sweep claims actors by: every holder of a lock is a registered node.

It offers no action, so no call is sent to it but for an actor that it holds: such a call goes on, to whoever can run
it, once the actor is free.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import anyio

from lazymig._calls import offers_of
from lazymig._courier import Answer, Courier
from lazymig._fleet_view import FleetView
from lazymig._locks import Locks
from lazymig._mailbox import Mailbox
from lazymig._releases import starting
from lazymig._uncut import finish
from lazymig.errors import NodeStoppedError, StoreError
from lazymig.fleet import Membership

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from types import TracebackType

    from lazymig._fleet_records import Call
    from lazymig._lease import Lease
    from lazymig._records import ActorKey, Fence, NodeRecord
    from lazymig._rulings import Ruling
    from lazymig.store import Store
    from lazymig.suite import ActorType

_log = logging.getLogger("lazymig.sweep")

LEASE_SECONDS = 10.0
"""How long the locks of a killed sweep hold others up, where nothing proves its end."""


class Hand:
    """A node that holds actors for moments; used within ``async with``.

    Args:
        store: Where they are.
        actor_type: What it sweeps.
        what: What it is for, in its label.
        build: Name of the release, or None.
    """

    def __init__(self, store: Store, actor_type: ActorType[Any], what: str, build: str | None = None) -> None:
        self._store = store
        self._type = actor_type
        self.label = f"{what} of {actor_type.name} on {socket.gethostname()}:{os.getpid()}"[:200]
        self.membership = Membership(store, self.label, build, LEASE_SECONDS)
        offers = offers_of({actor_type.name: actor_type})
        self.membership.offers = [replace(offer, actions=()) for offer in offers]
        self.membership.ruling = self._ask
        self.locks = Locks(
            store,
            self.membership,
            drop_all=_nothing,
            note_start=_nothing,
            wake=_nothing,
            label=self.label,
        )
        self._held: set[str] = set()
        self._freed = asyncio.Event()
        self._courier = Courier(store, self.membership, FleetView(store), self)
        self._looking: asyncio.Task[None] | None = None

    def _ask(self, record: NodeRecord, now: datetime) -> Ruling:
        return starting(record, {self._type.name: self._type}, now)

    @property
    def node_id(self) -> str:
        """Its incarnation."""
        return self.membership.node_id

    async def __aenter__(self) -> Self:
        """Register.

        Raises:
            StoreError: The store can't be reached or written.
            DefinitionError: The release may not start beside what the store has.
        """
        await self.locks.begin()
        self._courier.begin()
        self._looking = asyncio.create_task(self._courier.keep_looking(), name=f"lazymig-{self.label}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Sign off: whatever is still held is free."""
        with anyio.CancelScope(shield=True):
            await finish(self._sign_off())

    async def _sign_off(self) -> None:
        self.free(self._held)
        self._courier.is_taking = False
        await self._courier.finish_serving(1.0)
        await self._courier.outbox.end_calls(NodeStoppedError(self.label))
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        try:
            await self.locks.end()
        except StoreError as failure:
            _log.warning("%s could not sign off, its locks end with its lease: %s", self.label, failure)

    # --- actors ------------------------------------------------------------------------------------------------

    async def next_fence(self) -> Fence:
        """Return a fence for locks that are got together; registers anew if need be."""
        await self.locks.trust()
        return self.membership.next_fence()

    async def lock(self, key: ActorKey) -> Lease:
        """Get one actor's lock.

        Raises:
            ActorLockedError: Somebody holds it.
            CorruptStateError: Its stamp can't be read; the lock was not got.
        """
        self.hold([key.id])
        try:
            return await self.locks.lock(Mailbox(key), 0.0)
        except BaseException:
            self.free([key.id])
            raise

    async def unlock(self, lease: Lease) -> None:
        """Give one actor's lock up."""
        mailbox = Mailbox(lease.key)
        mailbox.lease = lease
        try:
            await self.locks.unlock(mailbox)
        finally:
            self.free([lease.key.id])

    def hold(self, ids: Iterable[str]) -> None:
        """Note that actors are held, or about to be."""
        self._held.update(ids)

    def free(self, ids: Iterable[str]) -> None:
        """Note that they are free again."""
        self._held.difference_update([*ids])
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()

    # --- for the courier ---------------------------------------------------------------------------------------

    async def serve(self, call: Call, node_id: str) -> Answer:  # noqa: ARG002  (the Protocol's)
        """Send a call on, once its actor is free."""
        while call.key.id in self._held:
            await self._freed.wait()
        return Answer(None)

    async def give_up(self, key: ActorKey) -> None:
        """Nothing is held for longer than it takes."""

    def note_fleet(self) -> None:
        """Whatever others do."""


def _nothing(*_: object) -> None:
    pass
