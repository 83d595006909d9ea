"""What the benchmarks work on: actors with a state of 2 KB, and three migrations that change little of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from lazymig import Actor, Suite, action

if TYPE_CHECKING:
    from lazymig import Activation

STATE_BYTES = 2_000


def value(size: int = STATE_BYTES) -> dict[str, Any]:
    """Return a state of about that many bytes as JSON."""
    made: dict[str, Any] = {"owner": "Ada", "velocity": 36.0, "driver": "Ada"}
    left = size - len(orjson.dumps(made))
    while left > 20:
        name, text = f"field{len(made):03}", "x" * min(20, left - 18)
        made[name] = text
        left -= len(f',"{name}":"{text}"')
    return made


def first(state: dict[str, Any]) -> None:
    """km/h to m/s."""
    state["velocity"] /= 3.6


def second(state: dict[str, Any]) -> None:
    """A list of drivers."""
    state["drivers"] = [state.pop("driver")]


def third(state: dict[str, Any]) -> None:
    """A field more."""
    state["plate"] = None


FUNCTIONS = (first, second, third)


class Car(Actor):
    """An actor that is activated, and called."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Migrate and load."""
        await self.state.migrate_and_load()

    @action
    async def echo(self, number: int) -> int:
        """Return what it is given."""
        return number


def suite(migrations: int = 0) -> Suite:
    """Return a suite of cars: without migrations, with the three, or with the three after many that do nothing."""
    made = Suite("cars")
    car = made.actor_type("Car", Car)
    for number in range(migrations - len(FUNCTIONS)):
        car.migration(f"1.0.{number}")(_nothing)
    for number, function in enumerate(FUNCTIONS[:migrations]):
        car.migration(f"1.{number + 1}.0")(_with_context(function))
    return made


def _nothing(state: Any, context: object) -> None:
    """Change nothing."""


def _with_context(function: Any) -> Any:
    def migrate(state: Any, context: object) -> None:  # noqa: ARG001  (a migration's)
        function(state)

    migrate.__name__ = function.__name__
    return migrate
