"""A disk that fails, or is full: commits fail cleanly, and the node goes on when the fault is over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lazymig import Activation, Node, open_store
from lazymig.errors import StoreError, StoreUnavailableError
from lazymig.hooks import Event, NodeStarted
from tests import beside
from tests.aftermath import is_torn
from tests.failing_io import MIGRATED, describe
from tests.power import car, count_up, load, suite
from tests.processes import Line, Worker

PWRITE, SYNC, TRUNCATE, PREAD = (
    "posix/io/rw/pwrite",
    "posix/io/sync/fdatasync",
    "posix/io/rw/ftruncate",
    "posix/io/rw/pread",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


# --- calls of the system that fail now and then --------------------------------------------------------------------


def under_libfiu(*arguments: object) -> str:
    """Run the worker of `tests.failing_io`; return what it printed."""
    fiu_run = shutil.which("fiu-run")
    if fiu_run is None:
        pytest.skip("libfiu is not installed (Debian: apt-get install fiu-utils)")
    worker = [sys.executable, "-W", "error", "-m", "tests.failing_io", *map(str, arguments)]
    root = Path(__file__).parents[1]
    done = subprocess.run(  # (a shell script: it needs the path of the program it preloads into)
        [fiu_run, "-x", "-f", "", *worker], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Failing:
    """A system call that fails now and then, and what SQLite calls it if a commit fails of it."""

    point: str
    number: int
    odds: float
    expected: str | None


FAULTS = [
    pytest.param(Failing(PWRITE, errno.EIO, 0.02, "SQLITE_IOERR_WRITE"), id="writes fail"),
    pytest.param(Failing(PWRITE, errno.ENOSPC, 0.02, "SQLITE_FULL"), id="no space"),
    pytest.param(Failing(SYNC, errno.EIO, 0.05, "SQLITE_IOERR_FSYNC"), id="syncs fail"),
    pytest.param(Failing(TRUNCATE, errno.EIO, 0.05, None), id="truncations fail"),  # in checkpoints, made up for later
    pytest.param(Failing(PREAD, errno.EIO, 0.01, None), id="reads fail"),  # tried again
]


def count_under(failing: Failing, path: Path, seed: int, commits: int) -> None:
    """Count up while a call fails; check what the file has beside what was told."""
    report = json.loads(under_libfiu(path, failing.point, failing.number, failing.odds, seed, commits))
    assert report["failed"] > 0, "nothing failed"
    rows = {actor_id: row for (_, actor_id), row in beside.read(path).items()}
    assert {actor_id: row.states["main"]["n"] for actor_id, row in rows.items()} == report["told"]
    assert {actor_id: row.revision - 2 + MIGRATED for actor_id, row in rows.items()} == report["told"]
    assert not any(map(is_torn, rows.values()))
    assert failing.expected is None or report["errors"][failing.expected] > 0


@pytest.mark.parametrize("failing", FAULTS)
def test_failing_calls_lose_nothing_told_and_store_nothing_that_failed(path: Path, failing: Failing) -> None:
    count_under(failing, path, seed=1, commits=300)


@pytest.mark.stress
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("failing", FAULTS)
def test_failing_calls_lose_nothing_in_10_000_commits(path: Path, failing: Failing, seed: int) -> None:
    count_under(failing, path, seed, commits=10_000)


@pytest.mark.parametrize(
    ("point", "number"), [(PWRITE, errno.EIO), (PWRITE, errno.ENOSPC), (SYNC, errno.EIO)], ids=["EIO", "ENOSPC", "sync"]
)
def test_process_that_ends_after_a_failed_commit_leaves_what_its_error_said(
    path: Path, point: str, number: int
) -> None:
    """A log that was written but not synced is whole to whoever opens the file next."""
    told, _, message = under_libfiu(path, point, number).splitlines()
    row = beside.read(path)["Car", "a"]
    assert not is_torn(row)
    if "Nothing was stored" in message:
        assert row.states["main"]["n"] == int(told)
    else:
        assert "may be stored" in message
        assert row.states["main"]["n"] == int(told) + 1


# --- a file that must not grow -------------------------------------------------------------------------------------


def limit_file_size(path: Path) -> tuple[int, int]:
    """Let the log of a store, and no other file, grow by little more; return the limit before.

    Python ignores the signal, so that writes fail instead.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(f"{path.name}-wal").stat().st_size + 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return before


async def fill(activation: Activation, told: dict[str, int]) -> int:
    """Count up until the disk is full; the count that was not stored is returned."""
    with pytest.raises(StoreUnavailableError) as full:  # noqa: PT012  (which of them fails is the disk's business)
        for _ in range(1_000):
            told[activation.key.id] = await count_up(activation, 9_000)
    describe(full.value)
    n: int = activation.state().value["n"]
    assert n == told[activation.key.id] + 1
    return n


async def go_on(node: Node, activation: Activation, told: dict[str, int]) -> None:
    """The disk has room again: the same activation stores what it could not, and others come up."""
    await activation.persist()
    told[activation.key.id] += 1
    assert activation.state().value["n"] == told[activation.key.id]
    record = await node.inspect(car, activation.key.id)
    assert record is not None
    assert (record.owner, record.revision) == (node.node_id, told[activation.key.id])
    told[activation.key.id] = await count_up(activation, 9_000)
    told["other"] = await node.actor(car, "other").count(9_000)


def check(path: Path, told: dict[str, int]) -> None:
    rows = {actor_id: row for (_, actor_id), row in beside.read(path).items()}
    assert {actor_id: row.states["main"]["n"] for actor_id, row in rows.items()} == told
    assert {actor_id: row.revision for actor_id, row in rows.items()} == told  # born at the newest version
    assert not any(map(is_torn, rows.values()))


async def count_in_a_file_that_may_not_grow(line: Line, path: Path) -> None:
    told: dict[str, int] = {}
    async with (
        open_store(f"sqlite:///{path}") as store,
        Node(store, [suite], lease_seconds=1000.0) as node,
        node.activate(car, "block") as activation,
    ):
        await load(activation)
        await count_up(activation, 9_000)
        before = limit_file_size(path)
        n = await fill(activation, told)
        for _ in range(2):  # what became of the commit can't be found out as long as nothing can be written
            with pytest.raises(StoreUnavailableError) as full:
                await activation.persist()
            describe(full.value)
        with pytest.raises(StoreUnavailableError):
            await node.actor(car, "other").count(9_000)
        assert activation.state().value["n"] == n
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await go_on(node, activation, told)
    line.tell(told)


async def test_full_disk_fails_commits_and_the_same_activation_goes_on_when_there_is_room(path: Path) -> None:
    with Worker(count_in_a_file_that_may_not_grow, path) as worker:
        check(path, await worker.hear())


async def test_full_database_fails_commits_and_the_same_activation_goes_on_when_it_may_grow(path: Path) -> None:
    told: dict[str, int] = {}
    async with (
        open_store(f"sqlite:///{path}") as store,
        Node(store, [suite], lease_seconds=1000.0) as node,
        node.activate(car, "block") as activation,
    ):
        await load(activation)
        await limit_pages(store, await pages_of(store) + 4)
        n = await fill_by_new_states(activation, told)
        with pytest.raises(StoreUnavailableError) as full:
            await activation.persist()
        assert describe(full.value) == "SQLITE_FULL"
        assert activation.state().value["n"] == n
        await limit_pages(store, 1_000_000)
        await go_on(node, activation, told)
    check(path, told)


async def fill_by_new_states(activation: Activation, told: dict[str, int]) -> int:
    """As `fill`, by values that grow: a database of a fixed size can be written for ever."""
    told["block"] = await count_up(activation, 9_000)
    activation.state("log").value["more"] = "x" * 100_000
    return await fill(activation, told)


async def pages_of(store: Any) -> int:
    ((pages,),) = await store._connection.driver.execute_fetchall("PRAGMA page_count")
    return int(pages)


async def limit_pages(store: Any, pages: int) -> None:
    await store._connection.driver.execute_fetchall(f"PRAGMA max_page_count = {pages}")


# --- heartbeats ----------------------------------------------------------------------------------------------------

LEASE_SECONDS = 0.4


class HeartbeatFailed(logging.Handler):
    """Sets an event when a heartbeat could not be noted."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        if "heartbeat" in record.msg:
            self._loop.call_soon_threadsafe(self.heard.set)


async def lose_touch_by_a_full_disk(line: Line, path: Path) -> None:
    failed = HeartbeatFailed()
    logging.getLogger("lazymig.node").addHandler(failed)
    events: list[Event] = []
    async with (
        open_store(f"sqlite:///{path}") as store,
        Node(store, [suite], lease_seconds=LEASE_SECONDS, hooks=[events.append]) as node,
    ):
        assert await node.actor(car, "a").count(9_000) == 1
        first = node.node_id
        before = limit_file_size(path)
        async with node.activate(car, "filler") as activation:
            await load(activation)
            with contextlib.suppress(StoreError):
                while True:
                    await count_up(activation, 9_000)
        await failed.heard.wait()
        clock = node._membership.clock
        node._membership.clock = lambda: clock() + LEASE_SECONDS  # what was acknowledged last is too old now
        with pytest.raises(StoreUnavailableError) as full:
            await node.actor(car, "a").count(9_000)
        describe(full.value)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert await node.actor(car, "a").count(9_000) == 2
        assert [event.replaces for event in events if isinstance(event, NodeStarted)] == [None, first]
    line.tell("done")


async def test_node_whose_heartbeats_failed_registers_anew_when_the_disk_has_room(path: Path) -> None:
    with Worker(lose_touch_by_a_full_disk, path) as worker:
        assert await worker.hear() == "done"
    assert beside.read(path)["Car", "a"].revision == 2
