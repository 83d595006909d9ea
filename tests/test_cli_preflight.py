"""The command ``sweep --dry-run``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from lazymig._records import ActorKey
from lazymig.cli._preflight import print_figures
from lazymig.rollout._preflight_report import Difference, Preflight
from tests.cli_project import Project
from tests.test_cli_process import end, start

if TYPE_CHECKING:
    from pathlib import Path

LOSSY = """
import os, signal
from lazymig import Suite
suite = Suite("fleet")
vehicle = suite.actor_type("Vehicle", state="vehicle")
@vehicle.migration("1.0.0")
def paint(state, context):
    if state["owner"] == "bob":
        raise ValueError("no bob here")
    if state["owner"] == "ctrl-c":
        os.kill(os.getpid(), signal.SIGINT)
    state["colour"] = "red"
@paint.down
def scrape(state, context):
    del state["colour"]
    if state["owner"] == "eve":
        del state["owner"]
suite.actor_type("Order", state="order")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """Return a project whose migration fails on bob's cars, and whose way down forgets eve."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # noqa: PTH109  (the suites are not installed)
    made = Project(tmp_path, monkeypatch)
    name = f"lossy_{abs(hash(request.node.name))}"
    made.write(f"{name}.py", LOSSY)
    made.configure(f'[tool.lazymig]\nsuites = ["{name}:suite"]\n')
    return made


def test_people_are_told_first_what_it_cannot_prove_then_the_verdict_and_figures(project: Project) -> None:
    project.store({"car-1": {"owner": "ann"}, "car-2": {"owner": "bob"}, "car-3": {"owner": "eve"}})
    before = project.database.read_bytes()

    result = project.run("sweep", "Vehicle", "--dry-run")

    assert result.exit_code == 1
    first, *rest = result.stdout.splitlines()
    assert first == "a dry run can't prove:"
    unproven = [line for line in rest if line.startswith("- ")]
    verdict, header, row, failed, took, *figures = rest[len(unproven) :]
    assert verdict == "verdict: not all actors would be at their version (3 tried, 1 failed). Nothing was stored."
    assert header.split()[:3] == ["type", "migrated", "current"]
    assert row.split()[:7] == ["Vehicle", "2", "0", "0", "0", "1", "0"]
    assert failed.startswith("failed: Vehicle 'car-2': migration 1.0.0 (paint) of Vehicle 'car-2' failed")
    assert re.fullmatch(
        r"time of an actor's migrations: half within [\d.]+ .s, 95 % within .*, 99 % within .*, all within .*", took
    )
    assert figures == [
        "size: 30 bytes before, 60 after (+100.0%)",
        "grows most: Vehicle 'car-1', from 15 to 30 bytes",
        "down again: 2 compared, 1 are not what they were",
        "differs: Vehicle 'car-3': state 'vehicle' at $.owner",
        "swept: Vehicle. Not swept: Order (not asked for).",
    ]
    assert project.database.read_bytes() == before


def test_a_document_has_all_of_it_and_the_status_says_whether_a_sweep_would_do(project: Project) -> None:
    project.store({"car-1": {"owner": "ann"}})
    document = project.document("sweep", "--dry-run")
    preflight = document["total"]["preflight"]
    assert (preflight["tried"], preflight["compared"], preflight["differing"]) == (1, 1, 0)
    assert sorted(preflight["seconds"]) == ["max", "p50", "p95", "p99"]
    assert len(preflight["unproven"]) == 4
    assert document["total"]["complete"] is True
    assert [report["types"] for report in document["sweeps"]] == [["Order"], ["Vehicle"]]

    assert project.run("sweep", "Vehicle").exit_code == 0
    again = project.document("sweep", "Vehicle", "--dry-run")["total"]
    assert (again["current"], again["preflight"]["tried"], again["complete"]) == (1, 0, True)


def test_a_missing_store_is_not_made(project: Project) -> None:
    assert "does not exist" in project.refused("sweep", "Vehicle", "--dry-run", status=2)
    assert not project.database.exists()


def test_people_are_shown_some_differences(capsys: pytest.CaptureFixture[str]) -> None:
    key = ActorKey("Vehicle", "car\x1b[2J")
    differences = tuple(Difference(key, table="log", entry=f"e{number}", error="gone") for number in range(25))
    print_figures(Preflight(differences=differences))
    *shown, more = capsys.readouterr().out.splitlines()
    assert shown[0] == r"differs: Vehicle 'car\x1b[2J': entry 'e0' of table 'log' at $: gone"
    assert (len(shown), more) == (20, "and 5 more: --json names them")


def test_ctrl_c_says_how_far_it_came_and_that_nothing_was_stored(project: Project) -> None:
    cars = {f"car-{number:04}": {"owner": "ann"} for number in range(1_000)}
    project.store(cars | {"car-0100": {"owner": "ctrl-c"}})

    status, _, stderr = end(start("sweep", "Vehicle", "--dry-run"))

    said = re.fullmatch(
        r"lazymig: interrupted: (\d+) tried, (\d+) left\. Nothing was stored; a dry run begins anew\.\n",
        stderr.decode(),
    )
    assert status == 130
    assert said is not None, stderr
    tried, left = int(said[1]), int(said[2])
    assert tried + left == 1_000
    assert 100 < tried < 300
