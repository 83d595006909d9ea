"""Progress of long work on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import rich.progress

SECONDS_BETWEEN_LINES = 10.0
"""Often enough to tell slow from stuck, seldom enough for a log."""


class Progress(Protocol):
    """Shows how far the work is."""

    def update(self, count: int, text: str, share: float | None = None) -> None:
        """Show progress.

        Args:
            count: Actors done.
            text: What was done with them.
            share: Of the whole, from 0 to 1; None if the whole is unknown.
        """
        ...

    def note(self, text: str) -> None:
        """Print a line of its own."""
        ...


@contextmanager
def progress(*, beside_stdout: bool = False) -> Iterator[Progress]:
    """Show progress as fits stderr.

    Args:
        beside_stdout: The work itself prints on stdout: no bar if that is a terminal, too.
    """
    if not sys.stderr.isatty() or (beside_stdout and sys.stdout.isatty()):
        yield Lines()
        return
    from rich.console import Console  # noqa: PLC0415  (only for a terminal)
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as RichProgress  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Bar(bar)


class Lines:
    """Prints a line every ten seconds.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at = self._printed_at = clock()

    def update(self, count: int, text: str, share: float | None = None) -> None:
        """See `Progress.update`."""
        now = self._clock()
        if now - self._printed_at < SECONDS_BETWEEN_LINES:
            return
        self._printed_at = now
        elapsed = now - self._began_at
        left = "" if not share else f", {share:.0%}, {elapsed * (1 - share) / share:,.0f} s left"
        self.note(f"{text} ({count / elapsed:,.0f}/s{left})")

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        click.echo(f"lazymig: {text}", err=True)


class Bar:
    """Draws a bar by rich."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def update(self, count: int, text: str, share: float | None = None) -> None:  # noqa: ARG002  (the text has it)
        """See `Progress.update`."""
        whole = None if share is None else 1.0
        self._bar.update(self._task, description=text, total=whole, completed=share or 0.0)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._bar.console.print(f"lazymig: {text}", markup=False, highlight=False, soft_wrap=True)
