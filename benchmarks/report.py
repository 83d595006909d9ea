"""What the figures look like: a Markdown table, and a JSON document."""

from __future__ import annotations

import os
import platform
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.cases import Result
    from benchmarks.curves import Curve, Point

COLUMNS = {
    "case": 21, "what": 45, "over": 43, "lazymig": -10, "baseline": -10, "figure": -7, "spread": -14, "noise": -6,
    "goal": 28,
}  # fmt: skip
"""Name to width; of a column of figures it is negative."""


def machine() -> str:
    """Return where this is measured."""
    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"


def heading() -> str:
    """Return the first lines of the table."""
    rules = ("-" * (abs(width) - 1) + ("-" if width > 0 else ":") for width in COLUMNS.values())
    return f"{line(*COLUMNS)}\n{line(*rules)}"


def row(result: Result) -> str:
    """Return a result as a line of the table."""
    case, figures = result.case, result.figures
    ours, base = (amount(side, case.quantity) for side in (result.comparison.ours, result.comparison.base))
    bound = "≥" if case.unit == "times faster" else "≤"
    unit = "" if case.unit == "ratio" else f" {case.unit}"
    return line(
        case.name,
        result.title,
        case.baseline,
        ours,
        base,
        f"{result.figure:.2f}",
        f"{figures[0]:.2f}–{figures[-1]:.2f}",
        f"{result.comparison.noise:.1%}",
        f"{bound} {case.goal:g}{unit}, {'met' if result.is_met else 'MISSED'}",
    )


def line(*cells: str) -> str:
    """Return a line of the table; one of fewer cells may end in text of any length."""
    padded = (
        f"{cell:<{width}}" if width > 0 else f"{cell:>{-width}}"
        for cell, width in zip(cells, COLUMNS.values(), strict=False)
    )
    return f"| {' | '.join(padded)} |"


def amount(trials: Sequence[float], quantity: str) -> str:
    """Return the median of seconds or bytes as text."""
    median = statistics.median(trials)
    return f"{median / 1e3:.2f} kB" if quantity == "bytes" else f"{median * 1e6:.1f} µs"


def document(results: Sequence[Result], curves: Mapping[Curve, Sequence[Point]]) -> dict[str, Any]:
    """Return all figures: seconds (or bytes) of a call, one value a trial."""
    return {
        "machine": machine(),
        "cases": {result.case.name: _case(result) for result in results},
        "curves": {curve.name: _curve(curve, points) for curve, points in curves.items()},
    }


def _case(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "title": result.title,
        "baseline": case.baseline,
        "unit": case.unit,
        "goal": case.goal,
        "figure": result.figure,
        "met": result.is_met,
        "noise": result.comparison.noise,
        f"lazymig_{case.quantity}": result.comparison.ours,
        f"baseline_{case.quantity}": result.comparison.base,
    }


def _curve(curve: Curve, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "title": curve.title,
        "baseline": curve.baseline,
        "axis": curve.axis,
        "points": [
            {"at": point.at, "lazymig_seconds": point.comparison.ours, "baseline_seconds": point.comparison.base}
            for point in points
        ],
    }
