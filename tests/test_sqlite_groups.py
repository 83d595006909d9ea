"""Operations on a SQLite file that wait at the same time share a transaction, and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import _sqlite_drivers, errors
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Held, NodeRecord, Stamp
from lazymig._rows import EPOCH
from lazymig._sqlite_groups import FEW
from lazymig._version import pack, parse
from lazymig.sqlite import open_sqlite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from lazymig._sql import SqlStore

NUMBER = 100
STAMP = Stamp(AppliedSet([pack(parse("1.0.0"))]), AppliedSet([pack(parse("1.0.0"))]), EPOCH)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with open_sqlite(tmp_path / "fleet.db") as opened:
        await opened.register(NodeRecord("n", "label", None, 1_000.0))
        yield opened


def raw(store: SqlStore) -> sqlite3.Connection:
    """Return the connection of the thread."""
    found: sqlite3.Connection = store._connection.driver._conn  # type: ignore[attr-defined]  # of one driver
    return found


def here(store: SqlStore) -> sqlite3.Connection:
    """Return the connection of the event loop's thread."""
    found: sqlite3.Connection = store._connection._here._connection()  # type: ignore[attr-defined]  # likewise
    return found


@asynccontextmanager
async def statements(store: SqlStore) -> AsyncIterator[list[str]]:
    """Note the statements that SQLite carries out on either thread."""
    noted: list[str] = []
    for connection in (raw(store), here(store)):
        connection.set_trace_callback(lambda statement: noted.append(" ".join(statement.split()[:3])))
    try:
        yield noted
    finally:
        for connection in (raw(store), here(store)):
            connection.set_trace_callback(None)


def key(number: int) -> ActorKey:
    return ActorKey("Box", f"{number:03}")


def fence(number: int) -> Fence:
    return Fence("n", number + 1)


def commit(number: int, value: bytes = b"1", *, revision: int = 0, stamp: Stamp | None = None) -> Commit:
    return Commit(key(number), fence(number), revision, stamp, {"state": value})


async def claim_all(store: SqlStore) -> None:
    for number in range(NUMBER):
        assert isinstance(await store.claim(key(number), fence(number)), Claim)
    await asyncio.sleep(0)


async def outcomes(*operations: Any) -> Sequence[Any]:
    return await asyncio.gather(*operations, return_exceptions=True)


async def stored(store: SqlStore) -> dict[str, bytes]:
    return {actor.key.id: actor.states["state"] for actor in await store.scan("Box")}


async def test_a_lone_operation_is_a_transaction_of_its_own_without_a_savepoint(store: SqlStore) -> None:
    async with statements(store) as noted:
        await store.claim(key(0), fence(0))
    assert noted[0] == "BEGIN IMMEDIATE"
    assert noted[-1] == "COMMIT"
    assert not any("SAVEPOINT" in statement for statement in noted)


async def test_operations_that_wait_share_a_transaction_and_its_sync(store: SqlStore) -> None:
    async with statements(store) as noted:
        claims = await asyncio.gather(*(store.claim(key(number), fence(number)) for number in range(NUMBER)))
        assert noted.count("COMMIT") == FEW + 1, "a few go at once, the others together"
        noted.clear()
        assert list(await asyncio.gather(*(store.commit(commit(number)) for number in range(NUMBER)))) == [1] * NUMBER
        assert noted.count("COMMIT") == 2, "the first goes at once, the others together"
        assert not any("SAVEPOINT" in statement for statement in noted)
        noted.clear()
        await asyncio.gather(*(store.release([(key(number), fence(number))]) for number in range(NUMBER)))
        assert noted.count("COMMIT") == FEW + 1
    assert all(isinstance(claim, Claim) and claim.actor.key == key(n) for n, claim in enumerate(claims))
    assert await stored(store) == {key(number).id: b"1" for number in range(NUMBER)}


async def test_a_group_is_bounded(store: SqlStore) -> None:
    store._connection._groups.largest = 10  # type: ignore[attr-defined]  # of one driver
    async with statements(store) as noted:
        await asyncio.gather(*(store.claim(key(number), fence(number)) for number in range(FEW + 21)))
    assert noted.count("COMMIT") == FEW + 3


async def test_a_conflict_fails_alone_and_leaves_nothing(store: SqlStore) -> None:
    await claim_all(store)
    wrong = {3: commit(3, b"wrong", revision=7), 99: Commit(key(99), Fence("n", 1), 0, None, {"state": b"wrong"})}
    found = await outcomes(*(store.commit(wrong.get(number, commit(number))) for number in range(NUMBER)))
    assert [number for number, outcome in enumerate(found) if isinstance(outcome, errors.LeaseLostError)] == [3, 99]
    assert [outcome for number, outcome in enumerate(found) if number not in wrong] == [1] * (NUMBER - 2)
    assert await stored(store) == {key(number).id: b"1" for number in range(NUMBER) if number not in wrong}


async def test_a_value_that_is_too_large_fails_alone(store: SqlStore) -> None:
    await claim_all(store)
    raw(store).setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    found = await outcomes(*(store.commit(commit(number, b"1" * (20_000 * (number == 7) + 1))) for number in range(10)))
    assert [type(outcome) for outcome in found] == [int] * 7 + [errors.StoreError] + [int] * 2
    assert sorted(await stored(store)) == [key(number).id for number in range(10) if number != 7]


async def test_a_claim_of_what_is_held_and_one_of_a_damaged_actor_fail_alone(store: SqlStore) -> None:
    await claim_all(store)
    await store.register(NodeRecord("other", "label", None, 1_000.0))
    await asyncio.gather(*(store.commit(commit(number)) for number in range(3)))
    raw(store).execute("UPDATE actor SET owner = NULL, lineage = 99 WHERE id = '001'")
    raw(store).execute("UPDATE actor SET owner = NULL WHERE id = '002'")
    found = await outcomes(*(store.claim(key(number), Fence("other", number + 1)) for number in (0, 0, 1, 2)))
    assert found[1] == Held("n")
    assert isinstance(found[2], errors.CorruptStateError)
    assert isinstance(found[3], Claim)


@pytest.mark.parametrize("synchronous", ["normal", "full"])
async def test_an_error_that_is_not_sqlites_fails_alone_and_nobody_waits_for_ever(
    tmp_path: Path, synchronous: str
) -> None:
    async with asyncio.timeout(20), open_sqlite(tmp_path / "fleet.db", synchronous=synchronous) as store:
        await store.register(NodeRecord("n", "label", None, 1_000.0))
        await claim_all(store)
        odd = Commit(key(7), Fence("n", 2**70), 0, None, {"state": b"1"})  # SQLite has no such number
        found = await outcomes(*(store.commit(odd if number == 7 else commit(number)) for number in range(20)))
        assert [type(outcome) for number, outcome in enumerate(found) if number != 7] == [int] * 19
        assert isinstance(found[7], OverflowError)
        assert len(await stored(store)) == 19


async def test_who_is_rolled_back_with_a_neighbour_is_told_of_the_store_and_not_of_the_neighbour(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(opened: sqlite3.Connection, statement: str, parameters: Any, batch: Any) -> Any:
        if statement == "ROLLBACK TO one":
            opened.execute("ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")
        return original(opened, statement, parameters, batch)

    await claim_all(store)
    original = _sqlite_drivers._fetch
    monkeypatch.setattr(_sqlite_drivers, "_fetch", fetch)
    found = await outcomes(*(store.commit(commit(number, revision=5 * (number == 7))) for number in range(10)))
    assert found[0] == 1
    assert {type(outcome) for outcome in found[1:]} == {errors.StoreUnavailableError}


async def test_a_store_whose_closing_is_cut_off_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    tasks: list[asyncio.Task[Any]] = []
    with closing(sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)) as other:
        with pytest.raises(TimeoutError):  # noqa: PT012  (all of it is cut off)
            async with asyncio.timeout(0.3), open_sqlite(tmp_path / "fleet.db") as store:
                thread = store._connection.driver._thread  # type: ignore[attr-defined]  # of one driver
                await store.register(NodeRecord("n", "label", None, 1_000.0))
                other.execute("BEGIN IMMEDIATE")
                tasks += [asyncio.create_task(store.claim(key(number), fence(number))) for number in range(10)]
                asyncio.get_running_loop().call_later(0.6, other.execute, "ROLLBACK")
                await asyncio.sleep(0.05)
        found = await outcomes(*tasks)
        assert {type(outcome) for outcome in found} == {Claim, errors.StoreClosedError}
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


async def test_a_new_applied_set_is_named_once_in_a_group(store: SqlStore) -> None:
    await claim_all(store)
    await asyncio.gather(*(store.commit(commit(number, stamp=STAMP)) for number in range(NUMBER)))
    assert raw(store).execute("SELECT count(*) FROM lineage").fetchone() == (1,)
    assert await store.census("Box") == {STAMP.applied: NUMBER}


async def test_a_group_whose_commit_fails_stores_nothing_and_all_are_told(store: SqlStore) -> None:
    await claim_all(store)
    connection = raw(store)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    large = b"1" * 50_000
    found = await outcomes(*(store.commit(commit(number, large, stamp=STAMP)) for number in range(NUMBER)))
    assert {type(outcome) for outcome in found} <= {int, errors.StoreUnavailableError}
    refused = [outcome for outcome in found if outcome != 1]
    assert all("full" in str(error) for error in refused), "told what followed, not what failed"
    done = [number for number, outcome in enumerate(found) if outcome == 1]
    assert len(done) < NUMBER
    connection.execute("PRAGMA max_page_count = 1000000")
    assert sorted(await stored(store)) == [key(number).id for number in done]
    for number in set(range(NUMBER)) - set(done):
        assert await store.commit(commit(number, stamp=STAMP)) == 1


async def test_cancelled_ones_go_on_and_stop_no_others(store: SqlStore) -> None:
    await claim_all(store)
    tasks = [asyncio.create_task(store.commit(commit(number))) for number in range(NUMBER)]
    await asyncio.sleep(0)
    for number in (0, 50):
        tasks[number].cancel()
    found = await outcomes(*tasks)
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, asyncio.CancelledError)] == [0, 50]
    assert await stored(store) == {key(number).id: b"1" for number in range(NUMBER)}


async def test_a_store_that_is_closed_finishes_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("n", "label", None, 1_000.0))
        await claim_all(store)
        tasks = [asyncio.create_task(store.commit(commit(number))) for number in range(NUMBER)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [1] * NUMBER
    async with open_sqlite(path) as again:
        assert len(await stored(again)) == NUMBER


@pytest.mark.parametrize("durable", [True, False])
async def test_a_group_is_synced_if_one_of_it_must_be(store: SqlStore, durable: bool) -> None:  # noqa: FBT001
    await claim_all(store)
    levels: list[int] = []
    drive = store._connection._groups._drive  # type: ignore[attr-defined]

    async def note(operation: Any, *, durable: bool) -> Any:
        levels.append(durable)
        return await drive(operation, durable=durable)

    store._connection._groups._drive = note  # type: ignore[attr-defined]
    releases = [store.release([(key(number), fence(number))]) for number in range(5)]
    await asyncio.gather(*releases, *([store.commit(commit(9))] if durable else []))
    assert levels == [True] * durable, "what need not be synced is done on the event loop's thread"


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_group_whose_task_is_cancelled_leaves_a_store_that_works_and_closes(tmp_path: Path, turns: int) -> None:
    """An event loop that ends cancels all its tasks, and who has opened the store closes it then."""
    async with asyncio.timeout(20), open_sqlite(tmp_path / "fleet.db") as store:
        await store.register(NodeRecord("n", "label", None, 1_000.0))
        await claim_all(store)
        groups = store._connection._groups  # type: ignore[attr-defined]
        before = groups._rest
        tasks = [asyncio.create_task(store.commit(commit(number))) for number in range(NUMBER)]
        while groups._rest is before:  # noqa: ASYNC110  (there is none)
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        groups._rest.cancel()
        found = await outcomes(*tasks)
        assert {type(outcome) for outcome in found} == ({int, asyncio.CancelledError} if turns else {int})
        await store.register(NodeRecord("m", "label", None, 1_000.0))
        assert {node.node_id for node in await store.nodes()} == {"n", "m"}
        assert set(await stored(store)) >= {key(n).id for n, outcome in enumerate(found) if outcome == 1}
