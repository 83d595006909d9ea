"""File locks: a killed node is dead at once, and nothing is left of one that stopped. What a node's start refuses."""

from __future__ import annotations

import fcntl
import gc
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lazymig import Node, open_store
from lazymig._presence import Presence
from lazymig._records import ActorKey, Claim, Fence, NodeRecord
from lazymig.errors import DefinitionError
from lazymig.memory import MemoryStore
from tests.processes import Line, Worker
from tests.test_heartbeat import patient


async def be_present(line: Line, folder: Path) -> None:
    presence = Presence(folder)
    presence.enter("node-1")
    line.tell("present")
    await line.hear()


async def test_killed_process_is_dead_at_once_and_a_running_one_is_not(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "nodes")
    with Worker(be_present, tmp_path / "nodes") as worker:
        assert await worker.hear() == "present"
        assert not presence.is_dead("node-1")
        worker.kill()
        assert presence.is_dead("node-1")
    assert presence.is_dead("node-2") is None, "a missing file proves nothing"


@pytest.mark.parametrize("name", ["{folder}/victim.txt", "../victim.txt", "a\0b", "..", "", "\ud800"])
def test_name_that_leads_out_of_the_folder_is_neither_probed_nor_removed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim.txt"
    victim.touch()
    presence = Presence(tmp_path / "nodes")
    presence.enter("node-1")
    named = name.format(folder=tmp_path)
    with pytest.raises(OSError, match="no name"):
        presence.enter(named)
    assert presence.is_dead(named) is False
    presence.leave(named)
    presence.forget(named)
    assert victim.exists()
    presence.close()


async def hold_an_actor(line: Line, url: str) -> None:
    async with open_store(url) as store, patient(store) as node, node.activate("Counter", "held"):
        line.tell("holding")
        await line.hear()


class Interrupted:
    """A connection beside which something happens after its next trip."""

    def __init__(self, connection: Any, then: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._then: Callable[[], Awaitable[None]] | None = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def run(self, *arguments: Any, **options: Any) -> Any:
        found = await self._connection.run(*arguments, **options)
        then, self._then = self._then, None
        if then is not None:
            await then()
        return found


async def test_lock_of_a_killed_node_is_got_at_once_even_while_another_node_removes_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as opened, open_store(url) as other:
        store: Any = opened
        await store.register(NodeRecord("mine", "mine", None, 60.0))
        with Worker(hold_an_actor, url) as worker:
            assert await worker.hear() == "holding"
            worker.kill()
        another = partial(other.register, NodeRecord("another", "another", None, 60.0))
        store._connection = Interrupted(store._connection, another)
        assert isinstance(await store.claim(ActorKey("Counter", "held"), Fence("mine", 1)), Claim)


def test_probing_neither_ends_a_lock_nor_looks_like_one(tmp_path: Path) -> None:
    presence, other = Presence(tmp_path / "nodes"), Presence(tmp_path / "nodes")
    presence.enter("alive")
    for _ in range(2):
        assert not other.is_dead("alive")
        assert not presence.is_dead("alive")
    (tmp_path / "nodes" / "dead").touch()
    descriptor = os.open(tmp_path / "nodes" / "dead", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # another prober, at the same time
    assert other.is_dead("dead")
    os.close(descriptor)
    other.forget("dead")
    presence.close()
    assert not (tmp_path / "nodes").exists()


def test_folder_of_lock_files_may_come_and_go_while_others_enter(tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def come_and_go(name: str) -> None:
        presence = Presence(tmp_path / "nodes")
        try:
            for number in range(400):
                presence.enter(f"{name}-{number}")
                presence.leave(f"{name}-{number}")
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def descriptors() -> set[str]:
    gc.collect()
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add(str(link.readlink()))
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
async def test_no_lock_file_or_descriptor_is_left_when_nodes_stop_register_anew_or_are_forgotten(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "store.db-nodes"
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        before = descriptors()
        async with patient(store) as node:
            await node.call("Counter", "a", "add", 1)
            node._membership.expire()
            await node.call("Counter", "a", "add", 1)
            await store.unregister(node.node_id)
            async with node.activate("Counter", "b"):
                assert [file.name for file in folder.iterdir()] == [node.node_id]
        assert not folder.exists()
        assert descriptors() == before


async def register_and_wait(line: Line, url: str) -> None:
    async with open_store(url) as store, patient(store) as node:
        line.tell((node.node_id, await node.call("Counter", "a", "add", 1)))
        await line.hear()


async def test_the_next_node_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with Worker(register_and_wait, url) as worker:
        dead, total = await worker.hear()
        assert total == 1
        worker.kill()
    async with open_store(url) as store, patient(store) as node:
        assert not (tmp_path / "store.db-nodes" / dead).exists()
        record = await node.inspect("Counter", "a")
        assert record is not None
        assert record.owner is None
        assert await node.call("Counter", "a", "add", 1) == 2


@pytest.mark.parametrize("what", ["label", "build"])
@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * 201, 7])
async def test_label_that_no_store_takes_is_refused_before_the_start(what: str, text: Any) -> None:
    with pytest.raises(DefinitionError):
        Node(MemoryStore(), **{what: text})


@pytest.mark.parametrize("lease_seconds", [float("inf"), 1e12])
async def test_node_with_an_endless_lease_starts_and_stops(lease_seconds: float) -> None:
    async with Node(MemoryStore(), lease_seconds=lease_seconds) as node:
        heart = f"lazymig-heart-{node.node_id}"
        assert heart in {thread.name for thread in threading.enumerate()}
    assert heart not in {thread.name for thread in threading.enumerate()}
