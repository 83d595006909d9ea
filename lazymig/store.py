"""The Store Protocol: what an engine promises, so that lazymig can promise the rest.

A store keeps actors (states, stamp, revision, lock) and nodes. It knows no migration: values are bytes to it, stamps
are sets of numbers. Every operation is atomic and one round trip: it has happened entirely, or not at all.

Rules that every store must keep:

1. **Lock.** At most one fence is valid for an actor. A claim succeeds if the actor is free, if its holder is the
   claiming node itself (whose earlier fence is void from then on), or if its holder is dead.
2. **Dead** is a node that is not registered, whose last heartbeat is at least its lease time old by the store's clock,
   or that the store can prove to be gone. Whoever is merely slow is not dead.
3. **Fence.** A commit or release is carried out only if its fence is the valid one and its node is registered. Only
   equality is compared. A commit also names the revision it starts from, and the epoch of the write policy that it
   was made for: with another one nothing is stored, see `rule`.
4. **Snapshot.** What a claim returns was read after the lock was got: no commit can lie between. Entries are read
   page by page: each page is one snapshot.
5. **Durability.** A commit that returned survives a crash of process and machine (unless the store was opened with a
   weaker named option). Claims, releases and heartbeats need not.
6. **Order.** Actors are ordered by code point of their id, entries by code point of their key.
7. **Errors.** Only `lazymig.errors` leave a store, the driver's error chained as cause. Cancelling an await never
   undoes a statement that the engine has begun: the outcome is then unknown to the caller, who settles it by reading.

An operation that cancels by itself, by a timeout or a cancel scope, does so in a task of its own: it may be driven in
the task of its caller, whose cancellations are kept from it (see `lazymig._uncut`).

`lazymig.testing.StoreSuite` is this text as tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazymig._bases import WritePolicy
    from lazymig._entries import Count, Page, Range
    from lazymig._fleet_records import NodeStatus
    from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, Previous, StoredActor
    from lazymig._rulings import Ruling
    from lazymig.copies import Copies
    from lazymig.failures import Failures
    from lazymig.post import Post
    from lazymig.sweeping import Sweeping


class Pulse(Protocol):
    """A node's line for heartbeats: used from one thread that is not the event loop's."""

    def beat(self, node_id: str, active: int = 0) -> bool:
        """Note that the node is alive, now by the store's clock, and how many actors are active on it.

        Returns:
            False if the node is not registered (any more): it must drop what it has active.

        Raises:
            StoreError: The heartbeat was not noted.
        """
        ...

    def close(self) -> None:
        """Free what the line holds; callable once, from the thread that used it."""
        ...


class Store(Protocol):
    """Keeps actors and nodes. Opened by `open_store`; usable by several nodes of one event loop."""

    @property
    def name(self) -> str:
        """Its URL without secrets, for people."""
        ...

    @property
    def post(self) -> Post:
        """The calls that travel."""
        ...

    @property
    def copies(self) -> Copies:
        """Whole actors, to be copied from store to store."""
        ...

    @property
    def sweeping(self) -> Sweeping:
        """Many actors at once."""
        ...

    @property
    def failures(self) -> Failures:
        """The records of migrations that failed."""
        ...

    async def register(
        self, node: NodeRecord, *, replaces: str | None = None, ruling: Callable[[], Ruling] | None = None
    ) -> Any:
        """Add a node with a heartbeat now; in the same transaction remove the one it replaces.

        Must leave every lock of the replaced node free and every fence of it void.

        Args:
            node: The node.
            replaces: Id of the one it replaces.
            ruling: Carried out first, as by `rule`; if it raises, nothing is changed. It doesn't see the replaced node.

        Returns:
            The ruling's answer, None without one.
        """
        ...

    async def rule(self, ruling: Callable[[], Ruling], *, is_change: bool = False) -> Any:
        """Answer a ruling's questions and do what it decides, in one transaction, while no node registers.

        Must let no commit of an earlier epoch take effect once this has returned with a changed write policy.

        Args:
            ruling: Makes it, anew for each try.
            is_change: Whether it may decide on anything to be done; without, nothing is written.

        Returns:
            Its answer.

        Raises:
            StoreError: The store's fault; whether something was changed is unknown if it fails at the end.
            CorruptStateError: What it asks for can't be read.
        """
        ...

    async def policy(self, actor_type: str) -> WritePolicy:
        """Return what the actors of a type are stored as, beside rulings: no lock is waited for, or held."""
        ...

    async def unregister(self, node_id: str) -> None:
        """Remove a node: its locks are free, its fences void. Unknown nodes are no error."""
        ...

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return all registered nodes, ordered by label, then id."""
        ...

    async def forget(self, node_id: str) -> bool:
        """Remove a node for good: once this returns, none of its fences is valid; False if it is unknown."""
        ...

    async def drain(self, node_id: str) -> bool:
        """Ask a node to give its actors up and take no more; False if it is unknown."""
        ...

    def open_pulse(self) -> Pulse:
        """Return a new line for heartbeats; called on the thread that will use it.

        Raises:
            StoreError: It can't be opened.
        """
        ...

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """Get the actor's lock and read the actor with its base, known or not, and its type's write policy.

        Returns:
            The lock and the actor; or who holds it, nothing changed.

        Raises:
            LeaseLostError: The fence's node is not registered.
            CorruptStateError: The stamp can't be read; the lock was not taken.
        """
        ...

    async def commit(self, commit: Commit) -> int | WritePolicy:
        """Store states, entries, base and stamp together, and release the lock if the commit says so.

        Must leave neither stamp nor marks nor record of a failure where no state, no entry and no base is left, and
        nothing that was kept by `Commit.keeps_previous`: such an actor is counted nowhere until something is stored of
        it again. `read` and `scan` still return it, and its revision goes on.

        Returns:
            The new revision; or the type's write policy if its epoch is not the commit's: then nothing was stored, and
            fence and revision may be wrong, too.

        Raises:
            LeaseLostError: Fence or revision is not the actor's, or the node is not registered; nothing was stored.
        """
        ...

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        """Give locks up. A fence that is not valid any more is passed over."""
        ...

    async def read(self, key: ActorKey) -> StoredActor | None:
        """Return an actor beside its lock, None if it was never stored.

        Raises:
            CorruptStateError: The stamp can't be read.
        """
        ...

    async def previous(self, key: ActorKey) -> Previous | None:
        """Return what `Commit.keeps_previous` last kept of an actor, byte for byte; None if nothing is kept.

        Raises:
            CorruptStateError: It can't be read.
        """
        ...

    async def entries(self, key: ActorKey, of: Range, limit: int, max_bytes: int) -> Page:
        """Return the first entries of a range, beside the actor's lock; none of an unknown actor.

        Must return all up to ``limit``, or up to the one with which their values together have ``max_bytes``: however
        large the entries are, a page is larger by one at most.

        Raises:
            CorruptStateError: One can't be read; names its key.
        """
        ...

    async def count_entries(self, key: ActorKey, of: Range) -> int:
        """Count the entries of a range."""
        ...

    async def tables(self, key: ActorKey) -> Sequence[Count]:
        """Count all the actor's entries by table and stamp, ordered by table.

        Raises:
            CorruptStateError: A stamp, or a table's name, can't be read.
        """
        ...

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """Return up to ``limit`` actors of a type whose id is above ``after``, in order.

        Raises:
            CorruptStateError: A stamp can't be read; names the actor.
        """
        ...

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """Count a type's stored actors by applied set; None stands for those without migration-info.

        An actor counts, here and in rulings, while a state, an entry or a base is stored of it.
        """
        ...

    async def stragglers(
        self, actor_type: str, sets: frozenset[AppliedSet | None], *, after: str = "", limit: int = 500
    ) -> Sequence[str]:
        """Return the ids of up to ``limit`` stored actors with one of these applied sets above ``after``, in order."""
        ...

    async def entry_census(self, actor_type: str) -> Mapping[AppliedSet, int]:
        """Count a type's entries by applied set."""
        ...

    async def types(self) -> Sequence[str]:
        """Return the types of stored actors, in order."""
        ...

    async def insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> frozenset[str]:
        """Store actors that don't exist, each with one state and without stamp, in one transaction.

        Returns:
            The ids stored. The others exist already and were left alone.
        """
        ...
