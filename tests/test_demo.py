"""The demo proves what it says, notices what is wrong, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # it comes without types
import pytest
from semver import Version

from lazymig import ActorKey, ActorRecord, MigrationInfo, Node, open_store
from lazymig.hooks import Activated, MigrationApplied
from lazymig.testing import release
from lazymig.transfer import export_states
from suites import vehicles
from suites._demo_ledger import Books, Ledger, Legacy, Tally, prove
from suites._demo_worker import Notes

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(vehicles.__file__).parent.parent
PATIENCE_SECONDS = 60.0
SHORT = ("--vehicles", "60", "--seconds", "0")


@contextmanager
def demo(folder: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the demo with its temporary files in a folder; it and its children are gone on leaving."""
    with subprocess.Popen(
        [sys.executable, "-m", "suites.demo", *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "COLUMNS": "100"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    with demo(folder, *options, **environment) as process:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, output


def children_once(process: subprocess.Popen[str], news: str) -> list[psutil.Process]:
    """Read the output until it has the news, and return the processes of the demo."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if news in line:
            children: list[psutil.Process] = psutil.Process(process.pid).children()
            return children
    raise AssertionError("".join(said))


# --- the whole demo --------------------------------------------------------------------------------------------------


def test_the_demo_upgrades_every_vehicle_and_proves_it(tmp_path: Path) -> None:
    status, output = run(tmp_path, "--vehicles", "200", "--seconds", "1")

    assert status == 0, output
    rows = [words for line in output.splitlines() if (words := line.split())]
    (heads,) = (row for row in rows if row[0] == "process")
    assert {"calls", "migrations", "refusals", "conflicts", "others"} <= set(heads)
    processes = {row[0]: row for row in rows if row[0] in {"old-1", "new-1", "new-2", "new-3"}}
    assert [processes[name][1] for name in sorted(processes)] == ["2.0.0", "2.0.0", "2.0.0", "1.1.0"]
    assert processes["new-1"][-1] == "killed"
    (total,) = (row for row in rows if row[0] == "all")
    assert int(total[1].replace(",", "")) > 200
    assert int(total[2].replace(",", "")) > 200
    assert int(total[3]) == 0  # under a pin nobody is refused, and after the flip nobody is left who could be
    assert sum(int(row[1]) for row in rows if row[0] in {"0.0.0", "1.1.0", "2.0.0"} and len(row) == 2) == 200
    assert "proof: all 200 vehicles are there" in output
    commands = [line.split("$ ")[1] for line in output.splitlines() if "$ lazymig" in line]
    assert commands == [
        "lazymig rollout pin Vehicle 1.1.0",
        "lazymig gate flip Vehicle 2.0.0",
        "lazymig rollout flip Vehicle 2.0.0",
        "lazymig sweep Vehicle",
        "lazymig gate retire Vehicle 2.0.0",
        "lazymig census Vehicle",
    ]
    pinned, asked, flipped = (output.index(answer) for answer in ("is written at 1.1.0", "no: flip", "is written at 2"))
    assert pinned < asked < output.index("old-1 stops") < flipped
    assert "not_supported: Vehicle can't be stored at 2.0.0 by node old-1" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.stress
async def test_a_directory_that_is_named_is_kept_and_holds_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "a folder, 100% kept?"

    status, output = run(tmp_path, *SHORT, "--directory", str(folder))

    assert status == 0, output
    assert str(folder) in output.replace("\n", "")
    async with (
        open_store(f"sqlite:///{str(folder).replace('%', '%25').replace('?', '%3F')}/fleet.db", create=False) as store,
        Node(store, [vehicles.suite]) as node,
    ):
        plates = [record.key.id async for record in export_states(store, vehicles.vehicle)]
        assert len(plates) == 60
        assert await node.actor(vehicles.vehicle, plates[0]).velocity() >= 0


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious", encoding="utf-8")

    status, output = run(tmp_path, *SHORT, "--directory", str(tmp_path))

    assert status == 2
    assert "is not empty" in output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_falsified_vehicle_fails_the_proof(tmp_path: Path) -> None:
    status, output = run(tmp_path, *SHORT, "--tamper")

    assert status == 1, output
    assert "PROOF FAILED: 1 fault" in output
    assert "has the velocity" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.stress
def test_a_terminal_is_shown_live_progress(tmp_path: Path) -> None:
    status, output = run(tmp_path, *SHORT, FORCE_COLOR="1", TERM="xterm")

    assert status == 0, output
    assert "━" in output
    assert "proof: all" in output


# --- its processes ---------------------------------------------------------------------------------------------------


@pytest.mark.stress
async def test_a_gate_that_answers_otherwise_fails_the_demo(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with demo(tmp_path, "--vehicles", "60", "--directory", str(folder)) as process:
        children_once(process, "new-1 is killed")

        async with (
            open_store(f"sqlite:///{folder}/fleet.db") as store,
            Node(store, [release(vehicles.suite, "1.1.0")], label="forgotten"),
        ):
            output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)

    assert process.returncode == 1
    assert "no: flip Vehicle to 2.0.0" in output
    assert "forgotten" in output
    assert "the answer should have been yes" in output
    assert "proof" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_and_no_file_outlives_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path, "--vehicles", "2000") as process:
        children = children_once(process, "calls; vehicles at")
        assert children

        process.send_signal(number)

        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert alive == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.stress
def test_a_process_that_ends_by_itself_fails_the_demo(tmp_path: Path) -> None:
    with demo(tmp_path, "--vehicles", "2000") as process:
        victim, *_ = children_once(process, "calls; vehicles at")

        victim.kill()

        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "ended by itself (status -9)" in output
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_no_test_tools() -> None:
    absent = ["pytest", "hypothesis", "psutil", "msgspec", "attrs", "pydantic"]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import suites.demo, suites._demo_worker"

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=PATIENCE_SECONDS)


# --- the proof -------------------------------------------------------------------------------------------------------

LEGACY: Legacy = {
    "A-1": {"plate": "A-1", "owner": "Ada", "velocity": 36.0},
    "B-2": {"plate": "B-2", "owner": None, "velocity": 0},
}
OLD, NEW = ("1.0.0", "1.1.0"), ("1.0.0", "1.1.0", "2.0.0")


def record(plate: str, applied: tuple[str, ...] | None, **value: Any) -> ActorRecord:
    versions = tuple(map(Version.parse, applied or ()))
    info = MigrationInfo(versions, versions[-1]) if versions else None
    return ActorRecord(ActorKey("Vehicle", plate), info, {"vehicle": {"plate": plate} | value})


def books(
    acknowledged: dict[str, float] | None = None,
    possible: dict[str, list[float]] | None = None,
    migrated: dict[tuple[str, str], int] | None = None,
) -> Books:
    return Books(acknowledged or {}, possible or {}, Counter(migrated or {}), [])


def fleet(**changes: ActorRecord | None) -> dict[str, ActorRecord | None]:
    """Return a sound fleet, Ada's vehicle 10 m/s fast at 2.0.0 and the other untouched, with changes to Ada's."""
    ada = changes.get("ada", record("A-1", NEW, owner="Ada", velocity=10.0, drivers=["Ada"]))
    return {"A-1": ada, "B-2": record("B-2", None, owner=None, velocity=0)}


def test_a_sound_fleet_is_proved_at_any_version() -> None:
    assert prove(LEGACY, books(), fleet()) == []
    assert prove(LEGACY, books(), fleet(ada=record("A-1", OLD, owner="Ada", velocity=10.0, driver="Ada"))) == []
    assert prove(LEGACY, books(), fleet(ada=record("A-1", None, owner="Ada", velocity=36.0))) == []


@pytest.mark.parametrize(
    ("ada", "fault"),
    [
        (None, "is gone"),
        (record("A-1", NEW, owner="Ada", velocity=36.0, drivers=["Ada"]), "velocity 36.0 instead of 10.0"),
        (record("A-1", NEW, owner="Eve", velocity=10.0, drivers=["Ada"]), "'Eve'"),
        (record("A-1", NEW, owner="Ada", velocity=10.0, drivers=[]), "'drivers': []"),
        (record("A-1", NEW, owner="Ada", velocity=10.0, driver="Ada"), "the fields"),
        (record("A-1", OLD, owner="Ada", velocity=10.0, drivers=["Ada"]), "the fields"),
        (record("A-1", ("1.0.0", "2.0.0"), owner="Ada", velocity=10.0, drivers=["Ada"]), "no release"),
        (record("A-1", None, owner="Ada", velocity=10.0), "velocity 10.0 instead of 36.0"),
    ],
)
def test_a_wrong_vehicle_is_named_with_what_is_wrong(ada: ActorRecord | None, fault: str) -> None:
    (found,) = prove(LEGACY, books(), fleet(ada=ada))

    assert found.startswith("A-1 ")
    assert fault in found


def test_an_acknowledged_call_that_is_not_stored_is_a_fault() -> None:
    assert len(prove(LEGACY, books({"A-1": 0.25}), fleet())) == 1


def test_a_call_under_way_at_a_kill_may_or_may_not_have_happened() -> None:
    faster = fleet(ada=record("A-1", NEW, owner="Ada", velocity=12.5, drivers=["Ada"]))

    assert prove(LEGACY, books({"A-1": 2.5}, {"A-1": [1.0]}), faster) == []
    assert prove(LEGACY, books({"A-1": 1.5}, {"A-1": [1.0]}), faster) == []
    assert len(prove(LEGACY, books({"A-1": 1.0}, {"A-1": [1.0]}), faster)) == 1


def test_a_vehicle_from_nowhere_and_a_second_migration_are_faults() -> None:
    extra = fleet() | {"C-3": record("C-3", None, owner=None, velocity=0)}

    assert prove(LEGACY, books(), extra) == ["C-3 was never imported"]
    assert prove(LEGACY, books(migrated={("A-1", "2.0.0"): 2}), fleet()) == ["A-1 had migration 2.0.0 2 times"]


@pytest.mark.parametrize(("was_killed", "faults"), [(True, 0), (False, 1)])
def test_only_a_killed_process_may_leave_a_call_without_outcome(
    tmp_path: Path, *, was_killed: bool, faults: int
) -> None:
    path = tmp_path / "new-1.ledger"
    with Ledger(path) as ledger:
        ledger.write("begin", 1, "A-1", 0.5)
        ledger.write("done", 1)
        ledger.write("begin", 2, "A-1", 0.25)
        ledger.write("begin", 3, "B-2", 0.75)
        ledger.write("void", 3, "NewerStateError")
    with path.open("ab") as torn:
        torn.write(b"begin\t4\tB-")

    tally = Tally(path, was_killed=was_killed).catch_up()
    added = Books.of([tally])

    assert (added.acknowledged, added.possible) == ({"A-1": 0.5}, {"A-1": [0.25]})
    assert tally.errors == {"NewerStateError": 1}
    assert len(added.unsettled) == faults


def test_a_ledger_is_read_on_where_reading_stopped(tmp_path: Path) -> None:
    path = tmp_path / "new-1.ledger"
    tally = Tally(path)
    assert tally.catch_up().calls == 0
    with Ledger(path) as ledger:
        ledger.write("read", "A-1")
        assert tally.catch_up().calls == 1
        ledger.write("read", "A-1")
        ledger.write("migrated", "A-1", "2.0.0")

        ledger.write("projected", "A-1", "2.1.0")
        ledger.write("projected", "A-1", "2.1.0")

    assert tally.catch_up().calls == 2
    assert (tally.catch_up().migrated, tally.projections) == ({("A-1", "2.0.0"): 1}, 2)


def test_only_what_is_stored_counts_as_migrated(tmp_path: Path) -> None:
    path, car = tmp_path / "new-1.ledger", ActorKey("Vehicle", "A-1")
    one, two = Version(1, 1, 0), Version(2, 0, 0)
    with Ledger(path) as ledger:
        note = Notes(ledger)
        for version, written_at in ((one, one), (two, one), (two, one), (two, two)):
            note(MigrationApplied("n", car, version, "some"))
            note(Activated("n", car, written_at, 1, 0.0))

    tally = Tally(path).catch_up()

    assert (tally.migrated, tally.projections) == ({("A-1", "1.1.0"): 1, ("A-1", "2.0.0"): 1}, 2)
