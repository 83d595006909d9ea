"""The processes of the demo: started, watched, killed, stopped; none of them outlives the demo."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self
from urllib.parse import quote

from suites._demo_ledger import Tally
from suites._demo_worker import Job

STOP_SECONDS = 15.0
"""How long a process may take to stop in good order; its node gives running calls 10 s."""


class DemoError(Exception):
    """A process of the demo did what it should not."""


@dataclass(frozen=True)
class Site:
    """Where the demo works: a folder with the legacy file, the store, a ledger and an error file for each process."""

    folder: Path
    is_kept: bool
    seed: int

    @property
    def legacy(self) -> Path:
        """The legacy data, a vehicle a line."""
        return self.folder / "legacy.jsonl"

    @property
    def plates(self) -> Path:
        """The plates, one a line."""
        return self.folder / "plates.txt"

    @property
    def store(self) -> str:
        """URL of the store."""
        return f"sqlite:///{quote(str(self.folder / 'fleet.db'))}"


class Worker:
    """A process of one release, and what it has written down."""

    def __init__(self, site: Site, label: str, supports: str, seed: int) -> None:
        self.label = label
        self.supports = supports
        self.end = ""
        self.tally = Tally(site.folder / f"{label}.ledger")
        self._errors = site.folder / f"{label}.errors"
        job = Job(
            label=label,
            supports=supports,
            store=site.store,
            plates=str(site.plates),
            ledger=str(self.tally.path),
            seed=seed,
            litter=None if site.is_kept else str(site.folder),
        )
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603  (this program itself)
                [sys.executable, "-m", "suites._demo_worker", job.to_json()],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the parent, who stops the others
            )

    def check(self) -> None:
        """Raise if it ended though nobody told it to."""
        if not self.end and self._process.poll() is not None:
            self._fail("ended by itself")

    def kill(self) -> None:
        """End it without mercy."""
        self.end = "killed"
        self.tally.was_killed = True
        self._process.kill()
        self._close()

    def ask_to_stop(self) -> None:
        """Tell it to finish its calls and sign off."""
        if not self.end and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(b".")
                self._process.stdin.flush()

    def see_off(self) -> None:
        """Wait until it has stopped in good order."""
        if self.end:
            return
        self.end = "stopped"
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._fail(f"did not stop within {STOP_SECONDS:g} s")
        if status:
            self._fail("failed")
        self._close()

    def _close(self) -> None:
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _fail(self, what: str) -> NoReturn:
        status = self._process.poll()
        said = self._errors.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise DemoError(f"process {self.label} {what} (status {status}):\n{said}")


class Crew:
    """All processes of the demo; none of them outlives the ``with`` block."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        """Return the crew, empty."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill whoever is left."""
        for worker in self.workers:
            if not worker.end:
                worker.kill()

    def start(self, label: str, supports: str) -> Worker:
        """Start a process."""
        worker = Worker(self._site, label, supports, self._site.seed + len(self.workers))
        self.workers.append(worker)
        return worker

    def stop(self, *workers: Worker) -> None:
        """Let processes, or all of them, stop in good order, and read the ledgers to the end."""
        for worker in workers or self.workers:
            worker.ask_to_stop()
        for worker in workers or self.workers:
            worker.see_off()
        self.look()

    def look(self) -> None:
        """Read on in all ledgers, and notice who died."""
        for worker in self.workers:
            worker.tally.catch_up()
            worker.check()
