"""Brief operations on the event loop's own thread: a hop to another thread and back costs more than most of them.

Rules:

1. Nothing here waits for anybody: what finds another connection's transaction in the way goes to the thread instead,
   which waits; and so does what fails, what turns out to be large, and all as long as the log has a gap. Reads find
   nobody in the way: in a write-ahead log readers wait for nobody.
2. Nothing here is synced, or copied from the log into the file: that is left to the thread and to heartbeats. (SQLite
   itself syncs once when a log that was copied begins anew, every thousand pages or so.)
3. After many operations one goes to the thread all the same, where the log is copied.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TypeVar

from lazymig._sqlite_drivers import InTheWayError, connect, drive, is_busy, steps

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig._sql_operations import Operation

T = TypeVar("T")

MANY = 500
"""After how many operations the log may have to be copied: most of them write a page or two."""


class Here:
    """A connection of the event loop's thread.

    Args:
        path: The file.
        mode: Of SQLite's opening.
    """

    def __init__(self, path: Path, mode: str = "rw") -> None:
        self._path = path
        self._mode = mode
        self._opened: sqlite3.Connection | None = None
        self._writes = 0

    def read(self, operation: Operation[T]) -> T:
        """Carry out an operation that only reads."""
        return drive(steps(self._connection(), operation, writes=False))

    def write(self, operation: Operation[T], count: int = 1) -> T:
        """Carry out an operation that is not synced, or several as one.

        Raises:
            InTheWayError: It is the thread's.
            sqlite3.Error: It failed; the thread can tell better why.
        """
        self._writes += count
        if self._writes >= MANY:
            self._writes = 0
            raise InTheWayError
        try:
            return drive(steps(self._connection(), operation, writes=True, may_be_large=False))
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise InTheWayError from None
            raise

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            with ExitStack() as stack:
                opened = stack.enter_context(closing(connect(self._path, self._mode, 0.0)))
                opened.execute("PRAGMA synchronous = NORMAL")
                opened.execute("PRAGMA wal_autocheckpoint = 0")
                stack.pop_all()
                self._opened = opened
        return self._opened

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._opened is not None:
            self._opened.close()
