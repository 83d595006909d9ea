"""Darlean's own migration scenario: releases as processes of their own, alone and beside each other, on one store.

First no migrations, then a first release, then a second; what is too new for a process alone is an error, and is
answered by a process of the new release as soon as there is one. Their documentation says: "the framework activates
another actor on a process that does already support the new version".
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Actor, Node, Suite, action, open_store
from lazymig.errors import NewerStateError
from lazymig.testing import release
from suites import vehicles
from tests import postgres
from tests.processes import Line, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lazymig import Activation, ActorRecord

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

IDS = [f"car-{number}" for number in range(5)]
NONE, FIRST, SECOND = "0.0.0", "1.0.0", "2.0.0"
AT = {
    NONE: {"owner": "ann", "velocity": 36.0},
    FIRST: {"owner": "ann", "velocity": 10.0},
    SECOND: {"owner": "ann", "velocity": 10.0, "drivers": ["ann"]},
}
"""What a car's state is at each release: 36 km/h are 10 m/s, and a list of drivers came last."""


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a store that several processes share; another kind of store is another branch here."""
    if request.param == "postgres":
        with postgres.schema_url() as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path}/fleet.db"


# --- the processes -------------------------------------------------------------------------------------------------


class Car(Actor):
    """Persists when it is let go, as Darlean's examples do; tells which process it is active on."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=AT[NONE])  # only the first process makes new ones

    async def deactivate(self) -> None:
        await self.state.persist()

    @action
    async def accelerate(self, delta: float) -> list[Any]:
        self.state.value["velocity"] += delta
        return [self.state.value["velocity"], os.getpid()]


def fleet(upto: str) -> Suite:
    suite = Suite("fleet")
    car = suite.actor_type("Vehicle", Car, state="vehicle")
    for migration in vehicles.vehicle.migrations:
        car.migration(migration.version)(migration.function)
    return release(suite, upto)


async def serve(line: Line, url: str, upto: str, hand_over_seconds: float) -> None:
    """Run a node of a release; accelerate all the cars that are asked for at once, and tell what each call gave."""
    async with (
        open_store(url) as store,
        Node(store, [fleet(upto)], label=upto, hand_over_seconds=hand_over_seconds) as node,
    ):
        line.tell(os.getpid())
        while asked := await line.hear():
            calls = [node.call("Vehicle", actor_id, "accelerate", delta) for actor_id, delta in asked]
            line.tell(await asyncio.gather(*calls, return_exceptions=True))
    line.tell("stopped")


class Process:
    """A process of a release, as the test sees it."""

    def __init__(self, worker: Worker, pid: int) -> None:
        self.pid = pid
        self._worker = worker

    async def accelerate(self, ids: list[str], delta: float) -> list[Any]:
        """Call cars through the process's node; return results and errors."""
        self._worker.tell([(actor_id, delta) for actor_id in ids])
        answers: list[Any] = await self._worker.hear()
        return answers


@asynccontextmanager
async def running(url: str, upto: str, *, is_alone: bool = False) -> AsyncIterator[Process]:
    """Run a process; it leaves in an orderly way. One that is alone need not wait for others to help it."""
    with Worker(serve, url, upto, 0.5 if is_alone else 60.0) as worker:
        yield Process(worker, await worker.hear())
        worker.tell(None)
        assert await worker.hear() == "stopped"


async def records(url: str, ids: list[str]) -> list[ActorRecord]:
    async with open_store(url) as store, Node(store) as client:
        found = [await client.inspect("Vehicle", actor_id) for actor_id in ids]
    assert None not in found, "an actor was lost"
    return [record for record in found if record is not None]


async def assert_stored(url: str, state: dict[str, Any], version: str, ids: list[str] = IDS) -> None:
    for record in await records(url, ids):
        assert record.states == {"vehicle": state}
        assert record.info is not None
        assert str(record.info.version) == version
        assert record.owner is None, f"{record.key} is still locked"


async def fill(url: str, ids: list[str] = IDS) -> None:
    """Store cars of software without migrations, and bring them up by the second release."""
    async with open_store(url) as store:
        await store.insert("Vehicle", "vehicle", [(actor_id, orjson.dumps(AT[NONE])) for actor_id in ids])
    async with running(url, SECOND, is_alone=True) as second:
        assert await second.accelerate(ids, 0.0) == [[10.0, second.pid]] * len(ids)
    await assert_stored(url, AT[SECOND], SECOND, ids)


# --- the scenario --------------------------------------------------------------------------------------------------


async def test_each_release_alone_brings_up_what_the_one_before_has_left(shared_url: str) -> None:
    for upto in (NONE, FIRST, SECOND):
        async with running(shared_url, upto, is_alone=True) as process:
            velocity = AT[upto]["velocity"]
            assert await process.accelerate(IDS, 0.0) == [[velocity, process.pid]] * len(IDS)
        await assert_stored(shared_url, AT[upto], upto)


@pytest.mark.parametrize("upto", [NONE, FIRST])
async def test_an_older_release_alone_gets_an_error_and_changes_nothing(shared_url: str, upto: str) -> None:
    await fill(shared_url)
    before = await records(shared_url, IDS)
    async with running(shared_url, upto, is_alone=True) as older:
        for _ in range(2):
            for error in await older.accelerate(IDS, 1.0):
                assert isinstance(error, NewerStateError)
                assert (str(error.stored), str(error.supported), error.capable) == (SECOND, upto, ())
    assert await records(shared_url, IDS) == before


@pytest.mark.parametrize("upto", [NONE, FIRST])
async def test_calls_through_an_older_release_are_answered_by_the_new_one(shared_url: str, upto: str) -> None:
    await fill(shared_url)
    async with running(shared_url, SECOND) as new, running(shared_url, upto) as older:
        for calls in (1, 2):
            assert await older.accelerate(IDS, 1.0) == [[10.0 + calls, new.pid]] * len(IDS)
    await assert_stored(shared_url, AT[SECOND] | {"velocity": 12.0}, SECOND)


async def test_a_call_that_waits_at_an_older_release_is_answered_once_the_new_one_comes(shared_url: str) -> None:
    await fill(shared_url)
    async with running(shared_url, FIRST) as older:
        waiting = asyncio.create_task(older.accelerate(IDS, 1.0))
        async with running(shared_url, SECOND) as new:
            assert await waiting == [[11.0, new.pid]] * len(IDS)
    await assert_stored(shared_url, AT[SECOND] | {"velocity": 11.0}, SECOND)


async def test_an_older_release_whose_actors_persist_when_let_go_loses_none_of_400(shared_url: str) -> None:
    ids = [f"car-{number}" for number in range(400)]
    await fill(shared_url, ids)
    async with running(shared_url, SECOND) as new, running(shared_url, FIRST) as older:
        for calls in (1, 2):  # all at once: at first nobody has told the older one that these are too new
            assert await older.accelerate(ids, 1.0) == [[10.0 + calls, new.pid]] * 400
    await assert_stored(shared_url, AT[SECOND] | {"velocity": 12.0}, SECOND, ids)
