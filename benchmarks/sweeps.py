"""What a sweep costs on a SQLite file, and what calls beside it notice."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.on_sqlite import fill
from benchmarks.things import FUNCTIONS, suite
from lazymig import Node, open_store, rollout
from lazymig._sqlite_drivers import connect

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterator

    from benchmarks.measure import Block, Size

STATE_BYTES = 300

CHANGE = """
    UPDATE state SET value = CAST(json_remove(json_set(
        CAST(value AS TEXT),
        '$.velocity', (CAST(value AS TEXT) ->> 'velocity') / 3.6,
        '$.drivers', json_array(CAST(value AS TEXT) ->> 'driver'),
        '$.plate', NULL
    ), '$.driver') AS BLOB)
    WHERE type = 'Car' AND name = 'state'
"""
"""The three migrations, as one statement."""

STAMP = """
    UPDATE actor SET revision = revision + 1, version = 1, lineage = 1, written_by = 1, migrated_at = 1
    WHERE type = 'Car'
"""

ONE = "SELECT value FROM state WHERE type = 'Car' AND id = ? AND name = 'state'"
SAVE_ONE = "UPDATE state SET value = ? WHERE type = 'Car' AND id = ? AND name = 'state'"
STAMP_ONE = f"{STAMP} AND id = ?"

SWEEP = """
import asyncio, os, sys
from benchmarks.things import suite
from lazymig import open_store, rollout
async def main():
    async with open_store(sys.argv[1]) as store:
        print("up", flush=True)
        await rollout.sweep(store, suite(3), "Car")
os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
asyncio.run(main())
"""
"""A process that sweeps with the default throttle, on the cores that it is given."""


class Files:
    """Makes files with actors as old software left them.

    Args:
        folder: Where.
        synchronous: As the store's option.
    """

    def __init__(self, folder: Path, synchronous: str) -> None:
        self._folder = folder
        self._synchronous = synchronous
        self._numbers = count()

    async def make(self, actors: int) -> None:
        """Make the one that the others are copies of."""
        async with open_store(f"sqlite:///{self._folder}/old.db") as store:
            await fill(store, actors, STATE_BYTES)

    @contextmanager
    def copy(self) -> Iterator[tuple[str, Path]]:
        """Yield a store's URL and its file."""
        path = self._folder / f"{next(self._numbers)}.db"
        shutil.copyfile(self._folder / "old.db", path)
        yield f"sqlite:///{path}?synchronous={self._synchronous}", path
        for made in self._folder.glob(f"{path.name}*"):
            if made.is_dir():
                shutil.rmtree(made)
            else:
                made.unlink()


@asynccontextmanager
async def filled(actors: int, synchronous: str) -> AsyncIterator[Files]:
    """Yield files with that many actors."""
    with tempfile.TemporaryDirectory(prefix="lazymig-") as folder:
        made = Files(Path(folder), synchronous)
        await made.make(actors)
        yield made


def _swept(files: Files, actors: int) -> Block:
    """Return a block that sweeps a new file as fast as can be; its figure is of an actor."""

    async def block() -> float:
        with files.copy() as (url, _):
            async with open_store(url) as store:
                started = time.perf_counter()
                report = await rollout.sweep(store, suite(3), "Car", actors_per_second=None, bytes_per_second=None)
                seconds = time.perf_counter() - started
        if report.migrated != actors:
            raise AssertionError(report)
        return seconds / actors

    return block


@asynccontextmanager
async def sweep(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A sweep, over one statement that changes the states and one that stamps the actors, in one transaction."""
    actors = size.calls
    async with filled(actors, "full") as files:

        async def by_statements() -> float:
            with files.copy() as (_, path), closing(connect(path, "rw")) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                started = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(CHANGE)
                connection.execute(STAMP)
                connection.execute("COMMIT")
                return (time.perf_counter() - started) / actors

        yield _swept(files, actors), by_statements


@asynccontextmanager
async def one_by_one(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A sweep, over a plain loop of one transaction an actor; nothing of either waits for the disk."""
    actors = size.calls
    async with filled(actors, "normal") as files:

        async def by_transactions() -> float:
            with files.copy() as (_, path), closing(connect(path, "rw")) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                started = time.perf_counter()
                for number in range(actors):
                    _bring_up(connection, f"{number:08}")
                return (time.perf_counter() - started) / actors

        yield _swept(files, actors), by_transactions


def _bring_up(connection: sqlite3.Connection, actor_id: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (data,) = connection.execute(ONE, [actor_id]).fetchone()
    state = orjson.loads(data)
    for function in FUNCTIONS:
        function(state)
    connection.execute(SAVE_ONE, [orjson.dumps(state), actor_id])
    connection.execute(STAMP_ONE, [actor_id])
    connection.execute("COMMIT")


@asynccontextmanager
async def calls(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """The median of calls that store, beside a sweep with the default throttle, over that without one."""
    async with filled(size.actors, "full") as files:

        async def measured(*, is_swept: bool) -> float:
            with files.copy() as (url, _):
                async with open_store(url) as store, Node(store, [suite(3)]) as node:
                    await _store(node, 0)
                    sweeping = _begin(url) if is_swept else None
                    try:
                        seconds = [await _store(node, number) for number in range(size.calls)]
                        if sweeping is not None and sweeping.poll() is not None:
                            raise AssertionError("the sweep ended before the calls did")
                    finally:
                        if sweeping is not None:
                            sweeping.kill()
                            sweeping.communicate()
            return statistics.median(seconds)

        async def beside() -> float:
            return await measured(is_swept=True)

        async def alone() -> float:
            return await measured(is_swept=False)

        yield beside, alone


def _begin(url: str) -> subprocess.Popen[bytes]:
    """Begin a sweep on the cores that this process is not on."""
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0) or os.sched_getaffinity(0)
    command = [sys.executable, "-c", SWEEP, url, ",".join(map(str, others))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603  (our own)
    if process.stdout is None or process.stdout.readline() != b"up\n":
        raise AssertionError("the sweep did not begin")
    return process


async def _store(node: Node, number: int) -> float:
    """Store something of an actor that is active; return how long that took."""
    started = time.perf_counter()
    async with node.activate("Car", "00000000") as activation:
        state: Any = await activation.state().migrate_and_load()
        state["plate"] = f"{number}"
        await activation.persist(release=True)
    return time.perf_counter() - started
