"""A SQLite file copied as of one moment, while others write it.

The copy is made page by page in one read transaction, which nobody waits for: in a write-ahead log readers hold no
writer up. (Without that transaction SQLite begins anew whenever another connection writes, and never ends beside busy
ones.) Then it is taken out of the past: whoever held actors, or waited for calls, is not there where it is opened.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from lazymig._sqlite_drivers import connect
from lazymig._sqlite_errors import translating
from lazymig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGES = 2_000
"""Copied in one step, 8 MB: after each it can be stopped."""

_BEGIN = ("BEGIN", "SELECT count(*) FROM fleet")
"""A snapshot is taken by the first reading."""

_TAKE_OUT = (
    "PRAGMA journal_mode = DELETE",
    "BEGIN IMMEDIATE",
    *(f"DELETE FROM {table}" for table in ("node", "heartbeat", "offer", "call", "sweep")),  # noqa: S608  (constants)
    "UPDATE actor SET owner = NULL, number = 0 WHERE owner IS NOT NULL",
    """
    DELETE FROM actor WHERE revision = 0 AND NOT EXISTS (
        SELECT 1 FROM draft WHERE draft.type = actor.type AND draft.id = actor.id
    )
    """,
    "COMMIT",
    "PRAGMA journal_mode = WAL",
)
"""All of it is in the file itself, whenever its log is gone."""


class _StoppedError(Exception):
    """Ends a copy whose await was cancelled."""


async def back_up(source: Path, file: Path, progress: Callable[[float], object]) -> None:
    """See `Copies.backup`; cut off, it leaves nothing."""
    is_stopped = False

    def check(share: float) -> None:
        progress(share)
        if is_stopped:
            raise _StoppedError

    copying = asyncio.ensure_future(asyncio.to_thread(partial(_write, source, file, check)))
    try:
        await asyncio.shield(copying)
    except asyncio.CancelledError:
        is_stopped = True
        await asyncio.wait([copying])
        copying.exception()
        raise


def _write(source: Path, file: Path, progress: Callable[[float], object]) -> None:
    with _new(file) as draft:
        with translating(f"sqlite:///{source}, or {file},"), closing(connect(source, "ro")) as ours:
            for statement in _BEGIN:
                ours.execute(statement)
            with closing(connect(draft, "rw")) as copy:
                ours.backup(copy, pages=PAGES, progress=partial(_tell, progress))
        with translating(f"sqlite:///{file}"), closing(connect(draft, "rw")) as copy:
            for statement in _TAKE_OUT:
                copy.execute(statement)
        with _naming(file):
            shutil.copymode(source, draft)
            _sync(draft)
        progress(1.0)


def _tell(progress: Callable[[float], object], _: int, left: int, pages: int) -> None:
    if left:  # all of it are told once nothing is left to be done
        progress(1 - left / pages)


@contextmanager
def _new(file: Path) -> Iterator[Path]:
    """Yield an empty file beside, which nobody else has; it gets the file's name afterwards."""
    with _naming(file):
        _check_absent(file)
        draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.part")
        draft.touch(mode=0o600, exist_ok=False)
    try:
        yield draft
        with _naming(file):
            _check_absent(file)
            draft.replace(file)
            _sync(file.parent)
    finally:
        with _naming(file):
            for suffix in ("", "-journal", "-wal", "-shm"):
                draft.with_name(f"{draft.name}{suffix}").unlink(missing_ok=True)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Tell of what files can't be made, and name the one that was asked for."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{file} can't be written: {error.strerror}. Check the path, its rights and the disk."
        ) from error


def _check_absent(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise StoreError(f"{file} is there already, and was left as it is. Name a file that isn't, or remove it.")


def _sync(path: Path) -> None:
    """Wait until it is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
