"""What an activation costs, in exact counts: trips, durable commits, tasks, readings and writings of JSON."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from semver import Version

from lazymig import Activation, Actor, Node, Suite, action, open_store
from lazymig._residents import LET_GO_TOGETHER
from lazymig._sql_operations import last
from tests import postgres
from tests.test_node import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lazymig._sql_operations import Operation
    from lazymig.store import Store

CARS = Suite("cars")


class Car(Actor):
    """Counts."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Load."""
        await self.state.migrate_and_load(default={"n": 0})

    @action
    async def add(self) -> None:
        """Count up and store."""
        self.state.value["n"] += 1
        await self.state.persist()

    @action
    async def read(self) -> int:
        """Return the count."""
        return int(self.state.value["n"])


car = CARS.actor_type("Car", Car)


@car.migration("1.0.0")
def one(state: dict[str, Any], context: object) -> None:
    """A field."""
    state["one"] = True


@car.migration("1.1.0")
def two(state: dict[str, Any], context: object) -> None:
    """Another one."""
    state["two"] = True


@car.migration("1.2.0")
async def three(state: dict[str, Any], context: object) -> None:
    """A third one."""
    state["three"] = True


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "sqlite":
        async with open_store(f"sqlite:///{tmp_path}/fleet.db") as opened:
            yield opened
    else:
        with postgres.schema_url() as url:
            async with open_store(url) as opened:
                yield opened


@pytest.fixture
async def node(store: Store) -> AsyncIterator[Node]:
    """Return a node that knows the applied sets, without housekeeping in the way."""
    async with calm(store) as running:
        await running.call("Car", "known", "add")
        yield running


def calm(store: Store, **options: Any) -> Node:
    return Node(store, [CARS], **{"lease_seconds": 1_000, "idle_seconds": 1_000, "hand_over_seconds": 0} | options)


class Meter:
    """Counts a store's trips and durable commits since it was last read."""

    def __init__(self, store: Store) -> None:
        self._connection: Any = store._connection  # type: ignore[attr-defined]  # of a SQL store
        self._before = self._now()

    def _now(self) -> tuple[int, int]:
        return self._connection.trips, self._connection.commits

    def read(self) -> tuple[int, int]:
        now, before = self._now(), self._before
        self._before = now
        return now[0] - before[0], now[1] - before[1]


# --- trips and commits -----------------------------------------------------------------------------------------------


async def test_a_call_costs_one_trip_to_activate_and_one_to_store(store: Store, node: Node) -> None:
    await store.insert("Car", "state", [("a", b'{"n":1}')])
    meter = Meter(store)
    assert await node.call("Car", "a", "read") == 1
    assert meter.read() == (2, 1), "three pending"
    assert await node.call("Car", "a", "read") == 1
    assert meter.read() == (0, 0), "active"
    await node.call("Car", "a", "add")
    assert meter.read() == (1, 1), "a warm persist"
    await node._residents.give_all_up()
    meter.read()
    assert await node.call("Car", "a", "read") == 2
    assert meter.read() == (1, 0), "cold"


async def test_a_block_costs_no_more_than_its_parts(store: Store, node: Node) -> None:
    await store.insert("Car", "state", [("a", b"{}")])
    meter = Meter(store)
    async with node.activate("Car", "a") as activation:
        await activation.state().migrate_and_load()
        assert meter.read() == (2, 1), "three pending"
        await activation.persist()
        await activation.state().persist()
        assert meter.read() == (0, 0), "unchanged persists"
        activation.state().value["n"] = 1
        await activation.persist()
        assert meter.read() == (1, 1), "a changed persist"
    assert meter.read() == (1, 0), "a release of its own"
    async with node.activate("Car", "a") as activation:
        await activation.state().migrate_and_load()
        assert meter.read() == (1, 0), "nothing pending"
        activation.state().value["n"] = 2
        activation.state("other")
        await activation.persist(release=True)
        assert meter.read() == (1, 1), "a persist that releases"
    assert meter.read() == (0, 0), "released already"
    async with calm(store) as other:
        meter.read()
        async with other.activate("Car", "a") as activation:
            await activation.state().load()
            assert meter.read() == (1, 0), "the lock was free"
            await activation.persist(release=True)
            assert meter.read() == (1, 0), "an unchanged persist that releases"


async def test_several_states_and_their_stamp_are_one_commit(store: Store, node: Node) -> None:
    async with node.activate("Car", "a") as activation:
        for name in (None, "second", "third"):
            await activation.state(name).migrate_and_load(default={"n": 1})
        meter = Meter(store)
        await activation.persist()
        assert meter.read() == (1, 1)


async def test_idle_actors_give_their_locks_up_together(store: Store) -> None:
    number = LET_GO_TOGETHER + 1
    async with calm(store) as node:
        await asyncio.gather(*(node.call("Car", str(each), "read") for each in range(number)))
        assert node._residents.active == number
        meter = Meter(store)
        node._residents._idle_seconds = 0.01
        node._residents._wake.set()
        await until(lambda: not node._residents._mailboxes)
        trips, commits = meter.read()
        assert commits == 0
        assert 1 <= trips <= 4, "some may have been idle for too short a time at first"
        async with calm(store) as other:
            assert await other.call("Car", "0", "read") == 0


@pytest.mark.parametrize("is_stored", [False, True])
async def test_an_actor_that_was_only_locked_leaves_no_row(store: Store, node: Node, *, is_stored: bool) -> None:
    connection: Any = store._connection  # type: ignore[attr-defined]  # of a SQL store
    place = getattr(connection, "_place", None)

    def count() -> Operation[Any]:
        table = "actor" if place is None else f"{place.schema}.actor"
        (rows,) = yield last((f"SELECT count(*) FROM {table} WHERE id = 'a'", {}))
        return rows[0][0]

    async with node.activate("Car", "a") as activation:
        assert await connection.run(count, writes=False) == 1
        await activation.state().load()
        if is_stored:
            await activation.state().migrate_and_load(default={"n": 1})
            await activation.persist()
    assert await connection.run(count, writes=False) == is_stored


# --- nothing repeated, nothing for nobody ----------------------------------------------------------------------------


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[Any]]:
    """Note the arguments of a function's calls."""
    calls: list[Any] = []
    function = getattr(owner, name)

    def note(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, note)
        yield calls


@asynccontextmanager
async def tasks_counted() -> AsyncIterator[list[Any]]:
    """Note the tasks that are made."""
    made: list[Any] = []
    loop = asyncio.get_running_loop()

    def make(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(None)


@pytest.fixture
async def at_memory() -> AsyncIterator[Node]:
    async with open_store("memory:") as opened, calm(opened) as node:
        await opened.insert("Car", "state", [("a", b'{"n":1}')])
        yield node


async def test_no_task_is_made_to_activate_call_and_leave(at_memory: Node) -> None:
    async with tasks_counted() as made:
        assert await at_memory.call("Car", "a", "read") == 1
    assert [coroutine.__qualname__ for coroutine in made] == ["Migrating._run"], "an async migration"
    await at_memory._residents.give_all_up()
    async with tasks_counted() as made:
        assert await at_memory.call("Car", "a", "read") == 1
        await at_memory.call("Car", "a", "add")
        async with at_memory.activate("Car", "b") as activation:
            await activation.state().migrate_and_load(default={})
            await activation.persist(release=True)
    assert made == []


async def test_versions_are_parsed_when_they_are_registered_and_never_again(
    at_memory: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch, Version, "parse") as parsed:
        assert await at_memory.call("Car", "a", "read") == 1
        await at_memory.call("Car", "a", "add")
    assert parsed == []


async def test_a_state_is_read_and_written_once(at_memory: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way has its check beside it: what was read is written, what was written is read (see `codec`)."""
    await at_memory.call("Car", "a", "read")
    await at_memory._residents.give_all_up()
    with counted(monkeypatch, orjson, "loads") as loads, counted(monkeypatch, orjson, "dumps") as dumps:
        async with at_memory.activate("Car", "a") as activation:
            value = await activation.state().migrate_and_load()
            assert value is not None
            assert (len(loads), len(dumps)) == (1, 1)
            value["n"] += 1
            await activation.persist()
            assert (len(loads), len(dumps)) == (2, 2)


async def test_without_hooks_no_event_is_made(at_memory: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for room, names in {
        "_telling": ("Activated", "MigrationApplied"),
        "_residents": ("Deactivated", "NodeStarted"),
        "_blocks": ("Deactivated",),
    }.items():
        for name in names:
            monkeypatch.setattr(f"lazymig.{room}.{name}", None)  # which can't be called
    assert await at_memory.call("Car", "a", "read") == 1
    async with at_memory.activate("Car", "a") as activation:
        await activation.state().migrate_and_load()


async def test_a_change_that_is_taken_back_is_not_stored(at_memory: Node) -> None:
    async with at_memory.activate("Car", "a") as activation:
        value: Any = await activation.state().migrate_and_load()
        before = await at_memory.inspect("Car", "a")
        value["n"] = 7
        value["n"] = 1
        await activation.persist()
        assert before is not None
        assert await at_memory.inspect("Car", "a") == before
