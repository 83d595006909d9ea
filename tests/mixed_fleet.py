"""Two adjacent releases of a suite serve one actor, while an operator pins, flips and rolls back, and nodes crash.

Each save leaves a mark in the main state, in a field that no release knows. After each step every release that may read
the actor does, and finds the last mark; and what the newer one knew is still there if its migration has a `reconcile`.
"""

from __future__ import annotations

import random
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import Node, errors, rollout
from lazymig._records import ActorKey
from lazymig._version import is_newer_major, pack, parse
from lazymig.testing import goldens
from lazymig.testing.releases import release
from suites import carts, logbook, users, vehicles
from tests.wallets import write_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazymig import Suite
    from lazymig._records import StoredActor
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


class MixedFleet:
    """A node of each release of a pair.

    Args:
        store: The store.
        pair: The releases.
    """

    def __init__(self, store: Store, pair: Pair) -> None:
        self.store = store
        self.pair = pair
        suite, self._type = SUITES[pair.suite]
        self._suites = {"old": release(suite, pair.old), "new": release(suite, pair.new)}
        self._versions = {"old": pack(parse(pair.old)), "new": pack(parse(pair.new))}
        self._nodes: dict[str, Node] = {}
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
                    print(f"failed in {sequence} of {self.pair}")
                    raise
        finally:
            for who in [*self._nodes]:
                await self._stop(who)

    async def _begin(self, actor_id: str) -> None:
        """Store an actor as the old release did, and pin to that, if the new one has a way down."""
        for who in ("old", "new"):
            await self._stop(who)
        await write_at(self.store, None, self._type.name)
        self._key = ActorKey(self._type.name, actor_id)
        self._mark, self._known = 0, None
        stored = goldens.read(GOLDEN / self.pair.suite / f"{self.pair.old}.json")
        golden = next(one for one in stored if one.states.get(self._type.state, b"").startswith(b"{"))
        await goldens.put(self.store, self._key, golden)
        for who in ("old", "new"):
            await self._start(who)
        await rollout.pin(self.store, self._type.name, self.pair.old)
        await self._save("old")

    async def _do(self, step: str) -> None:
        who, _, what = step.partition(" ")
        if step == "flip":  # its gate says no while the old node is there
            await self._stop("old")
            await rollout.flip(self.store, self._type.name, self.pair.new)
            await self._start("old")
        elif step == "roll back":
            await rollout.pin(self.store, self._type.name, self.pair.old)
        elif what == "loads":
            await self._load(who)
        elif what == "saves":
            await self._save(who)
        else:
            await self._crash(who)

    async def _save(self, who: str) -> None:
        async with self._nodes[who].activate(self._key.type, self._key.id) as activation:
            try:
                value = await activation.state().migrate_and_load()
            except errors.NewerStateError:
                self._check_excused(who, await self._stored())
                return
            value["mark"] = self._mark + 1
            await activation.persist()
            self._mark += 1

    async def _load(self, who: str) -> Any:
        """Return what a release reads; None if it may not."""
        async with self._nodes[who].activate(self._key.type, self._key.id) as activation:
            try:
                return await activation.state().migrate_and_load()
            except errors.NewerStateError:
                self._check_excused(who, await self._stored())
                return None

    async def _crash(self, who: str) -> None:
        """Forget a node in the middle of a change, which is not stored; it registers anew by itself."""
        async with self._nodes[who].activate(self._key.type, self._key.id) as activation:
            try:
                value = await activation.state().migrate_and_load()
            except errors.NewerStateError:
                return
            value["mark"] = -1
            await self.store.forget(self._nodes[who].node_id)
            try:
                await activation.persist()
            except errors.LeaseLostError:
                return
            raise AssertionError("a forgotten node has stored something")

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
        return self._suites["new"].actor_types[self._type.name].migrations[-1].reconciler is not None

    async def _stored(self) -> StoredActor:
        found = await self.store.read(self._key)
        assert found is not None
        return found

    def _check_excused(self, who: str, stored: StoredActor) -> None:
        """A release is refused a newer major only, and where its type is written above it."""
        version = self._versions[who]
        if stored.stamp is not None and is_newer_major(stored.stamp.applied.highest, version):
            return
        if stored.base is not None and is_newer_major(stored.base.applied.highest, version):
            return
        assert who == "old", f"{self.pair.new} can't read {stored}"

    async def _start(self, who: str) -> None:
        node = Node(self.store, [self._suites[who]], label=who, drain_on_sigterm=False)
        await node.__aenter__()
        self._nodes[who] = node

    async def _stop(self, who: str) -> None:
        node = self._nodes.pop(who, None)
        if node is not None:
            await node.__aexit__(None, None, None)
