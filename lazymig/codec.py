"""Values to bytes and back: JSON by orjson, with one promise added.

What is stored comes back equal. orjson alone does not keep it: it writes NaN as null, tuples as lists, datetimes and
UUIDs as text. So what was written is read again and compared, which costs a few microseconds for 2 KB and needs no
list of bad types that could miss one.
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

from lazymig.errors import InvalidValueError

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

_LONG_NUMBER = re.compile(rb"[0-9]{16}")
"""Only a number of at least 16 digits can change when it is read: orjson reads integers beyond 64 bits as floats."""

_MAX_DEPTH = 250
"""How deep lists and dicts may nest; orjson writes 254."""


def encode(value: Any, subject: str) -> bytes:
    """Return ``value`` as UTF-8 JSON.

    Args:
        value: Any JSON value.
        subject: What it is of, for the error.

    Raises:
        InvalidValueError: It would not come back equal; the message names the place.
    """
    data = _dump(value, subject)
    if orjson.loads(data) != value:
        raise _refusal(value, subject, "does not come back equal")
    return data


def copy(value: Any, subject: str) -> Any:
    """Return an equal value that shares nothing with ``value``.

    Raises:
        InvalidValueError: It isn't JSON, see `encode`.
    """
    copied = orjson.loads(_dump(value, subject))
    if copied != value:
        raise _refusal(value, subject, "does not come back equal")
    return copied


def decode(data: bytes | str) -> Any:
    """Return the value of JSON bytes that ``encode`` made.

    Raises:
        ValueError: They are no JSON.
    """
    return orjson.loads(data)


def decode_foreign(data: bytes) -> Any:
    """Return the value of JSON bytes that somebody else made.

    Raises:
        ValueError: They are no JSON, or hold a number that can't be kept: an integer beyond 64 bits, an infinity.
    """
    value = orjson.loads(data)
    if _LONG_NUMBER.search(data):
        _check_integers(data)
    encode(value, "the value")
    return value


def _check_integers(data: bytes) -> None:
    import json  # noqa: PLC0415  (only for the rare line with a long number)

    def exact(text: str) -> int:
        number = int(text) if len(text) <= 20 else None  # 20 characters hold every integer of 64 bits
        if number is None or not -(2**63) <= number < 2**64:
            raise ValueError("it holds an integer beyond 64 bits. Write such numbers as strings.")
        return number

    json.loads(data, parse_int=exact)


def _dump(value: Any, subject: str) -> bytes:
    try:
        return orjson.dumps(value, None, _OPTIONS)
    except (TypeError, RecursionError) as error:
        raise _refusal(value, subject, str(error)) from None


def _refusal(value: Any, subject: str, reason: str) -> InvalidValueError:
    path, found = _culprit(value, "$", 0) or ("$", reason)
    return InvalidValueError(subject, path, found)


def _culprit(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    """Find the first place that JSON can't hold, and say why."""
    if depth > _MAX_DEPTH:
        return path[:80], f"is nested deeper than {_MAX_DEPTH} levels"
    if isinstance(value, dict):
        return _culprit_of_dict(value, path, depth)
    if isinstance(value, list):
        found = (_culprit(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value))
        return next(filter(None, found), None)
    reason = _fault(value)
    return None if reason is None else (path, reason)


def _culprit_of_dict(value: dict[Any, Any], path: str, depth: int) -> tuple[str, str] | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return path, f"has the key {key!r} of type {type(key).__name__}"
        reason = _fault(key)
        if reason is not None:
            return path, f"has a key that {reason}"
        found = _culprit(item, f"{path}.{key}", depth + 1)
        if found is not None:
            return found
    return None


def _fault(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if value.isascii() or _is_utf8(value) else "contains a lone surrogate"
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
