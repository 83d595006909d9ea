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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from lazymig._entries import END

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from lazymig._sql_sweeping import SweepDialect
    from lazymig.store import Pulse

T = TypeVar("T")

BRIEF_BYTES = 32_000
"""Up to how many bytes of states an operation counts as brief."""

Rows = list[tuple[Any, ...]]
Statement = tuple[str, Mapping[str, Any]]


class Batch(NamedTuple):
    """Statements of one trip.

    Attributes:
        statements: Carried out in order, within one transaction, each seeing what was committed before it began.
        is_last: Whether the transaction may be committed with them.
        is_whole: Whether it is one statement that is a transaction by itself, and says itself whether it is synced.
        is_large: Whether the operation reads more than `BRIEF_BYTES` by it, which didn't show before.
        max_bytes: Rows are read until their second columns together have that many, then an empty row stands for
            the rest; None: all rows. Only on SQLite.
        rows: What the one statement is carried out with, row by row, instead of its parameters. Only on SQLite.
    """

    statements: Sequence[Statement]
    is_last: bool = False
    is_whole: bool = False
    is_large: bool = False
    max_bytes: int | None = None
    rows: Sequence[tuple[Any, ...]] = ()


def trip(*statements: Statement) -> Batch:
    """Return a batch that others of the same transaction may follow."""
    return Batch(statements)


def last(*statements: Statement) -> Batch:
    """Return a batch that ends its transaction."""
    return Batch(statements, is_last=True)


def whole(statement: Statement) -> Batch:
    """Return a statement that begins and ends its transaction."""
    return Batch((statement,), is_last=True, is_whole=True)


Operation = Generator[Batch, list[Rows], T]
EntryRow = tuple[str, str, bytes | None, int | None]


class Found(NamedTuple):
    """An actor as its rows say it.

    Attributes:
        actor: Revision, owner and number of its lock; lineage, writer and time of migration; marks; lineage, revision
            and digest of its base.
        states: Names and values.
        kept: Names and values of its base.
        failure: Of the record of a migration that failed, ``failed_at``, ``retry_at`` and ``record``, if there is one.
    """

    actor: Sequence[Any]
    states: Rows
    kept: Rows = []  # noqa: RUF012  (never changed)
    failure: Rows = []  # noqa: RUF012  (likewise)


class Claimed(NamedTuple):
    """What a claim found.

    Attributes:
        owner: Who has the actor's lock; None if it was given up meanwhile.
        found: The actor, if the lock was got; else None.
        policy: Version and epoch of its type's write policy, None without one.
        clock: The engine's wall clock in microseconds, None if it has none.
    """

    owner: Any
    found: Found | None = None
    policy: tuple[Any, ...] | None = None
    clock: int | None = None


class OtherEpoch(NamedTuple):
    """Why a commit stored nothing: its type's write policy is another one, or there is none.

    Attributes:
        version: Of the policy, None without one.
        epoch: Likewise.
    """

    version: Any
    epoch: Any


Committed = int | OtherEpoch | None
"""The new revision; or the write policy; or None if the fence or the revision is not valid."""


class BaseRows(NamedTuple):
    """What a commit stores of a base.

    Attributes:
        columns: ``base_lineage`` and ``base_digest`` afterwards, and ``is_current``; see `BaseWrite`.
        kept: Name to what is kept, None for none, in order.
        dropped: Names of which nothing is kept any more, in order.
    """

    columns: Mapping[str, Any]
    kept: Mapping[str, bytes | None]
    dropped: Sequence[str]


NO_BASE_ROWS = BaseRows({"base_lineage": None, "base_digest": None, "is_current": False}, {}, ())


class Dealing(Protocol):
    """How an engine deals with locked actors: each of these is the operation as a generator.

    `actor` and `fence` below are parameters: ``type``, ``id``; ``node``, ``number``.
    """

    def claim(self, of: Mapping[str, Any]) -> Operation[Claimed | None]:
        """Get a lock and read what it protects, by a snapshot younger than the lock; None: the node isn't registered.

        Args:
            of: Actor and fence; ``now`` by the store's clock; ``dead``, a node whose locks count for nothing, or None.
        """
        ...

    def commit(self, of: Mapping[str, Any], writes: Mapping[str, bytes | None]) -> Operation[Committed]:
        """Store stamp and states, unless fence, revision or epoch are not right.

        Args:
            of: Actor, fence and stamp; ``revision`` before; ``epoch``; ``keep``, whether the lock is kept;
                ``puts_nothing``, whether there may be nothing left of the actor, and so no stamp, mark, record of a
                failure, or anything kept; ``clears_failure`` and ``keeps_previous``, see `Commit`.
            writes: Name to value; None removes the state.
        """
        ...

    def commit_entries(
        self, of: Mapping[str, Any], writes: Mapping[str, bytes | None], entries: Sequence[EntryRow]
    ) -> Operation[Committed]:
        """Do as `commit`, and store entries and marks with it.

        Args:
            of: As there; ``converting`` and ``oldest`` afterwards, the latter if an entry is left.
            writes: As there.
            entries: Table, key, and value and lineage, or None and None to remove it; no key of a table twice.
        """
        ...

    def commit_base(
        self,
        of: Mapping[str, Any],
        writes: Mapping[str, bytes | None],
        entries: Sequence[EntryRow] | None,
        base: BaseRows,
    ) -> Operation[Committed]:
        """Do as `commit`, or as `commit_entries` unless ``entries`` is None, and store a base with it."""
        ...

    def read(self, of: Mapping[str, Any]) -> Operation[Found | None]:
        """Read an actor beside its lock, from one snapshot; None if it has no row."""
        ...

    def scan(self, of: Mapping[str, Any]) -> Operation[list[tuple[Any, Found]]]:
        """Read the ids and the actors of a ``type`` that are stored, or have something stored.

        Args:
            of: ``after`` which id; ``limit``, how many.
        """
        ...

    def entries(
        self, of: Mapping[str, Any], limit: int, max_bytes: int, *, is_reverse: bool
    ) -> Operation[tuple[Rows, bool]]:
        """Return key, value and lineage of the first entries between two keys, and whether those were all.

        See `Store.entries`.

        Args:
            of: Actor; ``name`` of the table, ``start`` and ``end`` of the range.
            limit: How many.
            max_bytes: The one with which their values have that many is the last.
            is_reverse: Whether the highest key comes first.
        """
        ...

    def release(self, held: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """Give up locks whose fence is valid, in order; forget the actors among them that were never stored."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """The statements of one engine; parameters are named and bound.

    Attributes:
        dealing: What is done under a lock.
        sweeping: What is done with many actors at once.
        end: Above all keys of entries, and above what else a damaged column of keys may hold.
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
    put_state: str
    count_entries: str
    tables: str
    census: str
    types: str
    insert_actor: str
    find_lineage: str
    add_lineage: str
    lineage: str
    previous: str
    dealing: Dealing
    sweeping: SweepDialect
    end: str | bytes = END
    note_recovery: str = ""


class Connection(Protocol):
    """Drives operations for one process."""

    name: str

    is_outlived: bool
    """Whether the engine may crash while those who use it live on: then what they were told must survive it."""

    async def run(
        self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False, brief: bool = False
    ) -> T:
        """Drive one operation in one transaction and one trip.

        Args:
            operation: Makes the generator, anew each time it is called.
            writes: Whether it may write.
            durable: Whether it must survive a crash of the machine once this returns.
            brief: Whether it touches one actor only, and writes few values of no more than `BRIEF_BYTES`.
        """
        ...

    poll_seconds: float

    def watch(self, wake: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """See `Post.watch`."""
        ...

    async def look(self, operation: Callable[[], Operation[T]]) -> T:
        """Drive one operation that only reads, beside those under way; not counted as a trip."""
        ...

    async def exclude(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """Drive one operation while no other one is driven by this; see `run`."""
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
