"""What a node knows of the others, and what it asks for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lazymig import Node
from lazymig._records import NodeRecord
from lazymig.testing import FaultyStore
from tests.boxes import Place, knows, offers, seem_to_run
from tests.test_node import settle, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._fleet_records import Mail, NodeStatus
    from lazymig.store import Store


class CountingStore(FaultyStore):
    """Counts the looks at mail and at the nodes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.looks = 0
        self.readings = 0
        self.post.peek = self._peek

    async def _peek(self, node_id: str, sender: str) -> Mail:
        self.looks += 1
        return await self._store.post.peek(node_id, sender)

    async def nodes(self) -> Sequence[NodeStatus]:
        self.readings += 1
        return await super().nodes()


async def look(node: Node, counted: CountingStore, times: int) -> None:
    """Let a node look for mail."""
    for _ in range(times):
        looks = counted.looks
        node._courier._wake.set()
        await until(lambda looks=looks: counted.looks > looks)  # type: ignore[misc]
    await settle()


async def test_the_nodes_are_read_when_they_have_changed_and_not_otherwise(store: Store) -> None:
    counted = CountingStore(store)
    async with Node(counted) as node, Place().run(store) as other:
        await until(knows(node, 2))
        await look(node, counted, 5)  # the second node may have been seen before the counter was
        for change in (seem_to_run(store, "c", *offers("1.0.0", "add")), store.drain("c"), store.forget("c"), None):
            readings = counted.readings
            if change is not None:
                await change
            await look(node, counted, 20)
            await other.call("Box", "a", "add")
            await settle()
            assert counted.readings == readings + (change is not None)


async def test_a_silent_node_is_forgotten_by_one_that_runs_after_ten_of_its_leases(store: Store) -> None:
    await store.register(NodeRecord("dead", "dead", None, 0.1))
    await store.register(NodeRecord("quiet", "quiet", None, 100.0))
    async with Node(store, lease_seconds=0.3) as node, asyncio.timeout(20):
        while "dead" in (known := {status.node_id for status in await store.nodes()}):  # noqa: ASYNC110  (in the store)
            await asyncio.sleep(0.05)
        assert "quiet" in known
        assert len(known) == 2
        await until(knows(node, 2))
