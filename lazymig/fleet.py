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
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from lazymig._records import Fence, NodeRecord
from lazymig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lazymig._fleet_records import Offer
    from lazymig._releases import Changed
    from lazymig._rulings import Ruling
    from lazymig.store import Pulse, Store

_log = logging.getLogger("lazymig.node")

LOOP_SILENCE_SECONDS = 60.0
"""How long a blocked event loop keeps its actors: longer than any migration should block it."""

BEATS_PER_LEASE = 4
"""How many heartbeats are sent in a lease time, so that one or two may fail."""


class Heart(Protocol):
    """Sends the heartbeats of one incarnation until it is stopped."""

    def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End; returns when the last heartbeat's outcome is known."""
        ...


class Membership:
    """One registered node, on the machine that `on_machine` names where it is made.

    Args:
        store: Where it registers.
        label: For people.
        build: Name of the release it runs, or None.
        lease_seconds: How long it counts as alive after a heartbeat.

    Attributes:
        node_id: The incarnation; drawn anew by `join`, "" while the node is not registered.
        clock: Seconds of the machine's monotonic clock.
        draw: Returns a name that nobody ever had.
        label: As given.
        lease_seconds: As given.
        active: Returns how many actors are active.
        offers: What it can do.
        ruling: Makes what is asked before it is registered, of its record and the time; None asks nothing.
        changed: What the ruling answered when it was last registered.
    """

    def __init__(self, store: Store, label: str, build: str | None, lease_seconds: float) -> None:
        self._store = store
        self.label = label
        self._build = build
        self.lease_seconds = lease_seconds
        self._machine = _MACHINE.get()
        self.clock = self._machine.clock
        self.draw = self._machine.draw
        self.active: Callable[[], int] = int
        self.offers: Sequence[Offer] = ()
        self.ruling: Callable[[NodeRecord, datetime], Ruling] | None = None
        self.changed: Sequence[Changed] = ()
        self._numbers = count(1)
        self._acknowledged = float("-inf")
        self._is_denied = False
        self._heart: Heart | None = None
        self.node_id = ""

    @property
    def is_fresh(self) -> bool:
        """Whether an action may begin: nobody else can have taken this node's actors."""
        return not self._is_denied and self.clock() - self._acknowledged < self.lease_seconds

    def next_fence(self) -> Fence:
        """Return a fence that was never used."""
        return Fence(self.node_id, next(self._numbers))

    async def join(self) -> None:
        """Register as a new incarnation, in place of the one before, and start the heartbeat.

        Raises:
            LazymigError: The ruling said no; nothing was registered.
        """
        await self._stop_heart()
        before = self.node_id or None
        node_id = self.draw()
        sent = self.clock()
        record = NodeRecord(node_id, self.label, self._build, self.lease_seconds, self.offers)
        ruling = None if self.ruling is None else partial(self.ruling, record, datetime.now(UTC))
        self.changed = await self._store.register(record, replaces=before, ruling=ruling) or ()
        self.node_id = node_id
        self._numbers = count(1)
        self._acknowledged = sent
        self._is_denied = False
        self._heart = self._machine.heart(self, self._store)
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
        return self.lease_seconds / BEATS_PER_LEASE

    async def _stop_heart(self) -> None:
        heart, self._heart = self._heart, None
        if heart is not None:
            await heart.stop()


class Beats:
    """What a heart does for one incarnation, wherever it runs.

    The event loop is silent when it did not call `note_answer` for that long: then it must not look alive.
    """

    def __init__(self, membership: Membership, store: Store, silence_seconds: float = LOOP_SILENCE_SECONDS) -> None:
        self.node_id = membership.node_id
        self._silence_seconds = silence_seconds
        self._membership = membership
        self._store = store
        self._answered = membership.clock()
        self._pulse: Pulse | None = None

    @property
    def is_silent(self) -> bool:
        """Whether the event loop is to be taken for dead."""
        return self._membership.clock() - self._answered >= self._silence_seconds

    def note_answer(self) -> None:
        """Note that the event loop turns."""
        self._answered = self._membership.clock()

    def send(self) -> Callable[[], None]:
        """Send a heartbeat; return what notes its outcome."""
        sent = self._membership.clock()
        try:
            if self._pulse is None:
                self._pulse = self._store.open_pulse()
            is_known = self._pulse.beat(self.node_id, self._membership.active())
        except StoreError as error:
            _log.warning("heartbeat of node %s failed: %s", self.node_id, error)
            return _nothing
        if is_known:
            return partial(self._membership.acknowledge, self.node_id, sent)
        return partial(self._membership.deny, self.node_id)

    def close(self) -> None:
        """Free what they hold; from the thread that sent them."""
        if self._pulse is not None:
            self._pulse.close()


class ThreadHeart:
    """Beats on a thread of its own; see the rules above."""

    def __init__(self, membership: Membership, store: Store, silence_seconds: float = LOOP_SILENCE_SECONDS) -> None:
        self._beats = Beats(membership, store, silence_seconds)
        self._interval = min(membership.beat_seconds, threading.TIMEOUT_MAX)
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lazymig-heart-{membership.node_id}", daemon=True)

    def start(self) -> None:
        """See `Heart.start`."""
        self._thread.start()

    async def stop(self) -> None:
        """See `Heart.stop`."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        """Beat until stopped, or until the event loop is closed."""
        try:
            while not self._stopped.wait(self._interval) and self._ask_loop():
                if not self._beats.is_silent:
                    self._beats.send()()
        finally:
            self._beats.close()

    def _ask_loop(self) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._beats.note_answer)
        except RuntimeError:  # the loop is closed
            return False
        return True


def _nothing() -> None:
    pass


def _draw() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node takes from the machine it runs on; a simulation gives it another one.

    Attributes:
        clock: Seconds of a clock that never goes back, as fast as the store's.
        draw: Returns a name that no incarnation ever had.
        heart: Makes what sends the heartbeats of the membership's incarnation.
    """

    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], str] = _draw
    heart: Callable[[Membership, Store], Heart] = ThreadHeart


_MACHINE: ContextVar[Machine] = ContextVar("lazymig_machine", default=Machine())  # noqa: B039  (frozen)


@contextmanager
def on_machine(machine: Machine) -> Iterator[None]:
    """Let the nodes made within the block run on this machine."""
    token = _MACHINE.set(machine)
    try:
        yield
    finally:
        _MACHINE.reset(token)
