"""Nodes of releases that fit what a store has seen, or don't, started on every store."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Activation, Actor, Node, Suite, _version, action, errors, hooks, open_store
from lazymig._records import AppliedSet
from lazymig._rulings import AskSeen, AskType, Ruled
from lazymig.codec import encode
from lazymig.testing import release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from lazymig import ActorType
    from lazymig._rulings import Ruling, Seen
    from lazymig.store import Store

ALL = ("1.0.0", "1.0.1", "1.1.0", "2.0.0")
RELEASED = ("1.0.0", "1.1.0")


class Car(Actor):
    """Has a list of what ran on it."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()
        self.log = activation.table("log")

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=[])
        if not self.state.exists:
            await self.state.persist()

    @action
    async def ran(self) -> list[str]:
        ran: list[str] = self.state.value
        return ran

    @action
    async def write(self, key: str) -> None:
        await self.log.put(key, "text")
        await self.state.persist()


def fleet(*versions: str, late: Sequence[str] = (), name: str = "Car", down: bool = True, **options: Any) -> Suite:
    """Make a suite of cars with these migrations, each of which notes that it ran."""
    suite = Suite("fleet")
    made = suite.actor_type(name, Car, **options)
    for version in versions:
        _add(made, version, late=version in late, down=down)
    return suite


def _add(made: ActorType[Any], version: str, *, late: bool, down: bool) -> None:
    @made.migration(version, late=late)
    def step(state: list[str], context: Any) -> None:
        state.append(version)

    @step.entries("log")
    def convert(entry: Any, context: Any) -> Any:
        return entry

    if down:
        step.down(lambda state, context: state.remove(version))
        convert.down(lambda entry, context: entry)


def v(text: str) -> int:
    return _version.pack(_version.parse(text))


def serving(store: Store, suite: Suite, **options: Any) -> Node:
    return Node(store, [suite], **{"lease_seconds": 60.0, "hand_over_seconds": 0.2} | options)


async def start(store: Store, suite: Suite, *ids: str, **options: Any) -> dict[str, list[str]]:
    """Start a node, call actors on it, and stop it; return what ran on each."""
    async with serving(store, suite, **options) as node:
        return {one: await node.call("Car", one, "ran") for one in ids}


async def facts_of(store: Store, name: str = "Car") -> Seen:
    def asking() -> Ruling:
        facts: Seen = yield AskSeen(name)
        return Ruled(facts)

    facts: Seen = await store.rule(asking)
    return facts


async def pin(store: Store, version: str | None) -> None:
    def pinning() -> Ruling:
        yield AskType("Car")
        return Ruled(None, {"Car": None if version is None else v(version)})

    await store.rule(pinning, is_change=True)


@asynccontextmanager
async def nothing_recorded(store: Store, url: str) -> AsyncIterator[None]:
    """Make sure that the block records nothing: no node, no release, no write version, no file lock."""
    before, nodes = await facts_of(store), await store.nodes()
    folders = _lock_files(url)
    yield
    after = await facts_of(store)
    assert (after.policy, set(map(repr, after.releases))) == (before.policy, set(map(repr, before.releases)))
    assert [node.node_id for node in await store.nodes()] == [node.node_id for node in nodes]
    assert _lock_files(url) == folders


def _lock_files(url: str) -> set[Path]:
    if not url.startswith("sqlite:"):
        return set()
    database = Path(url.removeprefix("sqlite:///"))
    return {path for path in database.parent.rglob("*") if not path.name.startswith(database.name) or path.is_dir()}


# --- late migrations, and those that are gone --------------------------------------------------------------------


async def test_a_hotfix_below_what_was_seen_runs_once_on_every_actor_or_refuses_to_start(
    store: Store, url: str
) -> None:
    assert await start(store, fleet(*RELEASED), "a", "b") == {"a": [], "b": []}
    async with nothing_recorded(store, url):
        with pytest.raises(errors.LateMigrationError, match=r"Car has 1\.0\.1 new.*2 stored actors are") as caught:
            await start(store, fleet("1.0.0", "1.0.1", "1.1.0"))
    assert (caught.value.actor_type, caught.value.count, caught.value.key) == ("Car", 2, None)

    hotfix = fleet("1.0.0", "1.0.1", "1.1.0", late=["1.0.1"])
    assert await start(store, hotfix, "a", "c") == {"a": ["1.0.1"], "c": []}
    assert await start(store, fleet(*RELEASED), "a", "d") == {"a": ["1.0.1"], "d": []}  # its set was seen
    again = fleet("1.0.0", "1.0.1", "1.1.0", "1.2.0", late=["1.0.1"])
    assert await start(store, again, "a", "b", "c", "d") == {
        "a": ["1.0.1", "1.2.0"], "b": ["1.0.1", "1.2.0"], "c": ["1.2.0"], "d": ["1.0.1", "1.2.0"],
    }  # fmt: skip


async def test_a_hotfix_put_below_a_baseline_that_is_taken_back_refuses_to_start(store: Store, url: str) -> None:
    """Actors of before the baseline would refuse it, one by one."""
    await start(store, fleet(*RELEASED), "a")
    await start(store, fleet("2.0.0", baseline="1.1.0"), "b")
    hotfix = ("1.0.0", "1.0.1", "1.1.0", "2.0.0")
    async with nothing_recorded(store, url):
        with pytest.raises(errors.LateMigrationError, match=r"Car has 1\.0\.1 new.*1 stored actor is") as caught:
            await start(store, fleet(*hotfix))
    assert caught.value.count == 1
    assert await start(store, fleet(*hotfix, late=["1.0.1"]), "a", "b") == {"a": ["1.0.1", "2.0.0"], "b": []}


async def test_a_flag_that_comes_or_goes_runs_nothing_twice(store: Store) -> None:
    hotfix = ("1.0.0", "1.0.1", "1.1.0")
    await start(store, fleet(*hotfix), "a")

    assert await start(store, fleet(*hotfix, late=["1.0.1"]), "a") == {"a": []}
    assert await start(store, fleet(*hotfix), "a", "b") == {"a": [], "b": []}


async def test_a_release_that_drops_what_stored_data_needs_refuses_to_start(store: Store, url: str) -> None:
    await store.insert("Car", "state", [(f"old-{n}", encode([], "it")) for n in range(7)])
    await start(store, fleet(*RELEASED), "new")
    async with nothing_recorded(store, url):
        for suite in (fleet("1.1.0"), fleet("1.1.0", baseline="1.0.0"), fleet("1.1.0", "2.0.0", baseline="1.0.0")):
            with pytest.raises(errors.MissingMigrationError, match=r"Car has no migration 1\.0\.0") as caught:
                await start(store, suite)
            assert (caught.value.count, caught.value.actors) == (7, tuple(f"old-{n}" for n in range(5)))

    await start(store, fleet(*RELEASED), *(f"old-{n}" for n in range(7)))
    async with nothing_recorded(store, url):
        with pytest.raises(errors.MissingMigrationError, match="0 stored actors") as caught:
            await start(store, fleet("1.1.0"))
        assert (caught.value.count, caught.value.actors) == (0, ())
    assert await start(store, fleet("1.1.0", baseline="1.0.0"), "old-1") == {"old-1": ["1.0.0", "1.1.0"]}


async def test_a_release_that_drops_what_stored_entries_need_refuses_to_start(store: Store, url: str) -> None:
    async with serving(store, fleet("1.0.0")) as node:
        await node.call("Car", "a", "write", "k")
    await start(store, fleet(*RELEASED), "a", "b")

    async with nothing_recorded(store, url):
        with pytest.raises(errors.MissingMigrationError, match=r"1 stored actor with entries \('a'\) is below 1\.1\.0"):
            await start(store, fleet("2.0.0", baseline="1.1.0"))
    async with serving(store, fleet(*RELEASED)) as node:
        await node.call("Car", "a", "write", "k")
    await start(store, fleet("2.0.0", baseline="1.1.0"), "a")


async def test_two_starting_nodes_can_not_slip_past_each_other(url: str) -> None:
    """Each would skip the other's version for good on the actors that it makes."""
    async with open_store(url) as one, open_store(url) as two:
        other = one if url == "memory:" else two
        for number in range(5):
            name = f"Car{number}"
            nodes = serving(one, fleet("1.0.0", "1.1.0", name=name)), serving(other, fleet("1.0.0", "1.0.1", name=name))
            found = await asyncio.gather(*(node.__aenter__() for node in nodes), return_exceptions=True)
            refused = [one for one in found if not isinstance(one, Node)]
            assert [type(one) for one in refused] in (
                [errors.LateMigrationError],
                [errors.MissingMigrationError],
            )
            assert len((await facts_of(one, name)).releases) == 1
            for node in found:
                if isinstance(node, Node):
                    await node.__aexit__(None, None, None)


async def test_a_pod_of_the_old_release_restarts_in_the_middle_of_a_deploy(store: Store) -> None:
    old, hotfix = fleet(*RELEASED), fleet("1.0.0", "1.0.1", "1.1.0", late=["1.0.1"])
    async with serving(store, old), serving(store, hotfix), serving(store, fleet(*ALL, late=["1.0.1"])) as newest:
        await newest.call("Car", "a", "ran")
        for suite in (old, hotfix, old):
            async with serving(store, suite) as restarted:
                await restarted.call("Car", "b", "ran")
    assert {of.applied for of in (await facts_of(store)).releases} == {
        AppliedSet(map(v, versions)) for versions in (RELEASED, ("1.0.0", "1.0.1", "1.1.0"), ALL)
    }


async def test_a_stamp_that_can_not_be_read_hinders_only_a_release_that_asks_what_actors_have(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        await start(store, fleet(*RELEASED), "a")
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
            connection.execute("UPDATE actor SET lineage = 99")
        await start(store, fleet(*RELEASED))
        async with nothing_recorded(store, url):
            with pytest.raises(errors.CorruptStateError, match="lineage 99"):
                await start(store, fleet("1.0.0", "1.0.1", "1.1.0"))
        await start(store, fleet(*RELEASED, "1.2.0"))


async def test_what_a_node_registers_is_recorded_once_with_the_build_that_last_said_it(store: Store) -> None:
    suite = fleet("1.1.0", baseline="1.0.0")
    for build in ("one", "two", None):
        await start(store, suite, build=build)
        (recorded,) = (await facts_of(store)).releases
        assert (recorded.applied, recorded.build) == (AppliedSet([v("1.1.0")], v("1.0.0")), build or "two")
        assert recorded.checksums == suite.actor_types["Car"].chain.checksums
    assert recorded.seen_at.utcoffset() is not None
    await start(store, Suite("none"))
    assert (await facts_of(store, "Bus")).releases == []


async def test_a_client_is_asked_nothing(store: Store) -> None:
    await start(store, fleet(*ALL))
    async with Node(store):
        pass


# --- checksums ---------------------------------------------------------------------------------------------------


def changed(version: str = "1.1.0") -> Suite:
    """Make the release of `RELEASED`, another function in the place of one."""
    suite = Suite("fleet")
    car = suite.actor_type("Car", Car)
    for number in RELEASED:
        if number != version:
            _add(car, number, late=False, down=True)
        else:
            car.migration(number)(step)
    return suite


def step(state: Any, context: Any) -> None:
    state.append("it was mended")


async def test_a_changed_migration_is_told_after_the_node_has_started(store: Store) -> None:
    events: list[hooks.Event] = []
    await start(store, fleet(*RELEASED))
    await start(store, fleet(*RELEASED), hooks=[events.append])
    assert not any(isinstance(event, hooks.MigrationChanged) for event in events)

    events.clear()
    async with serving(store, changed(), hooks=[events.append]) as node:
        assert events == [
            hooks.NodeStarted(node.node_id, node.label, None),
            hooks.MigrationChanged(node.node_id, "Car", _version.parse("1.1.0"), "step"),
        ]
        assert events[1].level == hooks.StateRefused.level
        node._membership.expire()
        await node.call("Car", "a", "ran")  # registered anew, its own code was seen last
    assert sum(isinstance(event, hooks.MigrationChanged) for event in events) == 1
    await start(store, fleet(*RELEASED), hooks=[events.append])
    assert sum(isinstance(event, hooks.MigrationChanged) for event in events) == 2


# --- the write version -------------------------------------------------------------------------------------------


async def test_a_first_write_version_is_set_by_the_first_node_that_has_one(store: Store) -> None:
    await start(store, fleet("1.0.0"))
    assert (await facts_of(store)).policy == (None, 0)

    await start(store, fleet("1.0.0", "2.0.0", write_version="1.0.0"))
    assert (await facts_of(store)).policy == (v("1.0.0"), 1)
    await start(store, fleet("1.0.0", "2.0.0", write_version="2.0.0"))
    await start(store, fleet("1.0.0", "2.0.0", write_version="0.0.0"))
    assert (await facts_of(store)).policy == (v("1.0.0"), 1)


async def test_a_type_without_a_write_version_any_more_is_left_alone(store: Store) -> None:
    await pin(store, None)
    await start(store, fleet("1.0.0", "2.0.0", write_version="1.0.0"))
    assert (await facts_of(store)).policy == (None, 1)


async def test_a_first_write_version_that_a_node_can_not_store_is_refused(store: Store, url: str) -> None:
    async with serving(store, fleet("1.0.0", "2.0.0", down=False)) as unable:
        async with nothing_recorded(store, url):
            with pytest.raises(errors.WriteVersionError, match=r"2\.0\.0 \(step\) has no down") as caught:
                await start(store, fleet("1.0.0", "2.0.0", write_version="1.0.0"))
        assert caught.value.nodes == (unable.node_id,)
    async with nothing_recorded(store, url):
        with pytest.raises(errors.WriteVersionError) as caught:
            await start(store, fleet("1.0.0", "2.0.0", down=False, write_version="1.0.0"))
    assert caught.value.nodes == ()
    await start(store, fleet("1.0.0", "2.0.0", write_version="1.0.0"))


@pytest.mark.parametrize(
    ("suite", "reason"),
    [
        (lambda: fleet("1.0.0", "2.0.0", "3.0.0"), "more than one major version above"),
        (lambda: fleet("1.0.0", "1.1.0", down=False), r"1\.1\.0 \(step\) has no down, .*'log'"),
    ],
)
async def test_a_node_that_can_not_store_the_write_version_does_not_start(
    store: Store, url: str, suite: Callable[[], Suite], reason: str
) -> None:
    await start(store, suite())
    await pin(store, "1.0.0")

    async with nothing_recorded(store, url):
        with pytest.raises(errors.WriteVersionError, match=reason):
            await start(store, suite())
    await start(store, fleet("1.0.0"))
    await pin(store, None)
    await start(store, suite())


async def test_a_node_below_the_write_version_starts(store: Store) -> None:
    await pin(store, "2.0.0")
    low, high = fleet("1.0.0", down=False), fleet("1.0.0", "2.0.0", down=False)
    async with serving(store, low, label="low"), serving(store, high, label="more"):
        assert [node.offers[0].registered.highest for node in await store.nodes()] == [v("1.0.0"), v("2.0.0")]


async def test_a_node_that_may_not_register_anew_says_why_and_comes_back(store: Store) -> None:
    async with serving(store, fleet("1.0.0", "2.0.0", down=False)) as node:
        await node.call("Car", "a", "ran")
        await store.forget(node.node_id)
        await pin(store, "1.0.0")
        node._membership.expire()
        with pytest.raises(errors.WriteVersionError):
            await node.call("Car", "b", "ran")
        node._residents._wake.set()
        await asyncio.sleep(0)
        await pin(store, None)
        assert await node.call("Car", "a", "ran") == []
        assert all(not task.done() for task in node._tasks)


async def test_a_write_version_above_what_is_supported_is_no_release(store: Store, url: str) -> None:
    async with nothing_recorded(store, url):
        with pytest.raises(errors.DefinitionError, match=r"Car has write_version='2\.0\.0', but supports 1\.0\.0 only"):
            await start(store, fleet("1.0.0", write_version="2.0.0"))


def test_an_older_release_of_a_suite_has_the_write_version_that_it_supports() -> None:
    suite = fleet(*ALL, write_version="1.1.0")
    copies = {upto: release(suite, upto).actor_types["Car"] for upto in ("1.0.1", "1.1.0", "1.5.0", "2.0.0")}

    one = _version.parse("1.1.0")
    assert {upto: made.write_version for upto, made in copies.items()} == {
        "1.0.1": None, "1.1.0": one, "1.5.0": one, "2.0.0": one,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong", ["1.0", "v1.0.0", "1.0.0-rc.1", "", "1,0,0", "latest", 1, True, 1.0, ("1.0.0",), b"1.0.0"]
)
def test_a_write_version_that_is_no_version_is_named(wrong: Any) -> None:
    with pytest.raises(errors.DefinitionError) as caught:
        Suite("fleet").actor_type("Car", write_version=wrong)
    assert repr(wrong) in str(caught.value)
    assert "write_version= of Car" in str(caught.value)
