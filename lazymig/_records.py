"""Frozen values: what stores, plans and activations hand to each other.

Three words: the **version** is always the schema version; the **revision** counts an actor's commits and never
restarts; the **fence** says who may write. A fence is the pair (node incarnation, number counted by that node): it is
never used twice, whatever a store forgets, and only equality is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _version
from lazymig._bases import NO_POLICY
from lazymig._info import MigrationInfo
from lazymig.errors import InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from semver import Version

    from lazymig._bases import Base, BaseWrite, WritePolicy
    from lazymig._entries import Entry
    from lazymig._fleet_records import Offer
    from lazymig._quarantine import Failure, Quarantine

MAX_ID_BYTES = 1_000
MAX_NAME_BYTES = 200


def check_text(what: str, value: object, max_bytes: int) -> None:
    """Refuse what can't be a type, id or name on every store.

    Raises:
        InvalidKeyError: Not a string, empty, too long, or with NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidKeyError(what, value, f"is of type {type(value).__name__}")
    if not value:
        raise InvalidKeyError(what, value, "is empty")
    if "\0" in value:
        raise InvalidKeyError(what, value, "contains NUL")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidKeyError(what, value, "contains a lone surrogate") from None
    if size > max_bytes:
        raise InvalidKeyError(what, value, f"has {size:,} bytes of UTF-8, more than {max_bytes:,}")


@dataclass(frozen=True, slots=True, order=True)
class ActorKey:
    """Names one actor; sorts by type, then id, each by code point.

    Attributes:
        type: Actor type, at most 200 bytes of UTF-8.
        id: Actor id, at most 1,000 bytes of UTF-8.
    """

    type: str
    id: str

    def __post_init__(self) -> None:
        """Check both parts."""
        check_text("an actor type", self.type, MAX_NAME_BYTES)
        check_text("an actor id", self.id, MAX_ID_BYTES)

    def __str__(self) -> str:
        """Return it as people read it."""
        return f"{self.type} {self.id!r}"


class Fence(NamedTuple):
    """Who may write an actor.

    Attributes:
        node: Incarnation of the node, drawn at each registration.
        number: Counted by that node, never used twice.
    """

    node: str
    number: int


class AppliedSet:
    """An ordered set of versions, optionally beginning with a floor that counts as every version up to it.

    Stores name each by a small integer and hand out one object for it, so that what follows from a set (its pending
    migrations, its public form) is worked out once, not once an actor.
    """

    __slots__ = ("_hash", "_versions", "floor", "packed")

    def __init__(self, packed: Iterable[int] = (), floor: int = 0) -> None:
        self.floor = floor
        self.packed = tuple(sorted({number for number in packed if number > floor}))
        self._hash = hash((floor, self.packed))
        self._versions: tuple[Version, ...] | None = None

    def __eq__(self, other: object) -> bool:
        """Compare floor and versions."""
        return isinstance(other, AppliedSet) and (self.floor, self.packed) == (other.floor, other.packed)

    def __hash__(self) -> int:
        """Return the hash of floor and versions, computed once."""
        return self._hash

    def __repr__(self) -> str:
        """Show the versions."""
        floor = f"up to {_version.unpack(self.floor)}, " if self.floor else ""
        return f"AppliedSet({floor}{', '.join(str(_version.unpack(number)) for number in self.packed)})"

    @property
    def highest(self) -> int:
        """The highest version, packed: the actor's version; 0 if nothing was applied."""
        return self.packed[-1] if self.packed else self.floor

    @property
    def versions(self) -> tuple[Version, ...]:
        """All versions in order, the floor first."""
        if self._versions is None:
            numbers = (self.floor, *self.packed) if self.floor else self.packed
            self._versions = tuple(_version.unpack(number) for number in numbers)
        return self._versions

    def has(self, version: int) -> bool:
        """Tell whether it has a version, packed."""
        return version <= self.floor or version in self.packed

    def up_to(self, version: int) -> AppliedSet:
        """Return what of it is not above a version, packed."""
        return AppliedSet((number for number in self.packed if number <= version), min(self.floor, version))

    def covers(self, other: AppliedSet) -> bool:
        """Tell whether software that registers this set knows all that the other has.

        A floor counts as every version up to it, also as those that nobody ever registered: it is known from below.
        """
        if self is other:
            return True
        return other.floor <= self.highest and all(self.has(version) for version in other.packed)

    def union(self, other: AppliedSet) -> AppliedSet:
        """Return the set of what either has; the higher floor stands."""
        return AppliedSet((*self.packed, *other.packed), max(self.floor, other.floor))


class Stamp(NamedTuple):
    """Migration-info as stores and plans pass it.

    Attributes:
        applied: What was applied to the actor.
        writer: What the software registers that last stored a state.
        migrated_at: Aware UTC time of the last migration, or None.
    """

    applied: AppliedSet
    writer: AppliedSet
    migrated_at: datetime | None = None

    @property
    def info(self) -> MigrationInfo:
        """The same as users see it."""
        floor = _version.unpack(self.applied.floor) if self.applied.floor else None
        written_by = _version.unpack(self.writer.highest)
        return MigrationInfo(self.applied.versions, written_by, self.migrated_at, floor)

    @classmethod
    def of(cls, info: MigrationInfo) -> Stamp:
        """Return the stamp that `info` shows."""
        floor = 0 if info.floor is None else _version.pack(info.floor)
        applied = AppliedSet((_version.pack(version) for version in info.applied), floor)
        return cls(applied, AppliedSet((_version.pack(info.written_by),)), info.migrated_at)


class Marks(NamedTuple):
    """What an actor's row says of its entries.

    Attributes:
        converting: The version, packed, that an eager conversion under way converts them to; 0 without one.
        oldest: No entry's version, packed, is below it; None if it has no entries.
    """

    converting: int = 0
    oldest: int | None = None


NO_MARKS = Marks()


class StoredActor(NamedTuple):
    """An actor as a store has it.

    Attributes:
        key: The actor.
        revision: Counts its commits; 0 if it was never stored.
        stamp: None for an imported actor that no software has migrated yet.
        states: Name to encoded value.
        owner: Node id of the lock's holder, or None.
        number: Number of the holder's fence, 0 without a holder.
        marks: Of its entries.
        base: What newer software last stored, where older software can't; None without one.
        failure: Of the migration that failed last; None without one.
    """

    key: ActorKey
    revision: int
    stamp: Stamp | None
    states: Mapping[str, bytes]
    owner: str | None = None
    number: int = 0
    marks: Marks = NO_MARKS
    base: Base | None = None
    failure: Failure | None = None


class Previous(NamedTuple):
    """What an actor was before a commit across a major version.

    Attributes:
        stamp: As it was stored; None if it had none.
        states: Name to encoded value: all it had, at least one.
    """

    stamp: Stamp | None
    states: Mapping[str, bytes]


class Claim(NamedTuple):
    """A lock that was got, with what it protects.

    Attributes:
        fence: To be carried by every write.
        actor: The actor as stored; revision 0 and no states if it is unknown.
        now: The store's wall clock, aware UTC.
        policy: What the actors of its type are stored as.
    """

    fence: Fence
    actor: StoredActor
    now: datetime
    policy: WritePolicy = NO_POLICY


class Held(NamedTuple):
    """A lock that was not got.

    Attributes:
        owner: Node id of the holder.
    """

    owner: str


class Commit(NamedTuple):
    """One atomic change of an actor's states, entries and stamp.

    Attributes:
        key: The actor.
        fence: Of the claim.
        revision: That the actor has now; it rises by one.
        stamp: The stamp afterwards.
        writes: Name to encoded value; None removes the state.
        release: Give the lock up in the same transaction.
        entries: Table and key to entry; None removes it.
        marks: Of its entries afterwards; None leaves them as they are, and goes with no entries only. If no entry is
            left, `Marks.oldest` becomes None.
        epoch: Of the write policy that it was made for.
        base: How the base changes; None: it stays.
        has_new_sets: Whether the stamp is known to have other sets than the stored one: it only saves time.
        keeps_previous: Whether the stamp and all states as stored before it are kept, in place of what was kept so far;
            False: nothing is kept any more; None: what is kept stays.
        clears_failure: Remove the record of a migration that failed.
    """

    key: ActorKey
    fence: Fence
    revision: int
    stamp: Stamp | None
    writes: Mapping[str, bytes | None]
    release: bool = False
    entries: Mapping[tuple[str, str], Entry | None] = {}
    marks: Marks | None = None
    epoch: int = 0
    base: BaseWrite | None = None
    has_new_sets: bool = False
    keeps_previous: bool | None = None
    clears_failure: bool = False


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as the store registers it.

    Attributes:
        node_id: The incarnation.
        label: For people.
        build: Name of the release it runs, or None.
        lease_seconds: How long it counts as alive after a heartbeat.
        offers: What it can do, by type.
    """

    node_id: str
    label: str
    build: str | None
    lease_seconds: float
    offers: Sequence[Offer] = ()


@dataclass(frozen=True, slots=True)
class ActorRecord:
    """An actor as `Node.inspect` shows it.

    Attributes:
        key: The actor.
        info: None for an imported actor that no software has migrated yet.
        states: Name to the value as stored.
        owner: Node id of the lock's holder, or None.
        revision: Counts the actor's commits.
        converting: The version that an eager conversion of its entries is under way to, or None.
        has_entries: Whether its tables have entries.
        quarantine: The record of its migration that failed; None without one.
    """

    key: ActorKey
    info: MigrationInfo | None
    states: Mapping[str, Any]
    owner: str | None = None
    revision: int = 0
    converting: Version | None = None
    has_entries: bool = False
    quarantine: Quarantine | None = None
