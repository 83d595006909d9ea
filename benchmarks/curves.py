"""How the cost of an activation grows, with as many actors, migrations, bytes or activations at once."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks import on_sqlite
from benchmarks.measure import Size, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from benchmarks.measure import Block, Comparison

    Sides = AbstractAsyncContextManager[tuple[Block, Block]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One comparison at several places of an axis.

    Attributes:
        name: Of its file, without the suffix.
        title: What is measured.
        baseline: What it is compared with.
        axis: What grows, with its unit.
        open: Yields both sides at a place.
        places: Of a full run.
        quick: Of a quick one.
    """

    name: str
    title: str
    baseline: str
    axis: str
    open: Callable[[Size, int], Sides]
    places: tuple[int, ...]
    quick: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one place.

    Attributes:
        at: The place.
        comparison: Seconds of an activation, and of the baseline.
    """

    at: int
    comparison: Comparison

    @property
    def microseconds(self) -> tuple[float, float]:
        """Medians of both sides."""
        ours, base = (statistics.median(side) * 1e6 for side in (self.comparison.ours, self.comparison.base))
        return ours, base


def _actors(size: Size, at: int) -> Sides:
    return on_sqlite.cold(replace(size, actors=at), state_bytes=300)


def _migrations(size: Size, at: int) -> Sides:
    return on_sqlite.cold(size, migrations=at)


def _state_size(size: Size, at: int) -> Sides:
    return on_sqlite.pending(size, state_bytes=at)


def _concurrency(size: Size, at: int) -> Sides:
    return on_sqlite.crowd(replace(size, calls=at), synchronous="normal")


LOAD, UPGRADE = "load in one trip, decode", "claim, 3 functions, fenced save in two trips"
CURVES = (
    Curve(
        "actors", "cold activation, SQLite, states of 300 B", LOAD, "actors in the store",
        _actors, (1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000, 50_000),
    ),
    Curve(
        "migrations", "cold activation, SQLite, none pending", LOAD, "migrations registered",
        _migrations, (1, 10, 100, 1_000), (1, 30, 1_000),
    ),
    Curve(
        "state-size", "3 pending, SQLite, NORMAL", UPGRADE, "size of the state as JSON (bytes)",
        _state_size, (300, 3_000, 30_000, 300_000), (300, 10_000, 300_000),
    ),
    Curve(
        "concurrency", "3 pending, SQLite, NORMAL", "synchronous read, change, write, one after the other",
        "activations at once", _concurrency, (1, 3, 10, 30, 100, 300), (1, 10, 100),
    ),
)  # fmt: skip

SIZE, QUICK = Size(trials=5, rounds=6, calls=20), Size(trials=3, rounds=3, calls=10)


async def measure_at(curve: Curve, size: Size, at: int) -> Point:
    """Measure both sides at one place."""
    return Point(at, await measure(curve.open(size, at), size))


def row(curve: Curve, point: Point) -> str:
    """Return a point as a line of text."""
    ours, base = point.microseconds
    return f"{curve.name}: {curve.axis} {point.at:,}, lazymig {ours:.1f} µs, baseline {base:.1f} µs"


def load_drawing() -> Any:
    """Return matplotlib.

    Raises:
        ModuleNotFoundError: It is not here.
    """
    import_module("matplotlib.figure")
    return import_module("matplotlib")


def draw(curve: Curve, points: Sequence[Point], folder: Path) -> None:
    """Draw a curve into a file of the folder, the same bytes for the same figures."""
    matplotlib = load_drawing()
    with matplotlib.rc_context({"svg.hashsalt": "lazymig", "svg.fonttype": "none"}):
        figure = matplotlib.figure.Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.subplots()
        for side, (label, style) in enumerate((("lazymig", "o-"), (f"baseline: {curve.baseline}", "s--"))):
            heights = [point.microseconds[side] for point in points]
            axes.plot([point.at for point in points], heights, style, label=label)
            for point, height in zip(points, heights, strict=True):
                offset = (0, 7) if height == max(point.microseconds) else (0, -13)
                axes.annotate(f"{height:,.0f}", (point.at, height), offset, textcoords="offset points", ha="center")
        axes.set(title=curve.title, xlabel=curve.axis, ylabel="an activation (µs)", xscale="log", yscale="log")
        axes.minorticks_off()
        axes.set_xticks([point.at for point in points], [f"{point.at:,}" for point in points])
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.margins(0.08, 0.2)
        axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2)
        figure.savefig(folder / f"{curve.name}.svg", metadata={"Date": None})
