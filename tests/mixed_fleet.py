"""Two adjacent releases of a suite serve one actor, while an operator pins, flips and rolls back, and nodes crash.

They run in this process, or each in one of its own, which is killed where it crashes.

Each save leaves a mark in the main state, in a field that no release knows. After each step every release that may read
the actor does, and finds the last mark; and what the newer one knew is still there if its migration has a `reconcile`.
"""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import pytest

from lazymig import Node, errors, open_store, rollout
from lazymig._records import ActorKey
from lazymig._version import is_newer_major, pack, parse
from lazymig.testing import goldens
from lazymig.testing.releases import release
from suites import carts, logbook, users, vehicles
from tests.processes import Line, Worker
from tests.wallets import write_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from lazymig import Suite
    from lazymig.store import Store
    from lazymig.suite import ActorType

GOLDEN = Path(__file__).parent / "golden"
SUITES: dict[str, tuple[Suite, ActorType[Any]]] = {
    "carts": (carts.suite, carts.cart),
    "logbook": (logbook.suite, logbook.logbook),
    "users": (users.suite, users.user),
    "vehicles": (vehicles.suite, vehicles.vehicle),
}
STEPS = ("old loads", "old saves", "new loads", "new saves", "flip", "roll back", "old crashes", "new crashes")
Sequence = tuple[str, ...]


class Pair(NamedTuple):
    """Two adjacent releases of a suite."""

    suite: str
    old: str
    new: str


def pairs() -> list[Pair]:
    """Return all pairs of adjacent releases, software without migrations included."""
    found = []
    for name, (_, kind) in SUITES.items():
        for old, new in pairwise(["0.0.0", *(str(migration.version) for migration in kind.migrations)]):
            found.append(Pair(name, old, new))
    return found


def short() -> list[Sequence]:
    """Return all sequences of two steps."""
    return [*product(STEPS, repeat=2)]


def drawn(count: int, seed: int) -> list[Sequence]:
    """Return some long ones."""
    rng = random.Random(seed)
    return [tuple(rng.choice(STEPS) for _ in range(10)) for _ in range(count)]


class Seat(Protocol):
    """Where a release runs."""

    async def load(self, key: ActorKey) -> Any:
        """Bring an actor up; return its value, None if it is refused."""
        ...

    async def save(self, key: ActorKey, mark: int) -> bool:
        """Leave a mark in an actor; tell whether it was stored, or refused."""
        ...

    async def crash(self, key: ActorKey) -> None:
        """End in the middle of a change of the actor, and start anew."""
        ...

    async def stop(self) -> None:
        """End in good order."""
        ...


async def load(node: Node, key: ActorKey) -> Any:
    """See `Seat.load`."""
    async with node.activate(key.type, key.id) as activation:
        try:
            return await activation.state().migrate_and_load()
        except errors.NewerStateError:
            return None


async def save(node: Node, key: ActorKey, mark: int) -> bool:
    """See `Seat.save`."""
    async with node.activate(key.type, key.id) as activation:
        try:
            value: Any = await activation.state().migrate_and_load()
        except errors.NewerStateError:
            return False
        value["mark"] = mark
        await activation.persist()
        return True


class Here:
    """A node of this process; it crashes by being forgotten, and registers anew by itself."""

    def __init__(self, store: Store, node: Node) -> None:
        self._store = store
        self._node = node

    async def load(self, key: ActorKey) -> Any:
        return await load(self._node, key)

    async def save(self, key: ActorKey, mark: int) -> bool:
        return await save(self._node, key, mark)

    async def crash(self, key: ActorKey) -> None:
        async with self._node.activate(key.type, key.id) as activation:
            try:
                value: Any = await activation.state().migrate_and_load()
            except errors.NewerStateError:
                return
            value["mark"] = -1
            await self._store.forget(self._node.node_id)
            with pytest.raises(errors.LeaseLostError):
                await activation.persist()

    async def stop(self) -> None:
        await self._node.__aexit__(None, None, None)


async def here(store: Store, pair: Pair, version: str) -> Seat:
    """Start a release in this process."""
    node = Node(store, [release(SUITES[pair.suite][0], version)], label=version, drain_on_sigterm=False)
    return Here(store, await node.__aenter__())


async def serve(line: Line, url: str, pair: Pair, version: str) -> None:
    """Do what is asked in a process of its own."""
    async with open_store(url) as store:
        suite = release(SUITES[pair.suite][0], version)
        async with Node(store, [suite], label=version, lease_seconds=0.5, drain_on_sigterm=False) as node:
            line.tell("up")
            while (asked := await line.hear()) != "stop":
                what, key, mark = asked
                if what == "load":
                    line.tell(await load(node, key))
                elif what == "save":
                    line.tell(await save(node, key, mark))
                else:
                    async with node.activate(key.type, key.id) as activation:
                        with suppress(errors.NewerStateError):
                            value: Any = await activation.state().migrate_and_load()
                            value["mark"] = -1
                        line.tell("holding")
                        await line.hear()


class There:
    """A process of its own; it crashes by SIGKILL."""

    def __init__(self, url: str, pair: Pair, version: str) -> None:
        self._arguments = url, pair, version
        self._worker = Worker(serve, *self._arguments)

    async def begin(self) -> Self:
        assert await self._worker.hear() == "up"
        return self

    async def _ask(self, *what: object) -> Any:
        self._worker.tell(what)
        return await self._worker.hear()

    async def load(self, key: ActorKey) -> Any:
        return await self._ask("load", key, 0)

    async def save(self, key: ActorKey, mark: int) -> bool:
        saved: bool = await self._ask("save", key, mark)
        return saved

    async def crash(self, key: ActorKey) -> None:
        assert await self._ask("crash", key, 0) == "holding"
        self._worker.__exit__()
        self._worker = Worker(serve, *self._arguments)
        await self.begin()

    async def stop(self) -> None:
        self._worker.tell("stop")
        assert await self._worker.rest() == []
        self._worker.__exit__()


class MixedFleet:
    """A seat for each release of a pair.

    Args:
        store: The store.
        pair: The releases.
        sit: Starts a release on the store.
    """

    def __init__(self, store: Store, pair: Pair, sit: Callable[[Store, Pair, str], Awaitable[Seat]] = here) -> None:
        self._store = store
        self._pair = pair
        self._sit = sit
        self._type = SUITES[pair.suite][1]
        self._versions = {"old": pair.old, "new": pair.new}
        self._seats: dict[str, Seat] = {}
        self._key = ActorKey(self._type.name, "none")
        self._mark = 0
        self._known: dict[str, Any] | None = None

    async def run(self, sequences: Iterable[Sequence]) -> None:
        """Go through sequences, an actor for each."""
        try:
            for number, sequence in enumerate(sequences):
                try:
                    await self._begin(f"{number}")
                    for step in sequence:
                        await self._do(step)
                        await self._check()
                except BaseException:
                    print(f"failed in {sequence} of {self._pair}")
                    raise
        finally:
            for who in [*self._seats]:
                await self._seats.pop(who).stop()

    async def _begin(self, actor_id: str) -> None:
        """Store an actor as the old release did, and pin to that, if the new one has a way down."""
        await write_at(self._store, None, self._type.name)
        self._key = ActorKey(self._type.name, actor_id)
        self._mark, self._known = 0, None
        stored = goldens.read(GOLDEN / self._pair.suite / f"{self._pair.old}.json")
        golden = next(one for one in stored if one.states.get(self._type.state, b"").startswith(b"{"))
        await goldens.put(self._store, self._key, golden)
        for who in ("old", "new"):
            if who not in self._seats:
                await self._start(who)
        await rollout.pin(self._store, self._type.name, self._pair.old)
        await self._save("old")

    async def _do(self, step: str) -> None:
        who, _, what = step.partition(" ")
        if step == "flip":  # its gate says no while the old node is there
            await self._seats.pop("old").stop()
            await rollout.flip(self._store, self._type.name, self._pair.new)
            await self._start("old")
        elif step == "roll back":
            await rollout.pin(self._store, self._type.name, self._pair.old)
        elif what == "loads":
            await self._load(who)
        elif what == "saves":
            await self._save(who)
        else:
            await self._seats[who].crash(self._key)

    async def _start(self, who: str) -> None:
        self._seats[who] = await self._sit(self._store, self._pair, self._versions[who])

    async def _save(self, who: str) -> None:
        if await self._seats[who].save(self._key, self._mark + 1):
            self._mark += 1
        else:
            await self._check_excused(who)

    async def _load(self, who: str) -> Any:
        """Return what a release reads; None if it may not."""
        value = await self._seats[who].load(self._key)
        if value is None:
            await self._check_excused(who)
        return value

    async def _check(self) -> None:
        for who in ("old", "new"):
            value = await self._load(who)
            if value is None:
                continue
            assert value.pop("mark") == self._mark, f"{who} reads {value}, the last mark is {self._mark}"
            if who == "new" and self._is_repaired():
                assert self._known is None or value == self._known, f"new reads {value}, it knew {self._known}"
                self._known = value

    def _is_repaired(self) -> bool:
        newest = next(step for step in self._type.migrations if str(step.version) == self._pair.new)
        return newest.reconciler is not None

    async def _check_excused(self, who: str) -> None:
        """A release is refused a newer major only, and where its type is written above it."""
        stored = await self._store.read(self._key)
        assert stored is not None
        version = pack(parse(self._versions[who]))
        if stored.stamp is not None and is_newer_major(stored.stamp.applied.highest, version):
            return
        if stored.base is not None and is_newer_major(stored.base.applied.highest, version):
            return
        assert who == "old", f"{self._pair.new} can't read {stored}"
