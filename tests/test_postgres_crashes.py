"""A PostgreSQL server that crashes while the nodes live on: nothing happens twice because of what it forgot.

Its log is written so late here that whatever does not wait for the disk is lost.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store
from lazymig._fleet_records import CallState, CallStatus
from lazymig._records import Claim, Commit, Fence, Held, NodeRecord
from lazymig.errors import LeaseLostError
from lazymig.testing.post_bench import KEY, call, join, send, take
from lazymig.testing.store_bench import beat
from tests import postgres
from tests.boxes import KEY as BOX
from tests.boxes import Place, owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lazymig.store import Store
    from tests.postgres import Server

LONG_SECONDS = 1_000.0


@pytest.fixture
def server() -> Server:
    return postgres.server_to_break()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with postgres.schema_url() as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        for node_id in ("n1", "n2"):
            await store.register(NodeRecord(node_id, "label", None, LONG_SECONDS))
        yield store


def node(node_id: str, lease_seconds: float = LONG_SECONDS) -> NodeRecord:
    return NodeRecord(node_id, "label", None, lease_seconds)


# --- nodes and locks -------------------------------------------------------------------------------------------------


@pytest.mark.stress
async def test_a_crash_ends_every_registration_and_nobody_claims_before_all_know(server: Server, store: Store) -> None:
    assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)
    server.restart("immediate")
    await store.register(node("n3"))
    assert await store.read(KEY) is None, "the claim was not lost: this shows nothing"

    assert isinstance(await store.claim(KEY, Fence("n3", 1)), Held)
    with pytest.raises(LeaseLostError):
        await store.claim(KEY, Fence("n1", 2))
    assert [beat(store, node_id) for node_id in ("n1", "n2", "n3")] == [False, False, True]
    await store.register(node("n4"), replaces="n1")
    assert await store.claim(KEY, Fence("n4", 1)) == Held("n2")
    await store.register(node("n5"), replaces="n2")
    assert isinstance(await store.claim(KEY, Fence("n3", 2)), Claim)


async def test_who_died_in_the_crash_is_waited_for_no_longer_than_its_lease(server: Server, url: str) -> None:
    async with open_store(url) as store:
        await store.register(node("n1", 0.3))
        server.restart("immediate")
        await store.register(node("n2"))
        assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")
        async with asyncio.timeout(30):
            while not isinstance(await store.claim(KEY, Fence("n2", 2)), Claim):
                pass
            while await store.post.tidy() != ["n1"]:  # after ten leases
                pass
        known = {found.node_id: found.is_alive for found in await store.nodes()}
        assert known == {"n1": False, "n2": True}


async def test_an_orderly_restart_ends_no_registration(server: Server, store: Store) -> None:
    assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)
    server.restart("fast")
    assert beat(store, "n1")
    assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")
    assert await store.commit(Commit(KEY, Fence("n1", 1), 0, None, {"main": b"1"})) == 1


async def test_a_lock_that_survived_a_crash_still_protects(server: Server, store: Store) -> None:
    await store.claim(KEY, Fence("n1", 1))
    await store.commit(Commit(KEY, Fence("n1", 1), 0, None, {"main": b"1"}))
    server.restart("immediate")
    await store.register(node("n3"))
    assert await store.claim(KEY, Fence("n3", 1)) == Held("n1")
    assert await store.commit(Commit(KEY, Fence("n1", 1), 1, None, {"main": b"2"})) == 2
    await store.register(node("n4"), replaces="n1")
    with pytest.raises(LeaseLostError):
        await store.commit(Commit(KEY, Fence("n1", 1), 2, None, {"main": b"3"}))


async def test_a_node_whose_lock_was_lost_answers_nothing_stale(server: Server, url: str) -> None:
    first, second = Place(), Place()
    async with (
        open_store(url) as store,
        open_store(url) as other,
        first.run(store, idle_seconds=LONG_SECONDS) as one,
        second.run(other) as two,
    ):
        await store.insert("Box", "state", [("a", b'{"n": 1}')])
        assert await one.call("Box", "a", "echo", 1) == 1
        server.restart("immediate")
        async with two.activate("Box", "a", wait_seconds=60) as activation:
            assert await owner(store, BOX) == two.node_id, "the lock was not lost: this shows nothing"
            state = activation.state()
            await state.migrate_and_load()
            state.value["n"] = 2
            await state.persist()
        assert await one.call("Box", "a", "add") == 3


# --- calls -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def posted(store: Store) -> Store:
    """Let two nodes be there that can take calls, and a call that waits."""
    await join(store, "a")
    await join(store, "b")
    await send(store, "c")
    return store


async def test_a_call_taken_before_a_crash_is_taken_by_nobody_else(server: Server, posted: Store) -> None:
    assert await take(posted, "a") == ["c"]
    server.restart("immediate")
    await join(posted, "b2")
    assert await take(posted, "b2") == []
    assert [taken.call_id for taken in await posted.post.taken("a")] == ["c"]


async def test_an_answer_survives_a_crash(server: Server, posted: Store) -> None:
    await take(posted, "a")
    assert await posted.post.answer("c", "a", b"1", takes=1)
    server.restart("immediate")
    kept = CallState(CallStatus.DONE, b"1", "a", is_taker_alive=False)
    assert (await posted.post.peek("b", "s")).answers == {"c": kept}


async def test_a_call_passed_on_before_a_crash_still_waits(server: Server, posted: Store) -> None:
    await take(posted, "a")
    assert await posted.post.forward("c", "a", takes=1)
    server.restart("immediate")
    await join(posted, "b2")
    assert await take(posted, "b2") == [], "a call was taken while nobody may claim its actor"
    for node_id in ("n1", "n2", "a", "b"):
        await posted.unregister(node_id)
    assert await take(posted, "b2") == ["c"]


@pytest.mark.parametrize("call_id", ["c", "never sent"])
async def test_a_call_cancelled_before_a_crash_never_runs(server: Server, posted: Store, call_id: str) -> None:
    assert (await posted.post.cancel(call_id, "s")).status == CallStatus.CANCELLED
    server.restart("immediate")
    await join(posted, "b2")
    await posted.post.send(call("never sent"), max_waiting=9)
    assert call_id not in await take(posted, "b2")


async def test_a_node_that_does_not_know_of_the_crash_takes_no_call(server: Server, posted: Store) -> None:
    server.restart("immediate")
    await send(posted, "d", target="a")
    assert await take(posted, "a") == []
