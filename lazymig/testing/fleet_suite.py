"""The contract of the fleet registry, and of the calls that travel through it, as tests.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lazymig._records import Claim, Commit, Fence, NodeRecord
from lazymig.errors import LeaseLostError
from lazymig.testing.post_bench import HOSTILE, KEY, join, offer
from lazymig.testing.post_suite import PostSuite
from lazymig.testing.store_bench import LEASE_SECONDS, beat

if TYPE_CHECKING:
    from lazymig._fleet_records import NodeStatus
    from lazymig.store import Store
    from lazymig.testing.clock import ManualClock


class FleetSuite(PostSuite):
    """Inherit it and give it `open`."""

    async def test_nodes_are_shown_as_registered(self, store: Store, clock: ManualClock) -> None:
        both = (*offer("1.0.0", "Bus", ("stop", "go")), *offer("2.5.0", "Car", ()))
        await store.register(NodeRecord("a", "first", "build 7", 20.0, tuple(reversed(both))))
        assert beat(store, "a", active=3)
        clock.advance(12.0)

        nodes = {node.node_id: node for node in await store.nodes()}
        found = nodes["a"]
        assert (found.label, found.build, found.lease_seconds, found.active) == ("first", "build 7", 20.0, 3)
        assert (found.is_alive, found.is_draining) == (True, False)
        assert found.age_seconds == pytest.approx(12.0)
        assert found.offers == both
        assert (nodes["n1"].is_alive, nodes["n1"].offers, nodes["n1"].active) == (False, (), 0)

    async def test_nodes_are_in_order_of_label_and_id(self, store: Store) -> None:
        for node_id, label in (("b", "x"), ("a", "x"), ("c", "A")):
            await store.register(NodeRecord(node_id, label, None, LEASE_SECONDS))

        assert [node.node_id for node in await store.nodes()] == ["c", "n1", "n2", "a", "b"]

    async def test_a_node_is_alive_until_its_lease_time_is_over(self, store: Store, clock: ManualClock) -> None:
        clock.advance(LEASE_SECONDS - 0.001)
        assert (await status(store, "n1")).is_alive
        clock.advance(0.001)
        assert not (await status(store, "n1")).is_alive
        assert beat(store, "n1")
        found = await status(store, "n1")
        assert (found.is_alive, found.age_seconds) == (True, 0.0)

    async def test_hostile_names_are_text(self, store: Store) -> None:
        await store.register(NodeRecord("odd", HOSTILE, HOSTILE, LEASE_SECONDS, offer("1.0.0", HOSTILE, (HOSTILE,))))
        found = await status(store, "odd")
        assert (found.label, found.build, found.offers) == (HOSTILE, HOSTILE, offer("1.0.0", HOSTILE, (HOSTILE,)))

        assert not await store.drain(HOSTILE)
        assert not await store.forget(HOSTILE)
        assert not beat(store, HOSTILE)
        assert len(await store.nodes()) == 3

    async def test_a_forgotten_node_is_fenced(self, store: Store) -> None:
        assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)
        assert await store.forget("n1")

        with pytest.raises(LeaseLostError):
            await store.commit(Commit(KEY, Fence("n1", 1), 0, None, {"x": b"1"}))
        with pytest.raises(LeaseLostError):
            await store.claim(KEY, Fence("n1", 2))
        assert not beat(store, "n1")
        assert isinstance(await store.claim(KEY, Fence("n2", 1)), Claim)
        assert await store.read(KEY) is None
        assert not await store.forget("n1")

    async def test_unknown_nodes_are_neither_drained_nor_forgotten(self, store: Store) -> None:
        assert not await store.drain("stranger")
        assert not await store.forget("stranger")
        assert len(await store.nodes()) == 2

    async def test_draining_is_shown_and_a_new_registration_begins_anew(self, store: Store) -> None:
        assert await store.drain("n1")
        assert (await status(store, "n1")).is_draining
        assert not (await status(store, "n2")).is_draining
        assert beat(store, "n1")
        assert await store.drain("n1")

        await store.register(NodeRecord("n3", "label", None, LEASE_SECONDS), replaces="n1")
        assert [(node.node_id, node.is_draining) for node in await store.nodes()] == [("n2", False), ("n3", False)]

    async def test_a_draining_node_keeps_what_it_holds(self, store: Store) -> None:
        await store.claim(KEY, Fence("n1", 1))
        await store.drain("n1")

        assert await store.commit(Commit(KEY, Fence("n1", 1), 0, None, {"x": b"1"})) == 1

    async def test_the_fleet_counter_moves_with_every_change(self, store: Store) -> None:
        seen = [await counter(store)]
        assert await counter(store) == seen[0]
        beat(store, "n1", active=9)
        assert await counter(store) == seen[0]

        await join(store, "new")
        seen.append(await counter(store))
        await store.drain("new")
        seen.append(await counter(store))
        await store.register(NodeRecord("newer", "label", None, LEASE_SECONDS), replaces="new")
        seen.append(await counter(store))
        await store.unregister("newer")
        seen.append(await counter(store))
        await store.forget("n2")
        seen.append(await counter(store))
        assert len(set(seen)) == 6


async def status(store: Store, node_id: str) -> NodeStatus:
    """Return a node as others see it."""
    (found,) = [node for node in await store.nodes() if node.node_id == node_id]
    return found


async def counter(store: Store) -> int:
    """Return the number that tells of changes."""
    return (await store.post.peek("n1", "other")).fleet
