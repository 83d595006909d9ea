"""Entries are converted when newer software reads them, checked by their stamps, and left whole by older software."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig._entries import Entry, Range
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Marks, NodeRecord, Stamp
from lazymig._tables import RIDING_ENTRIES
from lazymig._version import pack, parse
from lazymig.testing import Fault, FaultyStore
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lazymig.store import Store

KEY = ActorKey("Log", "a")


def make_suite() -> Suite:
    """Return three releases: 1.1.0 adds a field to an entry, 2.0.0 splits its message."""
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @log.migration("1.1.0")
    def number(state: Any, context: Any) -> None:
        pass

    @number.entries("log")
    def add_length(entry: Any, context: Any) -> None:
        entry["length"] = len(entry["message"])

    @log.migration("2.0.0")
    def split(state: Any, context: Any) -> None:
        pass

    @split.entries("log")
    async def split_message(entry: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        level, _, text = entry.pop("message").partition(": ")
        return {**entry, "level": level, "text": text}

    return suite


@asynccontextmanager
async def held(store: Store, suite: Suite) -> AsyncIterator[Activation]:
    async with Node(store, [suite]) as node, node.activate("Log", "a") as activation:
        yield activation


async def stamps(store: Store, table: str = "log") -> dict[str, str]:
    """Return the version of each stored entry."""
    page = await store.entries(KEY, Range(table), 10_000, 10_000_000)
    return {key: str(applied.versions[-1]) for key, applied in zip(page.keys, page.applied, strict=True)}


async def fill(store: Store, version: str, **entries: Any) -> None:
    """Store entries by the release of a version."""
    async with held(store, release(make_suite(), version)) as activation:
        await activation.state().migrate_and_load(default={})
        for key, value in entries.items():
            await activation.table("log").put(key, value)
        await activation.persist()


async def test_an_entry_is_converted_when_it_is_read_and_stored_so_when_it_is_next_written(store: Store) -> None:
    await fill(store, "1.0.0", a={"message": "INFO: hi"}, b={"message": "WARN: ho"}, c={"message": "x"})
    async with held(store, make_suite()) as activation:
        log = activation.table("log")
        await activation.state().migrate_and_load()
        assert await log.get("a") == {"length": 8, "level": "INFO", "text": "hi"}
        assert await stamps(store) == {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"}
        await log.update("b", lambda entry: entry.update(seen=True))
        await log.put("d", {"level": "INFO", "text": "new"})
        await activation.persist()
        assert await stamps(store) == {"a": "2.0.0", "b": "2.0.0", "c": "1.0.0", "d": "2.0.0"}
        assert await log.get("b") == {"length": 8, "level": "WARN", "text": "ho", "seen": True}
        assert [entry["text"] async for _, entry in log.scan()] == ["hi", "ho", "", "new"]


async def test_reading_alone_stores_nothing(store: Store) -> None:
    await fill(store, "1.0.0", a={"message": "INFO: hi"})
    async with held(store, make_suite()) as activation:
        await activation.table("log").get("a")
        assert [key async for key, _ in activation.table("log").scan()] == ["a"]
    found = await store.read(KEY)
    assert found is not None
    assert (found.revision, await stamps(store)) == (1, {"a": "1.0.0"})


async def test_a_bounded_number_of_converted_entries_rides_on_a_commit(store: Store) -> None:
    async with held(store, release(make_suite(), "1.0.0")) as activation:
        await activation.table("log").put_many((f"{number:04}", {"message": "m"}) for number in range(300))
    async with held(store, make_suite()) as activation:
        log = activation.table("log")
        await activation.state().migrate_and_load(default={})
        assert len([key async for key, _ in log.scan()]) == 300
        await activation.persist()
        found = await stamps(store)
        assert [*found.values()].count("2.0.0") == RIDING_ENTRIES
        assert len([key async for key, _ in log.scan()]) == 300
        await log.put("x", {"level": "", "text": ""})
        await activation.persist()
        assert [*(await stamps(store)).values()].count("2.0.0") == 2 * RIDING_ENTRIES + 1


@pytest.mark.parametrize("how", ["put", "delete", "put_many", "delete_range"])
async def test_what_rides_never_replaces_what_was_written_since(store: Store, how: str) -> None:
    await fill(store, "1.0.0", a={"message": "INFO: hi"})
    async with held(store, make_suite()) as activation:
        log = activation.table("log")
        await activation.state().migrate_and_load()
        await log.get("a")
        if how == "put":
            await log.put("a", 1)
        elif how == "delete":
            await log.delete("a")
        elif how == "put_many":
            await log.put_many({"a": 1})
        else:
            await log.delete_range()
        await log.put("b", 2)
        await activation.persist()
        expected = {"b": 2} if how.startswith("delete") else {"a": 1, "b": 2}
        assert {key: value async for key, value in log.scan()} == expected


async def test_older_software_updates_an_entry_and_keeps_its_fields_and_its_stamp(store: Store) -> None:
    await fill(store, "1.1.0", a={"message": "INFO: hi", "length": 8, "more": [1]})
    async with held(store, release(make_suite(), "1.0.0")) as activation:
        log = activation.table("log")
        await log.update("a", lambda entry: entry.update(message="INFO: ho!"))
        await activation.persist()
        assert await log.get("a") == {"message": "INFO: ho!", "length": 8, "more": [1]}
    assert await stamps(store) == {"a": "1.1.0"}


async def test_what_older_software_puts_is_converted_when_newer_software_reads_it(store: Store) -> None:
    await fill(store, "1.1.0", a={"message": "INFO: hi", "length": 8})
    await fill(store, "1.0.0", a={"message": "by the older one"})
    assert await stamps(store) == {"a": "1.0.0"}
    async with held(store, release(make_suite(), "1.1.0")) as activation:
        assert await activation.table("log").get("a") == {"message": "by the older one", "length": 16}


async def test_what_newer_software_puts_without_bringing_the_actor_up_keeps_older_software_out(store: Store) -> None:
    await fill(store, "1.0.0", a={"message": "INFO: hi"})
    async with held(store, make_suite()) as activation:
        await activation.state().load()
        await activation.table("log").get("a")  # rides on nothing
        activation.state().value = {"n": 1}
        await activation.persist()
    await fill(store, "1.0.0")
    async with held(store, make_suite()) as activation:
        await activation.table("log").put("b", {"level": "INFO", "text": "ho"})
        await activation.persist()
    found = await store.read(KEY)
    assert found is not None
    assert found.stamp is not None
    assert (str(found.stamp.info.version), found.marks.converting) == ("1.0.0", pack(parse("2.0.0")))
    async with held(store, release(make_suite(), "1.1.0")) as activation:
        with pytest.raises(errors.NewerStateError):
            await activation.state().load()
    async with held(store, make_suite()) as activation:
        await activation.state().migrate_and_load(default={})
        assert len(await one(activation.table("log"))) == 2
    found = await store.read(KEY)
    assert found is not None
    assert found.stamp is not None
    assert (str(found.stamp.info.version), found.marks.converting) == ("2.0.0", 0)


async def test_entries_of_a_newer_major_are_refused_one_by_one(store: Store) -> None:
    await fill(store, "1.0.0", a={"message": "INFO: hi"})
    newer = make_suite().actor_types["Log"].chain.release
    await store.register(NodeRecord("n", "n", None, 60))
    claim = await store.claim(KEY, Fence("n", 1))
    assert isinstance(claim, Claim)
    entries = {("log", "b"): Entry(b"{}", newer)}
    marks = claim.actor.marks
    await store.commit(Commit(KEY, claim.fence, 1, claim.actor.stamp, {}, entries=entries, marks=marks, release=True))
    async with held(store, release(make_suite(), "1.1.0")) as activation:
        await activation.state().migrate_and_load(default={})
        log = activation.table("log")
        assert (await log.get("a"))["length"] == 8
        for refused in (lambda: log.get("b"), lambda: log.update("b", dict), log.delete_range, lambda: one(log)):
            for _ in range(3):
                with pytest.raises(errors.NewerStateError, match="entry 'b' of table 'log' of Log 'a'") as caught:
                    await refused()
                assert (caught.value.table, caught.value.entry) == ("log", "b")
                assert caught.value.stored == parse("2.0.0")
        await activation.persist()
    assert [*await stamps(store)] == ["a", "b"]


async def one(log: Any) -> Any:
    return [pair async for pair in log.scan()]


async def test_an_actor_of_a_newer_major_is_refused_before_an_entry_is_read(store: Store) -> None:
    await fill(store, "2.0.0", a={"level": "INFO", "text": "hi"})
    async with held(store, release(make_suite(), "1.1.0")) as activation:
        log = activation.table("log")
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: log.get("x"),
            lambda: log.put("x", 1),
            lambda: log.delete("x"),
            lambda: log.update("x", dict),
            lambda: log.put_many({"x": 1}),
            log.delete_range,
            log.count,
            lambda: one(log),
            activation.state().load,
            activation.state().migrate_and_load,
        ]
        for call in calls:
            with pytest.raises(errors.NewerStateError, match=r"is stored at 2\.0\.0"):
                await call()
    assert await stamps(store) == {"a": "2.0.0"}


async def test_an_actor_with_entries_only_of_a_newer_major_is_refused(store: Store) -> None:
    async with held(store, make_suite()) as activation:
        await activation.table("log").put("a", {"level": "", "text": ""})
        await activation.persist()
    async with held(store, release(make_suite(), "1.1.0")) as activation:
        with pytest.raises(errors.NewerStateError):
            await activation.state().migrate_and_load(default={})


async def test_stamps_of_an_actor_with_entries_only_never_move_back(store: Store) -> None:
    for version in ("1.1.0", "1.0.0"):
        async with held(store, release(make_suite(), version)) as activation:
            await activation.table("log").put(version, {"message": ""})
            await activation.persist()
            await activation.state().migrate_and_load()
    found = await store.read(KEY)
    assert found is not None
    assert found.stamp is not None
    assert [str(version) for version in found.stamp.info.applied] == ["1.0.0", "1.1.0"]


async def test_a_conversion_that_raises_names_the_entry_and_leaves_it(store: Store) -> None:
    await fill(store, "1.0.0", a={"message": "INFO: hi"}, b={"text": "no message"})
    async with held(store, make_suite()) as activation:
        log = activation.table("log")
        with pytest.raises(
            errors.MigrationFailedError, match=r"1\.1\.0 \(add_length\) of entry 'b' of table 'log'"
        ) as caught:
            await log.get("b")
        assert (caught.value.table, caught.value.entry, caught.value.version) == ("log", "b", parse("1.1.0"))
        assert isinstance(caught.value.__cause__, KeyError)
        with pytest.raises(errors.MigrationFailedError):
            await one(log)
        assert (await log.get("a"))["text"] == "hi"
        await log.put("b", {"level": "", "text": "mended"})
        assert len(await one(log)) == 2


async def test_a_conversion_whose_result_is_no_json_is_told(store: Store) -> None:
    suite = Suite("logs")
    log = suite.actor_type("Log")
    log.migration("1.0.0")(lambda state, context: None).entries("log")(lambda entry, context: {1, 2})
    await fill(store, "0.0.0", a=1)
    async with held(store, suite) as activation:
        with pytest.raises(errors.MigrationFailedError, match="the result is no JSON"):
            await activation.table("log").get("a")


async def test_an_entry_below_the_baseline_is_refused(store: Store) -> None:
    await fill(store, "1.0.0", a={"message": ""})
    suite = Suite("logs")
    suite.actor_type("Log", baseline="1.1.0")
    async with held(store, suite) as activation:
        with pytest.raises(errors.StateTooOldError, match="entry 'a' of table 'log'"):
            await activation.table("log").get("a")


def with_hotfix(*, late: bool) -> Suite:
    suite = Suite("logs")
    log = suite.actor_type("Log")
    log.migration("1.0.0")(lambda state, context: None)
    fix = log.migration("1.0.1", late=late)(lambda state, context: None)
    fix.entries("log")(lambda entry, context: {**entry, "fixed": entry.get("fixed", 0) + 1})
    log.migration("1.1.0")(lambda state, context: None)
    return suite


async def test_a_late_migration_converts_each_entry_that_lacks_it_once(store: Store) -> None:
    await fill(store, "1.1.0", a={"message": ""})
    async with held(store, with_hotfix(late=True)) as activation:
        log = activation.table("log")
        await log.update("a", lambda entry: entry)
        await activation.persist()
        assert await log.get("a") == {"message": "", "fixed": 1}
    async with held(store, with_hotfix(late=True)) as activation:
        assert await activation.table("log").get("a") == {"message": "", "fixed": 1}


async def test_an_entry_that_lacks_a_late_migration_without_consent_is_refused(store: Store) -> None:
    await fill(store, "1.1.0", a={"message": ""})
    async with held(store, with_hotfix(late=False)) as activation:
        with pytest.raises(errors.LateMigrationError, match="entry 'a' of table 'log'"):
            await activation.table("log").get("a")
        await activation.table("other").put("a", 1)
        assert await activation.table("other").get("a") == 1


async def test_a_damaged_entry_is_named_and_left(store: Store) -> None:
    await store.register(NodeRecord("n", "n", None, 60))
    claim = await store.claim(KEY, Fence("n", 1))
    assert isinstance(claim, Claim)
    none = AppliedSet()
    entries = {("log", "a"): Entry(b"{", none), ("log", "b"): Entry(b"1,2", none), ("log", "c"): Entry(b" 3", none)}
    await store.commit(
        Commit(KEY, claim.fence, 0, Stamp(none, none), {}, entries=entries, marks=Marks(0, 0), release=True)
    )
    async with held(store, make_suite()) as activation:
        log = activation.table("other")
        assert await log.get("a") is None
        log = activation.table("log")
        for key in ("a", "b"):
            with pytest.raises(
                errors.CorruptStateError, match=f"entry '{key}' of table 'log' of Log 'a' can't be read"
            ):
                await log.get(key)
        with pytest.raises(errors.CorruptStateError, match="entry 'a'"):
            await one(log)


# --- within migrations ---------------------------------------------------------------------------------------------


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
    await fill(store, "0.0.0")
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load()
        assert await one(activation.table("log")) == [("0", {"by": "Ada"})]
        assert await one(activation.table("index")) == ([("Ada", {"seen": 1})] if is_eager else [])


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
