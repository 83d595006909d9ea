"""Frozen values about nodes and the calls that travel between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from lazymig import _version
from lazymig._records import ActorKey

if TYPE_CHECKING:
    from lazymig._records import AppliedSet


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node can do for the actors of a type.

    Attributes:
        type: The actor type.
        registered: The versions its release registers.
        actions: Names of its actions, in order.
        late: Those of its versions, packed, that may run on states of a later one.
        one_way: Those of its versions, packed, that have no way down, each with what lacks it, for people.
    """

    type: str
    registered: AppliedSet
    actions: tuple[str, ...] = ()
    late: tuple[int, ...] = ()
    one_way: tuple[tuple[int, str], ...] = ()

    @property
    def below(self) -> int:
        """The first version, packed, that is too new for it."""
        return _version.next_major(self.registered.highest)

    def can_read(self, version: int) -> bool:
        """Tell whether it may activate an actor stored at a version (packed)."""
        return version < self.below

    def why_not_stored(self, version: int) -> str:
        """Return why it can't store its actors at a write version (packed), for people; "" if it can."""
        supported = self.registered.highest
        if supported < version:
            return f"it supports {_version.unpack(supported)} only"
        if self.registered.floor > version:
            return f"it begins with the baseline {_version.unpack(self.registered.floor)}"
        if _version.is_newer_major(supported, _version.next_major(version)):
            return f"it supports {_version.unpack(supported)}, more than one major version above"
        missing = [what for number, what in self.one_way if number > version]
        return f"it has no way down: {', '.join(missing)}" if missing else ""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A registered node as others see it.

    Attributes:
        node_id: The incarnation.
        label: For people.
        build: Name of the release it runs, or None.
        age_seconds: Since its last heartbeat, by the store's clock.
        lease_seconds: How long it counts as alive after a heartbeat.
        is_alive: Whether its lease lasts.
        is_draining: Whether it takes no new actors.
        active: How many actors were active on it at its last heartbeat.
        offers: What it can do, ordered by type.
    """

    node_id: str
    label: str
    build: str | None
    age_seconds: float
    lease_seconds: float
    is_alive: bool
    is_draining: bool
    active: int
    offers: tuple[Offer, ...]

    def offer(self, actor_type: str) -> Offer | None:
        """Return what it can do for a type."""
        return next((offer for offer in self.offers if offer.type == actor_type), None)


class CallStatus(IntEnum):
    """Where a call is; each step is a compare-and-set.

    waiting → taken → done | lost; waiting → cancelled. A taken call goes back to waiting only by the node that took it,
    before any code of the action ran. The last three are final.
    """

    WAITING = 0
    TAKEN = 1
    DONE = 2
    LOST = 3
    CANCELLED = 4


NOBODY = ActorKey("-", "-")
"""Whose call it is that can't be read, or is not there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call on its way to a node that can take it.

    Attributes:
        call_id: Drawn by the caller.
        key: The actor.
        action: Name of the action; "" asks the actor's owner to let go of it when it is idle.
        arguments: JSON: a list of the positional ones, and an object of the named ones.
        sender: Who gets the answer; the same through all registrations of a node.
        wait_seconds: How long it may wait to be taken, from now by the store's clock.
        needs: Only nodes that can read this version (packed) may take it.
        target: The node that holds the actor: while it is alive only that one may take it. None when sent: the store
            puts the actor's living owner here.
        chain: The actors that wait for this call, outermost first.
        traceparent: Of the caller's trace (W3C Trace Context), or None.
        takes: How often it was taken, this time included: what comes late from an earlier time counts no more.
    """

    call_id: str
    key: ActorKey
    action: str
    arguments: bytes
    sender: str
    wait_seconds: float
    needs: int = 0
    target: str | None = None
    chain: tuple[ActorKey, ...] = ()
    traceparent: str | None = None
    takes: int = 0


@dataclass(frozen=True, slots=True)
class CallState:
    """How far a call has come.

    Attributes:
        status: See `CallStatus`.
        result: What came back, once it is done.
        taker: Node id of who took it.
        is_taker_alive: False if the taker is dead.
        needs: See `Call`; whoever passed it on may have raised it.
        target: Node id of the owner it waits for, or None.
    """

    status: CallStatus
    result: bytes | None = None
    taker: str | None = None
    is_taker_alive: bool = True
    needs: int = 0
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """What a node finds when it looks.

    Attributes:
        has_calls: Whether there are calls that it could take.
        wanted: Actors it holds and somebody waits for.
        answers: Call id to state, of the sender's calls that were taken or have ended, and of those that wait though
            their time is over: whoever took them has let them wait again.
        fleet: Number that changes when nodes come, go or begin to drain.
        taken: Id and `Call.takes` of the calls that this node has taken and neither answered nor passed on.
    """

    has_calls: bool
    wanted: tuple[ActorKey, ...]
    answers: dict[str, CallState]
    fleet: int
    taken: frozenset[tuple[str, int]] = frozenset()
