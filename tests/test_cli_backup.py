from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests import postgres
from tests.cli_project import Project, shape
from tests.test_cli_process import RUN, end, start

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # noqa: PTH109  (the suites are not installed)
    project = Project(tmp_path, monkeypatch)
    project.store({f"car-{number}": {"n": number} for number in range(100)})
    return project


def test_a_backup_is_a_store(project: Project) -> None:
    result = project.run("backup", "saved.db")
    size = (project.folder / "saved.db").stat().st_size
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{project.url} backed up to saved.db ({size:,} bytes)\n"
    exported = project.run("export", "Vehicle", "--store", "sqlite:///saved.db").stdout
    assert exported == project.run("export", "Vehicle").stdout


def test_the_document_of_a_backup_names_store_and_file(project: Project) -> None:
    document = project.document("backup", "saved.db")
    assert shape(document) == {"schema": "int", "store": "str", "file": "str", "bytes": "int"}
    assert (document["store"], document["file"]) == (project.url, "saved.db")


def test_a_file_that_is_there_is_refused(project: Project) -> None:
    project.write("saved.db", "precious")
    message = project.refused("backup", "saved.db", status=1)
    assert message == "saved.db is there already, and was left as it is. Name a file that isn't, or remove it."
    assert (project.folder / "saved.db").read_text() == "precious"


def test_a_server_s_store_is_refused_with_the_line_to_run(project: Project) -> None:
    with postgres.schema_url() as url:
        project.run("import", "Vehicle", os.devnull, "--id-field", "id", "--store", url)
        message = project.refused("backup", "saved.dump", "--store", url, status=1)
        schema = postgres.schema_of(url)
    assert f" Run: pg_dump --format=custom --schema={schema} " in message
    assert "pg_restore --dbname=URL saved.dump" in message


INTERRUPTED = """
import os, signal
from lazymig import _sqlite_backup
from lazymig.cli import _backup
_sqlite_backup.PAGES = 1
async def interrupted(store, file, progress):
    told = []
    def tell(share):
        if not told:
            told.append(share)
            os.kill(os.getpid(), signal.SIGINT)
        progress(share)
    await whole(store, file, progress=tell)
_backup.backup, whole = interrupted, _backup.backup
"""
"""Lets Ctrl-C come with the first step."""


def test_ctrl_c_during_a_backup_leaves_nothing(project: Project) -> None:
    status, stdout, stderr = end(start("backup", "saved.db", "--json", code=INTERRUPTED + RUN))
    message = "interrupted: saved.db was not written. Run the same command again: it begins anew."
    assert (status, stderr.decode()) == (130, f"lazymig: {message}\n")
    assert json.loads(stdout)["error"] == {"code": "interrupted", "message": message}
    assert [path.name for path in project.folder.iterdir() if "saved" in path.name] == []
    assert project.run("backup", "saved.db").exit_code == 0
