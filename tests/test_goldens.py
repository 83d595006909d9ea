"""Golden states: what was released loads at HEAD, forever.

`LAZYMIG_RECORD_GOLDENS=1 python -m pytest tests/test_goldens.py` records versions that have no file yet.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig.testing import goldens, release
from suites import carts, logbook, users, vehicles
from suites.recipes import RECIPES

if TYPE_CHECKING:
    from semver import Version

    from lazymig import ActorType, Suite

FOLDER = Path(__file__).parent / "golden"
SUITES = {"vehicles": vehicles.suite, "users": users.suite, "logbook": logbook.suite, "carts": carts.suite}
SUITES |= {f"recipe_{name}": recipe.suite for name, recipe in RECIPES.items()}
RECORD = "LAZYMIG_RECORD_GOLDENS"
COMMAND = f"{RECORD}=1 python -m pytest tests/test_goldens.py"


def type_of(suite: Suite) -> ActorType[Any]:
    (actor_type,) = suite.actor_types.values()
    return actor_type


CASES = [
    pytest.param(folder, suite, version, id=f"{folder}-{version}")
    for folder, suite in SUITES.items()
    for version in goldens.versions(type_of(suite))
]


def test_every_suite_has_golden_states() -> None:
    files = Path(vehicles.__file__).parent.glob("[a-z]*.py")

    stems = {path.stem for path in files} - {"demo", "greeter", "recipes"}  # greeters keep the shape of their state

    assert stems | {f"recipe_{name}" for name in RECIPES} == SUITES.keys()


@pytest.mark.parametrize(("folder", "suite", "version"), CASES)
async def test_every_released_version_is_recorded(folder: str, suite: Suite, version: Version) -> None:
    path = FOLDER / folder / f"{version}.json"
    if os.environ.get(RECORD) and version > "0.0.0":
        await goldens.record(suite, type_of(suite).name, FOLDER / folder, version)

    assert path.exists(), f"{folder} {version} has no golden states. Record them: {COMMAND}"


@pytest.mark.parametrize(("folder", "suite", "version"), CASES)
async def test_a_recorded_version_loads_at_head_as_recorded(
    folder: str, suite: Suite, version: Version, url: str
) -> None:
    actor_type = type_of(suite)
    recorded = goldens.read(FOLDER / folder / f"{version}.json")
    at_head = goldens.read(FOLDER / folder / f"{actor_type.supported}.json")

    assert await goldens.upgrade(suite, actor_type.name, recorded, url) == at_head


@pytest.mark.parametrize(("folder", "suite", "version"), [case for case in CASES if "0.0.0" not in str(case.id)])
async def test_a_release_still_stores_what_was_recorded_of_it(folder: str, suite: Suite, version: Version) -> None:
    name = type_of(suite).name
    legacy = goldens.read(FOLDER / folder / "0.0.0.json")
    text = (FOLDER / folder / f"{version}.json").read_text(encoding="utf-8")

    assert goldens.dump(await goldens.upgrade(release(suite, version), name, legacy)) == text


async def test_recording_refuses_to_replace_other_bytes(tmp_path: Path) -> None:
    legacy = (FOLDER / "vehicles" / "0.0.0.json").read_text(encoding="utf-8")
    (tmp_path / "0.0.0.json").write_text(legacy, encoding="utf-8")
    await goldens.record(vehicles.suite, "Vehicle", tmp_path, vehicles.vehicle.supported)
    recorded = tmp_path / "2.0.0.json"
    falsified = recorded.read_text(encoding="utf-8").replace("Ada Okafor", "Eve")
    recorded.write_text(falsified, encoding="utf-8")

    with pytest.raises(AssertionError, match="What was released doesn't change"):
        await goldens.record(vehicles.suite, "Vehicle", tmp_path, vehicles.vehicle.supported)

    assert recorded.read_text(encoding="utf-8") == falsified
