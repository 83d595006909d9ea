"""What a dry run of a sweep found, as one answer that can be added to others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig.rollout._preflight_times import Times, bucket_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig._records import ActorKey

MAX_DIFFERENCES = 100
"""How many are named; all actors with one are counted."""

MAX_ENTRIES = 10_000
"""How many entries of one actor are copied: a copy is in memory."""

MAX_BYTES = 50_000_000
"""How many bytes of them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A state or entry that isn't what it was once it is brought up and down again; its values are not told.

    Attributes:
        key: The actor.
        state: Name of the state; None for an entry.
        table: Name of the entry's table; None for a state.
        entry: Key of the entry; None for a state.
        path: The first place in the value that differs, as in ``$.owner.name``; "$" if it is there only before, or
            only afterwards, or could not be brought down.
        error: Why it could not be brought down; None if it could.
    """

    key: ActorKey
    state: str | None = None
    table: str | None = None
    entry: str | None = None
    path: str = "$"
    error: str | None = None


class Growth(NamedTuple):
    """How much more is stored of an actor.

    Attributes:
        key: The actor.
        before: Bytes of its states, its entries, its base, and what is kept from before a major version.
        after: Likewise.
    """

    key: ActorKey
    before: int
    after: int

    @property
    def bytes(self) -> int:
        """How many more."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Preflight:
    """What running the migrations on copies showed.

    Attributes:
        tried: Actors whose copies were brought up, or failed to come up.
        times: How long the migrations of each took, those of its entries included.
        bytes_before: Size of all that is stored of those that came up, see `Growth`.
        bytes_after: Likewise, afterwards.
        largest: The actor that grew most; None if none did.
        compared: Actors that were brought down again, and compared with what is stored.
        differing: Those of them that are not what they were.
        differences: The first ones, a state or table of an actor each.
        uncompared: Actors that were brought up and not down again: a migration that ran has no `down`, or ran late,
            or older software stored over what newer software had.
        held: Actors that a node holds.
        quarantined: Actors with the record of a migration that failed; they were tried all the same.
        truncated: Actors that have too many entries to copy all of them.
        waiting: Actors with entries whose conversions come only once the type is written at a later version.
        untried: Actors that it did not come to, or that were never still for long enough.
    """

    tried: int = 0
    times: Times = field(default_factory=Times)
    bytes_before: int = 0
    bytes_after: int = 0
    largest: Growth | None = None
    compared: int = 0
    differing: int = 0
    differences: tuple[Difference, ...] = ()
    uncompared: int = 0
    held: int = 0
    quarantined: int = 0
    truncated: int = 0
    waiting: int = 0
    untried: int = 0

    @property
    def unproven(self) -> tuple[str, ...]:
        """What this can't prove, a sentence each, for people."""
        return tuple(_unproven(self))

    def __add__(self, other: Preflight) -> Preflight:
        """Return what both found."""
        summed = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        grown = [found for found in (self.largest, other.largest) if found is not None]
        differences = sorted((*self.differences, *other.differences), key=lambda one: one.key)
        return replace(
            self,
            **summed,
            largest=max(grown, key=lambda growth: growth.bytes, default=None),
            differences=tuple(differences[:MAX_DIFFERENCES]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values: what it can't prove, then its attributes by name, keys as strings."""
        largest = self.largest
        times = {"p50": self.times.p50, "p95": self.times.p95, "p99": self.times.p99, "max": self.times.longest}
        return {
            "unproven": list(self.unproven),
            **{name: getattr(self, name) for name in _SUMMED if name != "times"},
            "seconds": {name: round(seconds, 7) for name, seconds in times.items()},
            "largest": None
            if largest is None
            else {
                "type": largest.key.type,
                "id": largest.key.id,
                "bytes_before": largest.before,
                "bytes_after": largest.after,
            },
            "differences": [
                {
                    "type": one.key.type,
                    "id": one.key.id,
                    "state": one.state,
                    "table": one.table,
                    "entry": one.entry,
                    "path": one.path,
                    "error": one.error,
                }
                for one in self.differences
            ],
        }


_SUMMED = (
    *("tried", "times", "bytes_before", "bytes_after", "compared", "differing", "uncompared", "held", "quarantined"),
    *("truncated", "waiting", "untried"),
)


def _unproven(found: Preflight) -> Iterator[str]:
    """Yield what is not proved: what never can be, then what was not this time."""
    yield "What others store meanwhile: each actor was read once, without its lock, and may be another one by now."
    yield (
        "What migrations do outside the store: it happened, unless they leave it out where activation.is_projection "
        "is true, as in all of them here; then it was not tried."
    )
    yield "How long actors are locked, and what storing them costs: nothing was stored."
    yield "Whether a node of this release may start beside what the store has seen: starting one tells."
    if found.held:
        yield f"What becomes of {_actors(found.held)} that a node holds now: tried as last stored."
    if found.quarantined:
        yield (
            f"When {_actors(found.quarantined)} come up whose migration failed before: they were tried here, a sweep "
            f"leaves them until their next try is due."
        )
    if found.truncated:
        yield (
            f"What becomes of the other entries of {_actors(found.truncated)} with more than {MAX_ENTRIES:,} entries "
            f"or {MAX_BYTES:,} bytes of them: those above were not tried."
        )
    if found.waiting:
        yield (
            f"What becomes of the entries of {_actors(found.waiting)} above the write version: they are converted once "
            f"it is raised."
        )
    if found.uncompared:
        yield (
            f"Whether {_actors(found.uncompared)} could be brought down again: a migration that ran has no down, or "
            f"ran late, or older software stored last."
        )
    if found.untried:
        yield f"What becomes of {_actors(found.untried)} that it did not come to, or that changed all the time."


def _actors(count: int) -> str:
    return f"{count:,} actor{'s' * (count != 1)}"


@dataclass(slots=True)
class Findings:
    """What a preflight finds as it goes on; attributes as in `Preflight`."""

    times: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0
    bytes_before: int = 0
    bytes_after: int = 0
    largest: Growth | None = None
    compared: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)
    uncompared: int = 0
    tried: int = 0
    held: int = 0
    quarantined: int = 0
    truncated: int = 0
    waiting: int = 0
    moving: int = 0

    def note_time(self, seconds: float) -> None:
        """Note how long an actor took."""
        self.times[bucket_of(seconds)] += 1
        self.longest = max(self.longest, seconds)

    def note_growth(self, growth: Growth) -> None:
        """Note the size of an actor."""
        self.bytes_before += growth.before
        self.bytes_after += growth.after
        if growth.bytes > (0 if self.largest is None else self.largest.bytes):
            self.largest = growth

    def note_differences(self, found: list[Difference] | None) -> None:
        """Note how an actor differs; None: it was not compared."""
        if found is None:
            self.uncompared += 1
            return
        self.compared += 1
        self.differing += bool(found)
        self.differences += found[: MAX_DIFFERENCES - len(self.differences)]

    def report(self, left: int) -> Preflight:
        """Return what was found.

        Args:
            left: How many actors it did not come to, or could not copy.
        """
        return Preflight(
            tried=self.tried,
            times=Times(dict(self.times), self.longest),
            bytes_before=self.bytes_before,
            bytes_after=self.bytes_after,
            largest=self.largest,
            compared=self.compared,
            differing=self.differing,
            differences=tuple(sorted(self.differences, key=lambda one: one.key)),
            uncompared=self.uncompared,
            held=self.held,
            quarantined=self.quarantined,
            truncated=self.truncated,
            waiting=self.waiting,
            untried=left,
        )
