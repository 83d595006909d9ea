"""Other states that the migrations of one chain share: load plus default, staged until the chain has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Node, Suite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig.store import Store


async def load(activation: Activation) -> None:
    assert await activation.state("notes").load() is None


async def load_without_default(activation: Activation) -> None:
    assert await activation.state("notes").migrate_and_load() is None


async def load_and_clear(activation: Activation) -> None:
    await activation.state("notes").load()
    await activation.state("notes").clear()


@pytest.mark.parametrize("first", [load, load_without_default, load_and_clear])
async def test_a_default_holds_for_a_state_that_an_earlier_migration_found_absent(
    store: Store, first: Callable[[Activation], Awaitable[None]]
) -> None:
    suite = Suite("staged")
    actor_type = suite.actor_type("Order", state="main", context_factory=lambda a: a)

    @actor_type.migration("1.0.0")
    async def look(state: Any, context: Activation) -> None:
        await first(context)

    @actor_type.migration("2.0.0")
    async def note(state: Any, context: Activation) -> None:
        notes = await context.state("notes").migrate_and_load(default=[])
        notes.append(state["note"])

    await store.insert("Order", "main", [("a", b'{"note":"hi"}')])
    async with Node(store, [suite]) as node, node.activate("Order", "a") as activation:
        await activation.state().migrate_and_load()
        assert await activation.state("notes").load() == ["hi"]


async def test_what_a_migration_assigned_stands_against_a_later_default(store: Store) -> None:
    suite = Suite("staged")
    actor_type = suite.actor_type("Order", state="main", context_factory=lambda a: a)

    @actor_type.migration("1.0.0")
    async def assign_null(state: Any, context: Activation) -> None:
        notes = context.state("notes")
        await notes.load()
        notes.value = None

    @actor_type.migration("2.0.0")
    async def read(state: Any, context: Activation) -> None:
        assert await context.state("notes").migrate_and_load(default=[]) is None

    await store.insert("Order", "main", [("a", b"{}")])
    async with Node(store, [suite]) as node, node.activate("Order", "a") as activation:
        await activation.state().migrate_and_load()
        assert activation.state("notes").exists
