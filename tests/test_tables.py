"""Tables of an actor: what is staged, what is stored, and what is read of both."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Node, Suite, errors
from lazymig._entries import END, PAGE_ENTRIES, Range
from lazymig._records import ActorKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lazymig.store import Store
    from lazymig.table import Table

KEY = ActorKey("Log", "a")


def make_suite() -> Suite:
    suite = Suite("logs")
    suite.actor_type("Log")
    return suite


@asynccontextmanager
async def held(store: Store, suite: Suite | None = None) -> AsyncIterator[Activation]:
    async with Node(store, [suite or make_suite()]) as node, node.activate("Log", "a") as activation:
        yield activation


async def stored(store: Store, table: str = "log") -> dict[str, bytes]:
    page = await store.entries(KEY, Range(table), 10_000, 10_000_000)
    assert page.is_last
    return dict(zip(page.keys, page.data, strict=True))


async def read(table: Table, **options: Any) -> list[str]:
    return [key async for key, _ in table.scan(**options)]


async def test_what_is_put_is_read_at_once_and_stored_by_the_next_persist(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", {"n": 1})
        assert await log.get("a") == {"n": 1}
        assert await stored(store) == {}
        await activation.persist()
        assert await stored(store) == {"a": b'{"n":1}'}


async def test_entries_and_states_are_stored_by_one_commit(store: Store) -> None:
    async with held(store) as activation:
        state = activation.state()
        await state.migrate_and_load(default={"count": 0})
        await activation.table("log").put("a", 1)
        await activation.table("other").put("a", 2)
        await state.persist()
    found = await store.read(KEY)
    assert found is not None
    assert (found.revision, dict(found.states)) == (1, {"state": b'{"count":0}'})
    assert (await stored(store), await stored(store, "other")) == ({"a": b"1"}, {"a": b"2"})


async def test_what_was_not_persisted_is_gone_with_the_activation(store: Store) -> None:
    async with held(store) as activation:
        await activation.table("log").put("a", 1)
    async with held(store) as activation:
        assert await activation.table("log").get("a", "none") == "none"


async def test_a_value_is_taken_as_it_is_when_it_is_put(store: Store) -> None:
    value = {"n": [1]}
    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", value)
        value["n"].append(2)
        (await log.get("a"))["n"].append(3)
        assert await log.get("a") == {"n": [1]}


async def test_null_is_a_value(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", None)
        await activation.persist()
        assert await log.get("a", "none") is None
        assert await log.get("b", "none") == "none"


async def test_delete_is_staged(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put_many({"a": 1, "b": 2})
        await log.delete("a")
        await log.delete("never")
        assert await read(log) == ["b"]
        assert [*await stored(store)] == ["a", "b"]
        await activation.persist()
        assert [*await stored(store)] == ["b"]


async def test_update_in_place_and_by_replacement(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", {"n": 1})
        await log.update("a", lambda entry: entry.update(m=2))
        await log.update("a", lambda entry: {**entry, "n": entry["n"] + 1})
        assert await log.get("a") == {"n": 2, "m": 2}


async def test_update_of_nothing_needs_a_default_which_is_left_alone(store: Store) -> None:
    default: list[int] = []
    async with held(store) as activation:
        log = activation.table("log")
        with pytest.raises(errors.NoEntryError, match="no entry 'a' in table 'log'") as caught:
            await log.update("a", lambda entry: entry)
        assert (caught.value.key, caught.value.table, caught.value.entry) == (KEY, "log", "a")
        await log.update("a", lambda entry: entry.append(1), default=default)
        assert (await log.get("a"), default) == ([1], [])


async def test_update_by_an_async_function_is_refused(store: Store) -> None:
    async def function(entry: Any) -> Any:
        return entry

    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", 1)
        with pytest.raises(errors.DefinitionError, match="Give update a plain one"):
            await log.update("a", function)


async def test_concurrent_updates_lose_nothing(store: Store) -> None:
    def add(entry: int) -> int:
        return entry + 1

    async with held(store) as activation:
        log = activation.table("log")
        await log.put_many({"n": 0})
        await asyncio.gather(*(log.update("n", add) for _ in range(20)))
        await activation.persist()
    assert await stored(store) == {"n": b"20"}


async def test_a_function_that_raises_leaves_the_entry(store: Store) -> None:
    def fail(entry: Any) -> None:
        entry["n"] = 2
        raise ValueError("no")

    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", {"n": 1})
        with pytest.raises(ValueError, match="no"):
            await log.update("a", fail)
        assert await log.get("a") == {"n": 1}


RANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["A", "a", "a/1", "a/2", "b", "é", "\ue000", "\U0001f697"]),
    ({"prefix": "a"}, ["a", "a/1", "a/2"]),
    ({"prefix": "a/"}, ["a/1", "a/2"]),
    ({"start": "a/1"}, ["a/1", "a/2", "b", "é", "\ue000", "\U0001f697"]),
    ({"end": "a/1"}, ["A", "a"]),
    ({"start": "a", "end": "b"}, ["a", "a/1", "a/2"]),
    ({"prefix": "a", "start": "a/1", "end": "a/2"}, ["a/1"]),
    ({"prefix": "a", "end": "b"}, ["a", "a/1", "a/2"]),
    ({"start": "b", "end": "a"}, []),
    ({"prefix": "zz"}, []),
    ({"prefix": "\U0001f697"}, ["\U0001f697"]),
]


@pytest.mark.parametrize("is_persisted", [True, False])
@pytest.mark.parametrize(("options", "expected"), RANGES)
async def test_scan_and_count_of_a_range(
    store: Store, options: dict[str, Any], expected: list[str], *, is_persisted: bool
) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        for key in reversed(RANGES[0][1]):
            await log.put(key, key)
        if is_persisted:
            await activation.persist()
        assert await read(log, **options) == expected
        assert await read(log, **options, reverse=True) == expected[::-1]
        assert await read(log, **options, limit=2) == expected[:2]
        assert await read(log, **options, limit=2, reverse=True) == expected[::-1][:2]
        assert await read(log, **options, limit=0) == []
        assert await log.count(**options) == len(expected)


@pytest.mark.parametrize("reverse", [True, False])
async def test_what_is_staged_lies_over_what_is_stored_on_every_page(store: Store, *, reverse: bool) -> None:
    numbers = range(3 * PAGE_ENTRIES + 7)
    async with held(store) as activation:
        log = activation.table("log")
        await log.put_many((f"{number:05}", number) for number in numbers)
        expected = {f"{number:05}": number for number in numbers}
        for number in range(0, len(numbers), 97):
            await log.put(f"{number:05}-new", -number)
            await log.put(f"{number:05}", 0)
            await log.delete(f"{number + 1:05}")
            expected |= {f"{number:05}-new": -number, f"{number:05}": 0}
            expected.pop(f"{number + 1:05}", None)
        found = [pair async for pair in log.scan(reverse=reverse)]
        assert found == sorted(expected.items(), reverse=reverse)
        assert await log.count() == len(expected)
        assert [key async for key, _ in log.scan(limit=600)] == sorted(expected)[:600]
        await activation.persist()
        assert [pair async for pair in log.scan(reverse=reverse)] == found


async def test_a_scan_goes_on_while_its_entries_are_changed(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put_many((f"{number:05}", number) for number in range(1_200))
        seen = []
        async for key, value in log.scan():
            seen.append(key)
            await log.put(key, value + 1)
            if len(seen) % 500 == 0:
                await activation.persist()
        assert seen == [f"{number:05}" for number in range(1_200)]
        await activation.persist()
        assert await log.get("00000") == 1
        assert await log.get("01199") == 1_200


async def test_put_many_stores_at_once_in_chunks_and_counts(store: Store) -> None:
    async def pairs() -> AsyncIterator[tuple[str, int]]:
        for number in range(PAGE_ENTRIES + 1):
            yield f"{number:05}", number

    async with held(store) as activation:
        log = activation.table("log")
        assert await log.put_many(pairs()) == PAGE_ENTRIES + 1
        assert await log.put_many([("a", 1), ("a", 2)]) == 2
        assert await log.put_many([]) == 0
        assert await log.get("a") == 2
    found = await store.read(KEY)
    assert found is not None
    assert found.revision == 3
    assert len(await stored(store)) == PAGE_ENTRIES + 2


async def test_put_many_and_delete_range_stand_against_what_was_staged_before(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put("a", "staged")
        await log.put("b", "staged")
        await log.put_many({"a": "stored"})
        assert await log.get("a") == "stored"
        assert await log.delete_range(start="b") == 1
        await activation.table("other").put("x", 1)
        await activation.persist()
    assert await stored(store) == {"a": b'"stored"'}


async def test_delete_range_removes_page_by_page_and_counts(store: Store) -> None:
    async with held(store) as activation:
        log = activation.table("log")
        await log.put_many((f"{number:05}", number) for number in range(PAGE_ENTRIES + 10))
        assert await log.delete_range(start="00003") == PAGE_ENTRIES + 7
        assert await read(log) == ["00000", "00001", "00002"]
        assert await log.delete_range(prefix="9") == 0
        assert await log.delete_range() == 3
    found = await store.read(KEY)
    assert found is not None
    assert found.marks.oldest is None


async def test_a_failing_pair_leaves_the_chunks_before_it_stored(store: Store) -> None:
    def pairs() -> Any:
        yield from ((f"{number:05}", number) for number in range(PAGE_ENTRIES))
        yield "x", 1
        yield "bad", float("nan")

    async with held(store) as activation:
        with pytest.raises(errors.InvalidValueError, match="entry 'bad' of table 'log' of Log 'a'"):
            await activation.table("log").put_many(pairs())
    assert len(await stored(store)) == PAGE_ENTRIES


CALLS: dict[str, Callable[[Activation], Awaitable[Any]]] = {
    "an empty key": lambda a: a.table("log").put("", 1),
    "a number as key": lambda a: a.table("log").put(1, 1),  # type: ignore[arg-type]
    "a key with NUL": lambda a: a.table("log").get("a\0"),
    "a lone surrogate": lambda a: a.table("log").delete("\ud800"),
    "a long key": lambda a: a.table("log").put("é" * 501, 1),
    "an endless number": lambda a: a.table("log").put("a", float("inf")),
    "a set": lambda a: a.table("log").put("a", {1}),
    "no number as limit": lambda a: read(a.table("log"), limit="2"),
    "a limit below 0": lambda a: read(a.table("log"), limit=-1),
    "no flag": lambda a: read(a.table("log"), reverse=1),
    "a number as prefix": lambda a: read(a.table("log"), prefix=1),
    "a prefix with NUL": lambda a: a.table("log").count(prefix="\0"),
    "0 as start": lambda a: read(a.table("log"), start=0),
    "0 as end": lambda a: read(a.table("log"), end=0),
    "no prefix": lambda a: read(a.table("log"), prefix=None),
    "nothing to put": lambda a: a.table("log").put_many(None),  # type: ignore[arg-type]
    "no pairs": lambda a: a.table("log").put_many(["ab"]),  # type: ignore[list-item]
    "a set by update": lambda a: a.table("log").update("a", lambda _: {1}, default=1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_bad_input_is_refused_and_stages_nothing(
    store: Store, call: Callable[[Activation], Awaitable[Any]]
) -> None:
    async with held(store) as activation:
        await activation.state().migrate_and_load(default=1)
        with pytest.raises((errors.InvalidKeyError, errors.InvalidValueError, errors.DefinitionError)):
            await call(activation)
        await activation.persist()
    assert await stored(store) == {}


@pytest.mark.parametrize("name", ["", 1, "a\0", "é" * 101])
async def test_a_table_needs_a_name(store: Store, name: Any) -> None:
    async with held(store) as activation:
        with pytest.raises(errors.InvalidKeyError, match="table"):
            activation.table(name)


async def test_the_longest_key_is_found_by_every_range(store: Store) -> None:
    key = "\U0010ffff" * 250
    assert key < END
    async with held(store) as activation:
        log = activation.table("log")
        await log.put(key, 1)
        await activation.persist()
        assert await read(log) == await read(log, prefix="\U0010ffff") == await read(log, start=key) == [key]
        assert await log.get(key) == 1


async def test_an_actor_with_entries_only_has_a_stamp_and_is_found(store: Store) -> None:
    suite = Suite("logs")
    suite.actor_type("Log").migration("1.0.0")(lambda state, context: None)
    async with held(store, suite) as activation:
        await activation.table("log").put("a", 1)
        await activation.persist()
        assert activation.info is not None
    found = await store.read(KEY)
    assert found is not None
    assert found.stamp is not None
    assert str(found.stamp.info.version) == "1.0.0"
    assert [actor.key for actor in await store.scan("Log")] == [KEY]


async def test_persist_without_anything_staged_stores_nothing(store: Store) -> None:
    async with held(store) as activation:
        with pytest.raises(errors.NotLoadedError):
            await activation.persist()
        await activation.table("log").put("a", 1)
        await activation.table("log").delete_range()
        await activation.persist()
    assert await store.read(KEY) is None


async def test_persist_gives_the_lock_up_with_entries(store: Store) -> None:
    async with Node(store, [make_suite()]) as node:
        async with node.activate("Log", "a") as activation:
            await activation.table("log").put("a", 1)
            await activation.persist(release=True)
            with pytest.raises(errors.ActivationClosedError):
                await activation.table("log").put("b", 1)
        found = await store.read(KEY)
        assert found is not None
        assert found.owner is None
