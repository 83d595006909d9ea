"""``lazymig backup``: a copy of a store in a new file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazymig.cli._access import common_options, opened, run
from lazymig.cli._interrupts import Interrupted, stopping
from lazymig.cli._progress import progress
from lazymig.cli._settings import Settings, read_settings
from lazymig.transfer import backup

if TYPE_CHECKING:
    from lazymig.cli._output import Output
    from lazymig.cli._progress import Progress


@click.command("backup")
@click.argument("file", metavar="FILE")
@common_options
@click.pass_obj
def command(output: Output, file: str, store: str | None) -> None:
    """Write a copy of the store, as of one moment, into a new FILE; nodes may work on the store meanwhile.

    FILE is a store in which nobody holds an actor. It has its name once it is complete and synced. A PostgreSQL store
    is refused with the pg_dump command to run instead.
    """
    settings = read_settings(store)
    with progress() as shown:
        run(partial(_run, settings, file, shown))
    size = Path(file).stat().st_size
    document = {"store": settings.shown_store, "file": file, "bytes": size}
    output.answer(document, f"{settings.shown_store} backed up to {file} ({size:,} bytes)")


async def _run(settings: Settings, file: str, shown: Progress) -> None:
    async with opened(settings, read_only=True) as store:
        with stopping() as stop:

            def on_progress(share: float) -> None:
                shown.update(1, f"{share:.0%} copied", share)
                if stop.is_set:
                    where = f"{file} was not written. Run the same command again: it begins anew."
                    raise Interrupted(where, {"store": settings.shown_store, "file": file, "bytes": 0})

            await backup(store, file, progress=on_progress)
