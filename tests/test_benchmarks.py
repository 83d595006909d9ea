"""The benchmarks run; what they say is read by people."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import orjson
import pytest

from benchmarks import hand_over, report
from benchmarks.__main__ import CURE, INTERRUPTED, main
from benchmarks.cases import CASES, Result
from benchmarks.curves import CURVES, Point, draw
from benchmarks.measure import Comparison, Size, compare, measure
from benchmarks.things import value
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Block

ROOT = Path(__file__).parent.parent
OFTEN = {"core", "block", "cold", "postgres", "eager", "gate", "sweep", "sweep-calls"}
"""The cases that are measured whenever the tests run."""

TINY = Size(trials=2, rounds=2, calls=3, actors=200)


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgresql"])
def test_hand_over_has_a_figure_for_every_kind_of_call(store: str) -> None:
    command = [sys.executable, "-m", "benchmarks.hand_over", "--quick", "--store", store]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    figures = [line for line in shown.splitlines() if line.count(" ms") >= 3]
    assert [line.split("  ")[1] for line in figures] == [
        "active here",
        "fresh, activated here",
        "active elsewhere",
        "fresh, too new for this node: activated elsewhere",
        "the same, asked of a node that was just started",
    ]
    assert "Darlean 41 ms" in shown


@pytest.mark.parametrize(("factor", "verdict"), [(2.9, "met"), (3.1, "MISSED")])
def test_hand_over_says_whether_its_aim_is_met(factor: float, verdict: str) -> None:
    seconds = {kind: [0.001] * 9 for kind in hand_over.TITLES} | {hand_over.REFUSED: [0.001 * factor] * 9}
    assert hand_over.is_met(seconds) == (verdict == "met")
    assert f"under 3, {verdict}." in hand_over.table("store", seconds)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure little of all."""
    monkeypatch.setattr("benchmarks.cases.Case.size_of", lambda *_, **__: TINY)
    monkeypatch.setattr("benchmarks.__main__.QUICK", TINY)
    curves = [replace(curve, quick=(1_000, 4_000) if curve.name == "state-size" else (1, 4)) for curve in CURVES]
    monkeypatch.setattr("benchmarks.__main__.CURVES", curves)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "name", [case.name if case.name in OFTEN else pytest.param(case.name, marks=pytest.mark.stress) for case in CASES]
)
def test_each_case_has_a_figure_and_a_verdict(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("postgres"):
        monkeypatch.setenv("LAZYMIG_TEST_POSTGRES", postgres.server_url())
    path = tmp_path / "figures.json"
    assert main(["--quick", "--json", str(path), name]) == 0
    shown = capsys.readouterr().out
    if "not measured" in shown:
        assert CURE in shown
        pytest.skip("a library of the extra bench is not here")
    (case,) = orjson.loads(path.read_bytes())["cases"].values()
    sides = [case[f"{side}_{'bytes' if name == 'memory' else 'seconds'}"] for side in ("lazymig", "baseline")]
    assert [len(side) for side in sides] == [2, 2]
    assert min(map(min, sides)) > 0
    assert ("MISSED" in shown) is not case["met"]
    _, _, heading, rule, row = shown.splitlines()
    assert row.count(" | ") == rule.count(" | ") == heading.count(" | ")
    assert f"| {name} " in row


@pytest.mark.stress
@pytest.mark.usefixtures("tiny")
def test_curves_are_drawn_with_both_lines_and_their_figures(tmp_path: Path) -> None:
    path, folder = tmp_path / "figures.json", tmp_path / "new" / "plots"
    assert main(["--quick", "core", "--json", str(path), "--plots", str(folder)]) == 0
    curves = orjson.loads(path.read_bytes())["curves"]
    assert list(curves) == [curve.name for curve in CURVES] == ["actors", "migrations", "state-size", "concurrency"]
    assert sorted(folder.iterdir()) == sorted(folder / f"{name}.svg" for name in curves)
    for name, curve in curves.items():
        texts = [text.text for text in ET.parse(folder / f"{name}.svg").iter("{http://www.w3.org/2000/svg}text")]
        assert {"lazymig", f"baseline: {curve['baseline']}", curve["axis"], "an activation (µs)"} <= set(texts)
        for point in curve["points"]:
            assert f"{point['at']:,}" in texts
            for side in ("lazymig_seconds", "baseline_seconds"):
                assert f"{sum(point[side]) / 2 * 1e6:,.0f}" in texts


def test_a_curve_of_the_same_figures_is_the_same_file(tmp_path: Path) -> None:
    points = [Point(at, Comparison((0.002,), (0.001,), (0.001,))) for at in (1, 10)]
    drawn = []
    for _ in range(2):
        draw(CURVES[0], points, tmp_path)
        drawn.append((tmp_path / "actors.svg").read_bytes())
    assert drawn[0] == drawn[1]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("library", "arguments", "said"),
    [
        ("pyrmute", ["pyrmute", "proxy"], "| pyrmute "),
        ("eventsourcing", ["eventsourcing-get", "proxy"], "| eventsourcing-get "),
        ("matplotlib.figure", ["proxy", "--plots", "{}"], "not drawn"),
    ],
)
def test_a_library_that_is_not_there_is_told_with_its_cure(  # noqa: PLR0917  (fixtures)
    library: str,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.event_sourced", raising=False)
    for module in (library, *(name for name in sys.modules if name.startswith(f"{library}."))):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["--quick", *(argument.format(tmp_path) for argument in arguments)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (told,) = (line for line in lines if said in line)
    assert library in told
    assert CURE in told
    assert [line for line in lines if line.startswith("| proxy ")], "the rest is measured all the same"


def test_a_case_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cole"])
    assert "there is no case 'cole', only core, " in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["--json={}/no/figures.json", "--json={}", "--plots={}/file", "--plots={}/file/in"])
def test_a_path_that_cant_be_written_is_refused_before_anything_is_measured(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit) as ended:
        main(["core", wrong.format(tmp_path)])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert not said.out
    assert f"{tmp_path}" in said.err
    assert "can't be written" in said.err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_ctrl_c_ends_the_run_and_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(path), "core", "memory"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("| core "):
                process.send_signal(signal.SIGINT)
                break
        _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert said.strip() == "Interrupted: the rest was not measured."
    assert list(orjson.loads(path.read_bytes())["cases"]) == ["core"]


@pytest.mark.parametrize(
    ("unit", "goal", "figure", "is_met"),
    [
        ("ratio", 2.0, 2.0, True),
        ("ratio", 1.9, 2.0, False),
        ("µs more", 1_001.0, 1_000.0, True),
        ("µs more", 999.0, 1_000.0, False),
        ("times faster", 0.5, 0.5, True),
        ("times faster", 0.6, 0.5, False),
    ],
)
def test_a_goal_is_met_or_missed_in_its_unit(unit: Any, goal: float, figure: float, is_met: bool) -> None:  # noqa: FBT001
    case = replace(CASES[0], unit=unit, goal=goal)
    result = Result(case, TINY, Comparison(ours=(0.002,) * 3, base=(0.001,) * 3, again=(0.0011, 0.001, 0.0012)))
    assert result.figure == pytest.approx(figure)
    assert result.is_met is is_met
    assert result.comparison.noise == pytest.approx(0.1)


def test_an_amount_of_memory_is_in_its_own_unit() -> None:
    case = replace(CASES[0], unit="kB more", goal=2.0, title="{calls:,} actors")
    result = Result(case, replace(TINY, calls=10_000), Comparison(ours=(2_500.0,), base=(1_000.0,), again=(1_000.0,)))
    assert result.figure == 1.5
    assert result.is_met
    cells = [cell.strip() for cell in report.row(result).split("|")]
    assert cells[2:9] == ["10,000 actors", "decode", "2.50 kB", "1.00 kB", "1.50", "1.50–1.50", "0.0%"]
    assert cells[9] == "≤ 2 kB more, met"


@pytest.mark.parametrize("size", [300, 2_000, 30_000])
def test_a_state_has_about_the_size_that_is_asked_for(size: int) -> None:
    assert size - 20 <= len(orjson.dumps(value(size))) <= size


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system can't be told on which core to run")
async def test_threads_that_a_side_starts_run_on_the_same_core() -> None:
    cores = []

    @asynccontextmanager
    async def opening() -> AsyncIterator[tuple[Block, Block]]:
        async def block() -> float:
            cores.append(os.sched_getaffinity(0))
            return 1.0

        cores.append(await asyncio.to_thread(os.sched_getaffinity, 0))
        yield block, block

    before = os.sched_getaffinity(0)
    await measure(opening(), TINY)
    assert set(map(frozenset, cores)) == {frozenset({min(before)})}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("is_cancelled", "raised"), [(True, asyncio.CancelledError), (False, OSError)])
async def test_what_fails_after_a_ctrl_c_is_the_ctrl_c(is_cancelled: bool, raised: type[BaseException]) -> None:  # noqa: FBT001
    @asynccontextmanager
    async def opening() -> AsyncIterator[tuple[Block, Block]]:
        task = asyncio.current_task()
        if is_cancelled and task is not None:
            task.cancel()
        raise OSError
        yield

    with pytest.raises(raised):
        await asyncio.create_task(measure(opening(), TINY))


async def test_both_sides_alternate_and_the_collector_is_off_meanwhile() -> None:
    order: list[tuple[str, bool]] = []

    async def ours() -> float:
        order.append(("ours", gc.isenabled()))
        return 2.0

    async def base() -> float:
        order.append(("base", gc.isenabled()))
        return 1.0

    found = await compare(ours, base, Size(trials=3, rounds=4, calls=1))
    assert found.ratios == [2.0] * 3
    assert found.noise == 0
    assert gc.isenabled()
    assert {enabled for _, enabled in order} == {False}
    rounds = [tuple(name for name, _ in order[start : start + 3]) for start in range(0, len(order), 3)]
    assert len(rounds) == 1 + 3 * 4
    assert {tuple(sorted(names)) for names in rounds} == {("base", "base", "ours")}
    assert len(set(rounds)) == 3, "always in the same order"
