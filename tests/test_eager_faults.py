"""Whatever store call fails, entries are converted once, and what one persist stores is whole."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import pytest

from lazymig import errors
from lazymig.testing import Fault, FaultyStore
from tests.eager_logs import KEY, count, entries, fill, found, held, make_suite

if TYPE_CHECKING:
    from lazymig.store import Store


pytestmark = pytest.mark.usefixtures("small_chunks")


async def work(store: Store) -> None:
    """Bring the actor up, and use its tables."""
    async with held(store, make_suite(count)) as activation:
        await activation.state().migrate_and_load()
        log = activation.table("log")
        activation.state().value["done"] = True
        await log.put("new", {"n": -1})
        await log.update("000003", lambda entry: entry.update(seen=True))
        await log.delete("000004")
        await activation.persist()
        await log.put_many((f"x{n}", {"n": n}) for n in range(3))
        await log.delete_range(prefix="x")
        assert await log.count() == 20


async def calls_of(store: Store) -> list[str]:
    counted = FaultyStore(store)
    counted.arm(None)
    await work(counted)
    return counted.calls


@pytest.mark.parametrize("how", ["error", "cancel"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_whatever_store_call_fails_each_entry_is_converted_once_and_commits_are_whole(
    url: str, store: Store, how: Literal["error", "cancel"], when: Literal["before", "after"]
) -> None:
    await fill(store, 20)
    calls = await calls_of(store)
    assert {"entries", "count_entries", "tables", "commit"} < {*calls}
    for at in range(len(calls)):
        await clear(store)
        await fill(store, 20)
        faulty = FaultyStore(store)
        faulty.arm(Fault(at, when, how))
        with suppress(errors.LazymigError, asyncio.CancelledError):
            await work(faulty)
        assert faulty.has_struck
        await check_half(store)
        await work(store)
        kept = {key: data for key, data, _ in await entries(store)}
        assert len(kept) == 20, at
        for key, data in kept.items():
            assert data.count(b'"times":1') == (key != "new"), (at, key, data)
        assert await found(store) == ("2.0.0", None, "1.0.0")


async def check_half(store: Store) -> None:
    """Assert that what one persist stores is there as a whole, or not at all."""
    record = await store.read(KEY)
    assert record is not None
    kept = {key: data for key, data, _ in await entries(store)}
    is_done = b'"done":true' in record.states["state"]
    assert ("new" in kept, "000004" not in kept, b"seen" in kept["000003"]) == (is_done,) * 3
    for key, data, stamp in await entries(store):
        assert key[0] in "nx" or (data.count(b'"times":1') == 1) == (stamp == "2.0.0")


async def clear(store: Store) -> None:
    async with held(store, make_suite(count)) as activation:
        await activation.state().load()
        await activation.state().clear()
        await activation.table("log").delete_range()
        await activation.table("other").delete_range()
