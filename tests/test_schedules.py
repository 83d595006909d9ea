"""Fleets of processes under schedules drawn from a seed. A failure prints its seed and the shrunk interleaving."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lazymig.testing.simulation import explore, replay
from tests import postgres
from tests.call_schedules import STEPS, run_calls
from tests.keeps import MemoryKeep, PostgresKeep, SQLiteKeep
from tests.schedules import run_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from tests.keeps import Keep

    Run = Callable[[Keep], Coroutine[Any, Any, None]]

pytestmark = [
    pytest.mark.no_cover,  # tracing doubles their time, and other tests cover the same lines
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),  # of a process killed before it began
]


@pytest.fixture
def keep(kind: str, tmp_path: Path) -> Iterator[Keep]:
    if kind == "memory":
        yield MemoryKeep()
    elif kind == "sqlite":
        with closing(SQLiteKeep(tmp_path)) as file:
            yield file
    else:
        with postgres.schema_url() as url, closing(PostgresKeep(url)) as schema:
            yield schema


SEEDS = [("memory", 0), ("sqlite", 6), pytest.param("postgres", 6, marks=pytest.mark.stress)]
"""Together about a thousand schedules, half of them of calls; those on a server take as long as all others."""

STRESS_SEEDS = [("memory", seed) for seed in range(1_000, 1_080)] + [
    (kind, seed) for kind in ("sqlite", "postgres") for seed in range(2_000, 2_010)
]
"""Together a million, of five thousand each."""


def schedules(kind: str) -> int:
    return {"memory": 320, "sqlite": 160, "postgres": 100}[kind]


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
def test_fleet_keeps_the_rules_under_hundreds_of_schedules(kind: str, seed: int, keep: Keep) -> None:
    stats = explore(partial(run_fleet, keep), schedules=schedules(kind), seed=seed)
    assert stats.distinct_schedules == stats.runs >= schedules(kind)


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
def test_travelling_calls_keep_the_rules_under_hundreds_of_schedules(kind: str, seed: int, keep: Keep) -> None:
    counts: Counter[Any] = Counter()
    stats = explore(partial(run_calls, keep, counts), schedules=schedules(kind), seed=seed)
    assert stats.distinct_schedules == stats.runs >= schedules(kind)
    assert counts["answer"] > stats.runs, "few calls travelled"
    struck = {what[0] for what in counts if not isinstance(what, str)}
    assert struck == set(STEPS), "a step of calls was never struck"


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run", [run_fleet, partial(run_calls, counts=Counter())], ids=["fleet", "calls"])
@pytest.mark.parametrize(("kind", "seed"), STRESS_SEEDS)
def test_the_rules_hold_under_a_million_schedules(run: Run, kind: str, seed: int, keep: Keep) -> None:
    stats = explore(partial(run, keep), schedules=5_000, seed=seed)
    assert stats.runs == 5_000


@pytest.mark.parametrize("run", [run_fleet, partial(run_calls, counts=Counter())], ids=["fleet", "calls"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_schedule_follows_from_its_seed(run: Run, kind: str, keep: Keep) -> None:
    first, second = (explore(partial(run, keep), schedules=20, seed=7) for _ in range(2))
    assert first._schedules == second._schedules
    assert first.total_steps == second.total_steps


async def fail_for_once() -> None:
    """Fail if the second of two tasks runs first."""
    order: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    await asyncio.gather(note(1), note(2))
    assert order == [1, 2]


def test_failing_schedule_tells_its_seed_and_is_replayed_by_its_token() -> None:
    with pytest.raises(AssertionError, match="seed=5") as found:
        explore(fail_for_once, schedules=100, seed=5)
    text = str(found.value)
    assert "1 deviation" in text
    token = re.findall(r"dt1-[\w-]+", text)[-1]
    with pytest.raises(AssertionError):
        replay(fail_for_once, token)
