"""One process of the demo: a node of one release under calls, which it writes down. Started by `suites.demo`.

It lives no longer than the process that started it: standard input is a line to the parent. A byte on it means "stop in
good order", its end means that the parent is dead.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from lazymig import Node, open_store
from lazymig.errors import ActivationError, CallLostError, CallNotTakenError
from lazymig.hooks import Activated, MigrationApplied
from lazymig.testing.releases import release
from suites._demo_ledger import Ledger
from suites.vehicles import suite, vehicle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semver import Version

    from lazymig.hooks import Event

CALLERS = 6
"""Calls a process has under way at the same time."""

PAUSE_SECONDS = 0.004
"""Between two calls of a caller: the demo leaves the machine some room."""

IDLE_SECONDS = 0.1
"""Short, because a vehicle stays with a process until it is idle, and the others wait for it."""

HAND_OVER_SECONDS = 0.1

ROUND_SECONDS = 0.5
"""A process calls on the whole fleet no faster than that: a small fleet would never be idle, and stay where it is."""

ORPHANED = 3
"""Exit status of a process whose parent died."""


@dataclass(frozen=True)
class Job:
    """What a process is started with, as JSON in its one argument.

    Attributes:
        label: Its name for people.
        supports: The version its release supports.
        store: URL of the store.
        plates: File with the plates, one a line.
        ledger: File to write down what happens.
        seed: Of its traffic.
        litter: Folder to remove if the parent dies, or None.
    """

    label: str
    supports: str
    store: str
    plates: str
    ledger: str
    seed: int
    litter: str | None

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


class Traffic:
    """Calls on vehicles in random order, each of them written down.

    Args:
        node: Where they are made.
        ledger: Where they are written down.
        plates: The vehicles.
        dice: Source of order and amounts.
    """

    def __init__(self, node: Node, ledger: Ledger, plates: list[str], dice: random.Random) -> None:
        self._node = node
        self._ledger = ledger
        self._dice = dice
        self._numbers = count(1)
        self._walk = self._walk_through(plates)
        self._pause_seconds = max(PAUSE_SECONDS, ROUND_SECONDS * CALLERS / len(plates))

    def _walk_through(self, plates: list[str]) -> Iterator[str]:
        while True:
            yield from self._dice.sample(plates, len(plates))

    async def run(self, stop: asyncio.Event) -> None:
        """Make calls until told to stop."""
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._keep_calling(stop))

    async def _keep_calling(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            plate = next(self._walk)
            if self._dice.random() < 0.5:
                await self._accelerate(plate, self._dice.randint(1, 12) / 4)
            else:
                await self._read(plate)
            await asyncio.sleep(self._pause_seconds)

    async def _accelerate(self, plate: str, delta: float) -> None:
        number = next(self._numbers)
        self._ledger.write("begin", number, plate, delta)
        try:
            await self._node.actor(vehicle, plate).accelerate(delta)
        except CallLostError:  # its process was killed: nobody knows
            self._ledger.write("lost", number)
        except (ActivationError, CallNotTakenError) as error:  # they promise that nothing was stored
            self._ledger.write("void", number, type(error).__name__)
        else:
            self._ledger.write("done", number)

    async def _read(self, plate: str) -> None:
        try:
            await self._node.actor(vehicle, plate).velocity()
        except (ActivationError, CallNotTakenError, CallLostError) as error:
            self._ledger.write("unread", plate, type(error).__name__)
        else:
            self._ledger.write("read", plate)


class Notes:
    """Writes migrations down, once it is known at which version their vehicle is stored.

    Args:
        ledger: Where to.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ran: dict[str, list[Version]] = {}

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, MigrationApplied):
            self._ran.setdefault(event.key.id, []).append(event.version)
        elif isinstance(event, Activated):
            for version in self._ran.pop(event.key.id, ()):
                is_stored = event.version is not None and version <= event.version
                self._ledger.write("migrated" if is_stored else "projected", event.key.id, version)


async def serve(job: Job) -> None:
    """Serve and call until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _listen, stop, job.litter)
    plates = await asyncio.to_thread(Path(job.plates).read_text, encoding="utf-8")
    with Ledger(Path(job.ledger)) as ledger:
        async with (
            open_store(job.store) as store,
            Node(
                store,
                [release(suite, upto=job.supports)],
                label=job.label,
                build=f"supports {job.supports}",
                idle_seconds=IDLE_SECONDS,
                hand_over_seconds=HAND_OVER_SECONDS,
                hooks=[Notes(ledger)],
            ) as node,
        ):
            await Traffic(node, ledger, plates.splitlines(), random.Random(job.seed)).run(stop)


def _listen(stop: asyncio.Event, litter: str | None) -> None:
    if os.read(sys.stdin.fileno(), 1):
        stop.set()
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        return
    if litter is not None:
        shutil.rmtree(litter, ignore_errors=True)
    os._exit(ORPHANED)


if __name__ == "__main__":
    asyncio.run(serve(Job(**json.loads(sys.argv[1]))))
