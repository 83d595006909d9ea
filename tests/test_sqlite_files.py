"""What may become of a SQLite file: full, read-only, not ours, newer, older, opened by many."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from lazymig import Node, Suite, open_store, sqlite
from lazymig.errors import (
    LazymigError,
    StoreError,
    StoreLayoutError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from tests.processes import Line, Worker


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def boxes() -> Suite:
    suite = Suite("boxes")
    box = suite.actor_type("Box")

    @box.migration("1.0.0")
    def note(state: dict[str, Any], context: object) -> None:
        state["is_migrated"] = True

    return suite


async def put(node: Node, actor_id: str, value: dict[str, Any]) -> None:
    async with node.activate("Box", actor_id) as activation:
        state = activation.state()
        await state.migrate_and_load(default={})
        state.value.update(value)
        await state.persist()


async def get(node: Node, actor_id: str) -> Any:
    record = await node.inspect("Box", actor_id)
    return None if record is None else record.states["state"]


# --- a full disk ---------------------------------------------------------------------------------------------------


async def pages_at_most(store: Any, count: int) -> None:
    await store._connection.driver.execute_fetchall(f"PRAGMA max_page_count = {count}")


async def test_full_disk_is_told_and_nothing_is_lost(url: str) -> None:
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        await put(node, "a", {"n": 1})
        await store.insert("Box", "state", [("legacy", b'{"n":7}')])
        await pages_at_most(store, 1)  # as many as there are
        async with node.activate("Box", "a") as activation:
            value = await activation.state().migrate_and_load(default={})
            for _ in range(2):
                value["long"] = "x" * 200_000
                with pytest.raises(StoreUnavailableError) as full:
                    await activation.persist()
                assert full.value.retryable
            assert await get(node, "a") == {"n": 1}
            await pages_at_most(store, 100_000)
            await activation.persist()
        assert len((await get(node, "a"))["long"]) == 200_000
        await put(node, "legacy", {"m": 8})
        assert await get(node, "legacy") == {"n": 7, "m": 8, "is_migrated": True}


async def fill_the_disk(line: Line, url: str) -> None:
    """Store ever more until the file may not grow; then more than that is allowed again."""
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, unlimited[1]))
        number = 0
        try:
            while True:
                await put(node, f"box-{number}", {"text": "x" * 20_000})
                number += 1
        except LazymigError as error:
            line.tell((number, error))
        stored = [await get(node, f"box-{other}") is not None for other in range(number)]
        line.tell((all(stored), await get(node, f"box-{number}")))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        await put(node, f"box-{number}", {"text": "y"})
        line.tell(await get(node, f"box-{number}"))


async def test_file_that_may_not_grow_is_told_and_nothing_is_lost(url: str) -> None:
    with Worker(fill_the_disk, url) as worker:
        number, error = await worker.hear()
        assert number > 3
        assert isinstance(error, StoreUnavailableError)
        assert await worker.hear() == (True, None)
        assert await worker.hear() == {"text": "y"}
    async with open_store(url) as store, Node(store, [boxes()]) as node:
        for other in range(number):
            assert await get(node, f"box-{other}") == {"text": "x" * 20_000}


# --- read-only -----------------------------------------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder for `make_read_only`, made writable again afterwards."""
    folder = tmp_path / "folder"
    folder.mkdir()
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
    folder.chmod(0o755)


def make_read_only(folder: Path) -> None:
    """Mount it over itself for root, whom rights don't stop; else take the rights."""
    if os.geteuid() != 0:
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        return
    for command in (["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,ro,bind", str(folder)]):
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("root may not mount here, so nothing can be made read-only")


async def test_read_only_folder_is_told_and_its_file_is_untouched(read_only: Path) -> None:
    path = read_only / "fleet.db"
    async with open_store(f"sqlite:///{path}") as store, Node(store, [boxes()]) as node:
        await put(node, "a", {"n": 1})
    before = content(path)
    make_read_only(read_only)
    with pytest.raises(StoreError) as refused:
        async with open_store(f"sqlite:///{path}") as store, Node(store, [boxes()]):
            pass
    assert not refused.value.retryable
    assert isinstance(refused.value.__cause__, (sqlite3.Error, OSError))
    assert names(read_only) == ["fleet.db"]
    assert content(path) == before


async def test_new_file_in_a_read_only_folder_is_told(read_only: Path) -> None:
    make_read_only(read_only)
    with pytest.raises(StoreError) as refused:
        async with open_store(f"sqlite:///{read_only}/fleet.db"):
            pass
    assert not refused.value.retryable


async def test_connection_that_may_only_read_is_told_and_reads_on(url: str) -> None:
    async with open_store(url) as store, Node(store, [boxes()], lease_seconds=1000) as node:
        await put(node, "a", {"n": 1})
        raw: Any = store
        await raw._connection.driver.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreReadOnlyError) as refused:
            await put(node, "a", {"n": 2})
        assert not refused.value.retryable
        assert await get(node, "a") == {"n": 1}
        await raw._connection.driver.execute("PRAGMA query_only = OFF")
        await put(node, "a", {"n": 3})
        assert await get(node, "a") == {"n": 3}


# --- not ours ------------------------------------------------------------------------------------------------------


async def refused_untouched(path: Path) -> str:
    """Check that opening is refused and changes no byte and no name; return the message."""
    beside, before = names(path.parent), content(path)
    with pytest.raises(StoreLayoutError) as refused:
        async with open_store(f"sqlite:///{path}"):
            pass
    assert not refused.value.retryable
    assert content(path) == before
    assert names(path.parent) == beside
    return str(refused.value)


@pytest.fixture(params=[b"not a database, but some text " * 100, b"\0" * 8192, b"SQLite format 3\0" * 9])
def no_database(request: pytest.FixtureRequest, path: Path) -> Path:
    path.write_bytes(request.param)
    return path


async def test_file_that_is_no_database_is_refused_untouched(no_database: Path) -> None:
    assert "no SQLite database" in await refused_untouched(no_database)


@pytest.mark.parametrize("mark", ["CREATE TABLE actor (id)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"])
async def test_database_of_another_program_is_refused_untouched(path: Path, mark: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute(mark)
        other.commit()
    assert "another program's" in await refused_untouched(path)


async def test_folder_and_missing_folder_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing" / "fleet.db"):
        with pytest.raises(StoreError, match="can't be opened"):
            async with open_store(f"sqlite:///{place}"):
                pass
    with pytest.raises(StoreError):
        async with sqlite.open_sqlite(tmp_path):
            pass
    assert names(tmp_path) == []


async def test_missing_file_is_not_made_unless_wanted(path: Path, url: str) -> None:
    with pytest.raises(StoreError):
        async with open_store(url, create=False):
            pass
    with pytest.raises(StoreError):
        async with sqlite.open_sqlite(path, create=False):
            pass
    assert content(path) is None


@pytest.fixture
def empty_file(path: Path) -> Path:
    path.touch()
    return path


async def test_empty_file_stays_empty_unless_a_store_is_wanted(empty_file: Path) -> None:
    with pytest.raises(StoreError, match="is empty"):
        async with open_store(f"sqlite:///{empty_file}", create=False):
            pass
    assert content(empty_file) == b""


async def test_empty_file_becomes_a_store(empty_file: Path) -> None:
    async with open_store(f"sqlite:///{empty_file}") as store, Node(store, [boxes()]) as node:
        await put(node, "a", {"n": 1})
        assert await get(node, "a") == {"n": 1}


def damage(path: Path) -> None:
    """Overwrite all but the first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


async def test_damaged_file_is_told_and_left(path: Path, url: str) -> None:
    async with open_store(url) as store:
        await store.insert("Box", "state", [(f"box-{n}", b'{"text":"%s"}' % (b"x" * 5_000)) for n in range(50)])
    damage(path)
    before = content(path)
    with pytest.raises(StoreLayoutError, match="damaged"):
        async with open_store(url) as store:
            await store.scan("Box")
    assert content(path) == before


# --- opened by many ------------------------------------------------------------------------------------------------


async def open_all(line: Line, folder: Path, count: int) -> None:
    line.tell("ready")
    for number in range(count):
        await line.hear()
        async with open_store(f"sqlite:///{folder}/{number}.db") as store, Node(store, [boxes()]) as node:
            await put(node, str(os.getpid()), {"n": number})
        line.tell(os.getpid())


async def test_ten_processes_may_open_one_new_file_at_once(tmp_path: Path) -> None:
    rounds = 15
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(open_all, tmp_path, rounds)) for _ in range(10)]
        assert [await worker.hear() for worker in workers] == ["ready"] * 10
        for number in range(rounds):
            for worker in workers:
                worker.tell("go")
            pids = [await worker.hear() for worker in workers]
            async with open_store(f"sqlite:///{tmp_path}/{number}.db") as store:
                assert len(await store.scan("Box")) == len(set(pids)) == 10
    assert not [name for name in names(tmp_path) if name.endswith("-nodes")]
