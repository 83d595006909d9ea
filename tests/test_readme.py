"""What the README shows runs as written, each piece in a namespace and a folder of its own."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE
from functools import partial
from pathlib import Path

import pytest

from lazymig import Node, open_store, rollout
from lazymig.rollout import PHASES
from lazymig.testing import release
from suites import vehicles

ROOT = Path(__file__).parent.parent
FENCES = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
PYTHON = [code for language, code in FENCES if language == "python"]
COMMANDS = [code for language, code in FENCES if language == "sh" and "lazymig " in code]
SETTINGS = "".join(code for language, code in FENCES if language == "toml")


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs_as_written(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    ended = eval(compiled, namespace)
    if inspect.iscoroutine(ended):
        asyncio.run(ended)


def test_the_first_example_prints_what_it_says(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PYTHON[0]], cwd=tmp_path, env=environment, capture_output=True, check=True
    )

    (promised,) = re.findall(r"print\(.*  # (.*)$", PYTHON[0], re.MULTILINE)
    assert done.stdout.decode().strip() == promised


@pytest.mark.parametrize("commands", COMMANDS, ids=range(len(COMMANDS)))
async def test_commands_run_as_written(commands: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    run = partial(asyncio.create_subprocess_exec, cwd=tmp_path, env=environment, stdout=PIPE, stderr=PIPE)
    async with (
        open_store(f"sqlite:///{tmp_path}/fleet.db") as store,
        Node(store, [vehicles.suite], label="web-1"),  # a deploy needs somebody who is deployed
    ):
        bash = await run("bash", "-euc", commands)
        stdout, stderr = await bash.communicate()

    assert bash.returncode == 0, stderr.decode()
    for line in filter(None, commands.splitlines()):
        assert line.startswith(("export", "echo")) or re.match(r"lazymig [a-z ]+", line)
    if "backup.jsonl" in commands:
        assert "GV-042-X" in (tmp_path / "backup.jsonl").read_text(encoding="utf-8")
    else:
        assert "done: Vehicle is written at 2.0.0" in stdout.decode()
        assert "yes: retire 2.0.0 of Vehicle" in stdout.decode()


async def test_the_status_of_a_deploy_looks_as_shown(tmp_path: Path) -> None:
    (shown,) = [code for language, code in FENCES if language == "text" and "phase" in code]
    url = f"sqlite:///{tmp_path}/fleet.db"
    async with (
        open_store(url) as store,
        Node(store, [release(vehicles.suite, "1.1.0")], label="web-1", build="2024-05-02") as old,
    ):
        for number in range(3):
            await old.actor(vehicles.vehicle, f"car-{number}").accelerate(1.0)
        await rollout.pin(store, vehicles.vehicle, "1.1.0")
        async with Node(store, [vehicles.suite], label="web-2", build="2024-05-09") as new:
            await new.actor(vehicles.vehicle, "car-9").accelerate(1.0)
            words = ("-m", "lazymig.cli", "rollout", "status", "Vehicle", "--store", url)
            command = await asyncio.create_subprocess_exec(
                sys.executable, *words, env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}, stdout=PIPE
            )
            stdout, _ = await command.communicate()
            printed = stdout.decode().replace(old.node_id, "a0453381926c1aa8")

    assert [line.rstrip() for line in printed.strip().splitlines()] == shown.strip().splitlines()


def test_every_gate_and_phase_is_told() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    for gate in ("pin TYPE V", "flip TYPE V", "unpin TYPE", "retire TYPE V", "rollback TYPE V"):
        assert f"| `{gate}` |" in text
    for number, _ in enumerate(PHASES, 1):
        assert f"\n| {number} | " in text


def test_the_set_up_commands_are_the_two() -> None:
    assert [code.strip() for language, code in FENCES if language == "sh" and "pip" in code] == [
        "pip install -e '.[cli]' && python -m suites.demo",
        "pip install -e '.[test]' && python -m pytest",
    ]


def test_the_map_of_the_code_has_every_file() -> None:
    charted = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "lazymig").iterdir() if path.suffix == ".py"]

    assert [room for room in rooms if not re.search(rf"(^| ){re.escape(room)} ", charted, re.MULTILINE)] == []
