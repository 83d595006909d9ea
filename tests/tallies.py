"""The actor that the simulated fleets work on: it notices by itself when a rule is broken around it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lazymig import Activation, Actor, Suite, action

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "2.0.0")
LATE = "1.0.1"
LEGACY = b'{"n":0,"applied":[]}'


class Watch(Protocol):
    """What the actor tells about itself, and where it waits."""

    upto: str

    async def gate(self) -> None:
        """Let others have their turn."""
        ...

    def made(self) -> int:
        """Return the serial of a new actor object."""
        ...

    def begins(self, serial: int) -> None:
        """Note that an action begins on an actor object."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What the migrations and the actor are handed."""

    watch: Watch
    activation: Activation


class Tally(Actor):
    """A number and the migrations it went through, in two states that must always say the same."""

    def __init__(self, activation: Activation) -> None:
        self.watch: Watch = activation.context.watch
        self.activation = activation
        self.is_up = False
        self.serial = self.watch.made()

    async def activate(self) -> None:
        await load(self.activation, self.watch.upto)
        await self.watch.gate()
        self.is_up = True

    async def deactivate(self) -> None:
        assert self.is_up, "deactivate() of an actor that did not activate (rule 1)"

    @action
    async def add(self, number: int, pause: float = 0.0) -> int:
        self._begin()
        total = raise_by(self.activation, number)
        await asyncio.sleep(pause)
        await self.watch.gate()
        await self.activation.persist()
        return total

    @action
    async def spoil(self, number: int) -> int:
        self._begin()
        raise_by(self.activation, number)
        await self.watch.gate()
        raise RuntimeError("as asked")

    @action(shared=True)
    async def total(self) -> int:
        self._begin()
        return raise_by(self.activation, 0)

    def _begin(self) -> None:
        assert self.is_up, "an action began on an actor that did not activate (rule 1)"
        self.watch.begins(self.serial)
        check_readable(self.activation.state().value, self.watch.upto)


class NewestTally(Tally):
    """Has an action that older releases lack."""

    @action
    async def add_newly(self, number: int) -> int:
        return await self.add(number)


async def load(activation: Activation, upto: str) -> None:
    """Bring both states up."""
    state, echo = activation.state(), activation.state("echo")
    await state.migrate_and_load()
    await echo.migrate_and_load()
    check_readable(state.value, upto)


def raise_by(activation: Activation, number: int) -> int:
    """Add to the number in both states; return it."""
    state, echo = activation.state().value, activation.state("echo").value
    assert state == echo, f"states that were stored together differ (rule 4): {state} and {echo}"
    for value in (state, echo):
        value["n"] += number
    total: int = state["n"]
    return total


def check_readable(state: Any, upto: str) -> None:
    """Check that a release may see a state."""
    assert max(state["applied"], default="0")[0] <= upto[0], (
        f"software of {upto} was handed state of of {state['applied']} (rule 2)"
    )


def tallies(watch: Watch) -> Suite:
    """Return the suite of a release; the newest one brings a late hotfix."""
    suite = Suite("tallies")
    known = VERSIONS[: VERSIONS.index(watch.upto) + 1]
    actor_class = NewestTally if known == VERSIONS else Tally
    tally = suite.actor_type("Tally", actor_class, state="main", context_factory=lambda a: Context(watch, a))
    for version in known:
        tally.migration(version)(_migration(version))
        if version == VERSIONS[0] and known == VERSIONS:
            tally.migration(LATE, late=True)(_migration(LATE))
    return suite


def _migration(version: str) -> Callable[[Any, Context], Awaitable[None]]:
    return partial(_apply, version)


async def _apply(version: str, state: Any, context: Context) -> None:
    echo = await context.activation.state("echo").migrate_and_load(default={"n": state["n"], "applied": []})
    await context.watch.gate()
    for value in (state, echo):
        value["applied"].append(version)
    await context.activation.persist()
