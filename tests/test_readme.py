"""What the README shows runs as written, each piece in a namespace and a folder of its own."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_commands_run_as_written(commands: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        ["bash", "-euc", commands], check=False, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )

    assert done.returncode == 0, done.stderr
    assert "GV-042-X" in (tmp_path / "backup.jsonl").read_text(encoding="utf-8")


def test_the_set_up_commands_are_the_two() -> None:
    assert [code.strip() for language, code in FENCES if language == "sh" and "pip" in code] == [
        "pip install -e '.[cli]' && python -m suites.demo",
        "pip install -e '.[test]' && python -m pytest",
    ]


def test_the_map_of_the_code_has_every_file() -> None:
    charted = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "lazymig").iterdir() if path.suffix == ".py"]

    assert [room for room in rooms if not re.search(rf"(^| ){re.escape(room)} ", charted, re.MULTILINE)] == []
