"""What is stored, and what is read, while a write version is below what the software supports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors
from lazymig._records import ActorKey
from tests.wallets import Wallets, base_of, held, load, save, stored, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


async def test_new_software_stores_the_old_shape_and_keeps_what_it_has(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")

    await save(store, wallets.release("2.0.0"), money=EUR, name="ann")

    assert await value_of(store) == {"amount": 7, "name": "ann"}
    assert await base_of(store) == {"wallet": {"money": EUR, "name": "ann"}}
    assert await version_of(store) == "1.1.0"
    found = await stored(store)
    assert found.stamp is not None
    assert found.stamp.writer == wallets.release("2.0.0").actor_types["Wallet"].chain.release


async def test_a_currency_that_the_old_shape_lacks_survives_a_pinned_write_and_read(
    store: Store, wallets: Wallets
) -> None:
    await write_at(store, "1.1.0")
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann")
    wallets.ran.clear()

    assert await load(store, new) == {"money": EUR, "name": "ann"}
    assert await load(store, wallets.release("1.1.0")) == {"amount": 7, "name": "ann"}
    await save(store, new, name="bob")

    assert await load(store, new) == {"money": EUR, "name": "bob"}
    assert await value_of(store) == {"amount": 7, "name": "bob"}
    assert wallets.ran == {"amount": 1}


async def test_a_pinned_activation_with_a_current_base_stores_and_runs_nothing(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann")
    await write_at(store, "1.1.0")
    new = wallets.release("2.0.0")
    await load(store, new)
    before = await stored(store)
    wallets.ran.clear()

    assert await load(store, new) == {"money": {"amount": 3, "currency": "USD"}, "name": "ann"}

    assert (await stored(store))[:4] == before[:4]
    assert not wallets.ran


async def test_an_activation_without_a_current_base_commits_it_at_once(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann", extra=1)
    await write_at(store, "1.1.0")
    before = await stored(store)

    await load(store, wallets.release("2.0.0"))

    after = await stored(store)
    assert after.states == before.states
    assert after.stamp is not None
    assert before.stamp is not None
    assert after.stamp.applied == before.stamp.applied
    assert after.revision == before.revision + 1
    assert after.base is not None
    assert after.base.revision == after.revision
    assert await base_of(store) == {"wallet": {"money": {"amount": 3, "currency": "USD"}, "name": "ann", "extra": 1}}


async def test_migrations_up_to_the_write_version_are_stored_and_those_above_are_kept(
    store: Store, wallets: Wallets
) -> None:
    await store.insert("Wallet", "wallet", [("w", b'{"amount":9}')])
    await write_at(store, "1.1.0")

    await load(store, wallets.release("2.0.0"))

    assert await value_of(store) == {"amount": 9, "name": "nobody"}
    assert await version_of(store) == "1.1.0"
    assert await base_of(store) == {"wallet": {"money": {"amount": 9, "currency": "USD"}, "name": "nobody"}}
    assert "amount" not in wallets.ran  # the states as stored are no way down and up


async def test_what_older_software_stored_is_projected_again_and_reconciled(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    await save(store, new, money=EUR, name="ann")
    await save(store, old, amount=8)
    wallets.ran.clear()

    assert await load(store, new) == {"money": {"amount": 8, "currency": "EUR"}, "name": "ann"}

    assert wallets.ran == {"money": 1, "same_currency": 1}
    assert await value_of(store) == {"amount": 8, "name": "ann"}
    assert await base_of(store) == {"wallet": {"money": {"amount": 8, "currency": "EUR"}, "name": "ann"}}


@pytest.mark.parametrize("version", ["2.0.0", None])
async def test_after_a_flip_or_unpin_the_base_is_stored_and_nothing_is_migrated_again(
    store: Store, wallets: Wallets, version: str | None
) -> None:
    await write_at(store, "1.1.0")
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann")
    wallets.ran.clear()
    await write_at(store, version)

    assert await load(store, new) == {"money": EUR, "name": "ann"}

    assert await value_of(store) == {"money": EUR, "name": "ann"}
    assert await base_of(store) is None
    assert await version_of(store) == "2.0.0"
    assert not wallets.ran


async def test_a_flip_to_a_version_between_stores_that_shape(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.0.0")
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann")
    assert await value_of(store) == {"amount": 7}
    await write_at(store, "1.1.0")
    wallets.ran.clear()

    assert await load(store, new) == {"money": EUR, "name": "ann"}

    assert await value_of(store) == {"amount": 7, "name": "ann"}
    assert await version_of(store) == "1.1.0"
    assert wallets.ran == {"amount": 1}


async def test_an_open_activation_stores_the_shape_of_a_pin_that_came_meanwhile(store: Store, wallets: Wallets) -> None:
    async with held(store, wallets.release("2.0.0")) as activation:
        value = await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
        await activation.persist()
        await write_at(store, "1.1.0")
        value["name"] = "bob"
        await activation.persist()

        assert await value_of(store) == {"amount": 7, "name": "bob"}
        assert activation.state().value == {"money": EUR, "name": "bob"}
        await write_at(store, "2.0.0")
        value["name"] = "carl"
        await activation.persist()

    assert await value_of(store) == {"money": EUR, "name": "carl"}
    assert await base_of(store) is None


async def test_a_pin_while_migrations_run_is_obeyed_by_their_commit(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann")
    new = wallets.release("2.0.0")
    migration = new.actor_types["Wallet"].migrations[-1]
    function = migration.function
    calls: list[Any] = []

    async def pinned_meanwhile(state: Any, context: Any) -> None:
        if not calls:
            await write_at(store, "1.1.0")
        calls.append(dict(state))
        function(state, context)

    migration.function, migration.is_async = pinned_meanwhile, True
    async with held(store, new) as activation:
        value: Any = await activation.state().migrate_and_load()
        assert value["money"]["amount"] == 3
        assert await value_of(store) == {"amount": 3, "name": "ann"}
    assert calls == [{"amount": 3, "name": "ann"}] * 2


async def test_software_below_the_write_version_neither_loads_nor_stores(store: Store, wallets: Wallets) -> None:
    old = wallets.release("1.0.0")
    await save(store, old, amount=1)
    async with held(store, old) as activation:
        value = await activation.state().migrate_and_load(default={})
        await write_at(store, "1.1.0")
        value["amount"] = 2
        before = await stored(store)
        with pytest.raises(errors.NewerStateError, match=r"written at 1\.1\.0.*supports 1\.0\.0"):
            await activation.persist()
        assert (await stored(store))[:4] == before[:4]

    for state in ("w", "unknown"):
        async with Node(store, [old]) as node, node.activate("Wallet", state) as activation:
            for read in (activation.state().migrate_and_load, activation.state().load):
                with pytest.raises(errors.NewerStateError, match=r"of a release that supports 1\.1\.0"):
                    await read()


async def test_pinned_back_the_stamp_goes_down_when_newer_software_stores(store: Store, wallets: Wallets) -> None:
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    await save(store, new, money=EUR, name="ann")
    await write_at(store, "1.1.0")
    with pytest.raises(errors.NewerStateError):
        await load(store, old)
    assert await version_of(store) == "2.0.0"

    await save(store, new, name="bob")

    assert await version_of(store) == "1.1.0"
    assert await load(store, old) == {"amount": 7, "name": "bob"}
    assert await load(store, new) == {"money": EUR, "name": "bob"}


async def test_a_persist_after_load_alone_brings_the_states_down_too(store: Store, wallets: Wallets) -> None:
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann")
    await write_at(store, "1.1.0")
    async with held(store, new) as activation:
        for name in ("bob", "carl"):
            value: Any = await activation.state().load()
            assert value["money"] == EUR
            value["name"] = name
            await activation.persist()
            assert await value_of(store) == {"amount": 7, "name": name}
            assert await version_of(store) == "1.1.0"

    assert await load(store, new) == {"money": EUR, "name": "carl"}


async def test_load_gives_the_value_as_stored(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann")

    async with held(store, new) as activation:
        value: Any = await activation.state().load()
        assert value == {"amount": 7, "name": "ann"}
        value["amount"] = 8
        await activation.persist()

    assert await load(store, new) == {"money": {"amount": 8, "currency": "EUR"}, "name": "ann"}


async def test_what_older_software_cleared_and_stored_anew_is_not_undone_by_a_base(
    store: Store, wallets: Wallets
) -> None:
    await write_at(store, "1.1.0")
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    await save(store, new, money=EUR, name="ann")
    async with held(store, old) as activation:
        await activation.state().migrate_and_load()
        await activation.state().clear()
    assert (await stored(store)).base is None
    revision = (await stored(store)).revision
    await save(store, old, amount=1, name="new")

    assert (await stored(store)).revision == revision + 1
    assert await load(store, new) == {"money": {"amount": 1, "currency": "USD"}, "name": "new"}


async def test_clearing_under_a_pin_leaves_nothing(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    new = wallets.release("2.0.0")
    async with held(store, new) as activation:
        await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
        await activation.persist()
        await activation.state().clear()
        assert activation.state().value is None

    found = await stored(store)
    assert (dict(found.states), found.base) == ({}, None)
    assert await load(store, new) is None


async def test_an_edited_migration_makes_the_base_anew(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann")
    await write_at(store, "1.1.0")
    await load(store, wallets.release("2.0.0"))
    mended = wallets.release("1.1.0")
    chain = mended.actor_types["Wallet"]

    @chain.migration("2.0.0")
    def money(state: Any, context: Any) -> None:
        state["money"] = {"amount": state.pop("amount"), "currency": "CHF"}

    @money.down
    def amount(state: Any, context: Any) -> None:
        state["amount"] = state.pop("money")["amount"]

    assert await load(store, mended) == {"money": {"amount": 3, "currency": "CHF"}, "name": "ann"}


async def test_a_base_of_a_newer_minor_is_taken_with_what_it_has_and_keeps_its_set(
    store: Store, wallets: Wallets
) -> None:
    await write_at(store, "1.1.0")
    newest, new = wallets.suite, wallets.release("2.0.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    wallets.ran.clear()

    assert await load(store, new) == {"money": EUR, "name": "ann", "notes": ["n"]}
    await save(store, new, name="bob")

    assert await value_of(store) == {"amount": 7, "name": "bob", "notes": ["n"]}
    assert await load(store, newest) == {"money": EUR, "name": "bob", "notes": ["n"]}
    assert wallets.ran == {"amount": 2, "same_notes": 1}  # what 2.0.0 stored of 2.1.0 may be out of step


async def test_a_base_of_a_newer_major_is_neither_taken_nor_replaced(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.0.0")
    new, middle, old = wallets.release("2.0.0"), wallets.release("1.1.0"), wallets.release("1.0.0")
    await save(store, new, money=EUR, name="ann")
    before = await stored(store)

    with pytest.raises(errors.NewerStateError):  # it would have to make a base of its own
        await load(store, middle)
    assert (await stored(store))[:4] == before[:4]
    assert await save(store, old, amount=8) == {"amount": 8}

    assert await load(store, new) == {"money": {"amount": 8, "currency": "EUR"}, "name": "ann"}


async def test_an_activation_that_a_pin_meets_with_a_newer_base_is_refused_at_its_commit(
    store: Store, wallets: Wallets
) -> None:
    await write_at(store, "1.1.0")
    new, middle = wallets.release("2.0.0"), wallets.release("1.1.0")
    await save(store, new, money=EUR, name="ann")
    async with held(store, middle) as activation:
        value: Any = await activation.state().migrate_and_load()
        await write_at(store, "1.0.0")
        value["amount"] = 9
        before = await stored(store)
        with pytest.raises(errors.NewerStateError):
            await activation.persist()

    assert (await stored(store))[:4] == before[:4]


async def test_a_down_that_raises_stores_nothing(store: Store) -> None:
    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet")

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @begin.down
    def broken(state: Any, context: Any) -> None:
        raise RuntimeError("no way down")

    await write_at(store, "0.0.0")
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load(default={"n": 1})
        with pytest.raises(errors.MigrationFailedError, match=r"1\.0\.0 \(down of begin\).*no way down"):
            await activation.persist()
        assert activation.state().value == {"n": 1}

    assert await store.read(ActorKey("Wallet", "w")) is None


async def test_a_base_of_newer_software_stays_where_releases_between_could_only_make_a_lesser_one(
    store: Store, wallets: Wallets
) -> None:
    await write_at(store, "1.1.0")
    newest, new, old = wallets.suite, wallets.release("2.0.0"), wallets.release("1.1.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await save(store, old, amount=8)
    before = await stored(store)

    for _ in range(2):
        assert await load(store, new) == {"money": {"amount": 8, "currency": "EUR"}, "name": "ann"}
    assert (await stored(store))[:4] == before[:4]
    async with held(store, new) as activation:
        value: Any = await activation.state().migrate_and_load()
        for amount in (9, 10):
            value["money"]["amount"] = amount
            await activation.persist()
            assert await value_of(store) == {"amount": amount, "name": "ann"}
            assert activation.state().value == {"money": {"amount": amount, "currency": "EUR"}, "name": "ann"}

    assert await load(store, newest) == {
        "money": {"amount": 10, "currency": "EUR"}, "name": "ann", "notes": ["n"]
    }  # fmt: skip
