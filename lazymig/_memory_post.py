"""The travelling calls of the store in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from lazymig._bases import NO_POLICY
from lazymig._fleet_records import NOBODY, Call, CallState, CallStatus, Mail, NodeStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from lazymig._bases import WritePolicy
    from lazymig._records import ActorKey, NodeRecord

FORGET_LEASES = 10
"""After that many lease times of silence a node is forgotten."""

KEEP_SECONDS = 600.0
"""How long a call is kept whose answer nobody fetches."""


@dataclass(slots=True)
class Registered:
    """A node's row."""

    record: NodeRecord
    beat_at: float
    active: int = 0
    is_draining: bool = False

    def is_alive(self, now: float) -> bool:
        """Tell whether its lease lasts."""
        return now - self.beat_at < self.record.lease_seconds

    def status(self, now: float) -> NodeStatus:
        """Return it as others see it."""
        record = self.record
        offers = tuple(sorted(record.offers, key=lambda offer: offer.type))
        return NodeStatus(
            record.node_id, record.label, record.build, now - self.beat_at, record.lease_seconds, self.is_alive(now),
            self.is_draining, self.active, offers,
        )  # fmt: skip


@dataclass(slots=True)
class _Letter:
    call: Call
    target: str | None
    needs: int
    until: float
    status: CallStatus = CallStatus.WAITING
    taker: str | None = None
    result: bytes | None = None
    takes: int = 0
    target_until: float = float("inf")

    def as_call(self) -> Call:
        """Return the call as who takes it gets it."""
        return replace(self.call, needs=self.needs, target=self.target, takes=self.takes)


class MemoryPost:
    """See `lazymig.store.Post`.

    Args:
        check_open: Raises if the store is closed.
        clock: The store's.
        nodes: Those registered, by id.
        policies: What is stored of each type.
        holder: Returns the living node that holds an actor.
    """

    poll_seconds = 0.005

    def __init__(
        self,
        check_open: Callable[[], None],
        clock: Callable[[], float],
        nodes: dict[str, Registered],
        policies: Mapping[str, WritePolicy],
        holder: Callable[[ActorKey], str | None],
    ) -> None:
        self._check_open = check_open
        self._clock = clock
        self._nodes = nodes
        self._policies = policies
        self._holder = holder
        self._letters: dict[str, _Letter] = {}
        self._watchers: list[Callable[[str], None]] = []
        self.fleet = 0

    @asynccontextmanager
    async def watch(self, wake: Callable[[str], None]) -> AsyncIterator[None]:
        """See `Post.watch`."""
        self._watchers.append(wake)
        try:
            yield
        finally:
            self._watchers.remove(wake)

    def _ring(self, whom: str | None) -> None:
        for wake in self._watchers:
            wake(whom or "")

    async def send(self, call: Call, *, max_waiting: int) -> bool:
        """See `Post.send`."""
        self._check_open()
        waiting = sum(
            other.call.key == call.key and other.call.action != "" and self._is_waiting(other)
            for other in self._letters.values()
        )
        if call.call_id in self._letters or (call.action and waiting >= max_waiting):
            return False
        target = call.target or self._holder(call.key)
        until = self._clock() + call.wait_seconds
        self._letters[call.call_id] = _Letter(call, target, call.needs, until)
        self._ring(target)
        return True

    async def peek(self, node_id: str, sender: str) -> Mail:
        """See `Post.peek`."""
        self._check_open()
        wanted = [
            letter.call.key
            for letter in self._letters.values()
            if self._is_waiting(letter) and not letter.call.action and self._holder(letter.call.key) == node_id
        ]
        answers = {
            call_id: self._state(letter)
            for call_id, letter in self._letters.items()
            if letter.call.sender == sender and letter.status != CallStatus.CANCELLED and not self._is_waiting(letter)
        }
        has_calls = any(self._is_for(node_id, letter) for letter in self._letters.values())
        taken = frozenset((call.call_id, call.takes) for call in self._calls_of(node_id))
        return Mail(has_calls, tuple(wanted), answers, self.fleet, taken)

    async def take(self, node_id: str, limit: int, *, only_nested: bool = False) -> Sequence[Call]:
        """See `Post.take`."""
        self._check_open()
        fitting = (
            letter
            for letter in self._letters.values()
            if self._is_for(node_id, letter) and (letter.call.chain or not only_nested)
        )
        taken = list(islice(fitting, limit))
        for letter in taken:
            letter.status, letter.taker, letter.takes = CallStatus.TAKEN, node_id, letter.takes + 1
        return [letter.as_call() for letter in taken]

    async def taken(self, node_id: str) -> Sequence[Call]:
        """See `Post.taken`."""
        self._check_open()
        return self._calls_of(node_id)

    async def answer(self, call_id: str, node_id: str, result: bytes, *, takes: int) -> bool:
        """See `Post.answer`."""
        letter = self._taken_by(call_id, node_id, takes)
        if letter is None:
            return False
        letter.status, letter.result, letter.until = CallStatus.DONE, result, self._clock() + KEEP_SECONDS
        self._ring(letter.call.sender)
        return True

    async def forward(  # noqa: PLR0913  (the Protocol's)
        self,
        call_id: str,
        node_id: str,
        *,
        takes: int,
        needs: int = 0,
        target: str | None = None,
        target_seconds: float | None = None,
    ) -> bool:
        """See `Post.forward`."""
        letter = self._taken_by(call_id, node_id, takes)
        if letter is None:
            return False
        letter.status, letter.taker, letter.target = CallStatus.WAITING, None, target
        letter.needs = max(letter.needs, needs)
        letter.target_until = float("inf") if target_seconds is None else self._clock() + target_seconds
        self._ring(target)
        return True

    async def cancel(self, call_id: str, sender: str, *, is_stored: bool = False) -> CallState:
        """See `Post.cancel`."""
        self._check_open()
        until = self._clock() + KEEP_SECONDS
        letter = self._letters.get(call_id)
        if letter is None and is_stored:
            return CallState(CallStatus.LOST)
        if letter is None:  # it may be on its way
            call = Call(call_id, NOBODY, "", b"", sender, 0.0)
            letter = self._letters[call_id] = _Letter(call, None, 0, until, CallStatus.CANCELLED)
        elif letter.status == CallStatus.WAITING:
            letter.status, letter.until = CallStatus.CANCELLED, until
        return self._state(letter)

    async def lose(self, call_id: str) -> CallState:
        """See `Post.lose`."""
        self._check_open()
        letter = self._letters.get(call_id)
        if letter is None:
            return CallState(CallStatus.LOST)
        if letter.status == CallStatus.TAKEN and not self._is_alive(letter.taker):
            letter.status, letter.until = CallStatus.LOST, self._clock() + KEEP_SECONDS
        return self._state(letter)

    async def remove(self, call_ids: Sequence[str]) -> None:
        """See `Post.remove`."""
        self._check_open()
        for call_id in call_ids:
            self._letters.pop(call_id, None)

    async def tidy(self) -> Sequence[str]:
        """See `Post.tidy`."""
        self._check_open()
        now = self._clock()
        for call_id, letter in list(self._letters.items()):
            is_running = letter.status == CallStatus.TAKEN and self._is_alive(letter.taker)
            is_open = letter.status in {CallStatus.WAITING, CallStatus.TAKEN}  # its sender may not know of its end yet
            if now >= letter.until + (KEEP_SECONDS if is_open else 0.0) and not is_running:
                del self._letters[call_id]
        return [
            node_id
            for node_id, node in self._nodes.items()
            if now - node.beat_at >= FORGET_LEASES * node.record.lease_seconds
        ]

    def _is_alive(self, node_id: str | None) -> bool:
        node = self._nodes.get(node_id or "")
        return node is not None and node.is_alive(self._clock())

    def _is_waiting(self, letter: _Letter) -> bool:
        return letter.status == CallStatus.WAITING and self._clock() < letter.until

    def _is_for(self, node_id: str, letter: _Letter) -> bool:
        node = self._nodes.get(node_id)
        if node is None or not letter.call.action or not self._is_waiting(letter):
            return False
        if letter.target == node_id:
            return True
        if (self._is_alive(letter.target) and self._clock() < letter.target_until) or node.is_draining:
            return False
        actor_type = letter.call.key.type
        write_version = self._policies.get(actor_type, NO_POLICY).version or 0
        return any(
            (offer.type == actor_type and letter.call.action in offer.actions)
            and (offer.can_read(letter.needs) and offer.registered.highest >= write_version)
            for offer in node.record.offers
        )

    def _calls_of(self, node_id: str) -> list[Call]:
        return [
            letter.as_call()
            for letter in self._letters.values()
            if (letter.status, letter.taker) == (CallStatus.TAKEN, node_id)
        ]

    def _taken_by(self, call_id: str, node_id: str, takes: int) -> _Letter | None:
        self._check_open()
        letter = self._letters.get(call_id)
        found = None if letter is None else (letter.status, letter.taker, letter.takes)
        return letter if found == (CallStatus.TAKEN, node_id, takes) else None

    def _state(self, letter: _Letter) -> CallState:
        is_alive = self._is_alive(letter.taker)
        return CallState(letter.status, letter.result, letter.taker, is_alive, letter.needs, letter.target)
