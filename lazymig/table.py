"""A handle on one of an actor's tables within an activation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lazymig._entries import END, PAGE_BYTES, PAGE_ENTRIES, Entry, Range, after_prefix
from lazymig._records import MAX_ID_BYTES, check_text
from lazymig.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig._entries import Place
    from lazymig._tables import Tables

Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]] | AsyncIterable[tuple[str, Any]]


class Table:
    """One table of an actor: entries that are read and stored one by one; got by `Activation.table`.

    Keys are strings, not empty, at most 1,000 bytes of UTF-8, ordered by code point. Values are JSON; what is read
    shares nothing with what is stored. Each entry is stamped with the version of the software that wrote it, and
    converted when newer software reads it, see `Migration.entries`.

    All of its methods raise:
        NewerStateError: The actor, or an entry that is read, updated or in a range to be deleted, is newer than this
            software by a major version.
        LeaseLostError: Another node may have taken the actor; nothing was stored.
        StoreError: The store's fault.

    Those that read entries, and `delete_range`, raise besides:
        CorruptStateError: An entry can't be read.
        MigrationFailedError: What converts an entry raised; it is stored as it was.
        StateTooOldError: An entry is below the baseline.
        LateMigrationError: An entry lacks a late migration that has no consent.

    Those that write raise besides:
        ReadOnlyActionError: Called by a shared action.
        InvalidKeyError: A key is none; nothing was staged.
        InvalidValueError: JSON can't hold a value; nothing was staged.

    Attributes:
        name: The table's name.
    """

    __slots__ = ("_tables", "name")

    def __init__(self, tables: Tables, name: str) -> None:
        self._tables = tables
        self.name = name

    def __repr__(self) -> str:
        """Show the name, never a value."""
        return f"<Table {self.name}>"

    async def get(self, key: str, default: Any = None) -> Any:
        """Return an entry's value, or the default if there is no such entry."""
        place = self._place(key)
        async with self._tables.turn() as (lease, running):
            found = await self._tables.get(lease, place, running)
        return default if found is None else found[0]

    async def put(self, key: str, value: Any) -> None:
        """Let an entry be stored, exactly as given, by the activation's next persist."""
        place = self._place(key)
        data = self._tables.encode(place, value)
        async with self._tables.turn(writes=True) as (_, running):
            self._tables.stage(place, Entry(data, self._tables.written(running)), running)

    async def update(self, key: str, function: Callable[[Any], Any], default: Any = None) -> None:
        """Let what a function makes of an entry be stored by the activation's next persist.

        The fields that newer software gave the entry are there, and stay unless the function takes them away; so does
        its stamp. Nothing comes between reading and writing.

        Args:
            key: The entry's.
            function: Gets the value, a private copy: it changes it in place, or returns its replacement. Not async.
            default: The value to begin with if there is no such entry.

        Raises:
            NoEntryError: There is no such entry, and no default.
        """
        await self._tables.update(self._place(key), function, default)

    async def delete(self, key: str) -> None:
        """Let an entry be removed, if there is one, by the activation's next persist."""
        place = self._place(key)
        async with self._tables.turn(writes=True) as (_, running):
            self._tables.stage(place, None, running)

    async def scan(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield key and value of entries in order, page by page: memory is bounded however many there are.

        What is stored or staged while it goes on may or may not be seen.

        Args:
            prefix: Only keys that begin with it.
            start: The lowest key.
            end: Above the highest key.
            reverse: The highest key first.
            limit: How many at most.
        """
        rest: Range | None = self._range(prefix, start, end, is_reverse=_flag("reverse", reverse))
        left = _limit(limit)
        while rest is not None and left > 0:
            items, rest = await self._tables.page(rest, left)
            for item in items[:left] if len(items) > left else items:
                yield item
            left -= len(items)

    async def count(self, *, prefix: str = "", start: str | None = None, end: str | None = None) -> int:
        """Return how many entries there are in a range, see `scan`; they are not read."""
        return await self._tables.count(self._range(prefix, start, end))

    async def put_many(self, pairs: Pairs) -> int:
        """Store entries at once, exactly as given, in chunks of a transaction each; in a migration they are staged.

        Args:
            pairs: Key and value, as a mapping, an iterable or an async one; read no further ahead than a chunk. Of
                pairs with the same key the last one stands.

        Returns:
            How many pairs were stored. If an error is raised, or ``pairs`` raises, the chunks before it stay stored.
        """
        chunk: dict[Place, bytes] = {}
        size = count = 0
        async for key, value in _each(pairs):
            place = self._place(key)
            data = self._tables.encode(place, value)
            if len(chunk) == PAGE_ENTRIES or (chunk and size + len(data) > PAGE_BYTES):
                await self._tables.put(chunk)
                chunk, size = {}, 0
            chunk[place] = data
            size += len(data)
            count += 1
        if chunk:
            await self._tables.put(chunk)
        return count

    async def delete_range(self, *, prefix: str = "", start: str | None = None, end: str | None = None) -> int:
        """Remove the entries of a range at once, see `scan`, in chunks of a transaction each; in a migration staged.

        Returns:
            How many were removed. If an error is raised, the chunks before it stay removed.
        """
        count = 0
        rest: Range | None = self._range(prefix, start, end)
        while rest is not None:
            removed, rest = await self._tables.remove(rest)
            count += removed
        return count

    def _place(self, key: str) -> Place:
        check_text("an entry key", key, MAX_ID_BYTES)
        return self.name, key

    def _range(self, prefix: str, start: str | None, end: str | None, *, is_reverse: bool = False) -> Range:
        for what, text in {"prefix": prefix, "start": start, "end": end}.items():
            if text != "" and (text is not None or what == "prefix"):
                check_text(f"the {what} of a range", text, MAX_ID_BYTES)
        last = after_prefix(prefix) if prefix else END
        return Range(self.name, max(prefix, start or ""), min(last, END if end is None else end), is_reverse)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise DefinitionError(f"{name} is {value!r}. Give True or False.")
    return value


def _limit(limit: object) -> int:
    if limit is None:
        return 1 << 63
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise DefinitionError(f"limit is {limit!r}. Give a whole number of 0 or more, or None.")
    return limit


async def _each(pairs: Pairs) -> AsyncIterator[tuple[str, Any]]:
    if isinstance(pairs, AsyncIterable):
        async for pair in pairs:
            yield _pair(pair)
    elif not isinstance(pairs, Iterable):
        raise DefinitionError(f"put_many takes pairs of key and value, not {pairs!r:.80}. Give a mapping or a list.")
    else:
        for pair in pairs.items() if isinstance(pairs, Mapping) else pairs:
            yield _pair(pair)


def _pair(pair: object) -> tuple[str, Any]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DefinitionError(f"put_many takes pairs of key and value, not {pair!r:.80}. Write (key, value).")
    return pair[0], pair[1]
