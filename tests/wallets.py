"""Wallets whose money gets a currency, and what is stored of them while several releases serve them."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from lazymig import Activation, Node, Suite
from lazymig._records import ActorKey
from lazymig._rulings import Ruled
from lazymig._version import pack, parse, unpack
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig._records import StoredActor
    from lazymig._rulings import Ruling
    from lazymig.store import Store

KEY = ActorKey("Wallet", "w")


def make_hot(state: Any, context: Any) -> None:
    state["hot"] = True


def cool_down(state: Any, context: Any) -> None:
    state.pop("hot", None)


def make_hot_again(state: Any, base: Any, context: Any) -> None:
    state["hot"] = True


def pay_money(entry: Any, context: Any) -> Any:
    return {"money": entry["amount"]}


def pay_amount(entry: Any, context: Any) -> Any:
    return {"amount": entry["money"]}


class Wallets:
    """A suite of four releases, and how often each of its functions ran.

    1.0.0 has ``{"amount": 5}``, 1.1.0 adds an owner's name, 2.0.0 makes it ``{"money": {"amount", "currency"}}`` with a
    `down` that drops the currency, 2.1.0 adds notes. Entries of "payments" have ``{"amount": 5}``, from 2.0.0 on
    ``{"money": 5}``.

    Args:
        actor_type: Its actor type's name.
        is_hotfixed: Whether it has 1.0.1, a late one: it adds ``{"hot": True}``.
        options: More of its actor type.
    """

    def __init__(  # noqa: C901  (a suite)
        self, actor_type: str = "Wallet", *, is_hotfixed: bool = False, **options: Any
    ) -> None:
        self.ran: Counter[str] = Counter()
        self.suite = Suite("wallets")
        options |= {"state": "wallet", "context_factory": lambda activation: activation}
        wallet = self.suite.actor_type(actor_type, **options)
        ran = self.ran

        @wallet.migration("1.0.0")
        def begin(state: Any, context: Any) -> None:
            ran["begin"] += 1
            state.setdefault("amount", 0)

        if is_hotfixed:
            hotfix = wallet.migration("1.0.1", late=True)(make_hot)
            hotfix.down(cool_down)
            hotfix.reconcile(make_hot_again)

        @wallet.migration("1.1.0")
        def name(state: Any, context: Any) -> None:
            ran["name"] += 1
            state["name"] = "nobody"

        @name.down
        def no_name(state: Any, context: Any) -> None:
            ran["no_name"] += 1
            del state["name"]

        @name.reconcile
        def same_name(state: Any, base: Any, context: Any) -> None:
            ran["same_name"] += 1
            state["name"] = base["name"]

        @wallet.migration("2.0.0")
        def money(state: Any, context: Any) -> None:
            ran["money"] += 1
            state["money"] = {"amount": state.pop("amount"), "currency": "USD"}

        @money.down
        def amount(state: Any, context: Any) -> None:
            ran["amount"] += 1
            state["amount"] = state.pop("money")["amount"]

        @money.reconcile
        def same_currency(state: Any, base: Any, context: Any) -> None:
            ran["same_currency"] += 1
            state["money"]["currency"] = base["money"]["currency"]

        money.entries("payments")(pay_money).down(pay_amount)

        @wallet.migration("2.1.0")
        def notes(state: Any, context: Any) -> None:
            ran["notes"] += 1
            state["notes"] = []

        @notes.down
        def no_notes(state: Any, context: Any) -> None:
            del state["notes"]

        @notes.reconcile
        def same_notes(state: Any, base: Any, context: Any) -> None:
            ran["same_notes"] += 1
            state["notes"] = base["notes"]

    def release(self, version: str) -> Suite:
        """Return an older release."""
        return release(self.suite, version)


@asynccontextmanager
async def held(store: Store, suite: Suite, **options: Any) -> AsyncIterator[Activation]:
    """Hold the wallet on a node of a release."""
    async with Node(store, [suite], **options) as node, node.activate("Wallet", "w") as activation:
        yield activation


async def load(store: Store, suite: Suite) -> Any:
    """Bring the wallet up on a node of a release; return its value."""
    async with held(store, suite) as activation:
        return await activation.state().migrate_and_load()


async def save(store: Store, suite: Suite, **changes: Any) -> Any:
    """Bring the wallet up on a node of a release, change it and store it; return its value."""
    async with held(store, suite) as activation:
        value = await activation.state().migrate_and_load(default={})
        value.update(changes)
        await activation.persist()
        return value


async def write_at(store: Store, version: str | None, actor_type: str = "Wallet") -> None:
    """Set the write version, asking nobody."""

    def ruling() -> Ruling:
        packed = None if version is None else pack(parse(version))
        return Ruled(None, {actor_type: packed})
        yield

    await store.rule(ruling, is_change=True)


async def stored(store: Store, key: ActorKey = KEY) -> StoredActor:
    """Return what is stored of an actor."""
    found = await store.read(key)
    assert found is not None
    return found


async def value_of(store: Store, name: str = "wallet") -> Any:
    """Return a state as it is stored."""
    found = await stored(store)
    return orjson.loads(found.states[name]) if name in found.states else None


async def base_of(store: Store) -> dict[str, Any] | None:
    """Return the states of the base, None without one."""
    found = await stored(store)
    if found.base is None:
        return None
    return {name: None if kept.data is None else orjson.loads(kept.data) for name, kept in found.base.states.items()}


async def version_of(store: Store) -> str:
    """Return the version of the stamp."""
    found = await stored(store)
    assert found.stamp is not None
    return str(unpack(found.stamp.applied.highest))
