"""How a call's outcome travels: as JSON. Nothing of it is imported, executed or unpickled on the other side.

An error of lazymig comes back as its class, found by name among `lazymig.errors`, with message and fields. Any other
one comes back as `RemoteError`, its causes chained.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from semver import Version

from lazymig import codec, errors
from lazymig._records import ActorKey
from lazymig.errors import InvalidValueError, LazymigError, RemoteError

MAX_BYTES = 1_000_000
"""Of arguments, and of a result: calls pass through the store, which is no place for files."""

_MAX_CAUSES = 5
_MAX_TEXT = 10_000
"""Characters of a message that travel."""


def encode_arguments(args: list[Any], kwargs: dict[str, Any], subject: object) -> bytes:
    """Return the arguments of a call.

    Raises:
        InvalidValueError: They are no JSON, or too large.
    """
    return _bounded(codec.encode([args, kwargs], subject), subject)


def check_result(value: Any, subject: object) -> Any:
    """Return a copy of an action's result, as it would come from another node.

    Raises:
        InvalidValueError: It is no JSON, or too large.
    """
    data, copied = codec.encode_and_copy(value, subject)
    _bounded(data, subject)
    return copied


def encode_result(value: Any) -> bytes:
    """Return a result that was checked."""
    return orjson.dumps({"result": value})


def encode_error(error: BaseException) -> bytes:
    """Return what an action raised, or that it can't be told: somebody waits for it."""
    try:
        return orjson.dumps({"error": _write(error, _MAX_CAUSES)})
    except Exception as failure:  # its text can't be made, or a field of it is no text
        untold = RuntimeError(f"{type(error).__name__}, which can't be told ({type(failure).__name__})")
        return orjson.dumps({"error": _write(untold, 0)})


def read(outcome: bytes, node: str) -> Any:
    """Return the result, or raise the error, of a call that ran on another node."""
    found = orjson.loads(outcome)
    if "error" in found:
        raise _read(found["error"], node)
    return found["result"]


def _bounded(data: bytes, subject: object) -> bytes:
    if len(data) > MAX_BYTES:
        raise InvalidValueError(
            str(subject), "$", f"has {len(data):,} bytes, more than {MAX_BYTES:,}", "Pass the name of where it is kept."
        )
    return data


def _write(error: BaseException, causes: int) -> dict[str, Any]:
    text = str(error).encode("utf-8", "replace").decode()[:_MAX_TEXT]
    written: dict[str, Any] = {"type": type(error).__name__, "message": text}
    if isinstance(error, LazymigError) and getattr(errors, type(error).__name__, None) is type(error):
        written["fields"] = {name: _pack(value) for name, value in vars(error).items() if not name.startswith("_")}
    cause = error.__cause__
    if cause is not None and causes:
        written["cause"] = _write(cause, causes - 1)
    return written


def _read(written: dict[str, Any], node: str) -> Exception:
    cls = getattr(errors, written["type"], None) if "fields" in written else None
    error: Exception
    if isinstance(cls, type) and issubclass(cls, LazymigError):
        error = cls.__new__(cls)
        Exception.__init__(error, written["message"])
        vars(error).update({name: _unpack(value) for name, value in written["fields"].items()})
    else:
        error = RemoteError(written["type"], written["message"], node)
    if "cause" in written:
        error.__cause__ = _read(written["cause"], node)
    return error


def _pack(value: Any) -> Any:
    """Return a field as JSON; one form of value for each kind that fields of our errors have."""
    if isinstance(value, ActorKey):
        return {"actor": [value.type, value.id]}
    if isinstance(value, Version):
        return {"version": str(value)}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if isinstance(value, (tuple, list)):
        return {"items": [_pack(item) for item in value]}
    return value if value is None or isinstance(value, (str, int, float, bool)) else {"shown": repr(value)[:_MAX_TEXT]}


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "actor":
        return ActorKey(*content)
    if kind == "version":
        return Version.parse(content)
    if kind == "time":
        return datetime.fromisoformat(content)
    return tuple(_unpack(item) for item in content) if kind == "items" else content
