"""``python -m benchmarks``: what lazymig costs beside what it could cost, measured in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from benchmarks.cases import CASES
from benchmarks.curves import CURVES, QUICK, SIZE, draw, load_drawing, measure_at
from benchmarks.curves import row as curve_row
from benchmarks.report import document, heading, line, machine, row
from benchmarks.servers import NoServerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.cases import Result
    from benchmarks.curves import Curve, Point

P = ParamSpec("P")
T = TypeVar("T")

INTERRUPTED = 130
"""What a shell reports of a program that a Ctrl-C ended."""

CURE = "Run: pip install -e '.[bench]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a full run misses a goal, 130 if it was interrupted, else 0."""
    options = read(arguments)
    results: list[Result] = []
    curves: dict[Curve, list[Point]] = {}
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        run_cases(options.case, results, is_quick=options.quick)
        if options.plots is not None:
            run_curves(options.plots, curves, is_quick=options.quick)
    except KeyboardInterrupt:
        print("\nInterrupted: the rest was not measured.", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
        if options.json is not None:
            options.json.write_text(json.dumps(document(results, curves), indent=1))
    return int(not options.quick and not all(result.is_met for result in results))


def interrupt(*_: object) -> None:
    """End the run here and now: asyncio's own handler cancels a task, and what its end raises would be told instead."""
    raise KeyboardInterrupt


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; refuse, before anything is measured, a case or a path that can't be used."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="less of each, in under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all figures are written")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where curves are drawn, as SVG; takes longer")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.case if name not in names]:
        parser.error(f"there is no case {unknown[0]!r}, only {', '.join(names)}.")
    try:
        if options.plots is not None:
            options.plots.mkdir(parents=True, exist_ok=True)
        if options.json is not None:
            options.json.open("a").close()
    except OSError as error:
        parser.error(f"{error.filename} can't be written: {error.strerror}.")
    return options


def run_cases(names: Sequence[str], results: list[Result], *, is_quick: bool) -> None:
    """Measure the named cases, or all; add what they gave."""
    print(f"{machine()}\n\n{heading()}", flush=True)
    for case in CASES:
        if names and case.name not in names:
            continue
        try:
            results.append(run(case.run, case.size_of(is_quick=is_quick)))
        except (ModuleNotFoundError, NoServerError) as error:
            print(line(case.name, f"not measured: {error}. {CURE}"), flush=True)
        else:
            print(row(results[-1]), flush=True)


def run(measure: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Measure on an event loop of its own; a Ctrl-C while that is made or closed waits until it is."""

    async def measured() -> T:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            return await measure(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return asyncio.run(measured())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def run_curves(folder: Path, curves: dict[Curve, list[Point]], *, is_quick: bool) -> None:
    """Measure and draw all curves; add their points."""
    print()
    try:
        load_drawing()
    except ModuleNotFoundError as error:
        print(f"not drawn: {error}. {CURE}", flush=True)
        return
    for curve in CURVES:
        points = curves.setdefault(curve, [])
        for at in curve.quick if is_quick else curve.places:
            points.append(run(measure_at, curve, QUICK if is_quick else SIZE, at))
            print(curve_row(curve, points[-1]), flush=True)
        draw(curve, points, folder)


if __name__ == "__main__":
    raise SystemExit(main())
