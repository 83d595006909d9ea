"""Errors of calls and nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig.errors._base import LazymigError, listed, who

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazymig._records import ActorKey


class CallError(LazymigError):
    """A call that could not be made, or that ended elsewhere."""


class UnknownActorTypeError(CallError):
    """No node has such an actor type.

    Attributes:
        actor_type: What was asked for.
        known: The types there are.
        node: Label of the node that was to have it itself; None if any might.
    """

    def __init__(self, actor_type: str, known: Iterable[str], node: str | None = None) -> None:
        self.actor_type = actor_type
        self.known = tuple(sorted(known))
        self.node = node
        who = "no node has an" if node is None else f"node {node} itself has no"
        super().__init__(
            f"{who} actor type {actor_type!r}; known: {listed(self.known)}. "
            f"Correct the name, or start a node with the suite that has it."
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


class CallNotTakenError(CallError):
    """No node took the call in time; the action did not run and will not.

    Attributes:
        key: The actor.
        action: Name of the action.
    """

    def __init__(self, key: ActorKey, action: str, waited_seconds: float) -> None:
        self.key = key
        self.action = action
        super().__init__(
            f"no node took the call of {action!r} on {who(key)} within {waited_seconds:g} s, and it will not run. "
            f"Look at 'lazymig nodes', and try again; or wait longer (Node(hand_over_seconds=…))."
        )


class CallLostError(CallError):
    """The node that took the call died over it: the action may have run; it is not run again.

    Attributes:
        key: The actor.
        action: Name of the action.
        node_id: Node id of who took it.
    """

    def __init__(self, key: ActorKey, action: str, node_id: str) -> None:
        self.key = key
        self.action = action
        self.node_id = node_id
        super().__init__(
            f"node {node_id} died over {action!r} of {who(key)}: it may have run, and is not run again. Look at the "
            f"actor before you call again, or make the action safe to repeat."
        )


class QueueFullError(CallError):
    """Too many calls wait for the actor on other nodes; this one was not made.

    Attributes:
        key: The actor.
    """

    def __init__(self, key: ActorKey, waiting: int) -> None:
        self.key = key
        super().__init__(f"{waiting:,} calls wait for {who(key)} already; this one was not made. Try again later.")


class RemoteError(CallError):
    """The action ran on another node and raised; its cause there is chained as the cause here.

    Attributes:
        type: Name of the exception's class.
        message: Its text.
        node_id: Node id of where it ran.
    """

    def __init__(self, type: str, message: str, node_id: str) -> None:  # noqa: A002  (the contract's name)
        self.type = type
        self.message = message
        self.node_id = node_id
        super().__init__(f"{type}: {message} (raised by the action on node {node_id})")


class NodeDrainingError(CallError):
    """The node is draining: it takes no new actors.

    Attributes:
        node: The node's label.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"node {node} is draining and takes no new actors. Activate the actor on another node.")


class NodeStoppedError(CallError):
    """The node is not running: not yet entered, stopping, or stopped.

    Attributes:
        node: The node's label or id.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"node {node} is not running. Use it inside 'async with Node(…) as node:'.")
