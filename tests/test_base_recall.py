"""What an activation takes for its actor's: after commits that were refused, and once the actor is a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, errors
from lazymig.testing.releases import release
from tests.wallets import Wallets, base_of, held, load, save, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}
GBP = {"amount": 7, "currency": "GBP"}


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


def make_failing() -> Suite:
    """Return a suite whose 2.0.0 converts all entries at once, and raises at each of them."""
    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet")

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @wallet.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        state["two"] = True

    @two.down
    def one(state: Any, context: Any) -> None:
        del state["two"]

    @two.entries("log", eager=True)
    def convert(entry: Any, context: Any) -> None:
        raise RuntimeError("boom")

    @convert.down
    def convert_back(entry: Any, context: Any) -> None:
        pass

    return suite


@pytest.mark.parametrize("then", ["load", "put"])
async def test_what_a_refused_commit_would_have_stored_is_forgotten(
    store: Store, small_chunks: None, then: str
) -> None:
    """Unpinned meanwhile, the projection becomes a migration, whose conversion is stored in part and fails."""
    suite = make_failing()
    await write_at(store, "1.0.0")
    async with held(store, release(suite, "1.0.0")) as activation:
        await activation.state().migrate_and_load(default={"n": 1})
        await activation.table("log").put("k", 1)
        await activation.persist()

    async with held(store, suite) as activation:
        await write_at(store, None)
        with pytest.raises(errors.MigrationFailedError):
            await activation.state().migrate_and_load()
        if then == "load":
            assert await activation.state().load() == {"n": 1}
        else:
            await activation.state("other").load()
            await activation.table("log").put("l", 2)
            await activation.persist()

    assert (await value_of(store), await version_of(store)) == ({"n": 1}, "1.0.0")


async def test_a_new_actor_of_the_same_activation_is_stamped_with_what_it_has_itself(
    store: Store, wallets: Wallets
) -> None:
    newest, new = wallets.suite, wallets.release("2.0.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])

    async with held(store, new) as activation:
        main = activation.state()
        await main.migrate_and_load()
        await main.clear()
        value: Any = {"money": EUR, "name": "bob"}
        main.value = value
        await main.persist()
        assert await version_of(store) == "2.0.0"
        value["name"] = "carl"
        await main.persist()
        assert await version_of(store) == "2.0.0"

    assert await load(store, newest) == {"money": EUR, "name": "carl", "notes": []}


async def test_the_base_of_a_new_main_state_has_nothing_of_the_one_that_was_cleared(
    store: Store, wallets: Wallets
) -> None:
    newest, new = wallets.suite, wallets.release("2.0.0")
    await write_at(store, "1.1.0")
    async with held(store, newest) as activation:
        await activation.state().migrate_and_load(default={"money": EUR, "name": "ann", "notes": ["n"]})
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()

    async with held(store, new) as activation:
        await activation.state().migrate_and_load()
        await activation.state().clear()
        await activation.state().migrate_and_load()
        activation.state().value = {"money": GBP, "name": "bob"}
        await activation.persist()

    assert await base_of(store) == {"wallet": {"money": GBP, "name": "bob"}, "other": 1}
    assert await load(store, new) == {"money": GBP, "name": "bob"}
    assert await load(store, newest) == {"money": GBP, "name": "bob", "notes": []}


@pytest.mark.parametrize("pinned_at", ["1.1.0", "2.0.0"])
async def test_the_stamp_stays_at_the_write_version_however_often_a_release_between_stores(
    store: Store, wallets: Wallets, pinned_at: str
) -> None:
    newest, new = wallets.suite, wallets.release("2.0.0")
    await write_at(store, pinned_at)
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    versions: list[str] = []

    async with held(store, new) as activation:
        value: Any = await activation.state().migrate_and_load()
        await write_at(store, "2.0.0")
        for number in range(3):
            value["name"] = f"{number}"
            await activation.persist()
            versions.append(await version_of(store))

    assert versions == ["2.0.0"] * 3
    assert await load(store, newest) == {"money": EUR, "name": "2", "notes": ["n"]}


def make_colored() -> Suite:
    """Return a suite whose way down from 2.0.0 drops a color, and whose 2.1.0 changes nothing."""
    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet")

    def nothing(state: Any, context: Any) -> None:
        pass

    def drop_color(state: Any, context: Any) -> None:
        state.pop("color", None)

    def same_color(state: Any, base: Any, context: Any) -> None:
        if "color" in base:
            state["color"] = base["color"]

    def same(state: Any, base: Any, context: Any) -> None:
        pass

    wallet.migration("1.0.0")(nothing)
    color = wallet.migration("2.0.0")(nothing)
    color.down(drop_color)
    color.reconcile(same_color)
    more = wallet.migration("2.1.0")(nothing)
    more.down(nothing)
    more.reconcile(same)
    return suite


async def test_each_persist_of_one_activation_renews_the_base(store: Store) -> None:
    newest = make_colored()
    new = release(newest, "2.0.0")
    await write_at(store, "1.0.0")
    await save(store, newest, n=1)

    async with held(store, new) as activation:
        value: Any = await activation.state().migrate_and_load()
        value["n"] = 2
        await activation.persist()
        value["color"] = "red"
        await activation.persist()

    assert await value_of(store) == {"n": 2}
    assert await load(store, new) == {"n": 2, "color": "red"}
    assert await load(store, newest) == {"n": 2, "color": "red"}


@dataclass
class Purse:
    amount: int


async def test_a_typed_handle_that_the_new_shape_does_not_fit_leaves_the_others_as_they_are(
    store: Store, wallets: Wallets
) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann")
    async with held(store, wallets.suite) as activation:
        main, other = activation.state(type=Purse), activation.state("other")
        assert await main.load() == Purse(3)
        await other.load()
        other.value = 5

        with pytest.raises(errors.CorruptStateError, match="doesn't fit Purse"):
            await activation.state("third").migrate_and_load()

        assert other.value == 5
        assert (main.is_loaded, activation.state("third").is_loaded) == (False, False)
