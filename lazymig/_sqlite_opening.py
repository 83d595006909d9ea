"""Opening a SQLite file: what is looked at and laid out before it is used.

Rules of one that is opened to be read only (SQLite 3.22 and later):

1. A write-ahead log is read by means of two files beside it, ``-wal`` and ``-shm``. Where both are there, as while
   anybody has it open, the right to read them is enough.
2. Where one is missing SQLite makes it, with the rights of the file, as its own; it leaves it there. So it must not be
   made by who may not write the file: its owner could not write it then.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import TYPE_CHECKING

from lazymig._sqlite_drivers import BUSY_SECONDS, RETRY_SECONDS, is_busy
from lazymig._sqlite_layout import APPLICATION_ID, LAYOUTS
from lazymig.errors import StoreError, StoreLayoutError, StoreMissingError, StoreReadOnlyError

if TYPE_CHECKING:
    from pathlib import Path


def lay_out(connection: sqlite3.Connection, name: str, *, create: bool = True) -> None:
    """Bring the file to this release's layout in one transaction, or refuse it untouched.

    Raises:
        StoreLayoutError: It is another program's, of a newer layout, or empty and not to be made a store.
    """
    version = _layout_of(connection, name)
    if version == len(LAYOUTS):
        return
    if not version and not create:
        raise StoreLayoutError(f"{name} is empty. Check the path; 'lazymig import' or a Node makes a store of it.")
    journal = _write_ahead(connection)
    if journal != "wal":
        raise StoreError(f"{name} can't use a write-ahead log (journal mode {journal!r}). Keep it on a local disk.")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in LAYOUTS[_layout_of(connection, name) :]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(LAYOUTS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Switch to a write-ahead log; where several switch at once, SQLite refuses all but one instead of waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


_LAYOUT = "SELECT * FROM pragma_application_id, pragma_user_version, (SELECT COUNT(*) FROM sqlite_master)"
"""One statement, so that another process can't lay the file out between two looks at it."""


def _layout_of(connection: sqlite3.Connection, name: str) -> int:
    application, version, tables = connection.execute(_LAYOUT).fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreLayoutError(f"{name} is another program's database. Give lazymig a file of its own.")
    if version > len(LAYOUTS):
        raise StoreLayoutError(
            f"{name} has layout {version}, this release reads up to {len(LAYOUTS)}; it was not touched. "
            f"Use the release of lazymig that wrote it, or a newer one."
        )
    return int(version)


def check_rights(path: Path, name: str) -> None:
    """Refuse to read a file that could not be read without writing beside it.

    Raises:
        StoreMissingError: It isn't there.
        StoreReadOnlyError: A file that is needed is missing, and may not be made.
    """
    if not path.exists():
        raise StoreMissingError(f"{name} does not exist. Check the path.")
    beside = [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm")]
    is_effective = os.access in os.supports_effective_ids
    may_make = all(os.access(of, os.W_OK, effective_ids=is_effective) for of in (path, path.parent))
    missing = [of.name for of in beside if not of.exists()]
    if missing and not may_make:
        raise StoreReadOnlyError(
            f"{name} can't be read without writing: SQLite needs {' and '.join(missing)} beside it, which this process "
            f"may not make. Read it while a node has it open, or as its owner; or copy the file, and its -wal if there "
            f"is one, to a folder of your own, and read the copy."
        )


def check_readable(connection: sqlite3.Connection, name: str) -> None:
    """Refuse what is no store of this release.

    Raises:
        StoreLayoutError: It is another program's, empty, or of another layout.
    """
    version = _layout_of(connection, name)
    if not version:
        raise StoreLayoutError(f"{name} is empty. Check the path; 'lazymig import' or a Node makes a store of it.")
    if version < len(LAYOUTS):
        raise StoreLayoutError(
            f"{name} has layout {version}, this release reads {len(LAYOUTS)}; it was not touched. Open it once to be "
            f"written, as a Node does: that brings it to this layout."
        )
