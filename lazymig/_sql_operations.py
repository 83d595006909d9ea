"""What an operation on a SQL store is: a generator without I/O, and who drives it.

An operation yields batches of statements and is sent the rows of each statement. A connection drives it inside one
transaction, a batch a trip, and rolls back if it raises: so an operation may raise in the middle and nothing has
happened, and the same text can be driven by a thread, inline, or over a network.

A batch that is `last` may be committed together with its statements, before the operation has seen their rows: it saves
a network's trip. So its statements must be right whatever they find, and what an operation yields afterwards only
reads what never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from lazymig.store import Pulse

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
Statement = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Statements of one trip.

    Attributes:
        statements: Carried out in order, within one transaction, each seeing what was committed before it began.
        is_last: Whether the transaction may be committed with them.
    """

    statements: Sequence[Statement]
    is_last: bool = False


def trip(*statements: Statement) -> Batch:
    """Return a batch that others of the same transaction may follow."""
    return Batch(statements)


def last(*statements: Statement) -> Batch:
    """Return a batch that ends its transaction."""
    return Batch(statements, is_last=True)


Operation = Generator[Batch, list[Rows], T]

_STATE = 6
"""Where a state's name and value begin in a row that was read: after revision, owner, number and three of the stamp."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The statements of one engine; parameters are named and bound.

    Attributes:
        note_recovery: Notes a crash of the engine at the first registration after it; "" where all end with it.
    """

    add_node: str
    add_offer: str
    count_change: str
    remove_node: str
    remove_offers: str
    drain: str
    statuses: str
    add_heartbeat: str
    beat: str
    remove_heartbeat: str
    nodes: str
    claim: str
    holder: str
    claimed_states: str
    commit: str
    put_state: str
    remove_state: str
    release: str
    forget_unstored: str
    read: str
    scan: str
    census: str
    types: str
    insert_actor: str
    find_lineage: str
    add_lineage: str
    lineage: str
    note_recovery: str = ""


class Connection(Protocol):
    """Drives operations for one process."""

    name: str

    is_outlived: bool
    """Whether the engine may crash while those who use it live on: then what they were told must survive it."""

    async def run(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """Drive one operation in one transaction and one trip.

        Args:
            operation: Makes the generator; called once.
            writes: Whether it may write.
            durable: Whether it must survive a crash of the machine once this returns.
        """
        ...

    poll_seconds: float

    def watch(self, wake: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """See `Post.watch`."""
        ...

    async def look(self, operation: Callable[[], Operation[T]]) -> T:
        """Drive one operation that only reads, beside those under way; not counted as a trip."""
        ...

    async def forget(self, operation: Callable[[], Operation[T]]) -> T:
        """Drive one operation that removes a node, after which none of its commits under way takes effect."""
        ...

    def now(self) -> float | None:
        """Return the store's clock in seconds, which never goes back while the machine runs; None: the engine knows."""
        ...

    def enter(self, node_id: str) -> None:
        """Show that a node of this process lives, before it registers."""
        ...

    def leave(self, node_id: str) -> None:
        """Take that back, after the node was removed."""
        ...

    def is_dead(self, node_id: str) -> bool | None:
        """Tell whether a node is gone for certain, whatever its heartbeat says; None if it may just be removed."""
        ...

    def open_pulse(self) -> Pulse:
        """See `Store.open_pulse`."""
        ...
