"""Going back with an actor that has entries: they stay as they are, so none may be one that can't be read then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors, rollout
from lazymig._records import ActorKey
from lazymig.testing.releases import release
from tests.test_restoring import FLEET, expect, refused
from tests.wallets import KEY, held, load, stored

if TYPE_CHECKING:
    from lazymig.store import Store


async def fill(store: Store, suite: Suite, number: int) -> None:
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load(default={"amount": 0})
        await activation.persist()
        await activation.table("payments").put_many((f"{n:04}", {"amount": n}) for n in range(number))


async def test_entries_that_are_as_they_were_stay_and_the_older_release_reads_them(store: Store) -> None:
    await fill(store, FLEET.old, 3)
    before = await stored(store)
    await load(store, FLEET.new)
    await rollout.restore(store, KEY)

    await expect(store, before)
    async with held(store, FLEET.old) as activation:
        assert await activation.table("payments").get("0001") == {"amount": 1}


async def test_an_entry_that_was_converted_since_is_named_with_its_table(store: Store) -> None:
    await fill(store, FLEET.old, 1_200)
    async with held(store, FLEET.new) as activation:
        await activation.state().migrate_and_load()
        assert await activation.table("payments").get("1100") == {"money": 1100}
        await activation.table("payments").put("1150", {"money": 5})
        activation.state().value["seen"] = True
        await activation.persist()

    error = await refused(store, r"2 entries have what was kept at 1\.1\.0 lacks, up to 2\.0\.0")
    assert (error.table, error.entry) == ("payments", "1100")


def logs(convert: Any = lambda entry, context: {"new": entry}) -> Suite:
    """Return a suite whose release 2.0.0 converts entries eagerly."""
    suite = Suite("logs")
    log = suite.actor_type("Log", keep_previous=True)
    log.migration("1.0.0")(lambda state, context: None)
    two = log.migration("2.0.0")(lambda state, context: None)
    two.entries("log", eager=True)(convert)
    return suite


LOG = ActorKey("Log", "a")


async def bring_up(store: Store, suite: Suite, *, puts: bool = False) -> None:
    async with Node(store, [suite]) as node, node.activate("Log", "a") as activation:
        await activation.state().migrate_and_load(default={})
        await activation.persist()
        if puts:
            await activation.table("log").put_many((f"{n}", n) for n in range(3))


async def test_entries_that_were_converted_eagerly_are_counted(store: Store) -> None:
    await bring_up(store, release(logs(), "1.0.0"), puts=True)
    await bring_up(store, logs())

    error = await refused(store, r"3 entries have what was kept at 1\.0\.0 lacks", LOG)
    assert (error.table, error.entry) == ("log", "0")


async def test_an_actor_whose_entries_are_being_converted_is_left_alone(store: Store) -> None:
    def fail(entry: Any, context: Any) -> None:
        if entry == 1:
            raise ValueError("planted")

    await store.insert("Log", "state", [("a", b"{}")])
    await bring_up(store, release(logs(), "1.0.0"), puts=True)
    with pytest.raises(errors.MigrationFailedError):
        await bring_up(store, logs(fail))

    await refused(store, r"its entries are being converted to 2\.0\.0", LOG)
