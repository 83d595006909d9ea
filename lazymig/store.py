"""The Store Protocol: what an engine promises, so that lazymig can promise the rest.

A store keeps actors (states, stamp, revision, lock) and nodes. It knows no migration: values are bytes to it, stamps
are sets of numbers. Every operation is atomic and one round trip: it has happened entirely, or not at all.

Rules that every store must keep:

1. **Lock.** At most one fence is valid for an actor. A claim succeeds if the actor is free, if its holder is the
   claiming node itself (whose earlier fence is void from then on), or if its holder is dead.
2. **Dead** is a node that is not registered, whose last heartbeat is at least its lease time old by the store's clock,
   or that the store can prove to be gone. Whoever is merely slow is not dead.
3. **Fence.** A commit or release is carried out only if its fence is the valid one and its node is registered. Only
   equality is compared. A commit also names the revision it starts from.
4. **Snapshot.** What a claim returns was read after the lock was got: no commit can lie between.
5. **Durability.** A commit that returned survives a crash of process and machine (unless the store was opened with a
   weaker named option). Claims, releases and heartbeats need not.
6. **Order.** Actors are ordered by code point of their id.
7. **Errors.** Only `lazymig.errors` leave a store, the driver's error chained as cause. Cancelling an await never
   undoes a statement that the engine has begun: the outcome is then unknown to the caller, who settles it by reading.

`lazymig.testing.StoreSuite` is this text as tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, StoredActor


class Pulse(Protocol):
    """A node's line for heartbeats: used from one thread that is not the event loop's."""

    def beat(self, node_id: str) -> bool:
        """Note that the node is alive, now by the store's clock.

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

    async def register(self, node: NodeRecord, *, replaces: str | None = None) -> None:
        """Add a node with a heartbeat now; in the same transaction remove the one it replaces.

        Must leave every lock of the replaced node free and every fence of it void.
        """
        ...

    async def unregister(self, node_id: str) -> None:
        """Remove a node: its locks are free, its fences void. Unknown nodes are no error."""
        ...

    def open_pulse(self) -> Pulse:
        """Return a new line for heartbeats; called on the thread that will use it.

        Raises:
            StoreError: It can't be opened.
        """
        ...

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """Get the actor's lock and read the actor, known or not.

        Returns:
            The lock and the actor; or who holds it, nothing changed.

        Raises:
            LeaseLostError: The fence's node is not registered.
            CorruptStateError: The stamp can't be read; the lock was not taken.
        """
        ...

    async def commit(self, commit: Commit) -> int:
        """Store states and stamp together, and release the lock if the commit says so.

        Returns:
            The new revision.

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

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """Return up to ``limit`` actors of a type whose id is above ``after``, in order.

        Raises:
            CorruptStateError: A stamp can't be read; names the actor.
        """
        ...

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """Count a type's stored actors by applied set; None stands for those without migration-info."""
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
