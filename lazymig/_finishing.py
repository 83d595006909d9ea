"""Migrations that outlast their activation, on one node.

They keep the actor's lock until they have ended, and then give it up. Whoever is granted a turn meanwhile gives it back
and waits beside the others, who all have waited for the same time then: a queue would add their times up.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from lazymig.errors import ActivationInProgressError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazymig._locks import Locks
    from lazymig._mailbox import Mailbox
    from lazymig._migrating import Migrating


class Finishing:
    """Lets migrations end that outlast their activation.

    Args:
        locks: The node's.
        seconds: How long callers wait for migrations.
        note_end: Told of the mailbox when they have ended, and the lock is given up.

    Attributes:
        seconds: As given.
    """

    def __init__(self, locks: Locks, seconds: float, note_end: Callable[[Mailbox], None]) -> None:
        self.seconds = seconds
        self._locks = locks
        self._note_end = note_end

    def begin(self, mailbox: Mailbox, migrating: Migrating | None) -> None:
        """Leave the lock to migrations that go on, if any do, until they have ended; needs a turn."""
        if migrating is None:
            return
        mailbox.finishing = migrating
        migrating.at_end = partial(self._end, mailbox)
        if mailbox.lease is None or self._locks.has_ended:  # nothing can be stored any more
            migrating.cancel()

    async def _end(self, mailbox: Mailbox) -> None:
        try:
            await self._locks.unlock(mailbox)
        finally:
            mailbox.finishing = None
            self._note_end(mailbox)

    async def wait(self, mailbox: Mailbox, *, is_patient: bool = False) -> None:
        """Wait until no migrations go on that outlasted their activation.

        Raises:
            ActivationInProgressError: They go on for too long, to who is not patient.
        """
        seconds = None if is_patient else self.seconds
        if mailbox.finishing is not None and await mailbox.finishing.outlast(seconds):
            raise ActivationInProgressError(mailbox.key, self.seconds)

    async def unlock(self, *mailboxes: Mailbox) -> None:
        """Give locks up, but for those that migrations keep; needs an exclusive turn on each, or `opening`."""
        await self._locks.unlock(*(mailbox for mailbox in mailboxes if mailbox.finishing is None))

    async def stop(self, mailboxes: Iterable[Mailbox]) -> None:
        """Cancel them, and wait for their end."""
        await asyncio.gather(*(mailbox.finishing.stop() for mailbox in mailboxes if mailbox.finishing is not None))
