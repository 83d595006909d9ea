"""States that were stored above the write version: they become the base whole, or whoever can't is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import errors
from tests.wallets import Wallets, base_of, held, load, save, stored, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}
GBP = {"amount": 7, "currency": "GBP"}


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


async def save_twice(store: Store, wallets: Wallets) -> None:
    """Let the newest release store a wallet, and the one between store over it; the base is the first of both."""
    await save(store, wallets.suite, money=EUR, name="ann", notes=["n"])
    await save(store, wallets.release("2.0.0"), money=GBP)
    assert await base_of(store) == {"wallet": {"money": EUR, "name": "ann", "notes": ["n"]}}


async def test_what_a_release_between_stores_after_a_pin_further_down_is_all_there(
    store: Store, wallets: Wallets
) -> None:
    newest, new = wallets.suite, wallets.release("2.0.0")
    await write_at(store, "2.0.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await write_at(store, "1.1.0")

    await save(store, new, money=GBP)

    full = {"money": GBP, "name": "ann", "notes": ["n"]}
    assert (await base_of(store), await version_of(store)) == ({"wallet": full}, "1.1.0")
    assert (await load(store, new))["money"] == GBP
    assert await load(store, newest) == full


@pytest.mark.parametrize("what", ["main", "other"])
async def test_states_that_two_releases_stored_become_the_base_as_they_are_and_not_as_they_were(
    store: Store, wallets: Wallets, what: str
) -> None:
    await save_twice(store, wallets)
    await write_at(store, "1.1.0")

    async with held(store, wallets.release("2.0.0")) as activation:
        value: Any = await activation.state().migrate_and_load()
        if what == "main":
            value["name"] = "bob"
        else:
            await activation.state("other").migrate_and_load(default=1)
        await activation.persist()

    full = {"money": GBP, "name": "bob" if what == "main" else "ann", "notes": ["n"]}
    assert await base_of(store) == {"wallet": full} | ({"other": 1} if what == "other" else {})
    assert await version_of(store) == "1.1.0"
    assert await load(store, wallets.suite) == full


async def test_states_that_two_releases_stored_become_the_base_after_load_alone(store: Store, wallets: Wallets) -> None:
    await save_twice(store, wallets)
    await write_at(store, "1.1.0")

    async with held(store, wallets.suite) as activation:
        value: Any = await activation.state().load()
        value["name"] = "bob"
        await activation.persist()

    full = {"money": GBP, "name": "bob", "notes": ["n"]}
    assert (await value_of(store), await base_of(store)) == ({"amount": 7, "name": "bob"}, {"wallet": full})
    assert await load(store, wallets.suite) == full


async def test_entries_alone_leave_states_above_a_pin_with_the_base_they_have(store: Store, wallets: Wallets) -> None:
    await save_twice(store, wallets)
    await write_at(store, "1.1.0")
    before = await stored(store)

    async with held(store, wallets.release("2.0.0")) as activation:
        await activation.state().migrate_and_load()
        await activation.table("log").put("k", 1)
        await activation.persist()

    after = await stored(store)
    assert (after.states, after.base) == (before.states, before.base)
    assert await version_of(store) == "2.1.0"
    assert (await load(store, wallets.suite))["money"] == GBP


async def test_a_pin_while_a_release_between_has_the_actor_refuses_what_would_lose_the_newest_base(
    store: Store, wallets: Wallets
) -> None:
    newest = wallets.suite
    await write_at(store, "2.0.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    before = await stored(store)

    async with held(store, wallets.release("2.0.0")) as activation:
        value: Any = await activation.state().migrate_and_load()
        await write_at(store, "1.1.0")
        value["money"]["currency"] = "GBP"
        with pytest.raises(errors.NewerStateError, match=r"is kept at 2\.1\.0 beside its states"):
            await activation.persist()

    after = await stored(store)
    assert (after.states, after.stamp, after.base) == (before.states, before.stamp, before.base)
    full = {"money": GBP, "name": "ann", "notes": ["n"]}
    await save(store, newest, money=GBP)
    assert (await base_of(store), await version_of(store)) == ({"wallet": full}, "1.1.0")


async def test_an_entry_leaves_the_stamp_of_states_that_nothing_brings_down(store: Store, wallets: Wallets) -> None:
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    await write_at(store, "1.1.0")
    async with held(store, new) as activation:
        await activation.state("other").migrate_and_load(default={"shape": "2.0.0"})
        await activation.persist()
    assert await version_of(store) == "2.0.0"

    async with held(store, new) as activation:
        await activation.state("other").migrate_and_load()
        await activation.table("log").put("k", 1)
        await activation.persist()

    assert await version_of(store) == "2.0.0"
    async with held(store, old) as activation:
        with pytest.raises(errors.NewerStateError):
            await activation.state("other").migrate_and_load()


async def test_a_main_state_that_older_software_creates_after_a_clear_comes_up_as_its_own(
    store: Store, wallets: Wallets
) -> None:
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    await write_at(store, "1.1.0")
    async with held(store, new) as activation:
        await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
        await activation.state().clear()
    assert await base_of(store) == {"wallet": None, "other": 1}

    async with held(store, old) as activation:
        await activation.state().migrate_and_load(default={"amount": 3, "name": "bob"})
        await activation.persist()

    assert await load(store, new) == {"money": {"amount": 3, "currency": "USD"}, "name": "bob"}


async def test_what_a_release_between_stores_over_a_base_is_reconciled_once_by_the_newest(
    store: Store, wallets: Wallets
) -> None:
    newest, new = wallets.suite, wallets.release("2.0.0")
    await write_at(store, "1.1.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await save(store, new, name="bob")
    wallets.ran.clear()

    assert await load(store, newest) == {"money": EUR, "name": "bob", "notes": ["n"]}

    assert wallets.ran["same_notes"] == 1
