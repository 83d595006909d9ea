"""Backups of stores that are written meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import subprocess
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, _sqlite_backup, action, open_store
from lazymig._postgres_copy_sql import dump_line
from lazymig._records import ActorKey, Claim, Fence, NodeRecord
from lazymig.errors import StoreError
from lazymig.transfer import backup, copy
from tests import postgres
from tests.copying import FILLER, TYPE, all_of, fill, fill_large
from tests.processes import PATIENCE_SECONDS, Line, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig.store import Store

WRITERS = 3
LARGE = ActorKey(TYPE, "large")


class Pair(Actor):
    """Two states that are always stored together, with the same number."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self.one, self.two = activation.state(), activation.state("two")

    async def activate(self) -> None:
        for state in (self.one, self.two):
            await state.migrate_and_load(default={"n": 0})

    @action
    async def count(self) -> int:
        for state in (self.one, self.two):
            state.value["n"] += 1
        await self._activation.persist()
        return int(self.one.value["n"])

    @action
    async def both(self) -> list[int]:
        return [self.one.value["n"], self.two.value["n"]]


suite = Suite("pairs")
pair = suite.actor_type("Pair", Pair, state="one")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a backup take many steps."""
    monkeypatch.setattr(_sqlite_backup, "PAGES", 3)


def backups(folder: Path) -> list[str]:
    """Return the names of what was made for a backup."""
    return sorted(path.name for path in folder.iterdir() if "backup" in path.name)


# --- SQLite ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_steps")
async def test_a_backup_under_load_has_whole_actors_and_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path}/store.db", tmp_path / "backup.db"
    acknowledged: dict[str, int] = {}
    has_all, has_more = asyncio.Event(), asyncio.Event()
    shares: list[float] = []
    written = threading.Event()

    def note(share: float) -> None:
        """Let somebody write between two steps."""
        assert share > max(shares, default=0), "it began anew"
        shares.append(share)
        written.clear()
        assert written.wait(PATIENCE_SECONDS)

    async def write(node: Node, number: int) -> None:
        while not has_more.is_set():
            for name in (f"{number}-a", f"{number}-b"):
                acknowledged[name] = await node.actor(pair, name).count()
                written.set()
            if len(acknowledged) == 2 * WRITERS:
                has_all.set()

    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(WRITERS):
            store = await stack.enter_async_context(open_store(url))
            nodes.append(await stack.enter_async_context(Node(store, [suite], idle_seconds=1000.0)))
        await fill(store, 300)
        tasks = [asyncio.create_task(write(node, number)) for number, node in enumerate(nodes)]
        await has_all.wait()
        before = dict(acknowledged)
        await backup(store, file, progress=note)
        after = dict(acknowledged)
        has_more.set()
        await asyncio.gather(*tasks)

        assert len(shares) > 10
        async with open_store(f"sqlite:///{file}") as saved:
            assert list(await saved.nodes()) == []
            async with Node(saved, [suite]) as node:
                for name, count in before.items():
                    one, two = await node.actor(pair, name).both()
                    assert one == two
                    assert count <= one <= after[name] + 1
                for number in range(WRITERS):  # as of one moment: b is counted after a
                    ahead = [(await node.actor(pair, f"{number}-{name}").both())[0] for name in "ab"]
                    assert 0 <= ahead[0] - ahead[1] <= 1


async def test_a_backup_is_a_store_with_the_same_actors(tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 100)
        await fill_large(store, LARGE)
        await backup(store, file)
        async with open_store(f"sqlite:///{file}", create=False) as saved:
            report = await copy(store, saved)
            assert (report.copied, report.present, report.is_identical) == (0, 101, True)
    assert backups(tmp_path) == ["backup.db"]


async def test_actors_of_a_backup_can_be_activated_at_once(tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 10)
        held = ActorKey(TYPE, "car-6")
        assert isinstance(await store.claim(held, Fence(FILLER, 9)), Claim)
        assert isinstance(await store.claim(ActorKey(TYPE, "never stored"), Fence(FILLER, 9)), Claim)
        await backup(store, file)
        async with open_store(f"sqlite:///{file}") as saved:
            await saved.register(NodeRecord("n1", "n1", None, 1000.0))
            claim = await saved.claim(held, Fence("n1", 1))
            assert isinstance(claim, Claim)
            assert claim.actor.states == (await read(store, held)).actor.states
            assert isinstance(await saved.claim(ActorKey(TYPE, "never stored"), Fence("n1", 1)), Claim)
        assert (await read(store, held)).actor.owner == FILLER


async def read(store: Store, key: ActorKey) -> Any:
    return (await store.copies.read(key.type, [key.id]))[0]


async def test_a_backup_is_readable_by_whom_the_store_is(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        (tmp_path / "store.db").chmod(0o640)
        await backup(store, tmp_path / "backup.db")
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o640


async def test_a_draft_stays_one_in_a_backup(tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 10)
        whole = await read(store, ActorKey(TYPE, "é1"))
        await store.copies.begin(LARGE, 3, "draft", whole.entries)
        await backup(store, file)
        async with open_store(f"sqlite:///{file}") as saved:
            assert await saved.copies.add(LARGE, "draft", whole.entries)


@pytest.mark.parametrize("kind", ["file", "folder", "broken link", "no folder", "below a file", "too long", "no name"])
async def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "backup.db"
    if kind == "file":
        file.write_bytes(b"precious")
    elif kind == "folder":
        file.mkdir()
    elif kind == "broken link":
        file.symlink_to("nowhere")
    else:
        below = tmp_path / "store.db" / "backup.db"
        others = {"below a file": below, "too long": tmp_path / ("x" * 250), "no name": Path()}
        file = others.get(kind, tmp_path / "none" / "backup.db")
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        with pytest.raises(StoreError, match=r"is there already|can't be written: (No such file|Not a dir|File name)"):
            await backup(store, file)
    assert kind != "file" or file.read_bytes() == b"precious"
    assert backups(tmp_path) == (["backup.db"] if kind in {"file", "folder", "broken link"} else [])


@pytest.mark.usefixtures("small_steps")
async def test_what_progress_raises_or_a_cancellation_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(_: float) -> None:
        raise BrokenPipeError

    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 500)
        with pytest.raises(BrokenPipeError):
            await backup(store, tmp_path / "backup.db", progress=fail)
        progress = lambda _: loop.call_soon_threadsafe(begun.set)  # noqa: E731  (what tells it)
        task = asyncio.create_task(backup(store, tmp_path / "backup.db", progress=progress))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backups(tmp_path) == []
        await backup(store, tmp_path / "backup.db")


async def test_a_backup_that_is_cancelled_with_its_last_step_leaves_nothing(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()

    async def cancel() -> None:
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)

    def tell(share: float) -> None:
        if share == 1:
            asyncio.run_coroutine_threadsafe(cancel(), loop).result(PATIENCE_SECONDS)

    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 10)
        task = asyncio.create_task(backup(store, tmp_path / "backup.db", progress=tell))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert backups(tmp_path) == []


async def test_of_two_backups_to_one_file_the_later_one_is_refused(tmp_path: Path) -> None:
    file, loop = tmp_path / "backup.db", asyncio.get_running_loop()

    def back_up_too(share: float) -> None:
        if share == 1:
            asyncio.run_coroutine_threadsafe(backup(store, file), loop).result(PATIENCE_SECONDS)

    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 100)
        with pytest.raises(StoreError, match="is there already"):
            await backup(store, file, progress=back_up_too)
    assert backups(tmp_path) == ["backup.db"]
    async with open_store(f"sqlite:///{file}", create=False) as saved:
        assert len(await all_of(saved)) == 100


async def filler(line: Line, folder: str) -> None:
    """Back a store up where files may not grow."""
    async with open_store(f"sqlite:///{folder}/store.db") as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            await backup(store, Path(folder) / "backup.db")
        except StoreError as error:
            line.tell(str(error))


async def test_a_full_disk_is_told_with_both_names(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 100)
    with Worker(filler, str(tmp_path)) as worker:
        told = await worker.hear()
    assert told.startswith(f"sqlite:///{tmp_path}/store.db, or {tmp_path}/backup.db, did not take the operation (")
    assert backups(tmp_path) == []


async def saver(line: Line, folder: str) -> None:
    """Back a store up, slowly."""
    _sqlite_backup.PAGES = 3
    async with open_store(f"sqlite:///{folder}/store.db") as store:

        def tell(share: float) -> None:
            if share > 0.5:
                line.tell(share)
                line.wait()

        await backup(store, Path(folder) / "backup.db", progress=tell)


async def test_a_kill_leaves_no_half_backup_under_the_name(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await fill(store, 200)
        with Worker(saver, str(tmp_path)) as worker:
            assert 0.5 < await worker.hear() < 1
            worker.kill()
        assert not (tmp_path / "backup.db").exists()
        await backup(store, tmp_path / "backup.db")
    async with open_store(f"sqlite:///{tmp_path}/backup.db", create=False) as saved:
        assert len(await all_of(saved)) == 200


async def test_a_store_in_memory_has_no_backup(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        with pytest.raises(StoreError, match="has no backup"):
            await backup(store, tmp_path / "backup.db")


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def programs() -> Path:
    """Return the folder of pg_dump; where there is none that fits the server, the test fails in CI and is skipped."""
    if not postgres.ELSEWHERE:
        return postgres.own_server().bin
    found = shutil.which("pg_dump")
    if found is None:
        told = "no pg_dump here for the server of LAZYMIG_TEST_POSTGRES: install PostgreSQL's client programs"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return Path(found).parent


@pytest.fixture
def other_database() -> Iterator[str]:
    """Yield the URL of an empty database on the same server."""
    name = postgres.draw_schema()
    server = postgres.server_url()
    with postgres.connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield server.replace("/postgres?", f"/{name}?")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_the_line_that_a_server_s_backup_is_refused_with_dumps_a_store_that_opens(
    tmp_path: Path, other_database: str
) -> None:
    file = tmp_path / "it's a dump"
    with postgres.schema_url() as url:
        async with open_store(url) as store:
            await fill(store, 60)
            await fill_large(store, LARGE)
            assert isinstance(await store.claim(LARGE, Fence(FILLER, 9)), Claim)
            with pytest.raises(StoreError, match="PostgreSQL's own tools") as refused:
                await backup(store, file)
            line = dump_line(postgres.schema_of(url), store.name, file)
            assert line in str(refused.value)
            await asyncio.to_thread(_shell, line)
            await asyncio.to_thread(_shell, f"pg_restore --exit-on-error --dbname='{other_database}' \"{file}\"")
            async with open_store(f"{other_database}&schema={postgres.schema_of(url)}", create=False) as saved:
                report = await copy(store, saved)
                assert (report.copied, report.present, report.is_identical) == (0, 61, True)
                assert list(await saved.nodes()) == []
                await saved.register(NodeRecord("n1", "n1", None, 1000.0))
                assert isinstance(await saved.claim(LARGE, Fence("n1", 1)), Claim)


def _shell(line: str) -> None:
    environment = {**os.environ, "PATH": f"{programs()}:{os.environ['PATH']}"}
    done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_has_the_line() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    line = dump_line("lazymig", "postgresql://user@host/database", Path("fleet.dump"))
    assert f"\n{line}\npg_restore --dbname=postgresql://user@host/other fleet.dump\n" in readme


def test_a_dump_line_has_no_password_and_no_option_of_ours() -> None:
    url = "postgresql://ann:***@host:5432/shop?schema=fleet&sslmode=require&password=***&pool=8"
    assert dump_line("fleet", url, Path("a b.dump")) == (
        "pg_dump --format=custom --schema=fleet '--exclude-table-data=fleet.(node|heartbeat|offer|call|sweep)' "
        "'--file=a b.dump' '--dbname=postgresql://ann@host:5432/shop?sslmode=require'"
    )
