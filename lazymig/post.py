"""The Post Protocol: what an engine promises of the calls that travel between nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from lazymig._fleet_records import Call, CallState, Mail


class Post(Protocol):
    """Keeps the calls that travel between nodes.

    Every operation is atomic, one round trip, and a compare-and-set: whoever comes too late learns what is the case.
    """

    poll_seconds: float
    """How often a node looks for mail."""

    def watch(self, wake: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """Tell of mail for the length of a block; it only quickens, and nobody may rely on it.

        Args:
            wake: Called with the node id, or the sender, that may have mail; "" for everybody.
        """
        ...

    async def send(self, call: Call, *, max_waiting: int) -> bool:
        """Let a call wait for a node; without a target its target becomes the actor's living owner.

        Returns:
            False if ``max_waiting`` calls on the actor wait already, or a call of this id is known; nothing was
            stored then. Sends at the same moment may each take the last place (on PostgreSQL).
        """
        ...

    async def peek(self, node_id: str, sender: str) -> Mail:
        """Look for mail, without a lock, and cheap where there is none.

        Raises:
            StoreError: It can't be seen now.
        """
        ...

    async def take(self, node_id: str, limit: int, *, only_nested: bool = False) -> Sequence[Call]:
        """Take up to ``limit`` waiting calls, oldest first: those for this node, and those for nobody else alive.

        Must give each call to one node only, never one whose time is over, and none to a node that is not registered.

        Args:
            node_id: This node.
            limit: How many.
            only_nested: Only calls made by an action, which waits for them (`Call.chain`).
        """
        ...

    async def taken(self, node_id: str) -> Sequence[Call]:
        """Return the calls that this node has taken and not ended, oldest first."""
        ...

    async def answer(self, call_id: str, node_id: str, result: bytes, *, takes: int) -> bool:
        """End a call that this node took.

        Args:
            call_id: The call.
            node_id: This node.
            result: For its sender.
            takes: See `Call`.

        Returns:
            False if it isn't this node's any more, or was taken once more.
        """
        ...

    async def forward(  # noqa: PLR0913  (named, all but two)
        self,
        call_id: str,
        node_id: str,
        *,
        takes: int,
        needs: int = 0,
        target: str | None = None,
        target_seconds: float | None = None,
    ) -> bool:
        """Let a call wait again that this node took and of which no code has run.

        Args:
            call_id: The call.
            node_id: This node.
            needs: Raises what the call needs, never lowers it.
            target: Who holds the actor, or is to have it; None: nobody.
            target_seconds: How long only that one may take it; None: as long as it lives.
            takes: See `Call`.

        Returns:
            False if it isn't this node's any more, or was taken once more.
        """
        ...

    async def cancel(self, call_id: str, sender: str, *, is_stored: bool = False) -> CallState:
        """Cancel a call that waits, or that was never stored: then it can't be stored afterwards either.

        Args:
            call_id: The call.
            sender: Who made it.
            is_stored: It was stored for certain: if it is there no more, its end is not known, and it is LOST.

        Returns:
            Its state: only CANCELLED promises that it did not run and will not.
        """
        ...

    async def lose(self, call_id: str) -> CallState:
        """Give up a taken call whose node is dead; its state afterwards."""
        ...

    async def remove(self, call_ids: Sequence[str]) -> None:
        """Remove calls whose end was noted."""
        ...

    async def tidy(self) -> Sequence[str]:
        """Remove calls that nobody waits for any more.

        Returns:
            Ids of the nodes silent for ten of their lease times, to be forgotten.
        """
        ...
