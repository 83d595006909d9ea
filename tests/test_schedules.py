"""Fleets of processes under schedules drawn from a seed. A failure prints its seed and the shrunk interleaving."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lazymig.testing.simulation import explore, replay
from tests.keeps import MemoryKeep, SQLiteKeep
from tests.schedules import run_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.keeps import Keep

pytestmark = [
    pytest.mark.no_cover,  # tracing doubles their time, and other tests cover the same lines
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),  # of a process killed before it began
]


@pytest.fixture
def keep(kind: str, tmp_path: Path) -> Iterator[Keep]:
    if kind == "memory":
        yield MemoryKeep()
    else:
        kept = SQLiteKeep(tmp_path)
        yield kept
        kept.close()


@pytest.mark.parametrize(
    ("kind", "seed"), [("memory", seed) for seed in range(8)] + [("sqlite", seed) for seed in range(8, 10)]
)
def test_fleet_keeps_the_rules_under_five_hundred_schedules(seed: int, keep: Keep) -> None:
    stats = explore(partial(run_fleet, keep), schedules=500, seed=seed)
    assert stats.distinct_schedules == stats.runs >= 500


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "seed"),
    [("memory", seed) for seed in range(1_000, 1_160)] + [("sqlite", seed) for seed in range(2_000, 2_040)],
)
def test_fleet_keeps_the_rules_under_a_million_schedules(seed: int, keep: Keep) -> None:
    """Five thousand of each seed."""
    stats = explore(partial(run_fleet, keep), schedules=5_000, seed=seed)
    assert stats.runs == 5_000


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_schedule_follows_from_its_seed(kind: str, keep: Keep) -> None:
    first, second = (explore(partial(run_fleet, keep), schedules=20, seed=7) for _ in range(2))
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
