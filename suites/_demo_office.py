"""The operator of the demo: types commands, shows what they answer, and counts vehicles by version."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lazymig import open_store, rollout
from suites._demo_crew import DemoError
from suites.vehicles import vehicle

if TYPE_CHECKING:
    from suites._demo_board import Board
    from suites._demo_crew import Site

ROOT = Path(__file__).parent.parent
"""Where the pyproject.toml is that names the suites."""


class Office:
    """Where the operator sits, with the store open; closed on leaving the ``with`` block.

    Args:
        site: Where the store is.
        board: Shows commands and answers.
    """

    def __init__(self, site: Site, board: Board) -> None:
        self._site = site
        self._board = board
        self._loop = asyncio.Runner()
        self._open = AsyncExitStack()

    def __enter__(self) -> Self:
        """Open the store."""
        self._store = self._loop.run(self._open.enter_async_context(open_store(self._site.store, create=False)))
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        with self._loop:
            self._loop.run(self._open.aclose())

    def count(self) -> dict[str, int]:
        """Return how many vehicles are stored at each version; 0.0.0 are those without migration-info."""
        found = self._loop.run(rollout.census(self._store, vehicle))
        return {str(version): count for version, count in found.versions.items()}

    def expect(self, line: str, answer: str) -> None:
        """Type a command, and show what it answers.

        Args:
            line: The command.
            answer: "yes" if its exit status shall be 0, "no" if 1.

        Raises:
            DemoError: It answered otherwise.
        """
        done = subprocess.run(  # noqa: S603  (lazymig itself)
            [sys.executable, "-m", "lazymig.cli", *line.split()[1:]],
            cwd=ROOT,
            env=os.environ | {"LAZYMIG_STORE": self._site.store},
            capture_output=True,
            check=False,
            encoding="utf-8",
        )
        self._board.show_command(line, (done.stdout + done.stderr).rstrip())
        if done.returncode != ("yes", "no").index(answer):
            raise DemoError(f"'{line}' ended with status {done.returncode}, where the answer should have been {answer}")
