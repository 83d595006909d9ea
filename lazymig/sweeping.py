"""The Sweeping Protocol: what an engine promises to who brings many idle actors up at once.

An actor is *plain* if it has the state that is asked for, and no entry, base, record of a failed migration, or eager
conversion under way: all that is to be known of it is its applied set, and that state. Others are claimed one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from lazymig._bases import WritePolicy
    from lazymig._records import AppliedSet, Fence, Stamp


class Batch(NamedTuple):
    """Locks that were got together, with one state of each actor.

    Attributes:
        fence: Of all of them.
        ids: Of the actors, in order.
        data: The state of each, encoded, in the same order.
        after: Others that can be had have ids above it; None if there are none.
        now: The store's wall clock, aware UTC.
        policy: What the actors of the type are stored as.
    """

    fence: Fence
    ids: Sequence[str]
    data: Sequence[bytes]
    after: str | None
    now: datetime
    policy: WritePolicy


class SweepNote(NamedTuple):
    """What a sweep noted of itself.

    Attributes:
        actor_type: What it sweeps.
        node_id: Its node.
        noted_at: When, by the store's wall clock, aware UTC.
        progress: JSON.
    """

    actor_type: str
    node_id: str
    noted_at: datetime
    progress: bytes


class Sweeping(Protocol):
    """Deals with many actors of a type in one transaction and few round trips."""

    async def claim(  # noqa: PLR0913  (named, all but four)
        self,
        actor_type: str,
        applied: AppliedSet | None,
        state: str,
        fence: Fence,
        *,
        after: str = "",
        limit: int = 500,
    ) -> Batch | None:
        """Get the locks of the next plain actors that can be had, and read a state of each; see `Store.claim`.

        Args:
            actor_type: Theirs.
            applied: What was applied to each of them; None for those without migration-info.
            state: Which state.
            fence: For all of them.
            after: Only those whose id is above it.
            limit: How many at most.

        Returns:
            None if the fence's node is not registered.
        """
        ...

    async def commit(  # noqa: PLR0913  (named, all but four)
        self,
        actor_type: str,
        state: str,
        fence: Fence,
        changes: Sequence[tuple[str, bytes]],
        *,
        stamp: Stamp,
        epoch: int,
        released: Sequence[str] = (),
        drops_previous: bool = False,
    ) -> Collection[str] | WritePolicy:
        """Store one state of each actor with the same stamp, and give their locks up, in one transaction.

        Args:
            actor_type: Theirs.
            state: Which state.
            fence: Theirs, by which they were claimed together.
            changes: Id and encoded state, in order.
            stamp: Theirs afterwards.
            epoch: Of the write policy that this was made for.
            released: Ids of others under that fence, whose locks are given up with nothing stored, in order.
            drops_previous: Whether what is kept of them goes, see `Commit.keeps_previous`; else it stays.

        Returns:
            The ids of ``changes`` of which nothing was stored, because the fence is not theirs any more; or the type's
            write policy if its epoch is another one: then nothing was done.
        """
        ...

    async def unsettled(
        self,
        actor_type: str,
        entries: frozenset[AppliedSet],
        base: AppliedSet | None,
        *,
        after: str = "",
        limit: int = 500,
    ) -> Sequence[str]:
        """Return the ids of up to ``limit`` stored actors above ``after``, in order, whose stamp doesn't tell all.

        Those that have an entry of one of the sets, an eager conversion under way, or a base, except a current one of
        the set ``base``.
        """
        ...

    async def count_unsettled(
        self,
        actor_type: str,
        entries: frozenset[AppliedSet],
        base: AppliedSet | None,
        *,
        without: frozenset[AppliedSet | None],
    ) -> int:
        """Count the actors that `unsettled` finds, but for those with one of the applied sets ``without``."""
        ...

    async def note(self, actor_type: str, node_id: str, progress: bytes) -> bool:
        """Note how far a sweep is, in place of what it noted before; what ended sweeps of the type noted is removed.

        Returns:
            Whether sweeps of the type are to pause.
        """
        ...

    async def notes(self) -> Sequence[SweepNote]:
        """Return what all sweeps noted last, ordered by type, then node."""
        ...

    async def pause(self, actor_type: str, *, is_paused: bool) -> bool:
        """Let sweeps of a type pause, or go on; tell whether that is a change."""
        ...

    async def paused(self) -> Collection[str]:
        """Return the types whose sweeps are to pause."""
        ...
