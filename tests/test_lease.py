from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Node, Suite, errors, hooks
from lazymig._mailbox import Mailbox
from lazymig._records import Claim, Commit, Fence, NodeRecord
from lazymig.memory import MemoryStore
from lazymig.testing import Fault, FaultyStore, ManualClock

if TYPE_CHECKING:
    from collections.abc import Coroutine

suite = Suite("lease")
suite.actor_type("Box")


class SlowStore(FaultyStore):
    """Begins every commit and ends it when it is let."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def _pass(self, name: str, operation: Coroutine[Any, Any, Any]) -> Any:
        found = await super()._pass(name, operation)
        if name == "commit":
            self.begun.set()
            await self.gate.wait()
        return found


async def test_a_cancelled_persist_ends_with_its_commit_and_knows_the_outcome() -> None:
    store = SlowStore()
    async with Node(store, [suite]) as node, node.activate("Box", "a") as activation:
        await activation.state().migrate_and_load(default={"n": 1})
        persisting = asyncio.create_task(activation.persist())
        await store.begun.wait()
        for _ in range(3):
            persisting.cancel()
            await asyncio.sleep(0)
        assert not persisting.done()
        store.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await persisting
        store.arm(None)
        activation.state().value["n"] = 2
        await activation.persist()
        assert store.calls == ["commit"], "nothing had to be read again"
        record = await node.inspect("Box", "a")
        assert record is not None
        assert (record.states["state"], record.revision) == ({"n": 2}, 2)


@pytest.mark.parametrize("commits", [True, False])
async def test_an_unknown_outcome_is_settled_as_lost_if_another_node_has_the_actor(*, commits: bool) -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with Node(store, [suite]) as node, node.activate("Box", "a") as activation:
        await activation.state().migrate_and_load(default={"n": 1})
        store.arm(Fault(0, "before", "error"))
        with pytest.raises(errors.StoreUnavailableError):
            await activation.persist()
        await inner.unregister(node.node_id)
        async with Node(inner, [suite]) as other, other.activate("Box", "a") as theirs:
            await theirs.state().migrate_and_load(default={"n": 7})
            if commits:
                await theirs.persist()
            await inner.register(NodeRecord(node.node_id, "back", None, 3.0))
            for _ in range(2):
                with pytest.raises(errors.LeaseLostError):
                    await activation.persist()
            await theirs.persist()
    assert (await inner.scan("Box"))[0].states == {"state": b'{"n":7}'}


async def test_a_turn_granted_to_a_task_that_is_cancelled_meanwhile_is_passed_on() -> None:
    mailbox = Mailbox(ActorKey("Box", "a"))
    await mailbox.take(shared=False)
    waiting = [asyncio.create_task(mailbox.take(shared=False)) for _ in range(2)]
    await asyncio.sleep(0)
    mailbox.give(shared=False)
    waiting[0].cancel()
    await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [True, False]
    assert not mailbox.is_free
    mailbox.give(shared=False)
    assert mailbox.is_free


async def test_hooks_hear_of_failed_migrations_and_refused_states() -> None:
    seen: list[hooks.Event] = []
    store = MemoryStore()
    broken, newer = Suite("broken"), Suite("newer")
    broken.actor_type("Box").migration("1.0.0")(lambda state, context: state["secret"])
    box = newer.actor_type("Box")
    for version in ("1.0.0", "2.0.0"):
        box.migration(version)(lambda state, context: None)
    for actor_id, data in {"a": b"{}", "b": b"{}", "c": b'{"secret'}.items():
        await store.insert("Box", "state", [(actor_id, data)])
    async with Node(store, [newer]) as node, node.activate("Box", "b") as activation:
        await activation.state().migrate_and_load()
    async with Node(store, [broken], hooks=[seen.append]) as node:
        for actor_id in "abc":
            async with node.activate("Box", actor_id) as activation:
                with pytest.raises(errors.ActivationError):
                    await activation.state().migrate_and_load()
    told = [event for event in seen if isinstance(event, (hooks.MigrationFailed, hooks.StateRefused))]
    assert [type(event).__name__ for event in told] == ["MigrationFailed", "StateRefused", "StateRefused"]
    failed, refused, corrupt = told
    assert isinstance(failed, hooks.MigrationFailed)
    assert (failed.key.id, str(failed.version), failed.error) == ("a", "1.0.0", "KeyError")
    assert isinstance(refused, hooks.StateRefused)
    assert (refused.error, str(refused.stored), str(refused.supported)) == ("NewerStateError", "2.0.0", "1.0.0")
    assert isinstance(corrupt, hooks.StateRefused)
    assert corrupt.error == "CorruptStateError"


async def test_infer_version_is_not_asked_about_what_is_no_json() -> None:
    store = MemoryStore()
    guessed = Suite("guessed")
    guessed.actor_type("Box", infer_version=lambda value: "1.0.0")
    await store.insert("Box", "state", [("a", b"{")])
    async with Node(store, [guessed]) as node, node.activate("Box", "a") as activation:
        with pytest.raises(errors.CorruptStateError, match="no JSON"):
            await activation.state().load()


async def test_what_another_node_stored_and_died_over_is_not_taken_for_our_own_commit() -> None:
    clock = ManualClock()
    inner = MemoryStore(clock)
    store = FaultyStore(inner)
    async with Node(store, [suite]) as node, node.activate("Box", "a") as activation:
        await activation.state().migrate_and_load(default={"n": 1})
        store.arm(Fault(0, "before", "error"))
        with pytest.raises(errors.StoreUnavailableError):
            await activation.persist()
        key = ActorKey("Box", "a")
        clock.advance(1_000)  # the store takes this node for dead, as after a clock that jumped
        await inner.register(NodeRecord("third", "third", None, 3.0))
        assert isinstance(await inner.claim(key, Fence("third", 1)), Claim)
        await inner.commit(Commit(key, Fence("third", 1), 0, None, {"state": b'{"n":7}'}))
        clock.advance(1_000)
        with pytest.raises(errors.LeaseLostError):
            await activation.persist()
    assert (await inner.scan("Box"))[0].states == {"state": b'{"n":7}'}
