"""Migrations and conversions that use tables: what they see, and what becomes of what they write."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig._entries import Range
from lazymig.testing import Fault, FaultyStore
from lazymig.testing.releases import release
from tests.lazy_logs import KEY, fill, held, make_suite, one, stamps

if TYPE_CHECKING:
    from lazymig.store import Store


def counting() -> Suite:
    """Return a suite whose functions use a table."""
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    async def count(state: Any, context: Activation) -> None:
        table = context.table("log")
        state["seen"] = [entry async for _, entry in table.scan()]
        await table.put("z", {"made": "1.0.0"})
        await table.update("a", lambda entry: entry.update(touched=True))
        assert await table.get("z") == {"made": "1.0.0"}

    @count.entries("log")
    def first(entry: Any, context: Any) -> None:
        entry["first"] = True

    @log.migration("2.0.0")
    async def look(state: Any, context: Activation) -> None:
        state["second"] = {key: entry async for key, entry in context.table("log").scan()}

    @look.entries("log")
    def second(entry: Any, context: Any) -> None:
        entry["second"] = True

    return suite


async def test_a_migration_sees_entries_as_its_own_version_has_them_and_what_it_writes_is_of_it(store: Store) -> None:
    await fill(store, "0.0.0", a={"n": 1})
    async with held(store, counting()) as activation:
        state: Any = await activation.state().migrate_and_load()
        assert state["seen"] == [{"n": 1, "first": True}]
        assert state["second"] == {
            "a": {"n": 1, "first": True, "touched": True, "second": True},
            "z": {"made": "1.0.0", "second": True},
        }
        assert await one(activation.table("log")) == [*state["second"].items()]
    assert await stamps(store) == {"a": "2.0.0", "z": "2.0.0"}
    found = await store.read(KEY)
    assert found is not None
    assert found.revision == 2


async def test_what_a_failed_chain_wrote_to_tables_is_gone(store: Store) -> None:
    await fill(store, "0.0.0", a={"n": 1})
    before = await store.entries(KEY, Range("log"), 10, 1_000)
    suite = counting()

    @suite.actor_types["Log"].migration("3.0.0")
    async def fail(state: Any, context: Activation) -> None:
        await context.table("log").put_many({"many": 1})
        await context.table("log").delete_range(prefix="a")
        assert [key async for key, _ in context.table("log").scan()] == ["many", "z"]
        raise ValueError("no")

    async with held(store, suite) as activation:
        log = activation.table("log")
        await log.put("mine", 1)
        with pytest.raises(errors.MigrationFailedError, match=r"3\.0\.0"):
            await activation.state().migrate_and_load()
    assert await store.entries(KEY, Range("log"), 10, 1_000) == before


async def test_what_an_actor_staged_before_it_came_up_is_stored_by_its_own_persist(store: Store) -> None:
    await fill(store, "0.0.0", a={"n": 1})
    async with held(store, counting()) as activation:
        await activation.table("log").put("mine", {"n": 1})
        await activation.state().migrate_and_load()
        assert [*await stamps(store)] == ["a", "z"]
        await activation.persist()
        assert [*await stamps(store)] == ["a", "mine", "z"]


async def test_a_conversion_at_reading_may_read_tables_and_write_none(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    def nothing(state: Any, context: Any) -> None:
        pass

    @nothing.entries("log")
    async def convert(entry: Any, context: Activation) -> Any:
        if entry == "write":
            await context.table("other").put("x", 1)
        if entry == "state":
            await context.state("other").load()
        return [entry, await context.table("names").get(entry)]

    @nothing.entries("names")
    def convert_name(entry: Any, context: Any) -> Any:
        return entry.upper()

    await fill(store, "0.0.0", a="read", b="write", c="state")
    async with held(store, release(suite, "0.0.0")) as activation:
        await activation.table("names").put_many({"read": "reading"})
    async with held(store, suite) as activation:
        table = activation.table("log")
        await activation.state().migrate_and_load()
        assert await table.get("a") == ["read", "READING"]
        with pytest.raises(errors.MigrationFailedError, match="Register it with eager=True"):
            await table.get("b")
        with pytest.raises(errors.MigrationFailedError, match="uses a state"):
            await table.get("c")
        await activation.table("names").put("read", "changed")
        assert await table.get("a") == ["read", "READING"]  # what was converted stays so


class Book(Actor):
    def __init__(self, activation: Activation) -> None:
        self.log = activation.table("log")

    @action(shared=True)
    async def texts(self) -> list[str]:
        return [entry["text"] async for _, entry in self.log.scan()]


async def test_shared_actions_convert_what_they_read_beside_each_other(store: Store) -> None:
    await fill(store, "1.0.0", **{f"k{number}": {"message": f"INFO: {number}"} for number in range(5)})
    suite = Suite("logs")
    book = suite.actor_type("Log", Book)
    for migration in make_suite().actor_types["Log"].migrations:
        made = book.migration(migration.version)(migration.function)
        for table, conversion in migration.conversions.items():
            made.entries(table)(conversion.function)
    async with Node(store, [suite]) as node:
        actor = node.actor(book, "a")
        found = await asyncio.gather(*(actor.texts() for _ in range(5)))
    assert found == [["0", "1", "2", "3", "4"]] * 5


async def test_migrations_begin_without_what_was_converted_before_them(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    async def move(state: Any, context: Activation) -> None:
        table = context.table("log")
        await table.delete("0")
        await table.put("1", {"put": True})

    move.entries("log")(lambda entry, context: {**entry, "converted": True})
    await fill(store, "0.0.0", **{"0": {"n": 0}, "1": {"n": 1}})
    async with held(store, suite) as activation:
        table = activation.table("log")
        assert [entry["n"] for _, entry in await one(table)] == [0, 1]
        await activation.state().migrate_and_load()
        assert await one(table) == [("1", {"put": True})]
        await activation.table("other").put("x", 1)
        await activation.persist()
        assert await one(table) == [("1", {"put": True})]


@pytest.mark.parametrize("is_eager", [True, False])
async def test_a_conversion_sees_what_its_chain_has_put(store: Store, *, is_eager: bool) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    async def begin(state: Any, context: Activation) -> None:
        await context.table("names").put("n", "Ada")
        await context.table("log").put("0", {"by": "n"})

    @log.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        pass

    @two.entries("log", eager=is_eager)
    async def name(entry: Any, context: Activation) -> None:
        entry["by"] = await context.table("names").get(entry["by"])
        if is_eager:
            await context.table("index").put(entry["by"], {"seen": 1})

    two.entries("index", eager=is_eager)(lambda entry, context: {"indexed": True})
    three = log.migration("3.0.0")(lambda state, context: None)
    three.entries("index", eager=is_eager)(lambda entry, context: {**entry, "three": True})
    await fill(store, "0.0.0")
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load()
        assert await one(activation.table("log")) == [("0", {"by": "Ada"})]
        assert await one(activation.table("index")) == ([("Ada", {"seen": 1, "three": True})] if is_eager else [])
    assert {*(await stamps(store, "index")).values()} == ({"3.0.0"} if is_eager else set())


async def test_tables_of_an_activation_that_failed_to_come_up_raise_why(store: Store) -> None:
    suite = counting()

    @suite.actor_types["Log"].migration("3.0.0")
    def fail(state: Any, context: Any) -> None:
        raise ValueError("no")

    await fill(store, "0.0.0", a={"n": 1})
    async with held(store, suite) as activation:
        with pytest.raises(errors.MigrationFailedError):
            await activation.state().migrate_and_load()
        for call in (lambda: activation.table("log").put("x", 1), lambda: activation.table("log").get("a")):
            with pytest.raises(errors.MigrationFailedError):
                await call()


async def test_a_fault_of_the_store_within_a_migration_is_told_as_such(store: Store) -> None:
    await fill(store, "0.0.0", a={"n": 1})
    faulty = FaultyStore(store)
    async with held(faulty, counting()) as activation:
        faulty.arm(Fault(0, "before", "error"))
        with pytest.raises(errors.StoreUnavailableError):
            await activation.state().migrate_and_load()
        assert faulty.calls[0] == "entries"
        assert await activation.state().migrate_and_load() is not None


async def test_what_a_late_migration_puts_is_of_the_version_that_its_actor_has(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)
    log.migration("1.0.0")(lambda state, context: None)

    @log.migration("1.0.1", late=True)
    async def hotfix(state: Any, context: Activation) -> None:
        table = context.table("log")
        for key, entry in await one(table):
            await table.put(key, {**entry, "fixed": True})

    log.migration("1.1.0")(lambda state, context: None).entries("log")(lambda entry, context: {"v": 10 * entry["v"]})
    without = Suite("logs")
    earlier = without.actor_type("Log")
    for migration in log.migrations:
        if str(migration.version) != "1.0.1":
            made = earlier.migration(migration.version)(migration.function)
            for table, conversion in migration.conversions.items():
                made.entries(table)(conversion.function)
    await fill(store, "1.0.0", old={"v": 1})
    async with held(store, without) as activation:
        await activation.state().migrate_and_load()
        await activation.table("log").put("new", {"v": 10})
        await activation.persist()
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load()
        expected = {"v": 10, "fixed": True}
        assert await one(activation.table("log")) == [("new", expected), ("old", expected)]
    assert await stamps(store) == {"new": "1.1.0", "old": "1.1.0"}
