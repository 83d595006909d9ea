"""What a sweep did, as one answer that can be added to others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lazymig import _version
from lazymig.errors import DefinitionError, LateMigrationError, LazymigError, MigrationFailedError, QuarantinedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from semver import Version

    from lazymig._records import ActorKey, Stamp
    from lazymig.rollout._preflight_report import Preflight

Ending = Literal["running", "finished", "limit", "stopped", "failures"]
"""Why a sweep ended; "running" while it did not."""

_WORST = ("finished", "limit", "failures", "stopped", "running")


@dataclass(frozen=True, slots=True)
class FailedActor:
    """An actor that could not be brought up.

    Attributes:
        key: The actor.
        version: Of the migration that failed, or that is late; None where the actor was refused for another reason.
        error: What was wrong with it, with the cure.
    """

    key: ActorKey
    version: Version | None
    error: str

    @classmethod
    def of(cls, key: ActorKey, error: Exception) -> FailedActor:
        """Return what an error says."""
        version = None
        if not isinstance(error, LazymigError):
            raised = f"{type(error).__name__}: {error}"
            cure = f"Correct the context factory of {key.type}, or what it uses."
            return cls(key, version, f"{key} can't be brought up: {raised}. {cure}")
        if isinstance(error, (MigrationFailedError, QuarantinedError)):
            version = error.version
        elif isinstance(error, LateMigrationError):
            version = error.late[0]
        cause = "" if error.__cause__ is None or str(error.__cause__) in str(error) else f" ({error.__cause__})"
        return cls(key, version, f"{error}{cause}")


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did, or has done so far; each actor is counted once. Reports of several sweeps can be added.

    Attributes:
        types: The actor types that were swept.
        migrated: Actors that were brought to the version their type is written at, up or down.
        from_versions: Those by the version that they had; without migration-info it is 0.0.0.
        current: Actors that needed nothing when it first came to them, or that others brought up meanwhile.
        busy: Actors that a node holds and that are not at that version: it brings them up, or the next sweep does.
        newer: Actors that are newer by a major than this software; they were left alone.
        failed: Actors that could not be brought up, in order of their keys.
        left: Actors that it did not come to, because it was ended before; some of them may need nothing.
        ended: Why it ended: "finished"; "limit" or "failures", of which it was to stop at so many; "stopped".
        passes: How often it went through the actors.
        seconds: How long it took.
        bytes_before: Size of the states that it brought up, before.
        bytes_after: Likewise, afterwards.
        preflight: What a dry run found; None of a real one.
        is_paused: Whether it pauses, as it was told to from elsewhere; in its progress only.
    """

    types: tuple[str, ...] = ()
    migrated: int = 0
    from_versions: Mapping[Version, int] = field(default_factory=dict)
    current: int = 0
    busy: int = 0
    newer: int = 0
    failed: tuple[FailedActor, ...] = ()
    left: int = 0
    ended: Ending = "running"
    passes: int = 0
    seconds: float = 0.0
    bytes_before: int = 0
    bytes_after: int = 0
    preflight: Preflight | None = None
    is_paused: bool = False

    @property
    def actors(self) -> int:
        """How many actors it is about."""
        return self.migrated + self.current + self.busy + self.newer + len(self.failed) + self.left

    @property
    def is_complete(self) -> bool:
        """Whether every actor is at the version its type is written at; of a dry run, whether it would be."""
        return self.ended == "finished" and not (self.busy or self.newer or self.failed or self.left)

    @property
    def rate(self) -> float:
        """Actors migrated a second."""
        return self.migrated / self.seconds if self.seconds > 0 else 0.0

    def __add__(self, other: SweepReport) -> SweepReport:
        """Return the report of both sweeps, of which each swept other actors.

        Raises:
            DefinitionError: Both swept a type: its actors would count twice.
        """
        if not isinstance(other, SweepReport):
            return NotImplemented
        if twice := set(self.types) & set(other.types):
            raise DefinitionError(
                f"both reports have swept {min(twice)}, whose actors would count twice. Add reports of other types."
            )
        counts = Counter(self.from_versions) + Counter(other.from_versions)
        summed = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        return replace(
            self,
            **summed,
            types=tuple(sorted({*self.types, *other.types})),
            from_versions={version: counts[version] for version in sorted(counts)},
            failed=tuple(sorted((*self.failed, *other.failed), key=lambda one: one.key)),
            ended=max(self.ended, other.ended, key=_WORST.index),
            passes=max(self.passes, other.passes),
            preflight=_added(self.preflight, other.preflight),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values: its attributes by name, versions and keys as strings, the counts that follow."""
        return {
            "types": list(self.types),
            "actors": self.actors,
            "migrated": self.migrated,
            "from_versions": {str(version): count for version, count in self.from_versions.items()},
            "current": self.current,
            "busy": self.busy,
            "newer": self.newer,
            "failed": [
                {
                    "type": one.key.type,
                    "id": one.key.id,
                    "version": None if one.version is None else str(one.version),
                    "error": one.error,
                }
                for one in self.failed
            ],
            "left": self.left,
            "ended": self.ended,
            "complete": self.is_complete,
            "passes": self.passes,
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 1),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "preflight": None if self.preflight is None else self.preflight.to_json(),
        }


_SUMMED = ("migrated", "current", "busy", "newer", "left", "seconds", "bytes_before", "bytes_after")


def _added(first: Preflight | None, second: Preflight | None) -> Preflight | None:
    if first is None or second is None:
        return first or second
    return first + second


@dataclass(slots=True)
class Tally:
    """What a sweep of one type counts as it goes on.

    Attributes:
        actor_type: The type.
        migrated: As in the report; likewise the others.
        total: How many actors there were when it was last counted.
        stale: How many of them were not at their version.
        began_at: When it got its first lock, by the store's wall clock; None before that.
        missed: Actors that a node held in the first pass, and that were not counted since.
        migrated_when_counted: How many were migrated then.
        unchanged: How many actors of this pass are not at their version, and need nothing: without a main state.
    """

    actor_type: str
    migrated: int = 0
    from_versions: Counter[int] = field(default_factory=Counter)
    busy: set[str] = field(default_factory=set)
    newer: int = 0
    failed: dict[str, FailedActor] = field(default_factory=dict)
    passes: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    total: int = 0
    stale: int = 0
    began_at: datetime | None = None
    missed: set[str] = field(default_factory=set)
    migrated_when_counted: int = 0
    unchanged: int = 0

    def begin_pass(self) -> None:
        """Begin to go through the actors: those that were held may be free."""
        if self.passes == 1:
            self.missed = set(self.busy)
        self.passes += 1
        self.busy.clear()
        self.unchanged = 0

    def begin(self, now: datetime) -> None:
        """Note that a lock was got at a time."""
        self.began_at = self.began_at or now

    def is_first(self, actor_id: str, stamp: Stamp | None, *, is_stale: bool) -> bool:
        """Tell whether an actor that was brought up is one that was not counted before.

        Args:
            actor_id: Its id.
            stamp: As it was found; of what was migrated since it began, by this sweep or by a node, it tells that.
            is_stale: Whether that says that it was not at its version. Of others, what older software stores over what
                a sweep has mended tells nothing: they are counted when they are first come to.
        """
        if not (is_stale or self.passes == 1 or actor_id in self.missed):
            return False
        self.missed.discard(actor_id)
        migrated_at = None if stamp is None else stamp.migrated_at
        return migrated_at is None or self.began_at is None or migrated_at < self.began_at

    def add(self, version: int, count: int, before: int, after: int) -> None:
        """Count actors that were brought up from a version, packed, and their bytes."""
        self.migrated += count
        if count:
            self.from_versions[version] += count
        self.bytes_before += before
        self.bytes_after += after

    def note_total(self, total: int, stale: int, newer: int) -> None:
        """Note how many actors there are."""
        self.total, self.stale, self.newer, self.migrated_when_counted = total, stale, newer, self.migrated

    def report(self, ended: Ending, seconds: float) -> SweepReport:
        """Return what was counted."""
        unfinished = max(0, self.stale - (self.migrated - self.migrated_when_counted))
        others = max(0, self.total - self.migrated - len(self.busy) - self.newer - len(self.failed))
        left = min(others, max(0, unfinished - len(self.busy) - len(self.failed) - self.unchanged))
        versions = sorted(self.from_versions)
        return SweepReport(
            types=(self.actor_type,),
            migrated=self.migrated,
            from_versions={_version.unpack(number): self.from_versions[number] for number in versions},
            current=others - left,
            busy=len(self.busy),
            newer=self.newer,
            failed=tuple(self.failed[actor_id] for actor_id in sorted(self.failed)),
            left=left,
            ended=ended,
            passes=self.passes,
            seconds=seconds,
            bytes_before=self.bytes_before,
            bytes_after=self.bytes_after,
        )
