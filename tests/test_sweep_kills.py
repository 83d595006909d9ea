"""Sweeps are killed, and run beside each other and beside nodes with traffic: each actor is brought up exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors, open_store, rollout
from tests import postgres
from tests.processes import Line, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lazymig.store import Store

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

KILLS = 10


class Car(Actor):
    """Counts how often it was bumped."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state("car")

    async def activate(self) -> None:
        await self.state.migrate_and_load()

    @action
    async def bump(self) -> int:
        self.state.value["bumps"] += 1
        await self.state.persist()
        bumps: int = self.state.value["bumps"]
        return bumps


def make_suite(*, upto: str = "2.0.0") -> Suite:
    """Return a suite whose migrations count how often they were applied."""
    suite = Suite("cars")
    car = suite.actor_type("Car", Car, state="car")
    for version in ("1.0.0", "2.0.0"):
        if version <= upto:

            @car.migration(version)
            def mark(state: Any, context: Any, version: str = version) -> None:
                state["marks"].append(version)

    return suite


async def fill(store: Store, actors: int) -> None:
    rows = [(f"car-{number:06}", orjson.dumps({"marks": [], "bumps": 0})) for number in range(actors)]
    for start in range(0, actors, 5_000):
        await store.insert("Car", "car", rows[start : start + 5_000])


async def check(store: Store, actors: int) -> int:
    """Check that every actor was brought up once; return how often they were bumped."""
    after, bumps, count = "", 0, 0
    while page := await store.scan("Car", after=after):
        for found in page:
            state = orjson.loads(found.states["car"])
            assert state["marks"] == ["1.0.0", "2.0.0"]
            assert found.stamp is not None
            assert found.stamp.applied == make_suite().actor_types["Car"].chain.release
            assert found.revision == 2 + state["bumps"]
            bumps += state["bumps"]
            count += 1
        after = page[-1].key.id
    assert count == actors
    return bumps


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres":
        with postgres.schema_url() as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path}/store.db?synchronous=normal"


async def sweep_it(line: Line, url: str, rate: float | None) -> None:
    """Sweep; tell when it begins, and what it did."""
    async with open_store(url) as store:
        line.tell("up")
        report = await rollout.sweep(store, make_suite(), "Car", actors_per_second=rate, bytes_per_second=None)
        line.tell((report.migrated, report.busy, len(report.failed)))


async def bump_them(line: Line, url: str, actors: int, number: int) -> None:
    """Bump random cars until told to stop; tell how often."""
    rng, bumps = random.Random(number), 0
    async with open_store(url) as store, Node(store, [make_suite()], idle_seconds=0.05) as node:
        line.tell("up")
        told = asyncio.create_task(line.hear())
        while not told.done():
            try:
                await node.call("Car", f"car-{rng.randrange(actors):06}", "bump")
            except (errors.ActorLockedError, errors.CallNotTakenError):
                continue
            bumps += 1
        line.tell(bumps)


async def kill_sweeps(url: str, actors: int, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    async with open_store(url) as store:
        await fill(store, actors)
    for _ in range(kills):
        with Worker(sweep_it, url, float(actors)) as sweeper:
            assert await sweeper.hear() == "up"
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            os.kill(sweeper.pid, signal.SIGKILL)
    async with open_store(url) as store:
        begun = (await rollout.census(store, "Car")).without_info
        assert 0 < begun < actors, "the kills proved nothing"
        for node in await store.nodes():  # on PostgreSQL only its heartbeat's age would tell that it is dead
            await rollout.forget(store, node.node_id)
        report = await rollout.sweep(store, make_suite(), "Car", actors_per_second=None, bytes_per_second=None)
        assert report.is_complete
        assert await check(store, actors) == 0


async def test_a_sweep_that_is_killed_ten_times_brings_each_actor_up_once(shared_url: str) -> None:
    await kill_sweeps(shared_url, 2_000, KILLS, 1)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(5))
async def test_a_large_sweep_that_is_killed_many_times_brings_each_actor_up_once(shared_url: str, seed: int) -> None:
    await kill_sweeps(shared_url, 50_000, 40, seed)


async def beside_traffic(url: str, actors: int, seconds: float) -> None:
    async with open_store(url) as store:
        await fill(store, actors)
    with ExitStack() as stack:
        nodes = [stack.enter_context(Worker(bump_them, url, actors, number)) for number in range(4)]
        assert [await node.hear() for node in nodes] == ["up"] * 4
        sweepers = [stack.enter_context(Worker(sweep_it, url, actors / seconds)) for _ in range(2)]
        assert [await sweeper.hear() for sweeper in sweepers] == ["up"] * 2
        swept = [await sweeper.hear() for sweeper in sweepers]
        for node in nodes:
            node.tell("stop")
        bumped = sum([await node.hear() for node in nodes])
    async with open_store(url) as store:
        rest = await rollout.sweep(store, make_suite(), "Car", actors_per_second=None, bytes_per_second=None)
        assert rest.is_complete
        assert await check(store, actors) == bumped > 0
        assert [failed for _, _, failed in swept] == [0, 0]
        assert 0 < sum(migrated for migrated, _, _ in swept) <= actors


async def test_two_sweeps_and_four_nodes_with_traffic_bring_each_actor_up_once(shared_url: str) -> None:
    await beside_traffic(shared_url, 1_000, 0.5)


@pytest.mark.stress
async def test_two_sweeps_and_four_nodes_with_much_traffic_bring_each_actor_up_once(shared_url: str) -> None:
    await beside_traffic(shared_url, 50_000, 20.0)
