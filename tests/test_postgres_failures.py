"""What goes wrong between a store and PostgreSQL is told, survived, and neither loses nor doubles anything."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import open_store
from lazymig import postgres as product
from lazymig._records import ActorKey, Claim, Commit, Fence, Held, NodeRecord
from lazymig.errors import (
    StoreClosedError,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from lazymig.testing.store_suite import increment
from tests import postgres
from tests.test_postgres_protocol import KEY, NODE, STAMP, connection_of, in_, until_waiting
from tests.wire import Cut, wire_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lazymig._postgres_driver import Driver
    from lazymig.store import Store


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url(pool=1) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        await store.register(NODE)
        yield store


def driver_of(store: Store) -> Driver:
    return connection_of(store).driver


@contextmanager
def locked(url: str, key: str = "a") -> Iterator[Any]:
    """Hold an actor's row by another connection."""
    with postgres.connect() as beside, beside.transaction():
        beside.execute(in_(url, "SELECT FROM lazymig.actor WHERE id = %s FOR UPDATE"), (key,))
        yield beside


async def test_workers_of_many_processes_lose_nothing(url: str) -> None:
    """Each has a store of its own, as processes do."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(url)) for _ in range(6)]
        for number, store in enumerate(stores):
            await store.register(NodeRecord(f"n{number}", "", None, 60.0))
        await asyncio.gather(*(increment(store, f"n{number}") for number, store in enumerate(stores)))

        found = await stores[0].read(KEY)
        assert found is not None
        assert (found.states["count"], found.revision) == (b"60", 60)


async def test_a_connection_that_the_server_closed_while_idle_is_replaced(store: Store) -> None:
    await store.claim(KEY, Fence("n1", 1))
    with postgres.connect() as beside:
        for number in count(1):
            ended = beside.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name = 'lazymig' AND pid <> pg_backend_pid()"
            ).fetchall()
            assert (True,) in ended
            assert await store.commit(Commit(KEY, Fence("n1", 1), number - 1, STAMP, {"main": b"1"})) == number
            if number == 5:
                break


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_connection_is_lost_says_that_its_outcome_is_unknown(
    url: str, when: Cut, *, release: bool
) -> None:
    async with wire_to(url) as (wire, through), open_store(through) as store:
        await store.register(NODE)
        await store.claim(KEY, Fence("n1", 1))
        await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1"}))
        wire.cut(when, b".commit(")
        with pytest.raises(StoreUnavailableError, match="unknown") as caught:
            await store.commit(Commit(KEY, Fence("n1", 1), 1, STAMP, {"main": b"2"}, release=release))

        assert caught.value.retryable
        assert caught.value.__cause__ is not None
        found = await store.read(KEY)
        assert found is not None
        assert (found.revision, found.states["main"]) == ((2, b"2") if when == "after" else (1, b"1"))


async def test_a_server_that_does_not_answer_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.server_to_break()
    driver_of(store).answer_seconds = 0.2
    monkeypatch.setattr(product, "CONNECT_SECONDS", 0.2)
    pulse = store.open_pulse()
    with postgres.connect() as beside:
        ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'lazymig'"
        pids = [pid for (pid,) in beside.execute(ours)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError, match="unknown"):
            await store.claim(KEY, Fence("n1", 1))
        with pytest.raises(StoreUnavailableError):
            pulse.beat("n1")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    driver_of(store).answer_seconds = 60.0
    assert isinstance(await store.claim(KEY, Fence("n1", 2)), Claim)
    assert pulse.beat("n1")
    pulse.close()


async def test_a_deadlock_is_retryable_and_stored_nothing(url: str, store: Store) -> None:
    keys = [ActorKey("Car", name) for name in "ab"]
    for number, key in enumerate(keys):
        await store.claim(key, Fence("n1", number))
    with postgres.connect(options="-c deadlock_timeout=60s") as beside, beside.transaction():
        touch = in_(url, "UPDATE lazymig.actor SET number = number WHERE id = %s")
        beside.execute(touch, ("b",))
        releasing = asyncio.create_task(store.release([(key, Fence("n1", n)) for n, key in enumerate(keys)]))
        await until_waiting(beside)
        await asyncio.to_thread(beside.execute, touch, ("a",))
        with pytest.raises(StoreUnavailableError, match=r"deadlock.*Nothing was stored"):
            await releasing

    await store.release([(key, Fence("n1", n)) for n, key in enumerate(keys)])
    await store.register(NodeRecord("n2", "", None, 10.0))
    assert isinstance(await store.claim(keys[0], Fence("n2", 1)), Claim)


async def test_a_statement_timeout_is_retryable_and_stored_nothing(url: str) -> None:
    async with open_store(f"{url}&options=-c%20statement_timeout%3D100") as store:
        await store.register(NODE)
        await store.claim(KEY, Fence("n1", 1))
        with locked(url), pytest.raises(StoreUnavailableError, match=r"timeout.*Nothing was stored.*statement_timeout"):
            await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1"}))
        assert await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1"})) == 1


async def test_an_exhausted_pool_is_told_with_its_cure(url: str, store: Store) -> None:
    await store.claim(KEY, Fence("n1", 1))
    driver_of(store).wait_seconds = 0.1
    with locked(url) as beside:
        waiting = asyncio.create_task(store.claim(KEY, Fence("n1", 2)))
        await until_waiting(beside)
        with pytest.raises(StoreUnavailableError, match=r"Nothing was stored.*\?pool= \(now 1\)"):
            await store.read(KEY)
    assert isinstance(await waiting, Claim)


async def test_an_operation_cut_off_goes_on_and_leaves_its_connection_whole(url: str, store: Store) -> None:
    await store.claim(KEY, Fence("n1", 1))
    with locked(url) as beside:
        committing = asyncio.create_task(store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1"})))
        await until_waiting(beside)
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing

    claim = await store.claim(KEY, Fence("n1", 2))  # the pool has one connection: this comes after it
    assert isinstance(claim, Claim)
    assert claim.actor.revision == 1


async def test_an_operation_cut_off_while_it_waits_for_a_connection_does_not_happen(url: str, store: Store) -> None:
    other = ActorKey("Car", "b")
    await store.claim(KEY, Fence("n1", 1))
    with locked(url) as beside:
        first = asyncio.create_task(store.claim(KEY, Fence("n1", 2)))
        await until_waiting(beside)
        second = asyncio.create_task(store.claim(other, Fence("n1", 3)))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait([second])
    await first
    await store.register(NodeRecord("n2", "", None, 60.0))

    assert isinstance(await store.claim(other, Fence("n2", 1)), Claim)


async def test_a_commit_that_the_driver_refuses_in_the_midst_stores_nothing(store: Store) -> None:
    """What was sent before is not to be synced: the server would commit it."""
    await store.claim(KEY, Fence("n1", 1))
    await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"a": b"1", "b": b"1"}))
    no_bytes: Any = "text with \0"
    with pytest.raises(StoreError, match="Nothing was stored"):
        await store.commit(Commit(KEY, Fence("n1", 1), 1, STAMP, {"a": b"2", "b": no_bytes}))

    found = await store.read(KEY)
    assert found is not None
    assert (found.revision, dict(found.states)) == (1, {"a": b"1", "b": b"1"})


async def test_a_commit_cut_off_with_the_event_loop_is_whole_or_nothing(url: str, store: Store) -> None:
    """The end of a loop cancels all its tasks, those too that finish what was begun."""
    await store.claim(KEY, Fence("n1", 1))
    names = "abcdef"
    await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, dict.fromkeys(names, b"0")))
    revision, outcomes = 1, set()
    for turns in range(40):
        value = b"%d" % turns
        committing = asyncio.create_task(
            store.commit(Commit(KEY, Fence("n1", turns + 1), revision, STAMP, dict.fromkeys(names, value)))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in driver_of(store)._running:
            task.cancel()
        await asyncio.wait([committing])
        claim = await store.claim(KEY, Fence("n1", turns + 2))
        assert isinstance(claim, Claim)
        assert len(set(claim.actor.states.values())) == 1
        is_stored = claim.actor.states["a"] == value
        assert claim.actor.revision == revision + is_stored
        revision += is_stored
        outcomes.add(is_stored)
    assert outcomes == {False, True}


async def test_a_store_that_is_closed_finishes_what_was_begun(url: str) -> None:
    async with open_store(url) as store:
        await store.register(NODE)
        await store.claim(KEY, Fence("n1", 1))
        committing = asyncio.create_task(store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1"})))
        await asyncio.sleep(0)
    assert await committing == 1
    with pytest.raises(StoreClosedError):
        await store.read(KEY)


@asynccontextmanager
async def read_only_meanwhile() -> AsyncIterator[None]:
    """Let all transactions that begin be read-only, as on a server that became a standby."""
    server = postgres.server_to_break()
    with postgres.connect() as beside:
        beside.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        server.reload()
        try:
            yield
        finally:
            beside.execute("SET default_transaction_read_only = off")
            beside.execute("ALTER SYSTEM RESET default_transaction_read_only")
            server.reload()


async def test_a_server_that_became_read_only_is_left_for_the_next_one(store: Store) -> None:
    async with read_only_meanwhile():
        with pytest.raises(StoreReadOnlyError, match="primary"):
            await store.claim(KEY, Fence("n1", 1))
    assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)


async def test_a_lock_of_the_dead_is_free_after_its_lease(url: str, store: Store) -> None:
    async with open_store(url) as other:
        await other.register(NodeRecord("n0", "", None, 0.2))
        await other.claim(KEY, Fence("n0", 1))
        assert await store.claim(KEY, Fence("n1", 1)) == Held("n0")
        with postgres.connect() as beside:
            await asyncio.to_thread(beside.execute, "SELECT pg_sleep(0.2)")
        assert isinstance(await store.claim(KEY, Fence("n1", 2)), Claim)
