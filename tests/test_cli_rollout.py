"""The commands of rolling deploys: ``rollout``, ``gate`` and ``census``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli_project import Project, shape
from tests.cli_rollouts import beside, lines, running, within
from tests.fleets import SILENT, join, put
from tests.gate_cases import MINOR, NEW, OLD
from tests.worlds import An

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


@pytest.fixture
def filled(project: Project) -> Project:
    """Return a project with nodes and actors of three versions."""

    async def fill(store: Store) -> None:
        await join(store, "web-1", NEW)
        for actor_id, actor in {"a": An(OLD), "b": An(MINOR), "c": An(NEW, entries=(NEW, OLD)), "d": An()}.items():
            await put(store, actor_id, actor)

    within(project, fill)
    return project


# --- a deploy --------------------------------------------------------------------------------------------------------


async def test_a_deploy_is_led_by_commands(project: Project) -> None:
    async def run(*arguments: str, status: int = 0) -> list[str]:
        result = await beside(project.run, *arguments)
        assert result.exit_code == status
        return lines(result)

    async with running(project, "old", "1.1.0") as old:
        await old.actor("Vehicle", "car-1").accelerate(1.0)
        assert await run("rollout", "pin", "Vehicle", "1.1.0") == ["done: Vehicle is written at 1.1.0"]
        async with running(project, "new"):
            shown = await run("rollout", "status", "Vehicle")
            assert shown[:2] == [
                "Vehicle: phase 1, new code reads both, writes old", "written at 1.1.0, newest is 2.0.0",
            ]  # fmt: skip
            assert shown[-2] == f"next: lazymig nodes drain {old.node_id}"
            cure = "Deploy a release there that supports it, or stop what runs there."
            old_one = f"by node old ({old.node_id}): it supports 1.1.0 only"
            assert await run("rollout", "flip", "Vehicle", "2.0.0", status=1) == [
                "no: flip Vehicle to 2.0.0",
                f"not_supported: Vehicle can't be stored at 2.0.0 {old_one}. {cure}",
            ]
            await old.__aexit__(None, None, None)
            assert await run("rollout", "status", "Vehicle") == PHASE_2
            assert await run("gate", "flip", "Vehicle", "2.0.0") == ["yes: flip Vehicle to 2.0.0"]
            assert await run("rollout", "flip", "Vehicle", "2.0.0") == ["done: Vehicle is written at 2.0.0"]
            assert await run("rollout", "flip", "Vehicle", "2.0.0") == [
                "nothing to change", "note: Vehicle is written at 2.0.0 already.",
            ]  # fmt: skip
            refused = await run("gate", "rollback", "Vehicle", "1.1.0", status=1)
            assert [line.split(":")[0] for line in refused] == ["no", "nodes_store_newer", "write_version_above"]
            assert await run("rollout", "unpin", "Vehicle") == ["done: Vehicle has no write version any more"]
            (_, note) = await run("rollout", "unpin", "Vehicle")
            assert note == "note: Vehicle has no write version: each node stores what it supports."


PHASE_2 = [
    "Vehicle: phase 2, every node runs it",
    "written at 1.1.0, newest is 2.0.0",
    "release build nodes",
    "1.1.0 2026.11 none",
    "2.0.0 2026.11 new",
    "version actors",
    "1.1.0 1",
    "gate answer",
    "flip Vehicle to 2.0.0 yes",
    "unpin Vehicle yes",
    "retire 2.0.0 of Vehicle no: write_version_below, actors_lack",
    "roll back Vehicle to 1.1.0 yes",
    "next: lazymig rollout flip Vehicle 2.0.0",
    "Every node supports 2.0.0; then they write it, too.",
]


def test_a_change_is_one_document(project: Project) -> None:
    within(project, lambda store: join(store, "web-1", NEW))
    assert project.document("rollout", "flip", "Vehicle", "2.0.0") == {
        "schema": 1,
        "store": project.url,
        "question": "flip",
        "type": "Vehicle",
        "version": "2.0.0",
        "allowed": True,
        "changed": True,
        "reasons": [],
        "notes": [],
    }


def test_a_status_is_one_document(filled: Project) -> None:
    document = filled.document("rollout", "status", "Vehicle")
    gate = {
        "question": "str",
        "type": "str",
        "version": "str",
        "allowed": "bool",
        "changed": "bool",
        "reasons": [{"code": "str", "text": "str", "nodes": [], "count": "int", "actors": ["str"]}],
        "notes": [],
    }
    assert shape(document["gates"][0]) == gate
    assert shape({**document, "gates": []}) == {
        "schema": "int",
        "store": "str",
        "type": "str",
        "phase": "int",
        "phase_text": "str",
        "write_version": "NoneType",
        "epoch": "int",
        "target": "str",
        "releases": [
            {
                "version": "str",
                "registered": ["str"],
                "build": "str",
                "seen_at": "NoneType",
                "nodes": [shape(filled.document("nodes")["nodes"][0])],
            }
        ],
        "unreadable_nodes": [],
        "census": {
            "type": "str",
            "actors": "int",
            "without_info": "int",
            "versions": {"0.0.0": "int", "1.0.0": "int", "1.1.0": "int", "2.0.0": "int"},
            "applied": [{"applied": shape(document["census"]["applied"][0]["applied"]), "actors": "int"}],
            "entries": {"1.0.0": "int", "2.0.0": "int"},
            "bases": "int",
            "quarantined": "int",
        },
        "gates": [],
        "next": {"command": "str", "text": "str"},
    }
    assert document["next"]["command"] == "lazymig sweep Vehicle"
    assert (document["phase"], document["phase_text"]) == (3, "writes flipped")


@pytest.mark.parametrize("question", ["pin", "flip", "retire", "rollback", "unpin"])
def test_a_gate_is_one_document_and_an_exit_status(filled: Project, question: str) -> None:
    arguments = ["gate", question, "Vehicle", *([] if question == "unpin" else ["2.0.0"])]
    document = filled.document(*arguments, status=1 if question == "retire" else 0)
    assert sorted(document) == [
        "allowed", "changed", "notes", "question", "reasons", "schema", "store", "type", "version",
    ]  # fmt: skip
    assert document["allowed"] == (question != "retire")
    assert not document["changed"]
    assert {reason["code"]: reason["actors"] for reason in document["reasons"]} == (
        {"actors_lack": ["a", "b", "d"], "entries_lack": ["c"]} if question == "retire" else {}
    )


def test_a_pin_notes_that_entries_have_no_base(filled: Project) -> None:
    (note,) = filled.document("rollout", "pin", "Vehicle", "2.0.0")["notes"]
    assert "they have no base" in note


def test_a_silent_node_is_named_and_forgotten(project: Project) -> None:
    async def fill(store: Store) -> None:
        await join(store, "web-1", NEW)
        await join(store, "web-2", NEW, lease=SILENT)

    within(project, fill)
    (reason,) = project.document("gate", "flip", "Vehicle", "2.0.0", status=1)["reasons"]
    assert (reason["code"], reason["nodes"]) == ("silent_nodes", ["WEB-2"])
    shown = lines(project.run("rollout", "status", "Vehicle"))
    assert "2.0.0 build web-1, web-2 (silent)" in shown
    assert "next: lazymig nodes forget WEB-2" in shown
    assert project.run("nodes", "forget", "WEB-2").exit_code == 0
    assert project.document("rollout", "flip", "Vehicle", "2.0.0")["changed"]


def test_a_node_whose_row_cannot_be_read_is_shown_and_forgotten(project: Project) -> None:
    within(project, lambda store: join(store, "web-1", NEW))
    project.damage("UPDATE node SET offers = 'x'")
    (reason, *_) = project.document("gate", "pin", "Vehicle", "1.0.0", status=1)["reasons"]
    assert (reason["code"], reason["nodes"]) == ("unreadable_nodes", ["WEB-1"])
    assert "'lazymig nodes forget WEB-1'" in reason["text"]
    project.damage("INSERT INTO policy (type, version, epoch) VALUES ('Vehicle', NULL, 1)")
    assert "? rows that can't be read: WEB-1" in lines(project.run("rollout", "status", "Vehicle"))
    assert lines(project.run("nodes", "forget", "WEB-1")) == ["node WEB-1 is forgotten; its row could not be read"]
    assert project.document("gate", "pin", "Vehicle", "1.0.0")["allowed"]


# --- census ----------------------------------------------------------------------------------------------------------


def test_a_census_counts_actors_and_entries_by_version(filled: Project) -> None:
    assert lines(filled.run("census", "Vehicle")) == [
        "Vehicle", "version actors entries", "0.0.0 1 0", "1.0.0 1 1", "1.1.0 1 0", "2.0.0 1 1",
    ]  # fmt: skip
    assert lines(filled.run("census")) == lines(filled.run("census", "Vehicle"))
    (found,) = filled.document("census")["types"]
    assert (found["type"], found["actors"], found["without_info"]) == ("Vehicle", 4, 1)
    assert found["versions"] == {"0.0.0": 1, "1.0.0": 1, "1.1.0": 1, "2.0.0": 1}
    assert found["entries"] == {"1.0.0": 1, "2.0.0": 1}
    assert {"applied": ["1.0.0", "1.1.0"], "actors": 1} in found["applied"]
    assert {"applied": None, "actors": 1} in found["applied"]


def test_stragglers_are_named(filled: Project) -> None:
    result = filled.run("census", "Vehicle", "--below", "1.1.0")
    assert (result.exit_code, lines(result)) == (1, ["a", "d"])
    assert filled.document("census", "Vehicle", "--below", "1.1.0", status=1)["actors"] == ["a", "d"]
    within(filled, lambda store: put(store, "x\x1b[2J", An(OLD)))
    assert lines(filled.run("census", "Vehicle", "--below", "1.1.0")) == ["a", "d", r"x\x1b[2J"]
    result = filled.run("census", "Vehicle", "--below", "0.0.0")
    assert (result.exit_code, lines(result)) == (0, ["no actor of Vehicle is below 0.0.0"])
    assert filled.document("census", "Vehicle", "--below", "0.0.0")["actors"] == []


def test_a_census_of_nothing(project: Project) -> None:
    project.store({})
    assert lines(project.run("census", "Vehicle")) == ["Vehicle", "version actors", "none 0"]
    project.configure("[tool.lazymig]\nsuites = []\n")
    assert project.run("census").stdout == "no actor types\n"
    assert project.document("census")["types"] == []


def test_a_census_goes_on_past_a_type_that_cannot_be_counted(filled: Project) -> None:
    within(filled, lambda store: store.insert("Lorry", "state", [("l", b"{}")]))
    filled.damage("UPDATE lineage SET applied = '{' WHERE applied = '[\"0.0.0\", \"1.0.0\"]' OR id = 1")
    result = filled.run("census")
    assert result.exit_code == 1
    assert "lazymig: Vehicle can't be counted: " in result.stderr
    assert lines(result)[0] == "Lorry"
    document: Any = filled.document("census", status=1)
    assert {found["type"]: found["actors"] for found in document["types"]} == {"Lorry": 1, "Vehicle": None}
    assert filled.document("census", "Vehicle", status=1)["error"]["code"] == "corrupt_state"
    assert filled.document("gate", "retire", "Vehicle", "1.0.0", status=1)["reasons"][0]["code"] == "corrupt"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rollout", "flp"], "there is no command 'rollout flp'. Did you mean 'flip'? See 'lazymig rollout --help'."),
        (
            ["gate", "rolback"],
            "there is no command 'gate rolback'. Did you mean 'rollback'? See 'lazymig gate --help'.",
        ),
        (["gates"], "there is no command 'gates'. Did you mean 'gate'? See 'lazymig --help'."),
        (["rollout", "pin", "Vehicle"], "Missing argument 'VERSION'. See 'lazymig rollout pin --help'."),
        (["rollout", "status"], "Missing argument 'TYPE'. See 'lazymig rollout status --help'."),
        (
            ["rollout", "unpin", "Vehicle", "1.0.0"],
            "Got unexpected extra argument (1.0.0) See 'lazymig rollout unpin --help'.",
        ),
        (
            ["gate", "flip", "Vehicle", "2.0"],
            "'2.0' is no version: not in SemVer's form. Write MAJOR.MINOR.PATCH, like '1.0.0'.",
        ),
        (
            ["census", "--below", "1.0.0"],
            "--below without a TYPE: of which? Add its name. See 'lazymig census --help'.",
        ),
        (
            ["census", "Vehicle", "--below", "1"],
            "'1' is no version: not in SemVer's form. Write MAJOR.MINOR.PATCH, like '1.0.0'.",
        ),
    ],
)
def test_a_wrong_command_is_one_line_with_its_cure(project: Project, arguments: list[str], message: str) -> None:
    project.store({})
    assert project.refused(*arguments, status=2) == message


UNKNOWN = [
    ["rollout", "status", "Vehicel"],
    ["rollout", "flip", "Vehicel", "1.0.0"],
    ["rollout", "unpin", "Vehicel"],
    ["gate", "flip", "Vehicel", "1.0.0"],
    ["gate", "unpin", "Vehicel"],
    ["gate", "retire", "Vehicel", "1.0.0"],
    ["gate", "rollback", "Vehicel", "1.0.0"],
    ["census", "Vehicel"],
    ["census", "Vehicel", "--below", "1.0.0"],
]


@pytest.mark.parametrize("arguments", UNKNOWN)
def test_an_unknown_type_is_refused_with_a_suggestion(project: Project, arguments: list[str]) -> None:
    project.store({})
    assert project.refused(*arguments, status=1) == (
        "neither a suite nor the store has an actor type 'Vehicel'; known: Vehicle. Did you mean 'Vehicle'?"
    )


def test_an_unknown_type_is_pinned_with_a_word_of_warning(project: Project) -> None:
    project.store({})
    result = project.run("rollout", "pin", "Vehicel", "1.0.0")
    assert (result.exit_code, lines(result)[0]) == (0, "done: Vehicel is written at 1.0.0")
    assert result.stderr == "lazymig: nobody has an actor type 'Vehicel' yet. Did you mean 'Vehicle'?\n"
    result = project.run("gate", "pin", "Boat", "1.0.0")
    assert result.stderr == "lazymig: nobody has an actor type 'Boat' yet. That is fine before the first deploy.\n"
    assert lines(result) == [
        "yes: pin Boat to 1.0.0", "note: no node has registered Boat yet, and none of it is stored.",
    ]  # fmt: skip
    assert project.document("rollout", "unpin", "Vehicel")["changed"]
    assert project.document("rollout", "status", "Vehicel")["epoch"] == 2


def test_a_suite_that_cannot_be_imported_hides_no_answer(project: Project) -> None:
    project.store({})
    project.configure('[tool.lazymig]\nsuites = ["nowhere:suite"]\n')
    assert lines(project.run("rollout", "pin", "Vehicle", "1.0.0"))[0] == "done: Vehicle is written at 1.0.0"
    assert lines(project.run("rollout", "unpin", "Vehicle")) == ["done: Vehicle has no write version any more"]
    assert "can't be imported" in project.refused("gate", "flip", "Lorry", "1.0.0", status=2)


def test_a_type_that_only_a_suite_has_is_known(project: Project) -> None:
    project.store({})
    document = project.document("rollout", "status", "Vehicle")
    assert (document["phase"], document["next"]["text"]) == (4, "No node serves Vehicle: start one.")
    assert lines(project.run("rollout", "status", "Vehicle"))[-1] == "next: No node serves Vehicle: start one."
    assert project.document("gate", "flip", "Vehicle", "1.0.0", status=1)["reasons"][0]["code"] == "unknown_version"


@pytest.mark.parametrize(
    "arguments", [["rollout", "pin", "Vehicle", "1.0.0"], ["gate", "unpin", "Vehicle"], ["census"]]
)
def test_a_store_that_is_not_there_is_not_made(project: Project, arguments: list[str]) -> None:
    project.refused(*arguments, status=2)
    assert not project.database.exists()


def test_a_store_is_taken_before_and_after_the_subcommand(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.store({})
    monkeypatch.delenv("LAZYMIG_STORE")
    flag = ["--store", project.url]
    for arguments in (
        [*flag, "gate", "unpin", "Vehicle"],
        ["gate", *flag, "unpin", "Vehicle"],
        ["gate", "unpin", *flag, "Vehicle"],
    ):
        assert project.run(*arguments).exit_code == 0
    assert "no store is configured" in project.refused("gate", "unpin", "Vehicle", status=2)


def test_labels_move_no_cursor(project: Project) -> None:
    within(project, lambda store: join(store, "web\x1b[2J\nno: nothing", OLD))
    within(project, lambda store: join(store, "web-2", NEW))
    shown = r"web\x1b[2J\nno: nothing"
    result = project.run("gate", "flip", "Vehicle", "2.0.0")
    assert len(result.stdout.splitlines()) == 2
    assert shown in result.stdout
    result = project.run("rollout", "status", "Vehicle")
    assert shown in result.stdout
    assert "\x1b" not in result.stdout
