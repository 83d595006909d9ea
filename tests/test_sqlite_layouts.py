"""Layouts of SQLite files: newer ones are refused, older ones upgraded."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lazymig import Node, _sqlite_opening, open_store
from lazymig._sqlite_layout import LAYOUTS
from lazymig.errors import (
    StoreError,
    StoreLayoutError,
)
from tests.processes import Line, Worker
from tests.test_sqlite_files import boxes, content, get, put, refused_untouched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


ADDED = "ALTER TABLE node ADD COLUMN zone TEXT; CREATE TABLE zone (name TEXT PRIMARY KEY)"


async def make_store(url: str) -> None:
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        await put(node, "a", {"n": 1})


def layout_of(path: Path) -> tuple[int, list[str]]:
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return version, names


async def test_newer_layout_is_refused_untouched(path: Path, url: str) -> None:
    await make_store(url)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(LAYOUTS) + 1}")
    assert "layout" in await refused_untouched(path)


async def test_newer_layout_in_use_is_refused_untouched(path: Path, url: str) -> None:
    await make_store(url)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(LAYOUTS) + 1}")
        newer.execute("CREATE TABLE later (id)")
        before = content(path)
        with pytest.raises(StoreLayoutError):
            async with open_store(url):
                pass
        assert content(path) == before
        assert newer.execute("SELECT COUNT(*) FROM later").fetchone() == (0,)


async def test_older_layout_is_upgraded_with_its_data(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_store(url)
    old = len(LAYOUTS)
    monkeypatch.setattr(_sqlite_opening, "LAYOUTS", (*LAYOUTS, ADDED))
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        assert await get(node, "a") == {"n": 1}
        await put(node, "a", {"n": 2})
    version, names = layout_of(path)
    assert version == old + 1
    assert "zone" in names


async def test_older_layout_that_is_only_read_is_refused_and_left_alone(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_store(url)
    before = content(path)
    monkeypatch.setattr(_sqlite_opening, "LAYOUTS", (*LAYOUTS, ADDED))
    with pytest.raises(StoreLayoutError, match=r"has layout 1, this release reads 2.*Open it once to be written"):
        async with open_store(url, read_only=True):
            pass
    assert content(path) == before


async def test_layout_upgrade_that_fails_midway_leaves_the_old_layout(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_store(url)
    before = layout_of(path)
    with monkeypatch.context() as patched:
        patched.setattr(_sqlite_opening, "LAYOUTS", (*LAYOUTS, f"{ADDED}; CREATE TABLE node (again)"))
        with pytest.raises(StoreError):
            async with open_store(url):
                pass
    assert layout_of(path) == before
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        assert await get(node, "a") == {"n": 1}


async def upgrade_and_die(line: Line, url: str) -> None:
    """Be killed between the statements of a layout upgrade."""
    count = 200_000_000  # rows; far more than are counted before the kill
    endless = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) SELECT max(i) FROM n"
    pytest.MonkeyPatch().setattr(
        _sqlite_opening, "LAYOUTS", (*LAYOUTS, f"{ADDED}; CREATE TABLE reached (id); {endless}")
    )
    line.tell("upgrading")
    async with open_store(url):
        pass


async def test_process_killed_within_a_layout_upgrade_leaves_the_old_layout(path: Path, url: str) -> None:
    await make_store(url)
    before = layout_of(path)
    with Worker(upgrade_and_die, url) as worker:
        assert await worker.hear() == "upgrading"
        while not _is_locked(path):
            os.sched_yield()
        worker.kill()
    assert layout_of(path) == before
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        assert await get(node, "a") == {"n": 1}


def _is_locked(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False
