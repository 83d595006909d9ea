"""A sweep takes as much memory for many actors as for few."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, open_store
from tests.cars import put_legacy, sweep

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 500


async def peak_of(path: Path, actors: int) -> int:
    """Return the most bytes that a sweep of so many actors has in use at a time."""
    async with open_store(f"sqlite:///{path}?synchronous=normal") as store:
        for start in range(0, actors, 500):
            await put_legacy(store, *(f"{number:06}" for number in range(start, start + 500)))
    suite = Suite("cars")

    @suite.actor_type("Car", state="car").migration("1.0.0")
    def slow_down(state: Any, context: Any) -> None:
        state["kmh"] /= 2

    async with open_store(f"sqlite:///{path}?synchronous=normal") as store:
        gc.collect()
        tracemalloc.start()
        try:
            report = await sweep(store, suite)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert report.migrated == actors
    return peak


@pytest.mark.no_cover
async def test_many_actors_take_no_more_memory_than_a_few_batches(tmp_path: Path) -> None:
    few = await peak_of(tmp_path / "few.db", 4 * BATCH)
    many = await peak_of(tmp_path / "many.db", 16 * BATCH)
    assert many < 1.3 * few
