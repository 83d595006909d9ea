"""Commands of rolling deploys where a store can't be asked, and where what they print is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lazymig._fleet_records import Offer
from lazymig._records import NodeRecord
from lazymig.rollout._verdict import command
from tests.cli_project import Project
from tests.cli_rollouts import lines, within
from tests.fleets import put
from tests.gate_cases import NEW, OLD
from tests.worlds import An, applied

if TYPE_CHECKING:
    from lazymig.store import Store

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


# --- a store that can't be asked -------------------------------------------------------------------------------------

ASKING = [
    ["gate", "pin", "Vehicle", "1.0.0"],
    ["gate", "flip", "Vehicle", "1.0.0"],
    ["gate", "unpin", "Vehicle"],
    ["gate", "retire", "Vehicle", "1.0.0"],
    ["gate", "rollback", "Vehicle", "1.0.0"],
    ["rollout", "pin", "Vehicle", "1.0.0"],
    ["rollout", "unpin", "Vehicle"],
]


@pytest.mark.parametrize("arguments", ASKING)
def test_a_file_that_is_damaged_is_a_no(project: Project, arguments: list[str]) -> None:
    project.database.write_bytes(b"no store" * 1_000)
    result = project.run(*arguments)
    assert result.exit_code == 1
    assert lines(result)[0].startswith("no: ")
    assert lines(result)[1].startswith("store_failed: the store could not be asked: ")
    document = project.document(*arguments, status=1)
    assert (document["allowed"], document["changed"]) == (False, False)
    assert [reason["code"] for reason in document["reasons"]] == ["store_failed"]
    assert "is no SQLite database" in document["reasons"][0]["text"]


def test_a_damaged_file_has_no_status(project: Project) -> None:
    project.database.write_bytes(b"no store" * 1_000)
    assert "is no SQLite database" in project.refused("rollout", "status", "Vehicle", status=1)


@pytest.mark.parametrize("url", ["sqlite:///not-there.db", "sqlite:///nowhere/x.db", "sqlite:///.", "mysql://x/y", ""])
@pytest.mark.parametrize("arguments", [*ASKING, ["rollout", "status", "Vehicle"]])
def test_a_store_that_is_not_there_is_wrong_usage(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], url: str
) -> None:
    monkeypatch.setenv("LAZYMIG_STORE", url)
    project.refused(*arguments, status=2)


def test_wrong_usage_of_a_damaged_file_is_wrong_usage(project: Project) -> None:
    project.database.write_bytes(b"no store" * 1_000)
    assert "is no version" in project.refused("gate", "pin", "Vehicle", "1.0", status=2)
    assert "an actor type" in project.refused("gate", "pin", "", "1.0.0", status=2)


# --- what can't be read ----------------------------------------------------------------------------------------------

SHARED = {
    "the write policy of Vehicle is (": "INSERT INTO policy VALUES ('Vehicle', 5, 'x')",
    "a release of Vehicle is unreadable: ": "INSERT INTO release VALUES ('Vehicle', '{', '{}', NULL, 1)",
    "a set of versions, in the table release or lineage, is unreadable (": "UPDATE lineage SET applied = '{'",
}


@pytest.mark.parametrize("found", SHARED)
def test_the_cure_of_a_row_that_all_actors_share_is_no_export(project: Project, found: str) -> None:
    within(project, lambda store: put(store, "car-1", An(OLD)))
    project.damage(SHARED[found])
    (reason,) = project.document("gate", "pin", "Vehicle", "1.0.0", status=1)["reasons"]
    assert reason["code"] == "corrupt"
    assert reason["text"].startswith(f"what is stored of Vehicle can't be read: {found}")
    cure = "It belongs to no actor; put that row right, or restore the store from a backup."
    assert reason["text"].endswith(f". {cure}")
    refused = project.refused("rollout", "status", "Vehicle", status=1)
    assert refused == reason["text"]
    if "write policy" not in found and "release of" not in found:
        assert project.refused("census", "Vehicle", status=1) == reason["text"]


@pytest.mark.parametrize("statement", ["UPDATE actor SET lineage = 99", "UPDATE actor SET oldest = 'x'"])
def test_the_cure_of_an_actor_that_cannot_be_read_names_it(project: Project, statement: str) -> None:
    within(project, lambda store: put(store, "car-1", An(OLD, entries=(OLD,))))
    project.damage(statement)
    (reason,) = project.document("gate", "retire", "Vehicle", "1.0.0", status=1)["reasons"]
    assert reason["code"] == "corrupt"
    assert reason["text"].endswith("'lazymig export Vehicle' names each actor that can't be read; put it right.")
    assert "'car-1'" in project.run("export", "Vehicle").stderr


# --- commands that are printed run -----------------------------------------------------------------------------------

STRANGE = [
    "my type",
    "-v",
    "--json",
    "a\tb",
    "it's",
    "two  spaces",
    "a\x1b[2Jb\n'\\",
    "caf\u00e9 \u00a0\U000e0001",
    "$x;`y`",
]


def in_bash(line: str, *, runs: str) -> str:
    """Run a line with a program in the place of ``lazymig``."""
    script = f"lazymig() {{ '{sys.executable}' {runs} \"$@\"; }}; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize("name", STRANGE)
def test_a_command_is_printable_and_a_shell_reads_the_words_that_were_meant(name: str) -> None:
    line = command("rollout", "flip", name, "2.0.0")
    assert line.isprintable()
    assert " ".join(line.split()) == line
    words = json.loads(in_bash(line, runs="-c 'import json, sys; print(json.dumps(sys.argv[1:]))'"))
    assert [word for word in words if word != "--"] == ["rollout", "flip", name, "2.0.0"]


@pytest.mark.parametrize("name", STRANGE)
def test_the_command_that_is_printed_for_a_strange_type_runs(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    within(project, lambda store: join_as(store, name))
    assert project.run("rollout", "pin", "--", name, "1.0.0").exit_code == 0
    shown = project.run("gate", "pin", "--", name, "2.0.0").stdout
    line = command("rollout", "flip", name, "2.0.0")
    assert f"Use '{line}'." in shown
    assert in_bash(line, runs="-m lazymig.cli").startswith("done: ")


async def join_as(store: Store, name: str) -> None:
    """Register a node of a type."""
    await store.register(NodeRecord("N1", "web-1", "build", 60.0, (Offer(name, applied(NEW)),)))
