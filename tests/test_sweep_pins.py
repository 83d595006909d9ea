"""A sweep follows the write version up and down, and takes entries and bases with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import Node, rollout
from lazymig._entries import Range
from lazymig._records import NO_MARKS, ActorKey
from lazymig._version import pack, parse, unpack
from lazymig.testing import FaultyStore
from tests.wallets import KEY, Wallets, base_of, held, load, save, stored, value_of, version_of, write_at

if TYPE_CHECKING:
    from lazymig import Suite
    from lazymig.rollout import SweepReport
    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}


@pytest.fixture
def wallets() -> Wallets:
    return Wallets()


async def sweep(store: Store, suite: Suite, **options: Any) -> SweepReport:
    """Sweep wallets as fast as can be."""
    return await rollout.sweep(store, suite, "Wallet", actors_per_second=None, bytes_per_second=None, **options)


async def pay(store: Store, suite: Suite, *payments: str) -> None:
    """Put payments on a node of a release, in the shape that it has them."""
    async with held(store, suite) as activation:
        await activation.state().migrate_and_load(default={"amount": 1})
        is_new = suite.actor_types["Wallet"].supported >= parse("2.0.0")
        for number, name in enumerate(payments):
            await activation.table("payments").put(name, {"money" if is_new else "amount": number})
        await activation.persist()


async def payments(store: Store) -> dict[str, tuple[Any, str]]:
    """Return payments as stored, with the versions of their stamps."""
    page = await store.entries(KEY, Range("payments"), 1_000, 1_000_000)
    return {
        key: (orjson.loads(data), str(unpack(applied.highest)))
        for key, data, applied in zip(page.keys, page.data, page.applied, strict=True)
    }


async def test_lazy_entries_are_brought_up_and_their_bound_is_raised(store: Store, wallets: Wallets) -> None:
    await pay(store, wallets.release("1.1.0"), "a", "b")
    await load(store, wallets.suite)
    assert {version for _, version in (await payments(store)).values()} == {"1.1.0"}

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.current, report.failed, report.is_complete) == (1, 0, (), True)
    assert await payments(store) == {"a": ({"money": 0}, "2.1.0"), "b": ({"money": 1}, "2.1.0")}
    assert (await stored(store)).marks == NO_MARKS._replace(oldest=pack(parse("2.1.0")))
    assert (await sweep(store, wallets.suite)).migrated == 0


async def test_states_and_entries_are_brought_up_together(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.1.0"), amount=7)
    await pay(store, wallets.release("1.1.0"), "a")

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.is_complete) == (1, True)
    assert await version_of(store) == "2.1.0"
    assert await payments(store) == {"a": ({"money": 0}, "2.1.0")}
    assert wallets.ran["money"] == 1


async def test_entries_that_nothing_converts_get_the_stamp_so_that_a_migration_may_retire(
    store: Store, wallets: Wallets
) -> None:
    async with held(store, wallets.release("1.1.0")) as activation:
        await activation.state().migrate_and_load(default={"amount": 1})
        await activation.table("notes").put("a", "text")
        await activation.persist()
    await load(store, wallets.suite)
    async with Node(store, [wallets.suite]):
        assert not (await rollout.gate_retire(store, "Wallet", "2.0.0")).allowed

        await sweep(store, wallets.suite)

        assert (await rollout.gate_retire(store, "Wallet", "2.0.0")).allowed
    page = await store.entries(KEY, Range("notes"), 10, 1_000)
    assert page.data == [b'"text"']


async def test_entries_of_an_actor_without_a_main_state_are_brought_up(store: Store, wallets: Wallets) -> None:
    async with held(store, wallets.release("1.1.0")) as activation:
        await activation.table("payments").put("a", {"amount": 3})
        await activation.persist()

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.failed) == (1, ())
    assert await payments(store) == {"a": ({"money": 3}, "2.1.0")}
    assert (await sweep(store, wallets.suite)).migrated == 0


async def test_under_a_pin_actors_are_brought_up_to_it_and_no_further(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.0.0"), amount=7)
    await write_at(store, "1.1.0")

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.is_complete) == (1, True)
    assert await value_of(store) == {"amount": 7, "name": "nobody"}
    assert await version_of(store) == "1.1.0"
    again = await sweep(store, wallets.suite)
    assert (again.migrated, again.current, again.passes) == (0, 1, 1)


async def test_what_is_above_a_pin_is_brought_down_and_nothing_is_lost(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.suite, money=EUR, name="ann", notes=[])
    await pay(store, wallets.suite, "a")
    await write_at(store, "1.1.0")
    assert not (await rollout.gate_roll_back(store, "Wallet", "1.1.0")).allowed

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.failed, report.is_complete) == (1, (), True)
    assert dict(report.from_versions) == {parse("2.1.0"): 1}
    assert await value_of(store) == {"amount": 7, "name": "ann"}
    assert (await base_of(store) or {})["wallet"]["money"] == EUR
    assert await payments(store) == {"a": ({"amount": 0}, "1.1.0")}
    assert (await sweep(store, wallets.suite)).migrated == 0
    assert await load(store, wallets.release("1.1.0")) == {"amount": 7, "name": "ann"}


async def test_after_a_flip_what_was_kept_is_taken(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    await save(store, wallets.suite, money=EUR, name="ann", notes=["n"])
    await write_at(store, "2.1.0")

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.is_complete) == (1, True)
    assert await value_of(store) == {"money": EUR, "name": "ann", "notes": ["n"]}
    assert await base_of(store) is None


async def test_what_older_software_stored_over_is_mended(store: Store, wallets: Wallets) -> None:
    await write_at(store, "1.1.0")
    await save(store, wallets.suite, money=EUR, name="ann", notes=[])
    await save(store, wallets.release("1.1.0"), amount=9)

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.is_complete) == (1, True)
    assert (await base_of(store) or {})["wallet"]["money"] == {"amount": 9, "currency": "EUR"}
    assert (await sweep(store, wallets.suite)).migrated == 0


@pytest.mark.parametrize("written_at", [None, "1.1.0"])
async def test_it_ends_while_older_software_stores_over_what_it_mends(
    store: Store, wallets: Wallets, written_at: str | None
) -> None:
    newer = wallets.release("1.1.0") if written_at is None else wallets.suite
    older = wallets.release("1.0.0") if written_at is None else wallets.release("1.1.0")
    await save(store, wallets.release("1.0.0"), amount=7)
    await write_at(store, written_at)
    await load(store, newer)
    await save(store, older, amount=8)
    revisions: list[int] = []

    async def store_over() -> None:
        found = await stored(store)
        if found.owner is None and found.revision not in revisions and len(revisions) < 10:
            await save(store, older, amount=found.revision)
            revisions.append((await stored(store)).revision)

    spied = FaultyStore(store, store_over)

    report = await sweep(spied, newer)

    assert revisions
    assert (report.migrated, report.actors, report.passes, report.ended) == (1, 1, 2, "finished")


async def test_a_pin_at_the_end_of_the_last_pass_is_followed(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.release("1.0.0"), amount=7)

    async def pin() -> None:
        if spied.calls.count("sweeping.unsettled") == 2 and not (await store.policy("Wallet")).epoch:
            await write_at(store, "1.1.0")

    spied = FaultyStore(store, pin)
    spied.arm(None)

    report = await sweep(spied, wallets.suite)

    assert await version_of(store) == "1.1.0"
    assert (report.migrated, report.actors, report.passes, report.is_complete) == (1, 1, 4, True)


async def test_what_older_software_stored_over_is_mended_with_the_entries_that_it_put(
    store: Store, wallets: Wallets
) -> None:
    older = wallets.release("1.1.0")
    await pay(store, wallets.release("1.0.0"), "a")
    await write_at(store, "1.1.0")
    await save(store, wallets.suite, money=EUR, notes=["n"])
    await save(store, older, amount=9)

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.failed) == (1, ())
    assert await value_of(store) == {"amount": 9, "name": "nobody"}
    assert (await base_of(store) or {})["wallet"] == {
        "money": {"amount": 9, "currency": "EUR"}, "name": "nobody", "notes": ["n"]
    }  # fmt: skip
    assert await payments(store) == {"a": ({"amount": 0}, "1.1.0")}
    assert (await stored(store)).marks == NO_MARKS._replace(oldest=pack(parse("1.1.0")))
    assert (await sweep(store, wallets.suite)).migrated == 0
    await write_at(store, "2.1.0")
    assert (await load(store, wallets.suite))["money"] == {"amount": 9, "currency": "EUR"}


async def test_a_failure_on_the_way_down_is_named_and_changes_nothing(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.suite, money={"currency": "EUR"}, name="ann", notes=[])
    await write_at(store, "1.1.0")
    before = await stored(store)

    report = await sweep(store, wallets.suite)

    assert [(str(one.version), one.key.id) for one in report.failed] == [("2.0.0", "w")]
    assert "KeyError" in report.failed[0].error
    after = await stored(store)
    assert after._replace(failure=None) == before
    assert after.failure is not None
    assert after.failure.name == "down of money"


async def test_an_entry_that_fails_is_named_and_those_before_it_are_brought_up(store: Store, wallets: Wallets) -> None:
    await pay(store, wallets.release("1.1.0"), "a", "b", "c")
    async with held(store, wallets.release("1.1.0")) as activation:
        await activation.state().migrate_and_load()
        await activation.table("payments").put("b", {"spoiled": 1})
        await activation.persist()

    report = await sweep(store, wallets.suite)

    assert [(str(one.version), one.key.id) for one in report.failed] == [("2.0.0", "w")]
    assert "'b'" in report.failed[0].error
    assert {key: version for key, (_, version) in (await payments(store)).items()} == {
        "a": "2.1.0", "b": "1.1.0", "c": "1.1.0"
    }  # fmt: skip
    first = (await stored(store)).failure
    assert first is not None
    assert "entry 'b' of table 'payments'" in first.error
    (again,) = (await sweep(store, wallets.suite)).failed
    assert (str(again.version), (await stored(store)).failure) == ("2.0.0", first)  # too soon to try again
    await store.failures.retry("Wallet")
    await sweep(store, wallets.suite)
    second = (await stored(store)).failure
    assert second is not None
    assert second.attempts == 2
    async with held(store, wallets.suite) as activation:  # no entry is converted by it
        await activation.state().migrate_and_load()
        await activation.table("payments").delete("b")
        await activation.persist()
    await store.failures.retry("Wallet")
    assert (await sweep(store, wallets.suite)).is_complete
    assert (await stored(store)).failure is None


@pytest.mark.parametrize("dry_run", [True, False])
async def test_those_of_which_only_entries_are_left_count_as_left(
    store: Store, wallets: Wallets, *, dry_run: bool
) -> None:
    for actor_id in "abcde":
        for suite in (wallets.release("1.1.0"), wallets.suite):
            async with Node(store, [suite]) as node, node.activate("Wallet", actor_id) as activation:
                await activation.state().migrate_and_load(default={"amount": 1})
                if suite is not wallets.suite:
                    await activation.table("payments").put("a", {"amount": 1})
                await activation.persist()
    async with Node(store, [wallets.release("1.1.0")]) as node, node.activate("Wallet", "f") as activation:
        await activation.state().migrate_and_load(default={"amount": 1})
        await activation.table("payments").put("a", {"amount": 1})
        await activation.persist()

    first = await sweep(store, wallets.suite, limit=1, dry_run=dry_run)
    second = await sweep(store, wallets.suite, limit=3, dry_run=dry_run)

    assert (first.migrated, first.current, first.left, first.ended) == (1, 0, 5, "limit")
    done = 0 if dry_run else 1
    assert (second.migrated, second.current, second.left, second.ended) == (3, done, 3 - done, "limit")


async def test_one_that_keeps_the_base_of_newer_software_is_not_left_besides(store: Store, wallets: Wallets) -> None:
    await save(store, wallets.suite, money=EUR, name="ann", notes=[])
    await write_at(store, "1.0.0")

    report = await sweep(store, wallets.release("2.0.0"), limit=1)

    assert (report.migrated, report.left, report.actors, report.ended) == (1, 0, 1, "limit")


async def test_many_actors_with_entries_are_brought_up(store: Store, wallets: Wallets) -> None:
    old = wallets.release("1.1.0")
    async with Node(store, [old]) as node:
        for number in range(70):
            async with node.activate("Wallet", f"{number:02}") as activation:
                await activation.state().migrate_and_load(default={"amount": number, "name": "x"})
                await activation.table("payments").put("a", {"amount": number})
                await activation.persist()

    report = await sweep(store, wallets.suite)

    assert (report.migrated, report.is_complete) == (70, True)
    assert dict(await store.entry_census("Wallet")).popitem()[1] == 70
    found = await store.read(ActorKey("Wallet", "69"))
    assert found is not None
    assert orjson.loads(found.states["wallet"])["money"]["amount"] == 69
