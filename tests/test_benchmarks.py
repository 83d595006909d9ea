"""The benchmarks run; what they say is read by people."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks import hand_over, on_sqlite
from benchmarks.__main__ import main
from benchmarks.cases import CASES, Result
from benchmarks.measure import Comparison, Size, compare
from tests import postgres

ROOT = Path(__file__).parent.parent


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


@pytest.mark.parametrize("name", [case.name for case in CASES if case.quick is not None])
def test_each_case_has_a_figure_and_a_verdict(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.cases.Case.size_of", lambda *_, **__: Size(trials=2, rounds=2, calls=3))
    if name == "actors-quick":
        monkeypatch.setattr("benchmarks.on_sqlite.fill", partial(fill_less, on_sqlite.fill))
    if name.startswith("postgres"):
        monkeypatch.setenv("LAZYMIG_TEST_POSTGRES", postgres.server_url())
    path = tmp_path / "figures.json"
    assert main(["--quick", "--json", str(path), name]) == 0
    shown = capsys.readouterr().out
    if "not measured" in shown:
        assert "pip install -e '.[bench]'" in shown
        pytest.skip("a library of the extra bench is not here")
    (case,) = orjson.loads(path.read_bytes())["cases"].values()
    assert len(case["lazymig_seconds"]) == len(case["baseline_seconds"]) == 2
    assert min(*case["lazymig_seconds"], *case["baseline_seconds"]) > 0
    assert ("MISSED" in shown) is not case["met"]


async def fill_less(fill: Any, at: Any, number: int, *size: int) -> list[str]:
    found: list[str] = await fill(at, min(number, 200), *size)
    return found


def test_a_case_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cole"])
    assert "there is no case 'cole', only core, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("unit", "goal", "figure", "is_met"),
    [
        ("ratio", 2.0, 2.0, True),
        ("ratio", 1.9, 2.0, False),
        ("us more", 1_001.0, 1_000.0, True),
        ("us more", 999.0, 1_000.0, False),
        ("times faster", 0.5, 0.5, True),
        ("times faster", 0.6, 0.5, False),
    ],
)
def test_a_goal_is_met_or_missed_in_its_unit(unit: Any, goal: float, figure: float, is_met: bool) -> None:  # noqa: FBT001
    case = replace(CASES[0], unit=unit, goal=goal)
    result = Result(case, Comparison(ours=(0.002,) * 3, base=(0.001,) * 3, again=(0.0011, 0.001, 0.0012)))
    assert result.figure == pytest.approx(figure)
    assert result.is_met is is_met
    assert result.comparison.noise == pytest.approx(0.1)


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
