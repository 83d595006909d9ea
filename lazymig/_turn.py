"""Turns as the code that runs in them sees them: who waits for whom, and who may only read."""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazymig.errors import DefinitionError

if TYPE_CHECKING:
    from lazymig._records import ActorKey


@dataclass(slots=True, eq=False)
class Turn:
    """One turn on an actor, as the code that runs in it sees it.

    Attributes:
        key: The actor.
        place: The node's residents: an actor held by another node of the process is waited for like any other's.
        action: Name of the action; "activate", "deactivate" for those.
        is_shared: Whether it only reads.
        parent: The turn it was called from.
        task: For a ``with`` block the task that runs it: only that one would wait for itself. Else None.
        is_running: False once it has ended; tasks it left behind still see it.
    """

    key: ActorKey
    place: object
    action: str
    is_shared: bool
    parent: Turn | None
    task: asyncio.Task[Any] | None = None
    is_running: bool = True

    def blocks(self, key: ActorKey, place: object) -> bool:
        """Tell whether waiting for a turn on ``key`` now would wait for this turn."""
        is_its = self.is_running and self.key == key and self.place is place
        return is_its and (self.task is None or self.task is asyncio.current_task())


TURN: ContextVar[Turn | None] = ContextVar("lazymig_turn", default=None)


@dataclass(slots=True, eq=False)
class Served:
    """A call of another node, as the code that runs for it sees it.

    Attributes:
        chain: The actors on other nodes that wait for it, outermost first.
        is_running: False once it has ended; tasks it left behind still see it.
    """

    chain: tuple[ActorKey, ...]
    is_running: bool = True


SERVED: ContextVar[Served | None] = ContextVar("lazymig_served", default=None)

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,140})?")

traceparent: ContextVar[str | None] = ContextVar("lazymig_traceparent", default=None)
"""The caller's trace (W3C Trace Context): set it where a call is made, read it in the action, on whatever node."""


def check_trace() -> None:
    """Refuse a trace that is none.

    Raises:
        DefinitionError: It is not of the form of W3C Trace Context.
    """
    trace: object = traceparent.get()
    if trace is not None and not (isinstance(trace, str) and _TRACE.fullmatch(trace)):
        raise DefinitionError(
            f"traceparent is {trace!r}. Set it as W3C Trace Context has it, version-trace-parent-flags: "
            f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, or to None."
        )


def waiting_elsewhere() -> tuple[ActorKey, ...]:
    """Return the actors on other nodes that wait for what runs here, outermost first."""
    served = SERVED.get()
    return served.chain if served is not None and served.is_running else ()


def waiting_chain() -> tuple[ActorKey, ...]:
    """Return the actors that wait for what runs here, on this node and on others, outermost first."""
    chain = []
    turn = TURN.get()
    while turn is not None:
        if turn.is_running:
            chain.append(turn.key)
        turn = turn.parent
    return (*waiting_elsewhere(), *reversed(chain))


def running_turn() -> Turn | None:
    """Return the innermost turn of this context that has not ended: tasks outlive the turn they were begun in."""
    turn = TURN.get()
    while turn is not None and not turn.is_running:
        turn = turn.parent
    return turn


class in_turn:  # noqa: N801  (a context manager, used like a function)
    """Marks the code in it as running in a turn of an actor."""

    __slots__ = ("_before", "turn")

    def __init__(
        self,
        key: ActorKey,
        place: object,
        action: str,
        *,
        shared: bool = False,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self._before = TURN.get()
        self.turn = Turn(key, place, action, shared, running_turn(), task)

    def __enter__(self) -> Turn:
        """Enter the turn."""
        TURN.set(self.turn)
        return self.turn

    def __exit__(self, *_: object) -> None:
        """Leave it; tasks it left behind see that it has ended."""
        self.turn.is_running = False
        TURN.set(self._before)
