"""Each planted bug must be found: ``pytest -m planted`` says by which method, and how fast.

The code under test is a copy of the package with one piece of text replaced; the tests are those of every day, and one
of them must fail. They run in a process of their own, without the plug-ins that only cost time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCHEDULES = "tests/test_schedules.py::test_fleet_keeps_the_rules_under_hundreds_of_schedules"
CALLS = "tests/test_schedules.py::test_travelling_calls_keep_the_rules_under_hundreds_of_schedules"
METHODS = {
    "schedules in memory": f"{SCHEDULES} -k memory",
    "schedules on SQLite": f"{SCHEDULES} -k sqlite",
    "schedules of calls": f"{CALLS} -k memory",
    "histories": "tests/test_histories.py::test_history_of_killed_and_stopped_processes_is_linearizable_per_actor",
    "kill at any statement": "tests/test_kills.py::test_process_killed_at_any_statement_leaves_the_actor_whole",
    "two hundred kills": "tests/test_kills.py::test_two_hundred_kills_leave_actors_whole_and_free",
    "power loss": "tests/test_power_loss.py",
    "failing I/O": "tests/test_failing_io.py",
    "store contract": "tests/test_stores.py::TestSQLiteStore",
    "group commit": "tests/test_sqlite_groups.py",
    "brief operations": "tests/test_sqlite_here.py",
    "groups on PostgreSQL": "tests/test_postgres_groups.py",
    "contention": "tests/test_stores.py::TestPostgresStore",
    "fleet contract": "tests/test_stores.py::TestMemoryFleet",
    "fleet contract on SQLite": "tests/test_stores.py::TestSQLiteFleet",
    "fleet contract on PostgreSQL": "tests/test_stores.py::TestPostgresFleet",
    "every n-th call": "tests/test_faults.py",
    "every n-th call while calls travel": "tests/test_call_faults.py",
    "travelling calls": "tests/test_travelling_calls.py",
    "served calls": "tests/test_served_calls.py",
    "what is known of the fleet": "tests/test_fleet_view.py",
    "failing post": "tests/test_post_failures.py",
    "copies": "tests/test_stores.py::TestSQLiteCopies",
    "copies on PostgreSQL": "tests/test_stores.py::TestPostgresCopies tests/test_postgres_copies.py",
    "copied stores": "tests/test_copy.py",
    "what copies tell": "tests/test_copy_reports.py",
    "backups": "tests/test_backup.py",
    "policies": "tests/test_stores.py::TestSQLitePolicies",
    "rulings on PostgreSQL": "tests/test_stores.py::TestPostgresRulings",
    "policies on PostgreSQL": "tests/test_postgres_rulings.py",
    "corrupted bases": "tests/test_sqlite_ruling_corruption.py",
    "crashes of a server": "tests/test_postgres_crashes.py",
    "statements that wait": "tests/test_postgres_protocol.py",
    "cut connections": "tests/test_postgres_failures.py",
    "lost connections": "tests/test_lost_connections.py",
    "decoders": "tests/test_decoders.py",
    "corrupted rows": "tests/test_sqlite_corruption.py",
    "incarnations": "tests/test_heartbeat.py",
    "tables": "tests/test_tables.py tests/test_table_turns.py",
    "conversion of entries": "tests/test_entry_conversion.py tests/test_entries_in_migrations.py",
    "write versions": "tests/test_write_version.py -k memory",
    "write versions of entries": "tests/test_write_version_entries.py -k memory",
    "drift": "tests/test_drift.py -k memory",
    "bases": (
        "tests/test_bases.py tests/test_base_turns.py "
        "tests/test_base_recall.py tests/test_bases_above_pins.py -k memory"
    ),
    "what is kept": "tests/test_stores.py::TestSQLitePrevious",
    "what is kept on PostgreSQL": "tests/test_stores.py::TestPostgresPrevious",
    "going back": "tests/test_restoring.py tests/test_restoring_entries.py tests/test_restoring_plans.py -k memory",
    "preflights": "tests/test_preflight_reads.py tests/test_preflight.py tests/test_preflight_pins.py -k memory",
    "stores that only read": "tests/test_read_only.py",
    "plans of deploys": "tests/test_rollout_plans.py -k memory",
    "failures contract": "tests/test_stores.py::TestSQLiteFailures",
    "failures contract on PostgreSQL": "tests/test_stores.py::TestPostgresFailures",
    "quarantine": "tests/test_quarantine.py -k memory",
    "bounded migrations": "tests/test_max_migrations.py -k memory",
    "waits for slots": "tests/test_slots.py -k memory",
    "sweeps contract": "tests/test_stores.py::TestSQLiteSweeps",
    "sweeps contract on PostgreSQL": "tests/test_stores.py::TestPostgresSweeps",
    "sweeps": "tests/test_sweep.py -k memory",
    "sweeps under pins": "tests/test_sweep_pins.py -k memory",
    "eager conversion": "tests/test_eager_conversion.py tests/test_eager_writing.py",
}
"""The tests that make up a method; the first failure ends it."""

SCHEDULES_IN_CI = {"schedules in memory": "1920", "schedules on SQLite": "1920", "schedules of calls": "1920"}
"""For each seed; at least as many as in a run of the tests."""

PLUGINS_NOT_NEEDED = ("cacheprovider", "cov", "hypothesispytest", "xdist")
ADDOPTS = ("-o", "addopts=--strict-markers --strict-config -m 'not stress'", "-o", "log_level=CRITICAL")

pytestmark = [pytest.mark.planted, pytest.mark.no_cover, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Bug:
    """A fault to plant, see bugs.toml."""

    def __post_init__(self) -> None:
        """Check that the test is of the method that is said to find it."""
        assert self.test.startswith(METHODS[self.found_by].split(" ")[0]) or not self.test, (
            f"{self.name}: whose is {self.test}?"
        )

    name: str
    room: str
    found_by: str
    before: str
    after: str
    says: str
    test: str = ""
    slow: bool = False


BUGS = [Bug(**bug) for bug in tomllib.loads((Path(__file__).parent / "bugs.toml").read_text())["bug"]]


def hunt(bug: Bug, folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Plant a bug into a copy, and run the tests of a method there."""
    for name in ("lazymig", "suites", "tests"):
        shutil.copytree(ROOT / name, folder / name)  # compiled files too: the one that is changed is compiled anew
    shutil.copy(ROOT / "pyproject.toml", folder)
    room = folder / "lazymig" / bug.room
    text = room.read_text()
    assert text.count(bug.before) == 1, f"{bug.room} has changed: plant {bug.name!r} anew"
    room.write_text(text.replace(bug.before, bug.after))
    started = time.monotonic()
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    surroundings |= {
        "PYTHONPATH": str(folder),
        "DETANGLE_SHRINK": "0",
        "DETANGLE_RUNS": SCHEDULES_IN_CI.get(bug.found_by, ""),
    }
    without = [f"-pno:{plugin}" for plugin in PLUGINS_NOT_NEEDED]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rs", "--tb=short", "--show-capture=no", *without, *ADDOPTS]
    outcome = subprocess.run(
        [*command, *(bug.test or METHODS[bug.found_by]).split(" ")],
        cwd=folder, env=surroundings, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return outcome, time.monotonic() - started


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=[pytest.mark.stress] if bug.slow else [], id=bug.name) for bug in BUGS]
)
def test_planted_bug_is_found(bug: Bug, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome, seconds = hunt(bug, tmp_path / "copy")
    said = f"{outcome.stdout[-3000:]}{outcome.stderr[-1000:]}"
    missing = re.search(r"^SKIPPED .*?: (.* is not installed .*)$", outcome.stdout, re.MULTILINE)
    if missing and outcome.returncode == pytest.ExitCode.OK:
        pytest.skip(missing[1])
    assert outcome.returncode == pytest.ExitCode.TESTS_FAILED, f"{bug.found_by} did not find it: {said}"
    reasons = "\n".join(re.findall(r"^E  +(.*)$", outcome.stdout, re.MULTILINE))
    assert re.search(bug.says, reasons), f"something else failed: {said}"
    after = re.search(r"after \d+ runs", reasons)
    with capsys.disabled():
        print(f"\nplanted: {bug.name}: found by {bug.found_by} in {seconds:.1f} s {after[0] if after else ''}")
