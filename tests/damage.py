"""A SQLite store whose rows are damaged behind the library's back, and what all its readers promise then."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import ActorKey, Node, Suite
from lazymig._bases import BaseWrite, Kept
from lazymig._entries import Entry, Range
from lazymig._quarantine import failed
from lazymig._records import Claim, Commit, Fence, Marks
from lazymig.errors import ActivationError, CorruptStateError
from lazymig.sqlite import open_sqlite
from lazymig.transfer import export_states, to_json_line
from tests.decoders import REFUSED, expected, same

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from lazymig._quarantine import Failure
    from lazymig._records import StoredActor
    from lazymig.store import Store

Junk = None | int | float | str | bytes

KEYS = tuple(ActorKey("Box", name) for name in "abc")
DEFAULT = {"default": True}
COLUMNS = {
    "actor": (
        *("type", "id", "revision", "version", "lineage", "written_by", "migrated_at", "owner", "number"),
        *("converting", "oldest", "base_lineage", "base_revision", "base_digest", "failing"),
    ),
    "state": ("type", "id", "name", "value"),
    "entry": ("type", "id", "name", "key", "value", "lineage"),
    "base": ("type", "id", "name", "value"),
    "failure": ("type", "id", "failed_at", "retry_at", "record"),
    "lineage": ("id", "type", "applied"),
}
ORDERS = {
    "actor": "type, id",
    "state": "type, rowid",
    "entry": "type, id, name, key",
    "base": "type, rowid",
    "failure": "type, id",
    "lineage": "id",
}
TABLES = ("log", "other")
FAILURE = failed(None, 1, "name", "error", at=datetime(2026, 5, 4, tzinfo=UTC), node="n", checksum=5)
PLACES = tuple((table, column) for table, columns in COLUMNS.items() for column in columns)


@dataclass(frozen=True, slots=True)
class Damage:
    """One value put into one column.

    Attributes:
        table: Of the file.
        column: Of the table.
        value: What is put there; text as bytes, to hold what is no UTF-8.
        as_text: Store the bytes as text.
    """

    table: str
    column: str
    value: Junk
    as_text: bool = False


def box_suite() -> Suite:
    suite = Suite("boxes")
    box = suite.actor_type("Box")

    @box.migration("1.0.0")
    def nothing(state: Any, context: Any) -> None: ...

    return suite


class DamagedStore:
    """A store with the actors a and b, migrated, and c, imported only; b's row, states, entries, base can be damaged.

    The tables have lost their NOT NULL, as a damaged file may have.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._runner.run(self._fill())
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table'")
            connection.commit()
        self._sound = {table: self._rows(table) for table in COLUMNS}
        self._runner.run(self._start())
        self._fences = 0

    def close(self) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()

    async def _fill(self) -> None:
        async with open_sqlite(self.path) as store, Node(store, [box_suite()]) as node:
            await store.insert("Box", "state", [(key.id, b'{"n":1}') for key in KEYS])
            for key in KEYS[:2]:
                async with node.activate("Box", key.id) as activation:
                    await activation.state().migrate_and_load()
                await self._put_entries(store, key, Fence(node.node_id, 1_000_000))

    @staticmethod
    async def _put_entries(store: Store, key: ActorKey, fence: Fence) -> None:
        claim = await store.claim(key, fence)
        assert isinstance(claim, Claim)
        assert claim.actor.stamp is not None
        applied = claim.actor.stamp.applied
        put = {(table, f"{table} {key.id}"): Entry(b'{"n":2}', applied) for table in TABLES}
        marks = Marks(oldest=applied.highest)
        await store.failures.note(key, fence, FAILURE)
        revision, stamp = claim.actor.revision, claim.actor.stamp
        base = BaseWrite(applied, 7, is_current=True, states={"kept": Kept(b'{"n":3}')})
        await store.commit(Commit(key, fence, revision, stamp, {}, release=True, entries=put, marks=marks, base=base))

    async def _start(self) -> None:
        self._store = await self._open.enter_async_context(open_sqlite(self.path))
        self._node = await self._open.enter_async_context(Node(self._store, [box_suite()], lease_seconds=60))

    def check(self, damage: Damage) -> None:
        """Damage the file, let every reader read it, and put it right again."""
        if not self._put(damage):
            return
        try:
            self._runner.run(self._check())
        finally:
            self._restore()

    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def damaged(self, damage: Damage, look: Callable[[], None]) -> None:
        """Damage the file for one look at it."""
        if self._put(damage):
            try:
                look()
            finally:
                self._restore()

    # --- the file, beside the library --------------------------------------------------------------------------

    def _put(self, damage: Damage) -> bool:
        where = "" if damage.table == "lineage" else "WHERE id = 'b'"
        slot = "CAST(? AS TEXT)" if damage.as_text else "?"
        with closing(sqlite3.connect(self.path)) as connection:
            try:
                connection.execute(f"UPDATE {damage.table} SET {damage.column} = {slot} {where}", [damage.value])
            except sqlite3.IntegrityError:  # a key can't be NULL
                return False
            connection.commit()
        return True

    def _restore(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            for table, rows in self._sound.items():
                connection.execute(f"DELETE FROM {table}")
                slots = ", ".join("?" for _ in COLUMNS[table])
                connection.executemany(f"INSERT INTO {table} VALUES ({slots})", map(self._readable, rows))
            connection.commit()

    @staticmethod
    def _readable(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            value.decode() if kind == b"text" else value for value, kind in zip(row[::2], row[1::2], strict=True)
        )

    def _rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return each value and SQLite's name of its type, text as bytes; without the lock, that readers may take."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.text_factory = bytes
            shown = ", ".join(f"{column}, typeof({column})" for column in COLUMNS[table])
            return connection.execute(f"SELECT {shown} FROM {table} ORDER BY {ORDERS[table]}").fetchall()

    def _rows_of(self, table: str, key: ActorKey) -> list[tuple[Any, ...]]:
        """Return an actor's rows: its type and id are text, to SQLite the same bytes as a blob are something else."""
        named = (key.type.encode(), b"text", key.id.encode(), b"text")
        return [row for row in self._rows(table) if row[:4] == named]

    def _file(self) -> list[Any]:
        actors = [row[:14] + row[18:] for row in self._rows("actor")]  # all but the lock
        return [actors, *map(self._rows, ("state", "entry", "base", "failure", "lineage"))]

    # --- the readers -------------------------------------------------------------------------------------------

    async def _check(self) -> None:
        before = self._file()
        for key in KEYS:
            found = await self._value_or_corrupt(partial(self._store.read, key))
            if found is not REFUSED:
                self._compare(key, found)
            claim = await self._value_or_corrupt(partial(self._claimed, key))
            if claim is not REFUSED and (claim.states or claim.revision):
                self._compare(key, claim)
            record = await self._value_or_corrupt(partial(self._node.inspect, "Box", key.id))
            if record is not REFUSED and record is not None:
                to_json_line(record)
            await self._check_entries(key)
        failures = partial(self._store.failures.page, "Box")
        for read in (partial(self._store.scan, "Box"), partial(self._store.census, "Box"), self._store.types, failures):
            await self._value_or_corrupt(read)
        await self._check_export()
        assert self._file() == before, "reading changed the file"
        for key in KEYS:
            await self._check_load(key)

    async def _value_or_corrupt(self, read: Callable[[], Awaitable[Any]]) -> Any:
        self._forget()
        try:
            return await read()
        except CorruptStateError as error:
            assert error.key is None or error.key in KEYS, error
            return REFUSED

    def _forget(self) -> None:
        """Let the store read the file as if it had just been opened: it remembers lineages."""
        self._store._learning._sets.clear()
        self._store._learning._ids.clear()

    async def _claimed(self, key: ActorKey) -> StoredActor:
        self._fences += 1
        claim = await self._store.claim(key, Fence(self._node.node_id, 1_000_000 + self._fences))
        assert isinstance(claim, Claim)
        await self._store.release([(key, claim.fence)])
        return claim.actor

    def _compare(self, key: ActorKey, found: StoredActor | None) -> None:
        """Compare an actor with its rows."""
        states = {row[4]: row[6] for row in self._rows_of("state", key)}
        actors = [row[::2] for row in self._rows_of("actor", key)]
        if found is None:
            assert not actors, "an actor was taken for unknown"
            return
        (_, _, revision, _, lineage, writer, migrated_at, _, _, *marks, base, of_base, digest, _) = actors[0]
        assert found.revision == revision
        assert list(found.marks) == marks
        self._compare_base(key, found, (base, of_base, digest))
        self._compare_failure(key, found.failure)
        assert {name.encode(): value for name, value in found.states.items()} == states
        if found.stamp is None:
            assert (lineage, writer, migrated_at) == (0, 0, None), "migration-info was taken for none"
            return
        texts = {number: json.loads(text) for number, _, _, _, text, _ in self._rows("lineage")}
        info = found.stamp.info
        names = [str(version) for version in info.applied]
        if info.floor is not None:
            names[0] = f"<={names[0]}"
        assert names == texts[lineage]
        assert str(info.written_by) == ([name.removeprefix("<=") for name in texts[writer]] or ["0.0.0"])[-1]
        assert migrated_at is None or isinstance(migrated_at, int), "a fraction of a microsecond was taken for a time"
        time = None if migrated_at is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=migrated_at)
        assert info.migrated_at == time

    def _compare_base(self, key: ActorKey, found: StoredActor, columns: tuple[Any, ...]) -> None:
        if found.base is None:
            assert columns == (None, None, None), "something that is kept was taken for nothing"
            return
        texts = {row[0]: row[4] for row in self._rows("lineage")}
        rows = {row[4]: row[6] for row in self._rows_of("base", key)}
        names = [str(version) for version in found.base.applied.versions]
        assert (names, found.base.revision, found.base.digest) == (json.loads(texts[columns[0]]), *columns[1:])
        assert {name.encode(): kept.data for name, kept in found.base.states.items()} == rows

    def _compare_failure(self, key: ActorKey, failure: Failure | None) -> None:
        if failure is not None:
            ((_, _, *columns),) = [row[::2] for row in self._rows_of("failure", key)]
            times = [(time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for time in failure[4:6]]
            record = [*failure[:4], *failure[6:]]
            assert [*times, record] == [*columns[:2], json.loads(columns[2])]

    async def _check_entries(self, key: ActorKey) -> None:
        """Each entry is read as it is, or its actor is named."""
        rows = self._rows_of("entry", key)
        texts = {row[0]: row[4] for row in self._rows("lineage")}
        counts = await self._value_or_corrupt(partial(self._store.tables, key))
        if counts is not REFUSED:
            assert [(count.table.encode(), b"text") for count in counts] == sorted({row[4:6] for row in rows})
            assert sum(count.entries for count in counts) == len(rows)
        for table in TABLES:
            page = await self._value_or_corrupt(partial(self._store.entries, key, Range(table), 10, 1_000))
            if page is REFUSED:
                continue
            of_table = [row for row in rows if row[4:6] == (table.encode(), b"text")]
            assert [(name.encode(), b"text") for name in page.keys] == [row[6:8] for row in of_table]
            assert [*page.data] == [row[8] for row in of_table]
            assert [[str(each) for each in one.versions] for one in page.applied] == [
                [name.removeprefix("<=") for name in json.loads(texts[row[10]])] for row in of_table
            ]
            assert await self._store.count_entries(key, Range(table)) == len(of_table)

    async def _check_export(self) -> None:
        """Every actor is exported or named; an id that is none ends the export."""
        self._forget()
        corrupt: list[CorruptStateError] = []
        exported: list[str] = []
        try:
            async for record in export_states(self._store, "Box", on_corrupt=corrupt.append):
                exported.append(record.key.id)
                line = json.loads(to_json_line(record))
                raw = {row[4]: row[6] for row in self._rows_of("state", record.key)}
                assert {name.encode(): repr(value) for name, value in line["states"].items()} == {
                    name: repr(_sorted(expected(value))) for name, value in raw.items()
                }
        except CorruptStateError as error:
            assert error.key is None, error
            return
        named = {error.key.id for error in corrupt if error.key is not None}
        ids = {row[2].decode() for row in self._rows("actor") if row[:2] == (b"Box", b"text")}
        ids -= {""}  # a scan begins above it
        assert {*exported, *named} == ids
        assert len(exported) + len(corrupt) == len(ids)

    async def _check_load(self, key: ActorKey) -> None:
        """A refused activation changes nothing, and nothing stored is ever taken for a new actor."""
        self._forget()
        before = self._file()
        rows = self._rows_of("state", key)
        async with self._node.activate("Box", key.id) as activation:
            try:
                value = await activation.state().migrate_and_load(default=dict(DEFAULT))
            except ActivationError as error:
                assert error.key == key, error
                value = REFUSED
        if value is REFUSED:
            assert self._file() == before, "a refused activation changed the file"
        elif value == DEFAULT:
            assert not any(row[4] == b"state" for row in rows), "a stored state was taken for none"
        else:
            rows += self._rows_of("base", key)
            assert any(same(value, expected(row[6])) for row in rows), f"{value!r} is not what is stored"


def _sorted(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))
