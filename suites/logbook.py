"""Logbooks: lines that once were part of the state are entries of a table, and changed their shape there.

Entries are converted in two ways. Where each line can be understood by itself, it is converted when it is read: opening
a logbook costs the same however long it is. Where something about all of them must be known, `count_worst`, they are
converted before the logbook is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from lazymig import Activation, Actor, Suite, action

if TYPE_CHECKING:
    from lazymig.table import Table

suite = Suite("logbook")

LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
"""By severity, the worst first: RFC 5424, section 6.2.1."""

ALSO_KNOWN_AS = {"err": "error", "crit": "critical", "fatal": "critical", "warn": "warning", "information": "info"}
"""How programs called levels before they had numbers."""


class Line(TypedDict):
    """One line of a logbook, as its actions return it."""

    key: str
    level: str
    text: str
    origin: str | None


class Logbook(Actor):
    """What happened, in order of time; a line's key begins with its time, ISO 8601 in UTC."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.state = activation.state()
        self.log = activation.table("log")

    async def activate(self) -> None:
        """Bring the state up; a new logbook is empty."""
        await self.state.migrate_and_load(default={"title": "", "appended": 0, "worst": None})

    @action
    async def append(self, at: str, level: str, text: str, origin: str | None = None) -> str:
        """Add a line and return its key.

        Args:
            at: When it happened, ISO 8601 in UTC.
            level: One of `LEVELS`.
            text: What happened.
            origin: What said so.
        """
        state, severity = self.state.value, severity_of(level)
        state["appended"] += 1
        state["worst"] = severity if state["worst"] is None else min(severity, state["worst"])
        key = key_of(at, state["appended"])
        await self.log.put(key, {"severity": severity, "text": text, "origin": origin})
        await self.activation.persist()  # line and number together
        return key

    @action
    async def amend(self, key: str, text: str) -> None:
        """Say a line in other words; all else that is known of it stays."""

        def say(line: dict[str, Any]) -> None:
            line["text"] = text

        await self.log.update(key, say)
        await self.activation.persist()

    @action(shared=True)
    async def latest(self, limit: int = 20) -> list[Line]:
        """Return the newest lines, the newest first."""
        return [_line(key, line) async for key, line in self.log.scan(reverse=True, limit=limit)]

    @action(shared=True)
    async def search(self, prefix: str = "", level: str = "debug", limit: int = 100) -> list[Line]:
        """Return the first lines that are at least as severe as a level.

        Args:
            prefix: Of their time: "2024-03" for a month.
            level: One of `LEVELS`.
            limit: How many at most.
        """
        severity = severity_of(level)
        found: list[Line] = []
        async for key, line in self.log.scan(prefix=prefix):
            if len(found) == limit:
                break
            if line["severity"] <= severity:
                found.append(_line(key, line))
        return found

    @action(shared=True)
    async def count(self, prefix: str = "") -> int:
        """Return how many lines there are of a time; none of them is read."""
        return await self.log.count(prefix=prefix)

    @action(shared=True)
    async def worst(self) -> str | None:
        """Return the most severe level there ever was, trimmed or not; None before the first line."""
        worst: int | None = self.state.value["worst"]
        return None if worst is None else LEVELS[worst]

    @action
    async def trim(self, before: str) -> int:
        """Remove the lines before a time, and return how many."""
        return await self.log.delete_range(end=before)


def severity_of(level: str) -> int:
    """Return the number of a level.

    Raises:
        ValueError: It is none.
    """
    if level not in LEVELS:
        raise ValueError(f"{level!r} is no level. Give one of {', '.join(LEVELS)}.")
    return LEVELS.index(level)


def key_of(at: str, number: int) -> str:
    """Return the key of the line appended as the so-manyth: those of the same moment stay in order."""
    return f"{at} {number:08}"


def _line(key: str, line: dict[str, Any]) -> Line:
    return {"key": key, "level": LEVELS[line["severity"]], "text": line["text"], "origin": line["origin"]}


@dataclass(frozen=True)
class LogbookContext:
    """What migrations get besides the state."""

    log: Table


logbook = suite.actor_type(
    "Logbook", Logbook, state="logbook", context_factory=lambda activation: LogbookContext(activation.table("log"))
)


@logbook.migration("1.0.0")
async def lines_apart(state: dict[str, Any], context: LogbookContext) -> None:
    """Lines become entries of a table, which is read page by page."""
    lines = state.pop("lines", [])
    for number, line in enumerate(lines, 1):
        at, _, message = line.partition(" ")
        await context.log.put(key_of(at, number), {"message": message})
    state["appended"] = len(lines)


@logbook.migration("1.1.0")
def note_origin(state: dict[str, Any], context: object) -> None:
    """Lines say which program they are from."""


@note_origin.entries("log")
def no_origin(entry: dict[str, Any], context: object) -> None:
    """Nobody noted it before."""
    entry.setdefault("origin", None)


@logbook.migration("2.0.0")
def split_message(state: dict[str, Any], context: object) -> None:
    """Level and text instead of one message."""


@split_message.entries("log")
def split_entry(entry: dict[str, Any], context: object) -> dict[str, Any]:
    """Split a message at its first colon; one without has no level."""
    level, colon, text = entry.pop("message").partition(": ")
    return {**entry, "level": level, "text": text} if colon else {**entry, "level": None, "text": level}


@split_entry.down
def join_entry(entry: dict[str, Any], context: object) -> dict[str, Any]:
    """Put level and text together again."""
    level, text = entry.pop("level"), entry.pop("text")
    return {**entry, "message": text if level is None else f"{level}: {text}"}


@logbook.migration("3.0.0")
async def count_worst(state: dict[str, Any], context: LogbookContext) -> None:
    """Levels are numbers, and the logbook knows the worst it ever had."""
    state["worst"] = None
    async for _, line in context.log.scan():
        state["worst"] = min(line["severity"], len(LEVELS) if state["worst"] is None else state["worst"])


@count_worst.entries("log", eager=True)
def number_level(entry: dict[str, Any], context: object) -> None:
    """Give a level its number; what stood before a colon and is none is text, and a notice like all without level."""
    said = entry.pop("level")
    name = "notice" if said is None else said.strip().lower()
    name = ALSO_KNOWN_AS.get(name, name)
    if name not in LEVELS:
        entry["text"] = f"{said}: {entry['text']}"
        name = "notice"
    entry["severity"] = LEVELS.index(name)
