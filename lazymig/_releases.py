"""What is asked when a node starts: whether its release fits what the store has seen, and what it is to store.

A release of a type is the set of versions that a node registers. The store keeps all that it has seen.

| the set                                    | the node                                                             |
|--------------------------------------------|----------------------------------------------------------------------|
| was seen before                            | starts: a pod of the old release restarts in the middle of a deploy  |
| has a version below the highest seen, that | starts if it says late=True: actors above it never had it            |
| no seen set names (a baseline names none)  |                                                                      |
| lacks a seen version below its highest     | starts if its baseline is at or above it, and no actor or entry is   |
|                                            | below that                                                           |

A type with a write version is also stored at it: a node above it starts if it can do so, whatever was seen. One below
it starts, and stores nothing of the type. A changed checksum never keeps a node from starting, nor does a stamp that
can't be read, unless what actors have is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _version
from lazymig._rulings import NOBODY, AskActors, AskBases, AskEntries, AskSeen, AskType, Release, Ruled
from lazymig.errors import LateMigrationError, MissingMigrationError, WriteVersionError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from datetime import datetime

    from semver import Version

    from lazymig._fleet_records import Offer
    from lazymig._migrations import Chain
    from lazymig._records import AppliedSet, NodeRecord
    from lazymig._rulings import Counted, Question, Ruling, Seen, TypeFacts
    from lazymig.suite import ActorType

    Asking = Generator[Question, Any, None]


class Changed(NamedTuple):
    """A migration whose checksum is not what it was when the store last saw it.

    Attributes:
        actor_type: Name of the actor type.
        version: Version of the migration.
        name: Name of its function.
    """

    actor_type: str
    version: Version
    name: str


def starting(node: NodeRecord, types: Mapping[str, ActorType[Any]], now: datetime) -> Ruling:
    """Decide whether a node may start; its answer is a tuple of `Changed`.

    Args:
        node: The node, with an offer for each type.
        types: Its actor types by name.
        now: When, aware UTC.

    Raises:
        LateMigrationError: A new set has a version below those seen, without consent.
        MissingMigrationError: A new set lacks what was seen, and something stored may need it.
        WriteVersionError: It can't store a type at its write version, or the first one can't be set.
    """
    changed: list[Changed] = []
    policies: dict[str, int | None] = {}
    releases: list[tuple[str, Release]] = []
    for offer in node.offers:
        actor_type = types[offer.type]
        seen: Seen = yield AskSeen(offer.type)
        if all(release.applied != offer.registered for release in seen.releases):
            yield from _check_late(offer, seen)
            yield from _check_missing(offer, seen)
        check_write_version(offer, seen.policy.version)
        if not seen.policy.epoch and actor_type.write_version is not None:
            policies[offer.type] = _first_write_version(offer, seen, actor_type.write_version)
        changed += _changed(actor_type.chain, seen)
        build = node.build or next((one.build for one in seen.releases if one.applied == offer.registered), None)
        releases.append((offer.type, Release(offer.registered, actor_type.chain.checksums, build, now)))
    return Ruled(tuple(changed), policies, tuple(releases))


# --- the set of versions ---------------------------------------------------------------------------------------


def _check_late(offer: Offer, seen: Seen) -> Asking:
    """Refuse new versions below what was seen, unless they say that they may run late.

    A seen baseline covers a version without showing that it ever ran: older sets, and what is stored, tell.
    """
    sets = [release.applied for release in seen.releases]
    highest = max((applied.highest for applied in sets), default=0)
    new = [
        version
        for version in offer.registered.packed
        if version < highest and version not in offer.late and not any(version in applied.packed for applied in sets)
    ]
    if not new:
        return
    facts: TypeFacts = yield AskType(offer.type)
    past = [*sets, *facts.known, *(applied for applied in facts.actors if applied is not None)]
    late = [version for version in new if any(_misses(applied, version) for applied in past)]
    if not late:
        return
    above = frozenset(
        applied
        for applied in facts.actors
        if applied is not None and any(_misses(applied, version) for version in late)
    )
    missing: Counted = (yield AskActors(offer.type, above)) if above else NOBODY
    raise LateMigrationError(
        None,
        _version.unpack(highest),
        [_version.unpack(version) for version in late],
        actor_type=offer.type,
        count=missing.total,
    )


def _misses(applied: AppliedSet, version: int) -> bool:
    """Tell whether a set is past a version, packed, that it never had."""
    return version < applied.highest and not applied.has(version)


def _check_missing(offer: Offer, seen: Seen) -> Asking:
    """Refuse a set that lacks what was seen, unless a baseline stands for it and nothing stored is below that."""
    registered = offer.registered
    known = {version for release in seen.releases for version in release.applied.packed}
    lacked = sorted(version for version in known.difference(registered.packed) if version <= registered.highest)
    if not lacked:
        return
    facts: TypeFacts = yield AskType(offer.type)
    gone = [version for version in lacked if version > registered.floor]
    baseline = max(lacked[-1], registered.floor)
    below = frozenset(applied for applied in facts.actors if applied is None or applied.highest < baseline)
    found: Counted = (yield AskActors(offer.type, below)) if below else NOBODY
    of_entries = not found.total and facts.oldest is not None and facts.oldest < baseline
    if of_entries:
        sets = frozenset(applied for applied in facts.known if applied.highest < baseline)
        found = yield AskEntries(offer.type, sets, baseline)
    if not found.total:  # what would reconcile what older software stored last
        retired = frozenset(
            based
            for based in facts.bases
            if any(
                version <= baseline and based.base.has(version) and not (based.writer and based.writer.has(version))
                for version in lacked
            )
        )
        found = (yield AskBases(offer.type, retired)) if retired else NOBODY
    if gone or found.total:
        versions = [_version.unpack(version) for version in gone or lacked]
        raise MissingMigrationError(
            offer.type,
            versions,
            _version.unpack(baseline),
            found.total,
            found.actors,
            of_entries=of_entries and found.total > 0,
        )


def _changed(chain: Chain, seen: Seen) -> Iterator[Changed]:
    """Yield the migrations whose checksums are not those that were last seen."""
    known: dict[int, int] = {}
    for release in sorted(seen.releases, key=lambda release: release.seen_at):
        known.update(release.checksums)
    for migration in chain.migrations:
        before = known.get(migration.packed)
        if before is not None and migration.checksum is not None and migration.checksum != before:
            yield Changed(chain.actor_type, migration.version, migration.name)


# --- the write version -----------------------------------------------------------------------------------------


def check_write_version(offer: Offer, version: int | None) -> None:
    """Refuse a node that would store its actors and can't do so at the write version.

    Raises:
        WriteVersionError: It can't.
    """
    if version is not None and offer.registered.highest >= version and (why := offer.why_not_stored(version)):
        raise WriteVersionError(offer.type, _version.unpack(version), why)


def _first_write_version(offer: Offer, seen: Seen, wanted: Version) -> int:
    """Return the first write version of a type, which all its nodes must be able to store."""
    version = _version.pack(wanted)
    check_write_version(offer, version)
    unable = {
        node.node_id: f"{node.label} ({node.node_id}): {why}"
        for node in seen.nodes
        if (offered := node.offer(offer.type)) is not None and (why := offered.why_not_stored(version))
    }
    unable |= {node_id: f"{node_id}: what it registered can't be read" for node_id in seen.unreadable}
    if unable:
        raise WriteVersionError(offer.type, wanted, "; ".join(f"node {why}" for why in unable.values()), tuple(unable))
    return version
