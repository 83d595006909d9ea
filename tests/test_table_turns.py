"""Tables under locks and turns: stale fences, shared actions, actions that raise, actors that are new again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig._entries import PAGE_ENTRIES, Range
from lazymig.testing import FaultyStore
from tests.test_tables import KEY, held, make_suite, read, stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig.store import Store


async def test_a_stale_fence_stores_no_entry(store: Store) -> None:
    async with (
        Node(store, [make_suite()], label="old") as old,
        Node(store, [make_suite()], label="new") as new,
        old.activate("Log", "a") as activation,
    ):
        log = activation.table("log")
        await log.put_many({"a": 1})
        await log.put("b", 1)
        await store.forget(old.node_id)
        async with new.activate("Log", "a") as other:
            await other.table("log").put("a", 2)
            await other.persist()
        for write in (activation.persist, lambda: log.put_many({"c": 1}), log.delete_range):
            with pytest.raises(errors.LeaseLostError):
                await write()
    assert await stored(store) == {"a": b"2"}


class Reader(Actor):
    def __init__(self, activation: Activation) -> None:
        self.log = activation.table("log")
        self.activation = activation

    @action
    async def add(self, key: str) -> None:
        await self.log.put(key, key)
        await self.activation.persist()

    @action
    async def fail(self) -> None:
        await self.log.put("lost", 1)
        raise ValueError("no")

    @action(shared=True)
    async def keys(self) -> list[str]:
        return await read(self.log)

    @action(shared=True)
    async def write(self, how: str) -> None:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "put": lambda: self.log.put("x", 1),
            "delete": lambda: self.log.delete("a"),
            "update": lambda: self.log.update("a", lambda entry: entry),
            "put_many": lambda: self.log.put_many({"x": 1}),
            "delete_range": self.log.delete_range,
        }
        await calls[how]()


@pytest.mark.parametrize("how", ["put", "delete", "update", "put_many", "delete_range"])
async def test_a_shared_action_reads_tables_and_writes_none(store: Store, how: str) -> None:
    suite = Suite("logs")
    reader = suite.actor_type("Log", Reader)
    async with Node(store, [suite]) as node:
        actor = node.actor(reader, "a")
        await actor.add("a")
        with pytest.raises(errors.ReadOnlyActionError):
            await actor.write(how)
        assert await actor.keys() == ["a"]
    assert await stored(store) == {"a": b'"a"'}


async def test_an_action_that_raises_leaves_nothing_staged(store: Store) -> None:
    suite = Suite("logs")
    reader = suite.actor_type("Log", Reader)
    async with Node(store, [suite]) as node:
        actor = node.actor(reader, "a")
        await actor.add("a")
        with pytest.raises(ValueError, match="no"):
            await actor.fail()
        await actor.add("b")
        assert await actor.keys() == ["a", "b"]


async def test_large_entries_come_few_at_a_time(store: Store) -> None:
    large = "x" * 600_000
    async with held(store) as activation:
        log = activation.table("log")
        await log.put_many((str(number), large) for number in range(5))
        page = await store.entries(KEY, Range("log"), 500, 1_000_000)
        assert (len(page.keys), page.is_last) == (2, False)
        assert [key async for key, value in log.scan() if value == large] == ["0", "1", "2", "3", "4"]


async def test_clearing_everything_makes_the_actor_new(store: Store) -> None:
    newer = Suite("logs")
    newer.actor_type("Log").migration("2.0.0")(lambda state, context: None)
    async with held(store, newer) as activation:
        log = activation.table("log")
        await log.put("a", 1)
        await activation.persist()
        await log.delete("a")
        await activation.persist()
    async with held(store) as activation:
        await activation.state().migrate_and_load(default=1)
        await activation.persist()
    found = await store.read(KEY)
    assert found is not None
    assert (found.stamp is not None, found.revision) == (True, 3)


async def test_trips_do_not_grow_with_what_is_staged(store: Store) -> None:
    faulty = FaultyStore(store)
    async with Node(faulty, [make_suite()]) as node, node.activate("Log", "a") as activation:
        log = activation.table("log")
        await log.put_many((f"{number:04}", number) for number in range(PAGE_ENTRIES))
        for number in range(PAGE_ENTRIES - 10):
            await log.delete(f"{number:04}")
        faulty.arm(None)
        assert await read(log, limit=1) == [f"{PAGE_ENTRIES - 10:04}"]
        assert await log.count() == 10
        assert faulty.calls == ["entries", "count_entries", "entries"]
