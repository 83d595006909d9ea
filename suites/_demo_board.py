"""What the demo shows: live on a terminal, in plain lines elsewhere, and a table in the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from rich.console import Console, RenderableType

    from suites._demo_crew import Crew
    from suites._demo_ledger import Tally

REPORT_SECONDS = 1.0
"""Between two lines where there is no terminal."""

BAR_WIDTH = 60


class Board:
    """Progress of the demo.

    Args:
        console: Where to.
        fleet: How many vehicles there are.
    """

    def __init__(self, console: Console, fleet: int) -> None:
        self._console = console
        self._fleet = fleet
        self._started = time.monotonic()
        self._reported = self._started
        self._news = ""
        self._live = Live(console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Take the terminal, if there is one."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def say(self, news: str) -> None:
        """Show what happens now."""
        self._news = news
        self._console.print(f"{self._elapsed:5.1f} s  {news}", soft_wrap=True)

    def show_command(self, line: str, answer: str) -> None:
        """Show a command that was typed, and what it answered."""
        lines = "\n".join(f"          {one.rstrip()}" for one in answer.splitlines())
        self._console.print(f"        $ {line}\n{lines}", soft_wrap=True, markup=False)

    def show(self, crew: Crew, versions: Mapping[str, int]) -> None:
        """Show how far it is: what each process did, and how many vehicles are stored at each version."""
        if self._live is not None:
            self._live.update(self._picture(crew, versions))
        elif time.monotonic() - self._reported >= REPORT_SECONDS:
            self._reported = time.monotonic()
            calls = sum(worker.tally.calls for worker in crew.workers)
            shares = ", ".join(f"{version} {count:,}" for version, count in versions.items())
            self._console.print(f"{self._elapsed:5.1f} s  {calls:,} calls; vehicles at {shares}", soft_wrap=True)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _picture(self, crew: Crew, versions: Mapping[str, int]) -> RenderableType:
        bars = Table.grid(padding=(0, 2))
        for version, count in versions.items():
            bars.add_row(version, ProgressBar(total=self._fleet, completed=count, width=BAR_WIDTH), f"{count:,}")
        return Group(process_table(crew), bars, Text(f"{self._elapsed:.1f} s  {self._news}"))


def process_table(crew: Crew) -> Table:
    """Return what each process did, and all together.

    Calls; migrations of vehicles as they are stored; calls that were refused, met a locked vehicle or failed otherwise.
    """
    table = Table(box=box.SIMPLE, show_footer=True, collapse_padding=True)
    total = [sum(column) for column in zip(*(_figures(worker.tally) for worker in crew.workers), strict=True)]
    table.add_column("process", "all")
    table.add_column("supports")
    for name, figure in zip(("calls", "migrations", "refusals", "conflicts", "others"), total, strict=False):
        table.add_column(name, f"{figure:,}", justify="right")
    table.add_column("end")
    for worker in crew.workers:
        figures = (f"{figure:,}" for figure in _figures(worker.tally))
        table.add_row(worker.label, worker.supports, *figures, worker.end or "runs")
    return table


def _figures(tally: Tally) -> tuple[int, int, int, int, int]:
    refusals, conflicts = tally.errors["NewerStateError"], tally.errors["ActorLockedError"]
    others = tally.errors.total() - refusals - conflicts
    return tally.calls, tally.migrated.total(), refusals, conflicts, others
