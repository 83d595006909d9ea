"""Brief operations on a SQLite file are carried out on the event loop's thread, which never waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import _sqlite_drivers, open_store
from lazymig._records import ActorKey, Claim, Commit, Fence, NodeRecord
from lazymig._sql_commits import BRIEF_STATES
from lazymig._sql_operations import BRIEF_BYTES
from lazymig._sqlite_groups import FEW
from lazymig._sqlite_here import MANY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lazymig._sql import SqlStore

KEY = ActorKey("Box", "a")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    async with open_store(f"sqlite:///{tmp_path}/fleet.db?synchronous=normal") as opened:
        await opened.register(NodeRecord("n", "label", None, 1_000.0))
        yield opened


class Places:
    """Where the transactions of a store's connections were begun, in order."""

    def __init__(self, store: SqlStore) -> None:
        self.begun: list[str] = []
        connection: Any = store._connection
        for name, opened in (("thread", connection.driver._conn), ("here", connection._here._connection())):
            opened.set_trace_callback(lambda statement, name=name: self._note(name, statement))

    def _note(self, name: str, statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            assert (threading.current_thread() is threading.main_thread()) == (name == "here")
            self.begun.append(name)


def commit(revision: int, value: bytes = b"1") -> Commit:
    return Commit(KEY, Fence("n", 1), revision, None, {"state": value})


async def test_what_touches_one_actor_is_done_at_once(store: SqlStore) -> None:
    places = Places(store)
    await store.claim(KEY, Fence("n", 1))
    await store.commit(commit(0))
    await store.release([(KEY, Fence("n", 1))])
    assert places.begun == ["here"] * 3


async def test_what_is_large_or_touches_many_goes_to_the_thread(store: SqlStore) -> None:
    await store.claim(KEY, Fence("n", 1))
    places = Places(store)
    await store.commit(commit(0, b"1" * (BRIEF_BYTES + 1)))
    await store.release([(KEY, Fence("n", 1)), (ActorKey("Box", "b"), Fence("n", 2))])
    await store.insert("Box", "state", [("x", b"1")])
    assert places.begun == ["thread"] * 3


async def test_a_claim_that_turns_out_large_is_given_to_the_thread(store: SqlStore) -> None:
    await store.insert("Box", "state", [("large", b"1" * (BRIEF_BYTES + 1)), ("small", b"1" * BRIEF_BYTES)])
    places = Places(store)
    for number, actor_id in enumerate(("large", "small")):
        claim = await store.claim(ActorKey("Box", actor_id), Fence("n", number))
        assert isinstance(claim, Claim)
        assert len(claim.actor.states["state"]) == BRIEF_BYTES + (actor_id == "large")
    assert places.begun == ["here", "thread", "here"], "tried here first"


@pytest.mark.parametrize("number", [BRIEF_STATES, BRIEF_STATES + 1])
async def test_a_commit_of_many_states_or_one_that_removes_some_is_not_brief(store: SqlStore, number: int) -> None:
    await store.claim(KEY, Fence("n", 1))
    places = Places(store)
    names = [f"state{each}" for each in range(number)]
    await store.commit(Commit(KEY, Fence("n", 1), 0, None, dict.fromkeys(names, b"1")))
    await store.commit(Commit(KEY, Fence("n", 1), 1, None, {names[0]: None}))
    assert places.begun == ["here" if number == BRIEF_STATES else "thread", "thread"]


async def test_what_fails_here_alone_or_with_others_is_tried_by_the_thread(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = store._connection

    def fetch(opened: sqlite3.Connection, statement: str, parameters: Any, batch: Any) -> Any:
        if opened is not connection.driver._conn and parameters.get("id") == "7" and statement.startswith("SELECT"):
            raise sqlite3.OperationalError("disk I/O error")
        return original(opened, statement, parameters, batch)

    original = _sqlite_drivers._fetch
    monkeypatch.setattr(_sqlite_drivers, "_fetch", fetch)
    assert isinstance(await store.claim(ActorKey("Box", "7"), Fence("n", 50)), Claim)
    await asyncio.sleep(0)
    claims = (store.claim(ActorKey("Box", str(each)), Fence("n", 60 + each)) for each in range(10))
    assert {type(claim) for claim in await asyncio.gather(*claims)} == {Claim}


async def test_after_a_failed_sync_all_goes_to_the_thread_until_the_log_was_written_anew(store: SqlStore) -> None:
    connection: Any = store._connection
    places = Places(store)
    connection._syncing.has_gap = True
    await asyncio.gather(*(store.claim(ActorKey("Box", str(each)), Fence("n", each)) for each in range(2 * FEW)))
    assert places.begun[:2] == ["thread"] * 2, "the log is written anew under the write lock"
    assert not connection._syncing.has_gap


async def test_what_is_synced_goes_to_the_thread(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/fleet.db") as opened:
        await opened.register(NodeRecord("n", "label", None, 1_000.0))
        places = Places(opened)  # type: ignore[arg-type]  # it is one
        await opened.claim(KEY, Fence("n", 1))
        await opened.commit(commit(0))
    assert places.begun == ["here", "thread"]


async def test_another_processs_transaction_holds_up_the_thread_and_not_the_event_loop(
    store: SqlStore, tmp_path: Path
) -> None:
    places = Places(store)
    with closing(sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        claiming = asyncio.create_task(store.claim(KEY, Fence("n", 1)))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not claiming.done()
        other.execute("COMMIT")
        assert isinstance(await claiming, Claim)
    assert places.begun[-1] == "thread"
    connection: Any = store._connection
    assert connection._here._connection().execute("PRAGMA busy_timeout").fetchone() == (0,)


async def test_others_get_a_turn_while_actors_are_claimed_one_after_the_other(store: SqlStore) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    for number in range(10 * (FEW + 1)):
        await store.claim(ActorKey("Box", str(number)), Fence("n", number))
    counting.cancel()
    assert turns >= 10


async def test_the_log_is_copied_now_and_then_though_nothing_needs_the_thread(store: SqlStore, tmp_path: Path) -> None:
    places = Places(store)
    claim = await store.claim(KEY, Fence("n", 1))
    assert isinstance(claim, Claim)
    for revision in range(4 * MANY):
        await store.commit(commit(revision, b"%d" % revision * 1_000))
    assert places.begun.count("thread") == 4
    assert (tmp_path / "fleet.db-wal").stat().st_size < 4_096 * 4 * MANY


async def test_a_failed_one_of_a_group_is_undone_and_the_others_are_stored_once(store: SqlStore) -> None:
    keys = [ActorKey("Box", str(number)) for number in range(3 * FEW)]
    for number, key in enumerate(keys):
        await store.claim(key, Fence("n", number + 1))
    await asyncio.sleep(0)
    revisions = [0] * len(keys)
    revisions[-2] = 5
    commits = [
        Commit(key, Fence("n", number + 1), revision, None, {"state": b"1"})
        for number, (key, revision) in enumerate(zip(keys, revisions, strict=True))
    ]
    found = await asyncio.gather(*(store.commit(each) for each in commits), return_exceptions=True)
    assert [outcome == 1 for outcome in found] == [revision == 0 for revision in revisions]
    assert [actor.revision for actor in await store.scan("Box")] == [1] * (len(keys) - 1)
