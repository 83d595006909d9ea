"""``lazymig export``: all actors of a type, as JSON lines.

Without ``--json`` stdout is the lines. With it stdout is one document, as for every command: the summary of an export
to a file; else the actors themselves, written as they are read, with the summary after them. An error on the way ends
that document with the key ``error``.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import click

from lazymig.cli._access import check_known, common_options, opened, run
from lazymig.cli._interrupts import Interrupted, stopping
from lazymig.cli._output import FINE, FOUND, SCHEMA, Output, Refusal, encode
from lazymig.cli._progress import progress
from lazymig.cli._settings import Settings, read_settings
from lazymig.transfer import MAX_KEPT_REJECTIONS, export_states, to_json_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig.cli._progress import Progress
    from lazymig.errors import CorruptStateError


@click.command("export")
@click.argument("actor_type", metavar="TYPE")
@click.argument("file", default="-")
@common_options
@click.pass_obj
def command(output: Output, actor_type: str, file: str, store: str | None) -> int:
    """Write all actors of a TYPE to a FILE (default: stdout) as JSON lines, in order of their ids.

    A line has type, id, info (the migration-info, or null) and states; equal actors give equal bytes. The file is put
    in its place when it is complete. An actor that can't be read is reported, and the others are written: exit
    status 1. Actors that change meanwhile are written as before or as after; each is whole.
    """
    settings = read_settings(store)
    if file != "-":
        export = _Export(actor_type, output)
        with written_atomically(Path(file)) as stream:
            export.run(settings, LineSink(stream), is_stdout=False)
        output.answer(export.summary | {"file": file}, f"{export.exported:,} {actor_type} actors written to {file}")
        return export.status
    return _to_stdout(_Export(actor_type, output), settings, output)


def _to_stdout(export: _Export, settings: Settings, output: Output) -> int:
    stream = sys.stdout.buffer
    if not output.is_json:
        export.run(settings, LineSink(stream))
        return export.status
    sink = DocumentSink(stream)
    try:
        export.run(settings, sink)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if not sink.has_begun:
            raise
        reason, status = output.explain(error)
        sink.end(export.summary | {"error": reason})
        return status
    sink.end(export.summary)
    return export.status


class Sink(Protocol):
    """Takes actors."""

    def add(self, line: bytes) -> None:
        """Write one, given as a JSON line with its end."""
        ...


class LineSink:
    """Writes JSON lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, line: bytes) -> None:
        """See `Sink.add`."""
        self._stream.write(line)


class DocumentSink:
    """Writes one document with the array ``actors``, as they come, and further keys at its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.has_begun = False

    def add(self, line: bytes) -> None:
        """See `Sink.add`."""
        self._stream.write(b",\n" if self.has_begun else b'{"actors": [\n')
        self._stream.write(line.rstrip(b"\n"))
        self.has_begun = True

    def end(self, summary: dict[str, Any]) -> None:
        """Close the array, and write the summary's keys."""
        if not self.has_begun:
            self._stream.write(b'{"actors": [')
        self._stream.write(b"],\n" + encode({"schema": SCHEMA, **summary})[1:] + b"\n")


class _Export:
    """One export and its counts."""

    def __init__(self, actor_type: str, output: Output) -> None:
        self._type = actor_type
        self._output = output
        self.exported = 0
        self._with_entries = 0
        self._corrupt = 0
        self._corruptions: list[dict[str, str | None]] = []

    @property
    def status(self) -> int:
        """The exit status."""
        return FOUND if self._corrupt else FINE

    @property
    def summary(self) -> dict[str, Any]:
        """What it came to; ``corruptions`` lists the first 1,000 actors that can't be read, with the reason.

        Of the actors ``with_entries`` only the states were exported.
        """
        counts = {"exported": self.exported, "with_entries": self._with_entries, "corrupt": self._corrupt}
        return {"type": self._type, **counts, "corruptions": self._corruptions}

    def run(self, settings: Settings, sink: Sink, *, is_stdout: bool = True) -> None:
        """Write all actors.

        Raises:
            Refusal: The type is unknown.
        """
        with progress(beside_stdout=is_stdout) as shown:
            run(partial(self._run, settings, sink, shown))

    async def _run(self, settings: Settings, sink: Sink, shown: Progress) -> None:
        def on_corrupt(error: CorruptStateError) -> None:
            self._corrupt += 1
            if len(self._corruptions) < MAX_KEPT_REJECTIONS:
                self._corruptions.append({"id": None if error.key is None else error.key.id, "reason": error.reason})
            shown.note(str(error))

        async with (
            opened(settings) as store,
            aclosing(export_states(store, self._type, on_corrupt=on_corrupt)) as found,
        ):
            with stopping() as stop:
                async for record in found:
                    sink.add(to_json_line(record))
                    self.exported += 1
                    self._with_entries += record.has_entries
                    shown.update(self.exported, f"{self.exported:,} exported")
                    if stop.is_set:
                        where = f"{self.exported:,} actors exported. Run the same command again: it begins anew."
                        raise Interrupted(where, self.summary)
            if self._with_entries:
                shown.note(
                    f"The entries of {self._with_entries:,} actors were not exported: an export has states only. Copy "
                    f"the store to keep them."
                )
            if not self.exported and not self._corrupt:
                await check_known(store, self._type, settings)


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its place, synced, when the block ends well; else what was there stays.

    A device or pipe is written directly: it can't be replaced.
    """
    try:
        target = path.resolve()
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            with target.open("wb") as stream:
                yield stream
            return
        with _replacing(target) as stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refusal("file", f"{path} can't be written: {error.strerror}. Check the path and its rights.") from error


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
