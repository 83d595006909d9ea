"""Calls on nodes that support less than the write version: they travel to those that support it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, action, errors
from lazymig.testing.releases import release
from tests.wallets import version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store


class Wallet(Actor):
    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"paid": 0})

    @action
    async def pay(self) -> int:
        self.state.value["paid"] += 1
        await self.state.persist()
        paid: int = self.state.value["paid"]
        return paid


def make_suite() -> Suite:
    suite = Suite("wallets")
    wallet = suite.actor_type("Wallet", Wallet, state="wallet")

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @wallet.migration("1.1.0")
    def more(state: Any, context: Any) -> None:
        state["more"] = True

    @more.down
    def no_more(state: Any, context: Any) -> None:
        state.pop("more", None)

    return suite


@pytest.mark.parametrize("actor", ["w", "of nobody"])
async def test_calls_go_to_who_supports_the_write_version_though_it_is_a_minor_one(store: Store, actor: str) -> None:
    old, new = release(make_suite(), "1.0.0"), make_suite()
    async with Node(store, [old], label="old") as at_old:
        assert await at_old.call("Wallet", "w", "pay") == 1
    await write_at(store, "1.1.0")
    async with (
        Node(store, [old], label="old") as at_old,
        Node(store, [old], label="old, too"),
        Node(store, [new], label="new"),
        Node(store, label="client") as client,
    ):
        first = await at_old.call("Wallet", actor, "pay")
        assert first == (2 if actor == "w" else 1)
        assert await client.call("Wallet", actor, "pay") == first + 1
    assert actor != "w" or await version_of(store) == "1.1.0"


async def test_without_such_a_node_the_caller_learns_what_is_needed(store: Store) -> None:
    await write_at(store, "1.1.0")
    async with Node(store, [release(make_suite(), "1.0.0")], hand_over_seconds=0.1) as node:
        with pytest.raises(errors.NewerStateError, match=r"1\.1\.0"):
            await node.call("Wallet", "w", "pay")


async def test_an_actor_that_is_active_when_its_type_is_flipped_above_its_node_moves_on(store: Store) -> None:
    old, new = release(make_suite(), "1.0.0"), make_suite()
    async with Node(store, [old], label="old") as at_old, Node(store, [new], label="new"):
        assert await at_old.call("Wallet", "w", "pay") == 1
        await write_at(store, "1.1.0")
        with pytest.raises(errors.NewerStateError):  # what it began, it can't store
            await at_old.call("Wallet", "w", "pay")

        assert await at_old.call("Wallet", "w", "pay") == 2
