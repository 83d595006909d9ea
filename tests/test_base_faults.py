"""Commits under a pin whose outcome nobody knows: what the activation has in memory is what is stored."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import pytest

from lazymig import Activation, Node, errors
from lazymig.testing import Fault, FaultyStore
from tests.wallets import Wallets, load, save, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}
How = Literal["error", "cancel"]
When = Literal["before", "after"]


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


@pytest.fixture(params=["error", "cancel"])
def how(request: pytest.FixtureRequest) -> How:
    found: How = request.param
    return found


@pytest.fixture(params=["before", "after"])
def when(request: pytest.FixtureRequest) -> When:
    found: When = request.param
    return found


async def fail(faulty: FaultyStore, activation: Activation, fault: Fault) -> None:
    """Let a persist fail by a fault of its first store call."""
    faulty.arm(fault)
    with suppress(errors.StoreUnavailableError, asyncio.CancelledError):
        await asyncio.create_task(activation.persist())
    assert faulty.calls == ["commit"]
    assert faulty.has_struck
    faulty.arm(None)


async def test_a_persist_after_load_alone_brings_down_once_whatever_became_of_the_one_before(
    store: Store, wallets: Wallets, when: When, how: How
) -> None:
    new = wallets.release("2.0.0")
    await save(store, new, money=EUR, name="ann")
    await write_at(store, "1.1.0")
    faulty = FaultyStore(store)
    async with Node(faulty, [new], drain_on_sigterm=False) as node, node.activate("Wallet", "w") as activation:
        value: Any = await activation.state().load()
        value["name"] = "bob"
        await fail(faulty, activation, Fault(0, when, how))
        assert await version_of(store) == ("2.0.0" if when == "before" else "1.1.0")
        value["name"] = "carl"
        await activation.persist()

    assert await value_of(store) == {"amount": 7, "name": "carl"}
    assert await version_of(store) == "1.1.0"
    assert await load(store, new) == {"money": EUR, "name": "carl"}


async def test_states_that_nothing_keeps_are_stored_with_another_state_as_they_were_last_stored(
    store: Store, wallets: Wallets, when: When, how: How
) -> None:
    newest, new, old = wallets.suite, wallets.release("2.0.0"), wallets.release("1.1.0")
    await write_at(store, "1.1.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await save(store, old, amount=8)
    faulty = FaultyStore(store)
    async with Node(faulty, [new], drain_on_sigterm=False) as node, node.activate("Wallet", "w") as activation:
        value: Any = await activation.state().migrate_and_load()
        other = activation.state("other")
        await other.load()
        value["money"]["amount"] = 9
        await fail(faulty, activation, Fault(0, when, how))
        amount = 9 if when == "after" else 8
        assert (await value_of(store))["amount"] == amount
        other.value = 1
        await other.persist()

    assert (await value_of(store))["amount"] == amount
    assert await value_of(store, "other") == 1
    assert await load(store, newest) == {
        "money": {"amount": amount, "currency": "EUR"}, "name": "ann", "notes": ["n"]
    }  # fmt: skip
