"""The benchmarks run; what they say is read by people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import hand_over

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
