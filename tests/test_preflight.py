"""A dry run of a sweep: what it finds on copies of what is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Suite, rollout
from lazymig.rollout import SweepReport, _preflight_copy
from lazymig.rollout._preflight_report import Difference
from lazymig.testing import FaultyStore
from tests.preflights import (
    ACTORS,
    CAR,
    FAST,
    faulty,
    found,
    give_owner,
    key,
    mend,
    named,
    put,
    put_entries,
    suite_of,
    with_entries,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._entries import Count
    from lazymig._records import ActorKey
    from lazymig.activation import Activation
    from lazymig.store import Store


# --- the verdict -------------------------------------------------------------------------------------------------


async def test_three_planted_faults_among_a_thousand_actors_are_named_and_nothing_else(store: Store) -> None:
    await put(store, **{f"c{number:04}": f'{{"n":{number}}}' for number in range(ACTORS)})
    suite = suite_of(faulty, down=mend)

    report = await rollout.sweep(store, suite, CAR, **FAST)

    assert named(report.failed) == [("c0017", "1.0.0"), ("c0400", "1.0.0")]
    assert "RuntimeError: seventeen" in report.failed[0].error
    assert "half is nan" in report.failed[1].error
    assert found(report).differences == (Difference(key("c0003"), state="state", path="$.n"),)
    assert (found(report).compared, found(report).differing, found(report).uncompared) == (998, 1, 0)
    assert (report.migrated, report.current, report.left, report.actors) == (998, 0, 0, 1_000)
    assert (report.ended, report.is_complete, found(report).tried) == ("finished", False, 1_000)


async def test_what_a_sweep_does_then_is_what_was_told(store: Store) -> None:
    await put(store, a='{"n":1}', b='{"n":17}', c='{"n":3}')
    suite = suite_of(faulty, give_owner)

    told = await rollout.sweep(store, suite, CAR, **FAST)
    done = await rollout.sweep(store, suite, CAR)

    for name in ("migrated", "from_versions", "current", "newer", "failed", "left", "bytes_before", "bytes_after"):
        assert getattr(told, name) == getattr(done, name), name


async def test_nothing_is_stored_and_no_actor_is_held(store: Store) -> None:
    await put(store, a='{"n":1}')
    before = await store.read(key("a"))

    await rollout.sweep(store, suite_of(give_owner), CAR, **FAST)

    assert await store.read(key("a")) == before
    assert list(await store.nodes()) == []


async def test_actors_that_need_nothing_are_current_and_newer_ones_left_alone(store: Store) -> None:
    await put(store, a='{"n":1}')
    await rollout.sweep(store, suite_of(give_owner), CAR)
    report = await rollout.sweep(store, suite_of(give_owner), CAR, **FAST)
    assert (report.current, report.migrated, report.is_complete, found(report).tried) == (1, 0, True, 0)

    await rollout.sweep(store, suite_of(give_owner, give_owner), CAR)
    report = await rollout.sweep(store, suite_of(give_owner), CAR, **FAST)
    assert (report.newer, report.current, report.is_complete) == (1, 0, False)


async def test_refused_actors_are_named_as_a_sweep_names_them(store: Store) -> None:
    await put(store, old='{"n":1}')
    first = suite_of(give_owner)
    await rollout.sweep(store, first, CAR)
    await put(store, none='{"n":1}', torn='{"n":')
    report = await rollout.sweep(store, suite_of(baseline="2.0.0"), CAR, **FAST)
    assert [(one.key.id, one.version) for one in report.failed] == [("none", None), ("old", None), ("torn", None)]
    assert "below the baseline 2.0.0" in report.failed[0].error

    late = Suite("late")
    car = late.actor_type(CAR)
    car.migration("0.9.0")(give_owner)
    car.migration("1.0.0")(give_owner)
    report = await rollout.sweep(store, late, CAR, **FAST)
    assert named(report.failed) == [("old", "0.9.0"), ("torn", None)]
    assert "late=True" in report.failed[0].error


async def test_it_ends_at_a_limit_at_failures_and_when_it_is_told_to(store: Store) -> None:
    await put(store, **{f"c{number:02}": f'{{"n":{number}}}' for number in range(90)})
    report = await rollout.sweep(store, suite_of(give_owner), CAR, limit=5, **FAST)
    assert (report.migrated, report.left, report.ended, report.is_complete) == (5, 85, "limit", False)
    assert "85 actors that it did not come to" in found(report).unproven[-1]

    def broken(state: dict[str, Any], context: object) -> None:
        raise ValueError(state["n"])

    report = await rollout.sweep(store, suite_of(broken), CAR, max_failures=2, **FAST)
    assert (named(report.failed), report.left, report.ended) == ([("c00", "1.0.0"), ("c01", "1.0.0")], 88, "failures")

    stop = asyncio.Event()
    reports: list[SweepReport] = []

    def tell(report: SweepReport) -> None:
        reports.append(report)
        stop.set()

    report = await rollout.sweep(store, suite_of(give_owner), CAR, stop=stop, progress=tell, **FAST)
    assert (report.ended, report.left, [one.ended for one in reports]) == ("stopped", 90, ["running", "stopped"])


# --- what runs ---------------------------------------------------------------------------------------------------


async def test_migrations_that_read_and_write_other_states_and_tables_run_as_in_an_activation(store: Store) -> None:
    seen: list[object] = []

    async def split(state: dict[str, Any], activation: Activation) -> None:
        await asyncio.sleep(0)
        owner = activation.state("owner")
        await owner.migrate_and_load({"name": state.pop("owner")})
        await activation.table("log").put("made", 1)
        seen.append(activation.is_projection)

    suite = suite_of(give_owner, split, context_factory=lambda activation: activation)
    await put(store, a='{"n":1}', b='{"owner":"x"}')

    report = await rollout.sweep(store, suite, CAR, **FAST)

    assert (report.migrated, report.failed, seen) == (2, (), [True, True])
    assert await store.tables(key("a")) == []


async def test_migrations_that_ask_leave_out_what_they_do_outside(store: Store) -> None:
    sent: list[str] = []

    def tell(state: dict[str, Any], activation: Activation) -> None:
        if not activation.is_projection:
            sent.append(activation.key.id)

    suite = suite_of(tell, context_factory=lambda activation: activation)
    await put(store, a="{}")
    assert (await rollout.sweep(store, suite, CAR, **FAST)).migrated == 1
    assert sent == []
    await rollout.sweep(store, suite, CAR)
    assert sent == ["a"]


@pytest.mark.parametrize("eager", [True, False])
async def test_entries_are_converted_and_failures_name_them(store: Store, eager: bool) -> None:  # noqa: FBT001  (a case)
    await put_entries(store, "a", range(5))
    await put_entries(store, "b", range(5, 9))
    await put_entries(store, "c", range(5, 7))

    report = await rollout.sweep(store, with_entries(eager=eager), CAR, **FAST)

    assert named(report.failed) == [("b", "2.0.0")]
    assert "entry 'e00007' of table 'log'" in report.failed[0].error
    assert (report.migrated, report.current) == (2, 0)
    difference = Difference(key("c"), table="log", entry="e00005", path="$.n")
    assert (found(report).differences, found(report).compared) == ((difference,), 2)
    counts = await store.tables(key("a"))
    assert {count.applied.highest for count in counts} == {1 << 42}


async def test_entries_beyond_the_bound_are_not_tried_and_that_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_preflight_copy, "MAX_ENTRIES", 3)
    await put_entries(store, "a", range(6, 10))
    await put_entries(store, "b", range(4, 10))

    report = await rollout.sweep(store, with_entries(eager=True), CAR, **FAST)

    assert named(report.failed) == [("a", "2.0.0")]
    assert "Of its entries the first 3 were there" in report.failed[0].error
    assert (report.migrated, found(report).truncated) == (1, 2)
    assert any("other entries of 2 actors" in text for text in found(report).unproven)


async def test_an_actor_that_is_stored_while_it_is_copied_is_copied_anew(store: Store) -> None:
    await put_entries(store, "a", range(3))
    numbers: list[int] = []

    class Busy(FaultyStore):
        """Somebody puts one more entry whenever entries are read."""

        async def tables(self, of: ActorKey) -> Sequence[Count]:
            numbers.append(len(numbers))
            if len(numbers) <= times:
                await put_entries(store, "a", range(10 + len(numbers)))
            return await super().tables(of)

    times = 2
    report = await rollout.sweep(Busy(store), with_entries(eager=True), CAR, **FAST)
    assert (named(report.failed), found(report).untried, len(numbers)) == ([("a", "2.0.0")], 0, 3)
    times = 99
    report = await rollout.sweep(Busy(store), with_entries(eager=True), CAR, **FAST)
    assert (named(report.failed), found(report).untried, len(numbers)) == ([], 1, 6)
    assert (report.left, report.current, report.is_complete) == (1, 0, False)
    assert "that changed all the time" in found(report).unproven[-1]


async def test_quarantined_actors_are_tried_and_that_is_said(store: Store) -> None:
    await put(store, a='{"n":17}', b='{"n":1}')
    await rollout.sweep(store, suite_of(faulty), CAR)

    report = await rollout.sweep(store, suite_of(faulty), CAR, **FAST)

    assert "seventeen" in report.failed[0].error
    assert found(report).quarantined == 1
    assert any("1 actor come up whose migration failed before" in text for text in found(report).unproven)
    assert await store.failures.page(CAR) != []


async def test_async_migrations_wait_beside_each_other(store: Store) -> None:
    together = asyncio.Barrier(4)

    async def wait(state: dict[str, Any], context: object) -> None:
        await together.wait()

    await put(store, a="{}", b="{}", c="{}", d="{}")
    report = await rollout.sweep(store, suite_of(wait), CAR, **FAST)
    assert (report.migrated, report.is_complete) == (4, True)
