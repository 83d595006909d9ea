"""What a store has of actors, walked through in order and summed up: equal on every store that has the same.

A digest covers all that is kept of an actor but its lock, and the record of a migration that failed. Applied sets go in
by their versions, entries by table and key; a type's digest is one over those of its actors, in order of their ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES, Range
from lazymig._rows import write_time
from lazymig.copies import CopiedEntry, Outline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from lazymig._records import ActorKey, AppliedSet, Previous, Stamp, StoredActor
    from lazymig.copies import Whole
    from lazymig.store import Store

TRIES = 3
"""How often an actor is read anew that is written while it is read page by page."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store has of a type.

    Attributes:
        actors: How many, the cleared ones included.
        states: How many they have together.
        entries: Likewise.
        digest: Of all of it: hexadecimal, 32 bytes of BLAKE2b.
    """

    actors: int
    states: int
    entries: int
    digest: str


class Content(NamedTuple):
    """What a store has of an actor.

    Attributes:
        revision: The actor's.
        states: How many it has.
        entries: Likewise.
        digest: Of all of it.
    """

    revision: int
    states: int
    entries: int
    digest: bytes


class Sum:
    """Sums actors of a type up, one by one in order of their ids."""

    def __init__(self) -> None:
        self._actors = self._states = self._entries = 0
        self._digest = blake2b(digest_size=32)

    def add(self, content: Content) -> None:
        """Add an actor."""
        self._actors += 1
        self._states += content.states
        self._entries += content.entries
        self._digest.update(content.digest)

    @property
    def contents(self) -> Contents:
        """What was added."""
        return Contents(self._actors, self._states, self._entries, self._digest.hexdigest())


async def outlines(store: Store, actor_type: str, limit: int) -> AsyncGenerator[Outline, None]:
    """Yield all actors of a type in order of their ids, read so many at once."""
    after = ""
    while page := await store.copies.outlines(actor_type, after=after, limit=limit):
        for outline in page:
            yield outline
        after = page[-1].id


async def merged(
    ours: AsyncIterator[Outline], theirs: AsyncIterator[Outline]
) -> AsyncGenerator[tuple[Outline | None, Outline | None], None]:
    """Yield the actors of two stores side by side, in order of their ids."""
    one, two = await anext(ours, None), await anext(theirs, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one.id < two.id):
            yield one, None
            one = await anext(ours, None)
        elif one is None or two.id < one.id:
            yield None, two
            two = await anext(theirs, None)
        else:
            yield one, two
            one, two = await anext(ours, None), await anext(theirs, None)


async def pages(store: Store, key: ActorKey) -> AsyncGenerator[list[CopiedEntry], None]:
    """Yield the entries of an actor's tables, page by page, ordered by table and key."""
    for table in sorted({count.table for count in await store.tables(key)}):
        of, is_last = Range(table), False
        while not is_last:
            keys, data, applied, is_last = await store.entries(key, of, PAGE_ENTRIES, PAGE_BYTES)
            if keys:
                of = of.after(keys[-1])
                yield [CopiedEntry(table, *row) for row in zip(keys, data, applied, strict=True)]


def content_of(whole: Whole) -> Content:
    """Return what an actor comes to."""
    digest = _Digest()
    digest.add_entries(whole.entries)
    return digest.content(whole.actor, whole.previous)


async def read_content(store: Store, key: ActorKey, tell: Callable[[], None]) -> Content | None:
    """Return what a stored actor comes to that is read page by page; None if it is written all the time.

    Args:
        store: Where from.
        key: The actor.
        tell: Called after each page; what it raises ends this.
    """
    for _ in range(TRIES):
        actor, previous = await store.read(key), await store.previous(key)
        if actor is None:
            break
        digest = _Digest()
        async for page in pages(store, key):
            digest.add_entries(page)
            tell()
        after = await store.read(key)
        if after is not None and after.revision == actor.revision:
            return digest.content(actor, previous)
    return None


class _Digest:
    """Takes values, each with its length before it, so that no two lists of them give the same bytes."""

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=32)
        self._entries = 0

    def add_entries(self, entries: Iterable[CopiedEntry]) -> None:
        for table, key, data, applied in entries:
            self._add(table.encode(), key.encode(), data, _text(applied))
            self._entries += 1

    def content(self, actor: StoredActor, previous: Previous | None) -> Content:
        """Add what is not entries; return what it came to."""
        stamp, base = actor.stamp, actor.base
        self._add(actor.key.type.encode(), actor.key.id.encode(), str(actor.revision).encode())
        self._add(*_stamp(stamp))
        self._add(f"{actor.marks.converting} {actor.marks.oldest}".encode())
        for name, data in sorted(actor.states.items()):
            self._add(b"state", name.encode(), data)
        if base is not None:
            self._add(b"base", _text(base.applied), f"{base.revision} {base.digest}".encode())
            for name, kept in sorted(base.states.items()):
                self._add(b"none" if kept.data is None else b"kept", name.encode(), kept.data or b"")
        if previous is not None:
            self._add(b"previous", *_stamp(previous.stamp))
            for name, data in sorted(previous.states.items()):
                self._add(b"state", name.encode(), data)
        return Content(actor.revision, len(actor.states), self._entries, self._digest.digest())

    def _add(self, *values: bytes) -> None:
        for value in values:
            self._digest.update(len(value).to_bytes(8))
            self._digest.update(value)


@lru_cache(maxsize=1024)
def _text(applied: AppliedSet) -> bytes:
    return f"{applied.floor} {applied.packed}".encode()


def _stamp(stamp: Stamp | None) -> tuple[bytes, bytes, bytes]:
    if stamp is None:
        return b"", b"", b""
    time = b"" if stamp.migrated_at is None else str(write_time(stamp.migrated_at)).encode()
    return _text(stamp.applied), _text(stamp.writer), time
