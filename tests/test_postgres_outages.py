"""A PostgreSQL server that stops, restarts or loses its connections: nothing is lost or doubled, and work goes on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import orjson
import pytest

from lazymig import Activation, Actor, Node, Suite, action, open_store
from lazymig._records import Claim, Fence
from lazymig.errors import ActorLockedError, LeaseLostError, StoreReadOnlyError, StoreUnavailableError
from tests import postgres
from tests.pgbouncer import pgbouncer
from tests.test_postgres_protocol import KEY, NODE, connection_of
from tests.wire import Cut, wire_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lazymig._postgres_driver import Driver
    from lazymig.store import Store


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url(pool=1) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        await store.register(NODE)
        yield store


def driver_of(store: Store) -> Driver:
    return connection_of(store).driver


ledgers = Suite("ledgers")


class Ledger(Actor):
    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=[])

    @action
    async def add(self, line: str) -> int:
        self.state.value.append(line)
        await self.state.persist()
        return len(self.state.value)


ledgers.actor_type("Ledger", Ledger)


class Writer:
    """Adds lines to ledgers and notes what became of each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.written: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []

    async def add(self, node: Node, ledger: str) -> None:
        line = f"{self.name}-{len(self.written) + len(self.refused) + len(self.unknown)}"
        try:
            await node.call("Ledger", ledger, "add", line)
        except StoreUnavailableError:
            self.unknown.append(line)
        except (ActorLockedError, LeaseLostError):
            self.refused.append(line)
        else:
            self.written.append(line)


async def check_ledgers(store: Store, writers: list[Writer]) -> int:
    """Every line that was acknowledged is there once, none twice, and none that was refused; return their number."""
    found: list[str] = []
    for actor in await store.scan("Ledger"):
        lines = orjson.loads(actor.states["state"])
        assert actor.revision == len(lines)
        found += lines
    written = {line for writer in writers for line in writer.written}
    unknown = {line for writer in writers for line in writer.unknown}
    assert len(found) == len(set(found))
    assert written <= set(found) <= written | unknown
    return len(found)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_node_settles_a_commit_whose_outcome_was_unknown(url: str, when: Cut) -> None:
    async with wire_to(url) as (wire, through), open_store(through) as store, Node(store, [ledgers]) as node:
        writer = Writer("w")
        for _ in range(8):
            await writer.add(node, "a")
            wire.cut(when, b".commit(")
            await writer.add(node, "a")
            assert wire.is_whole

        assert (len(writer.written), len(writer.unknown)) == (8, 8)
        assert await check_ledgers(store, [writer]) == (16 if when == "after" else 8)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_the_server_under_load_loses_and_doubles_nothing(url: str, mode: str) -> None:
    server = postgres.server_to_break()
    async with AsyncExitStack() as stack:
        writers, working = [], []
        is_over = asyncio.Event()
        has_begun = asyncio.Semaphore(0)

        async def work(writer: Writer, node: Node) -> None:
            after = 0
            while after < 10:
                await writer.add(node, f"{writer.name}-{len(writer.written) % 3}")
                after += is_over.is_set()
                has_begun.release()

        for number in range(3):
            store = await stack.enter_async_context(open_store(url))
            node = await stack.enter_async_context(Node(store, [ledgers]))
            writers.append(Writer(str(number)))
            working.append(asyncio.create_task(work(writers[-1], node)))
        for _ in range(100):
            await has_begun.acquire()
        await asyncio.to_thread(server.restart, mode)
        is_over.set()
        await asyncio.gather(*working)

        assert await check_ledgers(store, writers) >= 10


async def test_heartbeats_go_on_after_a_restart(url: str, store: Store) -> None:
    server = postgres.server_to_break()
    pulse = store.open_pulse()
    assert pulse.beat("n1")
    server.restart()
    assert pulse.beat("n1")
    server.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="can't be reached"):
                pulse.beat("n1")
    finally:
        server.start()
    assert pulse.beat("n1")
    pulse.close()


async def test_a_server_that_is_down_is_told_after_a_while_and_found_when_it_is_back(store: Store) -> None:
    server = postgres.server_to_break()
    driver_of(store).wait_seconds = 0.3
    server.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match=r"can't be reached.*Nothing was stored"):
                await store.claim(KEY, Fence("n1", 1))
    finally:
        server.start()
    assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)


async def test_an_operation_waits_for_a_server_that_is_just_restarting(store: Store) -> None:
    server = postgres.server_to_break()
    server.stop()
    claiming = asyncio.create_task(store.claim(KEY, Fence("n1", 1)))
    await asyncio.to_thread(server.start)

    assert isinstance(await claiming, Claim)


async def test_a_restart_of_the_server_behind_pgbouncer_is_survived() -> None:
    server = postgres.server_to_break()
    schema = postgres.draw_schema()
    with pgbouncer() as url:
        try:
            async with open_store(f"{url}?schema={schema}") as store, Node(store, [ledgers]) as node:
                writer = Writer("w")
                for goal in range(1, 5):
                    async with asyncio.timeout(10):
                        while len(writer.written) < goal:
                            await writer.add(node, "a")
                    if goal < 4:
                        await asyncio.to_thread(server.restart)
                await check_ledgers(store, [writer])
        finally:
            postgres.drop(schema)


async def test_a_standby_is_refused() -> None:
    postgres.server_to_break()
    standby = postgres.Server()
    try:
        standby.stop()
        (standby.data / "standby.signal").touch()
        standby.start()
        with pytest.raises(StoreReadOnlyError, match="standby"):
            async with open_store(standby.url):
                pass
    finally:
        standby.remove()
