"""What the errors of SQLite mean to a user."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from lazymig._sqlite_drivers import PRIMARY_CODE
from lazymig.errors import StoreError, StoreLayoutError, StoreReadOnlyError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

_READ_ONLY = frozenset({sqlite3.SQLITE_READONLY})
_UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
UNSYNCED = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
"""The transaction is in the log by then. It counts as rolled back, and is overwritten by the next one; but if no
next one comes, whoever opens the file after this process (or the machine) has ended finds it committed."""

READ_TRIES = 10
"""How often is tried what finds the file malformed: SQLite calls it so, too, when the disk fails to read."""


def translate(error: sqlite3.Error, name: str) -> StoreError:
    """Return what a driver's error means to a user."""
    extended = getattr(error, "sqlite_errorcode", 0)
    if extended in UNSYNCED:
        return StoreUnavailableError(
            f"{name} was not synced to disk ({error}). Check the disk and try again; if this process ends before that, "
            f"what was to be stored may be stored."
        )
    code = extended & PRIMARY_CODE
    if code in _READ_ONLY:
        return StoreReadOnlyError(
            f"{name} can't be written ({error}). Give this process the right to write file and folder."
        )
    if code in _UNREADABLE:
        return StoreLayoutError(
            f"{name} is no SQLite database, or a damaged one, or the disk fails to read it ({error}). "
            f"Look at the disk; then put a backup in its place."
        )
    if code == sqlite3.SQLITE_TOOBIG:
        return StoreError(f"a value is too large for {name} ({error}). Split the state.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreError(f"{name} can't be opened ({error}). Check the path and its folder's rights.")
    return StoreUnavailableError(f"{name} did not take the operation ({error}). Nothing was stored; try again.")


@contextmanager
def translating(name: str) -> Iterator[None]:
    """Let no driver error out."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, name) from error


async def trying(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a piece of work returns, which is tried again while it finds the file malformed."""
    for _ in range(READ_TRIES - 1):
        try:
            return await work()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE != sqlite3.SQLITE_CORRUPT:
                raise
    return await work()
