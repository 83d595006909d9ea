"""Entries of tables while a write version is below what the software supports: they have no base."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Activation, Node, Suite, errors, rollout
from lazymig._entries import Range
from lazymig._records import ActorKey
from lazymig._version import unpack
from lazymig.testing.releases import release
from tests.wallets import write_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store

KEY = ActorKey("Log", "a")


def make_suite(*, eager: bool = False, puts: bool = False) -> Suite:
    """Return two releases: 2.0.0 splits the message of an entry, and maybe puts one."""
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @log.migration("2.0.0")
    async def split(state: Any, context: Any) -> None:
        if puts:
            await context.table("log").put("of 2.0.0", {"level": "info", "text": "put"})

    @split.down
    def join(state: Any, context: Any) -> None:
        pass

    @split.entries("log", eager=eager)
    async def split_message(entry: Any, context: Any) -> Any:
        level, _, text = entry["message"].partition(": ")
        return {"level": level, "text": text}

    @split_message.down
    async def join_message(entry: Any, context: Any) -> Any:
        return {"message": f"{entry['level']}: {entry['text']}"}

    return suite


@asynccontextmanager
async def up(store: Store, suite: Suite) -> AsyncIterator[Activation]:
    async with Node(store, [suite]) as node, node.activate("Log", "a") as activation:
        await activation.state().migrate_and_load(default={})
        yield activation


async def stored(store: Store) -> dict[str, tuple[Any, str]]:
    """Return the entries as they are stored, each with its version."""
    page = await store.entries(KEY, Range("log"), 100, 1_000_000)
    versions = [str(unpack(applied.highest)) for applied in page.applied]
    return dict(zip(page.keys, zip(map(orjson.loads, page.data), versions, strict=True), strict=True))


async def test_entries_are_stored_in_the_old_shape_and_read_in_the_new_one(store: Store) -> None:
    new, old = make_suite(), release(make_suite(), "1.0.0")
    await write_at(store, "1.0.0", "Log")
    async with up(store, new) as activation:
        table = activation.table("log")
        await table.put("a", {"level": "info", "text": "one"})
        assert await table.get("a") == {"level": "info", "text": "one"}
        await activation.persist()
        await table.put_many([("b", {"level": "warn", "text": "two"})])
    assert await stored(store) == {
        "a": ({"message": "info: one"}, "1.0.0"), "b": ({"message": "warn: two"}, "1.0.0")
    }  # fmt: skip

    async with up(store, old) as activation:
        assert await activation.table("log").get("b") == {"message": "warn: two"}
        await activation.table("log").put("c", {"message": "info: three"})
        await activation.persist()
    async with up(store, new) as activation:
        found = [item async for item in activation.table("log").scan()]
        assert found[2] == ("c", {"level": "info", "text": "three"})

        await activation.table("log").update("c", lambda entry: {**entry, "text": "3"})
        await activation.persist()
    assert (await stored(store))["c"] == ({"message": "info: 3"}, "1.0.0")


async def test_entries_that_were_only_read_are_not_stored_again(store: Store) -> None:
    new, old = make_suite(), release(make_suite(), "1.0.0")
    async with up(store, old) as activation:
        await activation.table("log").put("a", {"message": "a: b", "only": "old"})
        await activation.persist()
    await write_at(store, "1.0.0", "Log")
    async with up(store, new) as activation:
        assert await activation.table("log").get("a") == {"level": "a", "text": "b"}
        await activation.table("log").put("b", {"level": "c", "text": "d"})
        await activation.persist()

    assert (await stored(store))["a"] == ({"message": "a: b", "only": "old"}, "1.0.0")


async def test_staged_entries_get_the_shape_of_a_change_that_came_meanwhile(store: Store) -> None:
    async with up(store, make_suite()) as activation:
        table = activation.table("log")
        await table.put("a", {"level": "info", "text": "one"})
        await write_at(store, "1.0.0", "Log")
        await activation.persist()
        assert await stored(store) == {"a": ({"message": "info: one"}, "1.0.0")}

        await table.put("a", {"level": "info", "text": "two"})
        await write_at(store, "2.0.0", "Log")
        await activation.persist()
        assert await stored(store) == {"a": ({"level": "info", "text": "two"}, "2.0.0")}


async def test_eager_conversion_waits_for_the_flip(store: Store) -> None:
    new, old = make_suite(eager=True), release(make_suite(), "1.0.0")
    async with up(store, old) as activation:
        await activation.state().persist()
        await activation.table("log").put("a", {"message": "info: one"})
        await activation.persist()
    await write_at(store, "1.0.0", "Log")
    async with up(store, new) as activation:
        assert await activation.table("log").get("a") == {"level": "info", "text": "one"}
        await activation.persist()
    assert await stored(store) == {"a": ({"message": "info: one"}, "1.0.0")}
    async with up(store, old):
        pass  # no mark keeps it out

    await write_at(store, "2.0.0", "Log")
    async with up(store, new):
        assert await stored(store) == {"a": ({"level": "info", "text": "one"}, "2.0.0")}


async def test_a_pin_in_the_middle_of_an_eager_conversion_ends_it(store: Store, small_chunks: None) -> None:
    old = release(make_suite(), "1.0.0")
    async with up(store, old) as activation:
        for number in range(10):
            await activation.table("log").put(f"{number}", {"message": f"{number}: one"})
        await activation.persist()
    suite = make_suite(eager=True)
    conversion = suite.actor_types["Log"].migrations[1].conversions["log"]
    function = conversion.function

    async def pin_meanwhile(entry: Any, context: Any) -> Any:
        if entry["message"].startswith("5"):
            await write_at(store, "1.0.0", "Log")
        return await function(entry, context)

    conversion.function = pin_meanwhile
    async with up(store, suite) as activation:
        found = [item async for item in activation.table("log").scan()]
        assert found == [(f"{number}", {"level": f"{number}", "text": "one"}) for number in range(10)]

    await write_at(store, "2.0.0", "Log")
    async with up(store, make_suite(eager=True)):
        assert {version for _, version in (await stored(store)).values()} == {"2.0.0"}


async def test_what_a_projection_puts_is_stored_in_the_old_shape(store: Store) -> None:
    new, old = make_suite(puts=True), release(make_suite(), "1.0.0")
    async with up(store, old) as activation:
        await activation.persist()
    await write_at(store, "1.0.0", "Log")

    async with up(store, new):
        pass

    assert await stored(store) == {"of 2.0.0": ({"message": "info: put"}, "1.0.0")}


async def test_a_down_of_entries_that_raises_stores_nothing(store: Store) -> None:
    suite = make_suite()
    await write_at(store, "1.0.0", "Log")
    async with up(store, suite) as activation:
        await activation.table("log").put("a", {"text": "no level"})
        with pytest.raises(errors.MigrationFailedError, match=r"down of split.*level"):
            await activation.persist()

    assert await store.read(KEY) is None


async def test_entries_read_before_a_pin_that_came_meanwhile_are_not_stored_again(store: Store) -> None:
    new, old = make_suite(), release(make_suite(), "1.0.0")
    async with up(store, old) as activation:
        await activation.table("log").put("a", {"message": "a: b", "only": "old"})
        await activation.persist()
    async with up(store, new) as activation:
        assert await activation.table("log").get("a") == {"level": "a", "text": "b"}
        await write_at(store, "1.0.0", "Log")
        await activation.table("log").put("b", {"level": "c", "text": "d"})
        await activation.persist()

    assert await stored(store) == {
        "a": ({"message": "a: b", "only": "old"}, "1.0.0"), "b": ({"message": "c: d"}, "1.0.0")
    }  # fmt: skip


async def test_older_software_can_take_over_actors_that_have_entries_only(store: Store) -> None:
    new, old = make_suite(), release(make_suite(), "1.0.0")
    async with Node(store, [old], drain_on_sigterm=False), Node(store, [new], drain_on_sigterm=False) as node:
        assert (await rollout.pin(store, "Log", "1.0.0")).allowed
        async with node.activate("Log", "a") as activation:
            await activation.table("log").put("a", {"level": "info", "text": "one"})
            await activation.persist()
        gate = await rollout.gate_roll_back(store, "Log", "1.0.0")
        assert gate.allowed, gate.reasons

    async with Node(store, [old]) as node, node.activate("Log", "a") as activation:
        assert await activation.table("log").get("a") == {"message": "info: one"}
