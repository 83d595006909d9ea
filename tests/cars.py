"""Cars whose states are all that is to be known of them, and what is stored of them: what a sweep brings up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from lazymig import Node, Suite, rollout
from lazymig._records import ActorKey
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from lazymig._records import StoredActor
    from lazymig.rollout import SweepReport
    from lazymig.store import Store


class Cars:
    """A suite of three releases, and how often each of its functions ran on which car.

    1.0.0 makes ``{"id", "speed"}`` of ``{"id", "kmh"}``, 1.1.0 adds a driver, 2.0.0 makes it a list of drivers.

    Args:
        poison: Ids of cars of which 2.0.0 raises.
    """

    def __init__(self, *poison: str) -> None:
        self.ran: Counter[tuple[str, str]] = Counter()
        self.poison = set(poison)
        self.suite = Suite("cars")
        car = self.suite.actor_type("Car", state="car")

        @car.migration("1.0.0")
        def speed(state: Any, context: Any) -> None:
            self.ran[state["id"], "1.0.0"] += 1
            state["speed"] = state.pop("kmh") / 4

        @car.migration("1.1.0")
        def driver(state: Any, context: Any) -> None:
            self.ran[state["id"], "1.1.0"] += 1
            state["driver"] = "nobody"

        @car.migration("2.0.0")
        def drivers(state: Any, context: Any) -> None:
            self.ran[state["id"], "2.0.0"] += 1
            if state["id"] in self.poison:
                raise ValueError("no such driver")
            state["drivers"] = [state.pop("driver")]

        @drivers.down
        def first_driver(state: Any, context: Any) -> None:
            state["driver"] = state.pop("drivers")[0]

    def release(self, version: str) -> Suite:
        """Return an older release."""
        return release(self.suite, version)


async def put_legacy(store: Store, *ids: str) -> None:
    """Store cars without migration-info."""
    await store.insert("Car", "car", [(actor_id, orjson.dumps({"id": actor_id, "kmh": 8})) for actor_id in ids])


async def put(store: Store, suite: Suite, *ids: str) -> None:
    """Bring cars up on a node of a release; those that don't exist are made."""
    async with Node(store, [suite]) as node:
        for actor_id in ids:
            async with node.activate("Car", actor_id) as activation:
                await activation.state("car").migrate_and_load(default={"id": actor_id, "speed": 2, "driver": "ann"})
                await activation.persist()


async def car(store: Store, actor_id: str) -> StoredActor:
    """Return what is stored of a car."""
    found = await store.read(ActorKey("Car", actor_id))
    assert found is not None
    return found


async def value(store: Store, actor_id: str) -> Any:
    """Return a car's state as stored."""
    return orjson.loads((await car(store, actor_id)).states["car"])


async def sweep(store: Store, suite: Suite, **options: Any) -> SweepReport:
    """Sweep cars as fast as can be."""
    return await rollout.sweep(store, suite, "Car", actors_per_second=None, bytes_per_second=None, **options)
