"""Commits under a pin whose outcome nobody knows: what the activation has in memory is what is stored."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import pytest

from lazymig import Activation, Node, Suite, errors
from lazymig.testing import Fault, FaultyStore
from tests.wallets import Wallets, load, save, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}
How = Literal["error", "cancel", "interrupt"]
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


def make_inferring(ran: list[Any]) -> Suite:
    """Return a suite whose wallets say their version themselves, and note what 2.0.0 is given."""
    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet", infer_version=lambda value: value["schema"])

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @wallet.migration("2.0.0")
    def cents(state: Any, context: Any) -> None:
        ran.append(dict(state))
        state["n"] *= 100

    return suite


async def fail(faulty: FaultyStore, activation: Activation, fault: Fault) -> None:
    """Let a persist fail by a fault of its first store call."""
    persisting = asyncio.create_task(activation.persist())
    faulty.arm(fault, persisting)
    with suppress(errors.StoreUnavailableError, asyncio.CancelledError):
        await persisting
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


@pytest.mark.parametrize(
    ("when", "how"),
    [("before", "error"), ("before", "cancel"), ("after", "error"), ("after", "cancel"), ("after", "interrupt")],
)
async def test_a_version_is_inferred_anew_once_a_commit_turns_out_to_have_stored_another_main_state(
    store: Store, when: When, how: How
) -> None:
    ran: list[Any] = []
    suite = make_inferring(ran)
    await store.insert("Wallet", "wallet", [("w", b'{"schema":"1.0.0","n":1}')])
    faulty = FaultyStore(store)
    async with Node(faulty, [suite], drain_on_sigterm=False) as node, node.activate("Wallet", "w") as activation:
        value: Any = await activation.state().load()
        value.update(schema="2.0.0", n=700)
        await fail(faulty, activation, Fault(0, when, how))

        value = await activation.state().migrate_and_load()

        assert value["n"] == (700 if when == "after" else 100)
        assert len(ran) == (0 if when == "after" else 1)
