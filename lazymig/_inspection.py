"""What is stored of an actor, as users see it; nothing is checked, run or changed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _version, codec
from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES
from lazymig._quarantine import Quarantine
from lazymig._records import ActorRecord
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semver import Version

    from lazymig._entries import Place, Range
    from lazymig._records import ActorKey, StoredActor
    from lazymig.store import Store


class EntryRecord(NamedTuple):
    """An entry as stored.

    Attributes:
        key: Its key.
        version: Of its stamp.
        value: Its value.
    """

    key: str
    version: Version
    value: Any


class EntriesRecord(NamedTuple):
    """Some entries of a table.

    Attributes:
        entries: In order.
        next: Key behind which more follow, None if none do.
    """

    entries: Sequence[EntryRecord]
    next: str | None


async def inspect(store: Store, key: ActorKey) -> ActorRecord | None:
    """Return what a store has of an actor, None if it was never stored.

    Raises:
        CorruptStateError: It can't be read.
    """
    found = await store.read(key)
    return None if found is None else as_record(found)


async def inspect_tables(store: Store, key: ActorKey) -> dict[str, Counter[Version]]:
    """Return how many entries an actor has, by table and by the version of their stamps, in order.

    Raises:
        CorruptStateError: A stamp, or a table's name, can't be read.
    """
    tables: dict[str, Counter[Version]] = {}
    for count in sorted(await store.tables(key), key=lambda count: (count.table, count.applied.highest)):
        tables.setdefault(count.table, Counter())[_version.unpack(count.applied.highest)] += count.entries
    return tables


async def inspect_entries(store: Store, key: ActorKey, of: Range, limit: int) -> EntriesRecord:
    """Return the first entries of a range, at least one of them if there is one.

    Raises:
        CorruptStateError: One can't be read; names its key.
    """
    entries: list[EntryRecord] = []
    while True:
        page = await store.entries(key, of, min(limit - len(entries), PAGE_ENTRIES), PAGE_BYTES)
        for name, data, applied in zip(*page[:3], strict=True):
            value = decode_entry(key, (of.table, name), data)
            entries.append(EntryRecord(name, _version.unpack(applied.highest), value))
        if page.is_last:
            return EntriesRecord(entries, None)
        if len(entries) == limit:
            return EntriesRecord(entries, entries[-1].key)
        of = of.after(entries[-1].key)


def as_record(found: StoredActor) -> ActorRecord:
    """Return a stored actor as users see it.

    Raises:
        CorruptStateError: A state can't be read.
    """
    states = {name: decode_state(found.key, name, data) for name, data in sorted(found.states.items())}
    info = None if found.stamp is None else found.stamp.info
    converting = _version.unpack(found.marks.converting) if found.marks.converting else None
    has_entries = found.marks.oldest is not None
    quarantine = None if found.failure is None else Quarantine.of(found.key, found.failure)
    return ActorRecord(found.key, info, states, found.owner, found.revision, converting, has_entries, quarantine)


def decode_state(key: ActorKey, name: str, data: bytes) -> Any:
    """Return a stored state's JSON value.

    Raises:
        CorruptStateError: The bytes are no JSON.
    """
    try:
        return codec.decode(data)
    except ValueError as error:
        raise CorruptStateError(key, f"its state {name!r} is no JSON ({error})") from None


def decode_entry(key: ActorKey, place: Place, data: bytes) -> Any:
    """Return a stored entry's JSON value.

    Raises:
        CorruptStateError: The bytes are no JSON.
    """
    try:
        return codec.decode(data)
    except ValueError as error:
        raise CorruptStateError(key, f"it is no JSON ({error})", place) from None
