"""The store through PgBouncer in transaction mode: each transaction may get another connection to the server."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store
from lazymig._records import NodeRecord
from lazymig.errors import StoreReadOnlyError
from lazymig.postgres import open_postgres
from lazymig.testing.entry_suite import EntrySuite
from lazymig.testing.store_suite import KEY, StoreSuite, increment
from tests import postgres
from tests.pgbouncer import pgbouncer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lazymig.store import Store
    from lazymig.testing import ManualClock


pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines


@pytest.fixture(scope="module", autouse=True)
def pooler() -> Iterator[str]:
    with pgbouncer() as url:
        BehindPgBouncer.url = url
        yield url


@asynccontextmanager
async def open_behind(url: str, clock: ManualClock) -> AsyncIterator[Store]:
    schema = postgres.draw_schema()
    try:
        async with open_postgres(postgres.place(f"{url}?schema={schema}"), clock=clock) as store:
            yield store
    finally:
        postgres.drop(schema)


class BehindPgBouncer:
    url = ""

    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_behind(self.url, clock)


class TestStoreBehindPgBouncer(BehindPgBouncer, StoreSuite):
    pass


class TestEntriesBehindPgBouncer(BehindPgBouncer, EntrySuite):
    pass


async def test_increments_of_many_processes_are_never_lost(pooler: str) -> None:
    schema = postgres.draw_schema()
    try:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(open_store(f"{pooler}?schema={schema}&pool=2")) for _ in range(6)]
            for number, store in enumerate(stores):
                await store.register(NodeRecord(f"n{number}", "", None, 60.0))
            await asyncio.gather(*(increment(store, f"n{number}") for number, store in enumerate(stores)))

            found = await stores[0].read(KEY)
            assert found is not None
            assert (found.states["count"], found.revision) == (b"60", 60)
    finally:
        postgres.drop(schema)


async def test_who_only_reads_leaves_the_connections_of_others_able_to_write(pooler: str) -> None:
    schema = postgres.draw_schema()
    url = f"{pooler}?schema={schema}&pool=2"
    try:
        async with open_store(url) as store, open_store(url, read_only=True) as reader:
            for number in range(20):
                await store.insert("Car", "main", [(f"c{number:02}", b"1")])
                assert len(await reader.scan("Car")) == number + 1
                with pytest.raises(StoreReadOnlyError):
                    await reader.insert("Car", "main", [("other", b"1")])
    finally:
        postgres.drop(schema)
