"""A dry run of a sweep writes nothing: each store proves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lazymig import rollout
from lazymig.errors import StoreUnavailableError
from lazymig.testing import Fault, FaultyStore
from tests.preflights import (
    CAR,
    FAST,
    give_owner,
    put,
    put_entries,
    suite_of,
    with_entries,
)

if TYPE_CHECKING:
    from lazymig.store import Store


READS = {
    *("policy", "census", "entry_census", "stragglers", "sweeping.unsettled", "read", "tables", "entries"),
}


async def test_the_store_sees_reads_only(store: Store) -> None:
    await put_entries(store, "a", range(5))
    await put(store, b="{}")
    spy = FaultyStore(store)
    spy.arm(None)

    report = await rollout.sweep(spy, with_entries(eager=True), CAR, **FAST)

    assert report.migrated == 2
    assert set(spy.calls) == READS
    assert spy.pulse_calls == []


async def test_a_failure_of_the_store_is_the_answer(store: Store) -> None:
    await put(store, a="{}")
    spy = FaultyStore(store)
    for number in range(6):
        spy.arm(Fault(number, "before", "error"))
        with pytest.raises(StoreUnavailableError):
            await rollout.sweep(spy, suite_of(give_owner), CAR, **FAST)
        assert spy.has_struck
