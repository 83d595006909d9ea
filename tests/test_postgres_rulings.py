"""Write policies and rulings on PostgreSQL: what waits for whom, snapshots, updates that stay in their page."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import open_store, rollout
from lazymig import postgres as opening
from lazymig._bases import NO_POLICY, BaseWrite, Kept, WritePolicy
from lazymig._postgres_ruling_sql import RULING_DIALECT
from lazymig._records import ActorKey, Claim, Commit, Fence, NodeRecord
from lazymig._rulings import AskActors, AskBases, AskType, Ruled
from lazymig._sql_rulings import SqlRulings
from lazymig.errors import StoreUnavailableError
from lazymig.testing.ruling_bench import answers, facts, pin
from tests import postgres
from tests.test_postgres_protocol import KEY, NODE, STAMP, connection_of, in_, until_waiting
from tests.wire import wire_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import psycopg

    from lazymig._rulings import Question, Ruling
    from lazymig.store import Store

FENCE = Fence("n1", 1)
CHANGE = Commit(KEY, FENCE, 0, STAMP, {"main": b"1"})


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url() as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        await store.register(NODE)
        await store.claim(KEY, FENCE)
        yield store


@pytest.fixture
def beside() -> Iterator[psycopg.Connection[Any]]:
    """Return a connection that isn't the store's."""
    with postgres.connect() as connection:
        yield connection


def lock_actor(beside: psycopg.Connection[Any], url: str) -> None:
    beside.execute("BEGIN")
    beside.execute(in_(url, "SELECT 1 FROM lazymig.actor WHERE id = 'a' FOR UPDATE"))


@pytest.mark.parametrize("change", [CHANGE, CHANGE._replace(base=BaseWrite(STAMP.applied, states={"a": Kept(b"")}))])
async def test_no_commit_of_an_earlier_epoch_lands_after_the_change_has_returned(
    url: str, store: Store, beside: psycopg.Connection[Any], change: Commit
) -> None:
    """It compared the epoch before it waited for the row, and would store all the same: write skew."""
    lock_actor(beside, url)
    waiting = asyncio.create_task(store.commit(change))
    await until_waiting(beside)
    changed = asyncio.create_task(pin(store, None))
    done, _ = await asyncio.wait([changed], timeout=0.5)
    assert not done, "a commit under way was not waited for"
    beside.execute("COMMIT")
    assert await waiting == 1
    await changed
    assert await store.commit(change._replace(revision=1)) == WritePolicy(None, 1)


async def test_a_commit_that_comes_during_a_change_is_told_it(
    url: str, store: Store, beside: psycopg.Connection[Any]
) -> None:
    beside.execute("BEGIN")
    beside.execute(in_(url, "LOCK TABLE lazymig.policy IN ACCESS EXCLUSIVE MODE"))
    beside.execute(in_(url, "INSERT INTO lazymig.policy VALUES ('Car', 5, 1)"))
    waiting = asyncio.create_task(store.commit(CHANGE))
    await until_waiting(beside)
    beside.execute("COMMIT")
    assert await waiting == WritePolicy(5, 1)
    assert await store.read(KEY) is None


async def test_a_change_that_never_gets_its_lock_is_given_up_and_nothing_was_changed(
    url: str, store: Store, beside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "EXCLUDE_SECONDS", 1.0)
    beside.execute("BEGIN")
    beside.execute(in_(url, "SELECT * FROM lazymig.policy"))
    made = []

    def ruling() -> Ruling:
        made.append(1)
        yield AskType("Car")
        return Ruled(None, {"Car": 5})

    schema = postgres.schema_of(url)
    with pytest.raises(StoreUnavailableError, match=r"lock timeout.*nothing was changed") as failed:
        await store.rule(ruling, is_change=True)
    assert failed.value.is_unchanged
    assert f"the table {schema}.policy" in str(failed.value)
    assert f"--exclude-table={schema}.policy" in str(failed.value)
    assert pickle.loads(pickle.dumps(failed.value)).is_unchanged
    assert 2 <= len(made) <= 4, "anew for each try, with pauses in which commits go on"
    gate = await rollout.pin(store, "Car", "0.0.0")
    assert [reason.code for reason in gate.reasons] == ["store_failed"]
    assert "nothing was changed" in gate.reasons[0].text
    assert "unknown" not in gate.reasons[0].text
    assert await store.rule(ruling) is None, "who only asks is not in the way of who only reads"
    beside.execute("COMMIT")
    assert (await facts(store)).policy == NO_POLICY


async def test_a_ruling_holds_no_claim_and_no_commit_up(
    url: str, store: Store, beside: psycopg.Connection[Any]
) -> None:
    beside.execute("BEGIN")
    beside.execute(in_(url, "LOCK TABLE lazymig.policy IN SHARE ROW EXCLUSIVE MODE"))
    async with asyncio.timeout(5):
        assert await store.commit(CHANGE) == 1
        assert isinstance(await store.claim(KEY, Fence("n1", 2)), Claim)
        registering = asyncio.create_task(store.register(NodeRecord("n3", "label", None, 10.0)))
        await until_waiting(beside)
        assert [node.node_id for node in await store.nodes()] == ["n1"]
        beside.execute("COMMIT")
        await registering
    assert [node.node_id for node in await store.nodes()] == ["n1", "n3"]


async def test_a_policy_and_a_base_cost_no_trip_more(url: str) -> None:
    async with wire_to(url) as (wire, through), open_store(through) as store:
        await store.register(NODE)
        await pin(store, 5)
        await store.claim(KEY, FENCE)
        base = BaseWrite(STAMP.applied, 1, is_current=True, states={"main": Kept(b"1"), "gone": Kept(None)})
        change = CHANGE._replace(epoch=1, base=base)
        await store.commit(change)
        driven = connection_of(store)

        async def turns(operation: Any) -> tuple[int, int]:
            before = wire.turns, driven.trips
            await operation
            return wire.turns - before[0], driven.trips - before[1]

        assert await turns(store.commit(change._replace(revision=1))) == (1, 1)
        assert await turns(store.commit(change._replace(revision=2, epoch=0))) == (1, 1), "of another epoch"
        assert await turns(store.claim(KEY, Fence("n1", 2))) == (1, 1)
        assert await turns(store.read(KEY)) == (1, 1)
        assert await turns(store.scan("Car")) == (1, 1)
        assert await turns(store.stragglers("Car", frozenset({STAMP.applied}))) == (1, 1)
        assert await turns(store.entry_census("Car")) == (1, 1)
        assert await turns(store.rule(answers(AskType("Car")))) == (3, 3), "lock, ask, end"


@pytest.mark.parametrize("partitions", [1, 3])
async def test_claims_and_commits_of_the_same_sets_stay_in_their_page(
    partitions: int, beside: psycopg.Connection[Any]
) -> None:
    with postgres.schema_url(partitions=partitions) as url:
        schema = postgres.schema_of(url)
        async with open_store(url) as store:
            await store.register(NODE)
            keys = [ActorKey("Car", f"{number:03}") for number in range(30)]
            for key in keys:
                await store.claim(key, FENCE)
                base = BaseWrite(STAMP.applied, 1, is_current=True, states={"main": Kept(b"1")})
                await store.commit(CHANGE._replace(key=key, base=base, release=True))
            for key in keys:
                for revision in range(1, 6):
                    await store.claim(key, FENCE)
                    await store.commit(CHANGE._replace(key=key, revision=revision, base=base, release=True))
        stamped = based = 30
        as_before = 30 * 5 * 3  # a claim, a commit, its base
        async with asyncio.timeout(20):
            while _updates(beside, schema)[0] < stamped + based + as_before:  # noqa: ASYNC110  (told by the server)
                await asyncio.sleep(0.05)
        assert _updates(beside, schema) == (stamped + based + as_before, as_before)


def _updates(beside: psycopg.Connection[Any], schema: str) -> tuple[int, int]:
    """Return how many rows of actors were updated, and how many of them stayed in their page."""
    counted = """
        SELECT COALESCE(sum(n_tup_upd), 0)::int8, COALESCE(sum(n_tup_hot_upd), 0)::int8 FROM pg_stat_user_tables
        WHERE schemaname = %s AND relname LIKE 'actor%%'
    """
    row = beside.execute(counted, [schema]).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize(
    "question",
    [AskType("Car"), AskActors("Car", frozenset([None])), AskBases("Car", frozenset()), None],
    ids=["facts", "actors", "bases", "entries"],
)
def test_a_set_that_is_named_between_two_statements_is_known(question: Question | None) -> None:
    rulings = SqlRulings(RULING_DIALECT, lambda: None)
    asked = rulings.entry_census("Car") if question is None else rulings.decide(answers(question)())
    last, _ = next(asked).statements[-1]
    assert last == RULING_DIALECT.lineages
