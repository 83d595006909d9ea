"""Worker processes for tests: forked from a clean server, talked to through a pipe, ended by their process id.

The server is multiprocessing's: it has imported what the workers need and has no threads, so a fork takes a few
milliseconds and copies no event loop. Nothing is waited for without a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import traceback
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

PATIENCE_SECONDS = 60.0
"""How long a message may take before a test fails; far above what a loaded machine needs."""

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "__main__",
        "pytest",
        "anyio._backends._asyncio",  # imported at its first use otherwise: 30 ms of each worker's life
        "lazymig.sqlite",
        "lazymig.testing.releases",
        "suites.vehicles",
        "tests.history_clients",
        "tests.test_kills",
    ]
)


class Line:
    """A worker's end of the pipe."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe

    def tell(self, message: object) -> None:
        """Send a message to the test."""
        self._pipe.send(message)

    def wait(self) -> Any:
        """Return the test's next message; blocks the event loop until it comes."""
        return self._pipe.recv()

    async def hear(self) -> Any:
        """Return the test's next message."""
        return await asyncio.to_thread(self._pipe.recv)


class WorkerFailedError(AssertionError):
    """A worker raised, or was silent."""


class WorkerEndedError(WorkerFailedError):
    """A worker ended without saying what was waited for."""


class Worker:
    """A process that runs ``main(line, *arguments)``, an async function of a module; killed on leaving."""

    def __init__(self, main: Callable[..., Awaitable[None]], *arguments: object) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_run, args=(main, theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._pipe.close()
        self._process.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with: minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    def tell(self, message: object) -> None:
        """Send a message to the worker."""
        self._pipe.send(message)

    async def hear(self) -> Any:
        """Return the worker's next message.

        Raises:
            WorkerFailedError: It raised, or said nothing for too long.
            WorkerEndedError: It ended.
        """
        if not await asyncio.to_thread(self._pipe.poll, PATIENCE_SECONDS):
            raise WorkerFailedError(f"worker {self.pid} said nothing for {PATIENCE_SECONDS:g} s")
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise WorkerEndedError(f"worker {self.pid} ended") from None
        if isinstance(message, _Failure):
            raise WorkerFailedError(message.text)
        return message

    async def rest(self) -> list[Any]:
        """Return what it says until it ends."""
        said = []
        with contextlib.suppress(WorkerEndedError):
            while True:
                said.append(await self.hear())
        return said

    def kill(self) -> None:
        """End it without mercy; returns when it is gone."""
        self._process.kill()  # nothing, if it has ended
        self._process.join(PATIENCE_SECONDS)
        assert self._process.exitcode is not None

    def stop(self, path: Path | None) -> None:
        """Stop it by SIGSTOP, outside of any write to a SQLite file at ``path``; returns when it stands."""
        with contextlib.nullcontext() if path is None else writing(path):
            os.kill(self.pid, signal.SIGSTOP)
            while not subprocess.check_output(["ps", "-o", "state=", "-p", str(self.pid)]).startswith(b"T"):
                pass

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold a SQLite file's write lock: nobody else is inside a write meanwhile."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_SECONDS)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
    finally:
        connection.close()


class _Failure:
    def __init__(self, text: str) -> None:
        self.text = text


def _run(
    main: Callable[..., Awaitable[None]], pipe: Connection[Any, Any], arguments: tuple[object, ...]
) -> None:  # pragma: no cover  (in the worker)
    async def run() -> None:
        await main(Line(pipe), *arguments)

    try:
        asyncio.run(run())
    except BaseException:
        with contextlib.suppress(OSError):
            pipe.send(_Failure(traceback.format_exc()))
        raise
