"""What power failures leave of a recording, judged by what was promised.

Images are read beside the library, with the sqlite3 that the library itself uses: another build than the one that
wrote them.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

from tests.disk import Disk, lay_down
from tests.power import Moment, Recording, digest, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.beside import Row


def images(recording: Recording, seed: int, a_cut: int) -> Iterator[tuple[int, int, dict[str, bytes]]]:
    """Return images of power failures at every point of the log: the cut, a number, and files.

    Args:
        recording: What to cut.
        seed: With cut and number it determines an image.
        a_cut: How many images each cut gives, unless there is but one.
    """
    disk = Disk()
    for cut in range(len(recording.log) + 1):
        disk.replay(recording.log[disk.position : cut])
        for number in range(1 if disk.is_synced else a_cut):
            yield cut, number, disk.image(Random(f"{seed}/{cut}/{number}"))


def read(folder: Path) -> dict[str, Row] | None:
    """Read an image as SQLite recovers it.

    Raises:
        sqlite3.DatabaseError: It can't be read.
        LookupError: Rows belong to nothing.
    """
    with closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # nobody fails the reader's own power
        if (said := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            raise sqlite3.DatabaseError(said)
        return rows(connection)


def faults_of(recording: Recording, cut: int, image: dict[str, bytes], folder: Path) -> set[str]:
    """Judge what a power failure at ``cut`` left, laid down in a folder that is emptied before.

    Returns:
        Of "unreadable", "half migrated", "lost" (an acknowledged commit is not there) and "no prefix" (the database
        never held this, or holds what had not begun).
    """
    for path in folder.iterdir():
        path.unlink()
    lay_down(image, folder)
    try:
        found = read(folder)
    except (sqlite3.DatabaseError, LookupError, ValueError):
        return {"unreadable"}
    if any(row.values is None for row in (found or {}).values()):
        return {"unreadable"}
    faults = {"half migrated"} if any(map(is_torn, (found or {}).values())) else set()
    acknowledged = bisect_right(recording.acknowledged, cut, key=lambda told: told.position)
    progress = {actor_id: _progress(row) for actor_id, row in (found or {}).items()}
    if any(progress.get(told.actor_id, (-1, False)) < told.progress for told in recording.acknowledged[:acknowledged]):
        faults.add("lost")
    begun = bisect_left(recording.moments, cut, key=lambda moment: moment.began)
    held = [index for index in recording.indices.get(digest(found), []) if index < max(begun, 1)]
    if not held:
        return faults | {"no prefix"}
    durable = [index for index in range(begun) if is_kept(recording.moments[index], cut)]
    return faults | {"lost"} if durable and held[-1] < durable[-1] else faults


def is_kept(moment: Moment, cut: int) -> bool:
    """Tell whether the store had promised that this transaction survives."""
    return moment.is_durable and moment.ended <= cut


def is_torn(row: Row) -> bool:
    """Tell whether states or stamp are of different commits."""
    marks = {value["mark"] for value in row.states.values()}
    counts = {value["n"] for value in row.states.values()}
    stamp = row.applied[-1] if row.applied else "0.0.0"
    return marks != {stamp} or len(counts) != 1


def _progress(row: Row) -> tuple[int, bool]:
    n = row.states["main"]["n"] if "main" in row.states else -1
    return n, "side" not in row.states and row.applied is not None
