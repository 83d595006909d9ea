"""Values to bytes and back: JSON by orjson, with two promises added.

What is stored comes back equal. orjson alone does not keep that: it writes NaN as null, tuples as lists, datetimes and
UUIDs as text. So what was written is read again and compared, which costs a few microseconds for 2 KB and needs no
list of bad types that could miss one.

Integers and keys are read as the bytes say, whoever wrote them; any other number is the nearest float, as JSON readers
give it: 1e-400 is 0.0, and 9007199254740993.0 is ...992.0. Nor does orjson keep the former: it reads integers beyond 64
bits as floats, and of a key that is there twice the last one. So what was read is written again: if the same bytes come
out nothing was lost, and other bytes (with spaces, say) are looked at number by number and key by key. That costs about
as much again as reading (12 -> 26 µs for 1.8 KB), and more for those other bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson

from lazymig.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_DEPTH = 250
"""How deep lists and dicts may nest: orjson writes 254, and a state is shown and exported inside other objects."""


class Subject:
    """What a value is of, written out only when an error tells it.

    Args:
        form: A format string.
        parts: What is put in.
    """

    __slots__ = ("_form", "_parts")

    def __init__(self, form: str, *parts: object) -> None:
        self._form = form
        self._parts = parts

    def __str__(self) -> str:
        """Write it out."""
        return self._form.format(*self._parts)


def encode(value: Any, subject: object) -> bytes:
    """Return ``value`` as UTF-8 JSON.

    Args:
        value: Any JSON value.
        subject: What it is of, for the error.

    Raises:
        InvalidValueError: It would not come back equal; the message names the place.
    """
    return encode_and_copy(value, subject)[0]


def encode_and_copy(value: Any, subject: object) -> tuple[bytes, Any]:
    """Return ``value`` as UTF-8 JSON, and an equal value that shares nothing with it; as `encode`."""
    try:
        data = _write(value)
    except TypeError as error:
        raise _refusal(value, subject, str(error)) from None
    copied = orjson.loads(data)
    if copied != value:
        raise _refusal(value, subject, "does not come back equal")
    return data, copied


def encode_typed(value: Any, subject: object) -> bytes:
    """Return what was made of a typed value as UTF-8 JSON: as `encode`, but tuples count as lists.

    Only a value that doesn't come back equal is looked at in Python: most have no tuples.
    """
    try:
        data = _write(value)
        if orjson.loads(data) == value:
            return data
    except TypeError:
        pass  # told by `encode`
    return encode(as_lists(value), subject)


def as_lists(value: Any) -> Any:
    """Return an equal JSON value with lists for tuples."""
    if isinstance(value, dict):
        return {name: as_lists(item) for name, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def copy(value: Any, subject: object) -> Any:
    """Return an equal value that shares nothing with ``value``.

    Raises:
        InvalidValueError: It isn't JSON, see `encode`.
    """
    return encode_and_copy(value, subject)[1]


def decode(data: bytes) -> Any:
    """Return the value of JSON bytes, no matter who made them: integers and keys exactly, other numbers as floats.

    Raises:
        ValueError: They are no JSON in UTF-8, or hold what can't be kept: an integer beyond 64 bits, a number beyond
            all floats, a key twice in one object, more than 250 levels.
    """
    value = orjson.loads(data)
    try:
        is_as_written = _write(value) == data
    except TypeError:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels") from None
    if not is_as_written:
        _check_exact(data)
    return value


def decode_many(data: Sequence[bytes]) -> list[Any]:
    """Return the values of many JSON texts, as `decode` does but read at once, which costs half as much.

    Raises:
        ValueError: One is none, or it can't be told which bytes are whose: decode them one by one.
    """
    joined = b"[" + b",".join(data) + b"]"
    values: list[Any] = orjson.loads(joined)
    try:
        is_as_written = _write(values) == joined
    except TypeError:
        is_as_written = False
    if not is_as_written or len(values) != len(data):
        raise ValueError("some were written by others. Decode them one by one.")
    return values


def write(value: Any) -> bytes:
    """Return a value as JSON text, as `encode` does but without looking whether it comes back: see `come_back`.

    Raises:
        TypeError: JSON can't hold it.
    """
    return _write(value)


def come_back(values: Sequence[Any], data: Sequence[bytes]) -> bool:
    """Tell whether values are what was written of them, all at once, which costs less than one by one."""
    read: list[Any] = orjson.loads(b"[" + b",".join(data) + b"]")
    return read == values


def _check_exact(data: bytes) -> None:
    import json  # noqa: PLC0415  (only for what `encode` didn't write)

    json.loads(data, parse_int=_exact_integer, object_pairs_hook=_check_keys)


def _exact_integer(text: str) -> int:
    number = int(text)  # orjson has refused those that have more digits than a float can stand for
    if not -(2**63) <= number < 2**64:
        raise ValueError("it holds an integer beyond 64 bits. Write such numbers as strings.")
    return number


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object in it has the key {twice[:80]!r} twice. Keep one of them.")


def _write(value: Any) -> bytes:
    """Write with four lists around the value, so that four levels more than those it may have can be written."""
    return orjson.dumps([[[[value]]]])[4:-4]


def _refusal(value: Any, subject: object, reason: str) -> InvalidValueError:
    path, found = _culprit(value) or ("$", reason)
    return InvalidValueError(str(subject), path, found)


def _culprit(value: Any) -> tuple[str, str] | None:
    """Find the first place that JSON can't hold, and say why; without recursion, as the value may be a loop."""
    waiting = [("$", value, 0)]
    while waiting:
        path, found, depth = waiting.pop()
        if isinstance(found, (dict, list)) and depth >= _MAX_DEPTH:
            return path[:80], f"is nested deeper than {_MAX_DEPTH} levels"
        if isinstance(found, dict):
            reason = next(filter(None, map(_fault_of_key, found)), None)
            inner = [(f"{path}.{key}", item, depth + 1) for key, item in found.items()]
        elif isinstance(found, list):
            reason = None
            inner = [(f"{path}[{index}]", item, depth + 1) for index, item in enumerate(found)]
        else:
            reason = _fault(found)
            inner = []
        if reason is not None:
            return path, reason
        waiting += reversed(inner)
    return None


def _fault_of_key(key: object) -> str | None:
    if not isinstance(key, str):
        return f"has the key {key!r} of type {type(key).__name__}"
    return None if _is_utf8(key) else "has a key that contains a lone surrogate"


def _fault(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if _is_utf8(value) else "contains a lone surrogate"
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else "is an integer beyond 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}"
    return f"is of type {type(value).__name__}"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
