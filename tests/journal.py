"""What user code notes of what it saw and did: judged by tests.rules beside what is stored.

Every attempt to store has a number of its own, its *turn*, which is part of the value: the stored log of turns tells
what was stored, and the journal what the caller was told of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lazymig.errors import (
    ActivationError,
    ActorLockedError,
    CallNotTakenError,
    LeaseLostError,
    NewerStateError,
    NodeStoppedError,
)
from lazymig.hooks import Deactivated, DeactivationFailed, MigrationApplied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig._records import ActorKey
    from lazymig.hooks import Event

NOT_RUN = (ActorLockedError, CallNotTakenError, NewerStateError, NodeStoppedError)
"""Errors of a call that promise that its action did not run and will not."""

Key = tuple[str, str]
Outcome = Literal["open", "acknowledged", "unknown", "lost", "refused"]
What = Literal[
    "made", "activating", "activated", "failed", "begin", "begin shared", "end", "raised", "deactivate", "overtaken"
]


@dataclass(slots=True)
class Turn:
    """One attempt to store.

    Attributes:
        key: The actor.
        text: ``number:kind:build``; what is appended to the log in the main state.
        kind: "chain" (a run of migrations), "add", "bye" (in deactivate), "load" (after load() alone), "clear" (which
            leaves nothing in the log).
        outcome: What the caller was told: "unknown" if the store failed or the call was cut off.
    """

    key: Key
    text: str
    kind: str
    outcome: Outcome = "open"


@dataclass(slots=True)
class Asked:
    """One call, as its caller saw it end.

    Attributes:
        tag: Passed with the call, so that the actor can note it.
        end: "answered"; "refused" by an error that promises that it did not run and will not; else "unknown".
    """

    tag: str
    end: Literal["open", "answered", "refused", "unknown"] = "open"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened to an actor object or in a block, its *seat*."""

    what: What
    seat: int
    key: Key


@dataclass(frozen=True, slots=True)
class Sighting:
    """A value that was handed to user code of a build."""

    key: Key
    build: str
    marks: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Lock:
    """Who held an actor, read beside the library, and how many faults had struck by then."""

    key: Key
    owner: str | None
    number: int
    strikes: int


@dataclass(slots=True)
class Journal:
    """Everything noted, in order.

    Attributes:
        releases: Build to what it registers, in order of versions.
        turns: Attempts to store.
        entries: What happened on which seat.
        sightings: Values that user code saw.
        locks: Looks at the lock between the calls of a scenario.
        runs: Migrations that ran: the key they were told, and their version.
        told: Migrations that the hooks were told of as applied.
        errors: What the callers got.
        imported: Actors that were made by an import.
        asked: Calls whose ends are held against what ran.
        begun: How often an action of such a call began, by tag.
        cuts: How many commits the scenario itself may have cut off.
        let_go: Set when an actor was deactivated, or failed to be.
    """

    releases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    runs: list[tuple[Key, str]] = field(default_factory=list)
    told: list[tuple[Key, str]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    imported: set[Key] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    begun: Counter[str] = field(default_factory=Counter)
    cuts: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    _seats: int = 0

    def seat(self, key: Key, what: What = "made") -> int:
        """Note a new actor object, or a block."""
        self._seats += 1
        self.note(what, self._seats, key)
        return self._seats

    def note(self, what: What, seat: int, key: Key) -> None:
        self.entries.append(Entry(what, seat, key))

    def overtaken(self, key: Key) -> None:
        """Note that whoever holds the actor is taken for dead from now on: what runs there may only end."""
        self.note("overtaken", 0, key)

    def saw(self, key: Key, build: str, value: Any) -> None:
        if value is not None:
            self.sightings.append(Sighting(key, build, tuple(value["marks"]), value.get("n", 0)))

    def turn(self, key: Key, kind: str, build: str) -> Turn:
        """Draw the number of an attempt to store."""
        turn = Turn(key, f"{len(self.turns) + 1}:{kind}:{build}", kind)
        self.turns.append(turn)
        return turn

    @contextmanager
    def storing(self, key: Key) -> Iterator[None]:
        """Note what the caller is told of the attempts that are open."""
        try:
            yield
        except BaseException as error:
            self._settle(key, _outcome(error))
            raise
        self._settle(key, "acknowledged")

    def _settle(self, key: Key, outcome: Outcome) -> None:
        for turn in self.turns:
            if turn.key == key and turn.outcome == "open":
                turn.outcome = outcome

    @contextmanager
    def activating(self, seat: int, key: Key) -> Iterator[None]:
        self.note("activating", seat, key)
        try:
            yield
        except BaseException:
            self.note("failed", seat, key)
            raise
        self.note("activated", seat, key)

    @contextmanager
    def acting(self, seat: int, key: Key, *, shared: bool = False) -> Iterator[None]:
        self.note("begin shared" if shared else "begin", seat, key)
        try:
            yield
        except BaseException:
            self.note("raised", seat, key)
            raise
        self.note("end", seat, key)

    @contextmanager
    def asking(self) -> Iterator[str]:
        """Note how a call ends that is made with the tag that this yields."""
        asked = Asked(f"call {len(self.asked) + 1}")
        self.asked.append(asked)
        try:
            yield asked.tag
        except BaseException as error:
            asked.end = "refused" if isinstance(error, NOT_RUN) else "unknown"
            raise
        asked.end = "answered"

    @contextmanager
    def expecting(self, *errors: type[Exception]) -> Iterator[None]:
        """Note one of these errors; a scenario that does not get one is told so."""
        try:
            yield
        except errors as error:
            self.errors.append(error)
        else:
            raise AssertionError(f"no {' or '.join(error.__name__ for error in errors)}")

    def hear(self, event: Event) -> None:
        """Take an event, as a hook."""
        if isinstance(event, MigrationApplied):
            self.told.append((as_pair(event.key), str(event.version)))
        if isinstance(event, (Deactivated, DeactivationFailed)):
            self.let_go.set()


def as_pair(key: ActorKey) -> Key:
    return (key.type, key.id)


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, LeaseLostError):
        return "lost"
    return "refused" if isinstance(error, ActivationError) else "unknown"
