"""One held actor lock, and what it protects.

Rules:

1. What is in memory is what the last acknowledged commit stored, or it is not used: after a commit whose outcome is
   unknown the actor is read again, and claimed under a new fence, before anything else is done with it.
2. A store call is never left half-way by a cancellation: its end is awaited and noted, then the cancellation goes on.
3. Nothing is stored once the node's trust in its registration has run out, even if nobody took over yet.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from lazymig._bases import BaseWrite, WritePolicy, base_after
from lazymig._records import Claim, Commit
from lazymig._uncut import uncut
from lazymig.errors import LeaseLostError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lazymig._bases import Base
    from lazymig._entries import Entry, Place
    from lazymig._quarantine import Failure
    from lazymig._records import ActorKey, Fence, Marks, Stamp, StoredActor
    from lazymig.fleet import Membership
    from lazymig.store import Store


class Lease:
    """An actor's lock as this node holds it, with the actor as stored.

    Attributes:
        key: The actor.
        fence: Carried by every write.
        revision: The actor's commits.
        stamp: As stored.
        states: Name to encoded value, as stored.
        now: The store's wall clock when the lock was got, or got anew.
        marks: Of its entries, as stored.
        base: As stored.
        policy: What its type is stored as, when the store last said so.
        failure: Of the migration that failed last, None without one; as stored when the lock was got, or by this node.
        clears_failure: Whether the next commit removes that record.
        is_lost: Another node may have it; nothing more is stored.
        is_released: Given up.
    """

    __slots__ = (
        "_claimed", "_is_unsettled", "_membership", "_store", "_tried", "base", "clears_failure", "failure", "fence",
        "is_lost", "is_released", "key", "marks", "now", "policy", "revision", "stamp", "states",
    )  # fmt: skip

    def __init__(self, claim: Claim, store: Store, membership: Membership) -> None:
        self.key = claim.actor.key
        self.is_lost = False
        self.is_released = False
        self._store = store
        self._membership = membership
        self._adopt(claim)

    def _adopt(self, claim: Claim) -> None:
        actor: StoredActor = claim.actor
        self.now: datetime = claim.now
        self._claimed = self._membership.clock()
        self.fence: Fence = claim.fence
        self.policy = claim.policy
        self.base: Base | None = actor.base
        self.revision = actor.revision
        self.stamp: Stamp | None = actor.stamp
        self.states: dict[str, bytes] = dict(actor.states)
        self.marks = actor.marks
        self.failure = actor.failure
        self.clears_failure = False
        self._is_unsettled = False
        self._tried: list[Fence] = []

    @property
    def is_valid(self) -> bool:
        """Whether the node may still act on what it has in memory."""
        is_ours = not (self.is_lost or self.is_released) and self.fence.node == self._membership.node_id
        return is_ours and self._membership.is_fresh

    @property
    def held(self) -> list[tuple[ActorKey, Fence]]:
        """The fences that may be the valid one: several while a claim's outcome is unknown."""
        return [(self.key, fence) for fence in (self.fence, *self._tried)]

    async def check(self) -> None:
        """Make sure that what is in memory is what is stored.

        Raises:
            LeaseLostError: Another node may have taken the actor.
        """
        if self._is_unsettled and self.is_valid:
            await uncut(self._settle())
        if not self.is_valid:  # asked last: trust may have run out while the store answered
            self.is_lost = True
            raise LeaseLostError(self.key)

    @property
    def time(self) -> datetime:
        """The store's wall clock now: since the lock was got, by whole seconds of this node's."""
        return self.now + timedelta(seconds=int(self._membership.clock() - self._claimed))

    @property
    def node_label(self) -> str:
        """The holder's name, for people."""
        return self._membership.label

    @property
    def store(self) -> Store:
        """Where its entries are read."""
        return self._store

    async def commit(  # noqa: PLR0913  (named, all but two)
        self,
        writes: Mapping[str, bytes | None],
        stamp: Stamp | None,
        *,
        release: bool = False,
        entries: Mapping[Place, Entry | None] | None = None,
        marks: Marks | None = None,
        base: BaseWrite | None = None,
        keeps_previous: bool | None = None,
    ) -> bool:
        """Store states, entries and stamp; on any error nothing counts as stored.

        Args:
            writes: Name to encoded value; None removes the state.
            stamp: The stamp afterwards.
            release: Give the lock up in the same transaction.
            entries: See `Commit.entries`.
            marks: See `Commit.marks`.
            base: See `Commit.base`.
            keeps_previous: See `Commit.keeps_previous`.

        Returns:
            False if the write policy is another one by now: nothing was stored, and `policy` is the new one.

        Raises:
            LeaseLostError: Another node may have taken the actor; nothing was stored.
            StoreError: The store's fault; if the outcome is unknown it is settled before the next use.
        """
        await self.check()
        if base is None and not writes and self.base is not None and self.base.revision == self.revision:
            base = BaseWrite(self.base.applied, self.base.digest, is_current=True)  # the states are what they were
        epoch = self.policy.epoch
        is_new = stamp is not None and (self.stamp is None or stamp.applied != self.stamp.applied)
        commit = Commit(
            self.key, self.fence, self.revision, stamp, writes, release, entries or {}, marks, epoch, base, is_new,
            keeps_previous, self.clears_failure,
        )  # fmt: skip
        return await uncut(self._commit(commit))

    async def _commit(self, commit: Commit) -> bool:
        try:
            stored = await self._store.commit(commit)
        except LeaseLostError:
            self.is_lost = True
            raise
        except BaseException:
            self._is_unsettled = True
            raise
        if isinstance(stored, WritePolicy):
            self.policy = stored
            return False
        self.revision = stored
        self.stamp = commit.stamp
        self.is_released = commit.release
        if commit.marks is not None:
            self.marks = commit.marks
        for name, data in commit.writes.items():
            if data is None:
                self.states.pop(name, None)
            else:
                self.states[name] = data
        if commit.base is not None:
            self.base = base_after(self.base, commit.base, stored)
        if commit.clears_failure:
            self.failure, self.clears_failure = None, False
        return True

    def doubt(self) -> None:
        """Get the lock anew before it is used again, and with it the time and what others may change beside it."""
        self._is_unsettled = True

    async def note_failure(self, failure: Failure) -> None:
        """Record a migration that failed; see `doubt`.

        Raises:
            LeaseLostError: Another node may have taken the actor; nothing was recorded.
            StoreError: The store's fault; whether it was recorded is unknown.
        """
        await self.check()
        await uncut(self._note_failure(failure))

    async def _note_failure(self, failure: Failure) -> None:
        self.doubt()
        try:
            await self._store.failures.note(self.key, self.fence, failure)
        except LeaseLostError:
            self.is_lost = True
            raise
        self.failure = failure

    async def read_marks(self) -> None:
        """Read what is stored of the marks, where only the store knows it; before the next use, if it can't be now."""
        self._is_unsettled = True
        with suppress(StoreError):
            found = await self._store.read(self.key)
            if found is not None:
                self.marks = found.marks
            self._is_unsettled = False

    async def _settle(self) -> None:
        """Find out what became of a commit by reading owner and revision, then make its fence void.

        Only this lease claims for its node, so any fence of the node is one of its own, got or tried.
        """
        found = await self._store.read(self.key)
        if found is not None and found.owner != self.fence.node:
            # A commit that released the lock may have landed; then the lock is simply got again.
            is_ours = found.owner is None and found.revision == self.revision + 1
            if not is_ours:
                self.is_lost = True
                raise LeaseLostError(self.key)
        fence = self._membership.next_fence()
        self._tried.append(fence)
        claim = await self._store.claim(self.key, fence)
        if not isinstance(claim, Claim) or claim.actor.revision not in {self.revision, self.revision + 1}:
            self.is_lost = True
            raise LeaseLostError(self.key)
        self._adopt(claim)

    async def release(self) -> None:
        """Give the lock up.

        Raises:
            StoreError: The store could not be reached: it is to be given up later.
        """
        await uncut(self._store.release(self.held))
        self.is_released = True
