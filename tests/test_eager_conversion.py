"""Eager conversion: the mark first, then chunk after chunk, the stamp last; each entry is converted once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors, rollout
from lazymig._version import pack, parse
from lazymig.hooks import EntriesConverted, MigrationApplied, MigrationFailed
from lazymig.testing import FaultyStore
from lazymig.testing.releases import release
from tests.eager_logs import CHUNK, KEY, bring_up, count, entries, fill, found, held, make_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.store import Store


pytestmark = pytest.mark.usefixtures("small_chunks")


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
    await rollout.retry(store, "Log")
    await bring_up(store, suite)
    assert [data for _, data, _ in await entries(store)][:2] == [b'{"n":0,"times":1}', b'{"n":1,"times":1,"more":1}']
    assert {data.count(b"times") for _, data, _ in await entries(store)} == {1}


async def test_a_refused_entry_is_found_before_anything_is_stored(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", baseline="2.0.0")
    log.migration("3.0.0")(lambda state, context: None).entries("log", eager=True)(count)
    async with Node(store, [suite]):
        pass  # which was the first to start: it may also once older software has
    await fill(store, 10)
    two = Suite("logs")
    older = two.actor_type("Log")
    for version in ("1.0.0", "2.0.0"):
        older.migration(version)(lambda state, context: None)
    await bring_up(store, two)
    before = await store.read(KEY)
    with pytest.raises(errors.StateTooOldError, match="entry '000000' of table 'log'"):
        await bring_up(store, suite)
    assert await store.read(KEY) == before
    await bring_up(store, two)


async def test_entries_of_an_actor_without_a_main_state_are_converted(store: Store) -> None:
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.state("settings").load()
        activation.state("settings").value = 1
        await activation.table("log").put("a", {"n": 0})
        await activation.persist()
    for _ in range(2):
        await bring_up(store, make_suite(count))
    assert await entries(store) == [("a", b'{"n":0,"times":1}', "2.0.0")]
    assert await found(store) == ("1.0.0", "2.0.0", "2.0.0")
    async with held(store, make_suite(count)) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.persist()
    assert await found(store) == ("2.0.0", None, "2.0.0")


async def test_an_actor_without_a_main_state_is_gone_through_once(store: Store) -> None:
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.state("settings").load()
        activation.state("settings").value = 1
        await activation.table("log").put("a", {"n": 0})
        await activation.table("other").put("x", {"n": 0})
        await activation.persist()
    await bring_up(store, make_suite(count))
    record = await store.read(KEY)
    faulty = FaultyStore(store)
    faulty.arm(None)
    await bring_up(faulty, make_suite(count))
    assert await store.read(KEY) == record
    assert "tables" not in faulty.calls


async def test_time_of_migration_is_that_of_the_last_one_that_ran(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log")
    log.migration("1.0.0")(lambda state, context: None)
    log.migration("1.1.0")(lambda state, context: None).entries("log", eager=True)(count)
    older = release(suite, "1.0.0")
    await fill(store, 3)
    await bring_up(store, suite)
    record = await store.read(KEY)
    async with held(store, older) as activation:
        await activation.state().migrate_and_load()
        await activation.table("log").update("000000", lambda entry: entry.update(more=1))
        await activation.persist()
    await bring_up(store, suite)
    again = await store.read(KEY)
    assert record is not None
    assert again is not None
    assert record.stamp is not None
    assert again.stamp is not None
    assert (again.stamp.writer, again.stamp.migrated_at) == (log.chain.release, record.stamp.migrated_at)
