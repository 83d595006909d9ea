"""Several processes on one SQLite file, all at once."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from lazymig import Node, Suite, open_store
from tests.processes import Line, Worker

VERSIONS = ("1.0.0", "1.1.0", "2.0.0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def counting_suite(journal: Path) -> Suite:
    """Migrations with an outside effect: each application appends a line to a file."""
    suite = Suite("fleet")
    counted = suite.actor_type("Vehicle", state="vehicle")

    def note(version: str, state: dict[str, Any], _: object) -> None:
        state["applied"] = [*state.get("applied", []), version]
        line = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(line, f"{state['id']} {version}\n".encode())
        os.close(line)

    for version in VERSIONS:
        counted.migration(version)(partial(note, version))
    return suite


async def activate_all_at_once(line: Line, url: str, journal: Path, ids: list[str]) -> None:
    async with open_store(url) as store, Node(store, [counting_suite(journal)], hand_over_seconds=60) as node:
        line.tell("ready")
        await line.hear()
        for actor_id in ids:
            async with node.activate("Vehicle", actor_id) as activation:
                state = activation.state()
                await state.migrate_and_load()
                assert state.info is not None
                line.tell((actor_id, state.value["applied"], str(state.info.version)))


async def test_twenty_processes_that_activate_an_actor_at_once_migrate_it_once(url: str, tmp_path: Path) -> None:
    journal, ids = tmp_path / "journal", ["a", "b", "c"]
    async with open_store(url) as store:
        rows = [(actor_id, orjson.dumps({"id": actor_id})) for actor_id in ids]
        assert len(await store.insert("Vehicle", "vehicle", rows)) == len(ids)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(activate_all_at_once, url, journal, ids)) for _ in range(20)]
        assert [await worker.hear() for worker in workers] == ["ready"] * 20
        for worker in workers:
            worker.tell("go")
        seen = [await worker.rest() for worker in workers]
    assert seen == [[(actor_id, list(VERSIONS), "2.0.0") for actor_id in ids]] * 20
    lines = journal.read_text().splitlines()
    assert sorted(lines) == [f"{actor_id} {version}" for actor_id in ids for version in VERSIONS]
