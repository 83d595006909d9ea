"""Calls as the contract tests send and take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig._fleet_records import Call, Offer
from lazymig._records import ActorKey, AppliedSet, NodeRecord
from lazymig._version import pack, parse
from lazymig.testing.store_bench import LEASE_SECONDS

if TYPE_CHECKING:
    from lazymig.store import Store

KEY = ActorKey("Car", "a")
HOSTILE = '\'; DROP TABLE call; -- "%s" \\ %(x)s :x ?1 $1 \n\t\U0001f697 é'
LONG_SECONDS = 100_000.0
"""Above all times for which a store keeps anything."""


def offer(version: str = "2.0.0", type: str = "Car", actions: tuple[str, ...] = ("drive",)) -> tuple[Offer, ...]:  # noqa: A002
    """Return what a node of a release can do."""
    return (Offer(type, AppliedSet([pack(parse(version))]), actions),)


async def join(
    store: Store,
    node_id: str,
    version: str = "2.0.0",
    *,
    type: str = "Car",  # noqa: A002
    actions: tuple[str, ...] = ("drive",),
) -> None:
    """Register a node of a release."""
    await store.register(NodeRecord(node_id, "label", None, LEASE_SECONDS, offer(version, type, actions)))


def call(  # noqa: PLR0913  (a call's fields)
    call_id: str,
    *,
    key: ActorKey = KEY,
    action: str = "drive",
    sender: str = "s",
    seconds: float = 60.0,
    needs: str = "0.0.0",
    target: str | None = None,
    chain: tuple[ActorKey, ...] = (),
) -> Call:
    """Return a call."""
    return Call(call_id, key, action, b"[[],{}]", sender, seconds, pack(parse(needs)), target, chain)


async def send(store: Store, call_id: str, **fields: Any) -> None:
    """Send a call, which must find room; fields as of `call`."""
    assert await store.post.send(call(call_id, **fields), max_waiting=1_000)


async def sees(store: Store, node_id: str) -> bool:
    """Tell whether a node finds calls that it could take."""
    mail = await store.post.peek(node_id, "other")
    return mail.has_calls


async def take(store: Store, node_id: str, limit: int = 9) -> list[str]:
    """Take calls; return their ids."""
    return [taken.call_id for taken in await store.post.take(node_id, limit)]


async def wanted(store: Store, node_id: str = "n1") -> tuple[ActorKey, ...]:
    """Return the actors that a node is to let go of."""
    return (await store.post.peek(node_id, "other")).wanted
