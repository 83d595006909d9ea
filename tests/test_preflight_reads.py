"""A dry run of a sweep writes nothing: each store proves it."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from lazymig import Node, open_store, rollout
from lazymig.errors import StoreUnavailableError
from lazymig.testing import Fault, FaultyStore
from tests import postgres
from tests.preflights import (
    CAR,
    FAST,
    faulty,
    found,
    give_owner,
    named,
    put,
    put_entries,
    suite_of,
    take_owner,
    with_entries,
)

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store


READS = {"policy", "census", "entry_census", "stragglers", "sweeping.unsettled", "read", "tables", "entries"}


async def test_the_store_sees_reads_only(store: Store) -> None:
    await put_entries(store, "a", range(5))
    await put(store, b="{}")
    spy = FaultyStore(store)
    spy.arm(None)

    report = await rollout.sweep(spy, with_entries(eager=True), CAR, **FAST)

    assert report.migrated == 2
    assert set(spy.calls) == READS
    assert spy.pulse_calls == []


async def test_beside_nodes_that_bring_actors_up_nobody_is_disturbed(store: Store) -> None:
    suite = with_entries(eager=True)
    ids = [f"c{number:03}" for number in range(100)]
    await put(store, **dict.fromkeys(ids, "{}"))

    async def bring_up(node: Node, actor_id: str) -> None:
        async with node.activate(CAR, actor_id) as activation:
            await activation.state().migrate_and_load()
            for number in range(3):
                await activation.table("log").put(f"e{number}", {"n": number})
            await activation.persist()

    async with Node(store, [suite]) as node:
        sweeping = asyncio.create_task(rollout.sweep(store, suite, CAR, **FAST))
        await asyncio.gather(*(bring_up(node, actor_id) for actor_id in ids))
        report = await sweeping

    assert (report.failed, report.newer, report.actors) == ((), 0, 100)
    assert found(await rollout.sweep(store, suite, CAR, **FAST)).tried == 0


async def test_a_failure_of_the_store_is_the_answer(store: Store) -> None:
    await put(store, a="{}")
    spy = FaultyStore(store)
    for number in range(6):
        spy.arm(Fault(number, "before", "error"))
        with pytest.raises(StoreUnavailableError):
            await rollout.sweep(spy, suite_of(give_owner), CAR, **FAST)
        assert spy.has_struck


def stored(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a SQLite store's file and of its log."""
    return {
        path.name: path.read_bytes() for path in folder.glob("store.db*") if path.is_file() and "shm" not in str(path)
    }


async def test_no_byte_of_a_file_changes(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await put_entries(store, "a", range(5))
        await put(store, b="{}")
        before = stored(tmp_path)
        report = await rollout.sweep(store, with_entries(eager=True), CAR, **FAST)
        assert report.migrated == 2
        assert stored(tmp_path) == before


async def test_it_needs_no_right_but_to_read_and_waits_for_no_lock() -> None:
    with postgres.schema_url() as url, postgres.connect() as beside:
        async with open_store(url) as store:
            await put_entries(store, "a", range(5))
            await put(store, b="{}")
        schema, role = postgres.schema_of(url), f"r_{postgres.draw_schema()}"
        beside.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}")
        beside.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        try:
            async with open_store(url.replace("//postgres@", f"//{role}@"), read_only=True) as store:
                beside.execute(f"BEGIN; LOCK TABLE {schema}.policy IN SHARE ROW EXCLUSIVE MODE")
                beside.execute(f"SELECT * FROM {schema}.actor FOR UPDATE")
                report = await rollout.sweep(store, with_entries(eager=True), CAR, **FAST)
                beside.execute("ROLLBACK")
        finally:
            beside.execute(f"ROLLBACK; DROP OWNED BY {role}; DROP ROLE {role}")
    assert (report.migrated, report.failed) == (2, ())


async def test_a_file_that_may_only_be_read_is_tried(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        await put(store, a='{"n":1}', b='{"n":17}')
        async with open_store(url, read_only=True) as reader:
            report = await rollout.sweep(reader, suite_of(faulty), CAR, **FAST)
    assert (report.migrated, named(report.failed)) == (1, [("b", "1.0.0")])


async def test_memory_does_not_grow_with_the_number_of_actors(tmp_path: Path) -> None:
    suite = suite_of(give_owner, down=take_owner)
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        peaks = []
        for first, last in ((0, 100), (100, 200), (200, 2_000)):
            await put(store, **{f"c{number}": f'{{"text":"{"x" * 1_000}"}}' for number in range(first, last)})
            tracemalloc.start()
            try:
                report = await rollout.sweep(store, suite, CAR, **FAST)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert found(report).compared == last
    _, few, many = peaks
    assert many < 2 * few, peaks
