"""Operations that wait for a connection to PostgreSQL at the same time share one, a transaction and a trip."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest

from lazymig import errors, open_store
from lazymig._postgres_driver import LARGEST
from lazymig._postgres_walk import Walk
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, Stamp
from lazymig._version import pack, parse
from tests import postgres
from tests.test_postgres_protocol import STAMP, connection_of, in_, until_waiting
from tests.wire import wire_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from lazymig.store import Store

NUMBER = 2 * LARGEST + 1
"""One goes alone, the others are two groups."""


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url(pool=1) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        for node_id in ("n", "other"):
            await store.register(NodeRecord(node_id, "label", None, 1_000.0))
        yield store


@pytest.fixture
def beside() -> Iterator[psycopg.Connection[Any]]:
    """Return a connection that isn't the store's."""
    with postgres.connect() as connection:
        yield connection


def key(number: int) -> ActorKey:
    return ActorKey("Box", f"{number:03}")


def fence(number: int, node: str = "n") -> Fence:
    return Fence(node, number + 1)


def commit(number: int, value: bytes = b"1", *, revision: int = 0, stamp: Stamp | None = None) -> Commit:
    return Commit(key(number), fence(number), revision, stamp, {"state": value})


async def claim_all(store: Store, numbers: Sequence[int] = range(NUMBER), node: str = "n") -> list[Claim | Held]:
    return list(await asyncio.gather(*(store.claim(key(number), fence(number, node)) for number in numbers)))


async def outcomes(*operations: Any) -> Sequence[Any]:
    return await asyncio.gather(*operations, return_exceptions=True)


async def stored(store: Store) -> dict[str, bytes]:
    return {actor.key.id: actor.states["state"] for actor in await store.scan("Box")}


async def test_operations_that_wait_share_trips(store: Store) -> None:
    connection = connection_of(store)

    async def trips(*operations: Any) -> Sequence[Any]:
        before = connection.trips
        found = await asyncio.gather(*operations)
        assert connection.trips - before == 1 + 2, "the first goes alone"
        return found

    numbers = range(NUMBER)
    claims = await trips(*(store.claim(key(number), fence(number)) for number in numbers))
    assert [claim.actor.key for claim in claims] == [key(number) for number in numbers]
    assert await trips(*(store.commit(commit(number)) for number in numbers)) == [1] * NUMBER
    await trips(*(store.release([(key(number), fence(number))]) for number in numbers))
    assert await stored(store) == {key(number).id: b"1" for number in numbers}
    assert {actor.owner for actor in await store.scan("Box")} == {None}


async def test_as_long_as_connections_are_free_each_goes_alone_and_at_once() -> None:
    with postgres.schema_url(pool=3) as url:
        async with open_store(url) as store:
            await store.register(NodeRecord("n", "label", None, 1_000.0))
            connection = connection_of(store)
            before = connection.trips
            await claim_all(store, range(3))
            assert connection.trips - before == 3


async def test_commits_that_wait_for_the_disk_do_not_go_with_claims_that_do_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claim_all(store)
    connection = connection_of(store)
    batches: list[set[str]] = []
    original = Walk._send

    async def note(self: Walk, statements: Any, *, is_last: bool) -> Any:
        batches.append({text.split("(")[0].rpartition(".")[2] for text, _ in statements})
        return await original(self, statements, is_last=is_last)

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "_send", note)
        before = connection.trips
        others = (store.claim(key(NUMBER + number), fence(NUMBER + number)) for number in range(10))
        await asyncio.gather(*(store.commit(commit(number)) for number in range(10)), *others)
    assert batches == [{"commit"}, {"claim"}]
    assert connection.trips - before == 1 + 2


async def test_a_conflict_fails_alone(store: Store) -> None:
    await claim_all(store)
    wrong = {3: commit(3, b"wrong", revision=7), 8: Commit(key(8), fence(7), 0, None, {"state": b"wrong"})}
    found = await outcomes(*(store.commit(wrong.get(number, commit(number))) for number in range(NUMBER)))
    assert [number for number, outcome in enumerate(found) if isinstance(outcome, errors.LeaseLostError)] == [3, 8]
    assert await stored(store) == {key(number).id: b"1" for number in range(NUMBER) if number not in wrong}


async def test_what_the_server_refuses_fails_alone(url: str, store: Store, beside: Any) -> None:
    await claim_all(store)
    beside.execute(in_(url, "ALTER TABLE lazymig.state ADD CHECK (length(value) < 100)"))
    found = await outcomes(*(store.commit(commit(n, b"1" * (200 if n == 5 else 1))) for n in range(LARGEST)))
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, errors.StoreError)] == [5]
    assert sorted(await stored(store)) == [key(n).id for n in range(LARGEST) if n != 5]


async def test_a_claim_of_what_is_held_and_one_of_a_damaged_actor_fail_alone(
    url: str, store: Store, beside: Any
) -> None:
    await claim_all(store, range(4))
    await asyncio.gather(*(store.commit(commit(number)) for number in range(4)))
    beside.execute(in_(url, "UPDATE lazymig.actor SET owner = NULL, lineage = 99 WHERE id = '002'"))
    beside.execute(in_(url, "UPDATE lazymig.actor SET owner = NULL WHERE id = '003'"))
    found = await outcomes(*(store.claim(key(number), fence(number, "other")) for number in (0, 1, 2, 3)))
    assert list(found[:2]) == [Held("n")] * 2
    assert isinstance(found[2], errors.CorruptStateError)
    assert isinstance(found[3], Claim)


async def test_an_applied_set_that_is_new_goes_alone_and_is_named_once(url: str, store: Store, beside: Any) -> None:
    await claim_all(store)
    found = await outcomes(*(store.commit(commit(number, stamp=STAMP)) for number in range(NUMBER)))
    assert list(found) == [1] * NUMBER
    assert beside.execute(in_(url, "SELECT count(*) FROM lazymig.lineage")).fetchone() == (1,)


async def test_those_that_must_learn_something_first_go_by_themselves(url: str, store: Store, beside: Any) -> None:
    await claim_all(store)
    sets = [AppliedSet([pack(parse(f"1.0.{number}"))]) for number in range(5)]
    stamps = [Stamp(sets[number % 5], sets[number % 5]) for number in range(LARGEST)]
    found = await outcomes(*(store.commit(commit(number, stamp=stamp)) for number, stamp in enumerate(stamps)))
    assert list(found) == [1] * LARGEST
    assert await store.census("Box") == dict.fromkeys(sets, LARGEST // 5)
    assert beside.execute(in_(url, "SELECT count(*) FROM lazymig.lineage")).fetchone() == (5,)


async def test_who_is_cancelled_while_waiting_is_dropped_and_the_others_go_on(store: Store) -> None:
    await claim_all(store)
    tasks = [asyncio.create_task(store.commit(commit(number))) for number in range(NUMBER)]
    await asyncio.sleep(0)
    tasks[7].cancel()
    found = await outcomes(*tasks)
    assert isinstance(found[7], asyncio.CancelledError)
    assert sorted(await stored(store)) == [key(number).id for number in range(NUMBER) if number != 7]


async def test_who_waits_too_long_is_told_so_and_nothing_of_it_is_stored(url: str, store: Store, beside: Any) -> None:
    await claim_all(store, range(3))
    connection_of(store).driver.wait_seconds = 0.1
    with beside.transaction():
        beside.execute(in_(url, "SELECT FROM lazymig.actor FOR UPDATE"))
        first = asyncio.create_task(store.commit(commit(0)))
        await until_waiting(beside)
        found = await outcomes(store.commit(commit(1)), store.commit(commit(2)))
    assert [type(error) for error in found] == [errors.StoreUnavailableError] * 2
    assert all("Nothing was stored" in str(error) for error in found)
    assert await first == 1
    assert await stored(store) == {key(0).id: b"1"}


async def test_what_the_driver_can_not_send_fails_alone(store: Store) -> None:
    await claim_all(store)
    odd = Commit(key(7), fence(7), 0, None, {"\ud800": b"1"})
    found = await outcomes(*(store.commit(odd if number == 7 else commit(number)) for number in range(LARGEST)))
    assert [number for number, outcome in enumerate(found) if outcome != 1] == [7]
    assert isinstance(found[7], UnicodeEncodeError)


async def test_without_a_server_all_of_a_group_are_told_when_their_time_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claim_all(store)
    driver = connection_of(store).driver
    driver.wait_seconds = 0.5

    async def no_connection(timeout: float) -> Any:
        await asyncio.sleep(timeout)
        raise psycopg_pool.PoolTimeout("there is none")

    async def fail(*_: Any) -> Any:
        monkeypatch.setattr(driver._pool, "getconn", no_connection)
        raise psycopg.errors.QueryCanceled("too slow")

    monkeypatch.setattr("lazymig._postgres_walk.Walk.take_together", fail)
    began = asyncio.get_running_loop().time()
    found = await outcomes(*(store.commit(commit(number)) for number in range(LARGEST)))
    assert found[0] == 1
    assert {type(outcome) for outcome in found[1:]} == {errors.StoreUnavailableError}
    assert asyncio.get_running_loop().time() - began < LARGEST * driver.wait_seconds / 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_group_whose_connection_is_lost_tells_all_that_their_outcome_is_unknown(url: str, when: Any) -> None:
    async with wire_to(url) as (wire, through), open_store(through) as store:
        await store.register(NodeRecord("n", "label", None, 1_000.0))
        await claim_all(store, range(10))
        tasks = [asyncio.create_task(store.commit(commit(0)))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(store.commit(commit(number, b"grouped"))) for number in range(1, 10)]
        wire.cut(when, b"grouped")
        found = await outcomes(*tasks)
        assert found[0] == 1
        assert {type(outcome) for outcome in found[1:]} == {errors.StoreUnavailableError}
        assert all("unknown" in str(outcome) for outcome in found[1:])
        assert len(await stored(store)) == (10 if when == "after" else 1)


async def test_groups_of_several_processes_never_wait_for_each_other(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lock in the same order, whatever the order that they were asked in."""
    failed: list[Exception] = []
    original = Walk.take_together

    async def note(self: Walk, operations: Any) -> list[Any]:
        try:
            return await original(self, operations)
        except psycopg.Error as error:
            failed.append(error)
            raise

    monkeypatch.setattr(Walk, "take_together", note)
    async with open_store(url) as second:
        numbers = list(range(1, LARGEST))

        async def hand_around(at: Store, node: str, numbers: list[int]) -> None:
            for _ in range(30):
                found = await asyncio.gather(at.claim(key(0), fence(0, node)), claim_all(at, numbers, node))
                held = [claim.fence for claim in found[1] if isinstance(claim, Claim)]
                pairs = zip(numbers, found[1], strict=True)
                mine = [number for number, claim in pairs if isinstance(claim, Claim)]
                assert len(held) == len(mine)
                await asyncio.gather(*(at.release([(key(number), fence(number, node))]) for number in [0, *mine]))

        await asyncio.gather(hand_around(store, "n", numbers), hand_around(second, "other", numbers[::-1]))
    assert failed == []
