"""A node's membership in the fleet: its incarnation, its fences, its heartbeat.

Rules:

1. A label is not an identity: an incarnation is drawn at each registration, and fences are counted per incarnation.
2. The heartbeat runs on a thread and a connection of its own, so that a migration that blocks the event loop does not
   lose the lease. It stops when the loop has been silent for `LOOP_SILENCE_SECONDS`: a dead loop must not look alive.
3. The node trusts itself only while the last acknowledged heartbeat was *sent* less than `lease_seconds` ago by its own
   monotonic clock. The store noted it later than that, so the node stops before others may take over.
4. Trust that ran out never comes back: a heartbeat acknowledged after a stall says nothing about what others took in
   between. Only a new registration restores it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

from lazymig._records import Fence, NodeRecord
from lazymig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.store import Pulse, Store

_log = logging.getLogger("lazymig.node")

LOOP_SILENCE_SECONDS = 60.0
"""How long a blocked event loop keeps its actors: longer than any migration should block it."""

BEATS_PER_LEASE = 4
"""How many heartbeats are sent in a lease time, so that one or two may fail."""


class Membership:
    """One registered node.

    Args:
        store: Where it registers.
        label: For people.
        build: Name of the release it runs, or None.
        lease_seconds: How long it counts as alive after a heartbeat.
        clock: Seconds of this machine's monotonic clock.

    Attributes:
        node_id: The incarnation; drawn anew by `join`, "" while the node is not registered.
        clock: As given.
    """

    def __init__(
        self,
        store: Store,
        label: str,
        build: str | None,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._label = label
        self._build = build
        self._lease_seconds = lease_seconds
        self.clock = clock
        self._numbers = count(1)
        self._acknowledged = float("-inf")
        self._is_denied = False
        self._heart: _Heart | None = None
        self.node_id = ""

    @property
    def is_fresh(self) -> bool:
        """Whether an action may begin: nobody else can have taken this node's actors."""
        return not self._is_denied and self.clock() - self._acknowledged < self._lease_seconds

    def next_fence(self) -> Fence:
        """Return a fence that was never used."""
        return Fence(self.node_id, next(self._numbers))

    async def join(self) -> None:
        """Register as a new incarnation, in place of the one before, and start the heartbeat."""
        await self._stop_heart()
        before = self.node_id or None
        node_id = secrets.token_hex(8)
        sent = self.clock()
        await self._store.register(NodeRecord(node_id, self._label, self._build, self._lease_seconds), replaces=before)
        self.node_id = node_id
        self._numbers = count(1)
        self._acknowledged = sent
        self._is_denied = False
        self._heart = _Heart(self, self._store, asyncio.get_running_loop())
        self._heart.start()

    async def leave(self) -> None:
        """Sign off: every lock is free at once."""
        await self._stop_heart()
        node_id, self.node_id = self.node_id, ""
        self.expire()
        if node_id:
            await self._store.unregister(node_id)

    def expire(self) -> None:
        """Stop trusting the registration, whatever an answer still on its way to the heartbeat's thread says."""
        self._is_denied = True

    def acknowledge(self, node_id: str, sent: float) -> None:
        """Note a heartbeat that the store took, unless trust ran out before the answer came."""
        if node_id == self.node_id and self.is_fresh:
            self._acknowledged = sent

    def deny(self, node_id: str) -> None:
        """Note that the store does not know the node any more."""
        if node_id == self.node_id:
            self.expire()

    @property
    def beat_seconds(self) -> float:
        """Seconds between heartbeats."""
        return self._lease_seconds / BEATS_PER_LEASE

    async def _stop_heart(self) -> None:
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.stop()
            await asyncio.to_thread(heart.join)


class _Heart(threading.Thread):
    """Sends the heartbeats of one incarnation."""

    def __init__(self, membership: Membership, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name=f"lazymig-heart-{membership.node_id}", daemon=True)
        self._membership = membership
        self._node_id = membership.node_id
        self._interval = min(membership.beat_seconds, threading.TIMEOUT_MAX)
        self._store = store
        self._loop = loop
        self._answered = membership.clock()
        self._stopped = threading.Event()
        self._pulse: Pulse | None = None

    def stop(self) -> None:
        """End it soon."""
        self._stopped.set()

    def run(self) -> None:
        """Beat until stopped, or until the event loop is closed."""
        try:
            while not self._stopped.wait(self._interval) and self._ask_loop():
                if self._membership.clock() - self._answered < LOOP_SILENCE_SECONDS:
                    self._beat()
        finally:
            if self._pulse is not None:
                self._pulse.close()

    def _ask_loop(self) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._note_answer)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _note_answer(self) -> None:
        self._answered = self._membership.clock()

    def _beat(self) -> None:
        sent = self._membership.clock()
        try:
            if self._pulse is None:
                self._pulse = self._store.open_pulse()
            is_known = self._pulse.beat(self._node_id)
        except StoreError as error:
            _log.warning("heartbeat of node %s failed: %s", self._node_id, error)
            return
        if is_known:
            self._membership.acknowledge(self._node_id, sent)
        else:
            self._membership.deny(self._node_id)
