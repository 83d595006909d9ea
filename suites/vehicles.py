"""Vehicles: velocity changed its unit, then one driver became many."""

from __future__ import annotations

from typing import Any

from lazymig import Activation, Actor, Suite, action

suite = Suite("fleet")


class Vehicle(Actor):
    """A car of the fleet, velocity in m/s."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Bring the state up."""
        await self.state.migrate_and_load(default={"owner": None, "velocity": 0.0, "drivers": []})

    @action
    async def accelerate(self, delta: float) -> float:
        """Change the velocity by ``delta`` m/s and return it."""
        self.state.value["velocity"] += delta
        await self.state.persist()
        velocity: float = self.state.value["velocity"]
        return velocity

    @action(shared=True)
    async def velocity(self) -> float:
        """Return the velocity in m/s."""
        velocity: float = self.state.value["velocity"]
        return velocity


vehicle = suite.actor_type("Vehicle", Vehicle, state="vehicle")


@vehicle.migration("1.0.0")
def metres_per_second(state: dict[str, Any], context: object) -> None:
    """Velocity in m/s instead of km/h."""
    state["velocity"] /= 3.6


@vehicle.migration("1.1.0")
def driver_is_owner(state: dict[str, Any], context: object) -> None:
    """Add a driver, at first the owner."""
    state["driver"] = state.get("owner")


@vehicle.migration("2.0.0")
def many_drivers(state: dict[str, Any], context: object) -> None:
    """A list of drivers replaces the one driver."""
    driver = state.pop("driver", None)
    state["drivers"] = [] if driver is None else [driver]


@many_drivers.down
def one_driver(state: dict[str, Any], context: object) -> None:
    """Keep the first driver."""
    state["driver"] = next(iter(state.pop("drivers", [])), None)


@many_drivers.reconcile
def same_drivers(state: dict[str, Any], base: dict[str, Any], context: object) -> None:
    """Keep the others, too, where older software left the first one."""
    if state["drivers"][:1] == base["drivers"][:1]:
        state["drivers"] = base["drivers"]
