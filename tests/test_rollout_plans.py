"""Random plans of rolling deploys, see `tests.rollout_plans`."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store
from tests.rollout_plans import KINDS, Fleet, Step, draw, fresh

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

PLANS = 50
SHARING = 10
"""Plans that share a store."""

SEED = int(os.environ.get("LAZYMIG_SEED", "7"))

TRACES: dict[str, list[Step]] = {
    "A2.1: a pin raises the epoch, too": [
        ("open", "2.0.0", "a"), ("pin", "1.1.0"), ("commit", "2.0.0", "a"), ("load", "1.1.0", "a"),
    ],
    "A2.2: software below the write version stores nothing": [
        ("open", "1.1.0", "a"), ("pin", "1.1.0"), ("flip", "2.0.0"), ("commit", "1.1.0", "a"), ("load", "2.0.0", "a"),
    ],
    "A2.4: a clear by older software is not undone": [
        ("pin", "1.1.0"), ("save", "2.0.0", "a"), ("clear", "1.1.0", "a"), ("save", "1.1.0", "a"),
        ("load", "2.0.0", "a"),
    ],
    "A2.5: a base is of the actor, not of a state": [
        ("pin", "1.1.0"), ("other", "2.0.0", "a"), ("save", "2.0.0", "a"), ("save", "1.1.0", "a"),
        ("other", "2.0.0", "a"), ("load", "2.0.0", "a"),
    ],
    "A2.6: three releases": [
        ("pin", "1.1.0"), ("save", "2.1.0", "a"), ("save", "2.0.0", "a"), ("load", "2.1.0", "a"),
        ("save", "1.1.0", "a"), ("save", "2.0.0", "a"), ("load", "2.1.0", "a"),
    ],
    "A2.7, A2.9: back and forth": [
        ("pin", "1.1.0"), ("save", "2.0.0", "a"), ("unpin",), ("restart", "1.1.0", "a"), ("flip", "2.0.0"),
        ("unpin",), ("save", "2.1.0", "a"), ("pin", "2.0.0"), ("pin", "1.1.0"), ("save", "2.0.0", "a"),
        ("load", "1.1.0", "a"),
    ],
    "A3.1, A3.2: older software stores another state only": [
        ("save", "2.1.0", "a"), ("other", "2.0.0", "a"), ("load", "2.1.0", "a"), ("save", "2.0.0", "a"),
        ("load", "2.1.0", "a"),
    ],
    "A4.4: a node of the old release restarts": [
        ("save", "2.1.0", "a"), ("restart", "1.1.0", "a"), ("restart", "2.0.0", "a"), ("load", "2.0.0", "a"),
    ],
    "A7: a forgotten node stores nothing": [
        ("save", "1.1.0", "a"), ("crash", "1.1.0", "a"), ("load", "2.0.0", "a"), ("save", "1.1.0", "a"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("trace", TRACES)
async def test_traces_of_the_models(store: Store, trace: str) -> None:
    async with Fleet(store) as fleet:
        await fleet.run(TRACES[trace])


async def run(kind: str, folder: Path, seeds: range) -> None:
    """Run plans, some of them in one store: each has an actor type of its own."""
    done: Counter[str] = Counter()
    for first in seeds[::SHARING]:
        with fresh(kind, folder, first) as url:
            async with open_store(url) as store:
                for seed in range(first, min(first + SHARING, seeds.stop)):
                    variant, plan = draw(seed)
                    try:
                        async with Fleet(store, variant, f"Wallet{seed}") as fleet:
                            await fleet.run(plan)
                    except BaseException:
                        print(f"LAZYMIG_SEED={seed}")
                        raise
                    done += fleet.done
    print(dict(done))
    for what in {*KINDS, "refused"} - {"open loaded", "restart", "stop"}:  # counted as "open", or not at all
        assert done[what], f"no plan has done {what!r}: {done}"


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_random_plans(kind: str, tmp_path: Path) -> None:
    await run(kind, tmp_path, range(SEED, SEED + PLANS))


@pytest.mark.stress
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_many_random_plans(kind: str, tmp_path: Path) -> None:
    await run(kind, tmp_path, range(SEED, SEED + 100 * PLANS))
