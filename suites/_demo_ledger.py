"""What the demo's processes write down, what they add up to, and the proof that the store agrees.

Rules:

1. A process writes a call down before it makes it and again when it knows the outcome, each a line that is with the
   operating system before anything else happens: SIGKILL loses no line.
2. A call without outcome may have happened or not. Only a killed process may leave one, and at most one a vehicle.
3. The proof knows the legacy data and the ledgers alone; it asks no software of the demo what should be there.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from lazymig import ActorRecord

TOLERANCE = 1e-6
"""In m/s: floats that were added in another order differ by less than a billionth."""

Legacy = dict[str, dict[str, Any]]
"""Plate to vehicle as the legacy data has it, km/h and all."""


class Ledger:
    """One process's lines: words between tabs, the first of which says what happened.

    ============= ===================== ================================================================
    ``begin``     number, plate, delta  an acceleration is about to be asked for
    ``done``      number                it was acknowledged
    ``void``      number, error         it did not happen
    ``lost``      number                the process that ran it was killed
    ``read``      plate                 a velocity was read
    ``unread``    plate, error          it was not
    ``migrated``  plate, version        a migration was committed
    ``projected`` plate, version        one ran that is above what the vehicle is written at: for the base
    ============= ===================== ================================================================
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        """Return it open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def write(self, *words: object) -> None:
        """Hand one line to the operating system."""
        self._file.write("\t".join(map(str, words)).encode() + b"\n")


@dataclass
class Tally:
    """What one process has written down so far; `catch_up` reads on.

    Attributes:
        path: Its ledger.
        acknowledged: Plate to the deltas that were acknowledged.
        pending: Number to plate and delta of accelerations without outcome.
        lost: Plate and delta of accelerations whose process was killed: they may have happened.
        migrated: How often each version was applied to each plate.
        projections: How many migrations ran above what their vehicle is written at; such a one may run again.
        reads: Velocities read.
        writes: Accelerations acknowledged.
        was_killed: Its process was: calls may be without outcome.
        errors: Calls that did not happen, by the error's name.
    """

    path: Path
    acknowledged: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pending: dict[str, tuple[str, float]] = field(default_factory=dict)
    lost: list[tuple[str, float]] = field(default_factory=list)
    migrated: Counter[tuple[str, str]] = field(default_factory=Counter)
    projections: int = 0
    reads: int = 0
    writes: int = 0
    was_killed: bool = False
    errors: Counter[str] = field(default_factory=Counter)
    _offset: int = 0

    @property
    def calls(self) -> int:
        """Calls that were answered."""
        return self.reads + self.writes

    def catch_up(self) -> Self:
        """Read the lines that came since; one that is not finished is left for later."""
        if not self.path.exists():
            return self
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._offset += len(whole) + 1
            for line in whole.decode().split("\n"):
                self._note(*line.split("\t"))
        return self

    def _note(self, what: str, subject: str, *rest: str) -> None:
        match what, rest:
            case "begin", (plate, delta):
                self.pending[subject] = (plate, float(delta))
            case "done", ():
                plate, change = self.pending.pop(subject)
                self.acknowledged[plate].append(change)
                self.writes += 1
            case "void", (error,):
                del self.pending[subject]
                self.errors[error] += 1
            case "lost", ():
                self.lost.append(self.pending.pop(subject))
                self.errors["CallLostError"] += 1
            case "read", ():
                self.reads += 1
            case "unread", (error,):
                self.errors[error] += 1
            case "migrated", (version,):
                self.migrated[subject, version] += 1
            case "projected", (_,):
                self.projections += 1
            case _:
                raise ValueError(f"{self.path} has a line that means nothing: {what!r}")


@dataclass(frozen=True)
class Books:
    """The ledgers of all processes, added up.

    Attributes:
        acknowledged: Plate to the sum of the acknowledged deltas.
        possible: Plate to deltas that may have happened, those of killed processes.
        migrated: How often each version was applied to each plate.
        unsettled: Calls without outcome that nothing excuses, a sentence each.
    """

    acknowledged: Mapping[str, float]
    possible: Mapping[str, list[float]]
    migrated: Counter[tuple[str, str]]
    unsettled: list[str]

    @classmethod
    def of(cls, tallies: Iterable[Tally]) -> Books:
        """Add tallies up."""
        acknowledged: dict[str, float] = defaultdict(float)
        possible: dict[str, list[float]] = defaultdict(list)
        migrated: Counter[tuple[str, str]] = Counter()
        unsettled: list[str] = []
        for tally in tallies:
            for plate, deltas in tally.acknowledged.items():
                acknowledged[plate] += math.fsum(deltas)
            for plate, delta in (*tally.pending.values(), *tally.lost):
                possible[plate].append(delta)
            migrated.update(tally.migrated)
            left = Counter(plate for plate, _ in tally.pending.values())
            unsettled += [
                f"{plate} has {count} calls without outcome in {tally.path.name}"
                for plate, count in left.items()
                if count > tally.was_killed
            ]
        return cls(acknowledged, possible, migrated, unsettled)


def prove(legacy: Legacy, books: Books, records: Mapping[str, ActorRecord | None]) -> list[str]:
    """Return what is wrong with the store, a sentence each; nothing if every vehicle is there with the right values."""
    faults = [
        f"{plate} {fault}"
        for plate, vehicle in legacy.items()
        for fault in _faults(vehicle, books, plate, records.get(plate))
    ]
    faults += [f"{plate} was never imported" for plate in sorted(records.keys() - legacy.keys())]
    faults += [
        f"{plate} had migration {version} {times} times"
        for (plate, version), times in books.migrated.items()
        if times > 1
    ]
    return faults + books.unsettled


def _faults(vehicle: dict[str, Any], books: Books, plate: str, record: ActorRecord | None) -> Iterator[str]:
    if record is None:
        yield "is gone"
        return
    applied = () if record.info is None else tuple(map(str, record.info.applied))
    expected = _shape(vehicle, applied)
    if expected is None:
        yield f"has had the migrations {', '.join(applied)}, which no release has"
        return
    found = dict(record.states["vehicle"])
    if expected.keys() != found.keys():
        yield f"has the fields {sorted(found)} instead of {sorted(expected)}"
        return
    velocity = found.pop("velocity")
    start = expected.pop("velocity")
    if found != expected:
        yield f"has {found} instead of {expected}"
    possible = _sums(start + books.acknowledged.get(plate, 0.0), books.possible.get(plate, []))
    if not any(math.isclose(velocity, one, rel_tol=0, abs_tol=TOLERANCE) for one in possible):
        yield f"has the velocity {velocity} instead of {' or '.join(map(str, possible))}"


def _shape(vehicle: dict[str, Any], applied: tuple[str, ...]) -> dict[str, Any] | None:
    """Return what the legacy vehicle is after migrations and no calls; None if no release applies just those."""
    owner = vehicle["owner"]
    moved = {**vehicle, "velocity": vehicle["velocity"] / 3.6}
    match applied:
        case ():
            return dict(vehicle)
        case ("1.0.0", "1.1.0"):
            return {**moved, "driver": owner}
        case ("1.0.0", "1.1.0", "2.0.0"):
            return {**moved, "drivers": [] if owner is None else [owner]}
    return None


def _sums(certain: float, possible: list[float]) -> list[float]:
    """Return every sum of what is certain and some of what is possible."""
    return [
        certain + math.fsum(chosen) for count in range(len(possible) + 1) for chosen in combinations(possible, count)
    ]
