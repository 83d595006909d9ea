"""The rulings of the store in memory."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lazymig._bases import NO_POLICY, WritePolicy
from lazymig._rulings import (
    SAMPLE,
    AskActors,
    AskBases,
    AskConverting,
    AskEntries,
    AskFailing,
    AskSeen,
    AskType,
    Based,
    Counted,
    Seen,
    TypeFacts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lazymig._entries import Entry
    from lazymig._fleet_records import NodeStatus
    from lazymig._memory_rows import Row
    from lazymig._records import ActorKey, AppliedSet
    from lazymig._rulings import Question, Release, Ruled, Ruling


class MemoryRulings:
    """Answers questions and does what is decided.

    Args:
        rows: The actors.
        policies: The write policies by type.

    Attributes:
        releases: All that were ever registered, by type and set.
    """

    def __init__(self, rows: Mapping[ActorKey, Row], policies: dict[str, WritePolicy]) -> None:
        self._rows = rows
        self._policies = policies
        self.releases: dict[tuple[str, AppliedSet], Release] = {}

    def decide(self, ruling: Ruling, nodes: Callable[[], Sequence[NodeStatus]]) -> Ruled:
        """Answer a ruling's questions; return what it decides."""
        answer: Any = None
        while True:
            try:
                question = ruling.send(answer)
            except StopIteration as end:
                ruled: Ruled = end.value
                return ruled
            answer = self._answer(question, nodes)

    def _answer(self, question: Question, nodes: Callable[[], Sequence[NodeStatus]]) -> Any:
        if isinstance(question, AskSeen):
            return self._seen(question.actor_type, nodes())
        if isinstance(question, AskType):
            return self._facts(question.actor_type, nodes())
        return _count(key.id for key, row in self._stored(question.actor_type) if _is_so(question, row))

    def note(self, ruled: Ruled) -> None:
        """Do what was decided."""
        for actor_type, release in ruled.releases:
            self.releases[actor_type, release.applied] = release._replace(seen_at=datetime.now(UTC))
        for actor_type, version in ruled.policies.items():
            epoch = self._policies.get(actor_type, NO_POLICY).epoch
            self._policies[actor_type] = WritePolicy(version, epoch + 1)

    def census(self, actor_type: str) -> Counter[AppliedSet | None]:
        """See `Store.census`."""
        return Counter(row.applied for _, row in self._stored(actor_type))

    def stragglers(self, actor_type: str, sets: frozenset[AppliedSet | None], after: str, limit: int) -> list[str]:
        """See `Store.stragglers`."""
        found = (key.id for key, row in self._stored(actor_type) if key.id > after and row.applied in sets)
        return sorted(found)[:limit]

    def entry_census(self, actor_type: str) -> Counter[AppliedSet]:
        """See `Store.entry_census`."""
        return Counter(entry.applied for _, row in self._stored(actor_type) for entry in _entries(row))

    def _stored(self, actor_type: str) -> list[tuple[ActorKey, Row]]:
        stored = [(key, row) for key, row in self._rows.items() if key.type == actor_type and row.revision]
        return [(key, row) for key, row in stored if not row.is_blank]

    def _seen(self, actor_type: str, nodes: Sequence[NodeStatus]) -> Seen:
        releases = [release for (of, _), release in self.releases.items() if of == actor_type]
        return Seen(self._policies.get(actor_type, NO_POLICY), releases, nodes, [])

    def _facts(self, actor_type: str, nodes: Sequence[NodeStatus]) -> TypeFacts:
        rows = [row for _, row in self._stored(actor_type)]
        bases = frozenset(_based(row) for row in rows if row.base is not None)
        actors = frozenset(row.applied for row in rows)
        known = {applied for applied in actors if applied is not None}
        known |= {based.base for based in bases} | {entry.applied for row in rows for entry in _entries(row)}
        oldest = [row.marks.oldest for row in rows if row.marks.oldest is not None]
        seen = self._seen(actor_type, nodes)
        return TypeFacts(*seen, frozenset(known), actors, bases, min(oldest, default=None))


def _is_so(question: Question, row: Row) -> bool:
    """Tell whether a question asks for an actor."""
    if isinstance(question, AskActors):
        return row.applied in question.sets
    if isinstance(question, AskBases):
        return row.base is not None and _based(row) in question.of
    if isinstance(question, AskEntries):
        oldest = row.marks.oldest
        if oldest is None or (question.below is not None and oldest >= question.below):
            return False
        return any(entry.applied in question.sets for entry in _entries(row))
    if isinstance(question, AskFailing):
        return row.failure is not None and (question.sets is None or row.applied in question.sets)
    return isinstance(question, AskConverting) and 0 < row.marks.converting >= question.version


def _count(ids: Iterable[str]) -> Counted:
    found = sorted(ids)
    return Counted(len(found), tuple(found[:SAMPLE]))


def _based(row: Row) -> Based:
    assert row.base is not None  # noqa: S101  (asked before)
    return Based(row.applied, None if row.stamp is None else row.stamp.writer, row.base.applied)


def _entries(row: Row) -> list[Entry]:
    return [entry for table in row.tables.values() for entry in table.entries.values()]
