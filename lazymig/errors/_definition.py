"""Errors of a suite, and of keys and values."""

from __future__ import annotations

from reprlib import Repr
from typing import TYPE_CHECKING

from lazymig.errors._base import LazymigError, counted, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semver import Version


_SHOWN = Repr()
"""Shows a value in part: what was read from a store may be long, or too deep for `repr`."""
_SHOWN.maxstring = _SHOWN.maxother = 80


class DefinitionError(LazymigError):
    """A suite, actor type, migration or action is defined wrongly; no data was touched."""


class InvalidVersionError(DefinitionError):
    """A version that isn't MAJOR.MINOR.PATCH of a release (SemVer 2.0.0, section 2).

    Attributes:
        version: What was given, as text.
        reason: Why it is none.
    """

    def __init__(self, version: object, reason: str) -> None:
        shown = _SHOWN.repr(version)
        self.reason = reason
        self.version = version if isinstance(version, str) else shown
        super().__init__(f"{shown} is no version: {reason}. Write MAJOR.MINOR.PATCH, like '1.0.0'.")


class DuplicateMigrationError(DefinitionError):
    """Two migrations of one actor type have the same version.

    Attributes:
        actor_type: Name of the actor type.
        version: The version registered twice.
    """

    def __init__(self, actor_type: str, version: Version, first: str, second: str) -> None:
        self.actor_type = actor_type
        self.version = version
        super().__init__(
            f"{actor_type} has two migrations {version}: {first!r} and {second!r}. Give {second!r} a higher version."
        )


class MigrationOrderError(DefinitionError):
    """A migration's version isn't above the one registered before it.

    Attributes:
        actor_type: Name of the actor type.
        version: The version that is out of order.
        previous: The version before it: a migration's, or the baseline.
    """

    def __init__(self, actor_type: str, version: Version, previous: Version, what: str = "migration") -> None:
        self.actor_type = actor_type
        self.version = version
        self.previous = previous
        super().__init__(
            f"{actor_type} registers {version} after {what} {previous}, but order in the source is the order of "
            f"execution. Move it before {previous}, or give it a version above {previous}."
        )


class FrozenDefinitionError(DefinitionError):
    """An actor type was changed after a node or a tool had started to use it.

    Attributes:
        actor_type: Name of the actor type.
    """

    def __init__(self, actor_type: str) -> None:
        self.actor_type = actor_type
        super().__init__(
            f"{actor_type} is in use and can't be changed any more. Register its migrations at import, "
            f"before the first Node or tool uses the suite."
        )


class MissingMigrationError(DefinitionError):
    """A new release lacks a migration that this store has seen, and no baseline stands for it; the node did not start.

    Attributes:
        actor_type: Name of the actor type.
        versions: What it lacks.
        baseline: What its baseline has to be at least.
        count: How many actors are below that, or have entries below it.
        actors: Ids of the first of them.
    """

    def __init__(  # noqa: PLR0913  (the last is for the message)
        self,
        actor_type: str,
        versions: Sequence[Version],
        baseline: Version,
        count: int,
        actors: Sequence[str],
        *,
        of_entries: bool = False,
    ) -> None:
        self.actor_type = actor_type
        self.versions = tuple(versions)
        self.baseline = baseline
        self.count = count
        self.actors = tuple(actors)
        cure = (
            f"Put them back; they can be retired by a baseline once every actor and entry is at {baseline} or above."
            if count
            else f"Put them back, or retire them with baseline='{baseline}' or above."
        )
        super().__init__(
            f"{actor_type} has no migration {listed(versions)}, which an earlier release had on this store: "
            f"{counted(count, actors, ' with entries' if of_entries else '')} below {baseline}. {cure}"
        )


class WriteVersionError(DefinitionError):
    """A node can't store a type at its write version; it did not start.

    Attributes:
        actor_type: Name of the actor type.
        write_version: What its actors are to be stored as.
        reason: Why that can't be.
        nodes: Ids of the registered nodes that are in the way; none if it is this node.
    """

    def __init__(self, actor_type: str, write_version: Version, reason: str, nodes: Sequence[str] = ()) -> None:
        self.actor_type = actor_type
        self.write_version = write_version
        self.reason = reason
        self.nodes = tuple(nodes)
        message = (
            f"{actor_type} can't get its first write version, write_version='{write_version}': {reason}. Replace or "
            f"stop these nodes first, or leave write_version= out."
            if nodes
            else f"the write version of {actor_type} is {write_version}, and this node can't store it so: {reason}. "
            f"Give it what it lacks, start a release that is nearer, or change the write version first."
        )
        super().__init__(message)


class InvalidKeyError(LazymigError, ValueError):
    """A type, id or name that no store takes.

    Attributes:
        what: "an actor type", "an actor id", "an entry key" and so on.
        value: What was given, as text.
    """

    def __init__(self, what: str, value: object, reason: str) -> None:
        self.what = what
        self.value = value if isinstance(value, str) else repr(value)
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"
        super().__init__(
            f"{shown} can't be {what}: it {reason}. Use a string that is not empty, without NUL or lone surrogates, "
            f"at most 1000 bytes of UTF-8 for ids and keys, and 200 for types and names."
        )


class InvalidValueError(LazymigError, ValueError):
    """A value that JSON can't hold unchanged; it was not stored.

    Attributes:
        subject: What the value is of, e.g. "state 'vehicle' of Vehicle 'car-1'".
        path: Where in the value, as in "$.drivers[0]".
        reason: What is wrong there.
    """

    def __init__(self, subject: str, path: str, reason: str, cure: str | None = None) -> None:
        self.subject = subject
        self.path = path
        self.reason = reason
        super().__init__(
            f"{subject} can't be stored as JSON: {path} {reason}. "
            f"{cure or 'Use str, bool, int of 64 bits, finite float, None, list, and dict with str keys.'}"
        )
