"""Add a field: a customer's city, which was a part of the address so far.

======= ============ ======================================= ==========================================================
Release Supports     Does                                    Before it is deployed
======= ============ ======================================= ==========================================================
1       1.0.0        stores an address
2       1.1.0        stores the city, too; it may differ     nothing: 1.0.0 and 1.1.0 are the same major, so each
                     from the address                        release reads and writes what the other has stored
3       1.1.0, its   has the migration no more: every        ``lazymig sweep Customer``, and
        baseline     customer has a city                     ``lazymig gate retire Customer 1.1.0``
======= ============ ======================================= ==========================================================

Release 1 knows no city, and leaves it as it is when it stores another address. `reconcile` puts that right before
release 2 sees it: the address that release 2 last stored is there as the base.

Where release 1 can't bear a field that it doesn't know, ``lazymig rollout pin Customer 1.0.0`` comes before release 2,
and ``lazymig rollout flip Customer 1.1.0`` after it; `down` makes what is stored meanwhile.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lazymig import Activation, Actor, Suite, action
from suites._recipes_releases import Recipe, at, retired

suite = Suite("customers")


def city_of(address: str) -> str:
    """Return what follows the last comma of an address."""
    return address.rpartition(",")[2].strip()


class Customer1(Actor):
    """Release 1: a customer has an address."""

    default: ClassVar[dict[str, Any]] = {"address": "", "orders": 0}

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Bring the state up."""
        await self.state.migrate_and_load(default=self.default)

    @action
    async def move(self, address: str) -> None:
        """Change the address."""
        self.state.value["address"] = address
        await self.state.persist()

    @action
    async def order(self) -> None:
        """Count an order."""
        self.state.value["orders"] += 1
        await self.state.persist()

    @action(shared=True)
    async def address(self) -> str:
        """Return the address."""
        address: str = self.state.value["address"]
        return address


class Customer2(Customer1):
    """Releases 2 and 3: the city stands by itself, and may be corrected."""

    default: ClassVar[dict[str, Any]] = {**Customer1.default, "city": ""}

    @action
    async def move(self, address: str) -> None:
        """Change the address, and the city with it."""
        self.state.value["city"] = city_of(address)
        await super().move(address)

    @action
    async def correct_city(self, city: str) -> None:
        """Change the city alone."""
        self.state.value["city"] = city
        await self.state.persist()

    @action(shared=True)
    async def city(self) -> str:
        """Return the city."""
        city: str = self.state.value["city"]
        return city


customer = suite.actor_type("Customer", Customer2, state="customer")


@customer.migration("1.0.0")
def begin(state: dict[str, Any], context: object) -> None:
    """Count orders."""
    state.setdefault("orders", 0)


@customer.migration("1.1.0")
def city_apart(state: dict[str, Any], context: object) -> None:
    """Add the city of the address."""
    state["city"] = city_of(state["address"])


@city_apart.down
def no_city(state: dict[str, Any], context: object) -> None:
    """Leave the city out: release 1 has the address."""
    del state["city"]


@city_apart.reconcile
def same_city(state: dict[str, Any], base: dict[str, Any], context: object) -> None:
    """Follow an address that release 1 has changed; else keep the city, which may have been corrected."""
    state["city"] = base["city"] if state["address"] == base["address"] else city_of(state["address"])


ADD_A_FIELD = Recipe(
    "Customer",
    suite,
    (at(suite, "1.0.0", Customer1), at(suite, "1.1.0", Customer2), retired(suite, Customer2, "1.1.0")),
)
