"""Dry runs of sweeps of types with a write version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lazymig import Node, rollout
from lazymig._bases import NO_POLICY
from lazymig.errors import NewerStateError, WriteVersionError
from tests.preflights import (
    CAR,
    FAST,
    faulty,
    found,
    give_owner,
    mend,
    named,
    put,
    put_entries,
    suite_of,
    take_owner,
    with_entries,
)

if TYPE_CHECKING:
    from lazymig.store import Store


# --- write versions ------------------------------------------------------------------------------------------------


async def test_what_is_above_the_write_version_is_tried_too(store: Store) -> None:
    await put(store, a='{"n":1}', b='{"n":17}')
    await rollout.sweep(store, suite_of(take_owner), CAR)
    await rollout.pin(store, CAR, "1.0.0")
    suite = suite_of(take_owner, faulty, down=mend)

    report = await rollout.sweep(store, suite, CAR, **FAST)

    assert named(report.failed) == [("b", "2.0.0")]
    assert (report.migrated, report.current, found(report).tried, found(report).compared) == (0, 1, 2, 1)
    assert found(report).bytes_after == len(b'{"n":1}') + len(b'{"n":1,"half":0.5}')  # its base


async def test_the_first_write_version_counts_where_no_node_has_set_it_yet(store: Store) -> None:
    await put(store, a='{"n":1}')
    suite = suite_of(take_owner, faulty, down=mend, write_version="1.0.0")
    told = await rollout.sweep(store, suite, CAR, **FAST)
    assert await store.policy(CAR) == NO_POLICY
    done = await rollout.sweep(store, suite, CAR)
    assert (told.migrated, told.bytes_after) == (done.migrated, done.bytes_after) == (1, len(b'{"n":1}'))
    assert (await store.policy(CAR)).version == 1 << 42


async def test_a_sweep_down_is_tried_and_a_missing_way_down_refused(store: Store) -> None:
    await put(store, a='{"n":1}')
    suite = suite_of(take_owner, faulty, down=mend)
    await rollout.sweep(store, suite, CAR)
    await rollout.pin(store, CAR, "1.0.0")
    told = await rollout.sweep(store, suite, CAR, **FAST)
    assert (told.migrated, told.failed, found(told).compared) == (1, (), 0)

    for options in (FAST, {}):
        with pytest.raises(WriteVersionError, match=r"2\.0\.0 \(faulty\) has no down"):
            await rollout.sweep(store, suite_of(take_owner, faulty), CAR, **options)


async def test_entries_that_are_converted_after_the_flip_are_counted_and_said(store: Store) -> None:
    await put_entries(store, "a", range(5))
    await put(store, b="{}")
    await rollout.pin(store, CAR, "1.0.0")
    report = await rollout.sweep(store, with_entries(eager=True), CAR, **FAST)
    assert (report.failed, found(report).tried, found(report).waiting) == ((), 2, 1)
    assert any("the entries of 1 actor above the write version" in text for text in found(report).unproven)


async def test_a_type_written_above_this_software_is_refused(store: Store) -> None:
    await put(store, a="{}")
    await rollout.sweep(store, suite_of(give_owner, give_owner), CAR)
    await rollout.flip(store, CAR, "2.0.0")
    with pytest.raises(NewerStateError):
        await rollout.sweep(store, suite_of(give_owner), CAR, **FAST)


async def test_what_newer_software_kept_is_taken_and_not_compared(store: Store) -> None:
    await put(store, a='{"n":1}')
    suite = suite_of(take_owner, faulty, down=mend)
    await rollout.sweep(store, suite_of(take_owner), CAR)
    await rollout.pin(store, CAR, "1.0.0")
    async with Node(store, [suite]) as node, node.activate(CAR, "a") as activation:
        await activation.state().migrate_and_load()
    await rollout.flip(store, CAR, "2.0.0")
    told = await rollout.sweep(store, suite, CAR, **FAST)
    done = await rollout.sweep(store, suite, CAR)
    assert (told.migrated, told.bytes_after, told.failed) == (done.migrated, done.bytes_after, done.failed)
    assert (told.migrated, found(told).compared) == (1, 0)
