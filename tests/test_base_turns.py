"""What an activation has in memory beside what is stored, while the write version changes and others wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node
from tests.wallets import Wallets, held, load, save, value_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}


@dataclass
class Money:
    amount: int
    currency: str


@dataclass
class Purse:
    money: Money
    name: str


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


async def test_a_change_of_policy_keeps_what_other_handles_have(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann")
    async with held(store, wallets.release("2.0.0")) as activation:
        other = activation.state("other")
        await other.load()
        other.value = 5
        await write_at(store, "1.1.0")

        await activation.state().migrate_and_load()

        assert other.value == 5


async def test_typed_states_are_stored_in_both_shapes(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann", extra=1)
    async with held(store, new) as activation:
        value = await activation.state(type=Purse).migrate_and_load()
        assert value is not None
        value.money.amount = 9
        await activation.persist()
        assert await value_of(store) == {"amount": 9, "name": "ann", "extra": 1}
        await write_at(store, "2.0.0")
        value.name = "bob"
        await activation.persist()

    assert await value_of(store) == {"money": {"amount": 9, "currency": "EUR"}, "name": "bob", "extra": 1}


async def test_an_actor_given_up_by_its_commit_comes_up_from_its_base(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    async with Node(store, [wallets.release("2.0.0")]) as node:
        async with node.activate("Wallet", "w") as activation:
            await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
            await activation.persist(release=True)
        async with node.activate("Wallet", "w") as activation:
            assert await activation.state().migrate_and_load() == {"money": EUR, "name": "ann"}


async def test_persists_at_the_same_time_as_a_flip_each_store_what_they_were_called_with(
    store: Store, wallets: Wallets
) -> None:
    new = wallets.release("2.0.0")
    migration = new.actor_types["Wallet"].migrations[-1]
    down = migration.downgrade
    assert down is not None
    is_down, may_end = asyncio.Event(), asyncio.Event()

    async def slow(state: Any, context: Any) -> None:
        is_down.set()
        await may_end.wait()
        down(state, context)

    migration.downgrade = slow
    await write_at(store, "1.1.0")
    async with held(store, new) as activation:
        value: Any = await activation.state().migrate_and_load(default={"money": dict(EUR), "name": "ann"})
        other = activation.state("other")
        await other.migrate_and_load(default=1)
        first = asyncio.create_task(activation.state().persist())
        await is_down.wait()
        value["money"]["amount"] = 99
        other.value = 5
        more = [asyncio.create_task(one) for one in (other.persist(), activation.state().persist())]
        await write_at(store, "2.0.0")
        may_end.set()
        await asyncio.gather(first, *more)

    assert await load(store, new) == {"money": {"amount": 99, "currency": "EUR"}, "name": "ann"}
    assert await value_of(store, "other") == 5
