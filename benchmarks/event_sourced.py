"""Cases beside the library ``eventsourcing``: the same states and functions, as one event of an aggregate each.

Its recorder keeps a SQLite file in WAL mode, leaves ``PRAGMA synchronous`` as SQLite was built (usually FULL), and runs
on the caller's thread; lazymig's store is opened with the same ``synchronous``. A get upcasts what it reads, each time,
and stores nothing; a snapshot makes that durable. So the application has snapshots on in both cases, and a get asks for
one before it reads the events.
"""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.on_sqlite import activate, each, fill, giving_up, place, serving, upgrade_all
from benchmarks.things import FUNCTIONS, first, second, third, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from uuid import UUID

    from benchmarks.measure import Block, Size
    from lazymig import Node

SYNCHRONOUS = {1: "normal", 2: "full"}


class Car(Aggregate):
    """A car, of a class at version 4."""

    class Created(Aggregate.Created):
        """It was made; holds its whole state."""

        value: dict[str, Any]
        class_version = 1 + len(FUNCTIONS)

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """See `benchmarks.things`."""
            first(state["value"])

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            """See `benchmarks.things`."""
            second(state["value"])

        @staticmethod
        def upcast_v3_v4(state: dict[str, Any]) -> None:
            """See `benchmarks.things`."""
            third(state["value"])

    class_version = 1 + len(FUNCTIONS)

    @event(Created)
    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value


@contextmanager
def application() -> Iterator[Application[UUID]]:
    """Run an application on a new file, on the disk that temporary files are on."""
    with tempfile.TemporaryDirectory(prefix="lazymig-") as folder:
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": f"{folder}/events.db",
            "IS_SNAPSHOTTING_ENABLED": "y",
        }
        opened: Application[UUID] = Application(environment)
        with opened:
            yield opened


def synchronous(opened: Application[UUID]) -> str:
    """Return what its connections do at a commit, as an option of a store's URL."""
    factory: Any = opened.factory
    with factory.datastore.transaction(commit=False) as cursor:
        cursor.execute("PRAGMA synchronous")
        return SYNCHRONOUS[cursor.fetchone()[0]]


def store_cars(opened: Application[UUID], number: int) -> Sequence[UUID]:
    """Store so many cars as software at version 1 left them; return their ids."""
    cars = [Car(value()) for _ in range(number)]
    Car.Created.class_version = 1
    try:
        opened.save(*cars)
    finally:
        Car.Created.class_version = Car.class_version
    return [car.id for car in cars]


@asynccontextmanager
async def get(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A cold activation of an actor that was migrated once, over a get, which runs three upcasts each time."""
    number = 20 * size.calls
    with application() as opened:
        async with place(synchronous(opened)) as at, serving(at.store, len(FUNCTIONS)) as node:
            ids, uuids = await fill(at.store, number), store_cars(opened, number)
            await upgrade_all(node, ids)

            async def load(uuid: UUID) -> Any:
                return opened.repository.get(uuid)

            await check(node, ids[0], await load(uuids[0]))
            yield giving_up(node, each(ids, size.calls, partial(activate, node))), each(uuids, size.calls, load)


@asynccontextmanager
async def durable(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """An activation with three pending, which stores them, over a first snapshot: a get, three upcasts and an insert.

    An aggregate to work with would take another get; a snapshot at version 1 could only be followed by a later event.
    """
    with application() as opened:
        async with place(synchronous(opened)) as at, serving(at.store, len(FUNCTIONS)) as node:
            ids = await fill(at.store, size.total + size.calls + 1)  # each is used once
            uuids = store_cars(opened, 2 * len(ids))  # a baseline is measured twice

            async def take(uuid: UUID) -> None:
                opened.take_snapshot(uuid)

            await activate(node, ids[-1])
            await take(uuids[-1])
            await check(node, ids[-1], opened.repository.get(uuids[-1]))
            yield giving_up(node, each(ids, size.calls, partial(activate, node))), each(uuids, size.calls, take)


async def check(node: Node, actor_id: str, car: Car) -> None:
    """Make sure that both sides have the same state, with all functions run."""
    record = await node.inspect("Car", actor_id)
    assert record is not None
    assert record.states["state"] == car.value
    assert "plate" in car.value
