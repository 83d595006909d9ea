"""What a store might have of a type, small enough to be counted by hand; it answers rulings without a store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig._bases import WritePolicy
from lazymig._fleet_records import NodeStatus, Offer
from lazymig._records import AppliedSet
from lazymig._rulings import (
    SAMPLE,
    AskActors,
    AskBases,
    AskConverting,
    AskEntries,
    AskFailing,
    AskType,
    Based,
    Counted,
    Release,
    Ruled,
    TypeFacts,
)
from lazymig.rollout import Gate, _gates, _stored_gates
from lazymig.rollout._gates import Asked, ruling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazymig._rulings import Question, Ruling

TYPE = "Vehicle"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def packed(version: str) -> int:
    return _version.pack(_version.parse(version))


def applied(text: str) -> AppliedSet:
    """Return the set of versions between spaces; the first is the floor if it begins with "<="."""
    versions = text.split()
    floor = packed(versions.pop(0)[2:]) if text.startswith("<=") else 0
    return AppliedSet(map(packed, versions), floor)


def node(
    name: str, registered: str, *, alive: bool = True, late: str = "", one_way: Mapping[str, str] | None = None
) -> NodeStatus:
    """Return a node of the type, whose id is its label in capitals."""
    missing = tuple((packed(version), what) for version, what in (one_way or {}).items())
    offer = Offer(TYPE, applied(registered), (), tuple(map(packed, late.split())), missing)
    return NodeStatus(name.upper(), name, "build", 1.0, 3.0, alive, False, 0, (offer,))  # noqa: FBT003  (not draining)


CLIENT = NodeStatus("CLIENT", "client", None, 99.0, 3.0, False, False, 0, ())  # noqa: FBT003  (silent, not draining)
"""A node without the type: it never counts."""


@dataclass(frozen=True)
class An:
    """A stored actor: what was applied to it, its base and its entries; None for what isn't there."""

    applied: str | None = None
    writer: str | None = None
    base: str | None = None
    entries: tuple[str, ...] = ()
    converting: str = "0.0.0"
    is_quarantined: bool = False

    @property
    def set(self) -> AppliedSet | None:
        return None if self.applied is None else applied(self.applied)

    @property
    def based(self) -> Based | None:
        if self.base is None:
            return None
        writer = self.applied if self.writer is None else self.writer
        return Based(self.set, None if writer is None else applied(writer), applied(self.base))


@dataclass
class World:
    """A type in a store."""

    nodes: tuple[NodeStatus, ...] = ()
    actors: tuple[An, ...] = ()
    written: str | None = None
    releases: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    epoch: int = 1

    def facts(self) -> TypeFacts:
        entries = [applied(entry) for actor in self.actors for entry in actor.entries]
        sets = {actor.set for actor in self.actors}
        return TypeFacts(
            policy=WritePolicy(None if self.written is None else packed(self.written), self.epoch),
            releases=[Release(applied(release), {}, "old build", NOW) for release in self.releases],
            nodes=[*self.nodes, CLIENT],
            unreadable=self.unreadable,
            known=frozenset([*entries, *(found for found in sets if found is not None), *self._others()]),
            actors=frozenset(sets),
            bases=frozenset(actor.based for actor in self.actors if actor.based is not None),
            oldest=min((entry.highest for entry in entries), default=None),
        )

    def _others(self) -> Iterator[AppliedSet]:
        """Yield the sets that a store knows by the way: of writers and bases."""
        for actor in self.actors:
            for text in (actor.writer, actor.base):
                if text is not None and actor.applied is not None:
                    yield applied(text)

    def rule(self, make: Callable[[], Ruling]) -> tuple[Ruled, list[Question]]:
        """Carry a ruling out; return what came of it, and what it asked."""
        ruling, asked, answer = make(), [], None
        try:
            while True:
                question = ruling.send(answer)
                asked.append(question)
                answer = self._answer(question)
        except StopIteration as end:
            return end.value, asked

    def _answer(self, question: Question) -> Any:
        assert question.actor_type == TYPE
        match question:
            case AskType():
                return self.facts()
            case AskActors():
                return self._count(lambda actor: actor.set in question.sets)
            case AskBases():
                return self._count(lambda actor: actor.based in question.of)
            case AskEntries():
                below = question.below
                assert below is None or all(found.highest < below for found in question.sets)
                return self._count(lambda actor: any(applied(entry) in question.sets for entry in actor.entries))
            case AskConverting():
                return self._count(lambda actor: packed(actor.converting) >= question.version)
            case AskFailing():
                sets = question.sets
                return self._count(lambda actor: actor.is_quarantined and (sets is None or actor.set in sets))

    def _count(self, fits: Callable[[An], bool]) -> Counted:
        found = sorted(f"car-{number}" for number, actor in enumerate(self.actors, 1) if fits(actor))
        return Counted(len(found), found[:SAMPLE])


JUDGES = {
    "pin": _gates.pin,
    "flip": _gates.flip,
    "unpin": _gates.unpin,
    "retire": _stored_gates.retire,
    "roll_back": _stored_gates.roll_back,
}


def put(
    world: World, question: str, version: str | None = None, *, change: bool = False
) -> tuple[Ruled, list[Question]]:
    asked = Asked(question, TYPE, None if version is None else packed(version))  # type: ignore[arg-type]  # of the table
    return world.rule(partial(ruling, asked, JUDGES[question], is_change=change))


def ask(world: World, question: str, version: str | None = None) -> Gate:
    gate: Gate = put(world, question, version)[0].answer
    return gate
