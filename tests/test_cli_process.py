"""The command line as a process of its own: what an in-process run can't show."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli_project import Project

if TYPE_CHECKING:
    from pathlib import Path

RUN = "from lazymig.cli import main; main()"
LOADED = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); " + RUN
PATIENCE_SECONDS = 60


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # noqa: PTH109  (the suites are not installed)
    return Project(tmp_path, monkeypatch)


def start(
    *arguments: str, code: str = RUN, stdin: int | None = None, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=stderr
    )


def end(process: subprocess.Popen[bytes], given: bytes | None = None) -> tuple[int, bytes, bytes]:
    stdout, stderr = process.communicate(given, timeout=PATIENCE_SECONDS)
    return process.returncode, stdout, stderr


def test_help_imports_no_driver_no_suite_and_nothing_that_prints(project: Project) -> None:
    status, _, stderr = end(start("--help", code=LOADED))
    loaded = set(stderr.decode().split())
    assert status == 0
    assert not loaded & {
        "aiosqlite",
        "sqlite3",
        "rich",
        "msgspec",
        "pydantic",
        "attr",
        "suites",
        "lazymig.cli._inspect",
    }


def test_inspect_as_json_imports_only_what_it_needs(project: Project) -> None:
    project.store({"car-1": 1})
    status, stdout, stderr = end(start("inspect", "Vehicle", "car-1", "--json", code=LOADED))
    loaded = set(stderr.decode().split())
    assert (status, json.loads(stdout)["states"]) == (0, {"vehicle": 1})
    assert "aiosqlite" in loaded
    assert not loaded & {"rich", "msgspec", "pydantic", "attr", "suites", "lazymig.transfer", "lazymig.cli._import"}


def test_import_reads_stdin_and_export_pipes_into_it(project: Project) -> None:
    lines = b'{"plate": "car-1"}\n{"plate": "\xf0\x9f\x92\xa5"}\nnope'
    status, stdout, stderr = end(start("import", "Vehicle", "-", "--id-field", "plate", stdin=subprocess.PIPE), lines)
    assert (status, stdout) == (1, b"Vehicle: 2 imported, 0 skipped (they exist), 1 rejected\n")
    assert stderr.startswith(b"lazymig: stdin:3: the line is no JSON")
    _, exported, _ = end(start("export", "Vehicle"))
    options = ["--id-field", "id", "--value-field", "states", "--store", f"sqlite:///{project.folder}/copy.db"]
    status, _, _ = end(start("import", "Vehicle", "-", *options, stdin=subprocess.PIPE), exported)
    assert status == 0


def test_ctrl_c_while_waiting_for_input_is_a_clean_end(project: Project) -> None:
    fifo = project.folder / "lines"
    os.mkfifo(fifo)
    process = start("import", "Vehicle", "lines", "--id-field", "plate", "--json")
    with fifo.open("wb") as pipe:
        pipe.write(b"\n" * 300_000)  # more than a pipe holds, so the process is reading when this returns
        pipe.flush()
        process.send_signal(signal.SIGINT)
        status, stdout, stderr = end(process)
    message = "interrupted: 0 actors imported. Run the same command again: it goes on."
    document = json.loads(stdout)
    assert status == 130
    assert (document["imported"], document["error"]) == (0, {"code": "interrupted", "message": message})
    assert stderr.decode() == f"lazymig: {message}\n"


def test_ctrl_c_during_an_import_stores_what_was_read_and_a_second_run_goes_on(project: Project) -> None:
    fifo = project.folder / "lines"
    os.mkfifo(fifo)
    lines = [json.dumps({"plate": f"car-{number:04}", "text": "x" * 500}).encode() + b"\n" for number in range(700)]
    arguments = ["import", "Vehicle", "lines", "--id-field", "plate"]
    process = start(*arguments)
    with fifo.open("wb") as pipe:
        pipe.writelines(lines)
        pipe.flush()
        process.send_signal(signal.SIGINT)
        status, stdout, stderr = end(process)
    left = len(project.run("export", "Vehicle").stdout.splitlines())
    assert (status, stdout) == (130, b"")
    assert stderr.decode() == f"lazymig: interrupted: {left} actors imported. Run the same command again: it goes on.\n"
    fifo.unlink()
    fifo.write_bytes(b"".join(lines))
    document = project.document(*arguments)
    assert (document["imported"], document["skipped"]) == (700 - left, left)


EXPORT_INTERRUPTED = """
import os, signal
from lazymig.cli import _export
def interrupted(record, whole=_export.to_json_line):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(record)
_export.to_json_line = interrupted
"""
"""Lets Ctrl-C come while the first actor is written."""


@pytest.mark.parametrize("flags", [[], ["--json"], ["out.jsonl"], ["out.jsonl", "--json"]])
def test_ctrl_c_during_an_export_ends_after_a_whole_actor(project: Project, flags: list[str]) -> None:
    project.store({f"car-{number:05}": {"text": "x" * 500} for number in range(2_000)})
    status, stdout, stderr = end(start("export", "Vehicle", *flags, code=EXPORT_INTERRUPTED + RUN))
    message = "interrupted: 1 actors exported. Run the same command again: it begins anew."
    assert (status, stderr.decode()) == (130, f"lazymig: {message}\n")
    if "--json" in flags:
        document = json.loads(stdout)
        assert (document["exported"], document["error"]) == (1, {"code": "interrupted", "message": message})
        assert ("actors" in document) == ("out.jsonl" not in flags)
    else:
        assert len(stdout.splitlines()) == (not flags)
    assert not [*project.folder.glob("*out.jsonl*")]


INTERRUPTED = """
import os, signal
from lazymig.rollout import _asking
for question, judge in list(_asking._JUDGES.items()):
    def interrupted(facts, asked, judge=judge):
        os.kill(os.getpid(), signal.SIGINT)
        return judge(facts, asked)
    _asking._JUDGES[question] = interrupted
"""
"""Lets Ctrl-C come while a gate judges, in the transaction that would make the change."""


@pytest.mark.parametrize("arguments", [["pin", "Vehicle", "1.0.0"], ["flip", "Vehicle", "0.0.0"], ["unpin", "Vehicle"]])
def test_ctrl_c_during_a_change_tells_how_to_see_whether_it_was_made(project: Project, arguments: list[str]) -> None:
    project.store({"car-1": 1})
    if arguments[0] == "unpin":
        project.run("rollout", "pin", "Vehicle", "1.0.0")
    status, stdout, stderr = end(start("rollout", *arguments, "--json", code=INTERRUPTED + RUN))
    message = "interrupted. Whether it was changed is unknown: 'lazymig rollout status Vehicle' shows it."
    assert status == 130
    assert json.loads(stdout) == {"schema": 1, "error": {"code": "interrupted", "message": message}}
    assert stderr.decode() == f"lazymig: {message}\n"
    assert project.run("rollout", "status", "Vehicle").exit_code == 0


def test_ctrl_c_during_a_gate_leaves_nothing_unknown(project: Project) -> None:
    project.store({"car-1": 1})
    status, _, stderr = end(start("gate", "pin", "Vehicle", "1.0.0", code=INTERRUPTED + RUN))
    assert (status, stderr.strip()) == (130, b"lazymig: interrupted")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_the_export_quietly(project: Project, flags: list[str]) -> None:
    project.store({f"car-{number:05}": {"text": "x" * 500} for number in range(2_000)})
    process = start("export", "Vehicle", *flags)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(PATIENCE_SECONDS) == 141


def test_on_a_terminal_progress_is_a_bar(project: Project) -> None:
    project.write("legacy.jsonl", '{"plate": "[bold]"}\n[1]\n')
    terminal, end_of_process = pty.openpty()
    process = start("import", "Vehicle", "legacy.jsonl", "--id-field", "plate", stderr=end_of_process)
    os.close(end_of_process)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4_096)
        except OSError:  # how Linux says that the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    status, stdout, _ = end(process)
    assert (status, stdout) == (1, b"Vehicle: 1 imported, 0 skipped (they exist), 1 rejected\n")
    assert b"lazymig: legacy.jsonl:2: the line is an array, not an object." in shown
    assert b"1 imported" in shown


def test_ids_survive_a_terminal_without_unicode(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.store({"💥": "💥"})
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for arguments in (
        ["inspect", "Vehicle", "💥"],
        ["inspect", "Vehicle", "💥", "--json"],
        ["inspect", "Vehicle", "é"],
    ):
        status, _, stderr = end(start(*arguments))
        assert status == (1 if "é" in arguments else 0)
        assert b"Unicode" not in stderr


def test_without_the_extra_the_cure_is_named(project: Project) -> None:
    status, _, stderr = end(start("--help", code="import sys; sys.modules['click'] = None; " + RUN))
    assert status == 2
    assert stderr == b"lazymig: the command line needs click. Run: pip install 'lazymig[cli]'\n"
