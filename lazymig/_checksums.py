"""Checksums of functions: of their code, not of how it is laid out or described.

Rules:

1. What counts is the tokens of the source and its blocks, without comments, decorators and docstring. Not the syntax
   tree, which differs from one Python to the next for the same text; it only says where a function is.
2. Since 3.12 an f-string is several tokens, before it was one: its text, from the first to the last, counts as one.
"""

from __future__ import annotations

import ast
import hashlib
import io
import linecache
import tokenize
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Place = tuple[int, int]
"""A line from 1, a column in characters from 0."""

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER}

_BLOCKS = {tokenize.NEWLINE: "\n", tokenize.INDENT: "\n+", tokenize.DEDENT: "\n-"}
"""What ends a line, begins a block or ends one, as no other token is written."""

_KEPT_FILES = 64
"""Of how many files it is kept where their functions are."""


def checksum(function: Any) -> int | None:
    """Return a checksum of 63 bits of a function, equal on every Python; None if there is no source.

    Args:
        function: A function, lambda or method; of anything else that can be called, ``__call__`` counts.
    """
    function = _plain(function)
    code: Any = getattr(function, "__code__", None)
    if not hasattr(code, "co_firstlineno") or code.co_filename.startswith("<"):  # only some shells keep the source
        return None
    text = "".join(linecache.getlines(code.co_filename, getattr(function, "__globals__", None)))
    try:
        with warnings.catch_warnings(action="ignore"):  # they were given when it was imported
            found = _sources(text).get((code.co_firstlineno, code.co_name), ())
            words = [word for source in found for word in _words(*source)]
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):  # it was changed since
        return None
    return hashed(words) if words else None


def hashed(words: Iterable[str]) -> int:
    """Return 63 bits that depend on each word and on their order."""
    digest = hashlib.sha256()
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return int.from_bytes(digest.digest()[:8]) >> 1


def _plain(function: Any) -> Any:
    """Return what has the code: of something callable, its method."""
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004  (it is to be had, not known)
    return function


@lru_cache(_KEPT_FILES)
def _sources(text: str) -> dict[tuple[int, str], list[tuple[str, _Place, _Place]]]:
    """Return first line and name of each function in a file to its source, and from where to where its docstring is.

    Lambdas that begin on one line have one name: there all count.
    """
    lines = list(io.StringIO(text))
    found: dict[tuple[int, str], list[tuple[str, _Place, _Place]]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min(place.lineno for place in (node, *node.decorator_list))
            source = "".join(lines[node.lineno - 1 : node.end_lineno])
            found.setdefault((first, node.name), []).append((source, *_docstring(node, lines)))
        elif isinstance(node, ast.Lambda):
            source = f"({ast.get_source_segment(text, node)})"
            found.setdefault((node.lineno, "<lambda>"), []).append((source, (0, 0), (0, 0)))
    return found


def _docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> tuple[_Place, _Place]:
    """Return from where to where the docstring is, counted from the function's first line."""
    if ast.get_docstring(node, clean=False) is None:
        return (0, 0), (0, 0)
    text = node.body[0]

    def place(line: int | None, offset: int | None) -> _Place:
        number = line or 0
        return number - node.lineno + 1, len(lines[number - 1].encode()[:offset].decode())

    return place(text.lineno, text.col_offset), place(text.end_lineno, text.end_col_offset)


def _words(source: str, begin: _Place, end: _Place) -> list[str]:
    """Return what counts of a function, its docstring lying between two places."""
    words: list[str] = []
    after_docstring = False
    for word, place in _tokens(source):
        if begin <= place < end:
            after_docstring = True
        elif after_docstring and word in {"\n", ";"}:
            after_docstring = False
        else:
            words.append(word)
    while words[-1] in _BLOCKS.values():
        words.pop()
    return words[1:] if words[0] == "\n+" else words  # it is indented as a whole


def _tokens(source: str) -> Iterator[tuple[str, _Place]]:
    """Yield tokens and where they begin, an f-string as one."""
    lines = list(io.StringIO(source))
    depth = 0
    begin = (0, 0)
    for kind, text, start, end, _ in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[kind]
        if name.endswith("STRING_START"):
            begin = begin if depth else start
            depth += 1
        elif name.endswith("STRING_END"):
            depth -= 1
            if not depth:
                yield _between(lines, begin, end), begin
        elif not depth and kind not in _LAYOUT:
            yield _BLOCKS.get(kind, text), start


def _between(lines: list[str], begin: _Place, end: _Place) -> str:
    (first, left), (last, right) = begin, end
    if first == last:
        return lines[first - 1][left:right]
    return "".join((lines[first - 1][left:], *lines[first : last - 1], lines[last - 1][:right]))
