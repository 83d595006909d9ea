"""A flip while eight processes store wallets without a pause, one of them stopped before it and continued after it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
import pytest

from lazymig import Activation, Actor, Node, Suite, action, open_store, rollout
from tests import postgres
from tests.processes import Line, Worker, writing
from tests.wallets import Wallets

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 8
ACTORS = 12
LOAD_SECONDS = 0.7
"""How long there is load before the flip, and after it, and while one is stopped after it."""

SQLITE_AUDIT = """
    CREATE TABLE audit (epoch INTEGER, is_old INTEGER);
    CREATE TRIGGER audit_put AFTER INSERT ON state BEGIN
        INSERT INTO audit SELECT epoch, instr(NEW.value, 'money') = 0 FROM policy;
    END;
    CREATE TRIGGER audit_change AFTER UPDATE ON state BEGIN
        INSERT INTO audit SELECT epoch, instr(NEW.value, 'money') = 0 FROM policy;
    END;
"""
"""Notes, within the transaction that stores a state, its shape and the write policy's epoch."""

POSTGRES_AUDIT = """
    CREATE TABLE lazymig.audit (epoch int8, is_old boolean);
    CREATE FUNCTION lazymig.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO lazymig.audit SELECT epoch, position('money'::bytea in NEW.value) = 0 FROM lazymig.policy;
        RETURN NEW;
    END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON lazymig.state FOR EACH ROW EXECUTE FUNCTION lazymig.note();
"""


class Wallet(Actor):
    """Counts what was paid in."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default={"name": "ann", "money": {"amount": 0, "currency": "EUR"}})

    @action
    async def pay(self) -> int:
        self.state.value["money"]["amount"] += 1
        await self.state.persist()
        amount: int = self.state.value["money"]["amount"]
        return amount


def make_suite() -> Suite:
    suite = Wallets().release("2.0.0")
    suite.actor_types["Wallet"].actor_class = Wallet
    return suite


async def serve(line: Line, url: str, number: int) -> None:
    """Pay into random wallets until told to stop; tell how often, and what failed."""
    rng = random.Random(number)
    async with open_store(url) as store, Node(store, [make_suite()], lease_seconds=20.0, idle_seconds=0.05) as node:
        line.tell("up")
        told = asyncio.create_task(line.hear())
        paid, failures = 0, []
        while not told.done():
            try:
                await node.call("Wallet", f"w{rng.randrange(ACTORS)}", "pay")
                paid += 1
            except Exception as error:
                failures.append(repr(error))
        line.tell((paid, failures))


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path | None]]:
    """Return a store's URL, and the file if it is one."""
    if request.param == "postgres":
        with postgres.schema_url() as url:
            yield url, None
    else:
        path = tmp_path / "fleet.db"
        yield f"sqlite:///{path}", path


def look(url: str, path: Path | None, statement: str) -> list[tuple[Any, ...]]:
    """Carry a statement out beside the library."""
    if path is not None:
        with writing(path) as connection:
            return connection.execute(statement).fetchall()
    with psycopg.connect(postgres.libpq_url(url), autocommit=True) as connection:
        cursor = connection.execute(statement.replace("lazymig.", f'"{postgres.schema_of(url)}".'))
        return cursor.fetchall() if cursor.description else []


STANDING = """
    SELECT 1 FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND clock_timestamp() - xact_start > interval '100 ms' AND wait_event = 'ClientRead'
"""
"""Who stands still in a transaction; what it has read of the policies is in the way of a change."""


async def stop_outside_of_transactions(worker: Worker, url: str, path: Path | None) -> None:
    """Stop a worker where it is in nobody's way."""
    while True:
        worker.stop(path)
        await asyncio.sleep(0 if path is not None else 0.2)
        if path is not None or not look(url, path, STANDING):
            return
        worker.resume()


async def test_not_one_state_is_stored_in_the_old_shape_once_a_flip_has_returned(
    shared: tuple[str, Path | None],
) -> None:
    url, path = shared
    async with open_store(url) as store:
        assert (await rollout.pin(store, "Wallet", "1.1.0")).allowed
        if path is None:
            look(url, path, POSTGRES_AUDIT)
        else:
            with closing(sqlite3.connect(path)) as connection:
                connection.executescript(SQLITE_AUDIT)
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(serve, url, number)) for number in range(WORKERS)]
            assert [await worker.hear() for worker in workers] == ["up"] * WORKERS
            await asyncio.sleep(LOAD_SECONDS)
            await stop_outside_of_transactions(workers[0], url, path)
            gate = await rollout.flip(store, "Wallet", "2.0.0")
            assert gate.allowed, gate.reasons
            await asyncio.sleep(LOAD_SECONDS)
            workers[0].resume()
            await asyncio.sleep(LOAD_SECONDS)
            for worker in workers:
                worker.tell("stop")
            told = [await worker.hear() for worker in workers]
            await asyncio.gather(*(worker.rest() for worker in workers))

        assert [failures for _, failures in told if failures] == []
        table = "audit" if path is not None else "lazymig.audit"
        shapes = look(url, path, f"SELECT epoch, is_old, COUNT(*) FROM {table} GROUP BY epoch, is_old ORDER BY 1, 2")
        assert [(epoch, bool(is_old)) for epoch, is_old, _ in shapes] == [(1, True), (2, False)]
        paid = 0
        for actor in await store.scan("Wallet"):
            paid += orjson.loads(actor.states["wallet"])["money"]["amount"]
        assert paid == sum(count for count, _ in told)
