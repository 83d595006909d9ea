"""What a gate answers, and the codes of its reasons."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from semver import Version

Question = Literal["pin", "flip", "unpin", "retire", "roll_back"]

CODES = {
    "unreadable_nodes": "the store has rows of nodes that can't be read: any gate",
    "store_failed": "the store could not be asked: any gate",
    "corrupt": "what the store has of the type can't be read: any gate",
    "above_write_version": "a pin doesn't go up",
    "below_write_version": "a flip doesn't go down",
    "not_supported": "a node's release ends below the version: pin, flip",
    "cannot_store": "newer software has no way down to the version: pin, flip, roll back",
    "cannot_read": "a node could not read what others would store, or its baseline is above that: unpin",
    "silent_nodes": "a node sends no heartbeat, and may wake up: flip",
    "late_without_consent": "what is or will be stored lacks a version that may not run late: flip, unpin, roll back",
    "unknown_version": "no release has or had it: flip, retire",
    "actors_lack": "stored actors lack the migration: retire",
    "entries_lack": "entries lack it: retire",
    "bases_lack": "what newer software kept lacks it: retire",
    "actors_drifted": "older software stored last, so its reconcile is still to come: retire",
    "nodes_lack": "a node's release lacks it: retire",
    "write_version_below": "the type is written at a version below it: retire",
    "unknown_release": "no release ever ended at the version: roll back",
    "actors_newer": "stored actors are newer by a major: roll back",
    "converting_newer": "a conversion of entries to a newer major was begun: roll back",
    "entries_newer": "entries are newer by a major: roll back",
    "bases_newer": "a base of a newer major stands where the release needs one of its own, or migrates: roll back",
    "actors_too_old": "stored actors are below the release's baseline: roll back",
    "entries_too_old": "entries are below it: roll back",
    "nodes_store_newer": "nodes store what the release can't read: roll back",
    "nodes_retired": "a node's baseline is above the release, so it could not bring up what that stores: roll back",
    "write_version_above": "the type is written above the release: roll back",
}
"""The code of each reason and when it is given; they keep their meaning from release to release."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a gate says no.

    Attributes:
        code: One of `CODES`.
        text: What was found, and the cure.
        nodes: Ids of the nodes that it is about, in order of their labels.
        count: How many actors it is about.
        actors: Ids of the first few of them, in order.
    """

    code: str
    text: str
    nodes: tuple[str, ...] = ()
    count: int = 0
    actors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a step of a deploy is safe; true if it is.

    Attributes:
        question: "pin", "flip", "unpin", "retire" or "roll_back".
        type: The actor type.
        version: The version asked about; None for "unpin".
        reasons: Why not; none if it is allowed.
        notes: What to know all the same, for people.
        is_changed: Whether the write version was changed now.
    """

    question: Question
    type: str
    version: Version | None
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    is_changed: bool = False

    @property
    def allowed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def __bool__(self) -> bool:
        """Return `allowed`."""
        return self.allowed

    @property
    def title(self) -> str:
        """The question for people, as in "flip Vehicle to 2.0.0"."""
        if self.version is None:
            return f"unpin {self.type}"
        if self.question == "retire":
            return f"retire {self.version} of {self.type}"
        return f"{self.question.replace('_', ' ')} {self.type} to {self.version}"


def command(*words: object) -> str:
    """Return a line for a shell, of printable characters only."""
    texts = list(map(str, words))
    options = [number for number, text in enumerate(texts) if text.startswith("-")]
    if options:
        texts.insert(options[0], "--")  # what follows is no option
    return " ".join(("lazymig", *map(_quoted, texts)))


def _quoted(text: str) -> str:
    """Return a word for a shell; one that could not be shown as it is, in the form with escapes."""
    if text.isprintable() and "  " not in text:
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable() and char != " ":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())
