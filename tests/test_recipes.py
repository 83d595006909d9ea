"""The recipes, release by release, with old and new nodes open together and both of them storing at every step."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lazymig import ActorKey, open_store, rollout
from lazymig.errors import MissingMigrationError, WriteVersionError
from suites.recipes import RECIPES
from tests import postgres
from tests.recipe_fleets import Answer, Fleet, Operator, Typist

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from lazymig.store import Store

YES = Answer(allowed=True, codes=())


class Ground(NamedTuple):
    """Where a recipe is carried out.

    Attributes:
        store: The store.
        operator: Makes who asks and acts there, for a type.
    """

    store: Store
    operator: Callable[[str], Operator]


@pytest.fixture(params=["memory", "sqlite", "postgres", pytest.param("commands", marks=pytest.mark.stress)])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    if request.param == "postgres":
        with postgres.schema_url() as url:
            async with open_store(url) as store:
                yield Ground(store, lambda name: Operator(store, name))
        return
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        yield Ground(store, lambda name: Typist(url, name) if request.param == "commands" else Operator(store, name))


def is_no(answer: Answer, *codes: str) -> bool:
    """Tell whether an answer is no, for these reasons and no others."""
    return not answer.allowed and answer.codes == codes


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_pinned", [False, True], ids=["as it is", "pinned"])
async def test_a_field_is_added(ground: Ground, *, is_pinned: bool) -> None:
    ask = ground.operator("Customer")
    async with Fleet(ground.store, RECIPES["add"]) as fleet:
        await fleet.start(1)
        await fleet.take_turns()
        if is_pinned:
            assert await ask("pin", "1.0.0") == YES
        await fleet.start(2)
        await fleet.take_turns()
        assert await ask("gate pin", "1.0.0") == YES
        assert is_no(await ask("gate flip", "1.1.0"), "not_supported")
        assert "nodes_lack" in (await ask("gate retire", "1.1.0")).codes
        if is_pinned:
            with pytest.raises(MissingMigrationError):
                await fleet.start(3)
        await fleet.stop(1)
        await fleet.take_turns()
        if is_pinned:
            assert "write_version_below" in (await ask("gate retire", "1.1.0")).codes
            assert await ask("flip", "1.1.0") == YES
            await fleet.take_turns()
        assert await ask("gate retire", "1.1.0") == YES
        await fleet.start(3)
        await fleet.take_turns()
        await fleet.stop(2)
        await fleet.take_turns()


async def test_a_field_is_deleted(ground: Ground) -> None:
    ask = ground.operator("Contact")
    async with Fleet(ground.store, RECIPES["delete"]) as fleet:
        old = await fleet.start(1)
        await fleet.take_turns()
        assert await ask("pin", "1.0.0") == YES
        await fleet.start(2)
        await fleet.take_turns()
        refused = await ask("flip", "2.0.0")
        assert (refused.codes, refused.nodes) == (("not_supported",), (old.node_id,))
        assert is_no(await ask("unpin"), "cannot_read")
        await fleet.take_turns()
        await fleet.stop(1)
        await fleet.take_turns()
        assert await ask("flip", "2.0.0") == YES
        await fleet.take_turns()
        with pytest.raises(WriteVersionError, match=r"2\.1\.0 \(fax_gone\) has no down"):
            await fleet.start(3)
        assert await ask("unpin") == YES
        await fleet.start(3)
        await fleet.take_turns()
        assert is_no(await ask("pin", "1.0.0"), "cannot_store")
        await fleet.stop(2)
        assert await ask("gate retire", "2.1.0") == YES
        await fleet.start(4)
        await fleet.take_turns()
    found = await ground.store.read(ActorKey("Contact", "legacy"))
    assert found is not None
    assert b"fax" not in found.states["contact"]


async def test_a_field_changes_its_type(ground: Ground) -> None:
    ask = ground.operator("Product")
    async with Fleet(ground.store, RECIPES["retype"]) as fleet:
        await fleet.start(1)
        await fleet.take_turns()
        assert await ask("pin", "1.0.0") == YES
        await fleet.start(2)
        await fleet.take_turns()
        assert is_no(await ask("flip", "2.0.0"), "not_supported")
        await fleet.change_all(1)
        await fleet.stop(1)
        assert await ask("flip", "2.0.0") == YES
        assert is_no(await ask("gate retire", "2.0.0"), "actors_lack", "actors_drifted")
        with pytest.raises(MissingMigrationError):
            await fleet.start(3)
        await fleet.check_all()
        assert await ask("gate retire", "2.0.0") == YES
        await fleet.start(3)
        await fleet.take_turns()
        await fleet.stop(2)
        await fleet.take_turns()


# --- and back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before", "after"), [("add", "1.0.0", "1.1.0"), ("delete", "1.0.0", "2.0.0"), ("retype", "1.0.0", "2.0.0")]
)
async def test_nothing_is_lost_on_the_way_back_before_the_flip_and_after_it(
    store: Store, name: str, before: str, after: str
) -> None:
    recipe = RECIPES[name]
    ask = Operator(store, recipe.type)
    async with Fleet(store, recipe) as fleet:
        await fleet.start(1)
        await fleet.take_turns()
        assert await ask("pin", before) == YES
        await fleet.start(2)
        await fleet.take_turns()
        assert await ask("gate rollback", before) == YES
        await fleet.change_all(2)
        await fleet.stop(2)
        await fleet.take_turns()

        await fleet.start(2)
        await fleet.take_turns()
        await fleet.stop(1)
        assert await ask("flip", after) == YES
        await fleet.take_turns()
        refused = await ask("gate rollback", before)
        assert "write_version_above" in refused.codes
        assert await ask("pin", before) == YES
        await fleet.check_all()
        await fleet.change_all(2)
        assert await ask("gate rollback", before) == YES
        await fleet.start(1)
        await fleet.take_turns()
        await fleet.stop(2)
        await fleet.take_turns()

        await fleet.start(2)
        await fleet.take_turns()


# --- what is last stored is what counts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pin", "after"),
    [
        ("add", "1.0.0", "1.1.0"),
        ("add", None, "1.1.0"),
        ("delete", "1.0.0", "2.0.0"),
        ("retype", "1.0.0", "2.0.0"),
    ],
)
async def test_the_final_copy_takes_no_stale_value_over_a_fresh_one_whatever_the_order_of_writes(
    store: Store, name: str, pin: str | None, after: str
) -> None:
    recipe = RECIPES[name]
    async with Fleet(store, recipe) as fleet:
        await fleet.start(1)
        assert pin is None or await rollout.pin(store, recipe.type, pin)
        await fleet.start(2)
        steps = [(release, action) for release in (1, 2) for action in fleet.actions(release)[1]]
        length = 3 if store.name.startswith("memory") else 2
        orders = product([*steps, (2, "")], repeat=length)  # to read is to store, where older software was the last
        await asyncio.gather(*(play(fleet, orders) for _ in range(8)))
        await fleet.stop(1)
        assert pin is None or await rollout.flip(store, recipe.type, after)
        await fleet.check_all()
        assert await rollout.gate_retire(store, recipe.type, after)
        if name != "delete":
            await fleet.start(3)
        await fleet.check_all()


async def play(fleet: Fleet, orders: Iterator[tuple[tuple[int, str], ...]]) -> None:
    """Let the first two releases act in these orders, each on an actor of its own."""
    for order in orders:
        actor_id = ", ".join(f"{action or 'reads'} by {release}" for release, action in order)
        for release, action in order:
            if action:
                await fleet.change(release, actor_id, action)
            elif actor_id in fleet.truths:
                await fleet.check(release, actor_id)
        if actor_id in fleet.truths:
            await fleet.check(1, actor_id)


async def test_readers_of_the_new_field_see_what_old_writers_store_in_an_actor_that_is_open(store: Store) -> None:
    """The new release holds the actor, lets it go to an old writer, and takes it again: each time it reads anew."""
    async with Fleet(store, RECIPES["retype"]) as fleet:
        await rollout.pin(store, "Product", "1.0.0")
        old, new = await fleet.start(1), await fleet.start(2)
        proxy: Any = new.actor("Product", "p")
        await proxy.set_amount(100, "USD")
        assert await old.call("Product", "p", "price") == 1.0
        for cents in (150, 275):
            async with old.activate("Product", "p") as activation:
                value: Any = await activation.state().migrate_and_load()
                value["price"] = cents / 100
                await activation.persist()
            assert await proxy.amount() == {"cents": cents, "currency": "USD"}
