"""Change a field's type, and its name: a product's price, a number of euros, becomes an amount with a currency.

======= ============ ======================================= ==========================================================
Release Supports     Does                                    Before it is deployed
======= ============ ======================================= ==========================================================
1       1.0.0        stores ``price``
2       2.0.0        stores ``amount``; pinned, ``price``    ``lazymig rollout pin Product 1.0.0``
                     for release 1, and the amount beside it
3       2.0.0, its   knows no price any more                 ``lazymig rollout flip Product 2.0.0``, then
        baseline                                             ``lazymig sweep Product``, and
                                                             ``lazymig gate retire Product 2.0.0``
======= ============ ======================================= ==========================================================

By hand this takes two fields, which the software of both releases has to keep in step, and a last copy of the old field
into the new one, which must not hit what is newer there. Here there is one value and its base. Which of them is newer
is known for each product, so nothing is copied that is out of date: not while release 1 stores, and not in the end.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lazymig import Activation, Actor, Suite, action
from suites._recipes_releases import Recipe, at, retired

suite = Suite("products")


class Product1(Actor):
    """Release 1: a price in euros."""

    default: ClassVar[dict[str, Any]] = {"price": 0.0}

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Bring the state up."""
        await self.state.migrate_and_load(default=self.default)

    @action
    async def set_price(self, price: float) -> None:
        """Change the price."""
        self.state.value["price"] = price
        await self.state.persist()

    @action(shared=True)
    async def price(self) -> float:
        """Return the price."""
        price: float = self.state.value["price"]
        return price


class Product3(Actor):
    """Release 3: an amount, in cents of a currency."""

    default: ClassVar[dict[str, Any]] = {"amount": {"cents": 0, "currency": "EUR"}}

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Bring the state up."""
        await self.state.migrate_and_load(default=self.default)

    @action
    async def set_amount(self, cents: int, currency: str) -> None:
        """Change the amount."""
        self.state.value["amount"] = {"cents": cents, "currency": currency}
        await self.state.persist()

    @action(shared=True)
    async def amount(self) -> dict[str, Any]:
        """Return ``cents`` and ``currency``."""
        amount: dict[str, Any] = self.state.value["amount"]
        return amount


class Product2(Product3):
    """Release 2: the same, and what callers of release 1 ask for."""

    @action
    async def set_price(self, price: float) -> None:
        """Change the amount, not its currency."""
        self.state.value["amount"]["cents"] = round(price * 100)
        await self.state.persist()

    @action(shared=True)
    async def price(self) -> float:
        """Return the amount without its currency."""
        price: float = self.state.value["amount"]["cents"] / 100
        return price


product = suite.actor_type("Product", Product3, state="product")


@product.migration("1.0.0")
def begin(state: dict[str, Any], context: object) -> None:
    """A price is a number: it was a text."""
    state["price"] = float(state["price"])


@product.migration("2.0.0")
def with_currency(state: dict[str, Any], context: object) -> None:
    """An amount with a currency replaces the price."""
    state["amount"] = {"cents": round(state.pop("price") * 100), "currency": "EUR"}


@with_currency.down
def price_alone(state: dict[str, Any], context: object) -> None:
    """Leave the currency out: the base has it."""
    state["price"] = state.pop("amount")["cents"] / 100


@with_currency.reconcile
def same_currency(state: dict[str, Any], base: dict[str, Any], context: object) -> None:
    """Take the price that release 1 stored, in the currency that it couldn't store."""
    state["amount"]["currency"] = base["amount"]["currency"]


CHANGE_A_TYPE = Recipe(
    "Product", suite, (at(suite, "1.0.0", Product1), at(suite, "2.0.0", Product2), retired(suite, Product3, "2.0.0"))
)
