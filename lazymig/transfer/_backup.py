"""A store backed up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.store import Store


async def backup(
    store: Store, file: str | os.PathLike[str], *, progress: Callable[[float], object] | None = None
) -> None:
    """Write a copy of a whole store, as of one moment, into a new file; beside nodes that work on the store.

    The file is a store: open it by ``sqlite:///…``, or put it in the store's place while nobody has that open. Whoever
    held actors in the store holds none in it, so all of them can be activated at once. What was acknowledged before
    this is called is in it, each actor whole.

    Args:
        store: In a SQLite file. For PostgreSQL the error names the tool, ``pg_dump``, and how to call it.
        file: Must not be there. It has its name once it is complete and synced; a process that is killed before leaves
            ``.FILE.….part`` beside it.
        progress: Called now and then with the share that is done, from another thread; what it raises ends it.

    Raises:
        StoreError: The file is there, or can't be written, or the store has no such backup; nothing is left of it.
    """
    await store.copies.backup(Path(file), progress or _nothing)


def _nothing(_: float) -> None:
    """Tell nobody."""
