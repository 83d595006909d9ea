"""The types users see: both checkers accept a file that uses the whole contract, and reject wrong uses of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

USER_FILE = Path(__file__).with_name("typing_user.py")

WRONG = {
    "await car.accelerate('fast')": "a wrong argument",
    "await car.accelerate()": "a missing argument",
    "await car.fly()": "an unknown action",
    "speed: str = await car.accelerate(1.0)": "a wrong result",
    "car.accelerate(1.0) + 1": "a forgotten await",
    "profile.value.nme = 'ann'": "a field that isn't there",
    "profile.value.name = 1": "a field of another type",
    "profile.value = Login(at='now')": "a value of another type",
    "await profile.migrate_and_load(default=Login(at='now'))": "a default of another type",
    "(await profile.load()).name": "what may not be stored",
    "version: str = record.info.version": "migration-info that may be missing",
    "Node(store, suite)": "one suite instead of several",
    "Node(store, [suite], lease='3 s')": "an unknown option",
    "suite.actor_type('Other', Profile)": "a class that is no Actor",
    "action(lambda: 1)": "an action that is not async",
    "node.actor(user, 7)": "an id that is no string",
}
"""Lines that are wrong, each by itself."""

HEAD = """

class Car(Actor):
    @action
    async def accelerate(self, delta: float) -> float:
        return delta


car_type = suite.actor_type("Car", Car)


async def wrong(node: Node, store: Store, profile: State[Profile], record: ActorRecord) -> None:
    car = node.actor(car_type, "car-1")
"""


def mypy_errors(file: Path) -> set[int]:
    """Return the lines mypy complains about."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=USER_FILE.parents[1])
    assert found.returncode in {0, 1}, found.stdout + found.stderr
    errors = [line.split(":", 2) for line in found.stdout.splitlines() if ": error:" in line]
    assert all(Path(path).name == file.name for path, _, _ in errors), found.stdout
    return {int(line) for _, line, _ in errors}


def pyright_errors(file: Path) -> set[int]:
    """Return the lines pyright complains about; it may have to fetch its npm package first."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=USER_FILE.parents[1])
    try:
        report = json.loads(found.stdout)
    except ValueError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"pyright can't be fetched or run here: {(found.stderr or found.stdout).strip()[-200:]}")
    assert report["summary"]["filesAnalyzed"] == 1
    return {one["range"]["start"]["line"] + 1 for one in report["generalDiagnostics"] if one["severity"] == "error"}


@pytest.fixture(params=[mypy_errors, pyright_errors], ids=["mypy", "pyright"])
def errors_of(request: pytest.FixtureRequest) -> Callable[[Path], set[int]]:
    checker: Callable[[Path], set[int]] = request.param
    return checker


def test_users_file_is_accepted(errors_of: Callable[[Path], set[int]]) -> None:
    assert errors_of(USER_FILE) == set()


def test_wrong_uses_are_rejected_line_by_line(errors_of: Callable[[Path], set[int]], tmp_path: Path) -> None:
    text = USER_FILE.read_text() + HEAD
    first = len(text.splitlines()) + 1
    file = tmp_path / "wrong_user.py"
    file.write_text(text + "".join(f"    {line}\n" for line in WRONG))
    found = errors_of(file)
    missed = [line for number, line in enumerate(WRONG, first) if number not in found]
    assert not missed
    assert found == set(range(first, first + len(WRONG))), "and nothing else"
