"""What a copy tells, and does not pass over in silence; what it takes of memory."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store, rollout
from lazymig._bases import WritePolicy
from lazymig._records import ActorKey
from lazymig._rulings import Release
from lazymig.copies import TypeSettings
from lazymig.memory import MemoryStore
from lazymig.transfer import CopyReport, _comparison, _contents, _copy, copy
from tests.cli_project import damage
from tests.copying import DAY, ONE, TYPE, all_of, fill, fill_large, write
from tests.test_copy import KEY, LARGE, Meanwhile, codes

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store

OTHER = ActorKey("Order", "1")


async def test_what_can_be_read_in_neither_store_is_named(tmp_path: Path) -> None:
    files = [tmp_path / "source.db", tmp_path / "target.db"]
    async with open_store(f"sqlite:///{files[0]}") as source, open_store(f"sqlite:///{files[1]}") as target:
        await fill(source, 20)
        await copy(source, target)
        for file in files:
            damage(file, "UPDATE actor SET lineage = 999 WHERE id = ?", KEY.id)
        report = await copy(source, target)

    assert (codes(report), report.differing) == ({KEY.id: "unreadable"}, 1)


async def test_a_type_that_comes_meanwhile_is_named(store: Store) -> None:
    target = MemoryStore()
    await fill(store, 3)

    async def insert() -> None:
        await store.insert(OTHER.type, "main", [(OTHER.id, b"1")])

    report = await copy(store, Meanwhile("copies.put", insert).beside(target))
    assert codes(report) == {OTHER.id: "missing"}
    assert (await copy(store, target)).is_identical
    assert (await copy(store, Meanwhile("copies.put", insert).beside(target), types=[TYPE])).is_identical


async def test_releases_and_write_versions_that_come_meanwhile_are_copied(store: Store) -> None:
    settings = TypeSettings(WritePolicy(ONE.highest, 3), [Release(ONE, {ONE.highest: 7}, "blue", DAY)])
    target = MemoryStore()
    await fill(store, 3)

    async def note() -> None:
        await store.copies.note(TYPE, settings)

    assert (await copy(store, Meanwhile("copies.put", note).beside(target))).is_identical
    assert await target.copies.settings(TYPE) == settings


async def test_a_write_version_of_the_target_alone_is_named(store: Store) -> None:
    source = MemoryStore()
    await fill(source, 3)
    await rollout.pin(store, TYPE, "0.9.0")
    report = await copy(source, store)

    assert codes(report) == {None: "write_version"}
    assert "is none (epoch 0) in the source, 0.9.0 (epoch 1) in the target" in report.differences[0].reason
    await rollout.unpin(store, TYPE)
    assert (await copy(source, store)).is_identical


async def test_what_is_passed_over_is_told_batch_by_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_copy, "MAX_BATCH_ACTORS", 7)
    target = MemoryStore()
    await fill(store, 30)
    await copy(store, target)
    told: list[CopyReport] = []
    await copy(store, target, progress=told.append)

    assert [report.present for report in told if not report.compared] == [7, 14, 21, 28, 30]


async def test_each_page_of_a_large_actor_is_told_whenever_it_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_copy, _comparison):
        monkeypatch.setattr(module, "MAX_BATCH_BYTES", 2_000)
    monkeypatch.setattr(_contents, "PAGE_ENTRIES", 5)
    target = MemoryStore()
    await fill(store, 0)
    await fill_large(store, LARGE, 50)
    await copy(store, target)
    told: list[CopyReport] = []
    for pages in (20, 40):  # compared in both; then read before it takes the older one's place, and copied, too
        await copy(store, target, progress=told.append)
        assert pages <= len(told) < pages + 5
        await write(store, LARGE)
        told.clear()


@pytest.mark.parametrize("types", [["Vehicel"], [TYPE, ""], "Vehicle", ["a\0"], ["\ud800"]], ids=ascii)
async def test_a_type_that_the_source_does_not_have_is_refused(store: Store, types: list[str]) -> None:
    target = MemoryStore()
    await fill(store, 3)
    with pytest.raises(ValueError, match=r"has no actor type .*; it has: Vehicle\. Correct the name"):
        await copy(store, target, types=types)
    assert await target.copies.types() == []


async def test_a_large_actor_of_the_target_stays_if_the_newer_one_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_copy, _comparison):
        monkeypatch.setattr(module, "MAX_BATCH_BYTES", 2_000)
    monkeypatch.setattr(_contents, "PAGE_ENTRIES", 3)
    target = MemoryStore()
    async with open_store(f"sqlite:///{tmp_path}/source.db") as source:
        await fill(source, 0)
        await fill_large(source, LARGE)
        await copy(source, target)
        kept = await all_of(target)
        await write(source, LARGE)
        damage(tmp_path / "source.db", "UPDATE entry SET value = 7 WHERE id = ? AND key = '000040'", LARGE.id)
        report = await copy(source, target)

    assert codes(report) == {LARGE.id: "unreadable"}
    assert await all_of(target) == kept


async def peak_of(path: Path, actors: int, entries: int) -> int:
    """Return the most bytes that a copy of so many actors, and one of so many entries, has in use at a time."""
    urls = [f"sqlite:///{path}-{name}.db?synchronous=normal" for name in ("source", "target")]
    async with open_store(urls[0]) as source, open_store(urls[1]) as target:
        await fill(source, actors)
        await fill_large(source, LARGE, entries)
        gc.collect()
        tracemalloc.start()
        try:
            report = await copy(source, target)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert report.is_identical
    return peak


@pytest.mark.no_cover
async def test_many_actors_and_entries_take_no_more_memory_than_a_few_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_copy, _comparison):
        monkeypatch.setattr(module, "MAX_BATCH_BYTES", 100_000)
        monkeypatch.setattr(module, "MAX_BATCH_ACTORS", 100)
    few = await peak_of(tmp_path / "few", 500, 1_500)
    many = await peak_of(tmp_path / "many", 2_000, 6_000)
    assert many < 1.3 * few  # four times as much would be 4
