"""``lazymig restore``: one actor, as it was before a major version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Node, open_store
from lazymig.testing.releases import release
from tests.cli_project import Project, shape
from tests.cli_rollouts import beside, lines, within

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store

KEPT = """
from typing import Any

from lazymig import Suite

suite = Suite("boats")
boat = suite.actor_type("Boat", keep_previous=True)


@boat.migration("1.0.0")
def name(state: Any, context: Any) -> None:
    state["name"] = "nobody"


@boat.migration("2.0.0")
def owner(state: Any, context: Any) -> None:
    state["owner"] = state.pop("name")
"""

KEY = ActorKey("Boat", "b-1")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path, monkeypatch)
    project.configure('[tool.lazymig]\nsuites = ["boats:suite"]\n')
    project.write("boats.py", KEPT)
    scope: dict[str, Any] = {}
    exec(KEPT, scope)
    project.suite = scope["suite"]  # type: ignore[attr-defined]  # of the tests here

    async def fill(store: Store) -> None:
        await use(store, release(scope["suite"], "1.0.0"))
        await use(store, scope["suite"], "logbook")

    within(project, fill)
    return project


async def use(store: Store, suite: Any, *more: str) -> None:
    async with Node(store, [suite]) as node, node.activate("Boat", "b-1") as activation:
        await activation.state().migrate_and_load(default={"name": "ann"})
        for name in more:
            await activation.state(name).migrate_and_load(default=[])
        await activation.persist()


def test_the_answer_says_what_is_put_back_and_who_takes_it(project: Project) -> None:
    result = project.run("restore", "Boat", "b-1")

    assert result.exit_code == 0
    assert lines(result) == [
        "Boat 'b-1' is at 1.0.0 again; what was stored at 2.0.0 is gone",
        "put back: state",
        "removed: logbook",
        "taken as it is by: no registered node",
        "brought up again, when it is next active there, by: no registered node",
    ]
    shown = project.document("inspect", "Boat", "b-1")
    assert (shown["states"], shown["info"]["applied"]) == ({"state": {"name": "ann"}}, ["1.0.0"])


async def test_the_document_names_the_nodes(project: Any) -> None:
    old = release(project.suite, "1.0.0")
    async with open_store(project.url) as store, Node(store, [old]) as first, Node(store, [project.suite]) as second:
        document = await beside(project.document, "restore", "Boat", "b-1")
        assert (document["readers"], document["migrators"]) == ([first.node_id], [second.node_id])

    assert (document["version"], document["replaced"], document["states"]) == ("1.0.0", "2.0.0", ["state"])
    written = {
        "version": "str",
        "floor": "NoneType",
        "applied": ["str"],
        "written_by": "str",
        "migrated_at": "NoneType",
    }
    assert shape(document) == {
        "schema": "int",
        "store": "str",
        "type": "str",
        "id": "str",
        "version": "str",
        "replaced": "str",
        "info": written,
        "states": ["str"],
        "removed": ["str"],
        "revision": "int",
        "readers": ["str"],
        "migrators": ["str"],
    }


def test_a_second_restore_is_refused(project: Project) -> None:
    project.run("restore", "Boat", "b-1")

    assert "nothing is kept of it" in project.refused("restore", "Boat", "b-1", status=1)
    assert project.document("restore", "Boat", "b-1", status=1)["error"]["code"] == "restore"


async def test_an_actor_that_is_active_in_another_process_is_left_alone(project: Any) -> None:
    async with (
        open_store(project.url) as store,
        Node(store, [project.suite]) as node,
        node.activate("Boat", "b-1") as activation,
    ):
        value = await activation.state().migrate_and_load()
        said = await beside(project.refused, "restore", "Boat", "b-1", status=1)
        found = await store.read(KEY)
        assert found is not None
        assert json.loads(found.states["state"]) == value == {"owner": "ann"}
        assert f"active on node {node.node_id}" in said
        assert f"lazymig nodes drain {node.node_id}" in said


def test_what_is_misspelt_is_named(project: Project) -> None:
    assert "Boat 'b-2' is not stored" in project.refused("restore", "Boat", "b-2", status=1)
    assert "Did you mean 'Boat'?" in project.refused("restore", "Boot", "b-1", status=2)
    assert "can't be an actor id: it is empty" in project.refused("restore", "Boat", "", status=2)


def test_what_fails_on_the_way_says_that_the_outcome_is_unknown_and_how_to_know_it(project: Project) -> None:
    project.damage_schema("CREATE TRIGGER full BEFORE DELETE ON previous BEGIN SELECT RAISE(ABORT, 'planted'); END")
    said = project.refused("restore", "Boat", "b-1", status=1)
    assert said.endswith("Whether Boat 'b-1' was restored is unknown: 'lazymig inspect Boat b-1' shows its version.")
    assert project.document("inspect", "Boat", "b-1")["info"]["version"] == "2.0.0"
    project.damage_schema("DROP TRIGGER full")
    assert project.document("restore", "Boat", "b-1")["version"] == "1.0.0"
