"""File locks that prove a node of this machine dead.

Rules (each cost a trace):

1. One file per incarnation, locked *before* the node registers: a registered node without lock is dead for certain.
2. flock, not POSIX locks: those vanish when any descriptor of the file is closed in the process.
3. Probed with a shared lock that is given back at once, so that probers don't look like owners to each other.
4. A file that is missing or can't be probed proves nothing: its node counts as alive until its heartbeat expires, or
   its row is gone. A node's row is removed before its file, so whoever misses the file looks at the row once more.
5. A name from a row may be anything: one that is no incarnation's is never made a path, whose file would be removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # pragma: no cover - only where there is no flock (Windows): heartbeats decide alone
    fcntl = None  # type: ignore[assignment]

from lazymig._rows import is_incarnation

if TYPE_CHECKING:
    from pathlib import Path


class Presence:
    """The lock files of one store, in a folder of their own beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def enter(self, node_id: str) -> None:
        """Take the node's file lock.

        Raises:
            OSError: The file can't be made.
        """
        if not is_incarnation(node_id):
            raise OSError(errno.EINVAL, "no name for a lock file", node_id)
        if fcntl is None:  # pragma: no cover - as above
            return
        descriptor = self._create(node_id)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._held[node_id] = descriptor

    def _create(self, node_id: str) -> int:
        while True:
            with contextlib.suppress(FileExistsError):  # exist_ok would look again, and the folder may be gone by then
                self._folder.mkdir()
            try:
                return os.open(self._folder / node_id, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # the last node that left has just removed the folder

    def leave(self, node_id: str) -> None:
        """Give the node's file lock up and remove the file."""
        descriptor = self._held.pop(node_id, None)
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            (self._folder / node_id).unlink()
        os.close(descriptor)
        self.tidy()

    def is_dead(self, node_id: str) -> bool | None:
        """Tell whether the node is gone for certain, which stays true; None if it has no file (any more)."""
        if fcntl is None or node_id in self._held or not is_incarnation(node_id):
            return False
        try:
            descriptor = os.open(self._folder / node_id, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, node_id: str) -> None:
        """Remove the file of a node that is dead."""
        if is_incarnation(node_id):
            with contextlib.suppress(OSError):
                (self._folder / node_id).unlink()

    def tidy(self) -> None:
        """Remove the folder when no node uses it."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def close(self) -> None:
        """Give all locks up."""
        for node_id in list(self._held):
            self.leave(node_id)
