"""Actors brought up one by one, as an activation does it: those with entries or a base, and what else isn't plain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lazymig._records import ActorKey
from lazymig._version import is_newer_major
from lazymig.activation import Activation
from lazymig.errors import ActorLockedError, CorruptStateError, LeaseLostError, NewerStateError, StoreError
from lazymig.rollout._sweep_report import FailedActor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._lease import Lease
    from lazymig.hooks import Hook
    from lazymig.rollout._sweep_hand import Hand
    from lazymig.rollout._sweep_pace import Pace
    from lazymig.rollout._sweep_report import Tally
    from lazymig.suite import ActorType

AT_ONCE = 32
"""How many are brought up beside each other: their commits share transactions."""

PATIENCE_SECONDS = 86_400.0
"""How long migrations of one actor may take: nobody waits for it."""


class Singles:
    """Brings actors of a type up one by one.

    Args:
        actor_type: Their type.
        hand: Whose node claims them.
        pace: How many at once.
        tally: What is counted.
        hooks: Told of what happens.
    """

    def __init__(
        self, actor_type: ActorType[Any], hand: Hand, pace: Pace, tally: Tally, hooks: tuple[Hook, ...] = ()
    ) -> None:
        self._type = actor_type
        self._hand = hand
        self._pace = pace
        self._tally = tally
        self._hooks = hooks

    @property
    def size(self) -> int:
        """How many the next page has at most."""
        return min(AT_ONCE, self._pace.size)

    async def bring_up(self, ids: Sequence[str], *, is_stale: bool) -> bool:
        """Bring actors up, beside each other; tell whether something was stored.

        Args:
            ids: Theirs.
            is_stale: Whether their stamps say that they are not at their version.

        Raises:
            StoreError: The store's fault.
        """
        started = self._pace.clock()
        keys = [ActorKey(self._type.name, actor_id) for actor_id in ids]
        sizes = await gather([self._bring_up(key, is_stale=is_stale) for key in keys])
        self._pace.note(len(ids), sum(size for size, _ in sizes), self._pace.clock() - started)
        if is_stale:
            self._tally.unchanged += sum(is_stored is False for _, is_stored in sizes)
        return any(is_stored for _, is_stored in sizes)

    async def _bring_up(self, key: ActorKey, *, is_stale: bool) -> tuple[int, bool | None]:
        """Bring one up; return the bytes of its states, old and new, and whether it was stored, None if it can't be."""
        tally = self._tally
        try:
            lease = await self._hand.lock(key)
        except (ActorLockedError, LeaseLostError):
            tally.busy.add(key.id)
            return 0, None
        except CorruptStateError as error:
            tally.failed[key.id] = FailedActor.of(key, error)
            return 0, None
        try:
            return await self._settle(lease, is_stale=is_stale)
        except LeaseLostError:
            tally.busy.add(key.id)
        except NewerStateError as error:
            if not self._is_newer(lease):  # else it is counted as that
                tally.failed[key.id] = FailedActor.of(key, error)
        except StoreError:
            raise
        except Exception as error:  # a context factory may raise anything
            tally.failed[key.id] = FailedActor.of(key, error)
        finally:
            await self._hand.unlock(lease)
        return 0, None

    def _is_newer(self, lease: Lease) -> bool:
        stamp = lease.stamp
        return stamp is not None and is_newer_major(stamp.applied.highest, self._type.chain.release.highest)

    async def _settle(self, lease: Lease, *, is_stale: bool) -> tuple[int, bool]:
        tally, key, stamp = self._tally, lease.key, lease.stamp
        tally.begin(lease.now)
        version = 0 if stamp is None else stamp.applied.highest
        before = sum(map(len, lease.states.values()))
        activation = Activation(
            key, self._type, lease, hooks=self._hooks, is_block=True, activation_seconds=PATIENCE_SECONDS
        )
        try:
            is_stored = await activation.settle()
        finally:
            activation.close()
        tally.failed.pop(key.id, None)
        tally.busy.discard(key.id)
        after = sum(map(len, lease.states.values()))
        if is_stored and tally.is_first(key.id, stamp, is_stale=is_stale):
            tally.add(version, 1, before, after)
        return before + after, is_stored


async def gather(works: Sequence[Any]) -> list[Any]:
    """Await all of them; none is cut off by another one's failure.

    Raises:
        BaseException: What the first one raised.
    """
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes
