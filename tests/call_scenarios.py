"""Calls that travel while the n-th store call fails: what the caller is told is so, and none runs twice.

Each scenario has one taker at a time, so that the store's calls come in one order, and ends when its calls are removed.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from lazymig import Node, errors
from lazymig._fleet_records import Offer
from lazymig._records import ActorKey, AppliedSet, Claim, Fence, NodeRecord
from tests.fault_scenarios import OLD, Scenario, tried, up_to_date
from tests.scenarios import GATES, LEASE_SECONDS

if TYPE_CHECKING:
    from tests.scenarios import World

PATIENCE_SECONDS = 30.0
"""Longer than any call of these scenarios waits, whatever fails."""

GIVEN_UP_SECONDS = 0.1
"""How long a call waits that nobody takes."""


def client(w: World, hand_over_seconds: float = PATIENCE_SECONDS) -> Node:
    """Return a node without suites: all its calls travel."""
    return Node(w.store, lease_seconds=LEASE_SECONDS, hand_over_seconds=hand_over_seconds)


async def removed(w: World, node: Node) -> None:
    """Wait until the store keeps none of a node's calls that were answered."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await w.inner.post.peek("nobody", node._courier.outbox.sender)).answers:  # noqa: ASYNC110  (in the store)
            await asyncio.sleep(0)


async def by_calling_elsewhere(w: World) -> None:
    """Calls of two nodes run where the actor is."""
    async with w.node() as owner, w.node(hand_over_seconds=PATIENCE_SECONDS) as other, client(w) as third:
        await w.ask(owner)
        for node in (other, third):
            await w.ask(node)
            await removed(w, node)


async def by_calling_newer_software(w: World) -> None:
    """Old software refuses the actor; the call goes to new software, the second one at first try."""
    async with w.node(OLD, hand_over_seconds=PATIENCE_SECONDS) as older, w.node():
        for _ in range(2):
            await w.ask(older)
            await removed(w, older)


async def by_passing_on(w: World) -> None:
    """Old software takes a call that needs newer software, and lets it wait for that."""
    async with client(w) as caller, AsyncExitStack() as stack:
        await stack.enter_async_context(w.node(OLD))
        call = asyncio.create_task(w.ask(caller))
        try:
            while not call.done() and "forward" not in w.store.calls:  # noqa: ASYNC110  (in the store)
                await asyncio.sleep(0)
            await stack.enter_async_context(w.node())
            await asyncio.wait([call])
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await call
        await removed(w, caller)


async def by_losing_the_taker(w: World) -> None:
    """The node that took a call is forgotten; what runs there may only end."""
    GATES[w.type], GATES[f"{w.type} ends"] = asyncio.Event(), asyncio.Event()
    async with client(w) as caller, w.node() as taker:
        holding = asyncio.create_task(w.ask(caller, "hold", w.type))
        begun = asyncio.create_task(GATES[w.type].wait())
        try:
            await asyncio.wait([holding, begun], return_when=asyncio.FIRST_COMPLETED)
            w.journal.overtaken((w.type, "a"))
            await w.inner.forget(taker.node_id)
            await asyncio.wait([holding])
        finally:
            GATES[f"{w.type} ends"].set()
            begun.cancel()
            await asyncio.gather(holding, begun, return_exceptions=True)
        with tried(w, errors.CallLostError):
            await holding
        await removed(w, caller)


async def by_giving_up(w: World) -> None:
    """Nobody takes a call: it is given up, and never runs."""
    key, fence = ActorKey(w.type, "a"), Fence(f"silent {w.type}", 1)
    offers = (Offer(w.type, AppliedSet(), ("add",)),)
    await w.inner.register(NodeRecord(fence.node, fence.node, None, LEASE_SECONDS, offers))
    assert isinstance(await w.inner.claim(key, fence), Claim)
    try:
        async with client(w, GIVEN_UP_SECONDS) as caller:
            with tried(w, errors.ActorLockedError, errors.CallNotTakenError):
                await w.ask(caller)
            left = await w.inner.post.take(fence.node, 9)
            assert not left or w.journal.asked[-1].end != "refused", "rule 10: a call that was refused can be taken"
    finally:
        await w.inner.unregister(fence.node)


CALL_SCENARIOS = [
    Scenario(by_calling_elsewhere, (3, 8, 10)),
    Scenario(by_calling_newer_software, (2, 8, 10), up_to_date),
    Scenario(by_passing_on, (2, 8, 10), up_to_date),
    Scenario(by_losing_the_taker, (8, 10)),
    Scenario(by_giving_up, (10,)),
]
