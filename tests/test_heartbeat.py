"""Who lives, and who may write: incarnations, fences, heartbeats."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action
from lazymig._records import ActorKey, Claim, Fence, Held, NodeRecord
from lazymig.errors import ActorLockedError, LeaseLostError, StoreUnavailableError
from lazymig.fleet import Machine, Membership, on_machine
from lazymig.hooks import Event, NodeStarted
from lazymig.memory import MemoryStore
from lazymig.testing import Fault, FaultyStore, ManualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig._records import StoredActor
    from lazymig.store import Store

KEY = ActorKey("Counter", "a")


class Counter(Actor):
    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=0)

    @action
    async def add(self, number: int) -> int:
        self.state.value += number
        await self.state.persist()
        total: int = self.state.value
        return total

    @action(shared=True)
    async def total(self) -> int:
        total: int = self.state.value
        return total


def counters() -> Suite:
    suite = Suite("counters")
    suite.actor_type("Counter", Counter)
    return suite


def node_on(machine: Machine, store: Store, suites: list[Suite] | None = None, **options: Any) -> Node:
    with on_machine(machine):
        return patient(store, **options) if suites is None else Node(store, suites, **options)


def patient(store: Store, **options: Any) -> Node:
    """Return a node whose heartbeat stays out of a test's way."""
    return Node(store, [counters()], lease_seconds=1000.0, hand_over_seconds=0, idle_seconds=1000.0, **options)


# --- incarnations and fences ---------------------------------------------------------------------------------------


class FenceNotingStore(FaultyStore):
    """Notes the fence of every claim."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.fences: list[Fence] = []

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        self.fences.append(fence)
        return await super().claim(key, fence)


async def test_fences_never_repeat_across_restarts_releases_and_clears(store: Store) -> None:
    noting = FenceNotingStore(store)
    for _ in range(3):
        async with patient(noting, label="pod-1") as node:
            for _ in range(3):
                async with node.activate("Counter", "a") as activation:
                    activation_state = activation.state()
                    await activation_state.migrate_and_load(default=1)
                    await activation.persist()
                    await activation_state.clear()
            node._membership.expire()
            await node.call("Counter", "a", "add", 1)
    assert len(noting.fences) == len(set(noting.fences)) == 12
    assert len({fence.node for fence in noting.fences}) == 6


async def test_restart_under_the_same_label_neither_frees_nor_keeps_the_dead_ones_locks() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.register(NodeRecord("dead", "pod-1", None, 3.0))
    await store.claim(KEY, Fence("dead", 1))
    async with patient(store, label="pod-1") as node:
        with pytest.raises(ActorLockedError) as locked:
            await node.call("Counter", "a", "add", 1)
        assert locked.value.owner == "dead"
        clock.advance(3.0)
        assert await node.call("Counter", "a", "add", 1) == 1


async def test_node_that_registers_anew_frees_its_locks_at_once(store: Store) -> None:
    async with patient(store) as node, patient(store) as other:
        await node.call("Counter", "a", "add", 1)
        before = node.node_id
        with pytest.raises(ActorLockedError) as locked:
            await other.call("Counter", "a", "add", 1)
        assert locked.value.owner == before
        node._membership.expire()
        await node.call("Counter", "b", "add", 1)
        assert node.node_id != before
        assert await other.call("Counter", "a", "add", 1) == 2


async def test_forgotten_node_stores_nothing_and_its_next_call_registers_anew(store: Store) -> None:
    async with patient(store) as node, patient(store) as other:
        await node.call("Counter", "a", "add", 1)
        before = node.node_id
        await store.unregister(before)
        assert await other.call("Counter", "a", "add", 10) == 11
        with pytest.raises(LeaseLostError):
            await node.call("Counter", "a", "add", 100)
        with pytest.raises(ActorLockedError):
            await node.call("Counter", "a", "total")
        assert node.node_id not in {"", before}
        async with other.activate("Counter", "a"):
            pass
        assert await node.call("Counter", "a", "total") == 11


async def test_forgotten_node_that_nobody_replaced_stores_nothing(store: Store) -> None:
    async with patient(store) as node:
        async with node.activate("Counter", "a") as activation:
            await activation.state().migrate_and_load(default=1)
            await store.unregister(node.node_id)
            with pytest.raises(LeaseLostError):
                await activation.persist()
        assert await node.inspect("Counter", "a") is None
        assert await node.call("Counter", "a", "add", 5) == 5


async def test_heartbeat_finds_out_that_the_node_was_forgotten(store: Store) -> None:
    registered_again = asyncio.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, NodeStarted) and event.replaces:
            registered_again.set()

    async with Node(store, [counters()], lease_seconds=0.4, hooks=[on_event]) as node:
        await node.call("Counter", "a", "add", 1)
        before = node.node_id
        await store.unregister(before)
        await registered_again.wait()
        assert node.node_id != before
        assert await node.call("Counter", "a", "add", 1) == 2


# --- trust ---------------------------------------------------------------------------------------------------------


def member(clock: ManualClock) -> Membership:
    with on_machine(Machine(clock=clock)):
        return Membership(MemoryStore(clock), "pod", None, 1000.0)


async def test_trust_that_ran_out_never_comes_back_by_a_late_acknowledgement() -> None:
    clock = ManualClock()
    membership = member(clock)
    await membership.join()
    node_id, sent = membership.node_id, clock()
    clock.advance(999.0)
    membership.acknowledge(node_id, clock())
    clock.advance(999.0)
    assert membership.is_fresh
    clock.advance(1.0)
    assert not membership.is_fresh
    for late in (sent, clock() - 1.0, clock()):
        membership.acknowledge(node_id, late)
        assert not membership.is_fresh
    await membership.join()
    assert membership.is_fresh
    membership.deny(node_id)
    assert membership.is_fresh, "the one before was denied"
    clock.advance(999.0)
    membership.acknowledge(node_id, clock())
    clock.advance(1.0)
    assert not membership.is_fresh, "the one before was acknowledged"
    await membership.leave()


async def test_trust_that_was_taken_away_never_comes_back_by_an_answer_on_its_way() -> None:
    clock = ManualClock()
    membership = member(clock)
    await membership.join()

    was_fresh = membership.is_fresh
    membership.expire()
    membership._acknowledged = clock()  # by the heartbeat's thread, which had found the trust unbroken
    assert was_fresh
    assert not membership.is_fresh
    await membership.leave()


async def test_trust_counts_from_when_a_heartbeat_was_sent() -> None:
    clock = ManualClock()
    membership = member(clock)
    await membership.join()
    sent = clock()
    clock.advance(900.0)
    membership.acknowledge(membership.node_id, sent)
    clock.advance(100.0)
    assert not membership.is_fresh
    await membership.leave()


async def test_action_begins_only_while_the_node_may_trust_itself() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    node = node_on(Machine(clock=clock), store)
    async with node, patient(store) as other:
        await node.call("Counter", "a", "add", 1)
        before = node.node_id
        clock.advance(1000.0)
        store.beat(other.node_id)
        assert await other.call("Counter", "a", "add", 10) == 11
        with pytest.raises(ActorLockedError):
            await node.call("Counter", "a", "total")
        assert node.node_id != before


async def test_letting_go_of_an_actor_that_was_just_dropped_blocks_nobody() -> None:
    async with patient(MemoryStore()) as node:
        await node.call("Counter", "a", "add", 1)
        residents = node._residents
        calls = [asyncio.create_task(node.call("Counter", "a", "add", 1))]
        letting_go = asyncio.create_task(residents._let_go_of(KEY, "idle"))
        calls.append(asyncio.create_task(node.call("Counter", "a", "add", 1)))
        residents.drop_all()  # before any of them has begun
        async with asyncio.timeout(10):
            await letting_go
            assert [await call for call in calls] == [2, 3]


# --- what became of a commit ---------------------------------------------------------------------------------------


class InterruptedStore(FaultyStore):
    """Lets something happen just before a read: the process stood still there."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def read(self, key: ActorKey) -> StoredActor | None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().read(key)


async def test_node_that_stood_still_while_it_settled_a_commit_overwrites_nobody() -> None:
    clock = ManualClock()
    memory = MemoryStore(clock)
    store = InterruptedStore(memory)
    node = node_on(Machine(clock=clock), store)

    async with node, patient(memory) as other:

        async def take_over() -> None:
            clock.advance(1000.0)
            memory.beat(other.node_id)
            async with other.activate("Counter", "a") as activation:
                activation.state().value = await activation.state().migrate_and_load(default=0) + 10
                await activation.persist(release=True)

        async with node.activate("Counter", "a") as activation:
            state = activation.state()
            await state.migrate_and_load(default=1)
            await state.persist()
            state.value = 2
            store.arm(Fault(0, "before", "error"))
            with pytest.raises(StoreUnavailableError):
                await state.persist()
            store.meanwhile = take_over
            with pytest.raises(LeaseLostError):
                await state.persist()
        record = await other.inspect("Counter", "a")
        assert record is not None
        assert record.states == {"state": 11}


@pytest.mark.parametrize("gives_up", [True, False])
async def test_lock_whose_settling_failed_half_way_is_given_up_in_the_end(store: Store, *, gives_up: bool) -> None:
    faulty = FaultyStore(store)
    async with patient(faulty) as node, patient(store) as other:
        async with node.activate("Counter", "a") as activation:
            state = activation.state()
            await state.migrate_and_load(default=1)
            await state.persist()
            state.value = 2
            faulty.arm(Fault(0, "before", "error"))  # the commit
            with pytest.raises(StoreUnavailableError):
                await state.persist()
            faulty.arm(Fault(1, "after", "error"))  # the claim that settles it takes effect, and fails
            with pytest.raises(StoreUnavailableError):
                await state.persist()
            assert faulty.calls == ["read", "claim"]
            if not gives_up:
                await state.persist()
        assert await other.call("Counter", "a", "total") == (1 if gives_up else 2)
