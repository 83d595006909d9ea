"""What newer software has is kept as a base, and stays what it is whatever else is stored of the actor meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, errors, rollout
from lazymig.hooks import DriftRepaired, DriftSeen, MigrationApplied
from lazymig.testing.releases import release
from tests import test_drift
from tests.wallets import Wallets, base_of, held, load, save, stored, value_of, write_at

if TYPE_CHECKING:
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


def forget_reconciles(suite: Suite) -> None:
    """Leave a suite without what would mend a base that is out of date."""
    for migration in suite.actor_types["Wallet"].migrations:
        migration.reconciler = None


@pytest.mark.parametrize("is_tolerant", [False, True])
async def test_a_handle_loaded_before_its_base_is_taken_shows_and_stores_the_base(
    store: Store, wallets: Wallets, *, is_tolerant: bool
) -> None:
    new = wallets.release("2.0.0")

    def amount(state: Any, context: Any) -> None:
        if "money" in state:  # what is in the old shape already would get through
            state["amount"] = state.pop("money")["amount"]

    if is_tolerant:
        new.actor_types["Wallet"].migrations[-1].downgrade = amount
    await write_at(store, "1.1.0")
    await save(store, new, money=EUR, name="ann")

    async with held(store, new) as activation:
        assert await activation.state().load() == {"amount": 7, "name": "ann"}
        await activation.state("other").migrate_and_load(default=1)
        assert activation.state().value == {"money": EUR, "name": "ann"}
        await activation.persist()

    assert await value_of(store) == {"amount": 7, "name": "ann"}
    assert await load(store, new) == {"money": EUR, "name": "ann"}


@pytest.mark.parametrize("version", ["1.1.0", "2.0.0"])
async def test_a_base_stays_current_over_commits_of_entries_only(store: Store, wallets: Wallets, version: str) -> None:
    forget_reconciles(wallets.suite)
    new = wallets.release("2.0.0")
    await write_at(store, "1.1.0")
    await save(store, new, money=EUR, name="ann")
    await write_at(store, version)

    async with held(store, new) as activation:
        await activation.table("log").put("k", 1)
        await activation.persist()

    assert await load(store, new) == {"money": EUR, "name": "ann"}


async def test_a_base_stays_current_over_entries_put_without_loading_after_a_pin_further_down(
    store: Store, wallets: Wallets
) -> None:
    forget_reconciles(wallets.suite)
    new = wallets.release("2.0.0")
    await write_at(store, "1.1.0")
    await save(store, new, money=EUR, name="ann")
    await write_at(store, "1.0.0")

    async with held(store, new) as activation:
        await activation.table("log").put("k", 1)
        await activation.persist()

    assert await load(store, new) == {"money": EUR, "name": "ann"}


async def test_a_base_above_states_at_a_pin_stays_current_over_entries_put_before_the_actor_is_brought_up(
    store: Store, wallets: Wallets
) -> None:
    newest, new = wallets.suite, wallets.release("2.0.0")
    await write_at(store, "2.0.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await write_at(store, "1.1.0")

    async with held(store, new) as activation:
        await activation.table("log").put("k", 1)
        await activation.persist()

    found = await stored(store)
    assert found.base is not None
    assert found.base.revision == found.revision
    gbp = {"amount": 7, "currency": "GBP"}
    await save(store, new, money=gbp)
    assert await load(store, newest) == {"money": gbp, "name": "ann", "notes": ["n"]}


async def test_commits_of_entries_only_run_no_down(store: Store, wallets: Wallets) -> None:
    new = wallets.release("2.0.0")
    await write_at(store, "1.1.0")
    await save(store, new, money=EUR, name="ann")
    async with held(store, new) as activation:
        await activation.state().migrate_and_load()
        wallets.ran.clear()
        for number in range(3):
            await activation.table("log").put(f"{number}", 1)
            await activation.persist()

    assert not wallets.ran


def make_hotfix(*, is_hot: bool, bad: str = "") -> Suite:
    """Return a suite whose hotfix converts all entries at once, and raises at one of them."""
    suite = Suite("s")
    wallet = suite.actor_type("Wallet", state="wallet", context_factory=lambda activation: activation)

    def nothing(state: Any, context: Any) -> None:
        pass

    def hotfix(state: Any, context: Any) -> None:
        state["hot"] = True

    def louder(entry: Any, context: Any) -> Any:
        if entry == bad:
            raise RuntimeError("boom")
        return f"{entry}!"

    def money(state: Any, context: Any) -> None:
        state["money"] = {"amount": state.pop("amount"), "currency": "USD"}

    def amount(state: Any, context: Any) -> None:
        state["amount"] = state.pop("money")["amount"]

    wallet.migration("1.0.0")(nothing)
    if is_hot:
        late = wallet.migration("1.0.1", late=True)(hotfix)
        late.down(nothing)
        late.entries("log", eager=True)(louder).down(lambda entry, context: entry)
    wallet.migration("1.1.0")(nothing).down(nothing)
    wallet.migration("2.0.0")(money).down(amount)
    return suite


async def test_a_base_stays_current_over_an_eager_conversion_that_fails(store: Store, small_chunks: None) -> None:
    await write_at(store, "1.1.0")
    async with held(store, make_hotfix(is_hot=False)) as activation:
        await activation.state().migrate_and_load(default={"money": EUR})
        await activation.persist()
        for number in range(10):
            await activation.table("log").put(f"{number}", f"{number}")
        await activation.persist()
    assert await load(store, make_hotfix(is_hot=False)) == {"money": EUR}
    before = await stored(store)

    with pytest.raises(errors.MigrationFailedError):
        await load(store, make_hotfix(is_hot=True, bad="9"))

    assert (await stored(store)).revision > before.revision  # some chunks were stored
    await rollout.retry(store, "Wallet")
    assert await load(store, make_hotfix(is_hot=True)) == {"money": EUR, "hot": True}


async def test_a_base_of_newer_software_is_taken_after_a_pin_further_down(store: Store, wallets: Wallets) -> None:
    forget_reconciles(wallets.suite)
    newest, new = wallets.suite, wallets.release("2.0.0")
    await write_at(store, "1.1.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await write_at(store, "1.0.0")

    await save(store, new, name="bob")

    assert await value_of(store) == {"amount": 7, "notes": ["n"]}
    assert await load(store, newest) == {"money": EUR, "name": "bob", "notes": ["n"]}


async def test_a_release_between_brings_down_what_the_newest_stored_and_nothing_is_lost(store: Store) -> None:
    _, middle, new = test_drift.releases(repairs=False)
    _, driver_is_owner, initial = new.actor_types["Wallet"].migrations
    dropped = {"driver_is_owner": "driver", "initial": "initial"}

    for migration in (driver_is_owner, initial, *middle.actor_types["Wallet"].migrations[1:]):
        migration.downgrade = test_drift.drop(dropped[migration.name])
    await save(store, new, owner="ann", driver="carl", initial="X")
    await write_at(store, "1.0.0")

    await save(store, middle, velocity=1)

    full = {"owner": "ann", "driver": "carl", "initial": "X", "velocity": 1}
    assert await value_of(store) == {"owner": "ann", "initial": "X", "velocity": 1}
    assert await load(store, middle) == full
    assert await load(store, new) == full


def make_crossing(*versions: str) -> Suite:
    """Return a suite with these versions; 1.0.1 is a late one that makes n positive."""
    suite = Suite("f")
    kind = suite.actor_type("Wallet", state="wallet")

    def nothing(state: Any, context: Any) -> None:
        pass

    def positive(state: Any, context: Any = None, last: Any = None) -> None:
        state["n"] = abs(state["n"])

    for version in versions:
        is_late = version == "1.0.1"
        migration = kind.migration(version, late=is_late)(positive if is_late else nothing)
        if is_late:
            migration.reconcile(positive)
    return suite


@pytest.mark.parametrize("first", ["loaded", "stored"])
async def test_of_two_releases_that_each_lack_something_of_the_other_the_one_with_the_hotfix_mends(
    store: Store, first: str
) -> None:
    minor, hotfixed = make_crossing("1.0.0", "1.1.0", "1.2.0"), make_crossing("1.0.0", "1.0.1", "1.1.0")
    await save(store, minor, n=-1)
    if first == "loaded":
        assert await load(store, hotfixed) == {"n": 1}
    else:
        await save(store, hotfixed, n=2)

    await save(store, minor, n=-5)

    assert await load(store, hotfixed) == {"n": 5}


class Secrets:
    """2.0.0 moves x from the main state to another one, its way down drops the other one's secret; 2.1.0 adds more."""

    def __init__(self) -> None:
        self.bases: list[Any] = []
        self.suite = Suite("secrets")
        secret = self.suite.actor_type("Wallet", state="wallet", context_factory=lambda activation: activation)

        @secret.migration("1.0.0")
        def begin(state: Any, context: Any) -> None:
            pass

        @secret.migration("2.0.0")
        async def move(state: Any, context: Any) -> None:
            other = context.state("other")
            await other.migrate_and_load(default={})
            other.value["x"] = state.pop("x")

        @move.down
        async def move_back(state: Any, context: Any) -> None:
            other = context.state("other")
            await other.load()
            state["x"] = other.value.pop("x")
            other.value.pop("secret", None)

        @move.reconcile
        async def same_secret(state: Any, base: Any, context: Any) -> None:
            other = context.state("other")
            await other.load()
            self.bases.append(other.base)
            other.value["secret"] = other.base["secret"]

        @secret.migration("2.1.0")
        def more(state: Any, context: Any) -> None:
            state["more"] = 1

        @more.down
        def less(state: Any, context: Any) -> None:
            del state["more"]

        @more.reconcile
        def same_more(state: Any, base: Any, context: Any) -> None:
            state["more"] = base["more"]


async def test_a_base_that_is_kept_gets_every_state_that_bringing_down_changes(store: Store) -> None:
    secrets = Secrets()
    newest, middle = secrets.suite, release(secrets.suite, "2.0.0")
    async with held(store, newest) as activation:
        await activation.state().migrate_and_load(default={"more": 5})
        await activation.state("other").migrate_and_load(default={"x": 1, "secret": "s"})
        await activation.persist()
    await save(store, middle, k=1)
    assert await base_of(store) == {"wallet": {"more": 5}}
    await write_at(store, "1.0.0")

    await save(store, middle, k=2)

    assert await value_of(store, "other") == {}
    async with held(store, newest) as activation:
        await activation.state().migrate_and_load()
        assert await activation.state("other").migrate_and_load() == {"x": 1, "secret": "s"}


async def test_hooks_hear_only_of_what_was_committed(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    newest, new, old = wallets.suite, wallets.release("2.0.0"), wallets.release("1.1.0")
    await save(store, newest, money=EUR, name="ann", notes=["n"])
    await save(store, old, amount=8)
    before = await stored(store)
    told: list[Any] = []

    for _ in range(3):  # a projection that nothing keeps, the newest release's base being the better one
        async with held(store, new, hooks=[told.append]) as activation:
            await activation.state().migrate_and_load()

    assert (await stored(store)).revision == before.revision
    assert not [event for event in told if isinstance(event, (MigrationApplied, DriftRepaired, DriftSeen))]


async def test_value_set_and_time_stay_where_only_a_base_is_committed(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=3, name="ann")
    await write_at(store, "1.1.0")
    before = await stored(store)
    new = wallets.release("2.0.0")

    await load(store, new)

    after = await stored(store)
    assert before.stamp is not None
    assert after.stamp == before.stamp._replace(writer=new.actor_types["Wallet"].chain.release)
    assert (after.states, after.revision) == (before.states, before.revision + 1)


async def test_entries_of_a_projection_that_nothing_keeps_are_not_stored_by_each_activation(store: Store) -> None:
    suite = Suite("p")
    wallet = suite.actor_type("Wallet", state="wallet", context_factory=lambda activation: activation)

    def nothing(state: Any, context: Any) -> None:
        pass

    async def count(state: Any, context: Any) -> None:
        await context.table("stats").update("runs", lambda runs: runs + 1, default=0)

    wallet.migration("1.0.0")(nothing)
    wallet.migration("2.0.0")(count).down(nothing)
    wallet.migration("2.1.0")(nothing).down(nothing)
    old, middle = release(suite, "1.0.0"), release(suite, "2.0.0")
    await write_at(store, "1.0.0")
    await save(store, suite, a=1)
    await save(store, old, a=2)

    seen: list[tuple[int, Any]] = []
    for _ in range(3):
        async with held(store, middle) as activation:
            await activation.state().migrate_and_load()
            runs = await activation.table("stats").get("runs")
        seen.append(((await stored(store)).revision, runs))

    assert seen == [seen[0]] * 3
