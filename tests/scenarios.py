"""A suite that notes what it sees and does, and the scenarios that tests/test_faults.py lets fail at every call.

Every state carries the marks of the migrations that made it, and every commit leaves its turn in every state: see
tests/journal.py for the notes, tests/rules.py for what they are held against.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazymig import Activation, Actor, Node, Suite, action
from lazymig.codec import encode
from tests.journal import Journal, Lock, as_pair
from tests.rules import SPOILED, STEPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig.store import Store
    from lazymig.testing import FaultyStore, ManualClock
    from tests.beside import Reading

LEASE_SECONDS = 30.0
LATE = "1.0.1"
NEWEST = "2.0.0"
LEGACY = {"n": 0, "marks": [], "log": []}


@dataclass(frozen=True, slots=True)
class Build:
    """One release of the software.

    Attributes:
        upto: Its newest version.
        late: Whether it has the late migration, and whether that consents to run late.
        fails: A version whose migration raises.
    """

    upto: str = NEWEST
    late: bool | None = None
    fails: str = ""

    @property
    def name(self) -> str:
        return f"{self.upto}{'' if self.late is None else '+late'}"

    @property
    def registers(self) -> tuple[str, ...]:
        return tuple(v for v in STEPS if v <= self.upto and (v != LATE or self.late is not None))


NEW_SOFTWARE = Build()


class Hands:
    """What user code does with one activation, and notes of it."""

    def __init__(self, activation: Activation, journal: Journal, build: Build) -> None:
        self.activation = activation
        self.main = activation.state()
        self.notes = activation.state("notes")
        self.journal = journal
        self.build = build
        self.key = as_pair(activation.key)
        self._chain = ""

    async def up(self) -> None:
        """Bring the actor up, with defaults."""
        marks = list(self.build.registers)
        with self.journal.storing(self.key):
            await self.main.migrate_and_load({"n": sum(STEPS[mark] for mark in marks), "marks": marks, "log": []})
            await self.notes.migrate_and_load({"marks": marks, "turn": ""})
        self.look()

    async def load(self) -> None:
        """Load without migrating."""
        await self.main.load()
        await self.notes.load()
        self.look()

    def look(self) -> None:
        for state in (self.main, self.notes):
            self.journal.saw(self.key, self.build.name, state.value)

    async def keep(self, kind: str = "add", *, release: bool = False) -> None:
        """Change both states and store them."""
        self.take(kind)
        await self.store(release=release)

    def take(self, kind: str = "add") -> None:
        turn = self.journal.turn(self.key, kind, self.build.name)
        self.main.value["n"] += 1
        self.main.value["log"].append(turn.text)
        if self.notes.value is not None:
            self.notes.value["turn"] = turn.text

    async def store(self, *, release: bool = False) -> None:
        with self.journal.storing(self.key):
            await self.activation.persist(release=release)

    async def clear_notes(self) -> None:
        self.journal.turn(self.key, "clear", self.build.name)
        with self.journal.storing(self.key):
            await self.notes.clear()

    async def step(self, version: str, state: dict[str, Any]) -> None:
        """Apply a migration: leave its mark in every state, and the turn of the chain."""
        self.journal.runs.append((self.key, version))
        self.journal.saw(self.key, self.build.name, state)
        if state["log"][-1:] != [self._chain]:
            self._chain = self.journal.turn(self.key, "chain", self.build.name).text
            state["log"].append(self._chain)
        notes = await self.notes.migrate_and_load({"marks": list(state["marks"])} if version == "1.1.0" else None)
        if notes is not None:
            notes["marks"].append(version)
            notes["turn"] = self._chain
        state["marks"].append(version)
        state["n"] += STEPS[version]
        if version == self.build.fails:
            raise RuntimeError("as asked")


def software(journal: Journal, name: str, build: Build) -> Suite:
    """Return a release of the suite, whose one actor type is called ``name``."""
    suite = Suite("faults")
    journal.releases[build.name] = build.registers
    account = suite.actor_type(
        name, account_class(journal, build), state="main", context_factory=lambda a: Hands(a, journal, build)
    )
    for version in build.registers:
        account.migration(version, late=version == LATE and build.late is True)(migration(version))
    return suite


def migration(version: str) -> Callable[[Any, Hands], Any]:
    async def migrate(state: Any, hands: Hands) -> Any:
        await hands.step(version, state)
        return {**state} if version == NEWEST else None

    return migrate


def account_class(journal: Journal, build: Build) -> type[Actor]:
    class Account(Actor):
        """Persists wherever it can, as careless code does."""

        def __init__(self, activation: Activation) -> None:
            self.hands = Hands(activation, journal, build)
            self.seat = journal.seat(self.hands.key)

        async def activate(self) -> None:
            with journal.activating(self.seat, self.hands.key):
                await self.hands.up()

        async def deactivate(self) -> None:
            journal.note("deactivate", self.seat, self.hands.key)
            await self.hands.keep("bye")

        @action
        async def add(self, tag: str = "") -> None:
            with journal.acting(self.seat, self.hands.key):
                journal.begun[tag] += 1
                self.hands.look()
                await self.hands.keep()

        @action
        async def spoil(self) -> None:
            with journal.acting(self.seat, self.hands.key):
                self.hands.main.value["n"] = SPOILED
                raise RuntimeError("as asked")

        @action
        async def hold(self, begun: str, tag: str = "") -> None:
            with journal.acting(self.seat, self.hands.key):
                journal.begun[tag] += 1
                GATES[begun].set()
                await GATES[f"{begun} ends"].wait()
                await self.hands.keep()

        @action(shared=True)
        async def total(self) -> int:
            with journal.acting(self.seat, self.hands.key, shared=True):
                self.hands.look()
                for _ in range(9):
                    await asyncio.sleep(0)  # lets the others begin, if they may
                number: int = self.hands.main.value["n"]
                return number

    return Account


GATES: dict[str, asyncio.Event] = {}
"""Events that actions set and wait for, by name: arguments of a call pass as JSON."""


@dataclass(slots=True)
class World:
    """What a scenario works with: actors of a type of its own in a store that fails.

    Attributes:
        store: The one that fails.
        inner: The same, without faults.
        read: Reads the actors of the type beside the library.
        clock: The store's.
        type: Name of the actor type.
        journal: Takes the notes.
        strikes: Counts the faults that struck.
    """

    store: FaultyStore
    inner: Store
    read: Callable[[], Reading]
    clock: ManualClock
    type: str
    strikes: Callable[[], int]
    journal: Journal = field(default_factory=Journal)

    def node(self, build: Build = NEW_SOFTWARE, *, is_sound: bool = False, **options: Any) -> Node:
        """Return a node of a release; a sound one has no faults."""
        options = {"hand_over_seconds": 0, "lease_seconds": LEASE_SECONDS, "idle_seconds": 1_000.0} | options
        suite = software(self.journal, self.type, build)
        return Node(self.inner if is_sound else self.store, [suite], hooks=[self.journal.hear], **options)

    @asynccontextmanager
    async def block(self, node: Node, build: Build = NEW_SOFTWARE, actor_id: str = "a") -> AsyncIterator[Hands]:
        """Hold an actor without an actor class."""
        async with node.activate(self.type, actor_id) as activation:
            hands = Hands(activation, self.journal, build)
            seat = self.journal.seat(hands.key, "begin")
            try:
                yield hands
            finally:
                self.journal.note("end", seat, hands.key)

    async def add(self, node: Node, actor_id: str = "a") -> None:
        await node.call(self.type, actor_id, "add")

    async def ask(self, node: Node, name: str = "add", *arguments: str) -> None:
        """Call the actor, and note how that ends."""
        with self.journal.asking() as tag:
            await node.call(self.type, "a", name, *arguments, tag)

    async def put(self, actor_id: str, data: bytes) -> None:
        """Import an actor."""
        await self.inner.insert(self.type, "main", [(actor_id, data)])
        self.journal.imported.add((self.type, actor_id))

    async def put_legacy(self, *actor_ids: str) -> None:
        for actor_id in actor_ids or ("a",):
            await self.put(actor_id, encode(LEGACY, "a legacy state"))

    async def add_once(self, build: Build = NEW_SOFTWARE, actor_id: str = "a") -> None:
        """Let a node without faults bring an actor up and store it."""
        async with self.node(build, is_sound=True) as node:
            await self.add(node, actor_id)

    def look_at_lock(self) -> None:
        """Note who holds the actor, read beside the library."""
        row = self.read()[self.type, "a"]
        self.journal.locks.append(Lock((self.type, "a"), row.owner, row.number, self.strikes()))


async def up_to_date_and_consented(w: World) -> None:
    """Let software with the late migration that consents have started: without it none of its set would start."""
    await w.put_legacy()
    await w.add_once()
    async with w.node(Build(late=True), is_sound=True):
        pass
