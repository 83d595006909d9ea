"""Rulings over SQL, and what is counted for them; see `lazymig._sql` for what an operation is.

An index answers whether there is anything at all, before anything is counted: an engine that guesses from statistics
would look through all actors for what none of them has.

The sets of a type are read last: each statement has its own snapshot, and what was committed between two of them may
name a set that the first one didn't have yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _rows
from lazymig._rulings import (
    NOBODY,
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
from lazymig._sql_lineage import UNSTAMPED
from lazymig._sql_operations import last, trip
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazymig._bases import WritePolicy
    from lazymig._records import AppliedSet
    from lazymig._rulings import Question, Ruled, Ruling
    from lazymig._sql_operations import Operation, Rows, Statement


class Counting(NamedTuple):
    """Statements about some actors.

    Attributes:
        total: How many they are.
        sample: Ids of the first of them, in order.
    """

    total: str
    sample: str

    @classmethod
    def of(cls, table: str, where: str) -> Counting:
        """Return those about the rows of a table that are so."""
        found = f"FROM {table} WHERE {where}"
        return cls(f"SELECT count(*) {found}", f"SELECT id {found} ORDER BY id LIMIT {SAMPLE}")


@dataclass(frozen=True, slots=True)
class RulingDialect:
    """The statements of one engine for rulings; parameters are named and bound.

    Attributes:
        statuses: Of all nodes.
        sets: The lineages that stored actors have.
        bases: Base's lineage, lineage and writer, of actors with a base.
        of_failures: The records of a type.
        of_failing: Those of actors with some lineages.
        stragglers: Returns the statements that ask for the first ids of actors with some lineages, each in order.
        numbers: Turns numbers into a parameter.
        lock_policies: Wait for all commits under way, and let others wait; none where there are no others.
    """

    statuses: str
    policy: str
    releases: str
    lineages: str
    sets: str
    bases: str
    oldest: str
    count_actors: str
    of_bases: Counting
    of_entries: Counting
    of_entries_below: Counting
    of_converting: Counting
    of_failures: Counting
    of_failing: Counting
    put_policy: str
    put_release: str
    entry_census: str
    stragglers: Callable[[Mapping[str, Any], Sequence[int]], Sequence[Statement]]
    numbers: Callable[[Sequence[int]], Any]
    lock_policies: Sequence[str] = ()


class SqlRulings:
    """Carries rulings out, as operations.

    Args:
        dialect: The statements.
        now: The store's clock, see `Connection.now`.
    """

    def __init__(self, dialect: RulingDialect, now: Callable[[], float | None]) -> None:
        self._sql = dialect
        self._now = now

    def decide(self, ruling: Ruling) -> Operation[Ruled]:
        """Answer a ruling's questions; return what it decides."""
        answer: Any = None
        while True:
            try:
                question = ruling.send(answer)
            except StopIteration as end:
                ruled: Ruled = end.value
                return ruled
            answer = yield from self._answer(question)

    def note(self, ruled: Ruled) -> Operation[None]:
        """Do what was decided; nothing may follow but the end of the transaction."""
        for actor_type, release in ruled.releases:
            yield trip((self._sql.put_release, {"type": actor_type, **_rows.write_release(release)}))
        if ruled.policies and self._sql.lock_policies:
            yield trip(*((lock, {}) for lock in self._sql.lock_policies))
        for actor_type, version in sorted(ruled.policies.items()):
            yield trip((self._sql.put_policy, {"type": actor_type, "version": version}))

    def policy(self, actor_type: str) -> Operation[WritePolicy]:
        """Return what the actors of a type are stored as."""
        (rows,) = yield last((self._sql.policy, {"type": actor_type}))
        return _read_policy(actor_type, rows)

    def stragglers(self, actor_type: str, lineages: Sequence[int], after: str, limit: int) -> Operation[list[str]]:
        """Return the first ids of stored actors with some lineages above an id."""
        if not lineages:
            return []
        found = yield last(*self._sql.stragglers({"type": actor_type, "after": after, "limit": limit}, lineages))
        ids = [_rows.read_key(actor_type, actor_id).id for rows in found for (actor_id,) in rows]
        return sorted(ids)[:limit]

    def entry_census(self, actor_type: str) -> Operation[dict[AppliedSet, int]]:
        """Count a type's entries by applied set."""
        rows, lineages = yield last(
            (self._sql.entry_census, {"type": actor_type}), (self._sql.lineages, {"type": actor_type})
        )
        names = _Names(actor_type, lineages)
        return {names.get(number): count for number, count in rows}

    # --- questions ---------------------------------------------------------------------------------------------

    def _answer(self, question: Question) -> Operation[Any]:
        if isinstance(question, AskType):
            return (yield from self._facts(question.actor_type))
        if isinstance(question, AskSeen):
            return (yield from self._seen(question.actor_type))
        if isinstance(question, AskActors):
            return (yield from self._actors(question))
        if isinstance(question, AskBases):
            return (yield from self._bases(question))
        if isinstance(question, AskEntries):
            return (yield from self._entries(question))
        return (yield from self._marked(question))

    def _seen(self, actor_type: str) -> Operation[Seen]:
        of = {"type": actor_type}
        policy, releases, nodes = yield trip(
            (self._sql.policy, of), (self._sql.releases, of), (self._sql.statuses, {"now": self._now()})
        )
        statuses, unreadable = _rows.read_fleet(nodes)
        return Seen(
            _read_policy(actor_type, policy),
            [_rows.read_release(actor_type, *row) for row in releases],
            statuses,
            unreadable,
        )

    def _facts(self, actor_type: str) -> Operation[TypeFacts]:
        of = {"type": actor_type}
        policy, releases, nodes, sets, bases, ((oldest,),), lineages = yield trip(
            (self._sql.policy, of),
            (self._sql.releases, of),
            (self._sql.statuses, {"now": self._now()}),
            (self._sql.sets, of),
            (self._sql.bases, of),
            (self._sql.oldest, of),
            (self._sql.lineages, of),
        )
        names = _Names(actor_type, lineages)
        statuses, unreadable = _rows.read_fleet(nodes)
        if not isinstance(oldest, int | None):
            raise CorruptStateError(None, f"the oldest entry of an actor of type {actor_type} is {oldest!r}")
        return TypeFacts(
            _read_policy(actor_type, policy),
            [_rows.read_release(actor_type, *row) for row in releases],
            statuses,
            unreadable,
            names.all,
            frozenset(names.find(number) for (number,) in sets),
            frozenset(Based(names.find(stamp), names.find(writer), names.get(base)) for base, stamp, writer in bases),
            oldest,
        )

    def _actors(self, question: AskActors) -> Operation[Counted]:
        of = {"type": question.actor_type}
        sets, lineages = yield trip((self._sql.sets, of), (self._sql.lineages, of))
        names = _Names(question.actor_type, lineages)
        found = [number for (number,) in sets if names.find(number) in question.sets]
        if not found:
            return NOBODY
        (((total,),),) = yield trip((self._sql.count_actors, {**of, "lineages": self._sql.numbers(found)}))
        ids = yield from self.stragglers(question.actor_type, found, "", SAMPLE)
        return Counted(total, tuple(ids)) if total else NOBODY

    def _bases(self, question: AskBases) -> Operation[Counted]:
        of = {"type": question.actor_type}
        bases, lineages = yield trip((self._sql.bases, of), (self._sql.lineages, of))
        names = _Names(question.actor_type, lineages)
        found = [
            (base, stamp, writer)
            for base, stamp, writer in bases
            if Based(names.find(stamp), names.find(writer), names.get(base)) in question.of
        ]
        if not found:
            return NOBODY
        columns = zip(("bases", "lineages", "writers"), zip(*found, strict=True), strict=True)
        wanted = {name: self._sql.numbers(numbers) for name, numbers in columns}
        return (yield from self._counted(self._sql.of_bases, of | wanted))

    def _entries(self, question: AskEntries) -> Operation[Counted]:
        of = {"type": question.actor_type}
        (lineages,) = yield trip((self._sql.lineages, of))
        wanted = _Names(question.actor_type, lineages).of(question.sets)
        if not wanted:
            return NOBODY
        counting = self._sql.of_entries if question.below is None else self._sql.of_entries_below
        wanted_of = {**of, "lineages": self._sql.numbers(wanted), "below": question.below}
        return (yield from self._counted(counting, wanted_of))

    def _marked(self, question: AskConverting | AskFailing) -> Operation[Counted]:
        of = {"type": question.actor_type}
        if isinstance(question, AskConverting):
            return (yield from self._counted(self._sql.of_converting, of | {"version": question.version}))
        if question.sets is None:
            return (yield from self._counted(self._sql.of_failures, of))
        (lineages,) = yield trip((self._sql.lineages, of))
        wanted = [*_Names(question.actor_type, lineages).of(question.sets), *[UNSTAMPED] * (None in question.sets)]
        if not wanted:
            return NOBODY
        return (yield from self._counted(self._sql.of_failing, of | {"lineages": self._sql.numbers(wanted)}))

    def _counted(self, counting: Counting, of: Mapping[str, Any]) -> Operation[Counted]:
        (((total,),),) = yield trip((counting.total, of))
        if not total:
            return NOBODY
        (rows,) = yield trip((counting.sample, of))
        return Counted(total, tuple(_rows.read_key(of["type"], actor_id).id for (actor_id,) in rows))


def _read_policy(actor_type: str, rows: Rows) -> WritePolicy:
    return _rows.read_policy(None, actor_type, *(rows[0] if rows else (None, None)))


class _Names:
    """What the lineages of a type name."""

    def __init__(self, actor_type: str, rows: Rows) -> None:
        self._type = actor_type
        self._sets = {number: _rows.read_set(None, text) for number, text in rows}

    @property
    def all(self) -> frozenset[AppliedSet]:
        return frozenset(self._sets.values())

    def get(self, number: Any) -> AppliedSet:
        if number not in self._sets:
            raise CorruptStateError(None, f"an actor of type {self._type} names the unknown lineage {number!r}")
        return self._sets[number]

    def find(self, number: Any) -> AppliedSet | None:
        """Return the set of a stamp, None for the one of none."""
        return None if number == UNSTAMPED else self.get(number)

    def of(self, sets: frozenset[AppliedSet] | frozenset[AppliedSet | None]) -> list[int]:
        return [number for number, applied in self._sets.items() if applied in sets]
