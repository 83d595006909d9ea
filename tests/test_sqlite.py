"""What the SQLite store does with operations: counts, syncs, odd keys, large values, and the driver's errors."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from lazymig import Node, Suite, open_store
from lazymig._records import ActorKey, Fence, NodeRecord
from lazymig._sql import SqlStore
from lazymig._sqlite_errors import translate
from lazymig.errors import (
    InvalidKeyError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from lazymig.sqlite import open_sqlite, rewrite
from tests.processes import Line, Worker, writing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    async with open_sqlite(path) as opened:
        yield opened


@pytest.fixture
async def node(store: SqlStore) -> AsyncIterator[Node]:
    async with calm(store) as running:
        yield running


def boxes() -> Suite:
    suite = Suite("boxes")
    box = suite.actor_type("Box")

    @box.migration("1.0.0")
    def one(state: dict[str, Any], context: object) -> None:
        state["one"] = True

    @box.migration("1.1.0")
    def two(state: dict[str, Any], context: object) -> None:
        state["two"] = True

    @box.migration("2.0.0")
    def three(state: dict[str, Any], context: object) -> None:
        state["three"] = True

    return suite


def calm(store: SqlStore) -> Node:
    """Return a node without heartbeats or housekeeping in a test's way."""
    return Node(store, [boxes()], lease_seconds=1000, idle_seconds=1000, hand_over_seconds=0)


def raw(store: SqlStore) -> Any:
    """Return the driver's connection."""
    connection: Any = store._connection
    return connection.driver


def here(store: SqlStore) -> sqlite3.Connection:
    """Return the connection of the event loop's thread."""
    connection: Any = store._connection
    found: sqlite3.Connection = connection._here._connection()
    return found


# --- durability -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("synchronous", "of_commits"), [("full", 2), ("normal", 1)])
async def test_commits_are_synced_and_claims_are_not(path: Path, synchronous: str, of_commits: int) -> None:
    syncs: list[tuple[str, int]] = []
    async with open_sqlite(path, synchronous=synchronous) as store, calm(store) as node:
        connections: list[sqlite3.Connection] = [raw(store)._conn, here(store)]

        def on_statement(connection: sqlite3.Connection, statement: str) -> None:
            word = " ".join(statement.split()[:2])
            if word in {"INSERT INTO", "UPDATE actor"}:
                connection.set_trace_callback(None)
                syncs.append((word, connection.execute("PRAGMA synchronous").fetchone()[0]))
                connection.set_trace_callback(partial(on_statement, connection))

        for connection in connections:
            connection.set_trace_callback(partial(on_statement, connection))
        for _ in range(2):
            async with node.activate("Box", "a") as activation:
                await activation.state().migrate_and_load(default={"n": 0})
                activation.state().value["n"] += 1
                await activation.persist()
        for connection in connections:
            connection.set_trace_callback(None)
    of = {word: {level for other, level in syncs if other == word} for word in ("UPDATE actor",)}
    assert of == {"UPDATE actor": {1, of_commits}}, "releases are not synced, commits are"
    assert syncs[:2] == [("UPDATE actor", 1), ("INSERT INTO", 1)], "the claim of an actor that isn't there yet"
    assert len(syncs) == 1 + 2 * (1 + 1 + 1 + 1) + 1, "claim, commit, its state, release; the applied set's name once"


def test_rewriting_a_log_keeps_every_byte(path: Path) -> None:
    data = bytes(range(256)) * 10_000  # more than one piece
    path.write_bytes(data)
    rewrite(path)
    assert path.read_bytes() == data


async def test_the_driver_has_the_private_method_we_use() -> None:
    parameters = list(inspect.signature(aiosqlite.Connection._execute).parameters.values())
    assert [(parameter.name, parameter.kind.name) for parameter in parameters] == [
        ("self", "POSITIONAL_OR_KEYWORD"),
        ("fn", "POSITIONAL_OR_KEYWORD"),
        ("args", "VAR_POSITIONAL"),
        ("kwargs", "VAR_KEYWORD"),
    ]
    assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
    async with aiosqlite.connect(":memory:") as connection:
        assert isinstance(connection._conn, sqlite3.Connection)
        assert connection._thread.is_alive()


# --- odd keys and large values -------------------------------------------------------------------------------------

ODD_IDS = ["'", '"; DROP TABLE actor; --', "a/b\\c", "..", "🚗", " ", "%_*?", "é", "e\u0301", "\x01", "ß" * 500]


async def test_odd_ids_are_kept_apart(store: SqlStore, node: Node) -> None:
    for number, actor_id in enumerate(ODD_IDS):
        async with node.activate("Box", actor_id) as activation:
            assert await activation.state().load() is None
            await activation.state(actor_id[:50]).migrate_and_load(default={"n": number})
            await activation.persist()
    for number, actor_id in enumerate(ODD_IDS):
        record = await node.inspect("Box", actor_id)
        assert record is not None
        assert record.states == {actor_id[:50]: {"n": number}}
    assert [actor.key.id for actor in await store.scan("Box")] == sorted(ODD_IDS)


@pytest.mark.parametrize("actor_id", ["", "\0", "a\0b", "x" * 1001, "x" * 10_000, "é" * 501, "\ud800"])
async def test_ids_that_no_store_takes_are_refused(node: Node, actor_id: str) -> None:
    with pytest.raises(InvalidKeyError):
        async with node.activate("Box", actor_id):
            pass
    with pytest.raises(InvalidKeyError):
        await node.inspect("Box", actor_id)


async def test_state_of_twenty_megabytes_comes_back(store: SqlStore, node: Node) -> None:
    text = "0123456789" * 2_000_000
    await store.insert("Box", "state", [("large", b'{"text":"%s"}' % text.encode())])
    async with node.activate("Box", "large") as activation:
        await activation.state().migrate_and_load()
        activation.state().value["more"] = text
        await activation.persist()
    record = await node.inspect("Box", "large")
    assert record is not None
    assert record.states == {"state": {"text": text, "more": text, "one": True, "two": True, "three": True}}


async def test_state_too_large_for_sqlite_is_told_and_nothing_is_lost(store: SqlStore, node: Node) -> None:
    async with node.activate("Box", "a") as activation:
        value = await activation.state().migrate_and_load(default={"n": 1})
        await activation.persist()
        raw(store)._conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
        value["text"] = "x" * 1_000_001
        with pytest.raises(StoreError, match="too large") as refused:
            await activation.persist()
        assert not refused.value.retryable
        del value["text"]
        value["n"] = 2
        await activation.persist()
    record = await node.inspect("Box", "a")
    assert record is not None
    assert record.states == {"state": {"n": 2}}


# --- the driver's errors -------------------------------------------------------------------------------------------


async def hold_the_write_lock(line: Line, path: Path) -> None:
    with writing(path):
        line.tell("held")
        await line.hear()
    line.tell("given up")


async def test_file_locked_by_another_process_is_told_and_the_node_goes_on(
    path: Path, store: SqlStore, node: Node
) -> None:
    async with node.activate("Box", "a") as activation:
        state = activation.state()
        await state.migrate_and_load(default={"n": 1})
        await state.persist()
        await raw(store).execute("PRAGMA busy_timeout = 20")
        with Worker(hold_the_write_lock, path) as worker:
            assert await worker.hear() == "held"
            state.value["n"] = 2
            for refused in (state.persist, lambda: node.activate("Box", "b").__aenter__()):
                with pytest.raises(StoreUnavailableError) as error:
                    await refused()
                assert error.value.retryable
            record = await node.inspect("Box", "a")
            assert record is not None
            assert record.states == {"state": {"n": 1}}
            worker.tell("give it up")
            assert await worker.hear() == "given up"
        await state.persist()
    record = await node.inspect("Box", "a")
    assert record is not None
    assert record.states == {"state": {"n": 2}}
    async with node.activate("Box", "b") as activation:
        assert await activation.state().load() is None


CODES = sorted(
    (name, code)
    for name, code in vars(sqlite3).items()
    if name.startswith("SQLITE_") and isinstance(code, int) and name not in {"SQLITE_OK", "SQLITE_ROW", "SQLITE_DONE"}
)


@pytest.mark.parametrize("kind", [sqlite3.Error, sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.DataError])
def test_every_error_code_means_something_to_a_user(kind: type[sqlite3.Error]) -> None:
    assert len(CODES) > 100
    for name, code in CODES:
        error = kind(f"a message of {name}")
        error.sqlite_errorcode = code
        told = translate(error, "sqlite:///fleet.db")
        assert isinstance(told, StoreError)
        assert "sqlite:///fleet.db" in str(told)
        assert name in str(told)
    assert isinstance(translate(kind("without a code"), "x"), StoreError)


async def every_operation(store: SqlStore) -> list[Callable[[], Any]]:
    key, fence = ActorKey("Box", "a"), Fence("node", 1)
    return [
        lambda: store.register(NodeRecord("other", "other", None, 1.0)),
        lambda: store.unregister("node"),
        lambda: store.claim(key, fence),
        lambda: store.release([(key, fence)]),
        lambda: store.read(key),
        lambda: store.scan("Box"),
        lambda: store.census("Box"),
        store.types,
        lambda: store.insert("Box", "state", [("a", b"{}")]),
    ]


async def test_no_driver_error_leaves_a_store_whose_tables_are_gone(path: Path, store: SqlStore) -> None:
    with closing(sqlite3.connect(path)) as vandal:
        for table in ("actor", "state", "node", "heartbeat", "lineage"):
            vandal.execute(f"DROP TABLE {table}")
        vandal.commit()
    for operation in await every_operation(store):
        with pytest.raises(StoreError) as error:
            await operation()
        assert isinstance(error.value.__cause__, sqlite3.Error)
    pulse = store.open_pulse()
    with pytest.raises(StoreError):
        pulse.beat("node")
    pulse.close()
    assert not (path.parent / f"{path.name}-nodes").exists()


async def test_closed_store_says_so_whatever_it_is_asked(path: Path) -> None:
    async with open_store(f"sqlite:///{path}") as opened:
        assert isinstance(opened, SqlStore)
        operations = await every_operation(opened)
    for operation in operations:
        with pytest.raises(StoreClosedError):
            await operation()


async def test_operations_queued_before_the_close_are_finished(path: Path) -> None:
    async with open_sqlite(path) as store:
        rows = [asyncio.create_task(store.insert("Box", "state", [(str(n), b"{}")])) for n in range(20)]
        await asyncio.wait(rows[:1])
    outcomes = await asyncio.gather(*rows, return_exceptions=True)
    stored = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert all(isinstance(outcome, (frozenset, StoreClosedError)) for outcome in outcomes)
    async with open_sqlite(path) as store:
        assert len(await store.scan("Box")) == len(stored) > 0


async def test_an_actor_that_was_only_looked_at_leaves_no_row(path: Path, node: Node) -> None:
    async with node.activate("Box", "never stored") as activation:
        assert await activation.state().load() is None
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM actor").fetchone() == (0,)
