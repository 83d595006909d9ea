"""A migration blocks the event loop: the heartbeat goes on, until the loop counts as dead."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, open_store
from lazymig.errors import ActorLockedError, LeaseLostError, StoreUnavailableError
from lazymig.fleet import Machine, ThreadHeart
from lazymig.testing import FaultyStore
from tests.test_heartbeat import counters, node_on, patient

if TYPE_CHECKING:
    from lazymig.store import Store


class Thief:
    """A thread with a node of its own that tries to get an actor."""

    def __init__(self, url: str, wait_seconds: float) -> None:
        self.outcome: object = None
        self._url = url
        self._wait_seconds = wait_seconds

    def steal(self) -> None:
        """Try it; blocks the caller until it has succeeded or failed."""
        thread = threading.Thread(target=lambda: asyncio.run(self._steal()))
        thread.start()
        thread.join()

    async def _steal(self) -> None:
        async with open_store(self._url) as store, patient(store) as node:
            try:
                async with node.activate("Counter", "a", wait_seconds=self._wait_seconds) as activation:
                    state = activation.state()
                    await state.load()
                    state.value = 1000
                    await state.persist()
                    self.outcome = "stolen"
            except ActorLockedError as error:
                self.outcome = error


def blocking_suite(thief: Thief) -> Suite:
    suite = Suite("counters")
    counter = suite.actor_type("Counter")

    @counter.migration("1.0.0")
    def block(state: int, context: object) -> int:
        thief.steal()
        return state + 1

    return suite


async def test_heartbeat_goes_on_while_a_migration_blocks_the_loop(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    thief = Thief(url, wait_seconds=1.2)
    async with open_store(url) as store, Node(store, [blocking_suite(thief)], lease_seconds=0.4) as node:
        await store.insert("Counter", "state", [("a", b"1")])
        before = node.node_id
        async with node.activate("Counter", "a") as activation:
            assert await activation.state().migrate_and_load() == 2
        assert isinstance(thief.outcome, ActorLockedError)
        assert thief.outcome.owner == node.node_id == before


async def test_heartbeat_stops_when_the_loop_is_dead(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    thief = Thief(url, wait_seconds=30.0)
    machine = Machine(heart=partial(ThreadHeart, silence_seconds=0.2))
    async with open_store(url) as store, node_on(machine, store, [blocking_suite(thief)], lease_seconds=0.4) as node:
        await store.insert("Counter", "state", [("a", b"1")])
        async with node.activate("Counter", "a") as activation:
            with pytest.raises(LeaseLostError):
                await activation.state().migrate_and_load()
        record = await node.inspect("Counter", "a")
    assert thief.outcome == "stolen"
    assert record is not None
    assert (record.info, record.states) == (None, {"state": 1000})


async def test_failing_heartbeats_are_sent_again(store: Store) -> None:
    beats = threading.Semaphore(0)

    class Stuttering(FaultyStore):
        left = 2

        def open_pulse(self) -> Any:
            if self.left:
                self.left -= 1
                raise StoreUnavailableError("planted")
            beats.release()
            return super().open_pulse()

    async with Node(Stuttering(store), [counters()], lease_seconds=2.0) as node:
        before = node.node_id
        assert await asyncio.to_thread(beats.acquire, timeout=20)
        assert await node.call("Counter", "a", "add", 1) == 1
        assert node.node_id == before
