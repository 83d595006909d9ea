"""Whatever call of a sweep fails or is cut off, each actor is brought up once, and a second sweep finishes the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pytest

from lazymig import Node, errors, open_store, rollout
from lazymig._records import ActorKey
from lazymig.testing import Fault, FaultyStore
from tests.cars import Cars, car, put, put_legacy, sweep, value
from tests.rollout_plans import fresh
from tests.wallets import Wallets

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.rollout import SweepReport
    from lazymig.store import Store

PLAIN = [f"{number:02}" for number in range(20)]
"""More than a first batch."""


async def fill(store: Store, cars: Cars, wallets: Wallets) -> None:
    await put_legacy(store, *PLAIN[:17])
    await put(store, cars.release("1.0.0"), *PLAIN[17:])
    async with Node(store, [wallets.release("1.1.0")]) as node:
        for actor_id in "wx":
            async with node.activate("Wallet", actor_id) as activation:
                await activation.state().migrate_and_load(default={"amount": 5, "name": "ann"})
                await activation.table("payments").put("p", {"amount": 5})
                await activation.persist()


async def check(store: Store, cars: Cars, wallets: Wallets) -> None:
    """Let sweeps without faults finish; everything was stored once."""
    for node in await store.nodes():
        await store.forget(node.node_id)
    assert (await sweep(store, cars.suite)).is_complete
    assert (await rollout.sweep(store, wallets.suite, "Wallet")).is_complete
    for actor_id in PLAIN:
        found = await car(store, actor_id)
        assert (found.revision, found.owner) == (2, None)
        assert await value(store, actor_id) == {"id": actor_id, "speed": 2, "drivers": ["nobody"]}
    for actor_id in "wx":
        found_wallet = await store.read(ActorKey("Wallet", actor_id))
        assert found_wallet is not None
        money = {"amount": 5, "currency": "USD"}
        assert orjson.loads(found_wallet.states["wallet"]) == {"name": "ann", "money": money, "notes": []}
        assert found_wallet.owner is None
    counts = await store.entry_census("Wallet")
    assert [(applied.highest, count) for applied, count in counts.items()] == [
        (wallets.suite.actor_types["Wallet"].chain.release.highest, 2)
    ]


async def attempt(store: Store, fault: Fault | None) -> list[str]:
    """Sweep under a fault; return the store calls that were made."""
    cars, wallets, faulty = Cars(), Wallets(), FaultyStore(store)
    await fill(store, cars, wallets)

    async def run() -> None:
        faulty.arm(fault, asyncio.current_task())
        await sweep(faulty, cars.suite)
        await rollout.sweep(faulty, wallets.suite, "Wallet")

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    error = None if task.cancelled() else task.exception()
    if error is not None and (fault is None or not isinstance(error, errors.LazymigError)):
        raise error
    try:
        await check(store, cars, wallets)
    except BaseException:
        print(f"failed with {fault} of {list(faulty.calls)}")
        raise
    return list(faulty.calls)


FAULTS = [("before", "error"), ("after", "error"), ("later", "error"), ("before", "cancel"), ("after", "interrupt")]


@pytest.mark.parametrize(
    ("kind", "when", "how"),
    [
        *(("memory", *fault) for fault in FAULTS),
        ("sqlite", "after", "error"),
        *(pytest.param("sqlite", *fault, marks=pytest.mark.stress) for fault in FAULTS if fault != ("after", "error")),
        *(pytest.param("postgres", *fault, marks=pytest.mark.stress) for fault in FAULTS),
    ],
)
async def test_whatever_call_of_a_sweep_fails_each_actor_is_brought_up_once(
    tmp_path: Path, kind: str, when: Literal["before", "after", "later"], how: Literal["error", "cancel", "interrupt"]
) -> None:
    calls: list[str] = []
    number = -1
    while number < len(calls):
        with fresh(kind, tmp_path, number) as url:
            async with open_store(url) as store:
                made = await attempt(store, None if number < 0 else Fault(number, when, how))
                calls = calls or made
        number += 1
    assert {"sweeping.claim", "sweeping.commit", "sweeping.note", "claim", "commit", "rule", "census"} <= set(calls)


async def test_a_cancelled_sweep_leaves_nothing_held(store: Store) -> None:
    cars = Cars()
    await put_legacy(store, *PLAIN)
    begun = asyncio.Event()

    @cars.suite.actor_types["Car"].migration("2.1.0")
    async def wait(state: Any, context: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    sweeping = asyncio.create_task(sweep(store, cars.suite))
    await begun.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping

    assert await store.nodes() == []
    assert {(await car(store, actor_id)).owner for actor_id in PLAIN} == {None}
    assert {(await car(store, actor_id)).revision for actor_id in PLAIN} == {1}


async def test_what_ended_it_is_told_though_the_store_fails_then(store: Store) -> None:
    cars, failing = Cars(), asyncio.Event()
    await put_legacy(store, *PLAIN)

    async def fail() -> None:
        if failing.is_set():
            raise errors.StoreUnavailableError("the store", "gone")

    def end(report: SweepReport) -> None:
        failing.set()
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await sweep(FaultyStore(store, fail), cars.suite, progress=end)
    for node in await store.nodes():
        await store.forget(node.node_id)
    assert (await sweep(store, cars.suite)).migrated == len(PLAIN)
