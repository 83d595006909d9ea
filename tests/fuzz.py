"""Fuzz the readers of stored bytes by atheris, which looks for new ways through their code; run by hand.

    pip install -e '.[test,fuzz]'
    python -m tests.fuzz state -max_total_time=60

The first argument names a reader (without one they are listed), the others are libFuzzer's. What is found is told with
its traceback, and its bytes are left in a file of this folder; the name of such a file as the last argument replays it.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atheris

with atheris.instrument_imports(include=["lazymig"]):
    from tests import decoders
    from tests.damage import PLACES, Damage, DamagedStore

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = [
    b'{"n":1}',
    b'{"id":"x","n":[1.5,-0.0,null,true,18446744073709551615]}',
    b'{"owner":"ann","gears":3,"wheels":[{"size":1.5,"new":1}],"since":"2026-01-01T00:00:00Z","newer":{}}',
    b'{"version":"2.0.0","applied":["1.0.0","2.0.0"],"written_by":"2.0.0","migrated_at":"2026-01-01T00:00:00Z","floor":null}',
    b'["<=1.0.0","1.1.0","2.0.0"]',
    b"[" * 251 + b"1" + b"]" * 251,
]


def fuzz_info(data: bytes) -> None:
    """Read a stamp's JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    decoders.check_info(value)


def fuzz_set(data: bytes) -> None:
    """Read an applied set, given as bytes and as text."""
    decoders.check_set(data)
    decoders.check_set(data.decode(errors="surrogateescape"))


def row_fuzzer() -> Callable[[bytes], None]:
    """Return what reads a store with one damaged column: the first byte says which, the second what of."""
    store = DamagedStore(Path(tempfile.mkdtemp()))

    def fuzz_row(data: bytes) -> None:
        if len(data) < 2:
            return
        place, kind, rest = data[0] % len(PLACES), data[1] % 5, data[2:]
        number = rest[:8].ljust(8, b"\0")
        values: list[Any] = [None, struct.unpack("<q", number)[0], struct.unpack("<d", number)[0], rest, rest]
        store.check(Damage(*PLACES[place], values[kind], as_text=kind == 3))

    return fuzz_row


READERS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "state": lambda: decoders.check_state,
    "typed": lambda: decoders.check_typed,
    "info": lambda: fuzz_info,
    "set": lambda: fuzz_set,
    "line": lambda: decoders.check_line,
    "row": row_fuzzer,
}


def main(arguments: list[str]) -> None:
    """Fuzz one reader, from seeds and tokens of JSON."""
    if not arguments or arguments[0] not in READERS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(READERS)}}} [libFuzzer's arguments]")
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    tokens = folder / "tokens"
    lines = ("".join(f"\\x{byte:02x}" for byte in token) for token in decoders.TOKENS)
    tokens.write_text("".join(f'"{line}"\n' for line in lines))
    reader, *options = arguments
    if not any(Path(option).exists() for option in options):  # a file is replayed by itself
        options += [f"-dict={tokens}", "-max_len=2048", str(corpus)]
    atheris.Setup(["tests.fuzz", *options], READERS[reader]())
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
