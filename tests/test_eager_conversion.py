"""Eager conversion: the mark first, then chunk after chunk, the stamp last; each entry is converted once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest

from lazymig import Activation, Node, Suite, errors
from lazymig import _eager as eager
from lazymig._entries import Range
from lazymig._records import ActorKey
from lazymig._version import pack, parse
from lazymig.hooks import EntriesConverted, MigrationApplied, MigrationFailed
from lazymig.testing import Fault, FaultyStore
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig.store import Store

KEY = ActorKey("Log", "a")
CHUNK = 7


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "PAGE_ENTRIES", CHUNK)


def make_suite(convert: Callable[[Any, Any], Any], **options: Any) -> Suite:
    """Return a suite whose release 2.0.0 converts eagerly."""
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)
    log.migration("1.0.0")(lambda state, context: None)

    @log.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        state["migrated"] = state.get("migrated", 0) + 1

    two.entries("log", eager=True, **options)(convert)
    return suite


def count(entry: Any, context: Any) -> None:
    """Count how often an entry was converted."""
    entry["times"] = entry.get("times", 0) + 1


@asynccontextmanager
async def held(store: Store, suite: Suite, hooks: Any = ()) -> AsyncIterator[Activation]:
    async with (
        Node(store, [suite], hooks=hooks, hand_over_seconds=5.0) as node,
        node.activate("Log", "a") as activation,
    ):
        yield activation


async def bring_up(store: Store, suite: Suite, hooks: Any = ()) -> Any:
    async with held(store, suite, hooks) as activation:
        return await activation.state().migrate_and_load()


async def fill(store: Store, number: int, value: Callable[[int], Any] = lambda number: {"n": number}) -> None:
    """Store an actor with entries by release 1.0.0."""
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.table("other").put("x", {"n": 0})
        await activation.persist()
        await activation.table("log").put_many((f"{n:06}", value(n)) for n in range(number))


async def entries(store: Store, table: str = "log") -> list[tuple[str, bytes, str]]:
    page = await store.entries(KEY, Range(table), 100_000, 100_000_000)
    stamps = (str(applied.versions[-1]) for applied in page.applied)
    return [*zip(page.keys, page.data, stamps, strict=True)]


async def found(store: Store) -> tuple[str, str | None, str | None]:
    """Return version, mark and lower bound of the actor."""
    record = await store.read(KEY)
    assert record is not None
    assert record.stamp is not None
    converting, oldest = (
        None if not packed else next(v for v in ("0.0.0", "1.0.0", "2.0.0", "3.0.0") if pack(parse(v)) == packed)
        for packed in record.marks
    )
    return str(record.stamp.info.version), converting, oldest


async def test_all_entries_are_converted_before_the_stamp(store: Store) -> None:
    await fill(store, 20)
    events: list[Any] = []
    assert await bring_up(store, make_suite(count), [events.append]) == {"migrated": 1}
    assert await entries(store) == [(f"{n:06}", b'{"n":%d,"times":1}' % n, "2.0.0") for n in range(20)]
    assert await entries(store, "other") == [("x", b'{"n":0}', "1.0.0")]
    assert await found(store) == ("2.0.0", None, "1.0.0")
    told = [event for event in events if isinstance(event, (EntriesConverted, MigrationApplied))]
    assert [getattr(event, "entries", None) for event in told] == [7, 14, 20, None]
    assert isinstance(told[0], EntriesConverted)
    assert (told[0].version, told[0].table, told[0].key) == (parse("2.0.0"), "log", KEY)


async def test_the_mark_is_the_first_thing_stored_and_keeps_older_software_out(store: Store) -> None:
    seen: list[Any] = []

    async def look(entry: Any, context: Any) -> None:
        record = await store.read(KEY)
        assert record is not None
        seen.append((record.revision, await found(store)))

    await fill(store, 10)
    await bring_up(store, make_suite(look))
    assert seen[0] == (3, ("1.0.0", "2.0.0", "1.0.0"))
    assert seen[CHUNK] == (4, ("1.0.0", "2.0.0", "1.0.0"))


def failing(at: int) -> Callable[[Any, Any], Any]:
    def convert(entry: Any, context: Any) -> None:
        if entry["n"] == at:
            raise KeyError("message")
        count(entry, context)

    return convert


@pytest.mark.parametrize("at", [0, 6, 7, 10, 19])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_failure_leaves_what_was_before_it_converted_and_the_next_try_goes_on_there(
    store: Store, at: int, concurrency: int
) -> None:
    await fill(store, 20)
    events: list[Any] = []
    with pytest.raises(errors.MigrationFailedError) as caught:
        await bring_up(store, make_suite(failing(at), concurrency=concurrency), [events.append])
    error = caught.value
    assert (error.key, error.table, error.entry, error.version) == (KEY, "log", f"{at:06}", parse("2.0.0"))
    assert f"entry '{at:06}' of table 'log' of Log 'a'" in str(error)
    assert [type(event) for event in events if isinstance(event, MigrationFailed)] == [MigrationFailed]
    assert [stamp for _, _, stamp in await entries(store)] == ["2.0.0"] * at + ["1.0.0"] * (20 - at)
    assert await found(store) == ("1.0.0", "2.0.0", "1.0.0")

    with pytest.raises(errors.NewerStateError, match=r"is stored at 2\.0\.0"):
        await bring_up(store, release(make_suite(count), "1.0.0"))

    converted: list[int] = []

    def mended(entry: Any, context: Any) -> None:
        converted.append(entry["n"])
        count(entry, context)

    assert await bring_up(store, make_suite(mended)) == {"migrated": 1}
    assert converted == [*range(at, 20)]
    assert {data[-10:] for _, data, _ in await entries(store)} == {b'"times":1}'}
    assert await found(store) == ("2.0.0", None, "1.0.0")


async def test_a_marked_actor_is_refused_before_its_state_is_loaded_whatever_is_read(store: Store) -> None:
    await fill(store, 3)
    with pytest.raises(errors.MigrationFailedError):
        await bring_up(store, make_suite(failing(1)))
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        for call in (activation.state().load, lambda: activation.table("log").get("x"), activation.table("log").count):
            with pytest.raises(errors.NewerStateError):
                await call()


async def test_inspect_shows_the_mark(store: Store) -> None:
    await fill(store, 3)
    with pytest.raises(errors.MigrationFailedError):
        await bring_up(store, make_suite(failing(1)))
    async with Node(store) as node:
        record = await node.inspect("Log", "a")
        assert record is not None
        assert record.converting == parse("2.0.0")
    await bring_up(store, make_suite(count))
    async with Node(store) as node:
        record = await node.inspect("Log", "a")
        assert record is not None
        assert record.converting is None


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


async def test_an_actor_without_old_entries_is_not_marked(store: Store) -> None:
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.persist()
    await bring_up(store, make_suite(count))
    record = await store.read(KEY)
    assert record is not None
    assert record.revision == 2


async def test_entries_only_are_converted_too(store: Store) -> None:
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.table("log").put_many((f"{n:06}", {"n": n}) for n in range(10))
    assert await bring_up(store, make_suite(count)) is None
    assert {stamp for _, _, stamp in await entries(store)} == {"2.0.0"}
    assert await found(store) == ("2.0.0", None, "2.0.0")
    with pytest.raises(errors.NewerStateError):
        await bring_up(store, release(make_suite(count), "1.0.0"))


async def test_the_lower_bound_follows_what_is_stored(store: Store) -> None:
    await fill(store, 3)
    assert (await found(store))[2] == "1.0.0"
    async with held(store, make_suite(count)) as activation:
        await activation.table("other").delete("x")
        await activation.persist()
        await activation.state().migrate_and_load()
    assert await found(store) == ("2.0.0", None, "2.0.0")


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


async def test_older_software_of_the_same_major_works_on_a_half_converted_actor(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log")
    log.migration("1.0.0")(lambda state, context: None)
    made = log.migration("1.1.0")(lambda state, context: None)
    made.entries("log", eager=True)(failing(8))
    await fill(store, 10)
    with pytest.raises(errors.MigrationFailedError):
        await bring_up(store, suite)
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.state().migrate_and_load()
        await activation.table("log").put("000000", {"n": 0})
        await activation.table("log").update("000001", lambda entry: entry.update(more=1))
        await activation.persist()
    record = await store.read(KEY)
    assert record is not None
    assert record.marks.converting == pack(parse("1.1.0"))
    made.conversions["log"].function = count
    await bring_up(store, suite)
    assert [data for _, data, _ in await entries(store)][:2] == [b'{"n":0,"times":1}', b'{"n":1,"times":1,"more":1}']
    assert {data.count(b"times") for _, data, _ in await entries(store)} == {1}


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


# --- faults --------------------------------------------------------------------------------------------------------


async def work(store: Store) -> None:
    """Bring the actor up, and use its tables."""
    async with held(store, make_suite(count)) as activation:
        await activation.state().migrate_and_load()
        log = activation.table("log")
        activation.state().value["done"] = True
        await log.put("new", {"n": -1})
        await log.update("000003", lambda entry: entry.update(seen=True))
        await log.delete("000004")
        await activation.persist()
        await log.put_many((f"x{n}", {"n": n}) for n in range(3))
        await log.delete_range(prefix="x")
        assert await log.count() == 20


async def calls_of(store: Store) -> list[str]:
    counted = FaultyStore(store)
    counted.arm(None)
    await work(counted)
    return counted.calls


@pytest.mark.parametrize("how", ["error", "cancel"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_whatever_store_call_fails_each_entry_is_converted_once_and_commits_are_whole(
    url: str, store: Store, how: Literal["error", "cancel"], when: Literal["before", "after"]
) -> None:
    await fill(store, 20)
    calls = await calls_of(store)
    assert {"entries", "count_entries", "tables", "commit"} < {*calls}
    for at in range(len(calls)):
        await clear(store)
        await fill(store, 20)
        faulty = FaultyStore(store)
        faulty.arm(Fault(at, when, how))
        with suppress(errors.LazymigError, asyncio.CancelledError):
            await work(faulty)
        assert faulty.has_struck
        await check_half(store)
        await work(store)
        kept = {key: data for key, data, _ in await entries(store)}
        assert len(kept) == 20, at
        for key, data in kept.items():
            assert data.count(b'"times":1') == (key != "new"), (at, key, data)
        assert await found(store) == ("2.0.0", None, "1.0.0")


async def check_half(store: Store) -> None:
    """Assert that what one persist stores is there as a whole, or not at all."""
    record = await store.read(KEY)
    assert record is not None
    kept = {key: data for key, data, _ in await entries(store)}
    is_done = b'"done":true' in record.states["state"]
    assert ("new" in kept, "000004" not in kept, b"seen" in kept["000003"]) == (is_done,) * 3
    for key, data, stamp in await entries(store):
        assert key[0] in "nx" or (data.count(b'"times":1') == 1) == (stamp == "2.0.0")


async def clear(store: Store) -> None:
    async with held(store, make_suite(count)) as activation:
        await activation.state().load()
        await activation.state().clear()
        await activation.table("log").delete_range()
        await activation.table("other").delete_range()
