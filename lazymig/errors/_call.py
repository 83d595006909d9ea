"""Errors of calls and nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig.errors._base import LazymigError, listed, who

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazymig._records import ActorKey


class CallError(LazymigError):
    """A call that could not be made; no action ran."""


class UnknownActorTypeError(CallError):
    """No suite of this node has such an actor type.

    Attributes:
        actor_type: What was asked for.
        known: The types there are.
    """

    def __init__(self, actor_type: str, known: Iterable[str]) -> None:
        self.actor_type = actor_type
        self.known = tuple(sorted(known))
        super().__init__(
            f"no suite of this node has an actor type {actor_type!r}; known: {listed(self.known)}. "
            f"Correct the name, or give the node the suite that has it."
        )


class UnknownActionError(CallError):
    """The actor type has no such action.

    Attributes:
        actor_type: Name of the actor type.
        action: What was asked for.
        known: The actions there are.
    """

    def __init__(self, actor_type: str, action: str, known: Iterable[str]) -> None:
        self.actor_type = actor_type
        self.action = action
        self.known = tuple(sorted(known))
        super().__init__(
            f"{actor_type} has no action {action!r}; known: {listed(self.known)}. "
            f"Correct the name, or decorate the method with @action."
        )


class ReentrantCallError(CallError):
    """An actor called itself, directly or through others: waiting for it would be a deadlock.

    Attributes:
        key: The actor.
        chain: The actors whose turns are waiting, outermost first.
    """

    def __init__(self, key: ActorKey, chain: Sequence[ActorKey]) -> None:
        self.key = key
        self.chain = tuple(chain)
        path = " → ".join(who(link) for link in (*chain, key))
        super().__init__(
            f"{path}: an actor waits for itself. Call the method directly (self.…) instead of through the node."
        )


class NodeStoppedError(CallError):
    """The node is not running: not yet entered, stopping, or stopped.

    Attributes:
        node: The node's label or id.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"node {node} is not running. Use it inside 'async with Node(…) as node:'.")
