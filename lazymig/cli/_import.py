"""``lazymig import``: actors from JSON lines."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lazymig.cli._access import common_options, opened, run, unknown_type
from lazymig.cli._interrupts import Interrupted, Stop, stopping
from lazymig.cli._output import FINE, FOUND, Output, Refusal, code_of
from lazymig.cli._progress import progress
from lazymig.cli._settings import Settings, read_settings
from lazymig.cli._suites import load_types
from lazymig.errors import StoreMissingError
from lazymig.transfer import Existing, ImportReport, Rejection, import_json_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from io import BufferedReader

    from lazymig.cli._progress import Progress
    from lazymig.store import Store
    from lazymig.suite import ActorType

_CHUNK_BYTES = 1_000_000
"""Read at most at once."""


@click.command("import")
@click.argument("actor_type", metavar="TYPE")
@click.argument("file")
@click.option("--id-field", required=True, metavar="NAME", help="Field with the actor's id; it stays in the value.")
@click.option("--value-field", metavar="NAME", help="Field with the state. Default: the whole object is the state.")
@click.option("--state", metavar="NAME", help="State the values become. Default: the type's main state.")
@click.option(
    "--existing",
    type=click.Choice(["skip", "error"]),
    default="skip",
    show_default=True,
    help="What a line is whose actor exists already: it is left alone either way.",
)
@common_options
@click.pass_obj
def command(output: Output, /, actor_type: str, file: str, store: str | None, **options: Any) -> int:
    """Store actors of a TYPE from the JSON lines of a FILE (- is stdin), without migration-info.

    One object a line, in UTF-8. A line that can't be imported is reported with its number, and the others are
    imported: exit status 1. Safe to run again after an interruption: actors that exist are never written.
    """
    settings = read_settings(store)
    registered = load_types(settings).get(actor_type)
    with _open_source(file) as source:
        work = _Import(settings, registered or actor_type, source, output, **options)
        report = work.run(file)
    document = {"type": actor_type, "state": work.state, "file": file, "store": settings.shown_store, **_counts(report)}
    if source.is_stopped:
        raise Interrupted(f"{report.imported:,} actors imported. Run the same command again: it goes on.", document)
    output.answer(document, f"{actor_type}: {_summary(report)}")
    return FOUND if report.rejected else FINE


class Source:
    """Reads lines in chunks, and knows how far it is.

    Args:
        stream: Where from.
        size: Bytes in it; 0 if that is not known, as with a pipe.

    Attributes:
        is_stopped: Whether it ended because it was told to.
    """

    def __init__(self, stream: BufferedReader, size: int) -> None:
        self._stream = stream
        self._size = size
        self._read_bytes = 0
        self.is_stopped = False

    @property
    def share(self) -> float | None:
        """How much of it was read, from 0 to 1; None if its size is not known."""
        return min(self._read_bytes / self._size, 1.0) if self._size else None

    async def lines(self, stop: Stop) -> AsyncIterator[bytes]:
        """Yield the lines without their ends, as soon as they come; end after a whole one if told to stop."""
        parts: list[bytes] = []
        while chunk := stop.wait_for(partial(self._stream.read1, _CHUNK_BYTES)):
            self._read_bytes += len(chunk)
            *whole, rest = chunk.split(b"\n")
            for line in whole:
                if stop.is_set:
                    break
                yield b"".join((*parts, line))
                parts.clear()
            parts.append(rest)
        self.is_stopped = stop.is_set
        if not self.is_stopped:
            yield b"".join(parts)


class _Import:
    """One import: its options, and what was done when it ends early."""

    def __init__(  # noqa: PLR0913  (the command's options)
        self,
        settings: Settings,
        actor_type: ActorType[Any] | str,
        source: Source,
        output: Output,
        *,
        id_field: str,
        value_field: str | None,
        state: str | None,
        existing: str,
    ) -> None:
        self._settings = settings
        self._type = actor_type
        self._source = source
        self._output = output
        self._id_field = id_field
        self._value_field = value_field
        self._existing = cast("Existing", existing)
        self._done = ImportReport()
        self.state = state if isinstance(actor_type, str) else state or actor_type.state

    def run(self, file: str) -> ImportReport:
        """Import; say how far it came if it ends early."""
        try:
            with progress() as shown:
                return run(partial(self._run, file, shown))
        except BaseException:
            if self._done.imported:
                self._output.note(f"stopped after {self._done.imported:,} actors; run it again to go on from there.")
            raise

    async def _run(self, file: str, shown: Progress) -> ImportReport:
        def on_rejected(rejection: Rejection) -> None:
            shown.note(f"{'stdin' if file == '-' else file}:{rejection.position}: {rejection.reason}")

        def on_progress(report: ImportReport) -> None:
            self._done = report
            shown.update(report.imported + report.skipped, _summary(report), self._source.share)

        async with self._opened() as store:
            with stopping() as stop:
                return await import_json_lines(
                    store,
                    self._type,
                    self._source.lines(stop),
                    id_field=self._id_field,
                    value_field=self._value_field,
                    state=self.state,
                    existing=self._existing,
                    on_rejected=on_rejected,
                    progress=on_progress,
                )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Store]:
        """Open the store; only a type that a suite has makes a new one."""
        if not isinstance(self._type, str):
            async with opened(self._settings, create=True) as store:
                yield store
            return
        try:
            async with opened(self._settings) as store:
                await self._check_stored(store, self._type)
                yield store
        except Refusal as error:
            if error.code != code_of(StoreMissingError("")):
                raise
            raise unknown_type(self._type, list(load_types(self._settings))) from error

    async def _check_stored(self, store: Store, actor_type: str) -> None:
        """Refuse a type of no suite, unless the store has it and the state is named."""
        stored = await store.types()
        if actor_type not in stored:
            raise unknown_type(actor_type, [*stored, *load_types(self._settings)])
        if self.state is None:
            raise Refusal(
                "no_state",
                f"no suite has {actor_type}, so its main state is unknown. Name it by --state, or add the suite to "
                f"[tool.lazymig] in pyproject.toml.",
            )


@contextmanager
def _open_source(file: str) -> Iterator[Source]:
    """Open the file, before a store is opened or made."""
    if file == "-":
        yield Source(cast("BufferedReader", sys.stdin.buffer), 0)
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115  (what the block raises is not about opening)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refusal("file", f"{file} can't be read: {reason}. Check the path.") from error
    with stream:
        yield Source(stream, os.fstat(stream.fileno()).st_size)


def _summary(report: ImportReport) -> str:
    return f"{report.imported:,} imported, {report.skipped:,} skipped (they exist), {report.rejected:,} rejected"


def _counts(report: ImportReport) -> dict[str, Any]:
    rejections = [{"line": rejection.position, "reason": rejection.reason} for rejection in report.rejections]
    return {
        "imported": report.imported,
        "skipped": report.skipped,
        "rejected": report.rejected,
        "rejections": rejections,
    }
