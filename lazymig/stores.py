"""Open a store by its URL."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from lazymig.errors import InvalidStoreUrlError, StoreError, StoreMissingError
from lazymig.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store

_PASSWORD = re.compile(r"(://[^:/?#]*:).*(@)")
"""Up to the last @: a password may hold one, and a slash, where it should have been quoted."""

_PASSWORD_OPTION = re.compile(r"([?&][a-z_]*password=)[^&]*", re.IGNORECASE)


@asynccontextmanager
async def open_store(url: str, *, create: bool = True) -> AsyncIterator[Store]:
    """Open the store that ``url`` names, for the length of a ``with`` block.

    Args:
        url: ``memory:``, ``sqlite:///relative.db`` or ``sqlite:////absolute.db``. With ``?synchronous=normal`` a power
            failure may lose the last commits of a SQLite file (never tear one); by default it loses none.
        create: Whether a missing SQLite file is made.

    Raises:
        InvalidStoreUrlError: It names no store.
        StoreError: The store can't be opened; nothing was changed.
    """
    if url == "memory:":
        store = MemoryStore()
        try:
            yield store
        finally:
            await store.shut()
        return
    path, synchronous = _read_sqlite_url(url)
    _check_path(path, url, create=create)
    from lazymig.sqlite import open_sqlite  # noqa: PLC0415  (no driver where only memory is used)

    async with open_sqlite(path, synchronous=synchronous, create=create) as opened:
        yield opened


def hide_password(url: str) -> str:
    """Return the URL as it may be shown, even one that is written wrongly."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***\2", url))


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


def _check_path(path: Path, url: str, *, create: bool) -> None:
    if not path.parent.is_dir():
        raise StoreError(
            f"{hide_password(url)} can't be opened: the folder {path.parent} does not exist. Make it first."
        )
    if path.is_dir():
        raise StoreError(f"{hide_password(url)} can't be opened: {path} is a folder. Name a file in it.")
    if not create and not path.exists():
        raise StoreMissingError(
            f"{hide_password(url)} does not exist. Check the path; 'lazymig import' or a Node makes it."
        )
