"""Several processes on one SQLite file: all at once, and killed."""

from __future__ import annotations

import os
import random
import signal
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


async def make_legacy(url: str, values: dict[str, Any], state: str = "vehicle") -> None:
    """Store actors without migration-info."""
    async with open_store(url) as store:
        rows = [(actor_id, orjson.dumps(value)) for actor_id, value in values.items()]
        assert len(await store.insert("Vehicle", state, rows)) == len(values)


# --- twenty at once ------------------------------------------------------------------------------------------------


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
    await make_legacy(url, {actor_id: {"id": actor_id} for actor_id in ids})
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(activate_all_at_once, url, journal, ids)) for _ in range(20)]
        assert [await worker.hear() for worker in workers] == ["ready"] * 20
        for worker in workers:
            worker.tell("go")
        seen = [await worker.rest() for worker in workers]
    assert seen == [[(actor_id, list(VERSIONS), "2.0.0") for actor_id in ids]] * 20
    lines = journal.read_text().splitlines()
    assert sorted(lines) == [f"{actor_id} {version}" for actor_id in ids for version in VERSIONS]


# --- killed --------------------------------------------------------------------------------------------------------


def two_state_suite() -> Suite:
    """Three migrations that keep a list of themselves in a second state."""
    suite = Suite("fleet")
    both = suite.actor_type("Vehicle", state="vehicle", context_factory=lambda activation: activation.state("log"))

    async def note(version: str, state: dict[str, Any], log: Any) -> None:
        noted = await log.migrate_and_load(default=[])
        noted.append(version)
        await log.persist()
        state["applied"] = [*state.get("applied", []), version]

    for version in VERSIONS:
        both.migration(version)(partial(note, version))
    return suite


async def work_through(line: Line, url: str, ids: list[str]) -> None:
    """Raise a number in each actor, saying so before and after."""
    async with open_store(url) as store, Node(store, [two_state_suite()], label="doomed") as node:
        for actor_id in ids:
            line.tell(("began", actor_id, 0))
            async with node.activate("Vehicle", actor_id) as activation:
                state = activation.state()
                await state.migrate_and_load()
                state.value["calls"] += 1
                await activation.persist()
                line.tell(("stored", actor_id, state.value["calls"]))


async def check_whole(node: Node, actor_id: str) -> int:
    """Check that an actor is wholly old or wholly new; return its calls."""
    record = await node.inspect("Vehicle", actor_id)
    assert record is not None
    if record.info is None:
        assert record.states == {"vehicle": {"calls": 0}}
        return 0
    assert [str(version) for version in record.info.applied] == list(VERSIONS)
    calls: int = record.states["vehicle"]["calls"]
    applied = list(VERSIONS)
    assert record.states == {"vehicle": {"calls": calls, "applied": applied}, "log": applied}
    return calls


async def activate_within_a_second(node: Node, actor_id: str) -> None:
    async with node.activate("Vehicle", actor_id, wait_seconds=1.0) as activation:
        await activation.state().migrate_and_load()


async def kill_often(url: str, seed: int, kills: int, actors: int) -> None:
    chance = random.Random(seed)
    ids = [f"car-{number}" for number in range(actors)]
    await make_legacy(url, {actor_id: {"calls": 0} for actor_id in ids})
    stored = dict.fromkeys(ids, 0)
    async with open_store(url) as store, Node(store, [two_state_suite()], hand_over_seconds=1.0) as node:
        for _ in range(kills):
            chance.shuffle(ids)
            with Worker(work_through, url, ids) as worker:
                said = [await worker.hear() for _ in range(chance.randrange(1, 12))]
                for _ in range(chance.randrange(30_000)):
                    pass  # a moment that follows from the seed and the machine's mood
                worker.kill()
                said += await worker.rest()
            for what, actor_id, calls in said:
                if what == "stored":
                    stored[actor_id] = calls
            held = said[-1][1]
            await activate_within_a_second(node, held)
            for actor_id in ids:
                found = await check_whole(node, actor_id)
                assert found == stored[actor_id] or (actor_id == held and found == stored[actor_id] + 1)
                stored[actor_id] = found


async def test_killed_migrating_process_leaves_actors_whole_and_available(url: str) -> None:
    await kill_often(url, seed=20, kills=20, actors=100)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
async def test_killed_three_hundred_times_leaves_actors_whole(url: str, seed: int) -> None:
    await kill_often(url, seed, kills=300, actors=300)


async def migrate_up_to_a_statement(line: Line, url: str, number: int) -> None:
    """Migrate one actor and store it; be killed when the given SQL statement begins."""
    count = 0

    def on_statement(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_store(url) as store, Node(store, [two_state_suite()]) as node:
        connection: Any = store
        await connection._connection._connection.set_trace_callback(on_statement)
        async with node.activate("Vehicle", "car") as activation:
            state = activation.state()
            await state.migrate_and_load()
            line.tell("migrated")
            state.value["calls"] += 1
            await activation.persist()
            line.tell("stored")
        line.tell("done")


async def test_process_killed_at_any_statement_leaves_the_actor_whole(tmp_path: Path) -> None:
    number, said = 0, [""]
    while "done" not in said:
        number += 1
        url = f"sqlite:///{tmp_path / str(number)}.db"
        await make_legacy(url, {"car": {"calls": 0}})
        with Worker(migrate_up_to_a_statement, url, number) as worker:
            said = await worker.rest()
        async with open_store(url) as store, Node(store, [two_state_suite()]) as node:
            calls = await check_whole(node, "car")
            record = await node.inspect("Vehicle", "car")
            assert record is not None
            assert calls == int("stored" in said)
            assert (record.info is not None) == ("migrated" in said)
            await activate_within_a_second(node, "car")
    assert number > 12, "the trace saw no statements"
