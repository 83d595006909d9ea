"""A store that fails when told to: the n-th call, before or after it took effect."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from lazymig.errors import LazymigError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from lazymig._bases import WritePolicy
    from lazymig._entries import Count, Page, Range
    from lazymig._fleet_records import Call, CallState, NodeStatus
    from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, Previous, StoredActor
    from lazymig._rulings import Ruling
    from lazymig.copies import Copies
    from lazymig.failures import Failures
    from lazymig.post import Post
    from lazymig.store import Pulse, Store
    from lazymig.sweeping import Sweeping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong.

    Attributes:
        at: Number of the call, from 0, counted since `FaultyStore.arm`.
        when: Before the call takes effect, after it has, or "later": it fails at once and takes effect afterwards, as
            when a connection is lost over it ("error" only).
        how: "error" raises StoreUnavailableError; "cancel" raises CancelledError, as if the await had been cut off;
            "interrupt" cancels the task given to `arm` while the call is going on.
        times: How many calls in a row.
    """

    at: int
    when: Literal["before", "after", "later"]
    how: Literal["error", "cancel", "interrupt"]
    times: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't come.

        Raises:
            ValueError: "later", and not an "error".
        """
        if self.when == "later" and self.how != "error":
            raise ValueError(f"how is {self.how!r}: a call that takes effect later fails by 'error' only")


class FaultyStore:
    """Passes every operation on to another store, and notes its name, except for the one that is to fail.

    Args:
        store: The other store.
        gate: Awaited before and after each operation: where a simulated process stands still, or is killed.

    Attributes:
        calls: Names of the operations since `arm`, in order.
        has_struck: Whether the fault has come.
        pulse_calls: "open_pulse" and "beat" since `arm_pulse`, in order; noted by the heartbeat's thread.
    """

    def __init__(self, store: Store, gate: Callable[[], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._gate = gate
        self._fault: Fault | None = None
        self._victim: asyncio.Task[Any] | None = None
        self.calls: list[str] = []
        self.has_struck = False
        self._landing: list[asyncio.Task[None]] = []
        self._pulse_fault: Fault | None = None
        self.pulse_calls: list[str] = []
        self.post = _FaultyPost(store.post, self._pass)
        self.copies = cast("Copies", _FaultyPart("copies", store.copies, self._pass))
        self.sweeping = cast("Sweeping", _FaultyPart("sweeping", store.sweeping, self._pass))
        self.failures = cast("Failures", _FaultyPart("failures", store.failures, self._pass))

    def arm(self, fault: Fault | None, victim: asyncio.Task[Any] | None = None) -> None:
        """Begin to count, and let this fault come; None only counts."""
        self._fault = fault
        self._victim = victim
        self.calls = []
        self.has_struck = False

    def arm_pulse(self, fault: Fault | None) -> None:
        """Begin to count the calls of heartbeats, and let this fault come, an "error"; None only counts."""
        if fault is not None and (fault.how != "error" or fault.when == "later"):
            raise ValueError(f"{fault} can't come: a heartbeat has a thread of its own, it fails by 'error' at once")
        self._pulse_fault = fault
        self.pulse_calls = []

    @property
    def name(self) -> str:
        """See `Store.name`."""
        return self._store.name

    async def register(
        self, node: NodeRecord, *, replaces: str | None = None, ruling: Callable[[], Ruling] | None = None
    ) -> Any:
        """See `Store.register`."""
        return await self._pass("register", self._store.register(node, replaces=replaces, ruling=ruling))

    async def rule(self, ruling: Callable[[], Ruling], *, is_change: bool = False) -> Any:
        """See `Store.rule`."""
        return await self._pass("rule", self._store.rule(ruling, is_change=is_change))

    async def policy(self, actor_type: str) -> WritePolicy:
        """See `Store.policy`."""
        return await self._pass("policy", self._store.policy(actor_type))

    async def unregister(self, node_id: str) -> None:
        """See `Store.unregister`."""
        return await self._pass("unregister", self._store.unregister(node_id))

    def open_pulse(self) -> Pulse:
        """See `Store.open_pulse`; counted apart, see `arm_pulse`."""
        return _FaultyPulse(self._pass_pulse("open_pulse", self._store.open_pulse), self._pass_pulse)

    async def nodes(self) -> Sequence[NodeStatus]:
        """See `Store.nodes`; read whenever the fleet has changed, so neither counted nor hit."""
        return await self._store.nodes()

    async def forget(self, node_id: str) -> bool:
        """See `Store.forget`."""
        return await self._pass("forget", self._store.forget(node_id))

    async def drain(self, node_id: str) -> bool:
        """See `Store.drain`."""
        return await self._pass("drain", self._store.drain(node_id))

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """See `Store.claim`."""
        return await self._pass("claim", self._store.claim(key, fence))

    async def commit(self, commit: Commit) -> int | WritePolicy:
        """See `Store.commit`."""
        return await self._pass("commit", self._store.commit(commit))

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        """See `Store.release`."""
        return await self._pass("release", self._store.release(held))

    async def read(self, key: ActorKey) -> StoredActor | None:
        """See `Store.read`."""
        return await self._pass("read", self._store.read(key))

    async def previous(self, key: ActorKey) -> Previous | None:
        """See `Store.previous`."""
        return await self._pass("previous", self._store.previous(key))

    async def entries(self, key: ActorKey, of: Range, limit: int, max_bytes: int) -> Page:
        """See `Store.entries`."""
        return await self._pass("entries", self._store.entries(key, of, limit, max_bytes))

    async def count_entries(self, key: ActorKey, of: Range) -> int:
        """See `Store.count_entries`."""
        return await self._pass("count_entries", self._store.count_entries(key, of))

    async def tables(self, key: ActorKey) -> Sequence[Count]:
        """See `Store.tables`."""
        return await self._pass("tables", self._store.tables(key))

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """See `Store.scan`."""
        return await self._pass("scan", self._store.scan(actor_type, after=after, limit=limit))

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """See `Store.census`."""
        return await self._pass("census", self._store.census(actor_type))

    async def stragglers(
        self, actor_type: str, sets: frozenset[AppliedSet | None], *, after: str = "", limit: int = 500
    ) -> Sequence[str]:
        """See `Store.stragglers`."""
        found = self._store.stragglers(actor_type, sets, after=after, limit=limit)
        return await self._pass("stragglers", found)

    async def entry_census(self, actor_type: str) -> Mapping[AppliedSet, int]:
        """See `Store.entry_census`."""
        return await self._pass("entry_census", self._store.entry_census(actor_type))

    async def types(self) -> Sequence[str]:
        """See `Store.types`."""
        return await self._pass("types", self._store.types())

    async def insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> frozenset[str]:
        """See `Store.insert`."""
        return await self._pass("insert", self._store.insert(actor_type, state, rows))

    async def _pass(self, name: str, operation: Coroutine[Any, Any, T]) -> T:
        if self._gate is None:
            return await self._strike(name, operation)
        try:
            await self._gate()
        except BaseException:
            operation.close()
            raise
        result = await self._strike(name, operation)
        await self._gate()
        return result

    async def _strike(self, name: str, operation: Coroutine[Any, Any, T]) -> T:
        number = len(self.calls)
        self.calls.append(name)
        fault = self._fault
        if fault is None or not fault.at <= number < fault.at + fault.times:
            return await operation
        self.has_struck = True
        if fault.when == "later":
            landing = asyncio.ensure_future(self._land(operation))
            landing.add_done_callback(partial(_note_landed, operation))
            self._landing.append(landing)
            raise _exception(fault)
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

    async def _land(self, operation: Coroutine[Any, Any, object]) -> None:
        """Let an operation take effect that nobody waits for any more."""
        with suppress(LazymigError):
            if self._gate is not None:
                await self._gate()
            await operation

    def _pass_pulse(self, name: str, operation: Callable[[], T]) -> T:
        number = len(self.pulse_calls)
        self.pulse_calls.append(name)
        fault = self._pulse_fault
        if fault is None or not fault.at <= number < fault.at + fault.times:
            return operation()
        if fault.when == "after" and name == "beat":  # a line that nobody gets would never be closed
            operation()
        raise _exception(fault)

    def _interrupt(self) -> None:
        if self._victim is None:
            raise AssertionError("an interrupt needs a victim: arm(fault, asyncio.current_task())")
        self._victim.cancel()


class _FaultyPost:
    """The calls of a `FaultyStore`. Looking for mail and tidying up go by the clock: neither counted nor hit."""

    def __init__(self, post: Post, pass_on: Callable[[str, Coroutine[Any, Any, Any]], Awaitable[Any]]) -> None:
        self._post = post
        self._pass = pass_on
        self.poll_seconds = post.poll_seconds
        self.peek = post.peek
        self.watch = post.watch
        self.tidy = post.tidy

    async def send(self, call: Call, *, max_waiting: int) -> bool:
        """See `Post.send`."""
        return bool(await self._pass("send", self._post.send(call, max_waiting=max_waiting)))

    async def take(self, node_id: str, limit: int, *, only_nested: bool = False) -> Sequence[Call]:
        """See `Post.take`."""
        taken: Sequence[Call] = await self._pass("take", self._post.take(node_id, limit, only_nested=only_nested))
        return taken

    async def taken(self, node_id: str) -> Sequence[Call]:
        """See `Post.taken`."""
        taken: Sequence[Call] = await self._pass("taken", self._post.taken(node_id))
        return taken

    async def answer(self, call_id: str, node_id: str, result: bytes, *, takes: int) -> bool:
        """See `Post.answer`."""
        return bool(await self._pass("answer", self._post.answer(call_id, node_id, result, takes=takes)))

    async def forward(self, call_id: str, node_id: str, **how: Any) -> bool:
        """See `Post.forward`."""
        return bool(await self._pass("forward", self._post.forward(call_id, node_id, **how)))

    async def cancel(self, call_id: str, sender: str, *, is_stored: bool = False) -> CallState:
        """See `Post.cancel`."""
        state: CallState = await self._pass("cancel", self._post.cancel(call_id, sender, is_stored=is_stored))
        return state

    async def lose(self, call_id: str) -> CallState:
        """See `Post.lose`."""
        state: CallState = await self._pass("lose", self._post.lose(call_id))
        return state

    async def remove(self, call_ids: Sequence[str]) -> None:
        """See `Post.remove`."""
        await self._pass("remove", self._post.remove(call_ids))


class _FaultyPart:
    """A part of a `FaultyStore` that has operations only; they are noted as ``part.operation``."""

    def __init__(
        self, name: str, part: object, pass_on: Callable[[str, Coroutine[Any, Any, Any]], Awaitable[Any]]
    ) -> None:
        self._name = name
        self._part = part
        self._pass = pass_on

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return an operation that is passed on."""
        operation = getattr(self._part, name)
        return lambda *args, **kwargs: self._pass(f"{self._name}.{name}", operation(*args, **kwargs))


class _FaultyPulse:
    """The line for heartbeats of a `FaultyStore`."""

    def __init__(self, pulse: Pulse, pass_on: Callable[[str, Callable[[], bool]], bool]) -> None:
        self._pulse = pulse
        self._pass = pass_on

    def beat(self, node_id: str, active: int = 0) -> bool:
        """See `Pulse.beat`."""
        return self._pass("beat", lambda: self._pulse.beat(node_id, active))

    def close(self) -> None:
        """See `Pulse.close`."""
        self._pulse.close()


def _note_landed(operation: Coroutine[Any, Any, object], landing: asyncio.Task[None]) -> None:
    """Leave nothing of an operation whose process was killed before it took effect."""
    operation.close()
    if not landing.cancelled():
        landing.exception()


def _exception(fault: Fault) -> BaseException:
    if fault.how == "cancel":
        return asyncio.CancelledError()
    return StoreUnavailableError(f"planted: call {fault.at} failed {fault.when} it took effect. Try again.")
