"""Rows of a SQLite file that can't be read: refused, left untouched, never replaced by a default."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig._records import ActorKey
from lazymig.errors import CorruptStateError, LazymigError, NotLoadedError
from lazymig.sqlite import open_sqlite
from tests.test_sqlite import calm

if TYPE_CHECKING:
    from lazymig import Node

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
    "no writer": "UPDATE actor SET written_by = NULL",
    "an unknown writer": "UPDATE actor SET written_by = 99",
    "text for a time": "UPDATE actor SET migrated_at = 'yesterday'",
    "a time beyond the calendar": "UPDATE actor SET migrated_at = 9223372036854775807",
    "text for a revision": "UPDATE actor SET revision = 'many'",
    "a fraction for a revision": "UPDATE actor SET revision = 1.5",
}


def everything_in(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        queries = (
            "SELECT type, id, revision, version, lineage, written_by, migrated_at FROM actor ORDER BY id",
            "SELECT * FROM state ORDER BY id, name",
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
