"""Going back with one actor: what it was before a major version comes back byte for byte, or nothing is changed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Node, Suite, errors, rollout
from lazymig._bases import BaseWrite, Kept
from lazymig._records import ActorKey, Claim, Commit, Fence, NodeRecord, Previous, Stamp
from lazymig.testing import FaultyStore
from lazymig.testing.releases import release
from lazymig.testing.store_suite import applied
from tests.wallets import KEY, Wallets, held, load, save, stored, version_of, write_at

if TYPE_CHECKING:
    from lazymig._records import StoredActor
    from lazymig.store import Store

ONE = Stamp(applied("1.0.0", "1.1.0"), applied("1.0.0", "1.1.0"))


class Fleet:
    """Releases of wallets."""

    def __init__(self, **options: Any) -> None:
        wallets = Wallets(**({"keep_previous": True} | options))
        self.first, self.old, self.new = (wallets.release(version) for version in ("1.0.0", "1.1.0", "2.0.0"))
        self.careless = Wallets().release("2.0.0")


FLEET = Fleet()


def boats(**options: Any) -> Suite:
    """Return a suite of three releases."""
    suite = Suite("boats")
    boat = suite.actor_type("Boat", **options)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        boat.migration(version)(lambda state, context: None)
    return suite


@pytest.fixture
async def before(store: Store) -> StoredActor:
    """Store a wallet by release 1.1.0."""
    return await store_old(store)


async def store_old(store: Store) -> StoredActor:
    await save(store, FLEET.old, amount=5, name="ann")
    return await stored(store)


async def refused(store: Store, what: str, key: ActorKey = KEY) -> errors.RestoreError:
    """Restoring is refused, and changes nothing."""
    found, kept = await store.read(key), await store.previous(key)
    with pytest.raises(errors.RestoreError, match=what) as caught:
        await rollout.restore(store, key)
    assert caught.value.key == key
    assert (await store.read(key), await store.previous(key)) == (found, kept)
    assert await store.nodes() == []
    return caught.value


async def expect(store: Store, before: StoredActor) -> None:
    """The actor is what it was; its revision went on, and nobody has it."""
    found = await stored(store, before.key)
    assert (found.stamp, dict(found.states)) == (before.stamp, dict(before.states))
    assert (found.base, found.owner) == (None, None)
    assert found.revision > before.revision
    assert await store.previous(before.key) is None
    assert await store.nodes() == []


# --- what is put back ------------------------------------------------------------------------------------------------


async def test_states_and_stamp_are_byte_for_byte_what_they_were(store: Store, before: StoredActor) -> None:
    await save(store, FLEET.new, money={"amount": 9, "currency": "EUR"})
    restored = await rollout.restore(store, KEY)

    await expect(store, before)
    assert before.stamp is not None
    assert (restored.key, restored.info, str(restored.version)) == (KEY, before.stamp.info, "1.1.0")
    assert restored.replaced is not None
    assert str(restored.replaced.version) == "2.0.0"
    assert (restored.states, restored.removed) == (("wallet",), ())
    assert restored.revision == (await stored(store)).revision


async def test_states_created_since_are_gone_and_removed_ones_are_back(store: Store) -> None:
    async with held(store, FLEET.old) as activation:
        for name in (None, "same", "changed", "removed"):
            await activation.state(name).migrate_and_load(default={"amount": 1})
        await activation.persist()
    before = await stored(store)
    async with held(store, FLEET.new) as activation:
        for name in (None, "changed", "removed"):
            await activation.state(name).migrate_and_load()
        await activation.state("removed").clear()
        await activation.state("created").migrate_and_load(default={})
        activation.state("changed").value["amount"] = 2
        await activation.persist()
    restored = await rollout.restore(store, KEY)

    await expect(store, before)
    assert (restored.states, restored.removed) == (("changed", "removed", "same", "wallet"), ("created",))


async def test_the_bytes_of_an_imported_actor_come_back_without_migration_info(store: Store) -> None:
    await store.insert("Wallet", "wallet", [("w", b'{ "amount": 1e2,\n"\\u00e9": "\\u0041"}')])
    before = await stored(store)
    await load(store, FLEET.first)
    restored = await rollout.restore(store, KEY)

    await expect(store, before)
    assert (restored.info, str(restored.version)) == (None, "0.0.0")


async def test_the_older_release_goes_on_and_the_newer_one_migrates_again_and_keeps_again(
    store: Store, before: StoredActor
) -> None:
    await load(store, FLEET.new)
    await rollout.restore(store, KEY)
    assert await save(store, FLEET.old, amount=6) == {"amount": 6, "name": "ann"}
    between = await stored(store)
    assert await load(store, FLEET.new) == {"money": {"amount": 6, "currency": "USD"}, "name": "ann"}
    assert await store.previous(KEY) == Previous(between.stamp, between.states)
    await rollout.restore(store, KEY)

    await expect(store, between)


async def test_a_newer_state_that_is_no_json_any_more_is_no_hindrance(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    newer = (await stored(store)).stamp
    await put(store, newer, wallet=b"{broken")
    await rollout.restore(store, KEY)

    await expect(store, before)


async def test_what_newer_software_keeps_beside_it_goes(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    base = BaseWrite(applied("2.0.0", "3.0.0"), 1, is_current=True, states={"wallet": Kept(b"{}")})
    await put(store, (await stored(store)).stamp, base)
    await rollout.restore(store, KEY)

    await expect(store, before)


async def test_a_node_that_is_dead_holds_nothing_up(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    await store.register(NodeRecord("gone", "gone", None, 60.0))
    assert isinstance(await store.claim(KEY, Fence("gone", 1)), Claim)
    await store.unregister("gone")
    await rollout.restore(store, KEY)

    await expect(store, before)


async def test_a_write_version_that_is_changed_meanwhile_does_not_matter(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    changes = iter(["2.0.0", "1.1.0"])

    async def gate() -> None:
        if faulty.calls[-1] in {"previous", "commit"} and (version := next(changes, None)):
            await write_at(store, version)

    faulty = FaultyStore(store, gate)
    faulty.calls = ["register"]
    await rollout.restore(faulty, KEY)

    await expect(store, before)
    assert faulty.calls.count("commit") == 2


async def test_the_answer_names_who_takes_the_actor_now(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    releases = {"c": [FLEET.new], "b": [FLEET.old], "a": [FLEET.first], "client": []}
    async with AsyncExitStack() as stack:
        for label, suites in releases.items():
            await stack.enter_async_context(Node(store, suites, label=label))
        restored = await rollout.restore(store, KEY)

    assert [node.label for node in restored.readers] == ["a", "b"]
    assert [node.label for node in restored.migrators] == ["c"]


async def test_the_answer_names_nobody_who_is_below_the_write_version(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    await write_at(store, "2.0.0")
    async with Node(store, [FLEET.new], label="new"), Node(store, [FLEET.old], label="old"):
        restored = await rollout.restore(store, KEY)

    assert ([node.label for node in restored.readers], [node.label for node in restored.migrators]) == ([], ["new"])


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_nothing_is_kept_unless_the_type_says_so(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.careless)

    error = await refused(store, "nothing is kept of it")
    assert str(error).endswith("the way forward is a new migration, or a backup of the store.")


async def test_nothing_is_kept_within_a_major_nor_of_a_new_actor(store: Store) -> None:
    await save(store, FLEET.first, amount=5)
    assert await store.previous(KEY) is None
    await load(store, FLEET.old)
    assert await store.previous(KEY) is None
    await save(store, FLEET.old, amount=6)

    await refused(store, "nothing is kept of it")


@pytest.mark.parametrize(("inferred", "is_kept"), [("0.9.0", True), ("1.0.0", False), ("1.1.0", False)])
async def test_an_actor_without_migration_info_is_at_the_version_that_is_inferred(
    store: Store, inferred: str, *, is_kept: bool
) -> None:
    fleet = Fleet(infer_version=lambda value: inferred)
    await store.insert("Wallet", "wallet", [("w", b'{"amount": 5}')])
    before = await stored(store)
    await load(store, fleet.old)
    assert await store.previous(KEY) == (Previous(None, before.states) if is_kept else None)
    if not is_kept:
        between = await stored(store)
        await load(store, fleet.new)
        assert await store.previous(KEY) == Previous(between.stamp, between.states)


async def test_the_next_major_takes_the_place_of_what_was_kept(store: Store) -> None:
    await store.insert("Wallet", "wallet", [("w", b'{"amount": 5}')])
    await load(store, FLEET.old)
    between = await stored(store)
    await load(store, FLEET.new)
    await rollout.restore(store, KEY)

    await expect(store, between)
    await refused(store, "nothing is kept of it")


async def test_under_a_pin_nothing_is_kept_until_the_flip(store: Store, before: StoredActor) -> None:
    await write_at(store, "1.1.0")
    await save(store, FLEET.new, money={"amount": 7, "currency": "EUR"})
    pinned = await stored(store)
    assert pinned.base is not None
    assert await store.previous(KEY) is None
    await refused(store, "nothing is kept of it")
    await write_at(store, "2.0.0")
    await load(store, FLEET.new)
    assert await store.previous(KEY) == Previous(pinned.stamp, pinned.states)
    await rollout.restore(store, KEY)

    await expect(store, pinned)
    assert orjson.loads(pinned.states["wallet"])["amount"] == 7


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_sweep_keeps_what_it_takes_to_a_new_major(store: Store, *, keeps: bool) -> None:
    suite = Suite("boats")
    boat = suite.actor_type("Boat", keep_previous=keeps)
    boat.migration("0.1.0")(lambda state, context: {"tiny": True, **state})
    boat.migration("1.0.0")(lambda state, context: {"named": True, **state})
    rows = {f"b{number}": b'{"n": %d}' % number for number in range(5)}
    await store.insert("Boat", "state", [*rows.items()])
    assert (await rollout.sweep(store, release(suite, "0.1.0"), "Boat")).migrated == 5
    before = {actor.key: actor for actor in await store.scan("Boat")}
    assert [await store.previous(key) for key in before] == [None] * 5
    assert (await rollout.sweep(store, suite, "Boat")).migrated == 5

    for key, was in before.items():
        assert await store.previous(key) == (Previous(was.stamp, was.states) if keeps else None)
        if keeps:
            await rollout.restore(store, key)
            await expect(store, was)


async def test_what_is_kept_goes_with_the_actor(store: Store, before: StoredActor) -> None:
    await load(store, FLEET.new)
    async with held(store, FLEET.new) as activation:
        await activation.state().migrate_and_load()
        await activation.state().clear()

    assert await store.previous(KEY) is None
    await refused(store, "nothing is kept of it")
    await save(store, FLEET.new, amount=1)
    await refused(store, "nothing is kept of it")


# --- nothing is lost -------------------------------------------------------------------------------------------------


async def test_a_second_restore_loses_nothing_that_was_stored_after_the_first(
    store: Store, before: StoredActor
) -> None:
    await load(store, FLEET.new)
    await rollout.restore(store, KEY)
    await refused(store, "nothing is kept of it")
    await save(store, FLEET.old, amount=6)
    await refused(store, "nothing is kept of it")
    await load(store, FLEET.careless)

    await refused(store, "nothing is kept of it")


@pytest.mark.parametrize("sweeps", [True, False])
async def test_an_actor_that_was_taken_further_is_not_put_back_to_what_it_was_two_majors_ago(
    store: Store, *, sweeps: bool
) -> None:
    await store.insert("Boat", "state", [("a", b'{"n": 1}')])
    key, keeping, careless = ActorKey("Boat", "a"), boats(keep_previous=True), boats()
    await rollout.sweep(store, release(keeping, "1.0.0"), "Boat")
    assert await store.previous(key) is not None
    await rollout.sweep(store, release(careless, "1.1.0"), "Boat")
    assert await store.previous(key) is not None
    if sweeps:
        await rollout.sweep(store, careless, "Boat")
    else:
        async with Node(store, [careless]) as node, node.activate("Boat", "a") as activation:
            await activation.state().migrate_and_load()

    await refused(store, "nothing is kept of it", key)


async def test_an_actor_that_was_brought_down_is_not_put_back_to_what_it_was_before_it_came_up(
    store: Store, before: StoredActor
) -> None:
    await load(store, FLEET.new)
    await write_at(store, "1.1.0")
    await save(store, FLEET.new, notes="new")
    assert await version_of(store) == "1.1.0"
    await refused(store, "nothing is kept of it")
    await save(store, FLEET.old, amount=6)
    await write_at(store, None)
    await load(store, FLEET.careless)

    await refused(store, "nothing is kept of it")


async def test_what_is_kept_of_an_actor_that_is_no_major_above_it_is_not_put_back(
    store: Store, before: StoredActor
) -> None:
    await load(store, FLEET.new)
    await put(store, ONE, wallet=b'{"amount":7}')

    await refused(store, r"it is at 1\.1\.0, and what is kept of it at 1\.1\.0")


# --- while it is active ----------------------------------------------------------------------------------------------


async def test_an_active_actor_is_left_alone_and_its_node_is_named(store: Store, before: StoredActor) -> None:
    async with Node(store, [FLEET.new]) as node, node.activate("Wallet", "w") as activation:
        value: Any = await activation.state().migrate_and_load()
        found = await store.read(KEY)
        with pytest.raises(errors.ActorLockedError, match="lazymig nodes drain") as caught:
            await rollout.restore(store, KEY)
        assert caught.value.owner == node.node_id
        assert await store.read(KEY) == found
        assert [one.node_id for one in await store.nodes()] == [node.node_id]
        value["amount"] = 8
        await activation.persist()
    await rollout.restore(store, KEY)

    await expect(store, before)


async def test_an_actor_that_was_never_stored_leaves_no_trace(store: Store) -> None:
    await refused(store, "nothing is kept of it", ActorKey("Wallet", "nobody"))

    assert list(await store.types()) == []


async def test_a_store_that_is_none_is_refused() -> None:
    with pytest.raises(errors.DefinitionError, match="open_store"):
        await rollout.restore("sqlite:///x.db", KEY)  # type: ignore[arg-type]  # on purpose


async def put(store: Store, stamp: Stamp | None, base: BaseWrite | None = None, **writes: bytes | None) -> None:
    """Store the wallet beside all software."""
    await store.register(NodeRecord("hand", "hand", None, 60.0))
    claim = await store.claim(KEY, Fence("hand", 1))
    assert isinstance(claim, Claim)
    await store.commit(Commit(KEY, claim.fence, claim.actor.revision, stamp, writes, base=base))
    await store.unregister("hand")
