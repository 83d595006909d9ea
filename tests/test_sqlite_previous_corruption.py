"""What a SQLite file keeps from before a major version, and can't be read: told as such, never taken for nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from lazymig._records import Commit, Fence, NodeRecord, Previous
from lazymig.errors import CorruptStateError
from lazymig.sqlite import open_sqlite
from lazymig.testing.store_suite import FIRST, SECOND
from tests.test_sqlite_corruption import A, B

if TYPE_CHECKING:
    from pathlib import Path

CORRUPTIONS = {
    "an unknown lineage": "UPDATE previous SET lineage = 99 WHERE id = 'a'",
    "no lineage": "UPDATE previous SET lineage = NULL WHERE id = 'a'",
    "text for a lineage": "UPDATE previous SET lineage = 'x' WHERE id = 'a'",
    "text that is no UTF-8 for a lineage": "UPDATE previous SET lineage = CAST(x'ff' AS TEXT) WHERE id = 'a'",
    "an unknown writer": "UPDATE previous SET written_by = 99 WHERE id = 'a'",
    "text for a time": "UPDATE previous SET migrated_at = 'x' WHERE id = 'a'",
    "a fraction for a time": "UPDATE previous SET migrated_at = 0.5 WHERE id = 'a'",
    "another stamp at one of its states": "UPDATE previous SET migrated_at = 5 WHERE id = 'a' AND name = 'main'",
    "a number for a state": "UPDATE previous SET value = 5 WHERE id = 'a' AND name = 'main'",
    "text that is no UTF-8 for a state": "UPDATE previous SET value = CAST(x'ff' AS TEXT) WHERE id = 'a'",
    "bytes for the name of a state": "UPDATE previous SET name = x'00' WHERE id = 'a' AND name = 'main'",
    "no name for a state": "UPDATE previous SET name = '' WHERE id = 'a' AND name = 'main'",
}


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_what_is_kept_and_corrupted_is_refused_by_its_actors_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    states = {"main": b"1", "other": b"2"}
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        for number, key in enumerate((A, B)):
            await store.claim(key, Fence("mine", number))
            await store.commit(Commit(key, Fence("mine", number), 0, FIRST, states))
            await store.commit(Commit(key, Fence("mine", number), 1, SECOND, {"main": b"3"}, keeps_previous=True))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(CORRUPTIONS[what])
        connection.commit()

    async with open_sqlite(path) as store:
        with pytest.raises(CorruptStateError) as refused:
            await store.previous(A)
        assert refused.value.key == A
        assert await store.previous(B) == Previous(FIRST, states)
        found = await store.read(A)
        assert found is not None
        assert (found.stamp, dict(found.states)) == (SECOND, {"main": b"3", "other": b"2"})
