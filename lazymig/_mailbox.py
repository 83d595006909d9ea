"""Whose turn it is on one actor: a fair lock with exclusive and shared turns.

Rules:

1. Turns are granted in the order they were asked for; shared ones that stand next to each other run together.
2. A waiter that is cancelled leaves no trace; one that was granted and cancelled in the same moment passes it on.
3. Whoever finds the actor inactive opens it under `opening`: holders of shared turns may find that together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazymig._lease import Lease
    from lazymig._migrating import Migrating
    from lazymig._records import ActorKey
    from lazymig.activation import Activation


_NOBODY: deque[tuple[bool, asyncio.Future[None]]] = deque(maxlen=0)
"""Of all mailboxes where nobody ever waited: an empty one takes as much memory as all else of an idle actor."""


class Mailbox:
    """One actor on one node: its turns, and what of it is in memory.

    Attributes:
        key: The actor.
        lease: The actor's lock, None while this node doesn't hold it.
        activation: The one the actor object was made with.
        actor: The actor object, None while it is not active.
        finishing: Migrations that outlasted their activation: the lock is theirs until they have ended.
    """

    __slots__ = ("_opening", "_readers", "_waiters", "_writes", "activation", "actor", "finishing", "key", "lease")

    def __init__(self, key: ActorKey) -> None:
        self.key = key
        self.lease: Lease | None = None
        self.activation: Activation | None = None
        self.actor: Any = None
        self.finishing: Migrating | None = None
        self._opening: asyncio.Lock | None = None
        self._writes = False
        self._readers = 0
        self._waiters: deque[tuple[bool, asyncio.Future[None]]] = _NOBODY

    @property
    def is_free(self) -> bool:
        """Whether nobody has or awaits a turn, and no migrations go on."""
        return not (self._writes or self._readers or self._waiters or self.finishing)

    @property
    def is_active(self) -> bool:
        """Whether an action may begin now on the actor object."""
        return self.actor is not None and self.lease is not None and self.lease.is_valid

    @property
    def opening(self) -> asyncio.Lock:
        """Held by who makes the actor object."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        return self._opening

    async def take(self, *, shared: bool) -> None:
        """Wait for a turn."""
        if not self._waiters and self._can_grant(shared=shared):
            self._grant(shared=shared)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is _NOBODY:
            self._waiters = deque()
        self._waiters.append((shared, granted))
        try:
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.give(shared=shared)
            else:
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiters.remove((shared, granted))
                self._wake()
            raise

    def give(self, *, shared: bool) -> None:
        """End a turn."""
        if shared:
            self._readers -= 1
        else:
            self._writes = False
        self._wake()

    def refuse(self, error: Exception) -> None:
        """Let nobody wait any longer."""
        for _, granted in self._waiters:
            if not granted.done():
                granted.set_exception(error)

    def drop(self) -> Migrating | None:
        """Forget the actor object; the lock stays. Return its migrations that still go on, if any."""
        activation, self.activation, self.actor = self.activation, None, None
        return None if activation is None else activation.close()

    def _can_grant(self, *, shared: bool) -> bool:
        return not self._writes and (shared or not self._readers)

    def _grant(self, *, shared: bool) -> None:
        if shared:
            self._readers += 1
        else:
            self._writes = True

    def _wake(self) -> None:
        while self._waiters:
            shared, granted = self._waiters[0]
            if granted.done():  # cancelled
                self._waiters.popleft()
                continue
            if not self._can_grant(shared=shared):
                return
            self._waiters.popleft()
            self._grant(shared=shared)
            granted.set_result(None)
