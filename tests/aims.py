"""What strikes the first simulated process that comes to a step: a call of its store, before or after its effect."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lazymig.errors import StoreUnavailableError
from lazymig.testing import FaultyStore
from lazymig.testing.simulation import Killed, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lazymig.store import Store

T = TypeVar("T")
When = Literal["before", "after"]
How = Literal["kill", "stop", "fail"]


@dataclass
class Aim:
    """What is to strike.

    Attributes:
        name: The operation.
        when: Before or after it takes effect.
        how: The process is killed, or stands still, or the operation fails.
        seconds: How long it stands still.
        victim: Whom it struck.
        has_struck: Set when it has.
    """

    name: str
    when: When
    how: How
    seconds: float = 0.0
    victim: Process | None = None
    has_struck: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Sights:
    """What the processes of a schedule share.

    Attributes:
        aim: What is to strike next.
        counts: Of the operations that took effect, by name, and of what struck, by name, when and how.
    """

    aim: Aim | None = None
    counts: Counter[Any] = field(default_factory=Counter)


class AimedStore(FaultyStore):
    """A store of a simulated process.

    Args:
        store: The store itself.
        process: Whose it is; its gate is passed around each operation.
        kill: Kills the process.
        sights: What is aimed at.
    """

    def __init__(self, store: Store, process: Process, kill: Callable[[], None], sights: Sights) -> None:
        super().__init__(store, process.gate)
        self._process = process
        self._kill = kill
        self._sights = sights

    async def _strike(self, name: str, operation: Coroutine[Any, Any, T]) -> T:
        self._hit(name, "before", operation)
        result = await super()._strike(name, operation)
        self._sights.counts[name] += 1
        self._hit(name, "after")
        return result

    def _hit(self, name: str, when: When, operation: Coroutine[Any, Any, Any] | None = None) -> None:
        aim = self._sights.aim
        if aim is None or (aim.name, aim.when) != (name, when):
            return
        self._sights.aim = None
        self._sights.counts[name, when, aim.how] += 1
        aim.victim = self._process
        aim.has_struck.set()
        if aim.how == "stop":
            self._process.stop(aim.seconds)
            return
        if operation is not None:
            operation.close()
        if aim.how == "kill":
            self._kill()
            raise Killed
        raise StoreUnavailableError(f"aimed at: {name} failed {when} it took effect. Try again.")
