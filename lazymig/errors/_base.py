"""What all errors share, and how they name things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazymig._records import ActorKey


def _restore(cls: type[LazymigError], args: tuple[Any, ...]) -> LazymigError:
    """Rebuild an unpickled error without running the constructor that made its message."""
    return cls.__new__(cls, *args)


def who(key: ActorKey | None) -> str:
    """Name an actor in a message."""
    return "this state" if key is None else f"{key.type} {key.id!r}"


def listed(names: Iterable[object]) -> str:
    """List names in a message."""
    return ", ".join(str(name) for name in names) or "none"


class LazymigError(Exception):
    """Base of all errors that lazymig raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle message and fields; a chained cause stays behind, as with any exception."""
        return (_restore, (type(self), self.args), self.__dict__)
