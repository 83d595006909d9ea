"""What a command says, and where: its answer on stdout, everything else on stderr; and its exit status.

With ``--json`` stdout is one document, errors included. Exit status: 0 fine; 1 the answer is no, or something was
found, or the store failed on the way; 2 the command can't be carried out as it was given; 130 interrupted; 141 nobody
reads stdout any more.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.table import Table

SCHEMA = 1
"""Of all documents; it rises when a key changes its meaning or goes."""

FINE, FOUND, USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
"""Exit statuses; the last two are 128 plus the number of the signal, as shells count."""

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Refusal(Exception):  # noqa: N818  (it ends a command, and nobody catches it but the tool)
    """Ends a command with one line.

    Args:
        code: Names the reason in a document.
        message: What was found, what was wanted, the cure.
        status: The exit status.
        document: Further keys of the document: what was done before it ended.
    """

    def __init__(
        self, code: str, message: str, status: int = USAGE, document: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.code = code
        self.status = status
        self.document = document
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Output:
    """How the command at hand speaks.

    Attributes:
        is_json: Its answer is a document.
        is_debug: Errors come with their traceback.
    """

    is_json: bool
    is_debug: bool

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Output:
        """Read the two flags before anything can fail: usage errors are documents, too."""
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        return cls("--json" in options, "--debug" in options)

    def answer(self, document: Mapping[str, Any], text: str) -> None:
        """Give the command's answer."""
        click.echo(encode({"schema": SCHEMA, **document}) if self.is_json else text)

    def note(self, text: str) -> None:
        """Say something that isn't the answer."""
        click.echo(f"lazymig: {text}", err=True)

    def fail(self, error: BaseException) -> int:
        """Report an error and return the exit status."""
        reason, status = self.explain(error)
        if self.is_json:
            done = error.document if isinstance(error, Refusal) else {}
            click.echo(encode({"schema": SCHEMA, **done, "error": reason}))
        return status

    def explain(self, error: BaseException) -> tuple[dict[str, str], int]:
        """Report an error on stderr; return it as a document has it, and the exit status."""
        if self.is_debug:
            import traceback  # noqa: PLC0415  (only to debug)

            traceback.print_exception(error)
        code, message, status = describe(error)
        self.note(message)
        return {"code": code, "message": message}, status


def encode(document: object) -> bytes:
    """Return a document as one line of JSON, keys sorted; without its line end."""
    import orjson  # noqa: PLC0415  (a usage error in text form needs no codec)

    return orjson.dumps(document, None, orjson.OPT_SORT_KEYS)


def describe(error: BaseException) -> tuple[str, str, int]:
    """Return an error's code, its message in one line, and the exit status."""
    if isinstance(error, Refusal):
        return error.code, _line(str(error)), error.status
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return "interrupted", "interrupted", INTERRUPTED
    if isinstance(error, click.UsageError):
        path = "lazymig" if error.ctx is None else error.ctx.command_path
        return "usage", _line(f"{error.format_message()} See '{path} --help'."), USAGE
    return _describe_ours(error)


def _describe_ours(error: BaseException) -> tuple[str, str, int]:
    from lazymig.errors import (  # noqa: PLC0415  (known by the time one of them is raised)
        ConfigurationError,
        DefinitionError,
        InvalidKeyError,
        InvalidStoreUrlError,
        LazymigError,
    )

    if isinstance(error, LazymigError):
        is_usage = isinstance(error, (ConfigurationError, DefinitionError, InvalidKeyError, InvalidStoreUrlError))
        return code_of(error), _line(str(error)), USAGE if is_usage else FOUND
    if isinstance(error, OSError):
        return "os", _line(str(error)), FOUND
    kind = type(error).__name__
    return "internal", _line(f"{kind}: {error}. This is a fault of lazymig: report it with --debug's output."), USAGE


def code_of(error: BaseException) -> str:
    """Return an error's class as a code: ``StoreUnavailableError`` is ``store_unavailable``."""
    return _WORD.sub("_", type(error).__name__.removesuffix("Error")).lower()


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean …?" with the nearest known name, or nothing."""
    import difflib  # noqa: PLC0415  (only after a mistake)

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def print_tables(*tables: Table) -> None:
    """Print tables with an empty line after each; without a terminal their lines are as long as they need."""
    from rich.console import Console  # noqa: PLC0415  (not for --json)

    console = Console(width=None if Console().is_terminal else 1_000, highlight=False)
    for table in tables:
        console.print(table)
        if len(tables) > 1:
            console.print()


def silence() -> None:
    """Let nothing more be written to a pipe that nobody reads, nor complained about at exit."""
    import os  # noqa: PLC0415  (rare)

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def plain(text: str) -> str:
    """Return a text of one line in which nothing moves a cursor: labels come from other machines."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _line(text: str) -> str:
    return plain(" ".join(text.split()))
