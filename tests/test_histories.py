"""Recorded histories are linearizable per actor; the checker sees what is not. The claim is in `tests.histories`."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig.testing.simulation import lin
from tests import postgres
from tests.grounds import FileGround, Ground, ServerGround
from tests.histories import Goal, check, read_logs, record_and_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opened = Callable[[Path], AbstractContextManager[Ground]]


pytestmark = pytest.mark.no_cover  # tracing doubles their time, and other tests cover the same lines


GOAL = Goal(operations=50_000, kills=20, stops=10)
GOAL_ON_A_SERVER = Goal(operations=15_000, kills=10, stops=5)
STRESS_SECONDS = 300.0
SEED = os.environ.get("LAZYMIG_SEED")
"""Instead of the test's own: what a failure printed."""


async def check_history(ground: Ground, folder: Path, seed: int, goal: Goal) -> None:
    recording, figures = await record_and_check(ground, folder, seed, goal)
    done = figures.functions
    assert figures.statuses[lin.OK] >= goal.operations
    assert recording.kills >= goal.kills
    assert recording.stops >= goal.stops
    assert recording.freed > 0, "who was killed in the end held nothing"
    assert 3 * (done["add"] + done["write"] + done["cas"]) >= done.total(), "too few writes"
    assert figures.statuses[lin.INFO] > 0, "no outcome was unknown"
    assert figures.errors["LeaseLostError"] > 0, "no stopped process tried to go on"
    assert figures.meetings > 100, "the releases did not meet"
    assert figures.hand_overs > goal.operations / 50, "actors did not travel"


@contextmanager
def file_ground(folder: Path) -> Iterator[FileGround]:
    yield FileGround(folder / "fleet.db")


@contextmanager
def server_ground(folder: Path) -> Iterator[ServerGround]:
    server = postgres.server_that_checks()
    with postgres.schema_url(server.url) as url:
        yield ServerGround(server, url)


@pytest.mark.timeout(300)
async def test_history_of_killed_and_stopped_processes_is_linearizable_per_actor(tmp_path: Path) -> None:
    with file_ground(tmp_path) as ground:
        await check_history(ground, tmp_path, int(SEED or 1), GOAL)


@pytest.mark.timeout(300)
async def test_history_on_a_server_that_restarts_is_linearizable_per_actor(tmp_path: Path) -> None:
    with server_ground(tmp_path) as ground:
        await check_history(ground, tmp_path, int(SEED or 2), GOAL_ON_A_SERVER)
    assert ground.restarts >= 2


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("opened", [file_ground, server_ground])
async def test_five_minutes_of_histories_are_linearizable_per_actor(opened: Opened, tmp_path: Path) -> None:
    began = time.monotonic()
    for seed in count(100):
        (folder := tmp_path / str(seed)).mkdir()
        with opened(folder) as ground:
            await check_history(ground, folder, seed, GOAL)
        if time.monotonic() - began > STRESS_SECONDS:
            return


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(200, 300))
async def test_five_million_operations_are_linearizable_per_actor(tmp_path: Path, seed: int) -> None:
    with file_ground(tmp_path) as ground:
        await check_history(ground, tmp_path, seed, GOAL)


def test_damaged_pages_are_found(tmp_path: Path) -> None:
    server = postgres.server_that_checks()
    if not server.has_amcheck:
        pytest.skip("no amcheck here: apt-get install postgresql")
    with postgres.schema_url(server.url) as url, postgres.connect(server.url) as connection:
        schema = postgres.schema_of(url)
        connection.execute(f"CREATE SCHEMA {schema} CREATE TABLE actor (id int PRIMARY KEY)")
        connection.execute(f"INSERT INTO {schema}.actor SELECT generate_series(1, 9)")
        found = connection.execute(f"SELECT pg_relation_filepath('{schema}.actor')").fetchone()
        server.check_pages(schema)
        assert found is not None
        server.stop()
        with (server.data / found[0]).open("r+b") as file:
            file.seek(8192 - 20)
            file.write(bytes(20))
        server.start()
        with pytest.raises(AssertionError, match="actor"):
            server.check_pages(schema)


# --- the checker sees ----------------------------------------------------------------------------------------------

Line = tuple[str, Any, int, int | None, Any]
"""Of a history made by hand: what is asked, when, when it is answered, and what. Without an answer it is unknown."""


def is_taken(folder: Path, kind: str, lines: list[Line]) -> bool:
    """Write a history of one actor as processes do, one process a line; tell whether the checker takes it."""
    for number, (f, argument, began, ended, output) in enumerate(lines):
        records: list[Any] = [["invoked", 1, 0, [kind, "1"], f, argument, began]]
        if ended is not None:
            records.append(["ended", 1, "ok", output, ended])
        text = b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
        (folder / f"{number}.log").write_bytes(text)
    try:
        check(read_logs(folder))
    except AssertionError as refusal:
        return f"{kind} 1: history is not linearizable" not in str(refusal)
    return True


ADD_TWICE: list[Line] = [("add", 1, 10, 20, 1), ("add", 1, 30, 40, 2)]
WRITE_TWICE: list[Line] = [("write", "a", 10, 20, True), ("write", "b", 30, 40, True)]

LINEARIZABLE: dict[str, tuple[str, list[Line]]] = {
    "one after the other": ("Counter", [*ADD_TWICE, ("read", None, 50, 60, 2)]),
    "a read beside a write sees the old": ("Register", [*WRITE_TWICE, ("read", None, 35, 60, "a")]),
    "a read beside a write sees the new": ("Register", [*WRITE_TWICE, ("read", None, 25, 32, "b")]),
    "an unknown add took effect": ("Counter", [("add", 5, 10, None, None), ("read", None, 50, 60, 5)]),
    "an unknown add took no effect": ("Counter", [("add", 5, 10, None, None), ("read", None, 50, 60, 0)]),
    "an unknown add takes effect late": (
        "Counter",
        [("add", 5, 10, None, None), ("read", None, 50, 60, 0), ("read", None, 70, 80, 5)],
    ),
    "an unknown comparison took effect": (
        "Register",
        [*WRITE_TWICE, ("cas", ["b", "c"], 45, None, None), ("read", None, 50, 60, "c")],
    ),
    "an unknown comparison took no effect": (
        "Register",
        [*WRITE_TWICE, ("cas", ["b", "c"], 45, None, None), ("read", None, 50, 60, "b")],
    ),
}

NOT_LINEARIZABLE: dict[str, tuple[str, list[Line]]] = {
    "a lost update": ("Counter", [("add", 1, 10, 20, 1), ("add", 1, 15, 40, 1)]),
    "an acknowledged add is gone": ("Counter", [*ADD_TWICE, ("read", None, 50, 60, 1)]),
    "an add that counted twice": ("Counter", [*ADD_TWICE, ("read", None, 50, 60, 3)]),
    "an unknown add that counted twice": ("Counter", [("add", 5, 10, None, None), ("read", None, 50, 60, 10)]),
    "an unknown add that is taken back": (
        "Counter",
        [("add", 5, 10, None, None), ("read", None, 50, 60, 5), ("read", None, 70, 80, 0)],
    ),
    "an unknown add that took effect before it was asked for": (
        "Counter",
        [("read", None, 10, 20, 5), ("add", 5, 30, None, None)],
    ),
    "a stale read after a write": ("Register", [*WRITE_TWICE, ("read", None, 50, 60, "a")]),
    "two reads beside a write that go back": (
        "Register",
        [*WRITE_TWICE, ("read", None, 31, 33, "b"), ("read", None, 35, 37, "a")],
    ),
    "a comparison with a stale value that succeeds": ("Register", [*WRITE_TWICE, ("cas", ["a", "c"], 50, 60, True)]),
    "a comparison that fails for nothing": ("Register", [*WRITE_TWICE, ("cas", ["b", "c"], 50, 60, False)]),
    "two comparisons with one value that both succeed": (
        "Register",
        [*WRITE_TWICE, ("cas", ["b", "c"], 50, 60, True), ("cas", ["b", "d"], 55, 70, True)],
    ),
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_checker_takes(tmp_path: Path, name: str) -> None:
    assert is_taken(tmp_path, *LINEARIZABLE[name])


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_checker_refuses(tmp_path: Path, name: str) -> None:
    assert not is_taken(tmp_path, *NOT_LINEARIZABLE[name])


def test_operation_whose_record_was_cut_off_by_a_kill_is_unknown(tmp_path: Path) -> None:
    assert not is_taken(tmp_path, "Counter", [("add", 5, 10, 20, 5), ("read", None, 50, 60, 0)])
    log = tmp_path / "0.log"
    log.write_bytes(log.read_bytes()[:-1])
    check(read_logs(tmp_path))


def test_failed_operation_must_have_had_no_effect(tmp_path: Path) -> None:
    assert is_taken(tmp_path, "Counter", [("add", 5, 10, 20, 5), ("read", None, 50, 60, 5)])
    log = tmp_path / "0.log"
    log.write_bytes(log.read_bytes().replace(b'"ok"', b'"fail"'))
    with pytest.raises(AssertionError, match="not linearizable"):
        check(read_logs(tmp_path))
