"""The gates of the write version: pin, flip and unpin, which can be carried out in the ruling that asks.

Each is a ruling without I/O; what a gate of a stored type asks is in `lazymig.rollout._stored_gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _version
from lazymig._rulings import NOBODY, AskActors, AskBases, AskEntries, AskType, Counted, Question, Ruled
from lazymig.rollout._fleet import about_actors, about_nodes, cannot_store, named, releases, serving, unreadable
from lazymig.rollout._verdict import Gate, Reason, command

if TYPE_CHECKING:
    from lazymig._records import AppliedSet
    from lazymig._rulings import Ruling, TypeFacts
    from lazymig.rollout import _verdict
    from lazymig.rollout._fleet import Serving

Reasons = Generator[Question, Any, list[Reason]]
"""Asks the store what it needs to know, and returns why not."""


class Asked(NamedTuple):
    """What a gate is asked.

    Attributes:
        question: Which gate.
        type: The actor type.
        version: Packed; None for "unpin".
    """

    question: _verdict.Question
    type: str
    version: int | None = None

    @property
    def packed(self) -> int:
        """The version of a question that has one, packed."""
        return self.version or 0

    def __str__(self) -> str:
        """Show the version."""
        return str(_version.unpack(self.packed))

    def gate(self, reasons: Iterable[Reason], notes: Iterable[str] = ()) -> Gate:
        """Return the answer."""
        version = None if self.version is None else _version.unpack(self.version)
        return Gate(self.question, self.type, version, tuple(reasons), tuple(notes))


Judge = Callable[["TypeFacts", Asked], Reasons]


def ruling(asked: Asked, judge: Judge, *, is_change: bool = False) -> Ruling:
    """Ask a gate; if it says yes to a change, decide on it. Its answer is the `Gate`."""
    facts: TypeFacts = yield AskType(asked.type)
    is_policy = asked.question in {"pin", "flip", "unpin"}
    if is_policy and facts.policy.version == asked.version:
        return Ruled(asked.gate([], [_already(asked)]))
    reasons = list(unreadable(facts))
    reasons += yield from judge(facts, asked)
    gate = asked.gate(reasons, _notes(facts, asked))
    if not (is_change and gate.allowed):
        return Ruled(gate)
    return Ruled(replace(gate, is_changed=True), {asked.type: asked.version})


def _already(asked: Asked) -> str:
    if asked.version is None:
        return f"{asked.type} has no write version: each node stores what it supports."
    return f"{asked.type} is written at {asked} already."


def _notes(facts: TypeFacts, asked: Asked) -> Iterator[str]:
    if asked.question != "pin":
        return
    if releases(facts, asked.type) or facts.known or facts.actors:
        yield from (reason.text for reason in unknown_version(facts, asked))
    else:
        yield f"no node has registered {asked.type} yet, and none of it is stored."
    if facts.oldest is not None:
        yield (
            f"{asked.type} has entries in tables: they have no base. What a way down drops of an entry is lost once "
            f"newer software stores the entry under the pin."
        )


def pin(facts: TypeFacts, asked: Asked) -> Reasons:
    """Judge whether every node can store the version, which isn't above the one written now."""
    yield from ()
    reasons: list[Reason] = []
    current = facts.policy.version
    if current is not None and asked.packed > current:
        text = f"{asked.type} is written at {_version.unpack(current)}, and a pin to {asked} would go up. Use "
        reasons.append(Reason("above_write_version", f"{text}'{command('rollout', 'flip', asked.type, asked)}'."))
    return reasons + list(cannot_store(serving(facts, asked.type), asked.type, asked.packed))


def unpin(facts: TypeFacts, asked: Asked) -> Reasons:
    """Judge whether every node can read what any of them would store by itself."""
    yield from ()
    nodes = serving(facts, asked.type)
    return [*_newer_stored(nodes, asked), *_older_stored(nodes, asked), *nodes_late(nodes, consents(nodes))]


def _newer_stored(nodes: Sequence[Serving], asked: Asked) -> Iterator[Reason]:
    highest = max((one.supported for one in nodes), default=0)
    behind = [one for one in nodes if not one.offer.can_read(highest)]
    if behind:
        newest = named([one for one in nodes if one.supported == highest])
        what = f"{asked.type} would be stored at {_version.unpack(highest)} by {newest}, which can't be read by"
        yield about_nodes("cannot_read", behind, what, "Deploy a newer release there, or stop what runs there.")


def _older_stored(nodes: Sequence[Serving], asked: Asked) -> Iterator[Reason]:
    lowest = min((one.supported for one in nodes), default=0)
    above = [one for one in nodes if one.offer.registered.floor > lowest]
    if above:
        oldest = named([one for one in nodes if one.supported == lowest])
        what = f"{asked.type} would be stored at {_version.unpack(lowest)} by {oldest}, below the baseline of"
        cure = "Deploy a release there that has those migrations, or stop the older ones."
        yield about_nodes("cannot_read", above, what, cure)


def flip(facts: TypeFacts, asked: Asked) -> Reasons:
    """Judge whether every node is alive and can store the version, and every actor be brought there."""
    nodes = serving(facts, asked.type)
    current = facts.policy.version
    reasons = list(unknown_version(facts, asked))
    if current is not None and asked.packed < current:
        text = f"{asked.type} is written at {_version.unpack(current)}, and a flip to {asked} would go down. Use "
        reasons.append(Reason("below_write_version", f"{text}'{command('rollout', 'pin', asked.type, asked)}'."))
    reasons += cannot_store(nodes, asked.type, asked.packed)
    if silent := [one for one in nodes if not one.node.is_alive]:
        forget = command("nodes", "forget", silent[0].node.node_id)
        cure = f"'{forget}' lets nothing of it be stored any more; any living node does that after ten lease times."
        reasons.append(about_nodes("silent_nodes", silent, "silent, but may wake up", cure))
    strict = {number for number in consents(nodes) if number <= asked.packed}
    return [*reasons, *nodes_late(nodes, strict), *(yield from stored_late(facts, asked, strict))]


def unknown_version(facts: TypeFacts, asked: Asked) -> Iterator[Reason]:
    """Yield a reason if no release has or had the version; 0.0.0 is known, but for retiring it."""
    sets = {*releases(facts, asked.type), *facts.known, *(applied for applied in facts.actors if applied is not None)}
    known = {number for applied in sets for number in (applied.floor, *applied.packed)} - {0}
    if asked.packed in known or (asked.question != "retire" and asked.packed == 0):
        return
    listed = ", ".join(str(_version.unpack(number)) for number in sorted(known)) or "none"
    text = f"no release of {asked.type} has, or had, {asked}. Known are: {listed}. Correct it, or deploy what has it."
    yield Reason("unknown_version", text)


def consents(nodes: Iterable[Serving]) -> set[int]:
    """Return the versions, packed, that a node has and may not run late."""
    return {number for one in nodes for number in one.offer.registered.packed if number not in one.offer.late}


def nodes_late(nodes: Sequence[Serving], strict: set[int], also: str = "") -> Iterator[Reason]:
    """Yield a reason if what nodes store will lack versions, packed, which others may not run late."""
    behind = [one for one in nodes if lacking(one.offer.registered, strict)]
    if behind:
        names = _lacked((one.offer.registered for one in behind), strict)
        cure = f"{_consent(names)}{also} Or stop what runs there."
        what = f"storing at a later version, but without {names}"
        yield about_nodes("late_without_consent", behind, what, cure)


def stored_late(
    facts: TypeFacts, asked: Asked, strict: set[int], *, below: int | None = None, also: str = ""
) -> Reasons:
    """Count what is stored that is past versions, packed, which may not run late, and lacks them.

    Args:
        facts: Of the type.
        asked: What was asked.
        strict: Those versions.
        below: What is stored at this version, packed, or above it is passed over.
        also: What else is to be said of the cure.
    """

    def is_late(applied: AppliedSet | None) -> bool:
        return applied is not None and (below is None or applied.highest < below) and bool(lacking(applied, strict))

    sets = frozenset(applied for applied in facts.actors if applied is not None and is_late(applied))
    entries = frozenset(applied for applied in facts.known if is_late(applied))
    bases = frozenset(based for based in facts.bases if is_late(based.base))
    reasons: list[Reason] = []
    for counted, missed, where in (
        ((yield from actors_with(asked.type, sets)), sets, "stored"),
        ((yield from entries_with(facts, asked.type, entries)), entries, "with entries"),
        ((yield from bases_with(asked.type, bases)), {based.base for based in bases}, "kept as a base"),
    ):
        names = _lacked(missed, strict)
        what = f"{where} at a later version, but without {names}"
        reasons += about_actors("late_without_consent", counted, what, _consent(names) + also)
    return reasons


def _consent(names: str) -> str:
    return f"Register {names} with late=True if it may run on later states, and deploy that."


def _lacked(sets: Iterable[AppliedSet], numbers: set[int]) -> str:
    found = {number for applied in sets for number in lacking(applied, numbers)}
    return ", ".join(str(_version.unpack(number)) for number in sorted(found))


def lacking(applied: AppliedSet, numbers: set[int]) -> list[int]:
    """Return which of some versions, packed, a set is above and lacks."""
    return [number for number in numbers if number < applied.highest and not applied.has(number)]


def actors_with(actor_type: str, sets: frozenset[Any]) -> Generator[Question, Any, Counted]:
    """Count the actors with one of these applied sets; asks nothing if there is none."""
    return (yield AskActors(actor_type, sets)) if sets else NOBODY


def bases_with(actor_type: str, of: frozenset[Any]) -> Generator[Question, Any, Counted]:
    """Count the actors with one of these bases; asks nothing if there is none."""
    return (yield AskBases(actor_type, of)) if of else NOBODY


def entries_with(
    facts: TypeFacts, actor_type: str, sets: frozenset[AppliedSet], *, below: int = 0
) -> Generator[Question, Any, Counted]:
    """Count the actors with entries of these sets.

    Args:
        facts: Of the type.
        actor_type: The type.
        sets: Those.
        below: If all of them are below it, packed, only actors with an entry below it are looked at.
    """
    oldest = facts.oldest
    if not sets or oldest is None:
        return NOBODY
    is_below = all(applied.highest < below for applied in sets)
    if is_below and oldest >= below:
        return NOBODY
    counted: Counted = yield AskEntries(actor_type, sets, below if is_below else None)
    return counted
