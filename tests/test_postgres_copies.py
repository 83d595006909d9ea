"""Copies to PostgreSQL: what comes between a statement's snapshot and the row that it waits for."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import open_store
from lazymig._records import ActorKey, AppliedSet, Claim, Fence, Marks, Previous, Stamp, StoredActor
from lazymig._rows import write_set
from lazymig._version import pack, parse
from lazymig.copies import CopiedEntry, Put, Whole
from tests import postgres
from tests.copying import ONE
from tests.test_postgres_protocol import KEY, NODE, in_, until_waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    import psycopg

    from lazymig.store import Store

DRAFT = ActorKey("Car", "b")


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url() as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        await store.register(NODE)
        yield store


@pytest.fixture
def beside() -> Iterator[psycopg.Connection[Any]]:
    """Return a connection that isn't the store's."""
    with postgres.connect() as connection:
        yield connection


def entry(key: str) -> CopiedEntry:
    return CopiedEntry("log", key, b"1", ONE)


def whole(key: ActorKey, revision: int) -> Whole:
    return Whole(StoredActor(key, revision, None, {"main": b"1"}, marks=Marks(0, 0)))


async def test_a_page_that_another_copy_adds_meanwhile_is_not_in_a_draft_that_is_begun_anew(
    url: str, store: Store, beside: psycopg.Connection[Any]
) -> None:
    """Its entry may be gone in the revision that is copied now; nobody would ever remove it."""
    await store.copies.begin(DRAFT, 5, "old", [entry("a")])
    beside.execute("BEGIN")
    beside.execute(in_(url, "INSERT INTO lazymig.entry SELECT type, id, name, 'c', '', lineage FROM lazymig.entry"))
    adding = asyncio.create_task(store.copies.add(DRAFT, "old", [entry("b"), entry("c")]))
    await until_waiting(beside)
    beginning = asyncio.create_task(store.copies.begin(DRAFT, 6, "new", [entry("a")]))
    waits = """
        SELECT 1 FROM pg_stat_activity AS adds JOIN pg_stat_activity AS begins
        ON adds.pid = ANY(pg_blocking_pids(begins.pid)) WHERE pg_backend_pid() = ANY(pg_blocking_pids(adds.pid))
    """
    while beside.execute(waits).fetchone() is None:  # noqa: ASYNC110  (in the server)
        await asyncio.sleep(0)
    beside.execute("ROLLBACK")

    assert (await adding, await beginning) == (True, Put.STORED)
    assert await store.copies.finish(whole(DRAFT, 6), "new") is Put.STORED
    (found,) = await store.copies.read("Car", ["b"])
    assert list(found.entries) == [entry("a")]


async def test_a_draft_that_is_finished_and_claimed_while_a_copy_waits_is_left_alone(
    url: str, store: Store, beside: psycopg.Connection[Any]
) -> None:
    await store.copies.put("Car", [whole(KEY, 1)])
    await store.copies.begin(DRAFT, 5, "draft", [entry("a")])
    beside.execute("BEGIN")
    beside.execute(in_(url, "SELECT 1 FROM lazymig.actor WHERE id = 'a' FOR UPDATE"))
    putting = asyncio.create_task(store.copies.put("Car", [whole(KEY, 6), whole(DRAFT, 6)]))
    await until_waiting(beside)
    assert await store.copies.finish(whole(DRAFT, 5), "draft") is Put.STORED
    claim = await store.claim(DRAFT, Fence("n1", 1))
    beside.execute("ROLLBACK")

    assert isinstance(claim, Claim)
    assert await putting == [Put.STORED, Put.HELD]


TWO = Stamp(AppliedSet([pack(parse("2.0.0"))]), AppliedSet([pack(parse("2.0.0"))]))
NEWER = Whole(StoredActor(KEY, 6, None, {"main": b"1"}, marks=Marks(0, 0)), [entry("b")], Previous(TWO, {"main": b"0"}))


@pytest.mark.parametrize("call", ["put", "begin", "finish"])
async def test_sets_are_named_before_an_actor_is_locked(
    url: str, store: Store, beside: psycopg.Connection[Any], call: str
) -> None:
    """A commit names its sets first, too: in the other order each would wait for the other."""
    if call == "finish":
        await store.copies.begin(KEY, 6, "draft", [entry("a")._replace(applied=AppliedSet())])
    else:
        await store.copies.put("Car", [Whole(StoredActor(KEY, 1, None, {"main": b"1"}))])
    named = {"applied": write_set(TWO.applied if call == "finish" else ONE)}
    beside.execute("BEGIN")
    beside.execute(in_(url, "INSERT INTO lazymig.lineage (type, applied) VALUES ('Car', %(applied)s)"), named)
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "put": partial(store.copies.put, "Car", [NEWER]),
        "begin": partial(store.copies.begin, KEY, 6, "draft", [entry("a")]),
        "finish": partial(store.copies.finish, NEWER._replace(entries=()), "draft"),
    }
    waiting = asyncio.create_task(calls[call]())
    await until_waiting(beside)
    beside.execute(in_(url, "SELECT 1 FROM lazymig.actor WHERE id = 'a' FOR UPDATE NOWAIT"))
    beside.execute("COMMIT")

    assert await waiting in (Put.STORED, [Put.STORED])
