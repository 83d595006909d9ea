"""The locks of one node: getting them, giving them up, and registering anew when they can't be trusted any more.

Rules:

1. When the registration can't be trusted any more, everything in memory is dropped first, without `deactivate()`; then
   the node registers as a new incarnation.
2. A lock that could not be given up, or whose claim was cut off, is given up when the store answers again. Where the
   store itself failed, it is given up again for a lease time: a claim on a lost connection may take effect after that.
3. Whoever was asked to give a lock up does not claim it again before those who asked could.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from lazymig._lease import Lease
from lazymig._records import ActorKey, Claim, Held
from lazymig._uncut import finish, uncut
from lazymig.errors import ActorLockedError, LeaseLostError, NodeStoppedError, StoreError

if TYPE_CHECKING:
    from lazymig._mailbox import Mailbox
    from lazymig._records import Fence
    from lazymig.fleet import Membership
    from lazymig.store import Store

FIRST_RETRY_SECONDS = 0.005
"""How soon a held lock is asked for again; doubled up to `LAST_RETRY_SECONDS`."""

LAST_RETRY_SECONDS = 0.2

_Left = tuple[float, "tuple[ActorKey, Fence]"]
"""A lock to give up, and until when it is given up again."""

Asking = Callable[[ActorKey, float], AbstractAsyncContextManager[None]]


class Locks:
    """What a node has of the store's locks.

    Args:
        store: Where they are.
        membership: The node's registration.
        drop_all: Drops everything in memory.
        note_start: Told the node id before a new registration, or "".
        wake: Wakes who calls `release_left`.
        label: The node's.

    Attributes:
        has_ended: Nothing is registered or claimed any more.
    """

    def __init__(  # noqa: PLR0913  (made by the residents only)
        self,
        store: Store,
        membership: Membership,
        *,
        drop_all: Callable[[], None],
        note_start: Callable[[str], None],
        wake: Callable[[], None],
        label: str,
    ) -> None:
        self._store = store
        self._membership = membership
        self._drop_all = drop_all
        self._note_start = note_start
        self._wake = wake
        self._label = label
        self._unreleased: list[_Left] = []
        self._landing: list[_Left] = []
        self._landing_due = 0.0
        self._yielded: dict[ActorKey, float] = {}
        self._joining = asyncio.Lock()
        self.has_ended = True

    async def trust(self) -> None:
        """Make sure that the node is registered and may act; drop everything first if it was out of touch.

        Raises:
            NodeStoppedError: The node has ended, whoever still waits for a lock or is being activated.
        """
        if self._membership.is_fresh:
            return
        async with self._joining:
            if self.has_ended:
                raise NodeStoppedError(self._label)
            if self._membership.is_fresh:
                return
            before = self._membership.node_id
            self._drop_all()
            await finish(self._membership.join())
            self._note_start(before)

    async def begin(self) -> None:
        """Register the node; if that is cut off, nothing is left of it."""
        self.has_ended = False
        try:
            await self.trust()
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Sign off, for good; whoever comes later is refused."""
        self.has_ended = True
        async with self._joining:
            await finish(self._membership.leave())

    async def lock(self, mailbox: Mailbox, wait_seconds: float, asking: Asking | None = None) -> Lease:
        """Get the actor's lock, or find that this node has it; needs an exclusive turn, or `opening`.

        Args:
            mailbox: The actor's.
            wait_seconds: How long to wait while another node holds it.
            asking: Asks its holder to let go of it, for as long as its block lasts.

        Raises:
            ActorLockedError: Another node held it all the time.
            CorruptStateError: The stamp can't be read; the lock was not got.
        """
        await self.trust()
        if mailbox.lease is not None:
            try:
                await mailbox.lease.check()
            except LeaseLostError:  # nothing of it is in use any more, or it was given up: get it anew
                mailbox.lease = None
            else:
                return mailbox.lease
        deadline = self._membership.clock() + wait_seconds
        await self._let_others_first(mailbox.key)
        claim = await self._claim(mailbox.key)
        if isinstance(claim, Held) and wait_seconds > 0:
            async with asking(mailbox.key, wait_seconds) if asking else contextlib.nullcontext():
                claim = await self._claim_until(mailbox.key, deadline)
                if not isinstance(claim, Held):  # noted before the end of the block can be cut off
                    mailbox.lease = Lease(claim, self._store, self._membership)
        if isinstance(claim, Held):
            raise ActorLockedError(mailbox.key, claim.owner, wait_seconds)
        if mailbox.lease is None:
            mailbox.lease = Lease(claim, self._store, self._membership)
        return mailbox.lease

    async def _claim_until(self, key: ActorKey, deadline: float) -> Claim | Held:
        delay = FIRST_RETRY_SECONDS
        while True:
            left = deadline - self._membership.clock()
            claim = await self._claim(key)
            if left <= 0 or not isinstance(claim, Held):
                return claim
            await asyncio.sleep(min(delay, left))
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    def yield_to_others(self, key: ActorKey) -> None:
        """Claim an actor that was just given up no sooner than whoever waits for it has asked again."""
        self._yielded[key] = self._membership.clock() + LAST_RETRY_SECONDS

    async def _let_others_first(self, key: ActorKey) -> None:
        until = self._yielded.pop(key, 0.0)
        if (left := until - self._membership.clock()) > 0:
            await asyncio.sleep(left)

    async def _claim(self, key: ActorKey) -> Claim | Held:
        for _ in range(2):
            await self.trust()
            fence = self._membership.next_fence()
            try:
                return await uncut(self._try_to_claim(key, fence))
            except LeaseLostError:  # the registration is gone: somebody forgot this node
                self._membership.expire()
            except asyncio.CancelledError:
                self._remember((key, fence))  # it may have been got
                raise
        raise LeaseLostError(key)

    async def _try_to_claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        try:
            return await self._store.claim(key, fence)
        except StoreError:
            self._remember((key, fence), may_land=True)
            raise

    def _remember(self, *held: tuple[ActorKey, Fence], may_land: bool = False) -> None:
        until = self._membership.clock() + self._membership.lease_seconds if may_land else 0.0
        self._unreleased.extend((until, pair) for pair in held)
        self._wake()

    async def unlock(self, *mailboxes: Mailbox) -> None:
        """Give the locks of actors up, in one trip; needs an exclusive turn on each, or `opening`."""
        held: list[tuple[ActorKey, Fence]] = []
        for mailbox in mailboxes:
            lease, mailbox.lease = mailbox.lease, None
            if lease is None or lease.is_released:
                continue  # (a release that failed has not released)
            if not lease.is_lost:
                lease.is_released = True
                held += lease.held
            elif lease.fence.node == self._membership.node_id:  # only the revision may have been another's
                self._remember(*lease.held)
        if not held:
            return
        try:
            await uncut(self._store.release(held))
        except (StoreError, asyncio.CancelledError) as error:
            self._remember(*held, may_land=isinstance(error, StoreError))
            if isinstance(error, asyncio.CancelledError):
                raise

    async def release_left(self) -> None:
        """Give up what could not be given up."""
        now = self._membership.clock()
        left, self._unreleased = self._unreleased, []
        self._yielded = {key: until for key, until in self._yielded.items() if until > now}
        if now >= self._landing_due:
            left += self._landing
            self._landing = []
            self._landing_due = now + self._membership.beat_seconds
        if not left:
            return
        try:
            await finish(self._store.release([held for _, held in left]))
        except BaseException:
            self._unreleased += left
            raise
        self._landing += [(until, held) for until, held in left if until > now]

    def forget(self) -> None:
        """Forget what was to be given up: the registration has ended."""
        self._unreleased.clear()
        self._landing.clear()
        self._yielded.clear()
