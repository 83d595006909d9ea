"""Carts: what somebody may buy, what they have ordered, and what they had; priced in dollars once, in euros now.

What is in the cart changes at every click and is the main state. What was ordered changes seldom and is the state
``ordered``. Orders that were delivered don't change any more, become many, and are entries of the table ``history``.
Prices are whole cents. A migration asks for the rate of the day when something was ordered, so that it comes to the
same result whenever it runs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Protocol

from lazymig import Activation, Actor, State, Suite, action

if TYPE_CHECKING:
    from lazymig.table import Table

suite = Suite("shop")


class Rates(Protocol):
    """A resource outside the actor, in earnest a service of a bank."""

    async def euros_for_a_dollar(self, day: str) -> Decimal:
        """Return the rate of a day, ISO 8601; of one without, that of the last before it.

        Raises:
            LookupError: There is none so early.
        """
        ...


@dataclass
class RateSheet:
    """The rates of this example: a few days."""

    rates: dict[str, str] = field(
        default_factory=lambda: {
            "2023-01-02": "0.9380",
            "2023-07-03": "0.9170",
            "2024-01-02": "0.9127",
            "2024-03-01": "0.9241",
        }
    )

    async def euros_for_a_dollar(self, day: str) -> Decimal:
        """See `Rates`."""
        await asyncio.sleep(0)
        days = [known for known in self.rates if known <= day]
        if not days:
            raise LookupError(f"no rate is known of {day} or before")
        return Decimal(self.rates[max(days)])


@dataclass(frozen=True)
class CartContext:
    """What migrations get besides the cart."""

    ordered: State[Any]
    history: Table
    rates: Rates


class Cart(Actor):
    """Somebody's cart. Prices are cents of euros, days ISO 8601."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.cart = activation.state()
        self.ordered = activation.state("ordered")
        self.history = activation.table("history")

    async def activate(self) -> None:
        """Bring both states up; the history is brought up as it is read."""
        await self.cart.migrate_and_load(default={"items": [], "day": None, "orders": 0})
        await self.ordered.migrate_and_load(default=[])

    @action
    async def put(self, name: str, cents: int, day: str) -> int:
        """Put an item into the cart, and return what all in it costs."""
        cart = self.cart.value
        cart["items"].append({"name": name, "cents": cents})
        cart["day"] = day
        await self.cart.persist()
        return total(cart["items"])

    @action
    async def order(self, day: str) -> int:
        """Order what is in the cart, and return the order's number.

        Raises:
            ValueError: There is nothing in it.
        """
        cart = self.cart.value
        if not cart["items"]:
            raise ValueError("the cart is empty")
        cart["orders"] += 1
        self.ordered.value.append({"number": cart["orders"], "day": day, "items": cart["items"]})
        cart["items"], cart["day"] = [], None
        await self.activation.persist()  # both states together
        number: int = cart["orders"]
        return number

    @action
    async def deliver(self, number: int) -> None:
        """Note that an order was delivered: it moves on to the history.

        Raises:
            LookupError: No such order is under way.
        """
        orders: list[dict[str, Any]] = self.ordered.value
        place = next((place for place, order in enumerate(orders) if order["number"] == number), None)
        if place is None:
            raise LookupError(f"order {number} is not under way")
        order = orders.pop(place)
        await self.history.put(key_of(order), order)
        await self.activation.persist()  # taken from the state and put into the table, or neither

    @action(shared=True)
    async def under_way(self) -> list[int]:
        """Return the numbers of the orders that were not delivered yet."""
        return [order["number"] for order in self.ordered.value]

    @action(shared=True)
    async def had(self, limit: int = 10) -> list[dict[str, Any]]:
        """Return the latest delivered orders, the latest first."""
        return [order async for _, order in self.history.scan(reverse=True, limit=limit)]

    @action(shared=True)
    async def spent(self, period: str = "") -> int:
        """Return what all delivered orders of a period came to, "2024-03" for a month, in cents."""
        return sum([total(order["items"]) async for _, order in self.history.scan(prefix=period)])


def total(items: list[dict[str, Any]]) -> int:
    """Return what items cost together."""
    return sum(item["cents"] for item in items)


def key_of(order: dict[str, Any]) -> str:
    """Return the key of an order in the history, which is in order of days."""
    return f"{order['day']} {order['number']:06}"


cart = suite.actor_type(
    "Cart",
    Cart,
    state="cart",
    context_factory=lambda activation: CartContext(
        activation.state("ordered"), activation.table("history"), RateSheet()
    ),
)


@cart.migration("1.0.0")
async def ordered_apart(state: dict[str, Any], context: CartContext) -> None:
    """Orders become a state of their own, and prices whole cents."""
    ordered = await context.ordered.migrate_and_load(default=[])
    ordered += state.pop("ordered", [])
    state["orders"] = max((order["number"] for order in ordered), default=0)
    for items in (state["items"], *(order["items"] for order in ordered)):
        for item in items:
            item["cents"] = cents_of(item.pop("price"))


def cents_of(price: str) -> int:
    """Return a price such as "12.50" in cents.

    Raises:
        ValueError: It has a part of a cent, which would be lost.
    """
    cents = Decimal(price) * 100
    if cents != int(cents):
        raise ValueError(f"the price {price} is not in whole cents")
    return int(cents)


@cart.migration("2.0.0")
async def delivered_apart(state: dict[str, Any], context: CartContext) -> None:
    """Delivered orders become entries of a table."""
    ordered = await context.ordered.migrate_and_load(default=[])
    under_way = []
    for order in ordered:
        if order.pop("delivered", False):
            await context.history.put(key_of(order), order)
        else:
            under_way.append(order)
    ordered[:] = under_way


@cart.migration("3.0.0")
async def euros(state: dict[str, Any], context: CartContext) -> None:
    """Prices in euros instead of dollars, at the rate of the day."""
    ordered = await context.ordered.migrate_and_load(default=[])
    for priced in (state, *ordered):
        await to_euros(priced, context.rates)


@euros.entries("history")
async def history_in_euros(entry: dict[str, Any], context: CartContext) -> None:
    """Do the same to a delivered order, whenever it is looked at."""
    await to_euros(entry, context.rates)


async def to_euros(priced: dict[str, Any], rates: Rates) -> None:
    """Convert the prices of items by the rate of their day; what was paid in dollars stays on record."""
    if priced["items"]:
        rate = await rates.euros_for_a_dollar(priced["day"])
        for item in priced["items"]:
            item["dollar_cents"] = item["cents"]
            item["cents"] = int((item["cents"] * rate).quantize(Decimal(1), ROUND_HALF_EVEN))
