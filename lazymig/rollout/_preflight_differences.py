"""Where two JSON values differ; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABSENT = object()


def first_difference(before: bytes | None, after: bytes | None) -> str | None:
    """Return the path of the first place where two encoded values differ, as in ``$.owner.name``; None if none does.

    Keys have no order, and numbers are equal by value. Without one of the two it is the root.
    """
    if before == after:
        return None
    if before is None or after is None:
        return "$"
    waiting: list[tuple[str, Any, Any]] = [("$", codec.decode(before), codec.decode(after))]
    while waiting:  # without recursion: values may be nested deep
        path, one, other = waiting.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            waiting += reversed([*_of_objects(path, one, other)])
        elif isinstance(one, list) and isinstance(other, list):
            waiting += reversed([*_of_lists(path, one, other)])
        elif one != other or isinstance(one, bool) is not isinstance(other, bool):
            return path
    return None


def _of_objects(path: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in [*one, *(key for key in other if key not in one)]:
        yield f"{path}.{key}", one.get(key, _ABSENT), other.get(key, _ABSENT)


def _of_lists(path: str, one: list[Any], other: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    for index in range(max(len(one), len(other))):
        yield (
            f"{path}[{index}]",
            one[index] if index < len(one) else _ABSENT,
            other[index] if index < len(other) else _ABSENT,
        )
