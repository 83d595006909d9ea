"""How fast a sweep goes: so that calls beside it hardly notice, and it fits what it sweeps."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ACTORS_PER_SECOND = 2_000.0
"""By default: a few per cent of what a SQLite file can take."""

BYTES_PER_SECOND = 20_000_000.0
"""By default, of states read and written."""

MAX_BATCH_ACTORS = 1_000
"""Actors in one transaction: more save nothing, and hold the others up for longer."""

MAX_BATCH_BYTES = 4_000_000
"""Bytes of states that a batch is to have; it is larger if they suddenly become so."""

MAX_BATCH_SECONDS = 0.1
"""How long the migrations of a batch are to take: as long its actors are locked."""

_FIRST_BATCH = 16
_BATCHES_PER_SECOND = 20.0
"""With a limit, an actor a second is a batch of one, and many are spread over the second."""

_MOMENT_SECONDS = 0.5
"""How long it sleeps at a time: so soon it notices that it is to end."""


class Pace:
    """Says how many actors come next, and when.

    Args:
        actors_per_second: At most; None for no limit.
        bytes_per_second: Likewise, of states read and written.
        clock: Seconds.
        sleep: Waits for so many of them.
    """

    def __init__(
        self,
        actors_per_second: float | None = ACTORS_PER_SECOND,
        bytes_per_second: float | None = BYTES_PER_SECOND,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._actors_per_second = actors_per_second
        self._bytes_per_second = bytes_per_second
        self._size = _FIRST_BATCH
        self._due = 0.0
        self.clock = clock
        self.sleep = sleep

    @property
    def size(self) -> int:
        """How many actors the next batch has at most."""
        if self._actors_per_second is None:
            return self._size
        return max(1, min(self._size, int(self._actors_per_second / _BATCHES_PER_SECOND)))

    def note(self, actors: int, size: int, seconds: float) -> None:
        """Note a batch.

        Args:
            actors: How many it had.
            size: Bytes read and written.
            seconds: How long its migrations took.
        """
        if not actors:
            return
        fits = min(
            2.0 * self._size,
            MAX_BATCH_ACTORS,
            MAX_BATCH_BYTES / max(1.0, size / actors),
            MAX_BATCH_SECONDS / max(1e-9, seconds / actors),
        )
        self._size = max(1, int(fits))
        paid = 0.0 if self._actors_per_second is None else actors / self._actors_per_second
        if self._bytes_per_second is not None:
            paid = max(paid, size / self._bytes_per_second)
        self._due = max(self._due, self.clock()) + paid

    async def is_due(self) -> bool:
        """Wait for the next batch, a moment at most; tell whether it may come."""
        left = self._due - self.clock()
        if left > 0:
            await self.sleep(min(left, _MOMENT_SECONDS))
        return left <= _MOMENT_SECONDS
