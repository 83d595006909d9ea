"""What a store holds, read beside the library: a database by its driver and json, memory from its dictionaries.

The tests of trust judge by this, so that a fault in the library's reading can't hide one in its writing.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import psycopg

    from lazymig.memory import MemoryStore

_PART = (1 << 21) - 1


@dataclass(frozen=True)
class Row:
    """An actor as stored.

    Attributes:
        revision: Its commits.
        applied: Its applied versions as text, as stored; None without migration-info.
        written_by: What the last writer registers, likewise.
        version: The sortable integer of the highest applied version.
        owner: Incarnation in its lock, registered or not.
        number: The lock's number.
        data: Name of each state to its bytes.
    """

    revision: int
    applied: tuple[str, ...] | None
    written_by: tuple[str, ...] | None
    version: int | None
    owner: str | None
    number: int
    data: Mapping[str, bytes]

    @property
    def kept(self) -> tuple[object, ...]:
        """What no refused or failed activation changes: all but the lock."""
        return self.revision, self.applied, self.written_by, self.version, dict(self.data)

    @cached_property
    def values(self) -> dict[str, Any] | None:
        """The states' values, None if one of them is unreadable."""
        try:
            return {name: json.loads(data) for name, data in self.data.items()}
        except ValueError:
            return None

    @property
    def states(self) -> dict[str, Any]:
        """The states' values."""
        assert self.values is not None, f"one of the states {list(self.data)} is unreadable"
        return self.values


Reading = dict[tuple[str, str], Row]
"""Stored actors by type and id."""


def rows(connection: sqlite3.Connection, kind: str | None = None) -> Reading:
    """Return what a SQLite file holds, of one type or all, from one snapshot."""
    wanted = {"type": kind}
    connection.execute("BEGIN")
    try:
        lineage = connection.execute("SELECT id, applied FROM lineage").fetchall()
        actors = connection.execute(
            "SELECT type, id, revision, lineage, written_by, version, owner, number FROM actor "
            "WHERE revision > 0 AND type = ifnull(:type, type)",
            wanted,
        ).fetchall()
        states = connection.execute(
            "SELECT type, id, name, value FROM state WHERE type = ifnull(:type, type)", wanted
        ).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return _reading(lineage, actors, states)


def rows_of_schema(connection: psycopg.Connection[tuple[Any, ...]], schema: str, kind: str | None = None) -> Reading:
    """Return what a PostgreSQL schema holds, of one type or all, from one snapshot."""
    wanted = {"type": kind}
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        lineage = connection.execute(f"SELECT id, applied FROM {schema}.lineage").fetchall()
        actors = connection.execute(
            f"SELECT type, id, revision, lineage, written_by, version, owner, number FROM {schema}.actor "
            "WHERE revision > 0 AND type = coalesce(%(type)s, type)",
            wanted,
        ).fetchall()
        states = connection.execute(
            f"SELECT type, id, name, value FROM {schema}.state WHERE type = coalesce(%(type)s, type)", wanted
        ).fetchall()
    return _reading(lineage, actors, states)


def _reading(lineage: list[Any], actors: list[Any], states: list[Any]) -> Reading:
    names = {None: None, 0: None, **{number: tuple(json.loads(text)) for number, text in lineage}}
    data: dict[tuple[str, str], dict[str, bytes]] = {}
    for of, actor_id, name, value in states:
        data.setdefault((of, actor_id), {})[name] = value
    found = {
        (of, actor_id): Row(
            revision, names[applied], names[writer], version, owner, number, data.pop((of, actor_id), {})
        )
        for of, actor_id, revision, applied, writer, version, owner, number in actors
    }
    assert not data, f"states without an actor: {data}"
    return found


def read(path: Path) -> Reading:
    """Check that a file is sound by SQLite's own means; return what it holds."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return rows(connection)


def read_memory(store: MemoryStore, kind: str | None = None) -> Reading:
    """Return what a memory store holds, of one type or all."""
    found = {}
    for key, row in store._rows.items():
        if row.revision == 0 or kind not in {None, key.type}:
            continue
        stamp, fence = row.stamp, row.fence
        applied = None if stamp is None else _names(stamp.applied.packed)
        writer = None if stamp is None else _names(stamp.writer.packed)
        version = None if stamp is None else stamp.applied.packed[-1]
        owner, number = (None, 0) if fence is None else (fence.node, fence.number)
        found[key.type, key.id] = Row(row.revision, applied, writer, version, owner, number, dict(row.states))
    return found


def _names(packed: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{number >> 42}.{number >> 21 & _PART}.{number & _PART}" for number in packed)
