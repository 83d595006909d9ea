"""``lazymig inspect TYPE ID --table NAME``: entries of a table, a page at a time, as stored."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lazymig._entries import END, NEXT, Range, after_prefix
from lazymig._inspection import inspect_entries
from lazymig._records import MAX_ID_BYTES, MAX_NAME_BYTES, check_text
from lazymig.cli._access import find_actor, opened, run
from lazymig.cli._output import FOUND, Refusal, plain, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig._inspection import EntriesRecord
    from lazymig._records import ActorKey
    from lazymig.cli._output import Output
    from lazymig.cli._settings import Settings
    from lazymig.store import Store

DEFAULT_LIMIT, MAX_LIMIT = 20, 1_000


class Asked(NamedTuple):
    """Which entries were asked for.

    Attributes:
        table: Their table.
        prefix: Of their keys; None: any.
        after: Key behind which they lie, in the order asked for; None: from the first.
        reverse: The highest key first.
        limit: How many; None: as many as is usual.
    """

    table: str
    prefix: str | None = None
    after: str | None = None
    reverse: bool = False
    limit: int | None = None

    def range(self) -> Range:
        """Return the same as stores understand it.

        Raises:
            InvalidKeyError: Table, prefix or key is none.
        """
        check_text("a table's name", self.table, MAX_NAME_BYTES)
        start, end = "", END
        if self.prefix:
            check_text("a prefix of keys", self.prefix, MAX_ID_BYTES)
            start, end = self.prefix, after_prefix(self.prefix)
        if self.after is not None:
            check_text("an entry key", self.after, MAX_ID_BYTES)
            if self.reverse:
                end = min(end, self.after)
            else:
                start = max(start, self.after + NEXT)
        return Range(self.table, start, end, self.reverse)


def show_entries(output: Output, key: ActorKey, asked: Asked, settings: Settings) -> None:
    """Answer with a page of entries.

    Raises:
        InvalidKeyError: What was asked for can't be.
        Refusal: There is no such actor, or it has no such table.
        CorruptStateError: An entry can't be read.
    """
    page = run(partial(_read, key, asked, asked.range(), settings))
    document = {
        "type": key.type,
        "id": key.id,
        "table": asked.table,
        "entries": [{"key": entry.key, "version": str(entry.version), "value": entry.value} for entry in page.entries],
        "next": page.next,
    }
    output.answer(document, "" if output.is_json else "\n".join(_lines(key, asked, page, settings)))


async def _read(key: ActorKey, asked: Asked, of: Range, settings: Settings) -> EntriesRecord:
    async with opened(settings) as store:
        page = await inspect_entries(store, key, of, asked.limit or DEFAULT_LIMIT)
        if not page.entries:
            await _check_table(store, key, asked.table, settings)
        return page


async def _check_table(store: Store, key: ActorKey, table: str, settings: Settings) -> None:
    """Refuse a table that the actor doesn't have."""
    await find_actor(store, key, settings)
    tables = list(dict.fromkeys(count.table for count in await store.tables(key)))
    if table not in tables:
        has = f"it has {', '.join(map(repr, tables))}" if tables else "it has none"
        raise Refusal("unknown_table", f"{key} has no table {table!r}; {has}.{suggest(table, tables)}", FOUND)


# --- for people ------------------------------------------------------------------------------------------------------


def _lines(key: ActorKey, asked: Asked, page: EntriesRecord, settings: Settings) -> Iterator[str]:
    """Yield the page as text: a line an entry, cut to a terminal's width, and how to get the next page."""
    import orjson  # noqa: PLC0415  (not for --json)
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    width = console.width if console.is_terminal else None
    yield plain(f"{key}, table {asked.table!r}")
    if not page.entries:
        yield "  no entries there"
        return
    rows = [("key", "version", "value")]
    rows += [
        (plain(entry.key), str(entry.version), plain(orjson.dumps(entry.value).decode())) for entry in page.entries
    ]
    yield from table_lines(rows, width)
    if page.next is not None:
        yield f"next page: {next_command(key, asked, page.next, settings)}"


def table_lines(rows: list[tuple[str, str, str]], width: int | None) -> Iterator[str]:
    """Yield rows in columns, cut to a width in cells of a terminal; None: as long as they are."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415

    first, second = (max(cell_len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        line = f"  {set_cell_size(row[0], first)}  {set_cell_size(row[1], second)}  {row[2]}"
        is_long = width is not None and cell_len(line) > width
        yield f"{set_cell_size(line, width - 1)}…" if is_long and width is not None else line


def next_command(key: ActorKey, asked: Asked, after: str, settings: Settings) -> str:
    """Return what a shell takes to show the page behind a key; of a store's URL what may be shown."""
    options = [f"--table={asked.table}", f"--after={after}"]
    if asked.prefix:
        options.append(f"--prefix={asked.prefix}")
    if asked.reverse:
        options.append("--reverse")
    if asked.limit is not None:
        options.append(f"--limit={asked.limit}")
    if settings.store_source == "--store":
        options.append(f"--store={settings.shown_store}")
    words = ["lazymig", "inspect", *options, key.type, key.id]
    if key.type.startswith("-") or key.id.startswith("-"):
        words.insert(-2, "--")
    return " ".join(map(shell_word, words))


def shell_word(text: str) -> str:
    """Return a text as one word of a shell, in which nothing moves a cursor."""
    if text.isprintable():
        return shlex.quote(text)
    shown = (
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for char in (text.replace("\\", "\\\\").replace("'", "\\'"))
    )
    return f"$'{''.join(shown)}'"
