"""Carts behave as they say on every store: states, a table, and rates from outside."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Node, Suite
from lazymig._version import unpack
from lazymig.errors import MigrationFailedError, NewerStateError
from lazymig.testing import release
from lazymig.transfer import import_states
from suites import carts
from suites.carts import Cart, CartContext, RateSheet, cart, cents_of, to_euros

if TYPE_CHECKING:
    from lazymig.store import Store

KEY = ActorKey("Cart", "ada")
LEGACY = {
    "day": "2024-03-03",
    "items": [{"name": "lamp", "price": "30.00"}],
    "ordered": [
        {"number": 1, "day": "2023-02-01", "items": [{"name": "chair", "price": "100.00"}], "delivered": True},
        {
            "number": 2,
            "day": "2024-01-05",
            "items": [{"name": "nut", "price": "0.05"}, {"name": "desk", "price": "250"}],
        },
        {"number": 3, "day": "2023-08-01", "items": [{"name": "rug", "price": "19.99"}], "delivered": True},
    ],
}
CHAIR = {"name": "chair", "cents": 9380, "dollar_cents": 10000}
RUG = {"name": "rug", "cents": 1833, "dollar_cents": 1999}
HISTORY = {
    "2023-02-01 000001": {"number": 1, "day": "2023-02-01", "items": [CHAIR]},
    "2023-08-01 000003": {"number": 3, "day": "2023-08-01", "items": [RUG]},
}
STATES = {
    "cart": {
        "day": "2024-03-03",
        "items": [{"name": "lamp", "cents": 2772, "dollar_cents": 3000}],
        "orders": 3,
    },
    "ordered": [
        {
            "number": 2,
            "day": "2024-01-05",
            "items": [
                {"name": "nut", "cents": 5, "dollar_cents": 5},
                {"name": "desk", "cents": 22818, "dollar_cents": 25000},
            ],
        }
    ],
}


async def visit(store: Store, suite: Suite) -> tuple[dict[str, Any], dict[str, Any]]:
    """Open the cart with a release; return its states and its history as that reads them."""
    async with Node(store, [suite], hand_over_seconds=0) as node, node.activate(KEY.type, KEY.id) as activation:
        states = {name: await activation.state(name).migrate_and_load() for name in ("cart", "ordered")}
        return states, {key: order async for key, order in activation.table("history").scan()}


async def versions(store: Store) -> dict[str, int]:
    """Return how many entries are stored at which version."""
    counts = await store.tables(KEY)
    return {str(unpack(count.applied.highest)): count.entries for count in counts}


# --- what it does -----------------------------------------------------------------------------------------------------


async def test_what_is_put_into_a_cart_is_ordered_delivered_and_found_in_the_history(store: Store) -> None:
    async with Node(store, [carts.suite]) as node:
        ada = node.actor(cart, KEY.id)
        assert await ada.put("lamp", 2500, "2024-03-04") == 2500
        assert await ada.put("desk", 30000, "2024-03-04") == 32500
        assert await ada.order("2024-03-05") == 1
        await ada.put("rug", 1999, "2024-04-06")
        assert await ada.order("2024-04-06") == 2
        assert await ada.under_way() == [1, 2]

        await ada.deliver(2)

        assert await ada.under_way() == [1]
        assert await ada.had() == [{"number": 2, "day": "2024-04-06", "items": [{"name": "rug", "cents": 1999}]}]
        await ada.deliver(1)
        assert [order["number"] for order in await ada.had()] == [2, 1]
        assert (await ada.spent(), await ada.spent("2024-03"), await ada.spent("2023")) == (34499, 32500, 0)


async def test_an_order_is_delivered_once_and_an_empty_cart_not_ordered(store: Store) -> None:
    async with Node(store, [carts.suite]) as node:
        ada = node.actor(cart, KEY.id)
        with pytest.raises(ValueError, match="empty"):
            await ada.order("2024-03-05")
        await ada.put("lamp", 2500, "2024-03-04")
        number = await ada.order("2024-03-05")
        await ada.deliver(number)
        with pytest.raises(LookupError, match="order 1 is not under way"):
            await ada.deliver(number)

        assert len(await ada.had()) == 1


async def test_a_delivery_moves_an_order_from_the_state_to_the_table_in_one_commit(store: Store) -> None:
    async with Node(store, [carts.suite]) as node:
        ada = node.actor(cart, KEY.id)
        await ada.put("lamp", 2500, "2024-03-04")
        number = await ada.order("2024-03-05")
        before = await store.read(KEY)

        await ada.deliver(number)

        after = await store.read(KEY)
        assert before is not None
        assert after is not None
        assert after.revision == before.revision + 1
        assert (after.states["ordered"], await versions(store)) == (b"[]", {"3.0.0": 1})


# --- from release to release -----------------------------------------------------------------------------------------


async def test_a_legacy_cart_gets_its_states_its_history_and_euros_of_each_orders_day_in_one_commit(
    store: Store,
) -> None:
    await import_states(store, cart, [(KEY.id, LEGACY)])
    before = await store.read(KEY)

    assert await visit(store, carts.suite) == (STATES, HISTORY)

    after = await store.read(KEY)
    assert before is not None
    assert after is not None
    assert after.revision == before.revision + 1
    assert await versions(store) == {"3.0.0": 2}


@pytest.mark.parametrize("versions_on_the_way", [["1.0.0"], ["2.0.0"], ["1.0.0", "2.0.0"], ["3.0.0"]])
async def test_whatever_releases_had_a_cart_its_prices_are_the_same(
    store: Store, versions_on_the_way: list[str]
) -> None:
    await import_states(store, cart, [(KEY.id, LEGACY)])
    for version in versions_on_the_way:
        await visit(store, release(carts.suite, version))

    assert await visit(store, carts.suite) == (STATES, HISTORY)


async def test_the_history_is_converted_when_it_is_read_and_stored_when_the_cart_is_changed(store: Store) -> None:
    await import_states(store, cart, [(KEY.id, LEGACY)])
    await visit(store, release(carts.suite, "2.0.0"))
    async with Node(store, [carts.suite]) as node:
        ada = node.actor(cart, KEY.id)
        assert await ada.put("mat", 100, "2024-03-05") == 2872
        assert await versions(store) == {"2.0.0": 2}

        assert await ada.spent("2023-08") == 1833
        assert await versions(store) == {"2.0.0": 2}
        await ada.put("mat", 100, "2024-03-05")

        assert await versions(store) == {"2.0.0": 1, "3.0.0": 1}
        assert await ada.had() == list(reversed(HISTORY.values()))


async def test_the_release_that_counts_in_dollars_is_kept_out_of_a_cart_in_euros(store: Store) -> None:
    await import_states(store, cart, [(KEY.id, LEGACY)])
    async with (
        Node(store, [release(carts.suite, "2.0.0")], hand_over_seconds=0) as old,
        Node(store, [carts.suite]) as new,
    ):
        async with old.activate(KEY.type, KEY.id) as activation:
            value: Any = await activation.state().migrate_and_load()
            assert value["items"] == [{"name": "lamp", "cents": 3000}]
        async with new.activate(KEY.type, KEY.id) as activation:
            assert (await activation.state().migrate_and_load()) == STATES["cart"]
        before = await store.read(KEY)
        async with old.activate(KEY.type, KEY.id) as activation:
            with pytest.raises(NewerStateError, match=r"3\.0\.0"):
                await activation.state().migrate_and_load()
            with pytest.raises(NewerStateError, match=r"3\.0\.0"):
                await activation.table("history").get("2023-02-01 000001")

        assert before is not None
        after = await store.read(KEY)
        assert after is not None
        assert (after.states, after.stamp) == (before.states, before.stamp)


async def test_a_day_without_a_rate_leaves_states_and_history_alone(store: Store) -> None:
    early = {"number": 1, "day": "1999-01-01", "items": [{"name": "chair", "price": "1.00"}]}
    legacy = {"day": None, "items": [], "ordered": [early]}
    await import_states(store, cart, [(KEY.id, legacy)])
    before = await store.read(KEY)

    with pytest.raises(MigrationFailedError, match=r"3\.0\.0 \(euros\).*no rate is known of 1999-01-01"):
        await visit(store, carts.suite)

    after = await store.read(KEY)
    assert after is not None
    assert after._replace(failure=None) == before
    assert await versions(store) == {}


async def test_an_old_order_without_a_rate_fails_when_it_is_read_and_not_before(store: Store) -> None:
    early = {"number": 1, "day": "1999-01-01", "items": [{"name": "chair", "price": "1.00"}], "delivered": True}
    await import_states(store, cart, [(KEY.id, {"day": None, "items": [], "ordered": [early]})])
    await visit(store, release(carts.suite, "2.0.0"))
    async with Node(store, [carts.suite]) as node:
        ada = node.actor(cart, KEY.id)
        await ada.put("lamp", 2500, "2024-03-04")

        with pytest.raises(MigrationFailedError, match=r"1999-01-01 000001.*no rate") as caught:
            await ada.had()

        assert (caught.value.table, caught.value.entry) == ("history", "1999-01-01 000001")
        assert await versions(store) == {"2.0.0": 1}
        assert await ada.put("lamp", 2500, "2024-03-04") == 5000


async def test_the_bank_is_asked_once_for_each_order_that_is_read(store: Store) -> None:
    asked: list[str] = []

    class Counting(RateSheet):
        async def euros_for_a_dollar(self, day: str) -> Decimal:
            asked.append(day)
            return await super().euros_for_a_dollar(day)

    counted = Suite("shop")
    counted_cart = counted.actor_type(
        "Cart",
        Cart,
        state="cart",
        context_factory=lambda one: CartContext(one.state("ordered"), one.table("history"), Counting()),
    )
    for migration in cart.migrations:
        added = counted_cart.migration(migration.version)(migration.function)
        for table, conversion in migration.conversions.items():
            added.entries(table)(conversion.function)
    await import_states(store, cart, [(KEY.id, LEGACY)])
    await visit(store, release(carts.suite, "2.0.0"))
    async with Node(store, [counted]) as node:
        ada = node.actor(counted_cart, KEY.id)
        await ada.under_way()
        assert asked == ["2024-03-03", "2024-01-05"]

        assert (await ada.spent(), await ada.spent()) == (11213, 11213)
        assert asked[2:] == ["2023-02-01", "2023-08-01"]


# --- its functions by themselves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("price", "cents"), [("12.50", 1250), ("0.1", 10), ("90071992547409.93", 9007199254740993)])
def test_prices_become_whole_cents(price: str, cents: int) -> None:
    assert cents_of(price) == cents


def test_a_part_of_a_cent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12\.505 is not in whole cents"):
        cents_of("12.505")


@pytest.mark.parametrize(("day", "cents"), [("2023-01-02", 938), ("2023-07-02", 938), ("2024-01-01", 917)])
async def test_the_rate_is_that_of_the_day_or_the_last_before_it(day: str, cents: int) -> None:
    order = {"day": day, "items": [{"name": "nut", "cents": 1000}]}
    await to_euros(order, RateSheet())
    assert order["items"] == [{"name": "nut", "cents": cents, "dollar_cents": 1000}]
