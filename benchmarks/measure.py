"""Two ways to do the same thing, measured side by side in one run.

Short blocks of calls of both sides alternate in an order drawn anew for each round, with the garbage collector off and
on one core. A trial's figure of a side is the lower decile of its blocks' seconds per call: what it costs when nothing
else is in the way. The baseline is measured twice in each round; how far the two are apart is the noise of identical
code, and no ratio says more than that.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MICROSECOND = 1e-6


class Block(Protocol):
    """A block of calls of one side."""

    async def __call__(self) -> float:
        """Make them; return the seconds that one took."""
        ...


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        trials: How many figures each side gets.
        rounds: How many blocks of each side a trial has.
        calls: How many calls a block has.
    """

    trials: int
    rounds: int
    calls: int

    @property
    def total(self) -> int:
        """How many calls a side makes in all trials."""
        return self.trials * self.rounds * self.calls


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured: seconds per call, one value a trial.

    Attributes:
        ours: Of lazymig.
        base: Of the baseline.
        again: Of the same baseline once more.
    """

    ours: tuple[float, ...]
    base: tuple[float, ...]
    again: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours over the baseline, in order of size."""
        return sorted(ours / base for ours, base in zip(self.ours, self.base, strict=True))

    @property
    def differences(self) -> list[float]:
        """Microseconds that ours takes more than the baseline, in order of size."""
        return sorted((ours - base) / MICROSECOND for ours, base in zip(self.ours, self.base, strict=True))

    @property
    def noise(self) -> float:
        """By how much identical code differs, as a share: the median of all trials."""
        return statistics.median(abs(again / base - 1.0) for again, base in zip(self.again, self.base, strict=True))


async def compare(ours: Block, base: Block, size: Size, *, seed: int = 0) -> Comparison:
    """Measure two sides."""
    chance = random.Random(seed)  # noqa: S311  (an order)
    blocks = {"ours": ours, "base": base, "again": base}
    figures: dict[str, list[float]] = {name: [] for name in blocks}
    with on_one_core(), without_collector():
        for block in blocks.values():
            await block()  # what is done once only
        for _ in range(size.trials):
            seconds: dict[str, list[float]] = {name: [] for name in blocks}
            for _ in range(size.rounds):
                for name in chance.sample(sorted(blocks), len(blocks)):
                    seconds[name].append(await blocks[name]())
            for name, values in seconds.items():
                figures[name].append(lower_decile(values))
            gc.collect()
    return Comparison(*(tuple(figures[name]) for name in ("ours", "base", "again")))


def lower_decile(values: list[float]) -> float:
    """Return the value below which a tenth of them is."""
    return statistics.quantiles(values, n=10, method="inclusive")[0] if len(values) > 1 else values[0]


@contextmanager
def without_collector() -> Iterator[None]:
    """Collect garbage before the block, and not in it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Run on one core, where the system can be told so."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


def repeated(call: Callable[[], Awaitable[object]], calls: int) -> Block:
    """Return a block that makes the same call again and again."""

    async def block() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            await call()
        return (time.perf_counter() - started) / calls

    return block


def computed(function: Callable[[], object], calls: int) -> Block:
    """Return a block of a plain function."""

    async def block() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - started) / calls

    return block
