"""Several states of an actor while a write version is below what the software supports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors, rollout
from lazymig.testing.releases import release
from tests.wallets import Wallets, base_of, held, load, save, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}


class Moves:
    """2.0.0 moves x from the main state to another one, and back down."""

    def __init__(self) -> None:
        self.projections: list[bool] = []
        self.suite = Suite("moves")
        moves = self.suite.actor_type("Wallet", state="wallet", context_factory=lambda activation: activation)

        @moves.migration("1.0.0")
        def begin(state: Any, context: Any) -> None:
            self.projections.append(context.is_projection)

        @moves.migration("2.0.0")
        async def move(state: Any, context: Any) -> None:
            self.projections.append(context.is_projection)
            other = context.state("other")
            await other.migrate_and_load(default={"y": 0})
            other.value["x"] = state.pop("x")
            await other.persist()

        @move.down
        async def move_back(state: Any, context: Any) -> None:
            other = context.state("other")
            await other.load()
            state["x"] = other.value.pop("x")
            await other.persist()

        @move.reconcile
        async def moved(state: Any, base: Any, context: Any) -> None:
            other = context.state("other")
            await other.load()
            other.value["seen"] = other.base
            await other.persist()


async def test_all_states_are_brought_down_together_and_kept_together(store: Store) -> None:
    moves = Moves()
    new, old = moves.suite, release(moves.suite, "1.0.0")
    await write_at(store, "1.0.0")
    async with held(store, new) as activation:
        main, other = activation.state(), activation.state("other")
        await main.migrate_and_load(default={"a": 1})
        await other.migrate_and_load(default={"x": 1, "y": 2})
        await activation.persist()
        assert other.value == {"x": 1, "y": 2}
        other.value["x"] = 5
        await other.persist()
        assert (main.value, other.value) == ({"a": 1}, {"x": 5, "y": 2})

    assert (await value_of(store), await value_of(store, "other")) == ({"a": 1, "x": 5}, {"y": 2})
    assert await base_of(store) == {"wallet": {"a": 1}, "other": {"x": 5, "y": 2}}

    await save(store, old, x=0)  # the main state only: the base of the other one is out of date with it
    async with held(store, new) as activation:
        assert await activation.state("other").migrate_and_load() == {
            "x": 0, "y": 2, "seen": {"x": 5, "y": 2}
        }  # fmt: skip
        assert await activation.state().migrate_and_load() == {"a": 1}


async def test_migrations_are_told_when_they_are_projections(store: Store) -> None:
    moves = Moves()
    new, old = moves.suite, release(moves.suite, "1.0.0")
    await store.insert("Wallet", "wallet", [("w", b'{"x":1}')])
    await write_at(store, "1.0.0")
    await load(store, new)
    assert moves.projections == [False, True]
    await save(store, old, x=2)
    await write_at(store, "2.0.0")

    await load(store, new)  # for good now, but it ran before as a projection

    assert moves.projections == [False, True, True]
    async with held(store, new) as activation:
        assert not activation.is_projection


async def test_a_down_writes_no_entries(store: Store) -> None:
    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet", context_factory=lambda activation: activation)

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @begin.down
    async def to_table(state: Any, context: Any) -> None:
        await context.table("log").put("k", 1)

    await write_at(store, "0.0.0")
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load(default={"n": 1})
        with pytest.raises(errors.LazymigError, match="writes to a table"):
            await activation.persist()


async def test_states_left_by_a_clear_of_the_main_state_stay_readable_for_older_software(store: Store) -> None:
    wallets = Wallets()
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    await write_at(store, "1.1.0")
    async with held(store, new) as activation:
        await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
        await activation.state().clear()

    assert await version_of(store) == "1.1.0"
    async with held(store, old) as activation:
        assert await activation.state("other").migrate_and_load() == 1


async def test_another_state_that_newer_software_stores_without_a_main_state_is_named_by_the_gate_of_rolling_back(
    store: Store,
) -> None:
    """Nothing brings it down, so it gets the stamp of the newer software although the type is written below."""
    wallets = Wallets()
    new, old = wallets.release("2.0.0"), wallets.release("1.1.0")
    async with Node(store, [old], drain_on_sigterm=False) as older, Node(store, [new], drain_on_sigterm=False) as newer:
        assert (await rollout.pin(store, "Wallet", "1.1.0")).allowed
        async with newer.activate("Wallet", "w") as activation:
            await activation.state("other").migrate_and_load(default=1)
            await activation.persist()

        assert await version_of(store) == "2.0.0"
        async with older.activate("Wallet", "w") as activation:
            with pytest.raises(errors.NewerStateError):
                await activation.state("other").migrate_and_load()
        (reason,) = (await rollout.gate_roll_back(store, "Wallet", "1.1.0")).reasons
        assert (reason.code, reason.count, reason.actors) == ("actors_newer", 1, ("w",))


def make_inferring(*, from_schema: bool = False) -> Suite:
    """Return a suite that infers 2.0.0 of wallets with money; or what they say themselves."""

    def infer(value: Any) -> str:
        if from_schema:
            return str(value["schema"])
        return "2.0.0" if "money" in value else "1.0.0"

    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet", infer_version=infer)

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @wallet.migration("2.0.0")
    def money(state: Any, context: Any) -> None:
        state["money"] = {"amount": state.pop("amount"), "currency": "USD"}

    @money.down
    def amount(state: Any, context: Any) -> None:
        state["amount"] = state.pop("money")["amount"]

    return suite


async def test_a_version_inferred_above_the_write_version_is_brought_down_and_kept(store: Store) -> None:
    await store.insert("Wallet", "wallet", [("w", b'{"money":{"amount":7,"currency":"EUR"}}')])
    await write_at(store, "1.0.0")

    for _ in range(2):
        assert await load(store, make_inferring()) == {"money": EUR}
        assert (await value_of(store), await version_of(store)) == ({"amount": 7}, "1.0.0")
        assert await base_of(store) == {"wallet": {"money": EUR}}


async def test_a_version_inferred_above_the_write_version_is_brought_down_after_load_alone(store: Store) -> None:
    suite = make_inferring(from_schema=True)
    await store.insert("Wallet", "wallet", [("w", b'{"schema":"2.0.0","money":{"amount":7,"currency":"EUR"}}')])
    await write_at(store, "1.0.0")
    async with held(store, suite) as activation:
        value: Any = await activation.state().load()
        value["n"] = 1
        await activation.persist()

    assert await value_of(store) == {"schema": "2.0.0", "amount": 7, "n": 1}
    assert await version_of(store) == "1.0.0"
    assert await load(store, suite) == {"schema": "2.0.0", "money": EUR, "n": 1}


@pytest.mark.parametrize("is_pinned_first", [False, True])
async def test_the_base_of_a_main_state_that_was_created_twice_stored_has_what_its_creator_has(
    store: Store, *, is_pinned_first: bool
) -> None:
    wallets = Wallets()
    newest, new = wallets.suite, wallets.release("2.0.0")
    if is_pinned_first:
        await write_at(store, "1.1.0")
    async with held(store, newest) as activation:
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
    await write_at(store, "1.1.0")
    async with held(store, new) as activation:
        value: Any = await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
        await activation.persist()
        value["name"] = "bob"
        await activation.persist()

    assert await load(store, newest) == {"money": EUR, "name": "bob", "notes": []}
    await save(store, newest, name="carl")
    assert await load(store, newest) == {"money": EUR, "name": "carl", "notes": []}
