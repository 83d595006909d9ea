"""How many actors are at which version, and which are behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig._records import ActorKey
from lazymig._rulings import AskFailing, AskType, Ruled
from lazymig.rollout._asking import checked_name
from lazymig.rollout._gates import bases_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Mapping, Sequence

    from semver import Version

    from lazymig._records import AppliedSet
    from lazymig._rulings import Ruling, TypeFacts
    from lazymig.store import Store
    from lazymig.suite import ActorType

PAGE_ACTORS = 500
"""How many ids are read at once."""


@dataclass(frozen=True, slots=True)
class Census:
    """A type's stored actors, exact at the moment of the query.

    Entries, bases and records are counted right after the actors, each exactly at its own moment.

    Attributes:
        versions: Every actor by version; those without migration-info count as 0.0.0.
        applied: Every actor by all that was applied to it, in order, the floor first; None for no migration-info.
        entries: Entries of tables by version.
        bases: How many actors have a base, kept by newer software.
        quarantined: How many actors have the record of a migration that failed; `versions` counts them, too.
    """

    versions: dict[Version, int] = field(default_factory=dict)
    applied: dict[tuple[Version, ...] | None, int] = field(default_factory=dict)
    entries: dict[Version, int] = field(default_factory=dict)
    bases: int = 0
    quarantined: int = 0

    @property
    def actors(self) -> int:
        """How many actors there are."""
        return sum(self.versions.values())

    @property
    def without_info(self) -> int:
        """How many of them no software has migrated yet: imported ones."""
        return self.applied.get(None, 0)

    @classmethod
    def of(
        cls,
        counts: Mapping[AppliedSet | None, int],
        entries: Mapping[AppliedSet, int] | None = None,
        bases: int = 0,
        quarantined: int = 0,
    ) -> Census:
        """Sum up applied sets."""
        applied: Counter[tuple[Version, ...] | None] = Counter()
        for found, count in counts.items():
            applied[None if found is None else found.versions] += count
        return cls(_by_version(counts), dict(applied), _by_version(entries or {}), bases, quarantined)


def _by_version(counts: Mapping[Any, int]) -> dict[Version, int]:
    found: Counter[int] = Counter()
    for applied, count in counts.items():
        found[0 if applied is None else applied.highest] += count
    return {_version.unpack(number): found[number] for number in sorted(found)}


async def census(store: Store, actor_type: ActorType[Any] | str) -> Census:
    """Count a type's actors and entries by version; nothing for a type that nobody has.

    Args:
        store: An open store.
        actor_type: The type, or its name.

    Raises:
        StoreError: The store can't be asked.
        CorruptStateError: Migration-info can't be read.
    """
    name = checked_name(store, actor_type)
    counts = await store.census(name)
    entries = await store.entry_census(name)
    return Census.of(counts, entries, *await store.rule(partial(_bases_and_records, name)))


def _bases_and_records(actor_type: str) -> Ruling:
    facts: TypeFacts = yield AskType(actor_type)
    bases = yield from bases_with(actor_type, facts.bases)
    return Ruled((bases.total, (yield AskFailing(actor_type)).total))


class Stragglers:
    """The actors of a type below a version: awaited, a tuple of their keys in order; or iterated, page by page."""

    def __init__(self, store: Store, actor_type: str, below: Version) -> None:
        self._store = store
        self._type = actor_type
        self._below = _version.pack(below)

    def __await__(self) -> Generator[Any, Any, tuple[ActorKey, ...]]:
        """Read all of them."""
        return self._all().__await__()

    async def __aiter__(self) -> AsyncIterator[ActorKey]:
        """Read them page by page; those that are brought up meanwhile may be left out."""
        sets = await self._store.rule(partial(_sets_below, self._type, self._below))
        after = ""
        while sets:
            page: Sequence[str] = await self._store.stragglers(self._type, sets, after=after, limit=PAGE_ACTORS)
            for actor_id in page:
                yield ActorKey(self._type, actor_id)
            if len(page) < PAGE_ACTORS:
                return
            after = page[-1]

    async def _all(self) -> tuple[ActorKey, ...]:
        return tuple([key async for key in self])


def _sets_below(actor_type: str, below: int) -> Ruling:
    facts: TypeFacts = yield AskType(actor_type)
    return Ruled(frozenset(found for found in facts.actors if (0 if found is None else found.highest) < below))


def stragglers(store: Store, actor_type: ActorType[Any] | str, *, below: str | Version) -> Stragglers:
    """Name the actors of a type that are below a version; those without migration-info count as 0.0.0.

    ``await stragglers(…)`` is a tuple of all their `ActorKey`s, ``async for key in stragglers(…)`` reads them page by
    page.

    Args:
        store: An open store.
        actor_type: The type, or its name.
        below: The version.

    Raises:
        DefinitionError: The version is none, or the store is none.
        InvalidKeyError: The type is none.
        StoreError: The store can't be asked; raised when they are read.
    """
    return Stragglers(store, checked_name(store, actor_type), _version.parse(below))
