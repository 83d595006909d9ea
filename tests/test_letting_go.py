"""A node lets go of actors: idle ones, too many, all of them when it stops, those it is not sure of."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors, hooks
from lazymig._records import ActorKey, Claim, Fence, NodeRecord
from lazymig.testing import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig.store import Store
from tests.test_node import Bench, settle, until


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_an_idle_actor_is_let_go_and_comes_back(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite], idle_seconds=0) as node, Node(store, [bench.suite]) as other:
        await node.actor(bench.counter, "a").add(3)
        assert await other.actor(bench.counter, "a").add(4) == 7
        assert bench.log[:3] == ["made", "activated", "deactivated"]


async def test_of_too_many_actors_the_longest_idle_go(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite], max_active=3, idle_seconds=1_000) as node:
        for number in range(6):
            await node.actor(bench.counter, str(number)).add()
        await until(lambda: bench.log.count("deactivated") == 3)
        made = bench.log.count("made")
        for number in (3, 4, 5):
            await node.actor(bench.counter, str(number)).read()
        assert bench.log.count("made") == made


async def test_no_more_actors_go_than_are_too_many_however_long_that_takes(store: Store, bench: Bench) -> None:
    class Slow(FaultyStore):
        async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
            await until(lambda: bench.log.count("made") == 6)
            await super().release(held)

    async with Node(Slow(store), [bench.suite], max_active=3, idle_seconds=1_000) as node:
        for number in range(6):
            await node.actor(bench.counter, str(number)).add()
        await until(lambda: len(node._residents._mailboxes) == 3 and not node._residents._going)
        assert bench.log.count("deactivated") == 3


async def test_a_stopping_node_lets_running_actions_finish_and_frees_everything(store: Store, bench: Bench) -> None:
    node = Node(store, [bench.suite])
    async with node:
        counter = node.actor(bench.counter, "a")
        await node.actor(bench.counter, "b").add()
        running = asyncio.create_task(counter.add(then="wait"))
        await until(lambda: bench.log.count("activated") == 2)
        asyncio.get_running_loop().call_later(0.01, bench.gate.set)
    assert await running == 1
    assert bench.log.count("deactivated") == 2
    assert node.node_id == ""
    with pytest.raises(errors.NodeStoppedError, match="async with Node"):
        await counter.read()
    with pytest.raises(errors.NodeStoppedError):
        async with node.activate("Plain", "a"):
            pass
    async with Node(store, [bench.suite]) as other:
        assert await other.actor(bench.counter, "a").read() == 1


async def test_an_action_that_outlives_the_grace_time_stores_nothing(store: Store, bench: Bench) -> None:
    async with Node(store, [bench.suite], grace_seconds=0.01) as node:
        running = asyncio.create_task(node.actor(bench.counter, "a").add(then="wait"))
        await until(lambda: "activated" in bench.log)
    bench.gate.set()
    with pytest.raises(errors.LeaseLostError):
        await running
    assert list(await store.scan("Counter")) == []


async def test_a_failing_deactivate_does_not_hold_the_lock(store: Store) -> None:
    seen: list[hooks.Event] = []

    class Broken(Actor):
        async def deactivate(self) -> None:
            raise RuntimeError("no")

        @action
        async def poke(self) -> None: ...

    suite = Suite("broken")
    broken = suite.actor_type("Broken", Broken)
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with Node(store, [suite], idle_seconds=0, hooks=[seen.append]) as node:
        await node.actor(broken, "a").poke()
        await until(lambda: any(isinstance(event, hooks.DeactivationFailed) for event in seen))
        async with Node(store, [suite]) as other:
            await other.actor(broken, "a").poke()
    assert [str(context["exception"]) for context in failed] == ["no"] * len(failed)
    assert "Broken 'a'" in failed[0]["message"]


async def test_a_node_is_entered_once_at_a_time_and_can_be_started_again(store: Store, bench: Bench) -> None:
    node = Node(store, [bench.suite], label="pod-1")
    async with node:
        first = node.node_id
        with pytest.raises(errors.DefinitionError, match="running already"):
            await node.__aenter__()
    async with node:
        assert node.node_id not in {"", first}
        assert await node.actor(bench.counter, "a").add() == 1


async def test_a_lock_is_given_up_whose_actor_was_imported_while_it_was_active(store: Store, bench: Bench) -> None:
    """The import leaves the lock alone, and the node may not store over what it brought."""
    async with Node(store, [bench.suite]) as node, Node(store, [bench.suite]) as other:
        running = asyncio.create_task(node.actor(bench.counter, "a").add(then="wait"))
        await until(lambda: bench.log.count("activated") == 1)
        await store.insert("Counter", "state", [("a", b'{"n":5}')])
        bench.gate.set()
        with pytest.raises(errors.LeaseLostError):
            await running
        async with other.activate("Counter", "a", wait_seconds=10) as activation:
            assert await activation.state().load() == {"n": 5}


async def test_nothing_is_left_running_after_a_node(store: Store, bench: Bench) -> None:
    before = asyncio.all_tasks()
    async with Node(store, [bench.suite]) as node:
        await node.actor(bench.counter, "a").add()
    gc.collect()
    await until(lambda: asyncio.all_tasks() == before)  # a look for mail that was cut off ends in the store


async def test_hooks_hear_what_happens_and_never_a_value(store: Store, bench: Bench, caplog: Any) -> None:
    seen: list[hooks.Event] = []

    def broken(event: hooks.Event) -> None:
        raise RuntimeError("a hook that raises hinders nobody")

    caplog.set_level("DEBUG", "lazymig")
    await store.insert("Counter", "state", [("a", b'{"n":424242424242424242}')])
    async with Node(store, [bench.suite], hooks=[broken, seen.append, hooks.LoggingHook()]) as node:
        counter = node.actor(bench.counter, "a")
        await counter.add(1)
        with pytest.raises(RuntimeError):
            await counter.add(1, then="fail")
        await counter.read()
    names = [type(event).__name__ for event in seen]
    assert names == [
        "NodeStarted", "Activated", "ActionFailed", "Activated", "Deactivated", "NodeStopped",
    ]  # fmt: skip
    text = caplog.text + "".join(str(vars(record)) for record in caplog.records if record.exc_info is None)
    assert "ActionFailed" in text
    assert any(getattr(record, "lazymig_action", None) == "add" for record in caplog.records)
    assert "4242424242424" not in text  # no time, and no thread's id, has that many digits alike
    assert "as asked" not in text


async def test_an_actor_whose_lock_is_not_sure_any_more_is_dropped_without_deactivate(
    store: Store, bench: Bench
) -> None:
    async with Node(store, [bench.suite]) as node:
        await node.actor(bench.counter, "a").add()
        node._membership.expire()
    assert bench.log == ["made", "activated"]


async def test_a_node_that_was_out_of_touch_says_which_actors_it_lost(store: Store, bench: Bench) -> None:
    seen: list[hooks.Event] = []
    async with Node(store, [bench.suite], hooks=[seen.append]) as node:
        before = node.node_id
        await node.actor(bench.counter, "a").add()
        node._membership.expire()
        assert await node.actor(bench.counter, "b").add() == 1
        lost = [(event.node, event.key.id) for event in seen if isinstance(event, hooks.LeaseLost)]
        started = [(event.node, event.replaces) for event in seen if isinstance(event, hooks.NodeStarted)]
        assert lost == [(before, "a")]
        assert started == [(before, None), (node.node_id, before)]
        assert await node.actor(bench.counter, "a").add() == 2


async def test_a_deactivate_that_hangs_holds_up_only_its_own_actor(store: Store) -> None:
    gone: list[str] = []
    gate = asyncio.Event()

    class Slow(Actor):
        def __init__(self, activation: Activation) -> None:
            self.id = activation.key.id

        async def deactivate(self) -> None:
            if self.id == "hangs":
                await gate.wait()
            gone.append(self.id)

        @action
        async def poke(self) -> None: ...

    suite = Suite("slow")
    slow = suite.actor_type("Slow", Slow)
    async with Node(store, [suite], idle_seconds=0) as node:
        for actor_id in ("hangs", "a", "b"):
            await node.actor(slow, actor_id).poke()
            await settle()
        await until(lambda: gone == ["a", "b"])
        gate.set()
        await node.actor(slow, "hangs").poke()
        assert gone[2] == "hangs"


async def test_a_block_that_is_cut_off_when_it_got_its_actor_gives_it_up(store: Store, bench: Bench) -> None:
    """The mark by which it asked for it is removed then, which takes time."""
    faulty = FaultyStore(store)

    async def remove(call_ids: Sequence[str]) -> None:
        await store.post.remove(call_ids)
        if blocking is not None:
            blocking.cancel()
            await settle()

    blocking: asyncio.Task[Any] | None = None
    await store.register(NodeRecord("silent", "silent", None, 1_000.0))
    key = ActorKey("Counter", "a")
    assert isinstance(await store.claim(key, Fence("silent", 1)), Claim)
    faulty.post.remove = remove  # type: ignore[method-assign]
    async with Node(faulty, [bench.suite]) as node, Node(store, [bench.suite]) as other:
        blocking = asyncio.create_task(node.activate("Counter", "a", wait_seconds=60).__aenter__())
        await settle()
        await store.unregister("silent")
        await asyncio.wait([blocking])
        assert blocking.cancelled()
        blocking = None
        assert await other.actor(bench.counter, "a").add() == 1
