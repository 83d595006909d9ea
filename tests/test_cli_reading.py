from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli_project import Project, shape

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


# --- inspect ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(project: Project) -> Project:
    project.store({name: {"velocity": 36.0, "owner": "Ada"} for name in ("car-1", "car-2", "car-3")})
    project.migrate("car-1")
    return project


INFO_SHAPE = {"applied": ["str"], "floor": "NoneType", "migrated_at": "str", "version": "str", "written_by": "str"}


def test_inspect_shows_a_migrated_actor(filled: Project) -> None:
    document = filled.document("inspect", "Vehicle", "car-1")
    assert shape(document) == {
        "schema": "int",
        "type": "str",
        "id": "str",
        "info": INFO_SHAPE,
        "states": {"vehicle": {"velocity": "float", "owner": "str", "drivers": ["str"]}},
        "converting": "NoneType",
        "tables": {},
        "owner": "NoneType",
        "quarantine": "NoneType",
        "revision": "int",
    }
    assert document["info"]["applied"] == ["1.0.0", "1.1.0", "2.0.0"]
    assert document["states"]["vehicle"] == {"velocity": 10.0, "owner": "Ada", "drivers": ["Ada"]}
    lines = filled.run("inspect", "Vehicle", "car-1").stdout.splitlines()
    assert lines[:4] == [
        "Vehicle 'car-1'",
        "  version      2.0.0",
        "  applied      1.0.0, 1.1.0, 2.0.0",
        "  written by   2.0.0",
    ]
    assert '      "velocity": 10.0' in lines


def test_inspect_shows_an_imported_actor_without_info(filled: Project) -> None:
    assert filled.document("inspect", "Vehicle", "car-2")["info"] is None
    assert "version      none: imported, not migrated yet" in filled.run("inspect", "Vehicle", "car-2").stdout


def test_inspect_changes_nothing(filled: Project) -> None:
    before = filled.document("inspect", "Vehicle", "car-2")
    assert filled.document("inspect", "Vehicle", "car-2") == before
    assert before["states"]["vehicle"] == {"velocity": 36.0, "owner": "Ada"}


@pytest.mark.parametrize("actor_id", ["💥🚗", 'it\'s "quoted"', "a/b", " ", "é", "\x1b[31m"])
def test_inspect_takes_any_id(project: Project, actor_id: str) -> None:
    project.store({actor_id: 1})
    assert project.document("inspect", "Vehicle", actor_id)["id"] == actor_id
    assert "\x1b" not in project.run("inspect", "Vehicle", actor_id).stdout


def test_inspect_of_an_unknown_actor_answers_no(filled: Project) -> None:
    message = filled.refused("inspect", "Vehicle", "car-9", status=1)
    assert message == f"Vehicle 'car-9' is not stored in {filled.url}. Check the id."
    assert filled.document("inspect", "Vehicle", "car-9", status=1)["error"]["code"] == "unknown_actor"


def test_inspect_of_a_corrupt_actor_says_what_is_wrong(filled: Project) -> None:
    filled.damage("UPDATE state SET value = X'FF' WHERE id = 'car-2'")
    assert "Vehicle 'car-2' can't be read: its state 'vehicle' is no JSON" in filled.refused(
        "inspect", "Vehicle", "car-2", status=1
    )
    assert filled.document("inspect", "Vehicle", "car-2", status=1)["error"]["code"] == "corrupt_state"


@pytest.mark.parametrize(("actor_type", "actor_id"), [("", "x"), ("Vehicle", ""), ("Vehicle", "x" * 1_001)])
def test_inspect_refuses_what_can_be_no_actor(project: Project, actor_type: str, actor_id: str) -> None:
    assert "can't be an actor" in project.refused("inspect", actor_type, actor_id, status=2)


def test_inspect_needs_no_working_suite_for_a_stored_actor(filled: Project) -> None:
    filled.configure('[tool.lazymig]\nsuites = ["no_such_module:suite"]\n')
    assert filled.run("inspect", "Vehicle", "car-1").exit_code == 0


# --- migrations ------------------------------------------------------------------------------------------------------


def test_migrations_counts_stored_actors_by_version(filled: Project) -> None:
    document = filled.document("migrations")
    (vehicle,) = document["types"]
    assert vehicle["stored"] == {"actors": 3, "without_info": 2, "versions": [{"version": "2.0.0", "actors": 1}]}
    assert shape(document) == {
        "schema": "int",
        "store": "str",
        "types": [
            {
                "type": "str",
                "state": "str",
                "supported": "str",
                "baseline": "NoneType",
                "migrations": [{"version": "str", "name": "str", "description": "str", "late": "bool"}],
                "stored": {"actors": "int", "without_info": "int", "versions": [{"version": "str", "actors": "int"}]},
            }
        ],
    }


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_migrations_prints_a_row_for_each_version(filled: Project) -> None:
    assert rows(filled.run("migrations").stdout) == [
        "Vehicle, supported 2.0.0",
        "version actors migration",
        "no info 2 imported, not migrated yet",
        "1.0.0 0 metres_per_second Velocity in m/s instead of km/h.",
        "1.1.0 0 driver_is_owner Add a driver, at first the owner.",
        "2.0.0 1 many_drivers A list of drivers replaces the one driver.",
    ]


def test_migrations_without_a_store_shows_what_is_registered(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAZYMIG_STORE")
    result = project.run("migrations", "--json")
    assert result.exit_code == 0
    assert result.stderr == (
        "lazymig: no store is configured, so no actors are counted. Give --store URL, or set LAZYMIG_STORE.\n"
    )
    (vehicle,) = project.document("migrations")["types"]
    assert vehicle["stored"] is None
    assert [step["version"] for step in vehicle["migrations"]] == ["1.0.0", "1.1.0", "2.0.0"]
    assert rows(project.run("migrations").stdout)[2] == "1.0.0 metres_per_second Velocity in m/s instead of km/h."


def test_migrations_without_store_and_suites_has_nothing_to_show(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAZYMIG_STORE")
    project.configure("[tool.lazymig]\n")
    assert "neither suites nor a store are configured" in project.refused("migrations", status=2)


def test_migrations_shows_stored_types_that_no_suite_has(filled: Project) -> None:
    filled.configure("[tool.lazymig]\n")
    (vehicle,) = filled.document("migrations")["types"]
    assert (vehicle["supported"], vehicle["migrations"]) == (None, None)
    assert vehicle["stored"]["actors"] == 3
    assert rows(filled.run("migrations").stdout)[:2] == [
        "Vehicle, in no suite",
        "version actors migration",
    ]


RETIRED = """
from lazymig import Suite

suite = Suite("retired")
vehicle = suite.actor_type("Vehicle", state="vehicle", baseline="1.1.0")


@vehicle.migration("1.2.0", late=True)
def brackets(state, context):
    '''Takes [any] markup as it is.'''
"""


def test_migrations_shows_baseline_late_ones_and_versions_not_registered(
    filled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.write("retired_suite.py", RETIRED)
    filled.configure('[tool.lazymig]\nsuites = ["retired_suite:suite"]\n')
    monkeypatch.delitem(sys.modules, "retired_suite", raising=False)
    filled.damage("UPDATE lineage SET applied = '[\"<=1.1.0\"]'")
    (vehicle,) = filled.document("migrations")["types"]
    assert (vehicle["baseline"], vehicle["migrations"][0]["late"]) == ("1.1.0", True)
    assert rows(filled.run("migrations").stdout)[3:] == [
        "1.1.0 1 the baseline",
        "1.2.0 0 brackets late. Takes [any] markup as it is.",
    ]
    filled.damage("UPDATE lineage SET applied = '[\"3.0.0\"]'")
    assert "3.0.0 1 not registered here" in rows(filled.run("migrations").stdout)


def test_migrations_answers_no_if_migration_info_is_corrupt(filled: Project) -> None:
    filled.damage("UPDATE lineage SET applied = 'nonsense'")
    result = filled.run("migrations", "--json")
    assert result.exit_code == 1
    assert "Vehicle can't be counted: its migration-info is unreadable" in result.stderr
    assert "'lazymig export Vehicle' names the actors." in result.stderr
    document: Any = filled.document("migrations", status=1)
    assert document["types"][0]["stored"] is None
    assert rows(filled.run("migrations").stdout)[2].startswith("1.0.0 ? ")


def test_an_empty_store_without_suites_has_no_types(project: Project) -> None:
    project.configure("[tool.lazymig]\n")
    project.store({})
    assert project.run("migrations").stdout == "no actor types\n"
