"""Every store call of each scenario fails or is cut off, before and after it took effect; the nine rules hold then.

The rules are checks over what is read beside the library, see tests/rules.py; an id says which of them a scenario puts
to the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import pytest

from lazymig import errors, fleet
from lazymig.failures import Failures
from lazymig.memory import MemoryStore
from lazymig.postgres import open_postgres
from lazymig.sqlite import open_sqlite
from lazymig.store import Pulse, Store
from lazymig.testing import Fault, FaultyStore, ManualClock
from lazymig.transfer import _lines
from tests import beside, postgres, rules
from tests.fault_scenarios import SCENARIOS, Scenario, by_block, by_calls, legacy
from tests.scenarios import LEASE_SECONDS, NEW_SOFTWARE, Hands, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    from lazymig import Activation, Node
    from lazymig._bases import WritePolicy
    from lazymig._records import Commit

    Run = Callable[[World], Awaitable[None]]

KINDS = ["memory", "sqlite", "postgres"]
T = TypeVar("T")
How = Literal["error", "cancel", "interrupt"]
HOW: tuple[How, ...] = get_args(How)
CASES = [
    pytest.param(kind, how, marks=[pytest.mark.stress] if (kind, how) == ("postgres", "interrupt") else [])
    for kind in KINDS
    for how in HOW
    if (kind, how) != ("postgres", "cancel")
]
"""A call that is cut off is the same on every store; on PostgreSQL a task that is cancelled is enough."""
ALLOWED = (errors.LazymigError, asyncio.CancelledError)


def each(kind: str, calls: list[str], how: How, times: int = 1) -> Iterator[Fault]:
    """Yield the faults that strike each call, before and after it takes effect."""
    for number in range(len(calls)):
        if kind != "memory" or how != "interrupt":  # a call that never waits is interrupted only after it
            yield Fault(number, "before", how, times)
        yield Fault(number, "after", how, times)


class Uncut:
    """Passes every operation on to a store; notes those that a cancellation cut off in the midst."""

    def __init__(self, store: Store, cut_off: list[str]) -> None:
        self._store = store
        self._cut_off = cut_off

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)
        if name == "failures":
            return Uncut(operation, self._cut_off)
        return partial(self._pass, name, operation) if asyncio.iscoroutinefunction(operation) else operation

    async def _pass(self, name: str, operation: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        try:
            return await operation(*args, **kwargs)
        except asyncio.CancelledError:
            self._cut_off.append(name)
            raise


MAY_BE_CUT_OFF = {"read", "scan", "census", "types", "insert", "nodes", "page", "retry"}
"""What is done without a lock. Of all else the end is awaited: what it does comes before whatever follows."""


class Bench:
    """A store, and worlds in it: each has an actor type of its own, so that one file serves them all."""

    def __init__(self, store: Store, clock: ManualClock, read: Callable[[str], beside.Reading]) -> None:
        self.store = store
        self.clock = clock
        self._read = read
        self._worlds = 0
        self.cut_off: list[str] = []

    def world(self, fault: Fault | None = None) -> World:
        self._worlds += 1
        kind = f"Account{self._worlds}"
        self.cut_off.clear()
        faulty = FaultyStore(cast("Store", Uncut(self.store, self.cut_off)))

        def strikes() -> int:
            return 0 if fault is None else min(fault.times, max(0, len(faulty.calls) - fault.at))

        return World(faulty, self.store, partial(self._read, kind), self.clock, kind, strikes)

    async def attempt(self, scenario: Scenario, fault: Fault | None) -> tuple[list[str], dict[int, int]]:
        """Run a scenario under a fault, check the rules, recover, check them again; return its calls and the facts."""
        w = self.world(fault)
        await scenario.prepare(w)
        before = w.read()
        where = "" if fault is None else f"{fault.how} {fault.when} call {fault.at}"

        async def run() -> None:
            w.store.arm(fault, asyncio.current_task())
            await scenario.run(w)

        task = asyncio.create_task(run())
        await asyncio.wait([task])
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        calls, strikes = list(w.store.calls), w.strikes()
        where = f"{scenario.run.__name__}, {where}: {calls}"
        if error is not None and (fault is None or not isinstance(error, ALLOWED)):
            raise error
        assert w.store.has_struck is (fault is not None), where
        assert set(self.cut_off) <= MAY_BE_CUT_OFF, where
        after = w.read()
        facts = rules.check(rules.Evidence(before, after, w.journal, strikes, where))
        w.store.arm(None)
        self.clock.advance(LEASE_SECONDS)
        await self.recover(scenario, w, where)
        rules.check(rules.Evidence(after, w.read(), w.journal, strikes, f"{where}, recovered"))
        return calls, facts

    async def recover(self, scenario: Scenario, w: World, where: str) -> None:
        try:
            await scenario.recover(w)
        except errors.LazymigError as error:
            raise AssertionError(f"rule 8: nobody gets the actor any more: {error} [{where}]") from error


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Bench]:
    clock = ManualClock()
    if kind == "memory":
        store = MemoryStore(clock)
        yield Bench(store, clock, partial(beside.read_memory, store))
    elif kind == "postgres":
        unsynced = "-c synchronous_commit=off"  # no machine crashes here
        with postgres.schema_url(options=unsynced) as url, postgres.connect() as beside_it:
            async with open_postgres(postgres.place(url), clock=clock) as sql:
                yield Bench(sql, clock, partial(beside.rows_of_schema, beside_it, postgres.schema_of(url)))
    else:
        path = folder / "store.db"
        async with open_sqlite(path, synchronous="normal", clock=clock) as sql:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                yield Bench(sql, clock, partial(beside.rows, connection))


pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let imports and exports of a few actors take several calls."""
    monkeypatch.setattr(_lines, "MAX_BATCH_ACTORS", 2)
    monkeypatch.setattr(_lines, "_FIRST_PAGE", 1)


@pytest.mark.parametrize(("kind", "how"), CASES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
async def test_whatever_call_fails_the_rules_hold(kind: str, scenario: Scenario, how: How, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as bench:
        calls, _ = await bench.attempt(scenario, None)
        for fault in each(kind, calls, how):
            await bench.attempt(scenario, fault)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", [by_block, by_calls])
@pytest.mark.parametrize("how", HOW)
async def test_whatever_two_calls_in_a_row_fail_the_rules_hold(kind: str, run: Run, how: How, tmp_path: Path) -> None:
    """The settling of a commit fails as well, and so does the giving up of a lock."""
    scenario = Scenario(run, ())
    async with opened(kind, tmp_path) as bench:
        calls, _ = await bench.attempt(scenario, None)
        for fault in each(kind, calls, how, times=2):
            await bench.attempt(scenario, fault)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
async def test_a_scenario_puts_its_rules_to_the_test(scenario: Scenario, tmp_path: Path) -> None:
    async with opened("memory", tmp_path) as bench:
        _, facts = await bench.attempt(scenario, None)
    assert all(facts[number] for number in scenario.rules), facts


async def test_the_scenarios_strike_every_operation_of_a_store(tmp_path: Path) -> None:
    struck: set[str] = set()
    async with opened("memory", tmp_path) as bench:
        for scenario in SCENARIOS:
            calls, _ = await bench.attempt(scenario, None)
            struck |= set(calls)
    pulse = {"open_pulse", "beat"}  # see test_whatever_heartbeat_fails_the_node_lives_on
    of_operators = {"nodes", "drain", "forget"}  # one statement each, tried by hand and by the clock
    of_tables = {"entries", "count_entries", "tables"}  # see tests/test_eager_faults.py
    of_rulings = {"rule", "stragglers", "entry_census", "policy"}
    of_restoring = {"previous"}  # see tests/test_restoring_faults.py
    of_others = of_operators | of_tables | of_rulings | of_restoring
    others = operations(Pulse) - {"close"} | {f"failures.{name}" for name in operations(Failures)}
    assert struck | pulse | of_others == operations(Store) | others


def operations(protocol: type) -> set[str]:
    return {name for name, found in vars(protocol).items() if callable(found) and not name.startswith("_")}


class LateStore(FaultyStore):
    """The call that fails before it takes effect takes effect after all: when so many others have begun."""

    def __init__(self, store: Store, others: int) -> None:
        super().__init__(store)
        self._inner = store
        self._others = others
        self._late: Commit | None = None

    async def commit(self, commit: Commit) -> int | WritePolicy:
        try:
            return await super().commit(commit)
        except errors.StoreUnavailableError:
            self._late = commit
            raise

    async def _pass(self, name: str, operation: Coroutine[Any, Any, T]) -> T:
        if self._late is not None:
            self._others -= 1
            if not self._others:
                late, self._late = self._late, None
                with contextlib.suppress(errors.LeaseLostError):
                    await self._inner.commit(late)
        return await super()._pass(name, operation)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_that_comes_late_is_counted_or_refused(kind: str, tmp_path: Path) -> None:
    """Its fence is void by the time that its outcome was settled (rule 3)."""
    async with opened(kind, tmp_path) as bench:
        calls = await retried(bench, None)
        for others in range(1, 5):
            for number in [number for number, name in enumerate(calls[1:-2]) if name == "commit"]:
                await retried(bench, Fault(number, "before", "error"), others)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["error", "cancel"])
async def test_a_caller_that_tries_again_stores_everything_once(kind: str, how: How, tmp_path: Path) -> None:
    """Storing the same again after an unknown outcome stores it once (rules 3 and 5): it is read, never guessed."""
    async with opened(kind, tmp_path) as bench:
        calls = await retried(bench, None)
        for times in (1, 2):
            settled: list[str] = []
            for fault in each(kind, calls[1:-2], how, times):  # from the claim to the last commit
                settled += await retried(bench, fault)
            assert "read" in settled


async def retried(bench: Bench, fault: Fault | None, late: int = 0) -> list[str]:
    """Do a block's work, each step until it succeeds; return the store's calls."""
    w = bench.world(fault)
    if late:
        w.store = LateStore(bench.store, late)
    await legacy(w)
    async with w.node(grace_seconds=0) as node:
        w.store.arm(fault)
        block, hands = await persistently(partial(entered, w, node))
        await persistently(hands.up)
        for _ in range(3):
            hands.take()
            await persistently(hands.store)
        calls = list(w.store.calls)
        assert w.store.has_struck is (fault is not None), calls
        w.store.arm(None)
        await block.__aexit__(None, None, None)
    found = w.read()[w.type, "a"]
    where = f"{fault}: {calls}"
    for turn in w.journal.turns:  # each was acknowledged in the end, at whatever try
        is_last = turn.kind != "chain" or (found.values or {})["main"]["log"][0] == turn.text
        turn.outcome = "acknowledged" if is_last else "lost"
    rules.check(rules.Evidence({}, w.read(), w.journal, 0, where))
    assert (found.revision, found.owner) == (5, None), where
    return ["register", *calls, "release", "unregister"] if fault is None else calls


async def entered(w: World, node: Node) -> tuple[AbstractAsyncContextManager[Activation], Hands]:
    block = node.activate(w.type, "a")
    return block, Hands(await block.__aenter__(), w.journal, NEW_SOFTWARE)


async def persistently(operation: Callable[[], Awaitable[T]]) -> T:
    for _ in range(3):
        try:
            return await operation()
        except (errors.StoreError, asyncio.CancelledError):
            continue
    return await operation()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", HOW)
async def test_a_lock_that_could_not_be_given_up_is_given_up_later(kind: str, how: How, tmp_path: Path) -> None:
    """The node lives on, so nobody takes its locks (rule 8): it must not forget one that it doesn't use."""
    async with opened(kind, tmp_path) as bench:
        for fault in each(kind, ["claim", "commit", "commit", "release"], how):
            w = bench.world(fault)
            await legacy(w)
            async with w.node() as node, w.node(is_sound=True) as other:

                async def visit(w: World = w, node: Node = node, fault: Fault = fault) -> None:
                    w.store.arm(fault, asyncio.current_task())
                    async with w.block(node) as hands:
                        await hands.up()
                        await hands.keep()

                await asyncio.gather(asyncio.create_task(visit()), return_exceptions=True)
                assert w.store.has_struck, fault
                w.store.arm(None)
                async with other.activate(w.type, "a", wait_seconds=2) as activation:
                    assert await activation.state().load() is not None
            rules.check(rules.Evidence({}, w.read(), w.journal, 1, str(fault)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_whatever_heartbeat_fails_the_node_lives_on(
    kind: str, when: Literal["before", "after"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its registration and its lock, and is heard of again (rule 8)."""
    monkeypatch.setattr(fleet, "BEATS_PER_LEASE", 10_000)  # one every 3 ms
    async with opened(kind, tmp_path) as bench:
        for number in range(4):  # open_pulse, and three beats
            w = bench.world()
            await legacy(w)
            beats = HeardStore(bench.store)
            w.store = beats
            beats.arm_pulse(Fault(number, when, "error"))
            async with w.node() as node:
                await w.add(node)
                before, lock = node.node_id, w.read()[w.type, "a"].number
                bench.clock.advance(LEASE_SECONDS)
                beats.hear()
                assert await asyncio.to_thread(beats.heard.wait, 5)
                assert beats.pulse_calls[:2] == (["open_pulse", "beat"] if number else ["open_pulse", "open_pulse"])
                await w.add(node)
                assert (node.node_id, w.read()[w.type, "a"].number) == (before, lock)
                async with w.node(is_sound=True) as other:
                    with pytest.raises(errors.ActorLockedError):
                        await w.add(other)
            rules.check(rules.Evidence({}, w.read(), w.journal, 0, f"heartbeat {number}"))


class HeardStore(FaultyStore):
    """Tells when heartbeats were sent beyond those that the fault may strike."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.heard = threading.Event()
        self.awaited = float("inf")

    def hear(self) -> None:
        """Wait for a heartbeat that is sent from now on, and lies beyond the fault."""
        self.awaited = max(len(self.pulse_calls), 4) + 2

    def open_pulse(self) -> Pulse:
        return HeardPulse(super().open_pulse(), self)


class HeardPulse:
    def __init__(self, pulse: Pulse, store: HeardStore) -> None:
        self._pulse = pulse
        self._store = store
        self.close = pulse.close

    def beat(self, node_id: str, active: int = 0) -> bool:
        is_known = self._pulse.beat(node_id, active)
        if len(self._store.pulse_calls) >= self._store.awaited:
            self._store.heard.set()
        return is_known
