"""The gates that look at what is stored: retire a migration, roll back to a release. Rulings without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig import _version
from lazymig._fleet_records import Offer
from lazymig._rulings import NOBODY, AskConverting, AskFailing, Based
from lazymig.rollout._fleet import Serving, about_actors, about_nodes, quarantined, releases, serving
from lazymig.rollout._gates import (
    Reasons,
    actors_with,
    bases_with,
    consents,
    entries_with,
    lacking,
    nodes_late,
    stored_late,
    unknown_version,
)
from lazymig.rollout._verdict import Reason, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazymig._records import AppliedSet
    from lazymig._rulings import TypeFacts
    from lazymig.rollout._gates import Asked

_STORE_THEM = "Let software that has it activate them."
_STORE_MAINS = f"{_STORE_THEM} One without a main state keeps its version until it is given one."


def retire(facts: TypeFacts, asked: Asked) -> Reasons:
    """Judge whether all that is stored has a migration, and all that any node will store."""
    version, what = asked.packed, f"without {asked}"
    reasons = list(unknown_version(facts, asked))
    if reasons:
        return reasons
    reasons += _storing_without(facts, asked)
    lack = frozenset(applied for applied in facts.actors if applied is None or not applied.has(version))
    counted = yield from actors_with(asked.type, lack)
    failing = (yield AskFailing(asked.type, lack)) if counted.total else NOBODY
    cure = f"{_STORE_MAINS}{quarantined(asked.type, failing)}"
    reasons += about_actors("actors_lack", counted, f"stored {what}", cure)
    counted = yield from entries_with(facts, asked.type, _without(facts.known, version), below=version)
    reasons += about_actors("entries_lack", counted, f"with entries {what}", "Let software that has it store those.")
    bases = frozenset(based for based in facts.bases if not based.base.has(version))
    counted = yield from bases_with(asked.type, bases)
    reasons += about_actors("bases_lack", counted, f"with a base {what}", _STORE_THEM)
    drifted = frozenset(based for based in facts.bases - bases if based.writer is None or not based.writer.has(version))
    counted = yield from bases_with(asked.type, drifted)
    drift = f"last stored by software {what}, so that its reconcile is still to come"
    reasons += about_actors("actors_drifted", counted, drift, _STORE_THEM)
    return reasons


def _storing_without(facts: TypeFacts, asked: Asked) -> Iterable[Reason]:
    nodes = [one for one in serving(facts, asked.type) if not one.offer.registered.has(asked.packed)]
    if nodes:
        cure = "Deploy a release that has it there, or stop what runs there."
        yield about_nodes("nodes_lack", nodes, f"of a release without {asked}", cure)
    written = facts.policy.version
    if written is not None and written < asked.packed:
        cure = f"'{command('rollout', 'flip', asked.type, asked)}' comes first"
        text = f"{asked.type} is written at {_version.unpack(written)}, below {asked}. {cure}."
        yield Reason("write_version_below", text)


def _without(sets: Iterable[AppliedSet], version: int) -> frozenset[AppliedSet]:
    return frozenset(applied for applied in sets if not applied.has(version))


def roll_back(facts: TypeFacts, asked: Asked) -> Reasons:
    """Judge whether a release can take over: it can read all that is stored, and all that the nodes will store."""
    found = [applied for applied in releases(facts, asked.type) if applied.highest == asked.packed]
    if not found:
        known = sorted({applied.highest for applied in releases(facts, asked.type)})
        listed = ", ".join(str(_version.unpack(number)) for number in known) or "none"
        text = f"no release of {asked.type} ended at {asked}. Known are: {listed}. Correct it."
        return [Reason("unknown_release", text)]
    reasons = [*_storing_newer(facts, asked), *_retired(facts, asked), *_storing_elsewhere(facts, asked, found)]
    reasons += yield from _newer(facts, asked)
    bases = frozenset(based for based in facts.bases for applied in found if _is_in_the_way(facts, based, applied))
    counted = yield from bases_with(asked.type, bases)
    what = f"with a base of a newer major, where {asked} would migrate, reconcile, or need a base of its own"
    reasons += about_actors("bases_newer", counted, what, f"Let newer software store them written at {asked} first.")
    reasons += yield from _too_old(facts, asked, max(applied.floor for applied in found))
    return reasons + (yield from _late(facts, asked, found))


def _late(facts: TypeFacts, asked: Asked, found: Sequence[AppliedSet]) -> Reasons:
    """Count what is past migrations of the release that may not run late; the same of what the nodes and it will store.

    Whether a release may run them late, only its nodes tell.
    """
    nodes = serving(facts, asked.type)
    offers = {one.offer.registered: one.offer for one in nodes}
    strict = {
        number
        for applied in found
        for number in applied.packed
        if applied not in offers or number not in offers[applied].late
    }
    also = "" if offers.keys() >= set(found) else f" Only a running node of {asked} tells whether it may: start one."
    reasons = list(nodes_late(nodes, strict, also))
    if unwilling := [one for one in nodes if any(lacking(applied, consents([one])) for applied in found)]:
        what = f"not allowed to run late what {asked} would store without"
        cure = "Stop them, or deploy a release there that registers those migrations with late=True."
        reasons.append(about_nodes("late_without_consent", unwilling, what, cure))
    below = _version.next_major(asked.packed)
    return reasons + (yield from stored_late(facts, asked, strict, below=below, also=also))


def _storing_newer(facts: TypeFacts, asked: Asked) -> Iterable[Reason]:
    """Yield a reason if nodes store what the release can't read."""
    written, below = facts.policy.version, _version.next_major(asked.packed)
    if written is not None and written < below:
        return
    newer: list[Serving] = [one for one in serving(facts, asked.type) if one.supported >= below]
    if newer:
        yield about_nodes("nodes_store_newer", newer, f"storing what {asked} can't read", _pin_first(asked))


def _retired(facts: TypeFacts, asked: Asked) -> Iterable[Reason]:
    """Yield a reason if nodes have retired what brings up what the release stores."""
    retired = [one for one in serving(facts, asked.type) if one.offer.registered.floor > asked.packed]
    if retired:
        cure = "Stop them, or deploy a release there that has those migrations."
        yield about_nodes("nodes_retired", retired, f"without the migrations of what {asked} would store", cure)


def _storing_elsewhere(facts: TypeFacts, asked: Asked, found: Iterable[AppliedSet]) -> Iterable[Reason]:
    """Yield a reason if the release could not store at the write version."""
    written = facts.policy.version
    if written is None:
        return
    at = f"{asked.type} is written at {_version.unpack(written)}"
    if written > asked.packed:
        yield Reason("write_version_above", f"{at}, where {asked} could store nothing. {_pin_first(asked)}")
        return
    offers = {one.offer.registered: one.offer for one in serving(facts, asked.type)}
    whys = {offers.get(applied, Offer(asked.type, applied)).why_not_stored(written) for applied in found}
    for why in sorted(whys - {""}):
        cure = f"'{command('rollout', 'flip', asked.type, asked)}' first, or roll back further"
        yield Reason("cannot_store", f"{at}, where {asked} can't store, for {why}. {cure}.")


def _pin_first(asked: Asked) -> str:
    return f"'{command('rollout', 'pin', asked.type, asked)}' comes first."


def _newer(facts: TypeFacts, asked: Asked) -> Reasons:
    """Count what is newer than the release by a major."""
    below = _version.next_major(asked.packed)
    cure = f"{_pin_first(asked)} Then newer software stores each at {asked} when it next stores it."
    sets = frozenset(applied for applied in facts.actors if applied is not None and applied.highest >= below)
    counted = yield from actors_with(asked.type, sets)
    reasons = list(about_actors("actors_newer", counted, f"stored at a newer major than {asked}", cure))
    counted = yield AskConverting(asked.type, below)
    what = f"with a conversion of entries to a newer major than {asked} begun"
    reasons += about_actors("converting_newer", counted, what, "Let newer software end it: there is no way back.")
    entries = frozenset(applied for applied in facts.known if applied.highest >= below)
    counted = yield from entries_with(facts, asked.type, entries)
    reasons += about_actors("entries_newer", counted, f"with entries at a newer major than {asked}", cure)
    return reasons


def _is_in_the_way(facts: TypeFacts, based: Based, release: AppliedSet) -> bool:
    """Tell whether a base of a newer major stands where the release needs one, or would migrate or reconcile."""
    below = _version.next_major(release.highest)
    if based.base.highest < below or (based.applied is not None and based.applied.highest >= below):
        return False  # the latter are counted as newer actors
    written = facts.policy.version
    if written is not None and release.highest > written:
        return True
    for number in release.packed:
        if not _has(based.applied, number) or (based.base.has(number) and not _has(based.writer, number)):
            return True
    return False


def _has(applied: AppliedSet | None, version: int) -> bool:
    return applied is not None and applied.has(version)


def _too_old(facts: TypeFacts, asked: Asked, floor: int) -> Reasons:
    """Count what is below the release's baseline."""
    if not floor:
        return []
    what, cure = f"below {_version.unpack(floor)}, the baseline of {asked}", "Let newer software activate them first."
    sets = frozenset(applied for applied in facts.actors if applied is None or applied.highest < floor)
    counted = yield from actors_with(asked.type, sets)
    reasons = list(about_actors("actors_too_old", counted, f"stored {what}", cure))
    sets_of_entries = frozenset(applied for applied in facts.known if applied.highest < floor)
    counted = yield from entries_with(facts, asked.type, sets_of_entries, below=floor)
    reasons += about_actors("entries_too_old", counted, f"with entries {what}", cure)
    return reasons
