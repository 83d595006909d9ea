from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from lazymig.memory import MemoryStore
from lazymig.postgres import open_postgres
from lazymig.sqlite import open_sqlite
from lazymig.testing.base_suite import BaseSuite
from lazymig.testing.copy_suite import CopySuite
from lazymig.testing.entry_suite import EntrySuite
from lazymig.testing.failure_suite import FailureSuite
from lazymig.testing.fleet_suite import FleetSuite
from lazymig.testing.policy_suite import PolicySuite
from lazymig.testing.previous_suite import PreviousSuite
from lazymig.testing.ruling_suite import RulingSuite
from lazymig.testing.store_machine import machine
from lazymig.testing.store_suite import StoreSuite
from lazymig.testing.sweep_suite import SweepSuite
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lazymig.store import Store
    from lazymig.testing import ManualClock


@asynccontextmanager
async def open_memory(clock: ManualClock) -> AsyncIterator[Store]:
    store = MemoryStore(clock)
    try:
        yield store
    finally:
        await store.shut()


class Memory:
    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_memory(clock)


class TestMemoryStore(Memory, StoreSuite):
    pass


class TestMemoryEntries(Memory, EntrySuite):
    pass


class TestMemoryFleet(Memory, FleetSuite):
    pass


class TestMemoryPolicies(Memory, PolicySuite):
    pass


class TestMemoryBases(Memory, BaseSuite):
    pass


class TestMemoryPrevious(Memory, PreviousSuite):
    pass


class TestMemorySweeps(Memory, SweepSuite):
    pass


class TestMemoryFailures(Memory, FailureSuite):
    pass


class TestMemoryRulings(Memory, RulingSuite):
    pass


class TestMemoryCopies(Memory, CopySuite):
    pass


class SQLite:
    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_sqlite(folder / "store.db", clock=clock)


class TestSQLiteStore(SQLite, StoreSuite):
    pass


class TestSQLiteEntries(SQLite, EntrySuite):
    pass


class TestSQLiteFleet(SQLite, FleetSuite):
    pass


class TestSQLitePolicies(SQLite, PolicySuite):
    pass


class TestSQLiteBases(SQLite, BaseSuite):
    pass


class TestSQLitePrevious(SQLite, PreviousSuite):
    pass


class TestSQLiteSweeps(SQLite, SweepSuite):
    pass


class TestSQLiteFailures(SQLite, FailureSuite):
    pass


class TestSQLiteRulings(SQLite, RulingSuite):
    pass


class TestSQLiteCopies(SQLite, CopySuite):
    pass


class SQLiteWithoutSync:
    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_sqlite(folder / "store.db", synchronous="normal", clock=clock)


class TestSQLiteStoreWithoutSync(SQLiteWithoutSync, StoreSuite):
    pass


@pytest.mark.stress
class TestSQLiteEntriesWithoutSync(SQLiteWithoutSync, EntrySuite):
    pass


@pytest.mark.stress
class TestSQLiteWithoutSyncPolicies(SQLiteWithoutSync, PolicySuite):
    pass


@pytest.mark.stress
class TestSQLiteWithoutSyncBases(SQLiteWithoutSync, BaseSuite):
    pass


@pytest.mark.stress
class TestSQLiteWithoutSyncPrevious(SQLiteWithoutSync, PreviousSuite):
    pass


@pytest.mark.stress
class TestSQLiteWithoutSyncSweeps(SQLiteWithoutSync, SweepSuite):
    pass


@pytest.mark.stress
class TestSQLiteWithoutSyncFailures(SQLiteWithoutSync, FailureSuite):
    pass


@pytest.mark.stress
class TestSQLiteWithoutSyncRulings(SQLiteWithoutSync, RulingSuite):
    pass


class InlineSQLite:
    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_sqlite(folder / "store.db", clock=clock, inline=True)


class TestInlineSQLiteStore(InlineSQLite, StoreSuite):
    pass


class TestInlineSQLiteEntries(InlineSQLite, EntrySuite):
    pass


class TestInlineSQLitePolicies(InlineSQLite, PolicySuite):
    pass


class TestInlineSQLiteBases(InlineSQLite, BaseSuite):
    pass


class TestInlineSQLitePrevious(InlineSQLite, PreviousSuite):
    pass


class TestInlineSQLiteSweeps(InlineSQLite, SweepSuite):
    pass


class TestInlineSQLiteFailures(InlineSQLite, FailureSuite):
    pass


class TestInlineSQLiteRulings(InlineSQLite, RulingSuite):
    pass


class TestInlineSQLiteCopies(InlineSQLite, CopySuite):
    pass


@asynccontextmanager
async def open_postgres_in(folder: Path, clock: ManualClock, **options: object) -> AsyncIterator[Store]:
    with postgres.schema_url() as url:
        async with open_postgres(postgres.place(url, **options), clock=clock) as store:
            yield store


class Postgres:
    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_postgres_in(folder, clock)


class TestPostgresStore(Postgres, StoreSuite):
    pass


class TestPostgresEntries(Postgres, EntrySuite):
    pass


class TestPostgresFleet(Postgres, FleetSuite):
    pass


class TestPostgresPolicies(Postgres, PolicySuite):
    pass


class TestPostgresBases(Postgres, BaseSuite):
    pass


class TestPostgresPrevious(Postgres, PreviousSuite):
    pass


class TestPostgresSweeps(Postgres, SweepSuite):
    pass


class TestPostgresFailures(Postgres, FailureSuite):
    pass


class TestPostgresRulings(Postgres, RulingSuite):
    pass


class TestPostgresCopies(Postgres, CopySuite):
    pass


class PartitionedPostgres:
    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
        return open_postgres_in(folder, clock, partitions=3)


class TestPartitionedPostgresStore(PartitionedPostgres, StoreSuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresEntries(PartitionedPostgres, EntrySuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresPolicies(PartitionedPostgres, PolicySuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresBases(PartitionedPostgres, BaseSuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresPrevious(PartitionedPostgres, PreviousSuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresSweeps(PartitionedPostgres, SweepSuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresFailures(PartitionedPostgres, FailureSuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresRulings(PartitionedPostgres, RulingSuite):
    pass


@pytest.mark.stress
class TestPartitionedPostgresCopies(PartitionedPostgres, CopySuite):
    pass


def open_sqlite_in(folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:
    return open_sqlite(folder / "store.db", clock=clock)


TestSQLiteMachine = machine(open_sqlite_in).TestCase
TestSQLiteMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestPostgresMachine = machine(open_postgres_in).TestCase
TestPostgresMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
