from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, open_store
from lazymig.errors import LeaseLostError
from suites import vehicles
from tests.cli_project import Project, shape
from tests.processes import Line, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


@asynccontextmanager
async def running(project: Project, label: str = "web-1", build: str | None = "2026.11") -> AsyncIterator[Node]:
    async with open_store(project.url) as store, Node(store, [vehicles.suite], label=label, build=build) as node:
        yield node


async def hold(line: Line, url: str, label: str) -> None:
    """Serve with a short lease; hold an actor, and store it when told to."""
    async with (
        open_store(url) as store,
        Node(store, [vehicles.suite], label=label, lease_seconds=0.4) as node,
        node.activate("Vehicle", "car-1") as activation,
    ):
        await activation.state().migrate_and_load(default={"velocity": 0.0})
        line.tell(node.node_id)
        line.wait()
        try:
            await activation.persist()
        except LeaseLostError as error:
            line.tell(error)


async def document(project: Project, *arguments: str, status: int = 0) -> Any:
    """Run a command beside the nodes of this event loop."""
    return await asyncio.to_thread(project.document, "nodes", *arguments, status=status)


async def refused(project: Project, *arguments: str, status: int) -> str:
    return await asyncio.to_thread(project.refused, "nodes", *arguments, status=status)


async def text(project: Project, *arguments: str) -> list[str]:
    """Run a command, and return its lines with single spaces."""
    result = await asyncio.to_thread(project.run, "nodes", *arguments)
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


async def until(project: Project, key: str, value: object) -> dict[str, Any]:
    """Return the only node's entry once it says so: heartbeats tell it."""
    while True:
        (node,) = (await document(project))["nodes"]
        if node[key] == value:
            return dict(node)


# --- the list --------------------------------------------------------------------------------------------------------


async def test_nodes_lists_what_each_one_offers(project: Project) -> None:
    async with running(project) as node:
        await node.actor(vehicles.vehicle, "car-1").accelerate(1.0)
        shown = await until(project, "active", 1)
        assert shape(shown) == {
            "id": "str",
            "label": "str",
            "build": "str",
            "alive": "bool",
            "draining": "bool",
            "age_seconds": "float",
            "lease_seconds": "float",
            "active": "int",
            "types": [{"type": "str", "version": "str", "registered": ["str"], "actions": ["str"]}],
        }
        assert (shown["id"], shown["label"], shown["build"]) == (node.node_id, "web-1", "2026.11")
        assert (shown["alive"], shown["draining"], shown["lease_seconds"]) == (True, False, 3.0)
        assert 0.0 <= shown["age_seconds"] < 3.0
        (offer,) = shown["types"]
        assert (offer["type"], offer["version"], offer["registered"]) == (
            "Vehicle",
            "2.0.0",
            ["1.0.0", "1.1.0", "2.0.0"],
        )
        assert sorted(offer["actions"]) == ["accelerate", "velocity"]


async def test_nodes_prints_a_row_for_each_in_order_of_labels(project: Project) -> None:
    async with running(project, "web-[2]", None) as second, running(project) as first:
        head, *rows = await text(project)
        assert head == "label id state build heartbeat active versions"
        assert rows[0].startswith(f"web-1 {first.node_id} alive 2026.11 ")
        assert rows[1].startswith(f"web-[2] {second.node_id} alive ")
        assert all(row.endswith(" s ago 0 Vehicle 2.0.0") for row in rows)


async def test_a_client_offers_nothing(project: Project) -> None:
    async with open_store(project.url) as store, Node(store, label="client"):
        assert [node["types"] for node in (await document(project))["nodes"]] == [[]]


async def test_a_fleet_without_nodes_has_none_to_list(project: Project) -> None:
    async with running(project):
        pass
    assert await document(project) == {"schema": 1, "store": project.url, "nodes": []}
    assert await text(project) == ["no nodes"]


# --- drain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["label", "id"])
async def test_a_node_that_is_drained_gives_its_actors_up(project: Project, by: str) -> None:
    async with running(project) as node:
        await node.actor(vehicles.vehicle, "car-1").accelerate(1.0)
        await until(project, "active", 1)
        drained = await document(project, "drain", node.label if by == "label" else node.node_id)
        assert drained == {"schema": 1, "id": node.node_id, "label": "web-1"}
        assert (await until(project, "active", 0))["draining"]
        assert (await text(project))[1].split()[2] == "draining"
        assert await text(project, "drain", "web-1") == [
            f"node web-1 ({node.node_id}) was told to drain; it has 0 active actors"
        ]


async def test_a_silent_node_is_not_drained(project: Project) -> None:
    with Worker(hold, project.url, "web-1") as worker:
        node_id = await worker.hear()
        worker.kill()
    await until(project, "alive", False)  # noqa: FBT003  (a value to wait for)
    assert await refused(project, "drain", "web-1", status=1) == (
        f"node web-1 ({node_id}) is silent and can't be told. Others may take its actors already; "
        f"'lazymig nodes forget {node_id}' removes it."
    )


# --- forget ----------------------------------------------------------------------------------------------------------


async def test_a_node_that_died_is_silent_until_it_is_forgotten(project: Project) -> None:
    with Worker(hold, project.url, "web-1") as worker:
        node_id = await worker.hear()
        worker.kill()
    assert not (await until(project, "alive", False))["draining"]  # noqa: FBT003  (a value to wait for)
    assert (await text(project))[1].split()[:3] == ["web-1", node_id, "silent"]
    assert await text(project, "forget", "web-1") == [f"node web-1 ({node_id}) is forgotten"]
    assert (await document(project))["nodes"] == []
    assert (await document(project, "forget", node_id, status=1))["error"]["code"] == "unknown_node"


async def test_a_node_that_is_forgotten_while_it_hangs_stores_nothing_any_more(project: Project) -> None:
    with Worker(hold, project.url, "web-1") as worker:
        node_id = await worker.hear()
        worker.stop(project.database)
        await until(project, "alive", False)  # noqa: FBT003  (a value to wait for)
        assert (await document(project, "forget", node_id))["id"] == node_id
        worker.tell("store it")
        worker.resume()
        assert isinstance(await worker.hear(), LeaseLostError)


async def test_a_living_node_is_not_forgotten(project: Project) -> None:
    async with running(project) as node:
        assert await refused(project, "forget", "web-1", status=1) == (
            f"node web-1 ({node.node_id}) is alive. Stop its process, after 'lazymig nodes drain {node.node_id}'; one "
            "that hangs is silent after 3 s."
        )
        assert (await document(project, "forget", "web-1", status=1))["error"]["code"] == "living_node"
        assert await node.actor(vehicles.vehicle, "car-1").accelerate(1.0) == 1.0


# --- which node ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subcommand", ["drain", "forget"])
async def test_a_label_that_several_nodes_have_is_refused_with_their_ids(project: Project, subcommand: str) -> None:
    async with running(project) as one, running(project) as other:
        ids = ", ".join(sorted([one.node_id, other.node_id]))
        assert await refused(project, subcommand, "web-1", status=2) == (
            f"2 nodes have the label 'web-1'. Give one of the ids {ids}."
        )


@pytest.mark.parametrize("subcommand", ["drain", "forget"])
async def test_an_unknown_node_is_refused_with_a_suggestion(project: Project, subcommand: str) -> None:
    async with running(project):
        assert await refused(project, subcommand, "web1", status=1) == (
            f"{project.url} has no node with the id or label 'web1'. Did you mean 'web-1'?"
        )
        assert (await refused(project, subcommand, "x", status=1)).endswith("'x'. 'lazymig nodes' lists them.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nodes", "forgt"], "there is no command 'nodes forgt'. Did you mean 'forget'? See 'lazymig nodes --help'."),
        (["nodes", "forget"], "Missing argument 'ID'. See 'lazymig nodes forget --help'."),
        (["nodes", "drain", "a", "b"], "Got unexpected extra argument (b) See 'lazymig nodes drain --help'."),
    ],
)
def test_a_wrong_subcommand_is_one_line_with_its_cure(project: Project, arguments: list[str], message: str) -> None:
    assert project.refused(*arguments, status=2) == message


def test_a_store_is_taken_before_and_after_the_subcommand(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAZYMIG_STORE")
    project.store({})
    flag = ["--store", project.url]
    for arguments in (
        [*flag, "nodes", "forget", "x"],
        ["nodes", *flag, "forget", "x"],
        ["nodes", "forget", *flag, "x"],
    ):
        assert "has no node" in project.refused(*arguments, status=1)
    assert "no store is configured" in project.refused("nodes", "forget", "x", status=2)


async def test_a_label_moves_no_cursor(project: Project) -> None:
    label = "web\x1b[2J\nnode other (0000) is forgotten\u202e"
    async with running(project, label=label) as node:
        node_id = node.node_id
        listed = await text(project)
        told = await text(project, "drain", node_id)
        assert (await document(project))["nodes"][0]["label"] == label
    shown = r"web\x1b[2J\nnode other (0000) is forgotten\u202e"
    assert len(listed) == 2
    assert listed[1].startswith(f"{shown} {node_id} ")
    assert told == [f"node {shown} ({node_id}) was told to drain; it has 0 active actors"]


def test_the_command_is_a_module_too() -> None:
    command = [sys.executable, "-m", "lazymig.cli", "nodes", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "List the nodes" in shown
