"""Several processes on one SQLite file: stopped and continued, and of two releases."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Activation, Actor, Node, Suite, action, open_store
from lazymig.errors import ActorLockedError, LeaseLostError, NewerStateError
from lazymig.hooks import Event, MigrationApplied, NodeStarted
from lazymig.testing import release
from suites import vehicles
from tests.processes import Line, Worker

if TYPE_CHECKING:
    from semver import Version

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

LEASE_SECONDS = 0.4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


# --- stopped and continued -----------------------------------------------------------------------------------------


class Counter(Actor):
    """Counts; an action of it can be held up from outside."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=0)

    async def deactivate(self) -> None:
        await self.state.persist()

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


class Holding(Counter):
    """A counter whose `hold` waits in the middle."""

    line: Line
    registered_again: asyncio.Event

    @action
    async def hold(self, how: str) -> None:
        self.state.value += 100
        self.line.tell("inside")
        if how == "blocked":
            self.line.wait()
        else:
            await self.line.hear()
        if how == "registered again":
            await self.registered_again.wait()
        await self.state.persist()


def counter_suite(actor_class: type[Counter]) -> Suite:
    suite = Suite("counters")
    suite.actor_type("Counter", actor_class)
    return suite


async def hold_two_counters(line: Line, url: str, how: str) -> None:
    Holding.line = line
    Holding.registered_again = again = asyncio.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, NodeStarted) and event.replaces:
            again.set()

    async with (
        open_store(url) as store,
        Node(store, [counter_suite(Holding)], lease_seconds=LEASE_SECONDS, hooks=[on_event]) as node,
    ):
        line.tell(node.node_id)
        assert await node.call("Counter", "other", "add", 1) == 1
        assert await node.call("Counter", "held", "add", 1) == 1
        try:
            await node.call("Counter", "held", "hold", how)
        except LeaseLostError as error:
            line.tell(error)
        line.tell(await node.call("Counter", "held", "total"))
        line.tell(node.node_id)


HOLD_UPS = ["blocked", "waiting", "registered again"]
"""How the running action goes on: before anything else, in turn, or after the node has found out."""


@pytest.mark.parametrize("how", HOLD_UPS)
async def test_stopped_node_whose_actor_was_taken_stores_nothing_and_answers_from_the_store(
    path: Path, url: str, how: str
) -> None:
    with Worker(hold_two_counters, url, how) as worker:
        async with open_store(url) as store, Node(store, [counter_suite(Counter)], hand_over_seconds=20) as node:
            before = await worker.hear()
            assert await worker.hear() == "inside"
            worker.stop(path)
            async with node.activate("Counter", "held") as activation:  # waits until the lease is over
                assert await activation.state().load() == 1
                activation.state().value = 10
                await activation.persist()
            worker.tell("go on")
            worker.resume()
            assert isinstance(await worker.hear(), LeaseLostError)
            assert await worker.hear() == 10
            assert await worker.hear() != before
            assert await node.call("Counter", "held", "add", 1) == 11


@pytest.mark.parametrize("how", HOLD_UPS)
async def test_stopped_node_whose_actor_nobody_took_stores_nothing_either(path: Path, url: str, how: str) -> None:
    with Worker(hold_two_counters, url, how) as worker:
        async with open_store(url) as store, Node(store, [counter_suite(Counter)], hand_over_seconds=20) as node:
            before = await worker.hear()
            assert await worker.hear() == "inside"
            worker.stop(path)
            assert await node.call("Counter", "other", "add", 1) == 2  # the lease is over
            worker.tell("go on")
            worker.resume()
            assert isinstance(await worker.hear(), LeaseLostError)
            assert await worker.hear() == 1
            assert await worker.hear() != before


async def answer_when_asked(line: Line, url: str) -> None:
    """Answer from the actor as soon as the process runs again."""
    async with (
        open_store(url) as store,
        Node(store, [counter_suite(Counter)], lease_seconds=LEASE_SECONDS) as node,
    ):
        assert await node.call("Counter", "held", "add", 1) == 1
        line.tell(node.node_id)
        line.wait()
        line.tell(await node.call("Counter", "held", "total"))
        line.tell(node.node_id)


async def test_stopped_node_answers_no_call_from_stale_memory(path: Path, url: str) -> None:
    with Worker(answer_when_asked, url) as worker:
        async with open_store(url) as store, Node(store, [counter_suite(Counter)], hand_over_seconds=20) as node:
            before = await worker.hear()
            worker.stop(path)
            async with node.activate("Counter", "held") as activation:
                assert await activation.state().migrate_and_load() == 1
                activation.state().value = 10
                await activation.persist()
            worker.tell("answer")
            worker.resume()
            assert await worker.hear() == 10
            assert await worker.hear() != before


# --- two releases --------------------------------------------------------------------------------------------------


async def serve_new_release(line: Line, url: str) -> None:
    """Serve vehicles at 2.0.0; accelerate one whenever asked."""
    async with (
        open_store(url) as store,
        Node(store, [vehicles.suite], lease_seconds=20.0, idle_seconds=60.0) as node,
    ):
        async with node.activate("Vehicle", "free") as activation:
            await activation.state().migrate_and_load(default={"velocity": 0.0})
            await activation.persist()
        line.tell((node.node_id, await node.call("Vehicle", "held", "accelerate", 1.0)))
        while await line.hear() == "accelerate":
            line.tell(await node.call("Vehicle", "held", "accelerate", 1.0))


async def test_actor_of_a_serving_process_is_locked_and_newer_state_is_refused(url: str) -> None:
    with Worker(serve_new_release, url) as worker:
        owner, velocity = await worker.hear()
        assert velocity == 1.0
        old = release(vehicles.suite, upto="1.1.0")
        async with (
            open_store(url) as store,
            Node(store, [old], hand_over_seconds=0) as old_node,
            Node(store, [vehicles.suite], hand_over_seconds=0) as new_node,
        ):
            for attempt in range(2):
                for node in (old_node, new_node):
                    with pytest.raises(ActorLockedError) as locked:
                        await node.call("Vehicle", "held", "accelerate", 5.0)
                    assert locked.value.owner == owner
                with pytest.raises(NewerStateError) as refused:
                    await old_node.call("Vehicle", "free", "accelerate", 5.0)
                assert (str(refused.value.stored), str(refused.value.supported)) == ("2.0.0", "1.1.0")
                worker.tell("accelerate")
                assert await worker.hear() == 2.0 + attempt
            record = await new_node.inspect("Vehicle", "held")
            assert record is not None
            assert (record.owner, record.states["vehicle"]["velocity"]) == (owner, 3.0)


class Careless(vehicles.Vehicle):
    """Persists when it is let go, as the examples of the model do."""

    async def deactivate(self) -> None:
        await self.state.persist()


def careless_suite(upto: str) -> Suite:
    suite = Suite("fleet")
    careless = suite.actor_type("Vehicle", Careless, state="vehicle")
    for migration in vehicles.vehicle.migrations:
        careless.migration(migration.version)(migration.function)
    return release(suite, upto)


async def call_all(line: Line, url: str, upto: str, ids: list[str]) -> None:
    """Accelerate every vehicle twice by 1, wherever it is; serve until told to end."""
    taken = dict.fromkeys(ids, 0)
    random.Random(upto).shuffle(ids)
    applied: list[Version] = []

    def note(event: Event) -> None:
        if isinstance(event, MigrationApplied):
            applied.append(event.version)

    async with (
        open_store(url) as store,
        Node(
            store, [careless_suite(upto)], idle_seconds=0, hand_over_seconds=30, lease_seconds=20, hooks=[note]
        ) as node,
    ):
        line.tell("ready")
        await line.hear()
        for actor_id in ids:
            for _ in range(2):
                await node.call("Vehicle", actor_id, "accelerate", 1.0)
                taken[actor_id] += 1
        line.tell((taken, applied))
        await line.hear()


async def test_two_releases_and_a_deactivate_that_persists_lose_nothing_of_400_actors(url: str) -> None:
    ids = [f"car-{number}" for number in range(400)]
    async with open_store(url) as store:
        legacy = orjson.dumps({"owner": "ann", "velocity": 36.0, "note": "kept"})
        await store.insert("Vehicle", "vehicle", [(actor_id, legacy) for actor_id in ids])
    with Worker(call_all, url, "1.1.0", ids) as old, Worker(call_all, url, "2.0.0", ids) as new:
        assert (await old.hear(), await new.hear()) == ("ready", "ready")
        old.tell("go")
        new.tell("go")
        (old_taken, old_applied), (new_taken, new_applied) = await old.hear(), await new.hear()
        old.tell("end")
        new.tell("end")
    assert set(old_taken.values()) == set(new_taken.values()) == {2}
    assert list(map(str, old_applied)).count("1.1.0") > 0, "the old release had none of them first"
    assert list(map(str, new_applied)).count("2.0.0") == 400
    async with open_store(url) as store, Node(store, [vehicles.suite]) as node:
        for actor_id in ids:
            record = await node.inspect("Vehicle", actor_id)
            assert record is not None
            assert record.info is not None
            assert str(record.info.version) == "2.0.0"
            velocity = 10.0 + new_taken[actor_id] + old_taken[actor_id]
            expected: dict[str, Any] = {"owner": "ann", "velocity": velocity, "note": "kept", "drivers": ["ann"]}
            assert record.states == {"vehicle": expected}
