"""Code of migrations under way, as what it calls sees it.

Rules:

1. What such code reads and writes goes past the turns of its activation, whose holder waits for it.
2. What it writes is staged apart, and stored with what the migrations make, or not at all.
3. It sees entries as its own migration leaves them: brought up to its version, and what it puts counts as of it.
4. What converts an entry when it is read may be run again at any time, so it writes nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazymig.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lazymig._entries import Entry, Place
    from lazymig._migrations import Migration
    from lazymig._records import ActorKey

Staged = dict["Place", "Entry | None"]
"""Entries that are to be stored; None stands for one that is to be removed."""


@dataclass(slots=True, eq=False)
class Running:
    """Migrations, or what converts entries, running within an activation.

    Attributes:
        owner: What they run in.
        staged: What was written, the latest last; only there it is written.
        step: The migration whose code is running.
        converted: Tables whose entries were converted before the migrations, to which version, packed.
        is_conversion: Whether it converts an entry.
        is_read_only: Whether it may write nothing.
        is_beside_others: Whether others of its kind run beside it, which don't see what it writes.
        bases: While a `reconcile` runs: name to a state as newer software last stored it, None where there was none.
        is_running: False once it has ended; tasks that were left behind still see it.
    """

    owner: object
    staged: list[Staged] = field(default_factory=lambda: [{}])
    step: Migration | None = None
    converted: Mapping[str, int] = field(default_factory=dict)
    is_conversion: bool = False
    is_read_only: bool = False
    is_beside_others: bool = False
    bases: Mapping[str, Any] | None = None
    is_running: bool = True

    def each(self, steps: Iterable[Migration]) -> Iterator[Migration]:
        """Yield migrations, noting which is running."""
        for self.step in steps:
            yield self.step


RUNNING: ContextVar[Running | None] = ContextVar("lazymig_running", default=None)


REHEARSING: ContextVar[bool] = ContextVar("lazymig_rehearsing", default=False)
"""Whether what runs works on copies of what is stored, of which nothing will be stored."""


def running_in(owner: object) -> Running | None:
    """Return what runs within an activation in whose context we are, None outside of migrations."""
    running = RUNNING.get()
    return running if running is not None and running.owner is owner and running.is_running else None


def base_in(owner: object, key: ActorKey, name: str) -> Any:
    """Return the base of a state, see `State.base`.

    Raises:
        DefinitionError: No reconcile function runs.
    """
    running = running_in(owner)
    if running is None or running.bases is None:
        raise DefinitionError(
            f"the base of state {name!r} of {key.type} is for reconcile functions, while they run. Use value."
        )
    return running.bases.get(name)
