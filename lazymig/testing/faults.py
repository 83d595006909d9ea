"""A store that fails when told to: the n-th call, before or after it took effect."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lazymig.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, StoredActor
    from lazymig.store import Pulse, Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong.

    Attributes:
        at: Number of the call, from 0, counted since `FaultyStore.arm`.
        when: Before the call takes effect, or after it has.
        how: "error" raises StoreUnavailableError; "cancel" raises CancelledError, as if the await had been cut off;
            "interrupt" cancels the task given to `arm` while the call is going on.
    """

    at: int
    when: Literal["before", "after"]
    how: Literal["error", "cancel", "interrupt"]


class FaultyStore:
    """Passes every operation on to another store, and notes its name, except for the one that is to fail.

    Attributes:
        calls: Names of the operations since `arm`, in order.
        has_struck: Whether the fault has come.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fault: Fault | None = None
        self._victim: asyncio.Task[Any] | None = None
        self.calls: list[str] = []
        self.has_struck = False

    def arm(self, fault: Fault | None, victim: asyncio.Task[Any] | None = None) -> None:
        """Begin to count, and let this fault come; None only counts."""
        self._fault = fault
        self._victim = victim
        self.calls = []
        self.has_struck = False

    @property
    def name(self) -> str:
        """See `Store.name`."""
        return self._store.name

    async def register(self, node: NodeRecord, *, replaces: str | None = None) -> None:
        """See `Store.register`."""
        return await self._pass("register", self._store.register(node, replaces=replaces))

    async def unregister(self, node_id: str) -> None:
        """See `Store.unregister`."""
        return await self._pass("unregister", self._store.unregister(node_id))

    def open_pulse(self) -> Pulse:
        """See `Store.open_pulse`; heartbeats never fail here, they run on a thread of their own."""
        return self._store.open_pulse()

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """See `Store.claim`."""
        return await self._pass("claim", self._store.claim(key, fence))

    async def commit(self, commit: Commit) -> int:
        """See `Store.commit`."""
        return await self._pass("commit", self._store.commit(commit))

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        """See `Store.release`."""
        return await self._pass("release", self._store.release(held))

    async def read(self, key: ActorKey) -> StoredActor | None:
        """See `Store.read`."""
        return await self._pass("read", self._store.read(key))

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """See `Store.scan`."""
        return await self._pass("scan", self._store.scan(actor_type, after=after, limit=limit))

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """See `Store.census`."""
        return await self._pass("census", self._store.census(actor_type))

    async def types(self) -> Sequence[str]:
        """See `Store.types`."""
        return await self._pass("types", self._store.types())

    async def insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> frozenset[str]:
        """See `Store.insert`."""
        return await self._pass("insert", self._store.insert(actor_type, state, rows))

    async def _pass(self, name: str, operation: Coroutine[Any, Any, T]) -> T:
        number = len(self.calls)
        self.calls.append(name)
        fault = self._fault
        if fault is None or fault.at != number:
            return await operation
        self.has_struck = True
        if fault.when == "before" and fault.how != "interrupt":
            operation.close()
            raise _exception(fault)
        if fault.when == "before":
            self._interrupt()
        result = await operation
        if fault.how != "interrupt":
            raise _exception(fault)
        if fault.when == "after":
            self._interrupt()
        return result

    def _interrupt(self) -> None:
        if self._victim is None:
            raise AssertionError("an interrupt needs a victim: arm(fault, asyncio.current_task())")
        self._victim.cancel()


def _exception(fault: Fault) -> BaseException:
    if fault.how == "cancel":
        return asyncio.CancelledError()
    return StoreUnavailableError(f"planted: call {fault.at} failed {fault.when} it took effect. Try again.")
