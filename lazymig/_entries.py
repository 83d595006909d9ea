"""Entries of tables, as stores and activations hand them to each other.

An actor's tables hold entries: a key, a value, and a stamp of its own. Keys order by code point. A range of them is
written [start, end): as no key has NUL, what comes after a key begins with that key and `NEXT`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lazymig._records import MAX_ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._records import AppliedSet

Place = tuple[str, str]
"""An entry within its actor: table and key."""

NEXT = "\x01"
"""Put behind a key, it makes the lowest text above it."""

_LAST = "\U0010ffff"

END = _LAST * (MAX_ID_BYTES // 4 + 1)
"""Above all keys."""

PAGE_ENTRIES = 1_000
"""Entries read, or stored, in one trip."""

PAGE_BYTES = 1_000_000
"""Bytes of values read, or stored, in one trip, unless a single entry has more."""


class Entry(NamedTuple):
    """One entry.

    Attributes:
        data: The encoded value.
        applied: What was applied to it.
    """

    data: bytes
    applied: AppliedSet


class Page(NamedTuple):
    """Entries of a table, in order, column by column.

    Attributes:
        keys: Their keys.
        data: Their encoded values.
        applied: What was applied to each.
        is_last: Whether no more follow in the range.
    """

    keys: Sequence[str]
    data: Sequence[bytes]
    applied: Sequence[AppliedSet]
    is_last: bool


class Range(NamedTuple):
    """Entries of a table between two keys.

    Attributes:
        table: The table.
        start: The lowest key, "" for the first.
        end: Above the highest key.
        is_reverse: Whether the highest comes first.
    """

    table: str
    start: str = ""
    end: str = END
    is_reverse: bool = False

    def has(self, key: str) -> bool:
        """Tell whether a key lies in it."""
        return self.start <= key < self.end

    def after(self, key: str) -> Range:
        """Return what is left of it behind a key that was read."""
        return self._replace(end=key) if self.is_reverse else self._replace(start=key + NEXT)


class Count(NamedTuple):
    """How many entries of a table have the same stamp.

    Attributes:
        table: The table.
        applied: Their stamp.
        entries: How many.
    """

    table: str
    applied: AppliedSet
    entries: int


def after_prefix(prefix: str) -> str:
    """Return the lowest text above all that begin with a prefix."""
    kept = prefix.rstrip(_LAST)
    if not kept:
        return END
    point = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if point == 0xD800 else point)
