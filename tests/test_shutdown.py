"""A node ends, and nothing of it goes on: no heartbeat, no lock, no action."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors, hooks
from lazymig._records import ActorKey, Claim, Fence, Held, NodeRecord
from lazymig.testing import Fault, FaultyStore
from tests.boxes import offers
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig._fleet_records import Call
    from lazymig.store import Store


def hearts() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lazymig-heart")]


def suite_of(deactivate: Callable[[Any], Awaitable[None]], *, activate: Any = None) -> Suite:
    """Return a suite with boxes that count, and end as they are told."""

    class Box(Actor):
        def __init__(self, activation: Activation) -> None:
            self.id = activation.key.id
            self.state = activation.state()

        async def activate(self) -> None:
            await self.state.migrate_and_load(default={"n": 0})
            if activate is not None:
                await activate(self)

        async def deactivate(self) -> None:
            await deactivate(self)

        @action
        async def add(self) -> int:
            self.state.value["n"] += 1
            await self.state.persist()
            total: int = self.state.value["n"]
            return total

        @action
        async def note(self) -> None:
            self.state.value["n"] += 1

    suite = Suite("boxes")
    suite.actor_type("Box", Box)
    return suite


async def nothing(box: Any) -> None:
    """End quietly."""


async def values(store: Store) -> dict[str, bytes]:
    return {actor.key.id: actor.states["state"] for actor in await store.scan("Box")}


async def test_a_call_that_waits_for_a_lock_does_not_bring_a_stopped_node_back(store: Store) -> None:
    await store.register(NodeRecord("silent", "silent", None, 1000.0))
    assert isinstance(await store.claim(ActorKey("Box", "a"), Fence("silent", 1)), Claim)
    async with Node(store, [suite_of(nothing)], grace_seconds=0.05, hand_over_seconds=60) as node:
        waiting = [asyncio.create_task(node.call("Box", "a", "add")) for _ in range(2)]
        await settle()
    for call in waiting:
        with pytest.raises(errors.NodeStoppedError):
            await call
    assert node.node_id == ""
    assert hearts() == []
    assert isinstance(await store.claim(ActorKey("Box", "a"), Fence("silent", 2)), Claim)


async def test_a_call_that_finds_its_actor_elsewhere_when_the_node_has_stopped_is_refused_at_once(store: Store) -> None:
    async def claim_late(key: ActorKey, fence: Fence) -> Held:
        reached.set()
        await gate.wait()
        return Held("silent")

    gate, reached, faulty = asyncio.Event(), asyncio.Event(), FaultyStore(store)
    faulty.claim = claim_late  # type: ignore[method-assign]
    async with Node(faulty, [suite_of(nothing)], grace_seconds=0.05, hand_over_seconds=1_000) as node:
        calling = asyncio.create_task(node.call("Box", "a", "add"))
        await reached.wait()
    gate.set()
    with pytest.raises(errors.NodeStoppedError):
        await calling


async def test_a_call_that_is_sent_while_the_node_stops_is_refused_as_such(store: Store) -> None:
    async def send_late(call: Call, *, max_waiting: int) -> bool:
        reached.set()
        await gate.wait()
        return await store.post.send(call, max_waiting=max_waiting)

    await store.register(NodeRecord("other", "other", None, 1000.0, offers("1.0.0", "add")))
    gate, reached, faulty = asyncio.Event(), asyncio.Event(), FaultyStore(store)
    faulty.post.send = send_late  # type: ignore[method-assign]
    async with Node(faulty) as node:
        calling = asyncio.create_task(node.call("Box", "a", "add"))
        await reached.wait()
    gate.set()
    with pytest.raises(errors.NodeStoppedError):
        await calling
    assert not (await store.post.peek("other", "nobody")).has_calls


async def test_an_activation_that_outlives_the_grace_time_runs_no_action(store: Store) -> None:
    gate = asyncio.Event()

    async def slow(box: Any) -> None:
        await gate.wait()

    async with Node(store, [suite_of(nothing, activate=slow)], grace_seconds=0.05) as node:
        calling = asyncio.create_task(node.call("Box", "a", "add"))
        await settle()
    gate.set()
    with pytest.raises(errors.NodeStoppedError):
        await calling
    assert await values(store) == {}
    assert hearts() == []


async def test_actors_that_others_activate_while_the_node_stops_are_deactivated_too(store: Store) -> None:
    seen: list[hooks.Event] = []
    nodes: list[Node] = []

    async def tell_ledger(box: Any) -> None:
        if box.id == "ledger":
            await box.state.persist()
        else:
            await nodes[0].call("Box", "ledger", "note")

    async with Node(store, [suite_of(tell_ledger)], hooks=[seen.append]) as node:
        nodes.append(node)
        for actor_id in ("ledger", "x", "y", "z"):
            await node.call("Box", actor_id, "add")
    assert (await values(store))["ledger"] == b'{"n":4}'
    assert not any(isinstance(event, hooks.LeaseLost) for event in seen)


async def test_a_deactivate_that_raises_a_cancellation_harms_no_neighbour(store: Store) -> None:
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))

    async def cancel_or_persist(box: Any) -> None:
        if box.id == "bad":
            raise asyncio.CancelledError
        box.state.value["bye"] = True
        await box.state.persist()

    async with Node(store, [suite_of(cancel_or_persist)]) as node:
        for actor_id in ("bad", "x", "y"):
            await node.call("Box", actor_id, "add")
    found = await values(store)
    assert found == {"bad": b'{"n":1}', "x": b'{"n":1,"bye":true}', "y": b'{"n":1,"bye":true}'}
    assert len(failed) == 1


async def test_a_cancelled_start_leaves_no_node_behind(store: Store) -> None:
    faulty = FaultyStore(store)

    async def start() -> None:
        faulty.arm(Fault(0, "after", "interrupt"), asyncio.current_task())
        async with Node(faulty, [suite_of(nothing)]):
            raise AssertionError("it was cancelled")

    task = asyncio.create_task(start())
    await asyncio.wait([task])
    assert task.cancelled()
    assert faulty.calls == ["register", "unregister"]
    assert hearts() == []


async def test_a_node_signs_off_under_a_cancelled_scope(store: Store) -> None:
    faulty = FaultyStore(store)
    with anyio.CancelScope() as scope:
        async with Node(faulty, [suite_of(nothing)]) as node:
            await node.call("Box", "a", "add")
            scope.cancel()
            await anyio.sleep_forever()
    assert faulty.calls[-1] == "unregister"
    assert hearts() == []
    async with Node(store, [suite_of(nothing)], hand_over_seconds=0) as other:
        assert await other.call("Box", "a", "add") == 2


async def test_cancelling_whoever_leaves_a_node_is_not_swallowed(store: Store) -> None:
    left = asyncio.Event()

    async def run() -> None:
        async with Node(store, [suite_of(nothing)]):
            left.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await left.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert hearts() == []


async def test_an_actor_that_swallows_its_failed_migration_is_not_active(store: Store) -> None:
    ran: list[str] = []

    class Careless(Actor):
        def __init__(self, activation: Activation) -> None:
            self.state = activation.state()

        async def activate(self) -> None:
            try:
                await self.state.migrate_and_load(default={})
            except errors.LazymigError:
                ran.append("swallowed")

        async def deactivate(self) -> None:
            ran.append("deactivated")

        @action
        async def act(self) -> None:
            ran.append("acted")

    suite = Suite("careless")
    suite.actor_type("Careless", Careless).migration("1.0.0")(lambda state, context: state["missing"])
    await store.insert("Careless", "state", [("a", b"{}")])
    async with Node(store, [suite]) as node:
        with pytest.raises(errors.MigrationFailedError):
            await node.call("Careless", "a", "act")
    assert ran == ["swallowed"]


async def test_calls_on_an_actor_elsewhere_ask_for_its_lock_once_each(store: Store) -> None:
    suite, counted = suite_of(nothing), FaultyStore(store)
    async with Node(store, [suite]) as owner, Node(counted, [suite]) as node:
        await owner.call("Box", "a", "add")
        done = await asyncio.gather(*(node.call("Box", "a", "add") for _ in range(8)))
    assert sorted(done) == list(range(2, 10))
    assert counted.calls.count("claim") == counted.calls.count("send") == 8


async def test_a_release_that_fails_with_the_last_persist_is_made_up_for(store: Store) -> None:
    faulty = FaultyStore(store)
    async with Node(faulty, [suite_of(nothing)]) as node, Node(store, [suite_of(nothing)]) as other:
        faulty.arm(Fault(1, "before", "error"))
        async with node.activate("Box", "a") as activation:
            await activation.state().load()
            with pytest.raises(errors.StoreUnavailableError):
                await activation.persist(release=True)
        async with other.activate("Box", "a", wait_seconds=5):
            pass


async def test_only_a_block_gives_its_lock_up_by_itself(store: Store) -> None:
    async def release(box: Any) -> None:
        await box.state._activation.persist(release=True)

    async with Node(store, [suite_of(nothing, activate=release)]) as node:
        with pytest.raises(errors.DefinitionError, match="for blocks"):
            await node.call("Box", "a", "add")


async def test_a_node_that_waits_for_another_s_idle_actor_gets_it(store: Store) -> None:
    async with Node(store, [suite_of(nothing)], idle_seconds=0) as owner, Node(store, [suite_of(nothing)]) as node:
        await owner.call("Box", "a", "add")
        assert await node.call("Box", "a", "add") == 2
        await until(lambda: not owner._residents._mailboxes)


async def test_nobody_waits_for_an_action_that_outlives_its_node(store: Store) -> None:
    gate = asyncio.Event()

    class Stuck(Actor):
        @action
        async def hang(self) -> None:
            await gate.wait()

    suite = Suite("stuck")
    suite.actor_type("Stuck", Stuck)
    async with Node(store, [suite], grace_seconds=0.05) as node:
        running = asyncio.create_task(node.call("Stuck", "a", "hang"))
        await settle()
        queued = asyncio.create_task(node.call("Stuck", "a", "hang"))
        await settle()
    with pytest.raises(errors.NodeStoppedError):
        await queued
    assert not running.done()
    gate.set()
    await running


async def test_housekeeping_that_meets_the_end_of_its_node_just_ends(store: Store) -> None:
    async with Node(store) as node:
        residents = node._residents
    residents._wake.set()
    async with asyncio.timeout(10):
        await residents.keep_house()
