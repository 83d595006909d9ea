"""Operators who do whatever the gates allow, in any order, while releases of the recipes store side by side.

Each run is drawn from a seed, which a failure prints with the last steps.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lazymig import rollout
from lazymig.errors import MissingMigrationError, WriteVersionError
from suites.recipes import RECIPES
from tests.recipe_fleets import Fleet

if TYPE_CHECKING:
    from lazymig.rollout import Gate
    from lazymig.store import Store

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

STEPS = 40
WEIGHTS = {"change": 6, "read": 3, "start": 1, "stop": 1, "turn": 3, "hold": 1}
RELEASES = {"add": 3, "delete": 2, "retype": 3}
"""How many releases of a recipe take part: the third one of "delete" loses on purpose what the first one reads."""


class Drawn:
    """Steps on a fleet, drawn from a seed.

    Args:
        store: Where it is.
        fleet: The fleet.
        releases: How many take part.
        seed: Of the draw.
    """

    def __init__(self, store: Store, fleet: Fleet, releases: int, seed: int) -> None:
        self.steps: list[str] = []
        self._store = store
        self._fleet = fleet
        self._dice = random.Random(seed)
        self._type = fleet.recipe.type
        self._versions = [str(suite.actor_types[self._type].supported) for suite in fleet.recipe.releases[:releases]]

    async def run(self) -> None:
        """Start release 1, go these steps, and check what all that run then read."""
        await self._fleet.start(1)
        for _ in range(STEPS):
            (step,) = self._dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
            await getattr(self, f"_{step}")()
        await self._fleet.check_all()

    async def _change(self) -> None:
        release, actor_id = self._dice.choice([*self._fleet.nodes]), self._actor("b", "c")
        action = self._dice.choice(self._fleet.actions(release)[1])
        self._note(f"{release} {action} {actor_id}")
        await self._fleet.change(release, actor_id, action)

    async def _read(self) -> None:
        release, actor_id = self._dice.choice([*self._fleet.nodes]), self._actor()
        self._note(f"{release} reads {actor_id}")
        await self._fleet.check(release, actor_id)

    async def _hold(self) -> None:
        """Turn the write version while an activation is open, which stores then."""
        release, actor_id = self._dice.choice([*self._fleet.nodes]), self._actor()
        action = self._dice.choice(self._fleet.actions(release)[1])
        self._note(f"{release} holds {actor_id}, and will {action}")
        async with self._fleet.held(release, actor_id) as actor:
            await self._turn()
            await self._fleet.change_held(actor, actor_id, action)

    async def _turn(self) -> None:
        """Change the write version, if the gate allows it."""
        what, version = self._dice.choice(["pin", "flip", "unpin"]), self._dice.choice(self._versions)
        gate: Gate
        if what == "unpin":
            gate = await rollout.unpin(self._store, self._type)
        else:
            gate = await getattr(rollout, what)(self._store, self._type, version)
        self._note(f"{gate.title}: {gate.allowed}")

    async def _start(self) -> None:
        """Start a release, as an operator would who asks first."""
        rest = [number for number in range(1, len(self._versions) + 1) if number not in self._fleet.nodes]
        if not rest:
            return
        release = self._dice.choice(rest)
        if not await self._is_safe(release):
            return
        self._note(f"{release} starts")
        try:
            await self._fleet.start(release)
        except (MissingMigrationError, WriteVersionError) as error:
            self._note(type(error).__name__)

    async def _is_safe(self, release: int) -> bool:
        running, version = self._fleet.nodes, self._versions[release - 1]
        if {1, 3} <= {release, *running}:
            return False  # what release 1 stores, release 3 has no migration for any more
        if release == 3 and not await rollout.gate_retire(self._store, self._type, version):
            return False
        if release < max(running):
            return bool(await rollout.gate_roll_back(self._store, self._type, version))
        is_pinned = (await rollout.status(self._store, self._type)).write_version is not None
        return is_pinned or 1 not in running or version.startswith("1.")

    async def _stop(self) -> None:
        if len(self._fleet.nodes) > 1:
            release = self._dice.choice([*self._fleet.nodes])
            self._note(f"{release} stops")
            await self._fleet.stop(release)

    def _actor(self, *more: str) -> str:
        return self._dice.choice(sorted({*self._fleet.truths, *more}))

    def _note(self, step: str) -> None:
        self.steps.append(step)


async def run_drawn(store: Store, name: str, seed: int) -> None:
    async with Fleet(store, RECIPES[name]) as fleet:
        drawn = Drawn(store, fleet, RELEASES[name], seed)
        try:
            await drawn.run()
        except BaseException:
            print(f"{name}, seed {seed}:", *drawn.steps[-20:], sep="\n  ")
            raise


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", RECIPES)
async def test_whatever_the_gates_allow_every_release_reads_what_was_last_stored(
    store: Store, name: str, seed: int
) -> None:
    await run_drawn(store, name, seed)


@pytest.mark.stress
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(100, 1100))
@pytest.mark.parametrize("name", RECIPES)
async def test_whatever_the_gates_allow_holds_for_many_seeds(store: Store, name: str, seed: int) -> None:
    await run_drawn(store, name, seed)
