"""Processes that convert entries are killed by SIGKILL at random moments: each entry is converted exactly once.

And what a process needs for it is bounded, however many entries there are.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, open_store, rollout
from lazymig._entries import Range
from lazymig._records import ActorKey
from lazymig.errors import MigrationFailedError
from lazymig.hooks import EntriesConverted
from lazymig.testing.releases import release
from tests.processes import Line, Worker, WorkerEndedError

if TYPE_CHECKING:
    from lazymig.store import Store

KEY = ActorKey("Log", "a")

ENTRIES = 20_000
KILLS = 8
"""A conversion goes on for a few hundred milliseconds, so that is about how many fit into one."""


def make_suite() -> Suite:
    suite = Suite("logs")
    log = suite.actor_type("Log")
    log.migration("1.0.0")(lambda state, context: None)

    @log.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        state["migrated"] = state.get("migrated", 0) + 1

    @two.entries("log", eager=True)
    def count(entry: Any, context: Any) -> None:
        entry["times"] = entry.get("times", 0) + 1

    return suite


async def fill(store: Store, number: int, text: str = "") -> None:
    """Store an actor with entries by the older release."""
    async with (
        Node(store, [release(make_suite(), "1.0.0")]) as node,
        node.activate("Log", "a") as activation,
    ):
        await activation.state().migrate_and_load(default={})
        await activation.persist()
        await activation.table("log").put_many((f"{n:09}", {"n": n, "text": text}) for n in range(number))


async def convert(line: Line, url: str) -> None:
    """Bring the actor up, telling of each chunk."""

    def tell(event: object) -> None:
        if isinstance(event, EntriesConverted):
            line.tell(event.entries)

    async with open_store(url) as store, Node(store, [make_suite()], lease_seconds=0.5, hooks=[tell]) as node:
        line.tell("running")
        async with node.activate("Log", "a", wait_seconds=30.0) as activation:
            await activation.state().migrate_and_load()
        line.tell("done")


async def life(url: str, chance: random.Random) -> bool:
    """Let a process convert until it is killed; tell whether it came to the end."""
    with Worker(convert, url) as worker:
        chunks = chance.randrange(1, 3)  # more come while the moment is waited for
        while chunks:
            said = await worker.hear()
            if said == "done":
                return True
            chunks -= said != "running"
        await asyncio.sleep(chance.uniform(0.0, 0.004))  # the moment is drawn
        worker.kill()
        try:
            return "done" in await worker.rest()
        except WorkerEndedError:
            return False


@pytest.mark.no_cover
@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
async def test_a_conversion_that_is_killed_again_and_again_converts_each_entry_once(url: str) -> None:
    chance = random.Random(int(os.environ.get("LAZYMIG_SEED", "6")))
    async with open_store(url) as store:
        await fill(store, ENTRIES)
        kills = 0
        while kills < KILLS and not await life(url, chance):
            kills += 1
            record = await store.read(KEY)
            assert record is not None
            assert record.stamp is not None
            kept = str(record.stamp.info.version), record.states["state"]
            if kept == ("2.0.0", b'{"migrated":1}'):  # killed right after the last commit
                break
            assert kept == ("1.0.0", b"{}")
        assert kills > KILLS // 2
        async with (
            Node(store, [make_suite()]) as node,
            node.activate("Log", "a", wait_seconds=30.0) as activation,
        ):
            assert await activation.state().migrate_and_load() == {"migrated": 1}
        rest: Range | None = Range("log")
        found = 0
        while rest is not None:
            page = await store.entries(KEY, rest, 5_000, 1_000_000)
            for number, data in enumerate(page.data, found):
                assert data == b'{"n":%d,"text":"","times":1}' % number
            found += len(page.keys)
            rest = None if page.is_last else rest.after(page.keys[-1])
        assert found == ENTRIES


async def test_a_conversion_that_raises_on_entry_7001_goes_on_there_once_it_is_mended(store: Store) -> None:
    broken = Suite("logs")
    log = broken.actor_type("Log")
    log.migration("1.0.0")(lambda state, context: None)
    seen: list[int] = []

    @log.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        state["migrated"] = True

    @two.entries("log", eager=True)
    def convert(entry: Any, context: Any) -> None:
        seen.append(entry["n"])
        if entry["n"] == 7_000 and len(seen) == 7_001:
            raise ValueError("no")

    await fill(store, 8_000)
    for _ in range(2):
        async with Node(store, [broken]) as node, node.activate("Log", "a") as activation:
            if len(seen) < 7_001:
                with pytest.raises(MigrationFailedError, match="entry '000007000' of table 'log'"):
                    await activation.state().migrate_and_load()
                assert str(activation.info and activation.info.version) == "1.0.0"
                by_stamp = {str(of.applied.versions[-1]): of.entries for of in await store.tables(KEY)}
                assert by_stamp == {"1.0.0": 1_000, "2.0.0": 7_000}
                assert await rollout.retry(store, "Log", "a") == 1  # to be mended outside of its code
            else:
                assert await activation.state().migrate_and_load() == {"migrated": True}
    assert seen == [*range(7_001), *range(7_000, 8_000)]


# --- memory --------------------------------------------------------------------------------------------------------

MORE_BYTES = 150_000_000
"""How much more than an idle process one may need."""


async def grow(line: Line, url: str, number: int) -> None:
    """Fill, convert, scan, count and remove entries; tell by how much the process has grown at most."""

    def tell(event: object) -> None:
        if isinstance(event, EntriesConverted) and event.entries % 50_000 == 0:
            line.tell("converted 50,000 more")

    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with open_store(url) as store:
        await fill(store, number, "x" * 160)
        line.tell("filled")
        async with (
            Node(store, [make_suite()], hooks=[tell], activation_seconds=900.0) as node,
            node.activate("Log", "a") as activation,
        ):
            await activation.state().migrate_and_load()
            log = activation.table("log")
            count = 0
            async for _, entry in log.scan():
                count += entry["times"]
            line.tell((count, await log.count(), await log.delete_range(end="000001000")))
    line.tell(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle))


async def check_memory(url: str, number: int) -> None:
    with Worker(grow, url, number) as worker:
        while isinstance(said := await worker.hear(), str):
            pass
        assert said == (number, number, 1_000)
        assert await worker.hear() < MORE_BYTES


@pytest.mark.no_cover
@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
async def test_memory_is_bounded_with_50_000_entries(url: str) -> None:
    await check_memory(url, 50_000)


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
async def test_memory_is_bounded_with_1_000_000_entries(url: str) -> None:
    await check_memory(url, 1_000_000)
