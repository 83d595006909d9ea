from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store
from tests import postgres
from tests.cli_project import Project, shape
from tests.copying import TYPE, fill, fill_large, write
from tests.test_cli_process import RUN, end, start
from tests.test_copy import KEY, LARGE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # noqa: PTH109  (the suites are not installed)
    project = Project(tmp_path, monkeypatch)
    asyncio.run(filled(project.url))
    return project


async def filled(url: str, number: int = 40) -> None:
    async with open_store(url) as store:
        await fill(store, number)
        await fill_large(store, LARGE)


async def written(url: str) -> None:
    async with open_store(url) as store:
        await fill(store, 0)
        await write(store, KEY)


COPY = "sqlite:///copy.db"


def test_a_copy_says_what_both_stores_have(project: Project) -> None:
    result = project.run("copy", project.url, COPY)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = result.stdout.splitlines()
    assert first.startswith("Vehicle: 41 actors, 69 states, 150 entries, digest ")
    assert second == "41 copied, 0 there already, 41 compared: both stores are identical"
    assert project.run("copy", project.url, COPY).stdout.splitlines() == [
        first,
        "0 copied, 41 there already, 41 compared: both stores are identical",
    ]


def test_the_document_of_a_copy_has_all_its_counts(project: Project) -> None:
    project.document("copy", project.url, COPY)
    asyncio.run(written(COPY))
    document = project.document("copy", project.url, COPY, status=1)
    contents = {"actors": "int", "states": "int", "entries": "int", "digest": "str"}
    assert shape(document) == {
        "schema": "int",
        "source": "str",
        "target": "str",
        "copied": "int",
        "present": "int",
        "compared": "int",
        "differing": "int",
        "differences": [{"type": "str", "id": "str", "code": "str", "reason": "str"}],
        "types": [{"type": "str", "source": contents, "target": contents}],
    }
    assert (document["source"], document["target"], document["differing"]) == (project.url, COPY, 1)
    assert (document["differences"][0]["id"], document["differences"][0]["code"]) == (KEY.id, "newer")


def test_what_differs_is_named_line_by_line(project: Project) -> None:
    project.run("copy", project.url, COPY)
    asyncio.run(written(COPY))
    result = project.run("copy", project.url, COPY)
    assert result.exit_code == 1
    assert result.stderr == (f"lazymig: {KEY} has revision 2 in the target, 1 in the source. It was left alone.\n")
    assert "; in the target 41 actors, " in result.stdout
    assert result.stdout.endswith("0 copied, 41 there already, 41 compared: 1 differ\n")


def test_a_store_is_copied_to_a_server_and_back(project: Project) -> None:
    with postgres.schema_url() as url:
        there = project.document("copy", project.url, url)
        back = project.document("copy", url, COPY)
    assert (there["copied"], back["copied"]) == (41, 41)
    assert there["types"] == back["types"]


def test_types_can_be_chosen(project: Project) -> None:
    project.run("copy", "--type", TYPE, project.url, COPY)
    message = project.refused("copy", "--type", "Vehicel", project.url, COPY, status=2)
    assert "'Vehicel'" in message
    assert "Did you mean 'Vehicle'?" in message


def test_a_source_that_is_not_there_is_not_made(project: Project) -> None:
    message = project.refused("copy", "sqlite:///none.db", COPY, status=2)
    assert "does not exist" in message
    assert sorted(path.name for path in project.folder.glob("*.db*")) == ["fleet.db"]


@pytest.mark.parametrize("link", ["symbolic", "hard", "none"])
def test_the_same_file_by_another_path_is_refused(project: Project, link: str) -> None:
    other = project.folder / "other.db"
    if link == "symbolic":
        other.symlink_to(project.database)
    elif link == "hard":
        other.hardlink_to(project.database)
    url = "sqlite:///../" + f"{project.folder.name}/fleet.db" if link == "none" else f"sqlite:///{other}"
    assert "is SOURCE and TARGET. Name two stores." in project.refused("copy", project.url, url, status=2)


def test_the_source_stays_as_it_is_byte_for_byte(project: Project) -> None:
    before = project.database.read_bytes()
    project.run("copy", project.url, COPY)
    assert project.database.read_bytes() == before


def test_a_password_is_not_shown(project: Project) -> None:
    url = "postgresql://user:secret@localhost:1/none"
    result = project.run("copy", project.url, url, "--json")
    assert result.exit_code == 1
    assert "secret" not in result.output
    assert "***" in result.output


INTERRUPTED = """
import os, signal
from lazymig.cli import _copy
def interrupted(*stores, progress, **options):
    def tell(report):
        os.kill(os.getpid(), signal.SIGINT)
        progress(report)
    return whole(*stores, progress=tell, **options)
_copy.copy, whole = interrupted, _copy.copy
"""
"""Lets Ctrl-C come with the first batch."""


def test_ctrl_c_during_a_copy_finishes_the_batch_and_a_second_run_goes_on(project: Project) -> None:
    asyncio.run(filled("sqlite:///many.db", 1_200))
    status, stdout, stderr = end(start("copy", "sqlite:///many.db", COPY, "--json", code=INTERRUPTED + RUN))
    message = "interrupted: 500 actors copied. Run the same command again: it goes on."
    document = json.loads(stdout)
    assert (status, stderr.decode()) == (130, f"lazymig: {message}\n")
    assert (document["copied"], document["error"]) == (500, {"code": "interrupted", "message": message})
    document = project.document("copy", "sqlite:///many.db", COPY)
    assert (document["copied"], document["present"], document["differing"]) == (701, 500, 0)


def test_a_second_ctrl_c_ends_a_copy_at_once(project: Project) -> None:
    asyncio.run(filled("sqlite:///many.db", 1_200))
    code = INTERRUPTED.replace("progress(report)", "os.kill(os.getpid(), signal.SIGINT)")
    status, _, stderr = end(start("copy", "sqlite:///many.db", COPY, code=code + RUN))
    assert (status, stderr.strip()) == (130, b"lazymig: interrupted")
    assert project.document("copy", "sqlite:///many.db", COPY)["differing"] == 0
