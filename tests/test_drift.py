"""Older software of the same major stores over what newer software has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, errors
from lazymig.hooks import DriftRepaired, DriftSeen
from lazymig.testing.releases import release
from tests.wallets import base_of, held, load, save, stored, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store


def make_suite(*, repairs: bool = True) -> Suite:
    """Return three releases: 1.1.0 adds a driver, at first the owner; 1.2.0 the driver's initial."""
    suite = Suite("fleet")
    car = suite.actor_type("Wallet", state="wallet", context_factory=lambda activation: activation)

    @car.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @car.migration("1.1.0")
    def driver_is_owner(state: Any, context: Any) -> None:
        state["driver"] = state["owner"]

    @car.migration("1.2.0")
    def initial(state: Any, context: Any) -> None:
        state["initial"] = state["driver"][0]

    if repairs:

        @driver_is_owner.reconcile
        def same_driver(state: Any, base: Any, context: Any) -> None:
            state["driver"] = state["owner"] if state["owner"] != base["owner"] else base["driver"]

        @initial.reconcile
        async def same_initial(state: Any, base: Any, context: Any) -> Any:
            return {**state, "initial": state["driver"][0]}

    return suite


def releases(*, repairs: bool = True) -> tuple[Suite, Suite, Suite]:
    suite = make_suite(repairs=repairs)
    return release(suite, "1.0.0"), release(suite, "1.1.0"), suite


def drop(name: str) -> Any:
    """Return a way down that drops a field."""
    return lambda state, context: {key: value for key, value in state.items() if key != name}


async def test_an_owner_changed_by_older_software_ends_with_the_driver_in_step(store: Store) -> None:
    old, new, _ = releases()
    await save(store, new, owner="ann", driver="ann")
    await save(store, old, owner="bob")
    assert await version_of(store) == "1.1.0"
    assert await base_of(store) == {"wallet": {"owner": "ann", "driver": "ann"}}
    told: list[Any] = []

    async with held(store, new, hooks=[told.append]) as activation:
        assert await activation.state().migrate_and_load() == {"owner": "bob", "driver": "bob"}

    assert await value_of(store) == {"owner": "bob", "driver": "bob"}
    assert await base_of(store) is None
    (repaired,) = [event for event in told if isinstance(event, DriftRepaired)]
    assert (str(repaired.version), repaired.name, str(repaired.written_by)) == ("1.1.0", "driver_is_owner", "1.0.0")


async def test_what_newer_software_stored_stays_where_older_software_changed_something_else(store: Store) -> None:
    old, new, _ = releases()
    await save(store, new, owner="ann", driver="carl")
    for velocity in (1, 2):
        await save(store, old, velocity=velocity)

    assert await load(store, new) == {"owner": "ann", "driver": "carl", "velocity": 2}


async def test_only_the_first_store_over_a_newer_value_keeps_it(store: Store) -> None:
    old, new, _ = releases()
    await save(store, new, owner="ann", driver="carl")
    await save(store, old, owner="bob")
    await save(store, old, owner="cat")

    assert await base_of(store) == {"wallet": {"owner": "ann", "driver": "carl"}}
    assert await load(store, new) == {"owner": "cat", "driver": "cat"}


async def test_nothing_is_kept_of_what_newer_software_did_not_store(store: Store) -> None:
    old, new, _ = releases()
    await save(store, old, owner="ann")
    await save(store, old, owner="bob")
    assert await base_of(store) is None
    await save(store, new, owner="cat")
    await save(store, new, owner="dan", driver="eve")

    assert await base_of(store) is None


async def test_older_software_that_stored_another_state_is_seen(store: Store) -> None:
    old, new, _ = releases()
    await save(store, new, owner="ann", driver="carl")
    async with held(store, old) as activation:
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
    assert await base_of(store) == {"other": None}
    seen: list[Any] = []

    car = new.actor_types["Wallet"].migrations[-1]

    async def look(state: Any, base: Any, context: Any) -> None:
        main, other = context.state("wallet"), context.state("other")
        seen.append((base, main.base, other.base))

    car.reconciler = look

    assert await load(store, new) == {"owner": "ann", "driver": "carl"}
    owner = {"owner": "ann", "driver": "carl"}
    assert seen == [(owner, owner, None)]


async def test_a_main_state_that_older_software_created_gets_what_it_lacks(store: Store) -> None:
    old, new, _ = releases()
    async with held(store, new) as activation:
        await activation.state().migrate_and_load(default={"owner": "ann", "driver": "carl"})
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
        await activation.state().clear()
    await save(store, old, owner="bob")
    assert await base_of(store) == {"wallet": None}

    assert await load(store, new) == {"owner": "bob", "driver": "bob"}

    assert await value_of(store) == {"owner": "bob", "driver": "bob"}
    assert await base_of(store) is None


async def test_a_main_state_that_older_software_cleared_and_created_anew_gets_what_it_lacks(store: Store) -> None:
    old, new, _ = releases(repairs=False)
    async with held(store, new) as activation:
        await activation.state().migrate_and_load(default={"owner": "ann", "driver": "carl"})
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
    async with held(store, old) as activation:
        await activation.state().migrate_and_load()
        await activation.state().clear()
        assert await base_of(store) == {"wallet": {"owner": "ann", "driver": "carl"}}
        activation.state().value = {"owner": "bob"}
        await activation.persist()
    assert await base_of(store) == {"wallet": None}

    assert await load(store, new) == {"owner": "bob", "driver": "bob"}


async def test_without_reconcile_the_older_value_stands_and_the_hooks_hear_of_it_once(store: Store) -> None:
    old, new, _ = releases(repairs=False)
    await save(store, new, owner="ann", driver="carl")
    await save(store, old, owner="bob")
    told: list[Any] = []
    for _ in range(2):
        async with held(store, new, hooks=[told.append]) as activation:
            assert await activation.state().migrate_and_load() == {"owner": "bob", "driver": "carl"}

    (seen,) = [event for event in told if isinstance(event, DriftSeen)]
    assert (str(seen.version), seen.name, str(seen.written_by)) == ("1.1.0", "driver_is_owner", "1.0.0")
    assert await base_of(store) is None


async def test_releases_between_repair_their_own_and_keep_the_base_for_newer_ones(store: Store) -> None:
    old, middle, new = releases()
    await save(store, new, owner="ann", driver="carl", initial="c")
    await save(store, old, owner="bob")

    assert await load(store, middle) == {"owner": "bob", "driver": "bob", "initial": "c"}
    assert await base_of(store) == {"wallet": {"owner": "ann", "driver": "carl", "initial": "c"}}
    assert await load(store, new) == {"owner": "bob", "driver": "bob", "initial": "b"}
    assert await base_of(store) is None


async def test_a_base_that_is_ahead_is_brought_down_for_each_reconcile(store: Store) -> None:
    suite = make_suite()
    car = suite.actor_types["Wallet"]
    bases: list[Any] = []

    def no_initial(state: Any, context: Any) -> None:
        del state["initial"]

    def note(state: Any, base: Any, context: Any) -> None:
        bases.append(base)

    car.migrations[2].downgrade = no_initial
    for migration in car.migrations[1:]:
        migration.reconciler = note
    await save(store, suite, owner="ann", driver="carl", initial="c")
    await save(store, release(suite, "1.0.0"), owner="bob")

    await load(store, suite)

    assert bases == [{"owner": "ann", "driver": "carl"}, {"owner": "ann", "driver": "carl", "initial": "c"}]


async def test_loading_alone_by_older_software_is_drift_too(store: Store) -> None:
    old, new, _ = releases()
    await save(store, new, owner="ann", driver="ann")
    async with held(store, old) as activation:
        await activation.state().load()
        activation.state().value["owner"] = "bob"
        await activation.persist()

    assert await load(store, new) == {"owner": "bob", "driver": "bob"}


def hotfix_releases() -> tuple[Suite, Suite]:
    """Return two releases that both support 1.1.0: only the set tells that one of them lacks the hotfix."""
    suite = Suite("fleet")
    car = suite.actor_type("Wallet", state="wallet")
    hotfixed = Suite("fleet")
    mended = hotfixed.actor_type("Wallet", state="wallet")

    def nothing(state: Any, context: Any) -> None:
        pass

    def positive(state: Any, context: Any = None, last: Any = None) -> None:
        state["n"] = abs(state["n"])

    for kind, versions in ((car, ("1.0.0", "1.1.0")), (mended, ("1.0.0", "1.0.1", "1.1.0"))):
        for version in versions:
            late = version == "1.0.1"
            migration = kind.migration(version, late=late)(positive if late else nothing)
            if late:
                migration.reconcile(positive)
    return suite, hotfixed


async def test_a_late_migration_that_the_last_writer_lacked_is_reconciled(store: Store) -> None:
    suite, hotfixed = hotfix_releases()
    await save(store, suite, n=0)  # its release is known: it may start again beside the hotfix
    await save(store, hotfixed, n=1)
    await save(store, suite, n=-5)

    assert await load(store, hotfixed) == {"n": 5}


async def test_a_late_migration_is_reconciled_where_the_last_writer_only_loaded_the_actor(store: Store) -> None:
    suite, hotfixed = hotfix_releases()
    await save(store, suite, n=0)
    await save(store, hotfixed, n=1)
    async with held(store, suite) as activation:
        value: Any = await activation.state().load()
        value["n"] = -5
        await activation.persist()

    assert await load(store, hotfixed) == {"n": 5}


async def test_a_reconcile_that_raises_changes_nothing(store: Store) -> None:
    old, new, _ = releases()
    await save(store, new, owner="ann", driver="ann")
    await save(store, old, owner="bob")
    before = await stored(store)

    def broken(state: Any, base: Any, context: Any) -> None:
        state["owner"] = "half"
        raise RuntimeError("boom")

    new.actor_types["Wallet"].migrations[-1].reconciler = broken
    with pytest.raises(errors.MigrationFailedError, match=r"1\.1\.0 \(reconcile of driver_is_owner\).*boom"):
        await load(store, new)

    after = await stored(store)
    assert (after[:4], after.base) == (before[:4], before.base)


async def test_the_base_of_a_state_is_for_reconcile_functions(store: Store) -> None:
    old, _, _ = releases()
    async with held(store, old) as activation:
        await activation.state().migrate_and_load(default={"owner": "ann"})
        with pytest.raises(errors.DefinitionError, match="reconcile"):
            _ = activation.state().base


async def test_the_stamp_of_an_actor_whose_main_state_came_later_does_not_go_back(store: Store) -> None:
    old, new, _ = releases()
    async with held(store, old) as activation:
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
    async with held(store, new) as activation:
        value = await activation.state().migrate_and_load(default={"owner": "ann", "driver": "ann"})
        await activation.persist()
        value["owner"] = "bob"
        await activation.persist()

    assert await version_of(store) == "1.1.0"
    assert await load(store, new) == {"owner": "bob", "driver": "ann"}


async def test_drift_under_a_pin_keeps_the_states_as_older_software_stored_them(store: Store) -> None:
    old, new, _ = releases()
    for migration in new.actor_types["Wallet"].migrations[1:]:
        migration.downgrade = lambda state, context: state.pop("driver") and None
    await write_at(store, "1.0.0")
    await save(store, new, owner="ann", driver="carl")
    await save(store, old, velocity=3)

    assert await load(store, new) == {"owner": "ann", "driver": "carl", "velocity": 3}

    assert await value_of(store) == {"owner": "ann", "velocity": 3}


async def test_drift_is_not_forgotten_by_a_store_after_load_alone_under_a_pin(store: Store) -> None:
    old, new, _ = releases()
    new.actor_types["Wallet"].migrations[1].downgrade = lambda state, context: state.pop("driver") and None
    await save(store, new, owner="ann", driver="carl")
    await save(store, old, owner="bob")
    await write_at(store, "1.0.0")
    async with held(store, new) as activation:
        value: Any = await activation.state().load()
        value["velocity"] = 1
        await activation.persist()

    assert await load(store, new) == {"owner": "bob", "driver": "bob", "velocity": 1}


@pytest.mark.parametrize("version", ["1.0.0", "1.2.0"])
async def test_drift_of_a_release_between_that_took_the_base_of_a_newer_one_is_reconciled(
    store: Store, version: str
) -> None:
    _, middle, new = releases()
    for migration in (*middle.actor_types["Wallet"].migrations[1:], *new.actor_types["Wallet"].migrations[1:]):
        name = "driver" if migration.name == "driver_is_owner" else "initial"
        migration.downgrade = drop(name)
    await write_at(store, "1.0.0")
    await save(store, new, owner="ann", driver="carl", initial="c")
    await save(store, middle, owner="bob", driver="bob")
    await write_at(store, version)

    assert await load(store, new) == {"owner": "bob", "driver": "bob", "initial": "b"}


async def test_a_late_migration_is_reconciled_where_the_last_writer_took_a_base_that_has_it(store: Store) -> None:
    suite, hotfixed = hotfix_releases()
    for kind in (suite, hotfixed):
        for migration in kind.actor_types["Wallet"].migrations:
            migration.downgrade = drop("nothing")
    await write_at(store, "1.0.0")
    await save(store, suite, n=0)
    await save(store, hotfixed, n=1)
    await save(store, suite, n=-5)

    assert await load(store, hotfixed) == {"n": 5}
