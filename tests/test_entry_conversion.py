"""Entries are converted when newer software reads them, checked by their stamps, and left whole by older software."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors
from lazymig._entries import Entry
from lazymig._records import AppliedSet, Claim, Commit, Fence, Marks, NodeRecord, Stamp
from lazymig._tables import RIDING_ENTRIES
from lazymig._version import pack, parse
from lazymig.hooks import MigrationFailed
from lazymig.testing import Fault, FaultyStore
from lazymig.testing.releases import release
from tests.lazy_logs import KEY, fill, held, make_suite, one, stamps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig.store import Store


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
    suite = Suite("logs")
    suite.actor_type("Log", baseline="1.1.0")
    async with Node(store, [suite]):
        pass  # which was the first to start: it may also once older software has
    await fill(store, "1.0.0", a={"message": ""})
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
    async with Node(store, [with_hotfix(late=True)]):
        pass  # from now on its set was seen
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


async def test_an_actor_that_is_made_anew_has_the_stamp_of_who_made_it(store: Store) -> None:
    await fill(store, "1.1.0", a={"message": ""})
    async with held(store, release(make_suite(), "1.0.0")) as activation:
        state = activation.state()
        await state.migrate_and_load()
        await activation.table("log").delete("a")
        await activation.persist()
        await state.clear()
        state.value = {"made": "anew"}
        await state.persist()
    found = await store.read(KEY)
    assert found is not None
    assert found.stamp is not None
    assert [str(version) for version in found.stamp.info.applied] == ["1.0.0"]


async def test_marks_that_can_not_be_read_now_are_read_before_the_next_use(store: Store) -> None:
    faulty = FaultyStore(store)
    async with held(faulty, release(make_suite(), "1.1.0")) as activation:
        log = activation.table("log")
        await log.put_many({"a": 1})
        faulty.arm(Fault(2, "before", "error"))
        assert await log.delete_range() == 1
        assert (faulty.has_struck, faulty.calls) == (True, ["entries", "commit", "read"])
        await log.put("b", 1)
        await activation.persist()
    assert await stamps(store) == {"b": "1.1.0"}


async def test_what_is_refused_or_fails_at_reading_is_told_to_hooks(store: Store) -> None:
    await fill(store, "1.0.0", a={"no": "message"})
    events: list[Any] = []
    async with Node(store, [make_suite()], hooks=[events.append]) as node, node.activate("Log", "a") as activation:
        with pytest.raises(errors.MigrationFailedError):
            await activation.table("log").get("a")
    assert [event.name for event in events if isinstance(event, MigrationFailed)] == ["add_length"]
