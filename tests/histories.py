"""Histories of real processes on one SQLite file or one PostgreSQL server, recorded under a nemesis and checked.

**The claim.** The operations on one actor are linearizable: each takes effect at one moment between its invocation and
its completion, whichever process it was asked of, through whatever kills, stops and take-overs. Nothing is promised
across actors. The file is opened with ``synchronous=normal``, and the server runs without fsync, which keeps this
through the death of processes: what they wrote outlives them in the system's buffers. (Power failures are another
test's.) What a killed process held is free again within its lease time.

**What an outcome means.**

- ``ok``: it took effect, and this is what it saw.
- ``fail``: an error that promises that the action did not run (`ActorLockedError`, `NewerStateError`,
  `CallNotTakenError`, `NodeStoppedError`), or that nothing was stored (`LeaseLostError`; an action here stores once).
  It took no effect.
- ``info``: the process was killed, or the one that had taken the call (`CallLostError`), or the store gave no answer
  (`StoreUnavailableError`). It may take effect at any
  moment after its invocation, or never. Not even the death of its process is the last moment: a commit that is in
  SQLite's log but not yet in its index becomes visible when somebody recovers the index.

Any other error fails the test. The nemesis kills processes and starts others in their place, of either release; stops
them for longer than the lease and lets them go on with what they remember; holds the file's write lock, or restarts the
server. Keys follow each other, so that actors are migrated all the time. At the end two processes are killed, what they
held is claimed, and the store is read beside the library and checked by the engine's own means: what it holds counts as
the last read of each actor.

A seed repeats what the nemesis and the clients choose, not when the machine runs which process: a failure keeps its
logs, and ``check(read_logs(folder))`` judges them again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson

from lazymig import Node, open_store
from lazymig.testing.simulation import lin
from tests.history_clients import DEFAULTS, INITIAL, LEASE_SECONDS, LEGACY, RELEASES, key_of, serve, value_of
from tests.processes import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests import beside
    from tests.grounds import Ground

Key = tuple[str, str]
History = dict[Key, list[lin.Operation]]

PROCESSES = 4
KILLED_LAST = 2
"""How many of them are killed in the end, at work."""
PACE = 16.0
"""How many keys come into use each second."""
WIDTH = 64
"""How many are in use at a time."""
LONGEST_SECONDS = 110.0
"""After that a recording ends, whatever it has reached."""
BUDGET = 2_000_000
"""Steps of the search for one actor; a history of ours takes a few thousand."""
SHOWN_LINES = 60
"""Of the explanation of a counterexample, from its end."""

MODELS = {"Counter": lin.Counter(INITIAL), "Register": lin.Register(INITIAL)}
SHAPES: dict[str, dict[tuple[str, ...] | None, set[str]]] = {
    "Counter": {None: {"n"}, ("1.0.0",): {"total"}, ("1.0.0", "1.1.0"): {"total", "unit"}},
    "Register": {None: {"cell"}, ("1.0.0",): {"value"}, ("1.0.0", "2.0.0"): {"content"}},
}
"""What a migrated state has at each applied set."""


# --- reading and checking ------------------------------------------------------------------------------------------


def read_logs(folder: Path) -> History:
    """Return the operations of all log files, by actor."""
    history: History = defaultdict(list)
    index = 0
    for path in sorted(folder.glob("*.log")):
        running: dict[int, lin.Operation] = {}
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue  # cut off by a kill: never invoked, or never told
            what, number, *rest = orjson.loads(line)
            if what == "invoked":
                client, key, f, argument, at = rest
                index += 1
                process = f"{path.stem}/{client}"
                operation = running[number] = lin.Operation(index, process, f, argument, at, 0.0, status=lin.INFO)
                history[key[0], key[1]].append(operation)
            else:
                operation = running[number]
                operation.status, operation.output, at = rest
                operation.ret = at if operation.status == lin.OK else None
    return history


def add_last_reads(history: History, stored: dict[Key, beside.Row]) -> None:
    """Let what is stored be the last read of each actor."""
    now = time.monotonic_ns()
    for number, (key, operations) in enumerate(history.items()):
        value = value_of(stored[key].states["state"]) if key in stored else INITIAL
        index = max(operation.index for operation in operations) + 1_000_000_000
        read = lin.Operation(index, "file", "read", None, now + 2 * number, 0.0, value, lin.OK, now + 2 * number + 1)
        operations.append(read)


def check(history: History) -> None:
    """Check each actor's operations.

    Raises:
        AssertionError: They are not linearizable; the counterexample is its text.
    """
    for key, operations in history.items():
        result = lin.check(operations, MODELS[key[0]], budget=BUDGET)
        if not result.ok:
            lines = result.explain().splitlines()
            shown = "\n".join([lines[0], "…", *lines[-SHOWN_LINES:]] if len(lines) > SHOWN_LINES else lines)
            raise AssertionError(f"{key[0]} {key[1]}: {shown}")


def check_shapes(stored: dict[Key, beside.Row]) -> None:
    """Check that no actor is half migrated."""
    for (kind, actor_id), row in stored.items():
        shapes = [SHAPES[kind][row.applied]]
        if not is_legacy(actor_id):
            shapes.append(set(DEFAULTS[kind]))  # made by software of that version, and never migrated
        assert set(row.states["state"]) - {"left"} in shapes, (kind, actor_id, row)


def is_legacy(actor_id: str) -> bool:
    """Tell which actors are stored before the history begins: two of four."""
    return int(actor_id) // 2 % 2 == 0


@dataclass
class Figures:
    """What a history was made of.

    Attributes:
        statuses: How many operations ended how.
        functions: How many of those that ended well did what.
        errors: Names of the errors of the others.
        hand_overs: How often the next operation on an actor was another process's.
        meetings: How many actors processes of both releases worked on.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    hand_overs: int = 0
    meetings: int = 0

    @classmethod
    def of(cls, history: History) -> Figures:
        figures = cls()
        for operations in history.values():
            figures.statuses.update(operation.status for operation in operations)
            figures.functions.update(operation.f for operation in operations if operation.status == lin.OK)
            figures.errors.update(str(operation.output) for operation in operations if operation.status != lin.OK)
            done = sorted((operation for operation in operations if operation.ret), key=lambda done: done.ret or 0)
            places = [str(operation.process).split("/")[0] for operation in done]
            figures.hand_overs += sum(one != other for one, other in pairwise(places))
            figures.meetings += {place.rpartition("-")[2] for place in places} >= set(RELEASES)
        return figures


# --- recording -----------------------------------------------------------------------------------------------------


@dataclass
class Goal:
    """What a recording must reach before it ends."""

    operations: int
    kills: int
    stops: int


class Recording:
    """Processes at work, and their nemesis.

    Args:
        ground: Where the actors are.
        folder: Where the logs are; must exist.
        seed: What the nemesis' moments and the clients' choices follow from.
        goal: When it ends.

    Attributes:
        kills: How many processes were killed at work.
        stops: How many were stopped for longer than their lease, and went on.
        freed: How many actors were held by processes killed in the end.
        seconds: How long it took.
    """

    def __init__(self, ground: Ground, folder: Path, seed: int, goal: Goal) -> None:
        self.kills = 0
        self.stops = 0
        self.freed = 0
        self.seconds = 0.0
        self._folder = folder
        self._ground = ground
        self._chance = random.Random(seed)
        self._seed = seed
        self._goal = goal
        self._workers: list[Worker | None] = [None] * PROCESSES
        self._started = 0
        self._stopped: set[Worker] = set()
        self._disturbing = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._offsets: Counter[Path] = Counter()
        self._done = 0
        self._is_over = False

    async def run(self) -> History:
        """Record until the goal is reached; return the history with the last reads."""
        await self._store_legacy()
        self._began = time.monotonic()
        async with self._stack:
            await asyncio.gather(*(self._start(slot) for slot in range(PROCESSES)))
            async with asyncio.TaskGroup() as group:
                for nemesis in (self._kill, self._stop, self._stop, self._hold_up):
                    group.create_task(nemesis())
                group.create_task(self._watch())
            await asyncio.gather(*(self._end(worker) for worker in self._workers[KILLED_LAST:]))
            for worker in self._workers[:KILLED_LAST]:
                assert worker is not None
                worker.kill()
            await self._claim_what_was_held()
        self.seconds = time.monotonic() - self._began
        stored = self._ground.read()
        check_shapes(stored)
        history = read_logs(self._folder)
        add_last_reads(history, stored)
        return history

    async def _store_legacy(self) -> None:
        rows: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for number in range(int(PACE * LONGEST_SECONDS) + 2 * WIDTH):
            kind, actor_id = key_of(number)
            if is_legacy(actor_id):
                rows[kind].append((actor_id, orjson.dumps(LEGACY[kind])))
        async with open_store(self._ground.url) as store:
            for kind, values in rows.items():
                await store.insert(kind, "state", values)

    async def _claim_what_was_held(self) -> None:
        """Get each actor that the dead held; they count as alive for a lease time, and the machine has another one."""

        async def claim(key: Key) -> None:
            async with node.activate(*key, wait_seconds=LEASE_SECONDS) as activation:
                await activation.state().load()

        held = [key for key, row in self._ground.read().items() if row.owner is not None]
        async with open_store(self._ground.url) as store, Node(store, [RELEASES["new"]]) as node:
            await asyncio.gather(*map(claim, held))
        self.freed = len(held)

    async def _start(self, slot: int) -> None:
        """Start a process; the first four are of both releases, later ones of either."""
        release = sorted(RELEASES)[slot % 2 if self._started < PROCESSES else self._chance.randrange(2)]
        log = self._folder / f"{self._seed}-{slot}-{self._started}-{release}.log"
        self._started += 1
        async with self._disturbing if self._ground.path is None else nullcontext():  # a node's start needs the server
            worker = self._stack.enter_context(
                Worker(serve, self._ground.url, log, release, (self._began, PACE, WIDTH))
            )
            assert await worker.hear() == "serving"
        self._workers[slot] = worker

    async def _kill(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(0.05, 0.7))
            slot = self._chance.randrange(PROCESSES)
            worker, self._workers[slot] = self._workers[slot], None
            if worker is None:
                continue
            was_at_work = worker.exit_code is None
            worker.kill()
            await worker.rest()  # raises what it failed with, if it was not we who ended it
            self.kills += was_at_work
            await self._start(slot)

    async def _stop(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(0.1, 0.6))
            worker = self._chance.choice(self._workers)
            if worker is None or worker in self._stopped or worker.exit_code is not None:
                continue
            self._stopped.add(worker)
            async with self._disturbing:
                if worker.exit_code is None:  # else it was killed meanwhile
                    worker.stop(self._ground.path)
            await asyncio.sleep(LEASE_SECONDS * self._chance.uniform(1.1, 2.0))
            if worker.exit_code is None:  # else it was killed meanwhile
                worker.resume()
                self.stops += 1
            self._stopped.discard(worker)

    async def _hold_up(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(*self._ground.pauses))
            async with self._disturbing:
                await self._ground.disturb(self._chance)

    async def _watch(self) -> None:
        while not self._is_over:
            await asyncio.sleep(0.1)
            self._count()
            goal = self._goal
            reached = self._done >= goal.operations and self.kills >= goal.kills and self.stops >= goal.stops
            self._is_over = reached or time.monotonic() - self._began > LONGEST_SECONDS

    def _count(self) -> None:
        for path in self._folder.glob("*.log"):
            with path.open("rb") as log:
                log.seek(self._offsets[path])
                new = log.read()
            self._offsets[path] += len(new)
            self._done += new.count(b',"ok",')

    @staticmethod
    async def _end(worker: Worker | None) -> None:
        assert worker is not None
        worker.tell("end")
        await worker.rest()
        worker.kill()
        assert worker.exit_code == 0


async def record_and_check(ground: Ground, folder: Path, seed: int, goal: Goal) -> tuple[Recording, Figures]:
    """Record a history and check it.

    Raises:
        AssertionError: It is not linearizable, or is not the history that was wanted.
    """
    recording = Recording(ground, folder, seed, goal)
    history = await recording.run()
    began = time.monotonic()
    try:
        check(history)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, logs in {folder}: {error}") from None
    checked = time.monotonic() - began
    figures = Figures.of(history)
    print(
        f"seed {seed}: {recording.kills} kills, {recording.stops} stops, {len(history)} actors, "
        f"recorded in {recording.seconds:.1f} s, checked in {checked:.1f} s\n{figures}"
    )
    return recording, figures
