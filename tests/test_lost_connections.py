"""A connection is lost over a store call: it fails at once, and takes effect some time afterwards."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from lazymig import ActorKey, Node, Suite
from lazymig._records import Claim, Fence, NodeRecord
from lazymig.errors import StoreUnavailableError
from lazymig.fleet import on_machine
from lazymig.memory import MemoryStore
from lazymig.testing import Fault, FaultyStore
from lazymig.testing.simulation import Process, explore
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

KEY = ActorKey("Box", "a")
LEASE_SECONDS = 4.0


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Node, FaultyStore, MemoryStore]]:
    """Run a node on a store whose next call is lost, and lands later."""
    suite = Suite("boxes")
    suite.actor_type("Box")
    process = Process("pod")
    memory = MemoryStore(asyncio.get_running_loop().time)
    store = FaultyStore(memory, process.gate)
    with on_machine(process.machine):
        node = Node(store, [suite], lease_seconds=LEASE_SECONDS)
    async with node:
        yield node, store, memory


async def lose_a_claim() -> None:
    async with running() as (node, store, memory):
        store.arm(Fault(0, "later", "error"))
        with pytest.raises(StoreUnavailableError):
            async with node.activate("Box", "a"):
                pass
        assert store.calls[0] == "claim"
        await asyncio.sleep(LEASE_SECONDS)
        await memory.register(NodeRecord("other", "other", None, LEASE_SECONDS))
        assert isinstance(await memory.claim(KEY, Fence("other", 1)), Claim)


def test_claim_that_takes_effect_after_it_was_given_up_is_given_up_again() -> None:
    explore(lose_a_claim, schedules=200, seed=1)


async def lose_a_commit() -> None:
    async with running() as (node, store, memory):
        async with node.activate("Box", "a") as activation:
            state = activation.state()
            await state.migrate_and_load(default={"n": 1})
            store.arm(Fault(0, "later", "error"))
            with pytest.raises(StoreUnavailableError):
                await state.persist()
            state.value = {"n": 2}
            await state.persist()
        await asyncio.sleep(LEASE_SECONDS)
        found = await memory.read(KEY)
        assert found is not None
        assert found.states == {"state": b'{"n":2}'}


def test_commit_that_takes_effect_later_never_replaces_the_one_after_it() -> None:
    explore(lose_a_commit, schedules=200, seed=1)


class CountingStore(FaultyStore):
    """Counts the locks that are given up."""

    released = 0

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        self.released += len(held)
        await super().release(held)


async def test_callers_that_give_up_cost_one_release_each() -> None:
    suite = Suite("boxes")
    suite.actor_type("Box")
    store = CountingStore(MemoryStore())

    async def hold(node: Node, actor_id: str) -> None:
        store.arm(Fault(0, "after", "interrupt"), asyncio.current_task())
        async with node.activate("Box", actor_id):
            pass

    async with Node(store, [suite]) as node:
        for number in range(50):
            await asyncio.wait([asyncio.create_task(hold(node, str(number)))])
            assert store.has_struck
        await until(lambda: store.released >= 50)
        await settle()
    assert store.released == 50


def test_fault_that_can_not_come_is_refused() -> None:
    with pytest.raises(ValueError, match="later"):
        Fault(0, "later", "cancel")
    with pytest.raises(ValueError, match="heartbeat"):
        FaultyStore(MemoryStore()).arm_pulse(Fault(0, "later", "error"))
