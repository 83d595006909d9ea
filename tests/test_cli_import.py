from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lazymig.cli._progress import Lines
from tests.cli_project import Project, shape

if TYPE_CHECKING:
    from pathlib import Path

LEGACY = b'\xef\xbb\xbf{"plate": "car-1", "velocity": 36.0}\r\n\r\n{"plate": "\xf0\x9f\x92\xa5/\\"x", "velocity": 72}\n'
FAULTY = LEGACY + b'nope\n{"velocity": 1}\n{"plate": "car-3"}\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path, monkeypatch)
    project.write("legacy.jsonl", LEGACY)
    project.write("faulty.jsonl", FAULTY)
    return project


def stored(project: Project) -> dict[str, object]:
    return {actor["id"]: actor["states"] for actor in project.document("export", "Vehicle")["actors"]}


def test_import_stores_each_line_in_the_type_s_main_state(project: Project) -> None:
    result = project.run("import", "Vehicle", "legacy.jsonl", "--id-field", "plate")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "Vehicle: 2 imported, 0 skipped (they exist), 0 rejected\n"
    assert stored(project) == {
        "car-1": {"vehicle": {"plate": "car-1", "velocity": 36.0}},
        '💥/"x': {"vehicle": {"plate": '💥/"x', "velocity": 72}},
    }


def test_an_imported_actor_is_migrated_by_the_suite(project: Project) -> None:
    project.run("import", "Vehicle", "legacy.jsonl", "--id-field", "plate")
    project.migrate("car-1")
    record = project.document("inspect", "Vehicle", "car-1")
    assert (record["info"]["version"], record["states"]["vehicle"]["velocity"]) == ("2.0.0", 10.0)


def test_import_may_be_run_again(project: Project) -> None:
    arguments = ["import", "Vehicle", "legacy.jsonl", "--id-field", "plate"]
    project.run(*arguments)
    project.migrate("car-1")
    before = stored(project)
    document = project.document(*arguments)
    assert (document["imported"], document["skipped"], document["rejected"]) == (0, 2, 0)
    assert stored(project) == before


def test_existing_actors_are_an_error_on_demand(project: Project) -> None:
    arguments = ["import", "Vehicle", "legacy.jsonl", "--id-field", "plate", "--existing", "error"]
    project.store({"car-1": "old"})
    result = project.run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("lazymig: legacy.jsonl:1: Vehicle 'car-1' exists already, and was left as it is.")
    assert stored(project)["car-1"] == {"vehicle": "old"}
    assert len(stored(project)) == 2


def test_bad_lines_are_reported_by_number_and_the_rest_is_imported(project: Project) -> None:
    result = project.run("import", "Vehicle", "faulty.jsonl", "--id-field", "plate")
    assert result.exit_code == 1
    assert result.stdout == "Vehicle: 3 imported, 0 skipped (they exist), 2 rejected\n"
    assert [line.partition(". ")[0] for line in result.stderr.splitlines()] == [
        "lazymig: faulty.jsonl:4: the line is no JSON (invalid literal, expected 'null')",
        "lazymig: faulty.jsonl:5: the line has no field 'plate' for the id",
    ]


def test_the_document_of_an_import_has_all_its_counts(project: Project) -> None:
    document = project.document("import", "Vehicle", "faulty.jsonl", "--id-field", "plate", status=1)
    assert shape(document) == {
        "schema": "int",
        "type": "str",
        "state": "str",
        "file": "str",
        "store": "str",
        "imported": "int",
        "skipped": "int",
        "rejected": "int",
        "rejections": [{"line": "int", "reason": "str"}],
    }
    assert (document["type"], document["state"], document["store"]) == ("Vehicle", "vehicle", project.url)
    assert [rejection["line"] for rejection in document["rejections"]] == [4, 5]


def test_a_value_field_and_another_state_can_be_named(project: Project) -> None:
    project.write("docs.jsonl", '{"key": 7, "doc": {"velocity": 1}}\n')
    options = ["--id-field", "key", "--value-field", "doc", "--state", "archive"]
    assert project.document("import", "Vehicle", "docs.jsonl", *options)["state"] == "archive"
    assert stored(project) == {"7": {"archive": {"velocity": 1}}}


def test_an_empty_file_imports_nothing(project: Project) -> None:
    project.write("empty.jsonl", "")
    assert project.document("import", "Vehicle", "empty.jsonl", "--id-field", "id")["imported"] == 0


@pytest.mark.parametrize(
    ("file", "reason"), [("nope.jsonl", "No such file or directory"), (".", "Is a directory"), ("a\0b", "null byte")]
)
def test_a_file_that_cannot_be_read_is_refused_before_a_store_is_made(project: Project, file: str, reason: str) -> None:
    message = project.refused("import", "Vehicle", file, "--id-field", "id", status=2)
    assert "can't be read" in message
    assert reason in message
    assert not project.database.exists()


def test_an_unknown_type_is_refused_before_a_store_is_made(project: Project) -> None:
    arguments = ["import", "Vehicel", "legacy.jsonl", "--id-field", "plate"]
    refusal = "neither a suite nor the store has an actor type 'Vehicel'; known: Vehicle. Did you mean 'Vehicle'?"
    assert project.refused(*arguments, status=2) == refusal
    assert not project.database.exists()
    project.store({})
    assert project.refused(*arguments, status=2) == refusal


def test_the_state_of_a_type_of_no_suite_has_to_be_named(project: Project) -> None:
    project.store({"car-0": 1})
    project.configure("[tool.lazymig]\n")
    arguments = ["import", "Vehicle", "legacy.jsonl", "--id-field", "plate"]
    assert project.refused(*arguments, status=2) == (
        "no suite has Vehicle, so its main state is unknown. Name it by --state, or add the suite to [tool.lazymig] in "
        "pyproject.toml."
    )
    assert project.document(*arguments, "--state", "vehicle")["imported"] == 2


def test_a_state_that_can_have_no_such_name_is_refused(project: Project) -> None:
    arguments = ["import", "Vehicle", "legacy.jsonl", "--id-field", "plate", "--state", "x" * 201]
    assert "can't be a state name" in project.refused(*arguments, status=2)


def test_a_store_that_fails_on_the_way_answers_no_and_says_how_far_it_came(project: Project) -> None:
    lines = [json.dumps({"plate": f"car-{number:04}"}) for number in range(700)]
    project.write("many.jsonl", "\n".join(lines))
    project.store({})
    project.damage_schema(
        "CREATE TRIGGER full BEFORE INSERT ON state WHEN NEW.id = 'car-0600' BEGIN SELECT RAISE(FAIL, 'disk full'); END"
    )
    result = project.run("import", "Vehicle", "many.jsonl", "--id-field", "plate")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "lazymig: stopped after 500 actors; run it again to go on from there."
    assert "did not take the operation (disk full)" in second
    assert len(stored(project)) == 500
    project.damage_schema("DROP TRIGGER full")
    document = project.document("import", "Vehicle", "many.jsonl", "--id-field", "plate")
    assert (document["imported"], document["skipped"]) == (200, 500)


def test_progress_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0

    def clock() -> float:
        return now

    lines = Lines(clock)
    for now, count in ((105.0, 5_000), (110.0, 10_000), (119.0, 19_000), (120.0, 20_000), (131.0, 31_000)):
        lines.update(count, f"{count:,} imported", None if now > 125 else count / 40_000)
    assert capsys.readouterr().err.splitlines() == [
        "lazymig: 10,000 imported (1,000/s, 25%, 30 s left)",
        "lazymig: 20,000 imported (1,000/s, 50%, 20 s left)",
        "lazymig: 31,000 imported (1,000/s)",
    ]


def test_lines_of_any_length_are_read_whole_and_counted(project: Project) -> None:
    long = [json.dumps({"plate": f"long-{number}", "text": "x" * 1_300_000}) for number in range(3)]
    project.write("long.jsonl", "\n".join([*long, "nope", *long, '{"plate": "last"}']))
    document = project.document("import", "Vehicle", "long.jsonl", "--id-field", "plate", status=1)
    assert (document["imported"], document["skipped"]) == (4, 3)
    assert document["rejections"][0]["line"] == 4
