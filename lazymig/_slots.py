"""How many migrations run at once on a node.

Rules:

1. Who waits for a slot has its actor's lock, and keeps it. Slots are given in the order in which they were asked for.
2. Code in a slot that waits for another actor, by a call, a block, or what others have of it in a block, gives the slot
   up until it goes on. So nobody who has a slot waits for somebody who needs one, however many others wait in between,
   on this node or elsewhere.
3. A wait that is cut off, by a timeout say, ends at once: what goes on then does so without a slot until its next wait.
   One that got something, and is cut off before it has its slot again, gives that back.
4. A slot is held until the migrations have ended, also those that outlast their caller.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

T = TypeVar("T")


class _Slot:
    """One slot, as the code that runs in it sees it; tasks that it leaves behind still see it.

    Attributes:
        free: Where it comes from.
        waits: How many waits of its code for other actors are under way.
        has_ended: Whether the migrations have.
        is_held: Whether it is taken.
        taking: Held by the one of its tasks that takes it.
    """

    __slots__ = ("free", "has_ended", "is_held", "taking", "waits")

    def __init__(self, free: asyncio.Semaphore) -> None:
        self.free = free
        self.waits = 0
        self.has_ended = False
        self.is_held = False
        self.taking = asyncio.Lock()

    @property
    def is_wanted(self) -> bool:
        return not (self.has_ended or self.waits or self.is_held)

    async def take(self) -> None:
        async with self.taking:  # a second slot would be waited for while the first is held
            if not self.is_wanted:
                return
            await self.free.acquire()
            if self.is_wanted:
                self.is_held = True
            else:  # something else was begun, or has ended, meanwhile
                self.free.release()

    def give(self) -> None:
        if self.is_held:
            self.is_held = False
            self.free.release()


_SLOT: ContextVar[_Slot | None] = ContextVar("lazymig_slot", default=None)


class Slots:
    """The slots of one node.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @property
    def is_full(self) -> bool:
        """Whether who comes now has to wait."""
        return self._free.locked()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a slot for the length of a block."""
        slot = _Slot(self._free)
        await slot.take()
        token = _SLOT.set(slot)
        try:
            yield
        finally:
            _SLOT.reset(token)
            slot.has_ended = True
            slot.give()


def has_slot() -> bool:
    """Tell whether the code that runs is in a slot."""
    return _SLOT.get() is not None


async def give_way(waiting: Coroutine[Any, Any, T], undo: Callable[[], Awaitable[None]] | None = None) -> T:
    """Await something that may wait for another actor: without the slot of the code that runs, if it is in one.

    Args:
        waiting: Awaited.
        undo: Gives back what that got, if nobody is told of it.
    """
    slot = _SLOT.get()
    if slot is None:
        return await waiting
    slot.waits += 1
    slot.give()
    is_cut_off = is_done = False
    try:
        got = await waiting
        is_done = True
    except (asyncio.CancelledError, GeneratorExit):
        is_cut_off = True
        raise
    finally:
        slot.waits -= 1
        if not is_cut_off:
            await _take_back(slot, undo if is_done else None)
    return got


async def _take_back(slot: _Slot, undo: Callable[[], Awaitable[None]] | None) -> None:
    try:
        await slot.take()
    except BaseException:
        if undo is not None:
            await undo()
        raise
