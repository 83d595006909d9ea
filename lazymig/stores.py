"""Open a store by its URL."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from lazymig._postgres_sql import OPTIONS
from lazymig.errors import DefinitionError, InvalidStoreUrlError, StoreError, StoreMissingError
from lazymig.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.postgres import Place
    from lazymig.store import Store

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""An identifier that is the same quoted or not, of at most PostgreSQL's 63 characters."""

_PASSWORD = re.compile(r"(://[^:/?#]*:).*(@)")
"""Up to the last @: a password may hold one, and a slash, where it should have been quoted."""

_OPTION = re.compile(r"([?&])([^=&]*)=([^&]*)")


@asynccontextmanager
async def open_store(url: str, *, create: bool | None = None, read_only: bool = False) -> AsyncIterator[Store]:
    """Open the store that ``url`` names, for the length of a ``with`` block.

    Args:
        url: ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://…``. With
            ``?synchronous=normal`` a power failure may lose the last commits of a SQLite file (never tear one); by
            default it loses none. PostgreSQL's options are libpq's, and ``schema`` (of the tables, "lazymig"),
            ``partitions`` (1 to 1024, counts when the schema is laid out), ``pool`` (at most so many connections, 4).
        create: Whether a missing SQLite file, or what is missing in a PostgreSQL schema, is made; by default, unless
            it is opened to be read only.
        read_only: Nothing is written: what would write raises StoreReadOnlyError. The right to read is enough, and a
            PostgreSQL standby. A SQLite file needs its ``-wal`` and ``-shm`` beside it, as while a node has it open,
            or the right to make them: then they are left there, empty.

    Raises:
        DefinitionError: It is to be read only, and made.
        InvalidStoreUrlError: It names no store.
        StoreError: The store can't be opened; nothing was changed.
    """
    if create and read_only:
        raise DefinitionError("create=True and read_only=True exclude each other. Leave one of them out.")
    create = not read_only if create is None else create
    if url == "memory:":
        if read_only:
            raise StoreMissingError("memory: is empty when it is opened, so there is nothing to read. Name another.")
        store = MemoryStore()
        try:
            yield store
        finally:
            await store.shut()
        return
    if isinstance(url, str) and url.partition(":")[0] in {"postgresql", "postgres"}:
        place = _read_postgres_url(url)
        from lazymig.postgres import open_postgres  # noqa: PLC0415  (found: the place was read by it)

        async with open_postgres(place, create=create, read_only=read_only) as opened:
            yield opened
        return
    path, synchronous = _read_sqlite_url(url)
    try:
        _check_path(path, url, create=create)
    except PermissionError as error:
        raise StoreError(
            f"{hide_password(url)} can't be opened ({error}). Give this process the right to look into its folder."
        ) from error
    from lazymig.sqlite import open_sqlite  # noqa: PLC0415  (no driver where only memory is used)

    async with open_sqlite(path, synchronous=synchronous, create=create, read_only=read_only) as opened:
        yield opened


def hide_password(url: str) -> str:
    """Return the URL as it may be shown, even one that is written wrongly."""
    return _OPTION.sub(_hide_password_option, _PASSWORD.sub(r"\1***\2", url))


def _hide_password_option(found: re.Match[str]) -> str:
    mark, name, _ = found.groups()
    return f"{mark}{name}=***" if unquote(name).lower().endswith("password") else found[0]


def _read_sqlite_url(url: object) -> tuple[Path, str]:
    if not isinstance(url, str):
        raise InvalidStoreUrlError(repr(url), f"it is of type {type(url).__name__}")
    shown = hide_password(url)
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        raise InvalidStoreUrlError(shown, f"{scheme!r} is no kind of store")
    if not rest.startswith("///"):
        raise InvalidStoreUrlError(shown, "a file comes after three slashes, an absolute path after four")
    path, _, query = rest[3:].partition("?")
    if path == ":memory:":
        raise InvalidStoreUrlError(shown, "lazymig's store in memory is another. Write memory:")
    if not path or path == "/" or "\0" in unquote(path):
        raise InvalidStoreUrlError(shown, "it names no file")
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full").lower()
    if options:
        raise InvalidStoreUrlError(shown, f"unknown option {next(iter(options))!r}")
    if synchronous not in {"full", "normal"}:
        raise InvalidStoreUrlError(shown, f"synchronous is full or normal, not {synchronous!r}")
    return Path(unquote(path)), synchronous


def _read_postgres_url(url: str) -> Place:
    name = hide_password(url)
    start, _, query = url.partition("?")
    if not start.partition(":")[2].startswith("//"):
        raise InvalidStoreUrlError(name, "a host or a database comes after two slashes")
    options = [option for option in query.split("&") if option]
    pairs = [(key, value) for key, _, value in (option.partition("=") for option in options) if key in OPTIONS]
    ours = dict(pairs)
    if len(ours) < len(pairs):
        raise InvalidStoreUrlError(name, f"one of {', '.join(ours)} is given twice")
    schema = ours.get("schema", "lazymig")
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise InvalidStoreUrlError(
            name, f"the schema {schema!r} isn't of a-z, 0-9 and _ (at most 63, no digit first, no pg_)"
        )
    partitions = _read_number(name, "partitions", ours["partitions"], 1024) if "partitions" in ours else None
    pool = _read_number(name, "pool", ours.get("pool", "4"), 1000)
    try:
        from lazymig.postgres import Place, read_conninfo  # noqa: PLC0415  (no driver where only files are used)
    except ImportError as error:
        raise StoreError(f"{name} needs psycopg ({error}). Do: pip install 'lazymig[postgres]'.") from error
    rest = "&".join(option for option in options if option.partition("=")[0] not in ours)
    return Place(name, read_conninfo(f"{start}?{rest}" if rest else start, name), schema, partitions, pool)


def _read_number(name: str, option: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise InvalidStoreUrlError(name, f"{option} is a number from 1 to {most}, not {text[:20]!r}")
    return int(text)


def _check_path(path: Path, url: str, *, create: bool) -> None:
    if not path.parent.is_dir():
        raise StoreMissingError(
            f"{hide_password(url)} can't be opened: the folder {path.parent} does not exist. Make it first."
        )
    if path.is_dir():
        raise StoreMissingError(f"{hide_password(url)} can't be opened: {path} is a folder. Name a file in it.")
    if not create and not path.exists():
        raise StoreMissingError(
            f"{hide_password(url)} does not exist. Check the path; 'lazymig import' or a Node makes it."
        )
