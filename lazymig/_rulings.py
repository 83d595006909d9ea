"""Rulings: what is decided about a fleet from what its store says, in the transaction that acts on it.

A ruling is a generator without I/O. It yields questions, is sent the store's answers, and returns what is to be done,
or raises: then nothing is stored. A store carries rulings out one at a time, and no node registers meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lazymig._bases import WritePolicy
    from lazymig._fleet_records import NodeStatus
    from lazymig._records import AppliedSet

T = TypeVar("T")

SAMPLE = 5
"""How many actors are named where many are counted."""


class Release(NamedTuple):
    """What a node registered for a type, once.

    Attributes:
        applied: The set of its versions, the baseline as its floor.
        checksums: Version, packed, to checksum of its function; those without source are left out.
        build: Of the node that had it last and said it.
        seen_at: When that one registered, aware UTC: by the store's clock, which is read as the release is recorded,
            whatever the ruling says.
    """

    applied: AppliedSet
    checksums: Mapping[int, int]
    build: str | None
    seen_at: datetime


class Based(NamedTuple):
    """What actors with a base have in common.

    Attributes:
        applied: Of their stamp, None without one.
        writer: Of their stamp, None without one.
        base: What is applied to their base.
    """

    applied: AppliedSet | None
    writer: AppliedSet | None
    base: AppliedSet


class TypeFacts(NamedTuple):
    """What a store knows of a type, without counting.

    Attributes:
        policy: What its actors are stored as.
        releases: All that were ever registered, in no order.
        nodes: All registered nodes, of the type or not.
        unreadable: Ids of registered nodes whose rows can't be read.
        known: All applied sets that actors or entries of the type may have.
        actors: Those that stored actors have; None: some are without migration-info.
        bases: Of the actors with a base.
        oldest: No entry of the type is below it, packed; None if there are no entries. A bound: all may be above it.
    """

    policy: WritePolicy
    releases: Sequence[Release]
    nodes: Sequence[NodeStatus]
    unreadable: Sequence[str]
    known: frozenset[AppliedSet]
    actors: frozenset[AppliedSet | None]
    bases: frozenset[Based]
    oldest: int | None


class Seen(NamedTuple):
    """What a store knows of a type's software, whatever became of its actors.

    Attributes:
        policy: What its actors are stored as.
        releases: All that were ever registered, in no order.
        nodes: All registered nodes, of the type or not.
        unreadable: Ids of registered nodes whose rows can't be read.
    """

    policy: WritePolicy
    releases: Sequence[Release]
    nodes: Sequence[NodeStatus]
    unreadable: Sequence[str]


class AskSeen(NamedTuple):
    """Asks for what was `Seen` of a type: a stamp that can't be read hinders nobody."""

    actor_type: str


class AskType(NamedTuple):
    """Asks for the `TypeFacts` of a type."""

    actor_type: str


class AskActors(NamedTuple):
    """Asks for the `Counted` of the stored actors with one of these applied sets."""

    actor_type: str
    sets: frozenset[AppliedSet | None]


class AskBases(NamedTuple):
    """Asks for the `Counted` of the actors with one of these."""

    actor_type: str
    of: frozenset[Based]


class AskEntries(NamedTuple):
    """Asks for the `Counted` of the actors that have an entry with one of these applied sets.

    Attributes:
        actor_type: The type.
        sets: The sets.
        below: All of them are below this version, packed, so that actors whose `Marks.oldest` isn't are passed over;
            None: they may not be. That mark is a bound: it doesn't rise by itself when an actor's entries do.
    """

    actor_type: str
    sets: frozenset[AppliedSet]
    below: int | None = None


class AskConverting(NamedTuple):
    """Asks for the `Counted` of the actors with entries that a conversion may have brought so high.

    Attributes:
        actor_type: The type.
        version: What their `Marks.converting` is at least, packed.
    """

    actor_type: str
    version: int


class AskFailing(NamedTuple):
    """Asks for the `Counted` of the actors that have the record of a migration that failed.

    Attributes:
        actor_type: The type.
        sets: Those with one of these applied sets; None: all.
    """

    actor_type: str
    sets: frozenset[AppliedSet | None] | None = None


class Counted(NamedTuple):
    """Some actors.

    Attributes:
        total: How many.
        actors: Ids of the first `SAMPLE` of them, in order.
    """

    total: int
    actors: Sequence[str]


NOBODY = Counted(0, ())

Question = AskSeen | AskType | AskActors | AskBases | AskEntries | AskConverting | AskFailing


class Ruled(NamedTuple):
    """What comes of a ruling.

    Attributes:
        answer: For who asked for it.
        policies: Type to its write version from now on, packed, None for none: with each the epoch rises by one.
        releases: Type and release, to be recorded now, in place of one with the same applied set.
    """

    answer: Any
    policies: Mapping[str, int | None] = {}
    releases: Sequence[tuple[str, Release]] = ()


Ruling = Generator[Question, Any, Ruled]
