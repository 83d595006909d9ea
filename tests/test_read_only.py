"""Stores that are opened to be read only: nothing that reads needs a right to write, nothing that writes is done."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import open_store
from lazymig._bases import WritePolicy
from lazymig._entries import Entry, Range
from lazymig._postgres_copy_sql import copy_dialect
from lazymig._postgres_dealing import dialect
from lazymig._postgres_driver import Driver
from lazymig._postgres_failure_sql import failure_dialect
from lazymig._postgres_post_sql import post_dialect
from lazymig._postgres_ruling_sql import ruling_dialect
from lazymig._quarantine import failed
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Marks, NodeRecord, Stamp, StoredActor
from lazymig._rulings import AskType
from lazymig._sql import SqlStore
from lazymig._sql_failures import SqlFailures
from lazymig._sql_post import SqlPost
from lazymig.copies import CopiedEntry, TypeSettings, Whole
from lazymig.errors import (
    DefinitionError,
    StoreError,
    StoreLayoutError,
    StoreMissingError,
    StoreReadOnlyError,
)
from lazymig.postgres import PostgresConnection
from lazymig.testing.ruling_bench import answers, pin
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from lazymig.store import Store

KEY, FENCE, ONE = ActorKey("Car", "a"), Fence("n1", 1), AppliedSet([1 << 42])
STAMP = Stamp(ONE, ONE)
FAILURE = failed(None, 1 << 42, "spoil", "ValueError", at=datetime(2026, 5, 4, tzinfo=UTC), node="n1", checksum=7)
WHOLE = Whole(StoredActor(KEY, 2, STAMP, {"main": b"2"}), (CopiedEntry("log", "x", b"3", ONE),))
NOBODY = 65534


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres":
        with postgres.schema_url() as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path}/store.db"


async def fill(url: str) -> None:
    async with open_store(url) as store:
        await store.register(NodeRecord("n1", "label", None, 10.0))
        assert isinstance(await store.claim(KEY, FENCE), Claim)
        entries = {("log", "x"): Entry(b"2", ONE)}
        await store.commit(Commit(KEY, FENCE, 0, STAMP, {"main": b"1"}, entries=entries, marks=Marks(oldest=1)))
        await pin(store, 0)


async def check_reads(store: Store) -> None:
    """Check everything that reads."""
    found = await store.read(KEY)
    assert found is not None
    assert dict(found.states) == {"main": b"1"}
    assert [actor.key for actor in await store.scan("Car")] == [KEY]
    assert dict(await store.census("Car")) == dict(await store.entry_census("Car")) == {ONE: 1}
    assert list(await store.stragglers("Car", frozenset([ONE]))) == ["a"]
    assert list(await store.sweeping.unsettled("Car", frozenset([ONE]), None)) == ["a"]
    assert list((await store.entries(KEY, Range("log"), 9, 999)).data) == [b"2"]
    assert await store.count_entries(KEY, Range("log")) == 1
    assert [count.entries for count in await store.tables(KEY)] == [1]
    assert list(await store.types()) == ["Car"]
    assert (await store.policy("Car")).version == 0
    assert (await store.previous(KEY), list(await store.failures.page())) == (None, [])
    assert (list(await store.sweeping.notes()), list(await store.sweeping.paused())) == ([], [])
    assert list(await store.copies.types()) == ["Car"]
    assert (await store.copies.settings("Car")).policy.version == 0
    assert [outline.revision for outline in await store.copies.outlines("Car")] == [1]
    assert [len(whole.entries) for whole in await store.copies.read("Car", ["a"])] == [1]


WRITES: dict[str, Callable[[Store], Coroutine[Any, Any, object]]] = {
    "register": lambda store: store.register(NodeRecord("n2", "label", None, 10.0)),
    "rule": lambda store: pin(store, 1),
    "unregister": lambda store: store.unregister("n1"),
    "forget": lambda store: store.forget("n1"),
    "drain": lambda store: store.drain("n1"),
    "claim": lambda store: store.claim(KEY, FENCE),
    "commit": lambda store: store.commit(Commit(KEY, FENCE, 1, STAMP, {"main": b"2"})),
    "release": lambda store: store.release([(KEY, FENCE)]),
    "insert": lambda store: store.insert("Car", "main", [("b", b"1")]),
    "claim many": lambda store: store.sweeping.claim("Car", ONE, "main", FENCE),
    "commit many": lambda store: store.sweeping.commit("Car", "main", FENCE, [], stamp=STAMP, epoch=1),
    "note": lambda store: store.sweeping.note("Car", "n1", b"{}"),
    "pause": lambda store: store.sweeping.pause("Car", is_paused=True),
    "note a failure": lambda store: store.failures.note(KEY, FENCE, FAILURE),
    "retry": lambda store: store.failures.retry("Car"),
    "put": lambda store: store.copies.put("Car", [WHOLE]),
    "begin": lambda store: store.copies.begin(KEY, 2, "draft", WHOLE.entries),
    "add": lambda store: store.copies.add(KEY, "draft", WHOLE.entries),
    "finish": lambda store: store.copies.finish(WHOLE, "draft"),
    "note settings": lambda store: store.copies.note("Car", TypeSettings(WritePolicy(1, 9), [])),
    "take": lambda store: store.post.take("n1", 1),
    "remove": lambda store: store.post.remove(["c"]),
    "tidy": lambda store: store.post.tidy(),
}


async def test_what_reads_works_and_nothing_that_writes_is_done(url: str) -> None:
    await fill(url)
    async with open_store(url, read_only=True) as store:
        await check_reads(store)
        assert [node.node_id for node in await store.nodes()] == ["n1"]
        (found,) = await store.rule(answers(AskType("Car")))
        assert found.known == {ONE}
        for write in WRITES.values():
            with pytest.raises(StoreReadOnlyError, match=r"opened to be read only.*nothing was written.*open_store"):
                await write(store)
        with pytest.raises(StoreReadOnlyError):
            store.open_pulse()
        await check_reads(store)
        assert (await store.nodes())[0].is_draining is False
    async with open_store(url) as store:
        assert (await store.policy("Car")).epoch == 1


async def test_a_reader_sees_what_is_stored_meanwhile(url: str) -> None:
    await fill(url)
    async with open_store(url) as store, open_store(url, read_only=True) as reader:
        await check_reads(reader)
        await store.insert("Car", "main", [("b", b"1")])
        assert [actor.key.id for actor in await reader.scan("Car")] == ["a", "b"]


async def test_a_missing_store_is_not_made(url: str) -> None:
    with pytest.raises(StoreMissingError):
        async with open_store(url, read_only=True):
            pass
    with pytest.raises(DefinitionError, match="exclude each other"):
        async with open_store(url, create=True, read_only=True):
            pass


async def test_a_store_in_memory_would_be_empty() -> None:
    with pytest.raises(StoreMissingError, match="empty"):
        async with open_store("memory:", read_only=True):
            pass


# --- SQLite ----------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return the files of a folder with their bytes; of those of shared memory, which readers' locks are in, none."""
    return {path.name: None if path.name.endswith("-shm") else path.read_bytes() for path in folder.iterdir()}


def leave_log(folder: Path) -> Path:
    """Return a folder with the file as a killed process leaves it, whose last commit is in the log only."""
    copied = folder / "copied"
    copied.mkdir()
    with closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as connection:
        connection.execute("UPDATE state SET value = x'33'")
        for path in folder.glob("store.db*"):
            if path.is_file():
                (copied / path.name).write_bytes(path.read_bytes())
    return copied


@contextmanager
def as_nobody(folder: Path, mode: int = 0o755) -> Iterator[None]:
    """Go on as a user who may read what is in a folder, and write nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder.chmod(mode)
    for above in folder.parents[:-1]:
        above.chmod(above.stat().st_mode | 0o011)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_file_that_a_node_has_open_is_read_with_the_right_to_read_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await fill(url)
    async with open_store(url) as store:
        await store.types()
        before = contents(tmp_path)
        with as_nobody(tmp_path):
            async with open_store(url, read_only=True) as reader:
                await check_reads(reader)
        assert contents(tmp_path) == before


async def test_a_log_that_a_killed_process_left_is_read_with_it(tmp_path: Path) -> None:
    await fill(f"sqlite:///{tmp_path}/store.db")
    copied = leave_log(tmp_path)
    with as_nobody(copied):
        async with open_store(f"sqlite:///{copied}/store.db", read_only=True) as reader:
            found = await reader.read(KEY)
    assert found is not None
    assert dict(found.states) == {"main": b"3"}


async def test_a_closed_file_in_a_folder_that_may_not_be_written_is_refused_with_the_cure(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await fill(url)
    with as_nobody(tmp_path), pytest.raises(StoreReadOnlyError, match=r"store.db-wal and store.db-shm.*copy"):
        async with open_store(url, read_only=True):
            pass


async def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await fill(url)
    with as_nobody(tmp_path, mode=0o700), pytest.raises(StoreError, match="right to look into its folder"):
        async with open_store(url, read_only=True):
            pass


async def test_no_file_is_made_that_the_owner_could_not_write_afterwards(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await fill(url)
    before = contents(tmp_path)
    with as_nobody(tmp_path, mode=0o777), pytest.raises(StoreReadOnlyError, match="as its owner"):
        async with open_store(url, read_only=True):
            pass
    assert contents(tmp_path) == before


async def test_reading_a_closed_file_leaves_its_bytes_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await fill(url)
    before = contents(tmp_path)
    async with open_store(url, read_only=True) as reader:
        await check_reads(reader)
    assert contents(tmp_path) == before | {"store.db-shm": None, "store.db-wal": b""}


@pytest.mark.parametrize(("layout", "told"), [(0, "is empty"), (99, "newer")])
async def test_a_file_of_another_layout_is_refused(tmp_path: Path, layout: int, told: str) -> None:
    path = tmp_path / "store.db"
    if layout:
        await fill(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {layout}")
        connection.commit()
    before = contents(tmp_path)["store.db"]
    with pytest.raises(StoreLayoutError, match=told):
        async with open_store(f"sqlite:///{path}", read_only=True):
            pass
    assert contents(tmp_path)["store.db"] == before


# --- PostgreSQL --------------------------------------------------------------------------------------------------


@pytest.fixture
def schema() -> Iterator[str]:
    with postgres.schema_url() as url:
        yield url


@pytest.fixture
def reader_role(schema: str) -> Iterator[str]:
    """Make a role that may connect and nothing else; its name."""
    role = f"r_{postgres.draw_schema()}"
    with postgres.connect() as beside:
        beside.execute(f"CREATE ROLE {role} LOGIN")
        try:
            yield role
        finally:
            beside.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_role_that_may_only_select_is_enough(schema: str, reader_role: str) -> None:
    await fill(schema)
    name = postgres.schema_of(schema)
    url = schema.replace("//postgres@", f"//{reader_role}@")
    with pytest.raises(StoreError, match="USAGE and SELECT"):
        async with open_store(url, read_only=True):
            pass
    with postgres.connect() as beside:
        beside.execute(f"GRANT USAGE ON SCHEMA {name} TO {reader_role}")
        beside.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {reader_role}")
    async with open_store(url, read_only=True) as store:
        await check_reads(store)
        assert len(await store.nodes()) == 1


async def test_the_server_refuses_what_would_write_too(schema: str) -> None:
    await fill(schema)
    place = postgres.place(schema)
    driver = Driver(place.conninfo, place.name, place.schema, 1, read_only=True)
    await driver.open()
    try:
        unguarded = PostgresConnection(driver, place, None)
        post = SqlPost(post_dialect(place.schema), unguarded)
        failures = SqlFailures(failure_dialect(place.schema), unguarded)
        copying = copy_dialect(place.schema, place.name)
        store = SqlStore(dialect(place.schema), ruling_dialect(place.schema), copying, unguarded, post, failures)
        for name in WRITES.keys() - {"finish"}:  # which finds no draft, and writes nothing
            write = WRITES[name]
            with pytest.raises(StoreReadOnlyError, match="read-only transaction"):
                await write(store)
        await check_reads(store)
    finally:
        await driver.close()


async def test_its_transactions_are_read_only_and_get_no_id(schema: str) -> None:
    await fill(schema)
    async with open_store(schema, read_only=True) as store:
        seen = await store._connection.run(_settings, writes=False)  # type: ignore[attr-defined]  # behind the door
    assert seen == [("on", None)]


def _settings() -> Any:
    from lazymig._sql_operations import last

    (rows,) = yield last(("SELECT current_setting('transaction_read_only'), pg_current_xact_id_if_assigned()", {}))
    return rows


async def test_a_server_that_only_reads_is_read(schema: str) -> None:
    await fill(schema)
    async with open_store(f"{schema}&options=-c%20default_transaction_read_only%3Don", read_only=True) as store:
        await check_reads(store)


async def test_a_standby_is_read_but_for_what_only_the_primary_has(schema: str) -> None:
    await fill(schema)
    with postgres.standby_url(postgres.server_to_break(), schema) as url:
        with pytest.raises(StoreReadOnlyError, match="standby"):
            async with open_store(url):
                pass
        async with open_store(url, read_only=True) as store:
            await check_reads(store)
            with pytest.raises(StoreReadOnlyError, match="primary"):
                await store.nodes()
