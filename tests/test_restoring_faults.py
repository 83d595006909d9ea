"""Whatever store call of a restore fails or is cut off, the actor is as before or as after, and nobody has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest

from lazymig import errors, rollout
from lazymig._entries import Range
from lazymig._records import Previous
from lazymig.testing import Fault, FaultyStore
from tests.test_restoring import FLEET
from tests.test_restoring_entries import fill
from tests.wallets import KEY, load, save, stored

if TYPE_CHECKING:
    from lazymig._records import StoredActor
    from lazymig.store import Store


async def prepare(store: Store) -> StoredActor:
    """Store a wallet that can be restored; return it as it was."""
    if await store.read(KEY) is None:
        await fill(store, FLEET.old, 3)
    before = await stored(store)
    await save(store, FLEET.new, notes="new")
    return before


async def attempt(store: Store, fault: Fault | None) -> tuple[list[str], bool]:
    """Restore under a fault; return the store calls it made, and whether it was told to have been done."""
    faulty = FaultyStore(store)

    async def run() -> None:
        faulty.arm(fault, asyncio.current_task())
        await rollout.restore(faulty, KEY)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert faulty.has_struck is (fault is not None)
    error = None if task.cancelled() else task.exception()
    assert error is None or isinstance(error, errors.StoreError)
    return faulty.calls, not task.cancelled() and error is None


@pytest.mark.parametrize("how", ["error", "cancel", "interrupt"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_whatever_call_of_a_restore_fails_the_actor_is_as_before_or_as_after(
    store: Store, how: Literal["error", "cancel", "interrupt"], when: Literal["before", "after"]
) -> None:
    before = await prepare(store)
    calls, _ = await attempt(store, None)
    assert calls == ["register", "claim", "previous", "tables", "commit", "release", "unregister"]
    for at in range(len(calls)):
        before = await prepare(store)
        newer = await stored(store)
        _, is_done = await attempt(store, Fault(at, when, how))
        found, kept = await stored(store), await store.previous(KEY)
        is_back = kept is None
        if how == "interrupt":  # it reaches the next call where a store doesn't wait
            assert is_back or not is_done
        else:
            assert is_back is (at > calls.index("commit") - (when == "after") or is_done)
        wanted = before if is_back else newer
        assert (found.stamp, dict(found.states)) == (wanted.stamp, dict(wanted.states)), (at, is_back)
        assert is_back or kept == Previous(before.stamp, before.states)
        assert list((await store.entries(KEY, Range("payments"), 9, 999)).keys) == ["0000", "0001", "0002"]
        if not is_back:  # nobody has it: another attempt need not wait
            await rollout.restore(store, KEY)
        assert await load(store, FLEET.old) == {"amount": 0}
        for node in await store.nodes():
            await store.forget(node.node_id)


async def test_a_commit_that_lands_after_it_failed_is_whole(store: Store) -> None:
    before = await prepare(store)
    newer = await stored(store)
    calls, is_done = await attempt(store, Fault(4, "later", "error"))
    assert (calls[4], is_done) == ("commit", False)
    found = await stored(store)
    wanted = before if await store.previous(KEY) is None else newer
    assert (found.stamp, dict(found.states)) == (wanted.stamp, dict(wanted.states))
