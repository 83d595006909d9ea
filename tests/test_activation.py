from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Node, Suite, errors, rollout
from lazymig.testing import release

if TYPE_CHECKING:
    from lazymig import ActorType
    from lazymig.store import Store


class Shop:
    """A suite with one type, and what its migrations did."""

    def __init__(self) -> None:
        self.suite = Suite("shop")
        self.ran: list[str] = []
        self.order: ActorType[Any] = self.suite.actor_type("Order", state="main", context_factory=lambda a: a)
        self.order.migration("1.0.0")(self.add_price)
        self.order.migration("2.0.0")(self.move_notes)

    def add_price(self, state: Any, context: Activation) -> None:
        self.ran.append("1.0.0")
        state["price"] = 1

    async def move_notes(self, state: Any, context: Activation) -> Any:
        self.ran.append("2.0.0")
        notes = await context.state("notes").migrate_and_load(default=[])
        notes.append(state.get("note"))
        await context.state("notes").persist()
        return {"price": state["price"]}


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def imported(store: Store, value: bytes = b'{"note":"hi"}', actor_id: str = "a") -> None:
    await store.insert("Order", "main", [(actor_id, value)])


async def test_a_legacy_actor_is_brought_up_and_stamped(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        assert activation.info is None
        value = await activation.state().migrate_and_load()
        assert value == {"price": 1}
        assert activation.info is not None
        assert activation.state("notes").exists

    async with Node(store, [shop.suite]) as node:
        record = await node.inspect(shop.order, "a")
    assert record is not None
    assert record.states == {"main": {"price": 1}, "notes": ["hi"]}
    assert record.info is not None
    assert [str(version) for version in record.info.applied] == ["1.0.0", "2.0.0"]
    assert (str(record.info.version), str(record.info.written_by)) == ("2.0.0", "2.0.0")
    assert record.info.migrated_at is not None
    assert (record.key.id, record.owner, record.quarantine) == ("a", None, None)


async def test_migrations_run_once_whatever_state_asks_and_how_often(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node:
        for _ in range(3):
            async with node.activate("Order", "a") as activation:
                notes, main = activation.state("notes"), activation.state()
                found = await asyncio.gather(*(state.migrate_and_load() for state in (notes, main, notes)))
                assert found == [["hi"], {"price": 1}, ["hi"]]
                await main.migrate_and_load()
    assert shop.ran == ["1.0.0", "2.0.0"]


async def test_a_failed_chain_leaves_every_byte_and_unloads_every_handle(store: Store, shop: Shop) -> None:
    shop.order.migration("3.0.0")(lambda state, context: state["missing"])
    await imported(store)
    before = await store.read((await store.scan("Order"))[0].key)
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        for _ in range(2):
            with pytest.raises(errors.MigrationFailedError, match=r"3\.0\.0"):
                await activation.state().migrate_and_load()
            assert await rollout.retry(store, "Order") == 1
        for state in (activation.state(), activation.state("notes")):
            with pytest.raises(errors.NotLoadedError, match="migrate_and_load"):
                _ = state.value
            with pytest.raises(errors.NotLoadedError):
                await state.persist()
            with pytest.raises(errors.NotLoadedError):
                await state.clear()
        with pytest.raises(errors.NotLoadedError):
            await activation.persist()
    assert before is not None
    after = await store.read(before.key)
    assert after is not None
    assert (after.revision, after.stamp, after.states) == (before.revision, before.stamp, before.states)


@pytest.mark.parametrize("result", [float("nan"), {1, 2}, 2**70, {1: 2}])
async def test_a_migration_that_makes_no_json_fails_and_stores_nothing(store: Store, result: Any) -> None:
    suite = Suite("shop")
    suite.actor_type("Order", state="main").migration("1.0.0")(lambda state, context: {"x": result})
    await imported(store)
    async with Node(store, [suite]) as node, node.activate("Order", "a") as activation:
        with pytest.raises(errors.MigrationFailedError, match=r"\$\.x"):
            await activation.state().migrate_and_load()
    found = (await store.scan("Order"))[0]
    assert (found.states, found.stamp) == ({"main": b'{"note":"hi"}'}, None)


async def test_load_gives_the_stored_value_and_leaves_the_stamp(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        value = await activation.state().load()
        assert value == {"note": "hi"}
        value["note"] = "ho"
        await activation.persist()
        assert activation.info is None
        assert await activation.state().migrate_and_load() == {"price": 1}
        assert await activation.state("notes").load() == ["ho"]
    assert shop.ran == ["1.0.0", "2.0.0"]


async def test_load_of_what_was_never_stored_gives_none(store: Store, shop: Shop) -> None:
    async with Node(store, [shop.suite]) as node, node.activate("Order", "new") as activation:
        state = activation.state()
        assert (await state.load(), state.value, state.exists) == (None, None, False)
        await activation.persist()
        assert await node.inspect("Order", "new") is None
        state.value = {"price": 2}
        await state.persist()
        assert state.exists
        record = await node.inspect("Order", "new")
    assert record is not None
    assert record.info is not None
    assert (str(record.info.version), record.info.migrated_at) == ("2.0.0", None)


async def test_null_is_a_value_and_not_the_lack_of_one(store: Store, shop: Shop) -> None:
    async with Node(store, [shop.suite]) as node:
        async with node.activate("Order", "new") as activation:
            await activation.state("notes").load()
            activation.state("notes").value = None
            await activation.persist()
        async with node.activate("Order", "new") as activation:
            assert await activation.state("notes").migrate_and_load(default=["default"]) is None
            assert activation.state("notes").exists


async def test_defaults_are_copied_and_stored_by_the_first_persist(store: Store, shop: Shop) -> None:
    default: dict[str, Any] = {"tags": []}
    async with Node(store, [shop.suite]) as node:
        for actor_id in ("a", "b"):
            async with node.activate("Order", actor_id) as activation:
                value = await activation.state().migrate_and_load(default=default)
                value["tags"].append(actor_id)
                assert await node.inspect("Order", actor_id) is None
                await activation.persist()
            record = await node.inspect("Order", actor_id)
            assert record is not None
            assert record.states["main"] == {"tags": [actor_id]}
    assert default == {"tags": []}


async def test_a_new_actor_shows_the_stamp_it_will_have(store: Store, shop: Shop) -> None:
    async with Node(store, [shop.suite]) as node, node.activate("Order", "new") as activation:
        assert activation.info is None
        await activation.state().migrate_and_load(default={})
        info = activation.state().info
        assert info is not None
        assert str(info.version) == "2.0.0"


async def test_software_without_migrations_stamps_its_actors_0_0_0(store: Store) -> None:
    suite = Suite("shop")
    suite.actor_type("Order", state="main")
    async with Node(store, [suite]) as node:
        async with node.activate("Order", "new") as activation:
            await activation.state().migrate_and_load(default={"x": 1})
            await activation.persist()
        record = await node.inspect("Order", "new")
    assert record is not None
    assert record.info is not None
    assert (str(record.info.version), record.info.applied) == ("0.0.0", ())


async def test_only_what_changed_is_stored_and_unchanged_means_no_commit(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        main, notes = activation.state(), activation.state("notes")
        await main.migrate_and_load()
        await notes.load()
        await activation.persist()
        assert await revision(store) == 2
        notes.value.append("more")
        await main.persist()
        assert await revision(store) == 2
        await activation.persist()
        assert await revision(store) == 3


async def revision(store: Store) -> int:
    return (await store.scan("Order"))[0].revision


async def test_several_states_are_stored_together_or_not_at_all(store: Store, shop: Shop) -> None:
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        main, notes = activation.state(), activation.state("notes")
        await main.migrate_and_load(default={"price": 1})
        await notes.migrate_and_load(default=[])
        notes.value.append(float("nan"))
        with pytest.raises(errors.InvalidValueError, match=r"state 'notes' of Order 'a'.*\$\[0\] is nan"):
            await activation.persist()
        assert await node.inspect("Order", "a") is None
        notes.value.pop()
        await activation.persist()
        record = await node.inspect("Order", "a")
    assert record is not None
    assert record.states == {"main": {"price": 1}, "notes": []}


async def test_clear_is_a_store_like_any_other(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node:
        async with node.activate("Order", "a") as activation:
            main = activation.state()
            await main.migrate_and_load()
            await activation.state("notes").load()
            await main.clear()
            await main.clear()
            assert (main.value, main.exists) == (None, False)
            record = await node.inspect("Order", "a")
            assert record is not None
            assert record.states == {"notes": ["hi"]}
            await activation.state("notes").clear()
        record = await node.inspect("Order", "a")
        assert record is not None
        assert (record.states, record.revision) == ({}, 4)


async def test_a_cleared_actor_counts_as_new_even_for_older_software(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        await activation.state().migrate_and_load()
        await activation.state("notes").load()
        await activation.state("notes").clear()
        await activation.state().clear()
    async with Node(store, [release(shop.suite, "1.0.0")]) as node, node.activate("Order", "a") as activation:
        assert await activation.state().migrate_and_load(default={"price": 5}) == {"price": 5}
        await activation.persist()
        assert activation.info is not None
        assert str(activation.info.version) == "1.0.0"
        assert await revision(store) == 5


async def test_reloading_drops_what_was_not_persisted(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        value = await activation.state().migrate_and_load()
        assert value is not None
        value["price"] = 99
        assert await activation.state().load() == {"price": 1}
        assert await activation.state().migrate_and_load() == {"price": 1}


async def test_a_migration_can_not_load_its_own_argument(store: Store) -> None:
    suite = Suite("shop")
    order = suite.actor_type("Order", state="main", context_factory=lambda a: a)

    @order.migration("1.0.0")
    async def confused(state: Any, context: Activation) -> None:
        await context.state().load()

    await imported(store)
    async with Node(store, [suite]) as node, node.activate("Order", "a") as activation:
        with pytest.raises(errors.MigrationFailedError, match="first argument"):
            await activation.state().migrate_and_load()


async def test_a_migration_may_clear_another_state(store: Store) -> None:
    suite = Suite("shop")
    order = suite.actor_type("Order", state="main", context_factory=lambda a: a)

    @order.migration("1.0.0")
    async def merge(state: Any, context: Activation) -> None:
        state["notes"] = await context.state("notes").load()
        await context.state("notes").clear()
        assert context.state("notes").value is None

    await imported(store)
    older = release(suite, "0.0.0")
    async with Node(store, [older]) as node, node.activate("Order", "a") as activation:
        await activation.state("notes").migrate_and_load(default=["n"])
        await activation.persist()
    async with Node(store, [suite]) as node, node.activate("Order", "a") as activation:
        assert await activation.state().migrate_and_load() == {"note": "hi", "notes": ["n"]}
        record = await node.inspect("Order", "a")
        assert record is not None
        assert set(record.states) == {"main"}


async def test_context_is_made_once_an_activation_and_only_if_needed(store: Store) -> None:
    made: list[Activation] = []
    suite = Suite("shop")

    def factory(activation: Activation) -> str:
        made.append(activation)
        return "context"

    seen: list[Any] = []
    order = suite.actor_type("Order", state="main", context_factory=factory)
    order.migration("1.0.0")(lambda state, context: seen.append(context))
    order.migration("1.1.0")(lambda state, context: seen.append(context))
    await imported(store)
    async with Node(store, [suite]) as node:
        async with node.activate("Order", "a") as activation:
            await activation.state().migrate_and_load()
            assert activation.context == "context"
            assert made == [activation]
        async with node.activate("Order", "a") as activation:
            await activation.state().migrate_and_load()
    assert seen == ["context", "context"]
    assert len(made) == 1


async def test_unreadable_state_is_neither_replaced_nor_overwritten(store: Store, shop: Shop) -> None:
    await imported(store, b'{"note": tru')
    async with Node(store, [shop.suite]) as node, node.activate("Order", "a") as activation:
        state = activation.state()
        for _ in range(2):
            with pytest.raises(errors.CorruptStateError, match="'main' is no JSON"):
                await state.migrate_and_load(default={})
            with pytest.raises(errors.CorruptStateError):
                await state.load()
        with pytest.raises(errors.NotLoadedError):
            state.value = {}
        with pytest.raises(errors.NotLoadedError):
            await activation.persist()
        with pytest.raises(errors.CorruptStateError):
            await node.inspect("Order", "a")
    assert (await store.scan("Order"))[0].states == {"main": b'{"note": tru'}


async def test_an_ended_activation_reads_and_stores_nothing(store: Store, shop: Shop) -> None:
    await imported(store)
    async with Node(store, [shop.suite]) as node:
        async with node.activate("Order", "a") as activation:
            state = activation.state()
            await state.migrate_and_load()
        state.value["price"] = 7
        for operation in (state.persist, state.load, state.migrate_and_load, state.clear, activation.persist):
            with pytest.raises(errors.ActivationClosedError, match="has ended"):
                await operation()
            if operation in (state.load, state.migrate_and_load):
                with pytest.raises(errors.NotLoadedError):
                    _ = state.value
                break
    assert (await store.scan("Order"))[0].states["main"] == b'{"price":1}'


async def test_release_with_the_last_persist_gives_the_lock_up(store: Store, shop: Shop) -> None:
    async with Node(store, [shop.suite]) as node, Node(store, [shop.suite]) as other:
        async with node.activate("Order", "a") as activation:
            await activation.state().migrate_and_load(default={"price": 1})
            await activation.persist(release=True)
            with pytest.raises(errors.ActivationClosedError):
                await activation.persist()
            async with other.activate("Order", "a", wait_seconds=0) as theirs:
                assert await theirs.state().load() == {"price": 1}
                await theirs.persist(release=True)
        async with node.activate("Order", "a", wait_seconds=0):
            pass
