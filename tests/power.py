"""The store's own code on a recorded disk: two days of a small fleet.

`record` runs nodes over `SqlStore`, its dialect, its layout and its policy of syncing, on an apsw connection; it notes
what the database held after each transaction, and what was acknowledged to the callers of the nodes.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import apsw

from lazymig import Activation, Actor, Node, Suite, action
from lazymig._sql import SqlStore
from lazymig._sql_failures import SqlFailures
from lazymig._sql_operations import last
from lazymig._sql_post import SqlPost
from lazymig._sqlite_copy_sql import copy_dialect
from lazymig._sqlite_drivers import drive, steps
from lazymig._sqlite_errors import translating
from lazymig._sqlite_failure_sql import FAILURE_DIALECT
from lazymig._sqlite_opening import lay_out
from lazymig._sqlite_post_sql import POST_DIALECT
from lazymig._sqlite_ruling_sql import RULING_DIALECT
from lazymig._sqlite_sql import DIALECT
from lazymig.errors import StoreUnavailableError
from lazymig.sqlite import Syncing
from lazymig.testing import ManualClock, release
from tests import beside
from tests.disk import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig._sql_operations import Operation
    from lazymig._sqlite_drivers import Steps
    from tests.beside import Row
    from tests.disk import Entry

T = TypeVar("T")

IDS = [f"car-{number}" for number in range(5)]

CHECKPOINT_PAGES = 12
"""So few that checkpoints and restarts of the log fall between almost any two commits."""

# --- the suite: every commit counts n up in all states at once, a migration leaves its mark in all of them ------------

suite = Suite("power")


class Car(Actor):
    """Counts in three states."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    async def activate(self) -> None:
        await load(self.activation)

    @action
    async def count(self, padding: int) -> int:
        return await count_up(self.activation, padding)


car = suite.actor_type("Car", Car, state="main", context_factory=lambda activation: activation)
EMPTY = {"mark": "0.0.0", "n": 0}
SIDES = ("log", "side")


async def load(activation: Activation) -> None:
    """Bring an actor up and load its three states; one that was cleared starts from the main state's count."""
    main = await activation.state().migrate_and_load(default=EMPTY | {"mark": str(car.supported)})
    for name in SIDES:
        await activation.state(name).migrate_and_load(default={"mark": main["mark"], "n": main["n"]})


async def count_up(activation: Activation, padding: int, *, release: bool = False) -> int:
    for name in ("main", *SIDES):
        value = activation.state(name).value
        value["n"] += 1
        value["padding"] = "x" * (padding if name == "log" else padding % 700)
    await activation.persist(release=release)
    n: int = activation.state().value["n"]
    return n


async def mark_all(main: Any, activation: Activation, mark: str) -> None:
    main |= {"mark": mark, "n": main["n"] + 1}
    for name in SIDES:
        state = activation.state(name)
        value = await state.migrate_and_load(default={})
        value |= {"mark": mark, "n": main["n"]}


@car.migration("1.0.0")
async def to_1_0(main: Any, activation: Activation) -> None:
    await mark_all(main, activation, "1.0.0")


@car.migration("1.1.0")
async def to_1_1(main: Any, activation: Activation) -> None:
    await mark_all(main, activation, "1.1.0")


@car.migration("2.0.0")
async def to_2_0(main: Any, activation: Activation) -> None:
    await mark_all(main, activation, "2.0.0")


# --- recording -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A transaction: where in the log it began and ended, and what the database held then."""

    began: int
    ended: int
    is_durable: bool
    digest: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a caller was told is stored: since where in the log, of which actor, how far it is."""

    position: int
    actor_id: str
    progress: tuple[int, bool]


@dataclass(slots=True)
class Recording:
    """Everything that is known of one run."""

    log: list[Entry]
    moments: list[Moment] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    indices: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))

    def note(self, began: int, found: dict[str, Row] | None, *, is_durable: bool) -> None:
        """Note that a transaction ended."""
        moment = Moment(began, len(self.log), is_durable, digest(found))
        self.indices[moment.digest].append(len(self.moments))
        self.moments.append(moment)

    def acknowledge(self, actor_id: str, n: int, *, cleared: bool = False) -> None:
        """Note that a caller was told."""
        self.acknowledged.append(Acknowledged(len(self.log), actor_id, (n, cleared)))


Policy: TypeAlias = "Callable[[Callable[[], None]], Syncing]"
"""Makes a policy of syncing, given the way to rewrite the log."""


class NeverSyncing(Syncing):
    """A policy that promises nothing: what SQLite may lose by it the checks must find."""

    def steps(
        self, operation: Callable[[], Operation[T]], connection: sqlite3.Connection, *, writes: bool, durable: bool
    ) -> Steps[T]:
        connection.execute("PRAGMA synchronous = OFF")
        return steps(connection, operation(), writes=writes)


class Driver:
    """As much of `sqlite3.Connection` as the library uses, over apsw; its errors are those of sqlite3."""

    def __init__(self, recorder: Recorder) -> None:
        self._connection = apsw.Connection("/store.db", vfs=recorder.name)
        self.close = self._connection.close

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> apsw.Cursor:
        try:
            return self._connection.execute(statement, parameters)
        except apsw.Error as error:
            told = sqlite3.OperationalError(str(error))
            told.sqlite_errorcode = error.extendedresult  # type: ignore[attr-defined]  # its stubs leave it out
            raise told from error


class RecordedConnection:
    """The `Connection` of a store on a recorded disk; alone on it, so heartbeats and file locks have nobody to tell."""

    name = "sqlite:////store.db"
    poll_seconds = 1000.0
    is_outlived = False

    def __init__(self, recorder: Recorder, recording: Recording, policy: Policy) -> None:
        self.connection = cast("sqlite3.Connection", Driver(recorder))
        self.now = ManualClock()
        self._recording = recording
        self._syncing = policy(partial(recorder.rewrite, "/store.db-wal"))
        self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        began = len(recording.log)
        lay_out(self.connection, self.name)
        recording.note(began, rows(self.connection), is_durable=False)

    async def run(
        self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False, brief: bool = False
    ) -> T:
        began = len(self._recording.log)
        with translating(self.name):
            found = drive(self._syncing.steps(operation, self.connection, writes=writes, durable=durable))
        if writes:
            self._recording.note(began, rows(self.connection), is_durable=durable)
        return found

    @asynccontextmanager
    async def watch(self, wake: Callable[[str], None]) -> AsyncIterator[None]:
        yield

    async def look(self, operation: Callable[[], Operation[T]]) -> T:
        return await self.run(operation, writes=False)

    async def exclude(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        return await self.run(operation, writes=writes, durable=durable)

    async def forget(self, operation: Callable[[], Operation[T]]) -> T:
        return await self.run(operation)

    def beat(self, node_id: str) -> Operation[None]:
        yield last((DIALECT.beat, {"at": self.now(), "node": node_id, "active": 0}))

    def enter(self, node_id: str) -> None:
        pass

    def leave(self, node_id: str) -> None:
        pass

    def is_dead(self, node_id: str) -> bool:
        return False

    def open_pulse(self) -> SilentPulse:
        return SilentPulse()


class SilentPulse:
    """A line for heartbeats that nobody hears."""

    def beat(self, node_id: str, active: int = 0) -> bool:
        return True

    def close(self) -> None:
        pass


async def record(seed: int, policy: Policy) -> Recording:
    """Run the fleet's day: two releases, the file opened, closed and opened again."""
    recorder = Recorder(f"recorder-{seed}")
    recording = Recording(recorder.log)
    recording.note(0, None, is_durable=False)
    rng = Random(seed)
    try:
        for day in (first_day, second_day):
            connection = RecordedConnection(recorder, recording, policy)
            with closing(connection.connection):
                await day(connection, recording, rng)
    finally:
        recorder.unregister()
    return recording


async def record_failed_syncs(failing: range, checkpoint_pages: int) -> Recording:
    """Run a day on which some syncs fail; whoever they hit tries again."""
    recorder = Recorder(f"recorder-of-failed-syncs-{failing}-{checkpoint_pages}")
    recorder.failing_syncs = failing
    recording = Recording(recorder.log)
    recording.note(0, None, is_durable=False)
    try:
        connection = RecordedConnection(recorder, recording, partial(Syncing, is_full=True))
        connection.connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
        with closing(connection.connection):
            await day_of_retries(connection, recording)
    finally:
        recorder.unregister()
    return recording


async def day_of_retries(connection: RecordedConnection, recording: Recording) -> None:
    failed = 0
    async with open_node(connection) as node:
        for number in range(12):
            actor_id = IDS[number % len(IDS)]
            for _ in range(3):
                try:
                    async with node.activate(car, actor_id) as activation:
                        await load(activation)
                        recording.acknowledge(actor_id, await count_up(activation, 500, release=True))
                        break
                except StoreUnavailableError:
                    failed += 1
    assert failed > 0


def store_on(connection: RecordedConnection) -> SqlStore:
    failures = SqlFailures(FAILURE_DIALECT, connection)
    return SqlStore(
        DIALECT, RULING_DIALECT, copy_dialect(Path()), connection, SqlPost(POST_DIALECT, connection), failures
    )


def open_node(connection: RecordedConnection, upto: str | None = None) -> Node:
    served = suite if upto is None else release(suite, upto)
    return Node(store_on(connection), [served], lease_seconds=1000.0, hand_over_seconds=0, idle_seconds=1000.0)


def padding(rng: Random) -> int:
    return rng.choice((5, 500, 9_000))


async def first_day(connection: RecordedConnection, recording: Recording, rng: Random) -> None:
    legacy = [(actor_id, b'{"mark":"0.0.0","n":0}') for actor_id in IDS]
    await store_on(connection).insert("Car", "main", legacy)
    for actor_id in IDS:
        recording.acknowledge(actor_id, 0)
    async with open_node(connection, "1.0.0") as node:
        for actor_id in rng.sample(IDS, len(IDS)):
            async with node.activate(car, actor_id) as activation:
                await load(activation)
                recording.acknowledge(actor_id, 1)
                recording.acknowledge(actor_id, await count_up(activation, padding(rng)))
            await connection.run(partial(connection.beat, node.node_id))


async def second_day(connection: RecordedConnection, recording: Recording, rng: Random) -> None:
    async with open_node(connection) as node:
        for actor_id in rng.sample([*IDS, *IDS], 2 * len(IDS)):
            recording.acknowledge(actor_id, await node.actor(car, actor_id).count(padding(rng)))
        await connection.run(partial(connection.beat, node.node_id))
    async with open_node(connection) as node:
        for actor_id in [*rng.sample(IDS, len(IDS)), "new"]:
            async with node.activate(car, actor_id) as activation:
                await load(activation)
                n = await count_up(activation, padding(rng))
                recording.acknowledge(actor_id, n)
                await activation.state("side").clear()
                recording.acknowledge(actor_id, n, cleared=True)
                await activation.state("side").migrate_and_load(default={"mark": str(car.supported), "n": n})
                recording.acknowledge(actor_id, await count_up(activation, padding(rng), release=True))


# --- what a database holds --------------------------------------------------------------------------------------------


def rows(connection: sqlite3.Connection) -> dict[str, Row] | None:
    """Return the actors by id; None where the file is no store yet."""
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()[0][0]:
        return None
    return {actor_id: row for (_, actor_id), row in beside.rows(connection).items()}


def digest(found: dict[str, Row] | None) -> bytes:
    """Return a short stand-in for what a database holds."""
    if found is None:
        return b""
    whole = [(key, row.revision, row.applied, row.owner, row.number, sorted(row.data.items()))
             for key, row in sorted(found.items())]  # fmt: skip
    return blake2b(repr(whole).encode()).digest()
