"""The command ``sweep``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from lazymig._records import NodeRecord
from lazymig.rollout import SweepReport
from tests.cli_project import Project
from tests.cli_rollouts import beside, running, within
from tests.test_cli_process import RUN, end, start
from tests.wallets import write_at

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store

CAR = {"owner": "ann", "velocity": 36.0}
POISONED = """
from lazymig import Suite
from suites import vehicles
suite = Suite("fleet")
vehicle = suite.actor_type("Vehicle", state="vehicle")
for migration in vehicles.vehicle.migrations:
    vehicle.migration(str(migration.version))(migration.function)
@vehicle.migration("2.1.0")
def spoil(state, context):
    if state.get("owner") == "bob":
        raise ValueError("no bob here")
suite.actor_type("Order", state="order")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # noqa: PTH109  (the suites are not installed)
    return Project(tmp_path, monkeypatch)


@pytest.fixture
def poisoned(project: Project, request: pytest.FixtureRequest) -> Project:
    """Return a project whose suite fails on bob's cars, and has a type of no actors."""
    name = f"poisoned_{abs(hash(request.node.name))}"
    project.write(f"{name}.py", POISONED)
    project.configure(f'[tool.lazymig]\nsuites = ["{name}:suite"]\n')
    return project


def words(text: str) -> list[list[str]]:
    """Return a table's lines as words."""
    return [line.split() for line in text.splitlines()]


def test_all_are_brought_up_and_a_second_run_finds_nothing(project: Project) -> None:
    project.store({f"car-{number}": CAR for number in range(3)})

    first = project.run("sweep", "Vehicle")

    assert first.exit_code == 0
    header, row, covered = words(first.stdout)
    assert header == ["type", "migrated", "current", "busy", "newer", "failed", "left", "a", "second", "from"]
    assert (row[:7], row[8:]) == (["Vehicle", "3", "0", "0", "0", "0", "0"], ["0.0.0:", "3"])
    assert " ".join(covered) == "swept: Vehicle. Not swept: no other types."
    again = project.document("sweep", "Vehicle")
    assert (again["total"]["migrated"], again["total"]["current"], again["total"]["complete"]) == (0, 3, True)
    assert again["sweeps"] == [again["total"]]


def test_one_that_fails_is_named_and_the_status_says_so(poisoned: Project) -> None:
    poisoned.store({"car-1": CAR, "car-2": CAR | {"owner": "bob"}})

    result = poisoned.run("sweep", "Vehicle")

    assert result.exit_code == 1
    assert "failed: Vehicle 'car-2': migration 2.1.0 (spoil) of Vehicle 'car-2' failed" in result.stdout
    document = poisoned.document("sweep", "Vehicle", status=1)
    (failed,) = document["total"]["failed"]
    assert (failed["type"], failed["id"], failed["version"]) == ("Vehicle", "car-2", "2.1.0")


def test_people_are_shown_some_failures_and_a_document_has_all(poisoned: Project) -> None:
    poisoned.store({f"car-{number:02}": CAR | {"owner": "bob"} for number in range(25)})

    result = poisoned.run("sweep")

    assert result.stdout.count("failed: Vehicle") == 20
    assert "and 5 more: --json names them" in result.stdout
    assert len(poisoned.document("sweep", status=1)["total"]["failed"]) == 25


def test_it_says_which_types_it_swept_and_which_not_and_why(poisoned: Project) -> None:
    async def insert(store: Store) -> None:
        await store.insert("Bus", "bus", [("b", b"1")])

    poisoned.store({"car-1": CAR})
    within(poisoned, insert)

    whole = poisoned.run("sweep").stdout.splitlines()[-1]
    assert whole == (
        "swept: Order, Vehicle. Not swept: Bus (no suite here has it: add its suite to [tool.lazymig] in "
        "pyproject.toml)."
    )
    coverage = poisoned.document("sweep", "Vehicle")["coverage"]
    assert coverage["swept"] == ["Vehicle"]
    assert {one["type"]: one["reason"].partition(":")[0] for one in coverage["not_swept"]} == {
        "Bus": "no suite here has it",
        "Order": "not asked for",
    }


def test_several_types_have_a_total(poisoned: Project) -> None:
    poisoned.store({"car-1": CAR})

    rows = words(poisoned.run("sweep", "Vehicle", "Order", "Vehicle").stdout)

    assert [row[:2] for row in rows[1:4]] == [["Vehicle", "1"], ["Order", "0"], ["total", "1"]]


def test_a_type_that_is_refused_is_said_and_the_others_are_swept(poisoned: Project) -> None:
    poisoned.store({"car-1": CAR})
    assert poisoned.run("rollout", "pin", "Order", "0.0.0").exit_code == 0

    async def write_order_higher(store: Store) -> None:
        await write_at(store, "1.0.0", "Order")

    within(poisoned, write_order_higher)

    result = poisoned.run("sweep")

    assert result.exit_code == 1
    assert "lazymig: Order was not swept: " in result.stderr
    assert "Not swept: Order (refused: " in result.stdout
    assert poisoned.document("sweep", status=1)["total"]["types"] == ["Vehicle"]
    assert "written at 1.0.0" in poisoned.refused("sweep", "Order", status=1)


async def test_an_actor_that_a_node_holds_makes_the_answer_no(project: Project) -> None:
    async with running(project, "old", "1.1.0") as node:
        await node.actor("Vehicle", "car-1").accelerate(1.0)
        result = await beside(project.run, "sweep", "Vehicle", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["total"]["busy"] == 1
    assert (await beside(project.run, "sweep", "Vehicle")).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--limit", "0"], "--limit"),
        (["--actors-per-second", "0"], "'0' is neither a number above 0 nor 'none'"),
        (["--bytes-per-second", "-1"], "'-1' is neither a number above 0 nor 'none'"),
        (["--actors-per-second", "nan"], "'nan' is neither"),
        (["--max-failures", "0"], "--max-failures"),
        (["Vehicel"], "Did you mean 'Vehicle'?"),
        (["pause"], "Missing argument 'TYPE'"),
        (["pause", "Vehicel"], "Did you mean 'Vehicle'?"),
        (["status", "Vehicel"], "Did you mean 'Vehicle'?"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(project: Project, arguments: list[str], text: str) -> None:
    project.store({"car-1": CAR})
    assert text in project.refused("sweep", *arguments, status=2)


def test_a_store_that_is_not_there_is_not_made(project: Project) -> None:
    assert "does not exist" in project.refused("sweep", "Vehicle", status=2)
    assert not project.database.exists()


def test_a_limit_leaves_the_rest_for_another_run(project: Project) -> None:
    project.store({f"car-{number}": CAR for number in range(5)})

    first = project.document("sweep", "Vehicle", "--limit", "2", "--actors-per-second", "none", status=1)

    assert (first["total"]["migrated"], first["total"]["left"], first["total"]["ended"]) == (2, 3, "limit")
    assert project.document("sweep", "Vehicle", "--bytes-per-second", "none")["total"]["migrated"] == 3


# --- from another process ----------------------------------------------------------------------------------------


def test_a_pause_is_set_and_taken_back(project: Project) -> None:
    project.store({"car-1": CAR})

    assert project.run("sweep", "pause", "Vehicle").stdout == (
        "sweeps of Vehicle pause; 'lazymig sweep resume Vehicle' lets them go on\n"
    )
    again = project.document("sweep", "pause", "Vehicle")
    assert (again["type"], again["paused"], again["changed"]) == ("Vehicle", True, False)
    assert project.run("sweep", "status").stdout == "no sweeps\npaused: Vehicle\n"
    assert project.run("sweep", "resume", "Vehicle").stdout == "sweeps of Vehicle go on\n"
    assert project.run("sweep", "resume", "Vehicle").stdout == "sweeps of Vehicle go on, as before\n"
    assert project.document("sweep", "status")["paused"] == []


def test_a_sweep_that_pauses_says_how_it_goes_on(project: Project) -> None:
    project.store({"car-1": CAR})
    project.run("sweep", "pause", "Vehicle")
    often = "from lazymig.cli import _progress; _progress.SECONDS_BETWEEN_LINES = 0.0; "

    with start("sweep", "Vehicle", code=often + RUN) as sweeping:
        assert sweeping.stderr is not None
        line = next(line for line in sweeping.stderr if b"paused" in line).decode()
        project.run("sweep", "resume", "Vehicle")
        status, _, _ = end(sweeping)

    assert "0 migrated, 1 left, paused: 'lazymig sweep resume Vehicle' lets it go on" in line
    assert status == 0


def test_status_shows_what_the_last_sweep_of_each_type_came_to(poisoned: Project) -> None:
    poisoned.store({"car-1": CAR, "car-2": CAR | {"owner": "bob"}})
    poisoned.run("sweep")

    header, *rows = words(poisoned.run("sweep", "status").stdout)

    assert header[:5] == ["type", "state", "migrated", "left", "failed"]
    assert [row[:5] for row in rows] == [["Order", "ended", "0", "0", "0"], ["Vehicle", "ended", "1", "0", "1"]]
    (one,) = poisoned.document("sweep", "status", "Vehicle")["sweeps"]
    assert (one["state"], one["ended"], one["migrated"], one["failed"]) == ("ended", "finished", 1, 1)


def test_status_tells_those_under_way_from_those_that_were_killed(project: Project) -> None:
    project.store({"car-1": CAR})
    running_report = {**SweepReport(migrated=3, left=6, seconds=1.5).to_json(), "label": "sweep of Vehicle on host:1"}

    async def note(store: Store) -> None:
        await store.register(NodeRecord("alive", "label", None, 60.0))
        await store.sweeping.note("Vehicle", "alive", json.dumps(running_report).encode())
        await store.sweeping.note("Bus", "dead", json.dumps(running_report).encode())
        await store.sweeping.note("Cart", "dead", b"something else")

    def states() -> dict[str, tuple[Any, ...]]:
        found = project.document("sweep", "status")["sweeps"]
        return {one["type"]: (one["state"], one["migrated"], one["left"], one["seconds_left"]) for one in found}

    async def pause(store: Store) -> None:
        await store.sweeping.pause("Vehicle", is_paused=True)

    async def show(store: Store) -> None:
        await note(store)
        found = await beside(states)
        assert found == {
            "Vehicle": ("running", 3, 6, 3.0), "Bus": ("lost", 3, 6, None), "Cart": ("lost", 0, 0, None),
        }  # fmt: skip
        await pause(store)
        assert (await beside(states))["Vehicle"] == ("paused", 3, 6, None)

    within(project, show)


# --- Ctrl-C ------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal
from lazymig.rollout._sweep_batches import Batches
def interrupted(self, data, steps, whole=Batches._migrate):
    if len(data) > 60:
        os.kill(os.getpid(), signal.SIGINT)
    return whole(self, data, steps)
Batches._migrate = interrupted
"""
"""Lets Ctrl-C come within a batch."""


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_finishes_the_batch_and_says_where_it_stands_and_a_second_run_goes_on(
    project: Project, flags: list[str]
) -> None:
    project.store({f"car-{number:04}": CAR for number in range(1_000)})

    status, stdout, stderr = end(start("sweep", "Vehicle", *flags, code=INTERRUPTED + RUN))

    report = project.document("sweep", "Vehicle")["total"]
    done = report["current"]
    assert 100 < done < 1_000
    assert report["migrated"] == 1_000 - done
    message = f"interrupted: {done:,} actors migrated, {1_000 - done:,} left. 'lazymig sweep Vehicle' goes on."
    assert (status, stderr.decode()) == (130, f"lazymig: {message}\n")
    if flags:
        document = json.loads(stdout)
        assert (document["total"]["migrated"], document["total"]["ended"]) == (done, "stopped")
        assert document["error"] == {"code": "interrupted", "message": message}


INTERRUPTED_EARLY = """
import os, signal
from lazymig.cli import _sweep
def interrupted(settings, whole=_sweep.load_types):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(settings)
_sweep.load_types = interrupted
"""
"""Lets Ctrl-C come before the first type."""


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_ctrl_c_before_a_type_is_come_to_is_no_success(project: Project, flags: list[str]) -> None:
    project.store({"car-1": CAR})

    status, stdout, stderr = end(start("sweep", "Vehicle", *flags, "--json", code=INTERRUPTED_EARLY + RUN))

    document = json.loads(stdout)
    assert (status, stderr.startswith(b"lazymig: interrupted: 0 ")) == (130, True)
    assert (document["total"]["complete"], document["total"]["ended"]) == (False, "stopped")
    assert document["coverage"]["not_swept"] == [{"type": "Vehicle", "reason": "interrupted before it"}]
    assert document["error"]["code"] == "interrupted"


BETWEEN = """
import os, signal
from lazymig.rollout._sweep_hand import Hand
async def interrupted(self, whole=Hand._sign_off):
    os.kill(os.getpid(), signal.SIGINT)
    await whole(self)
Hand._sign_off = interrupted
"""
"""Lets Ctrl-C come once a type is swept."""


@pytest.mark.parametrize("asked", [(), ("Order", "Vehicle")])
def test_ctrl_c_between_two_types_says_which_it_has_not_begun(poisoned: Project, asked: tuple[str, ...]) -> None:
    poisoned.store({"car-1": CAR})

    status, stdout, stderr = end(start("sweep", *asked, "--json", code=BETWEEN + RUN))

    again = " ".join(["lazymig", "sweep", *asked])
    message = f"interrupted: 0 actors migrated, 0 left, Vehicle not begun. '{again}' goes on."
    assert (status, stderr.decode()) == (130, f"lazymig: {message}\n")
    document = json.loads(stdout)
    assert document["error"] == {"code": "interrupted", "message": message}
    assert document["coverage"] == {
        "swept": ["Order"], "not_swept": [{"type": "Vehicle", "reason": "interrupted before it"}]
    }  # fmt: skip
    assert poisoned.document("sweep", *asked)["total"]["migrated"] == 1


def test_ctrl_c_once_all_is_done_changes_nothing(project: Project) -> None:
    project.store({"car-1": CAR})

    status, stdout, _ = end(start("sweep", "Vehicle", code=BETWEEN + RUN))

    assert (status, stdout.decode().splitlines()[-1]) == (0, "swept: Vehicle. Not swept: no other types.")


def test_a_second_ctrl_c_ends_at_once(poisoned: Project) -> None:
    poisoned.write("slow_suite.py", POISONED + "\nimport time, os, signal\n"
        "def wait(state, context):\n    os.kill(os.getpid(), signal.SIGINT)\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\nvehicle.migration('2.2.0')(wait)\n")  # fmt: skip
    poisoned.configure('[tool.lazymig]\nsuites = ["slow_suite:suite"]\n')
    poisoned.store({"car-1": CAR})

    status, _, stderr = end(start("sweep", "Vehicle"))

    assert (status, stderr.strip()) == (130, b"lazymig: interrupted")
    (line,) = poisoned.run("export", "Vehicle").stdout.splitlines()
    assert json.loads(line)["states"] == {"vehicle": CAR}


# --- one that fails --------------------------------------------------------------------------------------------------


def test_of_ten_thousand_one_fails_and_is_tried_again_once_its_code_is_another(poisoned: Project) -> None:
    poisoned.store(
        {f"car-{number:05}": CAR | {"owner": "bob" if number == 7_077 else "ann"} for number in range(10_000)}
    )
    quickly = ("--actors-per-second", "none", "--bytes-per-second", "none")

    first = poisoned.document("sweep", "Vehicle", *quickly, status=1)["total"]

    assert (first["migrated"], first["current"], first["left"]) == (9_999, 0, 0)
    assert [one["id"] for one in first["failed"]] == ["car-07077"]
    (record,) = poisoned.document("quarantine", "list", status=1)["quarantined"]
    assert (record["id"], record["version"], record["attempts"]) == ("car-07077", "2.1.0", 1)
    again = poisoned.document("sweep", "Vehicle", *quickly, status=1)["total"]
    assert (again["migrated"], again["current"], [one["id"] for one in again["failed"]]) == (0, 9_999, ["car-07077"])
    (same,) = poisoned.document("quarantine", "list", status=1)["quarantined"]
    assert same == record  # the same code was not tried again so soon, in other processes neither
    poisoned.write("mended_suite.py", POISONED.replace('raise ValueError("no bob here")', 'state["owner"] = "robert"'))
    poisoned.configure('[tool.lazymig]\nsuites = ["mended_suite:suite"]\n')
    mended = poisoned.document("sweep", "Vehicle", *quickly)["total"]
    assert (mended["migrated"], mended["current"], mended["complete"]) == (1, 9_999, True)
    assert poisoned.document("quarantine", "list")["quarantined"] == []
