from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, open_store, rollout
from lazymig._bases import WritePolicy
from lazymig._records import ActorKey, Claim, Fence, NodeRecord, StoredActor
from lazymig._rulings import Release
from lazymig.copies import TypeSettings, Whole
from lazymig.errors import CorruptStateError, StoreUnavailableError
from lazymig.memory import MemoryStore
from lazymig.testing import Fault, FaultyStore
from lazymig.transfer import CopyReport, _comparison, _contents, _copy, copy
from suites import vehicles
from tests import postgres
from tests.cli_project import damage
from tests.copying import DAY, FILLER, ONE, TYPE, all_of, fill, fill_large, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from lazymig.store import Store

KEY, LARGE = ActorKey(TYPE, "car-12"), ActorKey(TYPE, "large")
"""One of `fill`'s, and one that is larger than a batch."""

PAIRS = ["memory sqlite", "sqlite postgres", "postgres sqlite", "memory memory", "postgres memory", "sqlite sqlite"]


@pytest.fixture(params=[*PAIRS[:3], *(pytest.param(pair, marks=pytest.mark.stress) for pair in PAIRS[3:])])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    async with AsyncExitStack() as stack:
        opened = []
        for number, kind in enumerate(request.param.split()):
            if kind == "postgres":
                url = stack.enter_context(postgres.schema_url())
            else:
                url = "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/{number}.db"
            opened.append(await stack.enter_async_context(open_store(url)))
        yield opened[0], opened[1]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches and pages be so small that there are several, and some actors larger than one."""
    for module in (_copy, _comparison):
        monkeypatch.setattr(module, "MAX_BATCH_BYTES", 2_000)
        monkeypatch.setattr(module, "MAX_BATCH_ACTORS", 7)
    monkeypatch.setattr(_contents, "PAGE_ENTRIES", 3)


async def filled(store: Store) -> None:
    await fill(store, 40)
    await fill_large(store, LARGE)


class Meanwhile:
    """Does something once, after an operation of a `FaultyStore` has come so many times.

    Args:
        name: The operation.
        work: What is done.
        at: How many times.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], at: int = 1) -> None:
        self._name = name
        self._work = work
        self._at = at
        self.has_come = False

    def beside(self, store: Store) -> FaultyStore:
        """Return the store."""
        self._store = FaultyStore(store, self._gate)
        return self._store

    async def _gate(self) -> None:
        if not self.has_come and self._store.calls.count(self._name) == self._at:
            self.has_come = True
            await self._work()


def codes(report: CopyReport) -> dict[str | None, str]:
    return {difference.id: difference.code for difference in report.differences}


# --- what is copied --------------------------------------------------------------------------------------------------


async def test_a_copy_has_all_that_the_source_has(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    report = await copy(source, target)

    assert (report.copied, report.present, report.compared, report.differing) == (41, 0, 41, 0)
    (of_type,) = report.types
    whole = await all_of(source)
    assert of_type.source == of_type.target
    assert (of_type.type, of_type.source.actors) == (TYPE, 41)
    assert of_type.source.states == sum(len(found.actor.states) for found in whole.values())
    assert of_type.source.entries == sum(len(found.entries) for found in whole.values())
    assert await all_of(target) == whole
    assert list(await target.nodes()) == []


async def test_a_second_copy_passes_over_what_is_there(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    first = await copy(source, target)
    again = await copy(source, target)

    assert (again.copied, again.present, again.differing) == (0, 41, 0)
    assert again.types == first.types


async def test_digests_are_the_same_on_every_store(stores: tuple[Store, Store]) -> None:
    await fill(stores[0], 20)
    await fill(stores[1], 20)
    report = await copy(*stores)

    assert (report.copied, report.differing) == (0, 0)
    assert report.types[0].source.digest == report.types[0].target.digest


async def test_a_node_goes_on_where_the_actors_were(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await source.insert(TYPE, "vehicle", [("car-1", b'{"velocity":36.0,"owner":"a"}'), ("car-2", b"{}")])
    async with Node(source, [vehicles.suite]) as node:
        await node.actor(vehicles.vehicle, "car-1").velocity()
    await copy(source, target)

    async with Node(target, [vehicles.suite]) as node:
        assert await node.actor(vehicles.vehicle, "car-1").velocity() == 10.0
        found = await node.inspect(TYPE, "car-1")
    assert found is not None
    assert found.info is not None
    assert (str(found.info.version), found.revision) == ("2.0.0", 2)


async def test_only_the_named_types_are_copied(stores: tuple[Store, Store]) -> None:
    source, target = stores
    for name in ("Bus", "Car"):
        await source.insert(name, "main", [("a", b"1")])
    report = await copy(source, target, types=["Bus"])

    assert ([found.type for found in report.types], report.copied) == (["Bus"], 1)
    assert list(await target.types()) == ["Bus"]


async def test_releases_and_write_versions_go_before_actors(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await fill(source, 10)
    settings = TypeSettings(WritePolicy(ONE.highest, 3), [Release(ONE, {ONE.highest: 7}, "blue", DAY)])
    await source.copies.note(TYPE, settings)
    seen: list[TypeSettings] = []

    async def look() -> None:
        seen.append(await target.copies.settings(TYPE))

    await copy(source, Meanwhile("copies.note", look).beside(target))
    assert seen == [settings]
    assert await target.copies.settings(TYPE) == settings


# --- what is left alone ----------------------------------------------------------------------------------------------


async def test_a_newer_actor_of_the_target_is_left_alone_and_named(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    await copy(source, target)
    await target.register(NodeRecord(FILLER, FILLER, None, 1000.0))
    await write(target, KEY)
    await write(target, LARGE)
    kept = await all_of(target)
    report = await copy(source, target)

    assert codes(report) == {KEY.id: "newer", LARGE.id: "newer"}
    reason = f"{KEY} has revision 2 in the target, 1 in the source. It was left alone."
    assert report.differences[0].reason == reason
    assert not report.is_identical
    assert await all_of(target) == kept


async def test_the_same_revision_with_another_content_is_left_alone_and_named(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await fill(source, 20)
    other = StoredActor(KEY, 1, None, {"main": b"other"})
    await target.copies.put(TYPE, [Whole(other)])
    report = await copy(source, target)

    assert codes(report) == {KEY.id: "other"}
    assert report.types[0].source.digest != report.types[0].target.digest
    assert await target.read(KEY) == other


@pytest.mark.parametrize("key", [KEY, LARGE], ids=str)
async def test_what_is_active_in_the_target_is_left_alone_and_named(stores: tuple[Store, Store], key: ActorKey) -> None:
    source, target = stores
    await filled(source)
    await copy(source, target)
    await write(source, key)
    await target.register(NodeRecord("n1", "n1", None, 1000.0))
    assert isinstance(await target.claim(key, Fence("n1", 1)), Claim)
    report = await copy(source, target)

    assert codes(report) == {key.id: "behind"}
    assert "it is active there (node n1). Copy again." in report.differences[0].reason
    await target.release([(key, Fence("n1", 1))])
    assert (await copy(source, target)).is_identical


async def test_what_is_in_the_target_alone_is_named(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await fill(source, 10)
    await target.insert(TYPE, "main", [("mine", b"1"), ("zz", b"1")])
    report = await copy(source, target)

    assert codes(report) == {"mine": "extra", "zz": "extra"}
    assert (report.types[0].source.actors, report.types[0].target.actors) == (10, 12)


async def test_another_write_version_is_left_alone_and_named(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await fill(source, 3)
    await rollout.pin(source, TYPE, "1.0.0")
    await rollout.pin(target, TYPE, "0.9.0")
    report = await copy(source, target)

    assert codes(report) == {None: "write_version"}
    assert report.differences[0].reason == (
        "the write version of Vehicle is 1.0.0 (epoch 1) in the source, 0.9.0 (epoch 1) in the target, which was left "
        "as it is. Set it by 'lazymig rollout'."
    )
    assert (await target.copies.settings(TYPE)).policy.version != ONE.highest


async def test_an_actor_that_cannot_be_read_is_named_and_the_others_copied(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/source.db") as source, open_store("memory:") as target:
        await filled(source)
        for key in (KEY, LARGE):
            damage(tmp_path / "source.db", "UPDATE actor SET lineage = 999 WHERE id = ?", key.id)
        report = await copy(source, target)

    assert codes(report) == {KEY.id: "unreadable", LARGE.id: "unreadable"}
    assert report.differences[0].reason == (
        f"{KEY} can't be read in the source: its migration-info names the unknown lineage 999. Put right what is "
        f"stored."
    )
    assert (report.copied, report.types[0].source.actors) == (39, 39)


# --- a source that is written meanwhile ------------------------------------------------------------------------------


async def test_what_is_written_in_the_source_after_it_was_copied_is_named(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    late, new = ActorKey(TYPE, "💥9"), ActorKey(TYPE, "new")

    async def write_all() -> None:
        for key in (LARGE, late, new):
            await write(source, key)

    report = await copy(source, Meanwhile("copies.read", write_all).beside(target))
    assert codes(report) == {LARGE.id: "behind", late.id: "behind", new.id: "missing"}
    reasons = {difference.id: difference.reason for difference in report.differences}
    assert reasons[late.id] == (
        f"{late} has revision 1 in the target, 2 in the source: it was written in the source meanwhile, or is active "
        f"in the target. Copy again."
    )
    again = await copy(source, target)
    assert (again.copied, again.is_identical) == (3, True)


@pytest.mark.parametrize("at", [1, 10, 16])
async def test_an_actor_that_is_written_while_it_is_copied_in_pages_begins_anew(
    stores: tuple[Store, Store], at: int
) -> None:
    source, target = stores
    await filled(source)
    meanwhile = Meanwhile("copies.add", partial(write, source, LARGE), at)
    report = await copy(source, meanwhile.beside(target))

    assert meanwhile.has_come
    assert report.is_identical
    assert await all_of(target) == await all_of(source)


async def test_an_actor_that_is_written_all_the_time_is_named(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    report = await copy(source, FaultyStore(target, gate=partial(write, source, LARGE)))

    assert codes(report) == {LARGE.id: "missing"}
    again = await copy(source, target)
    assert (again.copied, again.is_identical) == (1, True)


async def test_another_copy_of_the_same_actor_has_its_own_draft(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)

    async def copy_too() -> None:
        await copy(source, target)

    report = await copy(source, Meanwhile("copies.add", copy_too, 5).beside(target))
    assert report.is_identical
    assert await all_of(target) == await all_of(source)


# --- a copy that ends early ------------------------------------------------------------------------------------------


class StoppedError(Exception):
    pass


async def test_what_progress_raises_ends_a_copy_after_a_batch_or_a_page(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    whole = await all_of(source)
    for last in count(1):
        told = count(1)

        def stop(_: CopyReport, told: count[int] = told, last: int = last) -> None:
            if next(told) == last:
                raise StoppedError

        try:
            report = await copy(source, target, progress=stop)
        except StoppedError:
            assert (await all_of(target)).items() <= whole.items()
        else:
            break
    assert report.is_identical
    assert await all_of(target) == whole


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_whichever_call_fails_a_second_copy_goes_on(side: str, when: Any, tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/source.db") as source:
        await fill(source, 10)
        await fill_large(source, LARGE, 25)
        whole = await all_of(source)
        for at in count():
            target: Store = MemoryStore()
            faulty = FaultyStore(source if side == "source" else target)
            faulty.arm(Fault(at, when, "error"))
            pair = (faulty, target) if side == "source" else (source, faulty)
            try:
                await copy(*pair)
            except StoreUnavailableError:
                assert (await all_of(target)).items() <= whole.items()
            if not faulty.has_struck:
                break
            await expect_no_half(target)
            report = await copy(source, target)
            assert report.is_identical
            assert report.copied + report.present == 11
    assert at > 10


async def expect_no_half(store: Store) -> None:
    """Check that what is there in part only can't be had."""
    await store.register(NodeRecord("n1", "n1", None, 1000.0))
    if await store.tables(LARGE) and await store.read(LARGE) is None:
        with pytest.raises(CorruptStateError):
            await store.claim(LARGE, Fence("n1", 1))
    await store.forget("n1")


async def test_a_source_is_only_read(stores: tuple[Store, Store]) -> None:
    source, target = stores
    await filled(source)
    faulty = FaultyStore(source)
    await copy(faulty, target)

    assert {*faulty.calls} == {
        *("copies.types", "copies.settings", "copies.outlines", "copies.read"),
        *("read", "previous", "tables", "entries"),
    }


async def test_a_store_is_not_copied_onto_itself(store: Store) -> None:
    with pytest.raises(ValueError, match="is source and target"):
        await copy(store, store)
