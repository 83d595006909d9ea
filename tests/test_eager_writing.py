"""What eager conversions read and write besides their entries, and how they run beside each other."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Suite, errors
from lazymig.hooks import EntriesConverted
from lazymig.testing.releases import release
from tests.eager_logs import KEY, bring_up, count, entries, fill, found, held, make_suite

if TYPE_CHECKING:
    from lazymig.store import Store


pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_what_a_conversion_writes_is_stored_with_its_chunk_or_not_at_all(store: Store, concurrency: int) -> None:
    async def spread(entry: Any, context: Activation) -> Any:
        index = context.table("index")
        await index.put(f"{entry['n']:06}", {"of": entry["n"]})
        assert await index.get(f"{entry['n']:06}") == {"of": entry["n"]}
        if entry["n"] == 11:
            raise ValueError("no")
        return {"n": entry["n"]}

    await fill(store, 20)
    with pytest.raises(errors.MigrationFailedError):
        await bring_up(store, make_suite(spread, concurrency=concurrency))
    assert [key for key, _, _ in await entries(store, "index")] == [f"{n:06}" for n in range(11)]


async def test_an_entry_that_another_ones_conversion_wrote_is_not_converted_any_more(store: Store) -> None:
    async def merge(entry: Any, context: Activation) -> Any:
        if entry["n"] % 2 == 0:
            await context.table("log").delete(f"{entry['n'] + 1:06}")
        return {"n": entry["n"], "merged": True}

    await fill(store, 6)
    await bring_up(store, make_suite(merge))
    assert [key for key, _, _ in await entries(store)] == ["000000", "000002", "000004"]


async def test_conversions_beside_each_other_are_as_many_as_allowed(store: Store) -> None:
    running, most, order = 0, 0, []

    async def convert(entry: Any, context: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3 - entry["n"] % 3):
            await asyncio.sleep(0)
        running -= 1
        order.append(entry["n"])
        count(entry, context)

    await fill(store, 20)
    await bring_up(store, make_suite(convert, concurrency=3))
    assert most == 3
    assert order != sorted(order)
    assert [data for _, data, _ in await entries(store)] == [b'{"n":%d,"times":1}' % n for n in range(20)]


async def test_a_function_that_reads_what_a_later_migration_converts_first_is_told_so(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    async def read(state: Any, context: Activation) -> None:
        state["n"] = await context.table("other").count()
        state["n"] = await context.table("log").count()

    @log.migration("2.0.0")
    async def two(state: Any, context: Activation) -> None:
        state["n"] = await context.table("log").count()

    two.entries("log", eager=True)(count)
    async with held(store, release(suite, "0.0.0")) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.table("log").put_many({"a": {}})
        await activation.persist()
    with pytest.raises(errors.MigrationFailedError, match="Leave eager out there"):
        await bring_up(store, suite)


def note(version: str, entry: Any, context: Any) -> Any:
    return [*entry, version]


async def test_chains_of_eager_and_lazy_conversions(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)
    for version, is_eager in {"1.0.0": False, "1.1.0": True, "1.2.0": False}.items():
        made = log.migration(version)(lambda state, context: None)
        made.entries("log", eager=is_eager)(partial(note, version))
    async with held(store, release(suite, "0.0.0")) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.table("log").put_many({"a": []})
        await activation.persist()
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load()
        assert await entries(store) == [("a", b'["1.0.0","1.1.0"]', "1.1.0")]
        assert await activation.table("log").get("a") == ["1.0.0", "1.1.0", "1.2.0"]


async def test_what_older_software_put_since_is_converted_eagerly_too(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)
    log.migration("1.0.0")(lambda state, context: None)

    @log.migration("1.1.0")
    def more(state: Any, context: Any) -> None:
        state["runs"] = state.get("runs", 0) + 1

    @more.entries("log", eager=True)
    async def convert(entry: Any, context: Activation) -> None:
        await context.table("index").put(f"{entry['n']:06}", "seen")
        count(entry, context)

    older = release(suite, "1.0.0")
    await fill(store, 10)
    await bring_up(store, suite)
    async with held(store, older) as activation:
        await activation.state().migrate_and_load()
        await activation.table("log").put("000099", {"n": 99})
        await activation.persist()
    async with held(store, suite) as activation:
        assert await activation.state().migrate_and_load() == {"runs": 1}
        assert await activation.table("index").count() == 11
    assert {data.count(b'"times":1') for _, data, _ in await entries(store)} == {1}
    record = await store.read(KEY)
    assert record is not None
    assert record.stamp is not None
    assert (record.stamp.writer, record.marks.converting) == (suite.actor_types["Log"].chain.release, 0)
    await bring_up(store, suite)
    again = await store.read(KEY)
    assert again is not None
    assert again.revision == record.revision


async def test_what_a_conversion_puts_into_another_table_is_converted_too(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)
    log.migration("1.0.0")(lambda state, context: None)

    @log.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        pass

    @two.entries("log", eager=True)
    async def index(entry: Any, context: Activation) -> None:
        await context.table("index").put(f"{entry['n']:06}", {"of": entry["n"]})

    three = log.migration("3.0.0")(lambda state, context: None)
    three.entries("index", eager=True)(count)
    await fill(store, 10)
    await bring_up(store, suite)
    assert await entries(store, "index") == [(f"{n:06}", b'{"of":%d,"times":1}' % n, "3.0.0") for n in range(10)]


async def test_a_conversion_that_something_cancelled_is_no_success(store: Store) -> None:
    async def convert(entry: Any, context: Any) -> None:
        if entry["n"] == 9:
            raise asyncio.CancelledError
        count(entry, context)

    await fill(store, 12)
    with pytest.raises(asyncio.CancelledError):
        await bring_up(store, make_suite(convert, concurrency=3))
    assert (await found(store))[:2] == ("1.0.0", "2.0.0")
    assert [stamp for _, _, stamp in await entries(store)] == ["2.0.0"] * 9 + ["1.0.0"] * 3


async def test_a_conversion_beside_others_may_not_update(store: Store) -> None:
    async def add(entry: Any, context: Activation) -> None:
        await context.table("sum").update("n", lambda n: n + 1, default=0)

    await fill(store, 5)
    with pytest.raises(errors.MigrationFailedError, match="Leave concurrency= out"):
        await bring_up(store, make_suite(add, concurrency=2))
    await bring_up(store, make_suite(add))
    assert await entries(store, "sum") == [("n", b"5", "2.0.0")]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_results_that_share_an_object_are_stored_as_they_were(store: Store, concurrency: int) -> None:
    so_far: list[int] = []

    def convert(entry: Any, context: Any) -> Any:
        so_far.append(entry["n"])
        return {"so_far": so_far}

    await fill(store, 3)
    await bring_up(store, make_suite(convert, concurrency=concurrency))
    expected = [b'{"so_far":[0]}', b'{"so_far":[0,1]}', b'{"so_far":[0,1,2]}']
    assert [data for _, data, _ in await entries(store)] == expected


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_fault_of_the_store_in_a_conversion_is_told_as_such(store: Store, concurrency: int) -> None:
    async def convert(entry: Any, context: Activation) -> None:
        if entry["n"] == 4:
            raise errors.StoreUnavailableError("busy")
        count(entry, context)

    await fill(store, 6)
    with pytest.raises(errors.StoreUnavailableError):
        await bring_up(store, make_suite(convert, concurrency=concurrency))
    assert [stamp for _, _, stamp in await entries(store)] == ["2.0.0"] * 4 + ["1.0.0"] * 2


async def test_the_lowest_concurrency_of_a_chain_holds(store: Store) -> None:
    running, most = 0, 0

    async def convert(entry: Any, context: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    suite = make_suite(convert)
    three = suite.actor_types["Log"].migration("3.0.0")(lambda state, context: None)
    three.entries("log", eager=True, concurrency=8)(convert)
    await fill(store, 10)
    await bring_up(store, suite)
    assert most == 1


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_conversion_may_remove_its_own_entry(store: Store, concurrency: int) -> None:
    async def convert(entry: Any, context: Activation) -> None:
        if entry["n"] % 2:
            await context.table("log").delete(f"{entry['n']:06}")

    events: list[Any] = []
    await fill(store, 6)
    await bring_up(store, make_suite(convert, concurrency=concurrency), [events.append])
    assert [key for key, _, _ in await entries(store)] == ["000000", "000002", "000004"]
    assert [event.entries for event in events if isinstance(event, EntriesConverted)] == [6]


async def test_a_conversion_sees_what_was_made_of_the_entries_before_it(store: Store) -> None:
    calls: list[int] = []

    async def convert(entry: Any, context: Activation) -> Any:
        calls.append(entry["n"])
        before = await context.table("log").get(f"{entry['n'] - 1:06}")
        return {"n": entry["n"], "sum": entry["n"] + (before["sum"] if before else 0)}

    await fill(store, 10)
    await bring_up(store, make_suite(convert))
    assert calls == [*range(10)]
    assert (await entries(store))[-1][1] == b'{"n":9,"sum":45}'
