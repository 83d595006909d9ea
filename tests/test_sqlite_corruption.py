"""Rows of a SQLite file that can't be read: refused, left untouched, never replaced by a default."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node
from lazymig._entries import Entry, Range
from lazymig._fleet_records import Call, CallStatus
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Marks, NodeRecord, Stamp
from lazymig.errors import CorruptStateError, LazymigError, NotLoadedError
from lazymig.sqlite import open_sqlite
from tests.boxes import Place, offers, seem_to_run
from tests.test_sqlite import calm

if TYPE_CHECKING:
    from lazymig._sql import SqlStore

CORRUPTIONS = {
    "garbage for a state": "UPDATE state SET value = x'fffe00'",
    "half a state": """UPDATE state SET value = '{"n": '""",
    "a number for a state": "UPDATE state SET value = 5",
    "an empty state": "UPDATE state SET value = ''",
    "two parts in a version": """UPDATE lineage SET applied = '["2.0"]'""",
    "a v before a version": """UPDATE lineage SET applied = '["v3.0.0"]'""",
    "a version that is null": """UPDATE lineage SET applied = '[null]'""",
    "a number for an applied set": "UPDATE lineage SET applied = '1'",
    "null for an applied set": "UPDATE lineage SET applied = 'null'",
    "an object for an applied set": """UPDATE lineage SET applied = '{"2.0.0": 1}'""",
    "an empty object for an applied set": "UPDATE lineage SET applied = '{}'",
    "a string for an applied set": """UPDATE lineage SET applied = '""'""",
    "garbage for an applied set": "UPDATE lineage SET applied = x'fffe'",
    "an empty applied set text": "UPDATE lineage SET applied = ''",
    "a half-readable floor": """UPDATE lineage SET applied = '["<=2"]'""",
    "no lineage row": "DELETE FROM lineage",
    "text for a lineage": "UPDATE actor SET lineage = 'abc'",
    "a fraction for a lineage": "UPDATE actor SET lineage = 1.5",
    "an infinity for a lineage": "UPDATE actor SET lineage = 9e999",
    "text that is no UTF-8 for a state": "UPDATE state SET value = CAST(x'22ff22' AS TEXT)",
    "an integer beyond 64 bits in a state": """UPDATE state SET value = '{"n":18446744073709551616}'""",
    "a key twice in a state": """UPDATE state SET value = '{"n":1,"n":2}'""",
    "a state that is nested too deep": "UPDATE state SET value = replace(hex(zeroblob(300)), '00', '[') || '1' "
    "|| replace(hex(zeroblob(300)), '00', ']')",
    "bytes for a state's name": "UPDATE state SET name = x'00'",
    "no name for a state": "UPDATE state SET name = ''",
    "a state's name that is no UTF-8": "UPDATE state SET name = CAST(x'ff' AS TEXT)",
    "versions out of order": """UPDATE lineage SET applied = '["2.0.0","1.0.0"]'""",
    "a version twice": """UPDATE lineage SET applied = '["1.0.0","1.0.0"]'""",
    "version 0.0.0": """UPDATE lineage SET applied = '["0.0.0"]'""",
    "a version below the floor": """UPDATE lineage SET applied = '["<=2.0.0","1.0.0"]'""",
    "an applied set that is no UTF-8": "UPDATE lineage SET applied = CAST(x'ff' AS TEXT)",
    "an applied set that is nested too deep": """UPDATE lineage SET applied = '["1.0.0",'
        || replace(hex(zeroblob(1000)), '00', '[') || replace(hex(zeroblob(1000)), '00', ']') || ']'""",
    "text that is no UTF-8 for a lineage": "UPDATE actor SET lineage = CAST(x'ff' AS TEXT)",
    "a writer but no lineage": "UPDATE actor SET lineage = NULL",
    "no writer": "UPDATE actor SET written_by = NULL",
    "an unknown writer": "UPDATE actor SET written_by = 99",
    "text for a time": "UPDATE actor SET migrated_at = 'yesterday'",
    "a fraction for a time": "UPDATE actor SET migrated_at = 1.5",
    "a time beyond the calendar": "UPDATE actor SET migrated_at = 9223372036854775807",
    "text for a revision": "UPDATE actor SET revision = 'many'",
    "a fraction for a revision": "UPDATE actor SET revision = 1.5",
    "a revision below zero": "UPDATE actor SET revision = -1",
    "the revision of an actor that was never stored": "UPDATE actor SET revision = 0",
}


def everything_in(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        queries = (
            "SELECT type, id, revision, version, lineage, written_by, migrated_at FROM actor ORDER BY id",
            "SELECT converting, oldest, base_lineage, base_revision, base_digest FROM actor ORDER BY id",
            "SELECT * FROM base ORDER BY id, name",
            "SELECT * FROM failure ORDER BY id",
            "SELECT * FROM state ORDER BY id, name",
            "SELECT * FROM entry ORDER BY id, name, key",
            "SELECT * FROM lineage ORDER BY id",
        )
        return [connection.execute(query).fetchall() for query in queries]


async def check_refused(node: Node) -> None:
    async with node.activate("Box", "a") as activation:
        state = activation.state()
        for load in (partial(state.migrate_and_load, default={"n": 0}), state.load):
            with pytest.raises(CorruptStateError) as refused:
                await load()
            assert refused.value.key == ActorKey("Box", "a")
            for use in (state.persist, state.clear):
                with pytest.raises(NotLoadedError):
                    await use()
    with pytest.raises(CorruptStateError):
        await node.inspect("Box", "a")


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_corrupted_row_is_refused_and_never_replaced(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store, calm(store) as node:
        await store.insert("Box", "state", [("a", b'{"n":1}')])
        async with node.activate("Box", "a") as activation:
            await activation.state().migrate_and_load()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(CORRUPTIONS[what])
        connection.commit()
    before = everything_in(path)
    async with open_sqlite(path) as store, calm(store) as node:
        for _ in range(2):
            await check_refused(node)
        with pytest.raises(LazymigError):
            _ = [state for actor in await store.scan("Box") for state in [await node.inspect("Box", actor.key.id)]]
        async with node.activate("Box", "b") as activation:
            assert await activation.state().migrate_and_load(default={"n": 2}) == {"n": 2}
    assert everything_in(path) == before


ENTRY_CORRUPTIONS = {
    "a number for an entry": ("UPDATE entry SET value = 5 WHERE name = 'log'", "'k' of table 'log'"),
    "a fraction for an entry": ("UPDATE entry SET value = 1.5 WHERE name = 'log'", "'k' of table 'log'"),
    "text that is no UTF-8 for an entry": (
        "UPDATE entry SET value = CAST(x'22ff22' AS TEXT) WHERE name = 'log'",
        "'k' of table 'log'",
    ),
    "an unknown lineage": ("UPDATE entry SET lineage = 99 WHERE name = 'log'", "'k' of table 'log'.*lineage 99"),
    "text for a lineage": ("UPDATE entry SET lineage = 'abc' WHERE name = 'log'", "'k' of table 'log'.*'abc'"),
    "text that is no UTF-8 for a lineage": (
        "UPDATE entry SET lineage = CAST(x'ff' AS TEXT) WHERE name = 'log'",
        "'k' of table 'log'",
    ),
    "a fraction for a lineage": ("UPDATE entry SET lineage = 1.5 WHERE name = 'log'", "'k' of table 'log'.*1.5"),
    "bytes for a key": ("UPDATE entry SET key = x'6b' WHERE name = 'log'", "table 'log' has the key b'k'"),
    "a key that is no UTF-8": (
        "UPDATE entry SET key = CAST(x'ff' AS TEXT) WHERE name = 'log'",
        "table 'log' has the key",
    ),
    "an empty key": ("UPDATE entry SET key = '' WHERE name = 'log'", "table 'log' has the key ''"),
    "a key with NUL": ("UPDATE entry SET key = 'a' || char(0) WHERE name = 'log'", "table 'log' has the key"),
}
"""What is done to an entry of the table "log", and what the error says."""

MARK_CORRUPTIONS = {
    "text for a conversion": "UPDATE actor SET converting = 'x' WHERE id = 'a'",
    "a conversion below zero": "UPDATE actor SET converting = -1 WHERE id = 'a'",
    "a fraction for a conversion": "UPDATE actor SET converting = 1.5 WHERE id = 'a'",
    "text for the oldest entry": "UPDATE actor SET oldest = 'x' WHERE id = 'a'",
    "text that is no UTF-8 for the oldest entry": "UPDATE actor SET oldest = CAST(x'ff' AS TEXT) WHERE id = 'a'",
    "bytes for the oldest entry": "UPDATE actor SET oldest = x'00' WHERE id = 'a'",
    "an oldest entry below zero": "UPDATE actor SET oldest = -1 WHERE id = 'a'",
    "entries of an actor that was never stored": "UPDATE actor SET revision = 0 WHERE id = 'a'",
}

A, B = ActorKey("Box", "a"), ActorKey("Box", "b")


async def store_entries(path: Path, statement: str) -> None:
    """Store an entry in each of two tables of two actors without states, and damage them."""
    stamp = Stamp(AppliedSet((1,)), AppliedSet((1,)))
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        for number, key in enumerate((A, B)):
            await store.claim(key, Fence("mine", number))
            put = {(table, "k"): Entry(b"1", stamp.applied) for table in ("log", "other")}
            commit = Commit(key, Fence("mine", number), 0, stamp, {}, entries=put, marks=Marks(oldest=1))
            await store.commit(commit._replace(release=True))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("what", ENTRY_CORRUPTIONS)
async def test_corrupted_entry_is_told_with_its_table_and_its_key(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    statement, said = ENTRY_CORRUPTIONS[what]
    await store_entries(path, f"{statement} AND id = 'a'")
    before = everything_in(path)
    async with open_sqlite(path) as store:
        for is_reverse in (False, True):
            with pytest.raises(CorruptStateError, match=said) as refused:
                await store.entries(A, Range("log", is_reverse=is_reverse), 10, 1_000)
            assert refused.value.key == A
        for key, table in ((A, "other"), (B, "log"), (B, "other")):
            assert list((await store.entries(key, Range(table), 10, 1_000)).data) == [b"1"]
        assert await store.count_entries(A, Range("log")) == 1
    assert everything_in(path) == before


@pytest.mark.parametrize(
    "change", ["name = x'ff'", "name = ''", "name = CAST(x'ff' AS TEXT)", "lineage = 99", "lineage = 'abc'"]
)
async def test_corrupted_table_is_told_by_the_count_of_tables(tmp_path: Path, change: str) -> None:
    path = tmp_path / "store.db"
    await store_entries(path, f"UPDATE entry SET {change} WHERE id = 'a' AND name = 'log'")
    async with open_sqlite(path) as store:
        with pytest.raises(CorruptStateError, match="table.*'log'" if "lineage" in change else "table") as refused:
            await store.tables(A)
        assert refused.value.key == A
        assert [count.table for count in await store.tables(B)] == ["log", "other"]


@pytest.mark.parametrize("what", MARK_CORRUPTIONS)
async def test_corrupted_mark_is_refused_and_the_lock_not_taken(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    await store_entries(path, MARK_CORRUPTIONS[what])
    before = everything_in(path)
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("other", "other", None, 1000.0))
        for use in (partial(store.claim, A, Fence("other", 1)), partial(store.read, A), partial(store.scan, "Box")):
            with pytest.raises(CorruptStateError) as refused:
                await use()
            assert refused.value.key == A
        assert isinstance(await store.claim(B, Fence("other", 2)), Claim)
        assert await store.insert("Box", "state", [("a", b"1")]) == frozenset()
    assert everything_in(path) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT owner FROM actor ORDER BY id").fetchall() == [(None,), ("other",)]


async def test_entries_whose_actor_is_lost_are_not_taken_for_a_new_actors(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await store_entries(path, "DELETE FROM actor WHERE id = 'a'")
    before = everything_in(path)
    async with open_sqlite(path) as store:
        for _ in range(2):
            with pytest.raises(CorruptStateError) as refused:
                await store.claim(A, Fence("mine", 9))
            assert refused.value.key == A
        assert await store.insert("Box", "state", [("a", b"1")]) == frozenset()
    assert everything_in(path)[2:] == before[2:]


NO_INCARNATIONS = (
    "{victim}",
    "../victim.txt",
    "..",
    ".",
    "",
    "a\0b",
    "a\\b",
    "x" * 300,
    "\udcff",
    b"\xff",
    b"n",
)


def victim_of(folder: Path) -> Path:
    """Return a file that is nobody's lock, beside the store."""
    victim = folder / "victim.txt"
    victim.touch()
    return victim


def put_node(path: Path, row: Any, victim: Path) -> Any:
    """Put a row that no lazymig wrote among the nodes, alive by its heartbeat; text may be no UTF-8."""
    name = row.format(victim=victim).encode(errors="surrogateescape") if isinstance(row, str) else row
    slot = "CAST(? AS TEXT)" if isinstance(row, str) else "?"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"INSERT INTO node VALUES ({slot}, 'label', NULL, '[]', 0)", [name])
        connection.execute(f"INSERT INTO heartbeat VALUES ({slot}, 0, 1e18, 0)", [name])
        connection.execute(f"UPDATE actor SET owner = {slot}, number = 1", [name])
        connection.commit()


@pytest.mark.parametrize("row", NO_INCARNATIONS)
async def test_node_row_that_is_no_incarnation_is_passed_over_and_never_taken_for_a_path(
    tmp_path: Path, row: Any
) -> None:
    victim = victim_of(tmp_path)
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("first", "first", None, 1000.0))
        put_node(path, row, victim)
        await store.register(NodeRecord("second", "second", None, 1000.0))
        assert isinstance(await store.claim(ActorKey("Box", "new"), Fence("second", 1)), Claim)
    assert victim.exists()


@pytest.mark.parametrize("row", NO_INCARNATIONS)
async def test_lock_of_what_is_no_incarnation_is_told_as_corrupt(tmp_path: Path, row: Any) -> None:
    key = ActorKey("Box", "a")
    victim = victim_of(tmp_path)
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        await store.insert("Box", "state", [("a", b'{"n":1}')])
        put_node(path, row, victim)
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        for use in (partial(store.claim, key, Fence("mine", 1)), partial(store.read, key)):
            with pytest.raises(CorruptStateError) as refused:
                await use()
            assert refused.value.key == key
    assert victim.exists()


async def test_text_that_is_no_utf8_is_read_once_more_and_costs_other_rows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_sqlite(path, inline=True) as store:
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        await store.insert("Box", "state", [(name, b'{"n":1}') for name in "ab"])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE actor SET migrated_at = CAST(x'ff' AS TEXT), lineage = 1 WHERE id = 'b'")
            connection.commit()
        before = everything_in(path)
        factories = []
        for name in "bab":
            key = ActorKey("Box", name)
            for use in (partial(store.claim, key, Fence("mine", 1)), partial(store.read, key)):
                with pytest.raises(CorruptStateError) if name == "b" else nullcontext():
                    await use()
                factories.append(inner(store).text_factory)
        assert set(factories) == {str}, "every text would be decoded in Python"
    assert everything_in(path) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT owner FROM actor").fetchall() == [("mine",), (None,)], "a refused claim holds"


async def test_release_whose_row_holds_no_utf8_is_done_once(tmp_path: Path) -> None:
    key = ActorKey("Box", "a")
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        await store.insert("Box", "state", [("a", b'{"n":1}')])
        await store.claim(key, Fence("mine", 1))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE actor SET revision = CAST(x'ff' AS TEXT)")
            connection.commit()
        before = everything_in(path)
        await store.release([(key, Fence("mine", 1))])
    assert everything_in(path) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT owner, number FROM actor").fetchall() == [(None, 0)]


def inner(store: SqlStore) -> sqlite3.Connection:
    """Return sqlite3's own connection."""
    found: sqlite3.Connection = store._connection.driver._connection  # type: ignore[attr-defined]  # of one driver
    return found


@pytest.mark.parametrize(
    "damage", ["chain = 'x'", "chain = '1'", "chain = '[1]'", "chain = x'ff'", "type = ''", "actor = x'00'"]
)
async def test_a_call_that_can_not_be_read_is_answered_and_keeps_no_other_from_being_served(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "store.db"
    place = Place()
    async with open_sqlite(path) as store, Node(store, lease_seconds=1_000) as client:
        for call_id in ("a", "b"):
            call = Call(call_id, ActorKey("Box", call_id), "add", b"[[],{}]", "sender", 60.0, target="box")
            await store.post.send(call, max_waiting=9)
        await seem_to_run(store, "box", *offers("1.0.0", "add"))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"UPDATE call SET {damage} WHERE id = 'a'")
        for calls in (await store.post.take("box", 9), await store.post.taken("box")):
            assert [(call.call_id, call.action) for call in calls] == [("a", ""), ("b", "add")]
        await store.unregister("box")
        async with place.run(store) as node:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("UPDATE call SET taker = ? WHERE id = 'a'", [node.node_id])  # as if it had taken it
            assert await client.call("Box", "c", "add") == 1
            async with asyncio.timeout(20):
                found = (await store.post.peek("-", "sender")).answers["a"]
                while found.status != CallStatus.DONE:
                    await asyncio.sleep(0.01)
                    found = (await store.post.peek("-", "sender")).answers["a"]
        assert b"can't be read" in (found.result or b"")
