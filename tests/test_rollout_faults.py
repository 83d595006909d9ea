"""Every store call of a rolling deploy fails or is cut off, before and after it took effect; nothing is lost then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pytest

from lazymig import Node, errors, open_store, rollout
from lazymig.testing import Fault, FaultyStore
from tests.rollout_plans import fresh
from tests.wallets import KEY, Wallets, load, stored

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig import Suite
    from lazymig.store import Store

EUR = {"amount": 0, "currency": "EUR"}


class Deploy:
    """A rolling deploy of wallets, and the amounts that were tried and acknowledged."""

    def __init__(self) -> None:
        wallets = Wallets()
        self.old, self.new = wallets.release("1.1.0"), wallets.release("2.0.0")
        self.tried = self.acknowledged = 0

    async def run(self, store: Store) -> None:
        await self._save(store, self.old, 2)
        await rollout.pin(store, "Wallet", "1.1.0")
        await self._save(store, self.new, 2)
        await self._save(store, self.old, 1)
        await self._save(store, self.new, 1)
        gate = await rollout.flip(store, "Wallet", "2.0.0")
        if gate.allowed:
            await self._save(store, self.new, 1)

    async def _save(self, store: Store, suite: Suite, times: int) -> None:
        async with Node(store, [suite], drain_on_sigterm=False) as node:
            for _ in range(times):
                async with node.activate("Wallet", "w") as activation:
                    default = {"name": "ann", "amount": 0} if suite is self.old else {"name": "ann", "money": EUR}
                    value: Any = await activation.state().migrate_and_load(default=default)
                    self.tried += 1
                    (value if suite is self.old else value["money"])["amount"] = self.tried
                    await activation.persist()
                    self.acknowledged = self.tried

    async def check(self, store: Store) -> None:
        """Let releases without faults read what is there, as far as they may, and bring it to an end."""
        expected = {self.acknowledged, self.tried}
        if not self.acknowledged and await store.read(KEY) is None:
            return
        written = (await rollout.status(store, "Wallet")).write_version
        if written is None or str(written) == "1.1.0":
            found = await stored(store)
            if found.stamp is not None and b"money" not in found.states["wallet"]:
                value = await load(store, self.old)
                assert value["amount"] in expected, value
                expected = {value["amount"]}
        value = await load(store, self.new)
        assert value["money"]["amount"] in expected, value
        assert value["name"] == "ann"
        if written is not None:
            assert (await rollout.flip(store, "Wallet", "2.0.0")).allowed
        assert await load(store, self.new) == value
        found = await stored(store)
        assert (orjson.loads(found.states["wallet"]), found.base) == (value, None)


async def attempt(store: Store, fault: Fault | None) -> list[str]:
    """Run a deploy under a fault; return the store calls it made."""
    deploy, faulty = Deploy(), FaultyStore(store)

    async def run() -> None:
        faulty.arm(fault, asyncio.current_task())
        await deploy.run(faulty)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    error = None if task.cancelled() else task.exception()
    assert faulty.has_struck is (fault is not None)
    if error is not None and (fault is None or not isinstance(error, errors.LazymigError)):
        raise error
    for node in await store.nodes():
        await store.forget(node.node_id)
    try:
        await deploy.check(store)
    except BaseException:
        print(f"failed with {fault} of {list(faulty.calls)}")
        raise
    return list(faulty.calls)


@pytest.mark.parametrize("how", ["error", "cancel"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.stress)])
async def test_whatever_call_of_a_deploy_fails_nothing_is_lost(
    tmp_path: Path, kind: str, how: Literal["error", "cancel"], when: Literal["before", "after"]
) -> None:
    calls: list[str] = []
    number = -1
    while number < len(calls):
        with fresh(kind, tmp_path, number) as url:
            async with open_store(url) as store:
                found = await attempt(store, None if number < 0 else Fault(number, when, how))
        calls = calls or found
        number += 1
    assert {"claim", "commit", "rule", "register"} <= set(calls)
