"""A store's answers, made by hand, for the ruling that a starting node asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lazymig import Suite, _version
from lazymig._bases import NO_POLICY
from lazymig._calls import offers_of
from lazymig._fleet_records import NodeStatus, Offer
from lazymig._records import AppliedSet, NodeRecord
from lazymig._releases import starting
from lazymig._rulings import AskActors, AskEntries, AskSeen, AskType, Counted, Release, Ruled, Seen, TypeFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig import ActorType

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def v(text: str) -> int:
    return _version.pack(_version.parse(text))


def applied(*versions: str, floor: str = "0.0.0") -> AppliedSet:
    return AppliedSet(map(v, versions), v(floor))


def seen(
    *versions: str, floor: str = "0.0.0", days_ago: int = 1, checksums: Mapping[int, int] | None = None
) -> Release:
    return Release(applied(*versions, floor=floor), checksums or {}, None, NOW - timedelta(days=days_ago))


def car(
    *versions: str, baseline: str | None = None, late: Sequence[str] = (), down: bool = True, write: str | None = None
) -> ActorType[Any]:
    made = Suite("fleet").actor_type("Car", baseline=baseline, write_version=write)
    for number in versions:

        def step(state: Any, context: Any) -> None:
            """Do nothing."""

        migration = made.migration(number, late=number in late)(step)
        if down:
            migration.down(lambda state, context: None)
    return made


def node_of(made: ActorType[Any]) -> NodeRecord:
    return NodeRecord("n1", "pod-1", "build 7", 3.0, offers_of({"Car": made}))


def other(node_id: str, offer: Offer, *, is_alive: bool = True) -> NodeStatus:
    return NodeStatus(node_id, f"pod {node_id}", None, 0.0, 3.0, is_alive, is_draining=False, active=0, offers=(offer,))


class Stored:
    """A store's answers about the type Car.

    Args:
        releases: Those seen.
        actors: Applied set, or None, to ids.
        entries: Applied set to ids of the actors that have such entries.
        facts: Others of `TypeFacts`.
    """

    def __init__(
        self,
        *releases: Release,
        actors: Mapping[AppliedSet | None, Sequence[str]] | None = None,
        entries: Mapping[AppliedSet, Sequence[str]] | None = None,
        **facts: Any,
    ) -> None:
        self.actors = actors or {}
        self.entries = entries or {}
        self.asked: list[Any] = []
        self.facts = TypeFacts(
            **{
                "policy": NO_POLICY, "releases": releases, "nodes": (), "unreadable": (),
                "known": frozenset({*self.entries, *filter(None, self.actors)}), "actors": frozenset(self.actors),
                "bases": frozenset(), "oldest": min((of.highest for of in self.entries), default=None),
            } | facts
        )  # fmt: skip

    def answer(self, question: Any) -> Any:
        self.asked.append(question)
        if isinstance(question, AskType):
            return self.facts
        if isinstance(question, AskSeen):
            return Seen(*self.facts[:4])
        assert question.actor_type == "Car"
        assert question.sets
        ids: set[str] = set()
        found: Mapping[Any, Sequence[str]] = self.actors if isinstance(question, AskActors) else self.entries
        if isinstance(question, AskEntries) and question.below is not None:
            assert all(one.highest < question.below for one in question.sets)
        ids.update(*(found.get(one, ()) for one in question.sets))
        return Counted(len(ids), tuple(sorted(ids)[:5]))

    def start(self, made: ActorType[Any]) -> Ruled:
        ruling = starting(node_of(made), {"Car": made}, NOW)
        question: Any = next(ruling)
        while True:
            try:
                question = ruling.send(self.answer(question))
            except StopIteration as end:
                ruled: Ruled = end.value
                return ruled
