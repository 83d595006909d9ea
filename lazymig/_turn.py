"""Turns as the code that runs in them sees them: who waits for whom, and who may only read."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazymig._records import ActorKey


@dataclass(slots=True, eq=False)
class Turn:
    """One turn on an actor, as the code that runs in it sees it.

    Attributes:
        key: The actor.
        action: Name of the action; "activate", "deactivate" for those.
        is_shared: Whether it only reads.
        parent: The turn it was called from.
        is_running: False once it has ended; tasks it left behind still see it.
    """

    key: ActorKey
    action: str
    is_shared: bool
    parent: Turn | None
    is_running: bool = True


TURN: ContextVar[Turn | None] = ContextVar("lazymig_turn", default=None)


class in_turn:  # noqa: N801  (a context manager, used like a function)
    """Marks the code in it as running in a turn of an actor."""

    __slots__ = ("_before", "turn")

    def __init__(self, key: ActorKey, action: str, *, shared: bool = False) -> None:
        self._before = TURN.get()
        self.turn = Turn(key, action, shared, self._before)

    def __enter__(self) -> Turn:
        """Enter the turn."""
        TURN.set(self.turn)
        return self.turn

    def __exit__(self, *_: object) -> None:
        """Leave it; tasks it left behind see that it has ended."""
        self.turn.is_running = False
        TURN.set(self._before)
