from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite
from lazymig.memory import MemoryStore
from lazymig.testing import FaultyStore

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
