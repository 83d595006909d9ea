"""Processes that migrate are killed by SIGKILL: actors stay whole, nothing acknowledged is lost, all are free at once.

Half of the moments are steps of the victim's life, evenly spread over it: a SQL statement, or an end of a phase. The
other half are drawn times, so that the inside of a statement is hit as well. A victim notes its phase in a file,
and the test counts them: kills of processes that idle would prove nothing.

The file is opened with ``synchronous=normal``: what a process wrote outlives it in the system's buffers; only a power
failure takes those.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from lazymig import Activation, Actor, Node, Suite, action, open_store
from tests import beside
from tests.processes import Line, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lazymig.store import Store

VERSIONS = ("1.0.0", "1.1.0", "2.0.0")
LEGACY = {"calls": 0}

PHASES = ("starting", "registering", "claiming", "migrating", "working", "committing", "releasing", "leaving")
PHASE_OF = {
    "register": "registering",
    "claim": "claiming",
    "commit": "committing",
    "release": "releasing",
    "unregister": "leaving",
}
"""Which store call makes which phase; between them a process is working, or migrating."""

LANES = 3
"""How many victims live at once: a few more than processors, so that they disturb each other."""


# --- the victim ----------------------------------------------------------------------------------------------------


class Life:
    """A victim's life: its phase, noted where no kill can reach it, and the step that is its last.

    Args:
        notes: A file with a byte for each victim: the number of its phase.
        number: Which victim it is.
        last: It is killed at this step; 0 for none.
    """

    def __init__(self, notes: Path, number: int, last: int) -> None:
        self._notes = os.open(notes, os.O_WRONLY)
        self._number = number
        self._last = last
        self._phase = "starting"
        self.steps = 0
        self.note("starting")

    def note(self, phase: str) -> None:
        """Begin a phase."""
        self._phase = phase
        os.pwrite(self._notes, bytes([PHASES.index(phase)]), self._number)
        self.step()

    def step(self, _: str = "") -> None:
        """Take a step."""
        self.steps += 1
        if self.steps == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def phase(self, phase: str) -> Iterator[None]:
        """Be in a phase, and then in the one before."""
        before = self._phase
        self.note(phase)
        try:
            yield
        finally:
            self.step()
            self.note(before)


class Watched:
    """A store whose calls are phases of a life."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store = store
        self._life = life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in PHASE_OF:
            return method

        async def watched(*args: Any, **kwargs: Any) -> Any:
            with self._life.phase(PHASE_OF[name]):
                return await method(*args, **kwargs)

        return watched


class Vehicle(Actor):
    """Counts its calls, and stores something when it is let go."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load()

    async def deactivate(self) -> None:
        self.state.value["left"] = True
        await self.state.persist()

    @action
    async def count(self) -> None:
        self.state.value["calls"] += 1
        await self.state.persist()


def two_state_suite(life: Life | None = None) -> Suite:
    """Three migrations that keep a list of themselves in a second state."""
    suite = Suite("fleet")
    both = suite.actor_type("Vehicle", Vehicle, state="vehicle", context_factory=lambda active: active.state("log"))

    async def note(version: str, state: dict[str, Any], log: Any) -> None:
        noted = await log.migrate_and_load(default=[])
        noted.append(version)
        await log.persist()
        state["applied"] = [*state.get("applied", []), version]

    async def note_in_phase(version: str, state: dict[str, Any], log: Any) -> None:
        assert life is not None
        with life.phase("migrating"):
            await note(version, state, log)

    for version in VERSIONS:
        both.migration(version)(partial(note if life is None else note_in_phase, version))
    return suite


def trace(store: Any, on_statement: Callable[[str], None]) -> None:
    """Call a function at each statement of a store, on whatever thread."""
    for connection in (store._connection.driver._conn, store._connection._here._connection()):
        connection.set_trace_callback(on_statement)


async def live(line: Line, url: str, ids: list[str], *of_life: Any) -> None:
    """Migrate and count three actors, each in another way; say so before and after each one."""
    born = time.monotonic()
    life = Life(*of_life)
    line.tell(("born", ""))
    async with open_store(url) as store:
        connection: Any = store
        trace(connection, life.step)
        async with Node(cast("Store", Watched(store, life)), [two_state_suite(life)], label="doomed") as node:
            life.note("working")
            for way, actor_id in enumerate(ids):
                line.tell(("began", actor_id))
                if way == 0:  # stays active until the node leaves
                    await node.call("Vehicle", actor_id, "count")
                else:
                    async with node.activate("Vehicle", actor_id) as activation:
                        value: Any = await activation.state().migrate_and_load()
                        value["calls"] += 1
                        await activation.persist(release=way == 1)
                line.tell(("stored", actor_id))
            life.note("leaving")
    life.step()
    line.tell(("steps", life.steps))
    line.tell(("seconds", time.monotonic() - born))


# --- the killer ----------------------------------------------------------------------------------------------------


def check_whole(row: beside.Row) -> int:
    """Check that an actor was migrated as a whole or not at all; return its number of calls."""
    if row.applied is None:
        assert row.states == {"vehicle": LEGACY}
        return 0
    assert row.applied == VERSIONS == row.written_by
    vehicle, log = row.states["vehicle"], row.states["log"]
    assert tuple(log) == tuple(vehicle["applied"]) == VERSIONS
    assert set(vehicle) - {"left"} == {"calls", "applied"}
    calls: int = vehicle["calls"]
    return calls


@dataclass
class Campaign:
    """Many kills on one file.

    Attributes:
        path: The file.
        kills: How many are wanted.
        seed: What the moments follow from.
        steps: How many steps an undisturbed life has.
        seconds: How long it lasts beside others.
        at_steps: How many kills at a step hit which phase.
        at_times: The same for those at a drawn time.
    """

    path: Path
    kills: int
    seed: int
    steps: int = 0
    seconds: float = 0.0
    at_steps: Counter[str] = field(default_factory=Counter)
    at_times: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._numbers = count()
        self._notes = self.path.with_name("phases")
        self._notes.touch()

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}?synchronous=normal"

    async def run(self) -> None:
        """Measure a few undisturbed lives, then kill."""
        async with AsyncExitStack() as stack:
            survivors = [await self._survivor(stack) for _ in range(LANES)]
            lives = await asyncio.gather(*(self._live_on(node) for node in survivors))
            self.steps = max(steps for steps, _ in lives)
            self.seconds = median(seconds for _, seconds in lives)
            moments = self._moments()
            await asyncio.gather(*(self._kill_on(node, moments) for node in survivors))
        for row in beside.read(self.path).values():
            assert row.applied == VERSIONS
            assert check_whole(row) >= 1

    async def _survivor(self, stack: AsyncExitStack) -> Node:
        store = await stack.enter_async_context(open_store(self.url))
        node = Node(store, [two_state_suite()], label="survivor", hand_over_seconds=0)
        return await stack.enter_async_context(node)

    async def _make_legacy(self, node: Node, number: int) -> list[str]:
        ids = [f"{number}-{way}" for way in range(3)]
        rows = [(actor_id, orjson.dumps(LEGACY)) for actor_id in ids]
        assert len(await node._store.insert("Vehicle", "vehicle", rows)) == len(ids)
        return ids

    async def _live_on(self, node: Node) -> tuple[int, float]:
        number = next(self._numbers)
        ids = await self._make_legacy(node, number)
        with Worker(live, self.url, ids, self._notes, number, 0) as worker:
            said = dict(await worker.rest())
        await self._judge(node, ids, dict.fromkeys(ids, 1), ids)
        return said["steps"], said["seconds"]

    def _moments(self) -> Iterator[int]:
        """Yield the steps to kill at, evenly spread over a life and mixed with as many zeros, and then drawn ones."""
        half = self.kills // 2
        moments = [1 + self.steps * number // half for number in range(half)] + [0] * half
        self._chance.shuffle(moments)
        yield from moments
        while True:
            yield 0
            yield self._chance.randint(1, self.steps)

    def _has_more(self) -> bool:
        """Tell whether more are to be killed: as many as asked for, and up to twice that until each phase was hit."""
        killed = self.at_steps.total() + self.at_times.total()
        return killed < self.kills or (killed < 2 * self.kills and set(self.at_steps) != set(PHASES))

    async def _kill_on(self, node: Node, moments: Iterator[int]) -> None:
        while self._has_more():
            await self._kill(node, next(self._numbers), next(moments))

    async def _kill(self, node: Node, number: int, step: int) -> None:
        """Kill at a step; at 0, at a drawn time."""
        ids = await self._make_legacy(node, number)
        with Worker(live, self.url, ids, self._notes, number, step) as worker:
            if not step:
                assert await worker.hear() == ("born", "")
                await asyncio.sleep(self._chance.uniform(0, self.seconds))
                worker.kill()
            said = await worker.rest()
            worker.kill()  # returns when it is gone, its file lock with it
            if worker.exit_code == -signal.SIGKILL:  # else it came to its end before its time had come
                phase = PHASES[self._notes.read_bytes()[number]]
                (self.at_times if step == 0 else self.at_steps)[phase] += 1
        began = [actor_id for what, actor_id in said if what == "began"]
        stored = [actor_id for what, actor_id in said if what == "stored"]
        await self._judge(node, ids, dict.fromkeys(stored, 1), began)

    async def _judge(self, node: Node, ids: list[str], stored: dict[str, int], began: list[str]) -> None:
        """Judge beside the library, then through it: by a node of before, or by a new one."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            rows = beside.rows(connection)
        calls = {actor_id: check_whole(rows["Vehicle", actor_id]) for actor_id in ids}
        for actor_id, found in calls.items():
            assert stored.get(actor_id, 0) <= found <= (actor_id in began)
        async with AsyncExitStack() as stack:
            if self._chance.random() < 0.3:
                fresh = Node(node._store, [two_state_suite()], label="new", hand_over_seconds=0)
                node = await stack.enter_async_context(fresh)
            for actor_id in ids:
                async with node.activate("Vehicle", actor_id, wait_seconds=0) as activation:
                    value: Any = await activation.state().migrate_and_load()
                    assert value["calls"] == calls[actor_id]
                    assert tuple(value["applied"]) == VERSIONS
                    assert await activation.state("log").load() == list(VERSIONS)
                    value["calls"] += 1
                    await activation.persist()


async def kill_often(path: Path, seed: int, kills: int) -> None:
    campaign = Campaign(path, kills, seed)
    began = time.monotonic()
    await campaign.run()
    took = time.monotonic() - began
    print(f"seed {seed}: {kills} kills in {took:.1f} s; at steps {campaign.at_steps}, at times {campaign.at_times}")
    assert campaign.at_steps.total() + campaign.at_times.total() >= kills
    assert set(campaign.at_steps) == set(PHASES), "a phase was never hit"
    assert len(campaign.at_times) >= 5, "the drawn times hit too few phases"


@pytest.mark.timeout(300)
async def test_two_hundred_kills_leave_actors_whole_and_free(tmp_path: Path) -> None:
    await kill_often(tmp_path / "fleet.db", seed=200, kills=200)


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(20))
async def test_ten_thousand_kills_leave_actors_whole_and_free(tmp_path: Path, seed: int) -> None:
    await kill_often(tmp_path / "fleet.db", seed, kills=500)


# --- at any statement ----------------------------------------------------------------------------------------------


async def migrate_up_to_a_statement(line: Line, url: str, actor_id: str, number: int) -> None:
    """Migrate one actor and store it; be killed when the given SQL statement begins."""
    count = 0

    def on_statement(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_store(url) as store, Node(store, [two_state_suite()]) as node:
        connection: Any = store
        trace(connection, on_statement)
        async with node.activate("Vehicle", actor_id) as activation:
            state = activation.state()
            await state.migrate_and_load()
            line.tell("migrated")
            state.value["calls"] += 1
            await activation.persist()
            line.tell("stored")
        line.tell("done")


async def test_process_killed_at_any_statement_leaves_the_actor_whole(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    url = f"sqlite:///{path}?synchronous=normal"
    number, said = 0, [""]
    async with open_store(url) as store, Node(store, [two_state_suite()], hand_over_seconds=0) as node:
        while "done" not in said:
            number += 1
            actor_id = f"car-{number}"
            await store.insert("Vehicle", "vehicle", [(actor_id, orjson.dumps(LEGACY))])
            with Worker(migrate_up_to_a_statement, url, actor_id, number) as worker:
                said = await worker.rest()
                worker.kill()
            row = beside.read(path)["Vehicle", actor_id]
            is_stored, is_migrated = "stored" in said, "migrated" in said
            assert check_whole(row) == int(is_stored), f"rule 3: was told {said}, found {row}"
            assert (row.applied is not None) == is_migrated, f"rule 3: was told {said}, found {row}"
            async with node.activate("Vehicle", actor_id) as activation:
                value: Any = await activation.state().migrate_and_load()
                assert value["calls"] == int(is_stored), f"rule 3: was told {said}, loaded {value}"
    assert number > 12, "the trace saw no statements"
