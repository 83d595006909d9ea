"""How the PostgreSQL store talks to its server: trips, snapshots, clocks, durability."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import open_store
from lazymig._postgres_sql import in_schema
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, Stamp
from lazymig._sql import SqlStore
from lazymig._sql_operations import last, trip
from lazymig._version import pack, parse
from lazymig.errors import LeaseLostError
from lazymig.postgres import PostgresConnection
from lazymig.testing.post_bench import join, send, take
from tests import postgres
from tests.wire import wire_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import psycopg

    from lazymig._sql_operations import Operation, Rows, Statement
    from lazymig.store import Store

KEY = ActorKey("Car", "a")
NODE = NodeRecord("n1", "label", None, 10.0)
STAMP = Stamp(AppliedSet([pack(parse("1.0.0"))]), AppliedSet([pack(parse("1.0.0"))]))


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url() as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        for node_id in ("n1", "n2"):
            await store.register(NodeRecord(node_id, "label", None, 10.0))
        yield store


@pytest.fixture
def beside() -> Iterator[psycopg.Connection[Any]]:
    """Return a connection that isn't the store's."""
    with postgres.connect() as connection:
        yield connection


def connection_of(store: Store) -> PostgresConnection:
    assert isinstance(store, SqlStore)
    found = store._connection
    assert isinstance(found, PostgresConnection)
    return found


def in_(url: str, statement: str) -> str:
    return in_schema(statement, postgres.schema_of(url))


def is_waited_for(beside: psycopg.Connection[Any], count: int = 1) -> bool:
    """Tell whether so many statements wait for a lock that this connection holds."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    return beside.execute(query).fetchone() == (count,)


async def until_waiting(beside: psycopg.Connection[Any]) -> None:
    """Return when a statement waits for a lock that this connection holds."""
    while not is_waited_for(beside):  # noqa: ASYNC110  (in the server)
        await asyncio.sleep(0)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_each_operation_on_an_actor_is_one_turn_of_the_talk(partitions: int) -> None:
    with postgres.schema_url(pool=1, partitions=partitions) as url:
        async with wire_to(url) as (wire, through), open_store(through) as store:
            await store.register(NODE)
            await store.claim(KEY, Fence("n1", 1))
            await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"0", "other": b"0"}))
            driven = connection_of(store)

            async def turns(operation: Any) -> tuple[int, int]:
                before = wire.turns, driven.trips
                await operation
                return wire.turns - before[0], driven.trips - before[1]

            fence = Fence("n1", 2)
            assert await turns(store.claim(KEY, fence)) == (1, 1)
            assert await turns(store.read(KEY)) == (1, 1)
            assert await turns(store.commit(Commit(KEY, fence, 1, STAMP, {"main": b"1", "other": None}))) == (1, 1)
            assert await turns(store.commit(Commit(KEY, fence, 2, STAMP, {"main": b"2"}, release=True))) == (1, 1)
            assert await turns(store.claim(KEY, Fence("n1", 3))) == (1, 1)
            assert await turns(store.release([(KEY, Fence("n1", 3)), (ActorKey("Car", "b"), Fence("n1", 4))])) == (1, 1)
            assert await turns(store.scan("Car")) == (1, 1)
            assert await turns(store.census("Car")) == (1, 1)
            assert await turns(store.types()) == (1, 1)
            assert await turns(store.insert("Car", "main", [("x", b"1"), ("y", b"1")])) == (2, 2)
            assert await turns(store.release([])) == (0, 0)


async def test_an_applied_set_new_to_the_process_costs_a_turn_once(url: str) -> None:
    async with wire_to(url) as (wire, through), open_store(through) as store:
        await store.register(NODE)
        await store.claim(KEY, Fence("n1", 1))
        before = wire.turns
        await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"0"}))
        assert wire.turns - before == 2
        await store.commit(Commit(KEY, Fence("n1", 1), 1, STAMP, {"main": b"0"}))
        assert wire.turns - before == 3


async def test_only_what_must_survive_waits_for_the_disk(store: Store) -> None:
    asked: Statement = ("SELECT current_setting('synchronous_commit')", {})

    def at_once() -> Operation[list[Rows]]:
        return (yield last(asked))

    def in_two_trips() -> Operation[list[Rows]]:
        first = yield trip(asked)
        return first + (yield last(asked))

    run = connection_of(store).run
    for _ in range(2):
        assert await run(at_once) == [[("off",)]]
        assert await run(at_once, durable=True) == [[("on",)]]
        assert await run(in_two_trips) == [[("off",)], [("off",)]]
        assert await run(in_two_trips, durable=True) == [[("on",)], [("on",)]]
        assert await run(at_once, writes=False) == [[("on",)]]


async def test_an_operation_that_raises_between_two_trips_stores_nothing(url: str, store: Store) -> None:
    insert = in_(url, "INSERT INTO lazymig.node VALUES ('torn', '', '', 1, '[]')")

    def breaking() -> Operation[None]:
        yield trip((insert, {}))
        raise LeaseLostError(KEY)

    def unended() -> Operation[None]:
        yield trip((insert.replace("torn", "whole"), {}))

    run = connection_of(store).run
    with pytest.raises(LeaseLostError):
        await run(breaking)
    await run(unended)
    (found,) = await run(lambda: _one(in_(url, "SELECT incarnation FROM lazymig.node")))
    assert {node for (node,) in found} == {"n1", "n2", "whole"}


def _one(statement: str) -> Operation[list[Rows]]:
    return (yield last((statement, {})))


async def test_a_call_that_another_node_is_taking_is_taken_once(url: str, store: Store, beside: Any) -> None:
    for node_id in ("a", "b"):
        await join(store, node_id)
    await send(store, "c")
    with beside.transaction():
        beside.execute(in_(url, "UPDATE lazymig.call SET status = 1, taker = 'a'"))
        taking = asyncio.create_task(take(store, "b"))
        while not taking.done() and not is_waited_for(beside):  # noqa: ASYNC110  (in the server)
            await asyncio.sleep(0)

    assert await taking == []


async def test_a_claim_that_waited_reads_what_was_committed_meanwhile(url: str, store: Store, beside: Any) -> None:
    await store.insert("Car", "main", [("a", b"old")])
    with beside.transaction():
        beside.execute(in_(url, "UPDATE lazymig.actor SET revision = 2"))
        beside.execute(in_(url, "UPDATE lazymig.state SET value = 'new'"))
        claiming = asyncio.create_task(store.claim(KEY, Fence("n1", 1)))
        await until_waiting(beside)

    claim = await claiming
    assert isinstance(claim, Claim)
    assert (claim.actor.revision, claim.actor.states["main"]) == (2, b"new")


async def test_a_claim_that_waited_longer_than_a_lease_does_not_take_from_the_living(url: str, beside: Any) -> None:
    async with open_store(url) as store:
        await store.register(NodeRecord("n1", "", None, 0.3))
        await store.register(NodeRecord("n2", "", None, 60.0))
        await store.claim(KEY, Fence("n1", 1))
        pulse = store.open_pulse()
        with beside.transaction():
            beside.execute(in_(url, "SELECT FROM lazymig.actor FOR UPDATE"))
            assert pulse.beat("n1")
            claiming = asyncio.create_task(store.claim(KEY, Fence("n2", 1)))
            await until_waiting(beside)
            for _ in range(6):  # its lease, twice
                assert pulse.beat("n1")
                beside.execute("SELECT pg_sleep(0.1)")

        assert await claiming == Held("n1")
        pulse.close()


@pytest.mark.parametrize("was_held", [False, True])
async def test_a_claim_that_waited_does_not_take_from_who_registered_meanwhile(
    url: str, store: Store, beside: Any, *, was_held: bool
) -> None:
    await store.insert("Car", "main", [("a", b"1")])
    if was_held:  # by a node that is gone
        await store.claim(KEY, Fence("n1", 1))
        await store.unregister("n1")
    with beside.transaction():
        beside.execute(in_(url, "SELECT FROM lazymig.actor FOR UPDATE"))
        claiming = asyncio.create_task(store.claim(KEY, Fence("n2", 1)))
        await until_waiting(beside)
        await store.register(NodeRecord("n3", "label", None, 10.0))
        beside.execute(in_(url, "UPDATE lazymig.actor SET owner = 'n3', number = 1"))  # it claims

    assert await claiming == Held("n3")


async def test_after_a_clock_step_nobody_takes_before_having_been_heard(url: str, store: Store, beside: Any) -> None:
    await store.claim(KEY, Fence("n1", 1))
    beside.execute(in_(url, "UPDATE lazymig.heartbeat SET at = at - 3600"))

    assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")
    assert isinstance(await store.claim(ActorKey("Car", "free"), Fence("n2", 2)), Claim)
    pulse = store.open_pulse()
    assert pulse.beat("n2")
    pulse.close()
    assert isinstance(await store.claim(KEY, Fence("n2", 3)), Claim)


async def test_a_heartbeat_from_before_a_step_back_counts(url: str, store: Store, beside: Any) -> None:
    await store.claim(KEY, Fence("n1", 1))
    beside.execute(in_(url, "UPDATE lazymig.heartbeat SET at = at + 3600 WHERE incarnation = 'n1'"))

    assert await store.claim(KEY, Fence("n2", 1)) == Held("n1")


async def test_what_a_claim_tells_of_time_is_the_servers_clock(store: Store, beside: Any) -> None:
    (before,) = beside.execute("SELECT clock_timestamp()").fetchone()
    claim = await store.claim(KEY, Fence("n1", 1))
    (after,) = beside.execute("SELECT clock_timestamp()").fetchone()
    assert isinstance(claim, Claim)
    assert before <= claim.now <= after


async def test_a_commit_that_waited_while_its_fence_became_void_stores_nothing(
    url: str, store: Store, beside: Any
) -> None:
    await store.claim(KEY, Fence("n1", 1))
    await store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1", "other": b"1"}))
    with beside.transaction():
        beside.execute(in_(url, "UPDATE lazymig.actor SET number = 2"))
        late = Commit(KEY, Fence("n1", 1), 1, STAMP, {"main": b"2", "other": None, "third": b"2"})
        committing = asyncio.create_task(store.commit(late))
        await until_waiting(beside)

    with pytest.raises(LeaseLostError):
        await committing
    found = await store.read(KEY)
    assert found is not None
    assert (found.revision, dict(found.states)) == (1, {"main": b"1", "other": b"1"})


async def test_a_node_is_forgotten_only_after_its_commits_under_way(url: str, store: Store, beside: Any) -> None:
    waits = in_(url, "SELECT 1 FROM pg_locks WHERE relation = 'lazymig.node'::regclass AND NOT granted")
    await store.claim(KEY, Fence("n1", 1))
    with beside.transaction():
        beside.execute(in_(url, "SELECT FROM lazymig.actor FOR UPDATE"))
        committing = asyncio.create_task(store.commit(Commit(KEY, Fence("n1", 1), 0, STAMP, {"main": b"1"})))
        await until_waiting(beside)
        forgetting = asyncio.create_task(store.forget("n1"))
        while not forgetting.done() and beside.execute(waits).fetchone() is None:  # noqa: ASYNC110  (in the server)
            await asyncio.sleep(0.005)
        assert not forgetting.done(), "a commit under way could still take effect"

    assert await committing == 1
    assert await forgetting
    with pytest.raises(LeaseLostError):
        await store.commit(Commit(KEY, Fence("n1", 1), 1, STAMP, {"main": b"2"}))


async def test_a_stale_commit_that_writes_a_row_on_the_way_stores_no_state(url: str, store: Store) -> None:
    """A new applied set is a row that the transaction writes before it finds out."""
    await store.claim(KEY, Fence("n1", 1))
    await store.commit(Commit(KEY, Fence("n1", 1), 0, None, {"main": b"1"}))

    with pytest.raises(LeaseLostError):
        await store.commit(Commit(KEY, Fence("n2", 1), 1, STAMP, {"main": b"2"}))
    found = await store.read(KEY)
    assert found is not None
    assert dict(found.states) == {"main": b"1"}


async def test_an_applied_set_longer_than_an_index_takes_is_kept(store: Store) -> None:
    applied = AppliedSet([pack(parse(f"{major}.{minor}.1234")) for major in range(1, 40) for minor in range(100)])
    await store.claim(KEY, Fence("n1", 1))
    await store.commit(Commit(KEY, Fence("n1", 1), 0, Stamp(applied, applied), {"main": b"1"}))

    assert await store.census("Car") == {applied: 1}


HOSTILE = [
    "'; DROP SCHEMA lazymig CASCADE; --", '"', "%(node)s", "%s %%", "$1", "\\", "a\nb", "\u202e", "\U0010ffff",
    "lazymig.actor", "é" * 500, "{}", "NULL", " ",
]  # fmt: skip


async def test_hostile_ids_are_just_ids(store: Store) -> None:
    for number, text in enumerate(HOSTILE):
        key = ActorKey(text.encode()[:200].decode(errors="ignore"), text)
        claim = await store.claim(key, Fence("n1", number))
        assert isinstance(claim, Claim)
        await store.commit(Commit(key, claim.fence, 0, STAMP, {key.type: text.encode()}))
        found = await store.read(key)
        assert found is not None
        assert dict(found.states) == {key.type: text.encode()}
    assert await store.insert("Car", "main", [(text, b"1") for text in HOSTILE]) == set(HOSTILE)
    assert [actor.key.id for actor in await store.scan("Car")] == sorted(HOSTILE)


async def test_updates_stay_in_their_page(url: str, store: Store, beside: Any) -> None:
    """Claims, commits and releases are HOT updates: no index grows with them."""
    for number in range(100):
        claim = await store.claim(KEY, Fence("n1", number))
        assert isinstance(claim, Claim)
        await store.commit(Commit(KEY, claim.fence, number, STAMP, {"main": b"%d" % number}, release=True))
    schema = postgres.schema_of(url)
    query = f"SELECT pg_relation_size('{schema}.actor'), pg_relation_size('{schema}.state')"
    assert max(beside.execute(query).fetchone()) <= 4 * 8192
