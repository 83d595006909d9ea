"""The Failures Protocol: what an engine promises of the records of migrations that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._quarantine import Failure
    from lazymig._records import ActorKey, Fence


class Failures(Protocol):
    """Keeps at most one record an actor, apart from what is stored of it.

    A claim, a read and a scan return it with the actor. It goes with a commit that says so (`Commit.clears_failure`),
    and when nothing is left of the actor but its revision. Every operation is atomic and one round trip.
    """

    async def note(self, key: ActorKey, fence: Fence, failure: Failure) -> None:
        """Record a failure, in place of the record before it; nothing else of the actor changes, not its revision.

        Must survive a crash of process and machine once it has returned, as a commit does.

        Raises:
            LeaseLostError: The fence is not the valid one, or its node is not registered, or nothing is stored of the
                actor; nothing was recorded.
        """
        ...

    async def page(
        self, actor_type: str | None = None, *, after: ActorKey | None = None, limit: int = 500
    ) -> Sequence[tuple[ActorKey, Failure]]:
        """Return up to ``limit`` records, of a type or of all, of actors above ``after``, in order.

        Raises:
            CorruptStateError: One can't be read; names the actor.
        """
        ...

    async def retry(self, actor_type: str, actor_id: str | None = None) -> int:
        """Let the next try of an actor, or of all of a type, come at once: `retry_at` becomes `failed_at`.

        The number of attempts stays. Nobody is waited for, and no lock is needed.

        Returns:
            How many records there are.
        """
        ...
