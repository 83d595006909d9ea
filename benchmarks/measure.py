"""Two ways to do the same thing, measured side by side in one run.

Short blocks of calls of both sides alternate in an order drawn anew for each round, with the garbage collector off and
on one core, including the threads and servers that a side starts: a hop to a thread costs half or double, depending on
the core it is on. A trial's figure of a side is the lower decile of what a call took in its blocks: what it costs when
nothing else is in the way. The baseline is measured twice in each round; how far the two are apart is the noise of
identical code, and no ratio says more than that.
"""

from __future__ import annotations

import asyncio
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
    from contextlib import AbstractAsyncContextManager


class Block(Protocol):
    """A block of calls of one side."""

    async def __call__(self) -> float:
        """Make them; return what one took: seconds, or in a case about memory bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        trials: How many figures each side gets.
        rounds: How many blocks of each side a trial has.
        calls: How many calls a block has.
        actors: How many actors are stored, where that matters; 0: as many as are called.
    """

    trials: int
    rounds: int
    calls: int
    actors: int = 0

    @property
    def total(self) -> int:
        """How many calls a side makes in all trials."""
        return self.trials * self.rounds * self.calls


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured: what a call takes, one value a trial.

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
        """What ours takes more than the baseline, in order of size."""
        return sorted(ours - base for ours, base in zip(self.ours, self.base, strict=True))

    @property
    def noise(self) -> float:
        """By how much identical code differs, as a share: the median of all trials."""
        return statistics.median(abs(again / base - 1.0) for again, base in zip(self.again, self.base, strict=True))


async def measure(opening: AbstractAsyncContextManager[tuple[Block, Block]], size: Size) -> Comparison:
    """Open two sides and measure them."""
    try:
        with on_one_core():
            async with opening as (ours, base):
                return await compare(ours, base, size)
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # a Ctrl-C ends the programs that start a server, too
            raise asyncio.CancelledError from error
        raise


async def compare(ours: Block, base: Block, size: Size, *, seed: int = 0) -> Comparison:
    """Measure two sides."""
    chance = random.Random(seed)  # noqa: S311  (an order)
    blocks = {"ours": ours, "base": base, "again": base}
    figures: dict[str, list[float]] = {name: [] for name in blocks}
    with without_collector():
        for block in blocks.values():
            await block()  # what is done once only
        for _ in range(size.trials):
            seconds: dict[str, list[float]] = {name: [] for name in blocks}
            for _ in range(size.rounds):
                await asyncio.sleep(0)  # blocks may never wait, and a Ctrl-C is to be heard
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
    """Run on one core, where the system can be told so; threads and processes begun meanwhile do so, too."""
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
