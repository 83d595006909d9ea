"""What a write version costs, in exact counts: trips, durable commits, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, open_store, rollout
from tests import postgres
from tests.wallets import Wallets, write_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from lazymig.store import Store

EUR = {"amount": 7, "currency": "EUR"}


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "sqlite":
        async with open_store(f"sqlite:///{tmp_path}/fleet.db") as opened:
            yield opened
    else:
        with postgres.schema_url() as url:
            async with open_store(url) as opened:
                yield opened


async def cost(store: Store, work: Callable[[], Awaitable[Any]]) -> tuple[int, int]:
    """Return the trips and durable commits that something takes."""
    connection: Any = store._connection  # type: ignore[attr-defined]  # of a SQL store
    before = connection.trips, connection.commits
    await work()
    return connection.trips - before[0], connection.commits - before[1]


@pytest.mark.parametrize("version", [None, "2.0.0", "1.1.0"])
async def test_a_write_version_takes_no_trip_more_and_a_current_base_runs_nothing(
    store: Store, version: str | None
) -> None:
    wallets = Wallets()
    if version is not None:
        await write_at(store, version)
    options: dict[str, Any] = {"lease_seconds": 1_000, "idle_seconds": 1_000, "hand_over_seconds": 0}
    async with Node(store, [wallets.release("2.0.0")], **options) as node:

        async def store_it() -> None:
            async with node.activate("Wallet", "w") as activation:
                value: Any = await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
                value["money"]["amount"] += 1
                await activation.persist(release=True)

        async def read_it() -> None:
            async with node.activate("Wallet", "w") as activation:
                await activation.state().migrate_and_load()

        await store_it()  # the applied sets are known from here on
        wallets.ran.clear()
        assert await cost(store, store_it) == (2, 1)
        assert await cost(store, read_it) == (2, 0)
        assert wallets.ran == ({"amount": 1} if version == "1.1.0" else {})


async def test_a_gate_takes_few_trips_and_stores_nothing(store: Store) -> None:
    wallets = Wallets()
    async with Node(store, [wallets.release("2.0.0")], lease_seconds=1_000, idle_seconds=1_000) as node:
        async with node.activate("Wallet", "w") as activation:
            await activation.state().migrate_and_load(default={"money": EUR, "name": "ann"})
            await activation.persist()
        gates = (
            lambda: rollout.gate_pin(store, "Wallet", "1.1.0"),
            lambda: rollout.gate_flip(store, "Wallet", "2.0.0"),
            lambda: rollout.gate_unpin(store, "Wallet"),
            lambda: rollout.gate_retire(store, "Wallet", "2.0.0"),
        )
        for ask in gates:
            trips, commits = await cost(store, ask)
            assert trips <= 3
            assert commits == 0
