from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest

from lazymig.cli._export import DocumentSink, written_atomically
from lazymig.cli._output import Refusal
from tests.cli_project import Project, shape


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path, monkeypatch)
    project.store({name: {"velocity": 36.0, "owner": name} for name in ("b", "💥", "a", 'c/"')})
    project.migrate("a")
    return project


IDS = ["a", "b", 'c/"', "💥"]


def test_export_writes_json_lines_in_order(project: Project) -> None:
    result = project.run("export", "Vehicle")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["id"] for line in lines] == IDS
    assert [line["info"] and line["info"]["version"] for line in lines] == ["2.0.0", None, None, None]
    assert lines[0]["states"] == {"vehicle": {"velocity": 10.0, "owner": "a", "drivers": ["a"]}}
    assert shape(lines[0]) == {
        "type": "str",
        "id": "str",
        "info": {
            "applied": ["str"],
            "floor": "NoneType",
            "migrated_at": "str",
            "version": "str",
            "written_by": "str",
        },
        "states": {"vehicle": {"velocity": "float", "owner": "str", "drivers": ["str"]}},
    }


def test_two_exports_are_equal_byte_for_byte(project: Project) -> None:
    assert project.run("export", "Vehicle").stdout_bytes == project.run("export", "Vehicle", "-").stdout_bytes
    project.run("export", "Vehicle", "out.jsonl")
    assert (project.folder / "out.jsonl").read_bytes() == project.run("export", "Vehicle").stdout_bytes


def test_with_json_stdout_is_one_document_with_the_actors(project: Project) -> None:
    document = project.document("export", "Vehicle")
    assert [actor["id"] for actor in document.pop("actors")] == IDS
    expected = {"schema": 1, "type": "Vehicle", "exported": 4, "with_entries": 0, "corrupt": 0, "corruptions": []}
    assert document == expected


def test_with_json_an_export_to_a_file_answers_with_its_summary(project: Project) -> None:
    assert project.document("export", "Vehicle", "out.jsonl") == {
        "schema": 1,
        "type": "Vehicle",
        "file": "out.jsonl",
        "exported": 4,
        "with_entries": 0,
        "corrupt": 0,
        "corruptions": [],
    }
    assert project.run("export", "Vehicle", "out.jsonl").stdout == "4 Vehicle actors written to out.jsonl\n"


def test_a_registered_type_without_actors_exports_nothing(project: Project) -> None:
    project.write("empty_suite.py", "from lazymig import Suite\nsuite = Suite('x')\nsuite.actor_type('Empty')\n")
    project.configure('[tool.lazymig]\nsuites = ["empty_suite:suite"]\n')
    assert project.run("export", "Empty").stdout == ""
    assert project.document("export", "Empty")["actors"] == []


def test_an_unreadable_actor_is_reported_and_the_others_written(project: Project) -> None:
    project.damage("UPDATE state SET value = X'FF' WHERE id = 'b'")
    project.damage("UPDATE actor SET lineage = 999 WHERE id = '💥'")
    result = project.run("export", "Vehicle", "out.jsonl")
    assert result.exit_code == 1
    assert [line.partition(" can't be read")[0] for line in result.stderr.splitlines()] == [
        "lazymig: Vehicle 'b'",
        "lazymig: Vehicle '💥'",
    ]
    assert result.stdout == "2 Vehicle actors written to out.jsonl\n"
    document = project.document("export", "Vehicle", status=1)
    assert [actor["id"] for actor in document["actors"]] == ["a", 'c/"']
    assert (document["exported"], document["corrupt"]) == (2, 2)
    assert [found["id"] for found in document["corruptions"]] == ["b", "💥"]
    assert document["corruptions"][1]["reason"] == "its migration-info names the unknown lineage 999"


def test_a_failed_export_leaves_the_file_as_it_was(project: Project) -> None:
    file = project.write("out.jsonl", "precious")
    project.refused("export", "Vehicel", "out.jsonl", status=2)
    assert file.read_text() == "precious"
    assert sorted(path.name for path in project.folder.glob("*.part")) == []


@pytest.mark.parametrize(("file", "reason"), [("nowhere/out.jsonl", "No such file or directory"), (".", "directory")])
def test_a_file_that_cannot_be_written_is_refused(project: Project, file: str, reason: str) -> None:
    message = project.refused("export", "Vehicle", file, status=2)
    assert message.startswith(f"{file} can't be written: ")
    assert reason in message


def interrupted(file: Path) -> None:
    with written_atomically(file) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def test_nothing_replaces_a_file_before_its_successor_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"old")
    file.chmod(0o640)
    with pytest.raises(KeyboardInterrupt):
        interrupted(file)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with written_atomically(file) as stream:
        stream.write(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    for file in (link, Path(os.devnull)):
        with written_atomically(file) as stream:
            stream.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert Path(os.devnull).is_char_device()


def test_a_disk_that_fails_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(Refusal, match="out can't be written: No space left on device"),
        written_atomically(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")


def test_an_error_on_the_way_ends_the_document(project: Project) -> None:
    stream = io.BytesIO()
    sink = DocumentSink(stream)
    sink.add(b'{"id":"a"}\n')
    sink.end({"error": {"code": "store_unavailable", "message": "gone"}})
    assert json.loads(stream.getvalue()) == {
        "schema": 1,
        "actors": [{"id": "a"}],
        "error": {"code": "store_unavailable", "message": "gone"},
    }


def test_an_id_that_is_none_ends_the_document_with_the_error_after_the_actors_before_it(
    project: Project,
) -> None:
    project.store({f"z-{number}": 1 for number in range(10)})
    project.damage("UPDATE actor SET id = X'7A7A' WHERE id = 'z-9'")
    result = project.run("export", "Vehicle", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [actor["id"] for actor in document["actors"]] == [*IDS[:3], *(f"z-{number}" for number in range(9)), IDS[3]]
    assert document["error"]["code"] == "corrupt_state"
    assert document["exported"] == 13
