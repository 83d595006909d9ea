"""``python -m benchmarks``: what lazymig costs beside what it could cost, measured in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cases import CASES
from benchmarks.servers import NoServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.cases import Result

UNITS = {"ratio": "", "us more": " µs more", "times faster": " times faster"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a full run misses a goal, else 0."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="less of each, in under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all figures are written")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.case if name not in names]:
        parser.error(f"there is no case {unknown[0]!r}, only {', '.join(names)}.")
    print(machine())
    print(f"{'case':<18}{'what':<44}{'lazymig':>12}{'baseline':>12}{'figure':>10}{'range':>18}{'noise':>8}{'goal':>8}")
    results = []
    for case in CASES:
        size = case.size_of(is_quick=options.quick)
        if size is None or (options.case and case.name not in options.case):
            continue
        try:
            results.append(asyncio.run(case.run(size)))
        except (ModuleNotFoundError, NoServerError) as error:
            print(f"{case.name:<18}not measured: {error}. Run: pip install -e '.[bench]'", flush=True)
        else:
            print(row(results[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(document(results), indent=1))
    return int(not options.quick and not all(result.is_met for result in results))


def machine() -> str:
    """Return where this is measured."""
    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"


def row(result: Result) -> str:
    """Return a result as a line of the table."""
    case, figures = result.case, result.figures
    sides = (result.comparison.ours, result.comparison.base)
    ours, base = (f"{statistics.median(side) * 1e6:.1f} µs" for side in sides)
    spread = f"{figures[0]:.2f}–{figures[-1]:.2f}"
    verdict = "met" if result.is_met else "MISSED"
    return (
        f"{case.name:<18}{case.title:<44}{ours:>12}{base:>12}{result.figure:>10.2f}{spread:>18}"
        f"{result.comparison.noise:>8.1%}{case.goal:>8g}{UNITS[case.unit]}, {verdict}  (over: {case.baseline})"
    )


def document(results: Sequence[Result]) -> dict[str, Any]:
    """Return all figures, seconds per call and one value a trial."""
    return {
        "machine": machine(),
        "cases": {
            result.case.name: {
                "title": result.case.title,
                "baseline": result.case.baseline,
                "unit": result.case.unit,
                "goal": result.case.goal,
                "figure": result.figure,
                "met": result.is_met,
                "noise": result.comparison.noise,
                "lazymig_seconds": result.comparison.ours,
                "baseline_seconds": result.comparison.base,
            }
            for result in results
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
