"""What all errors share, and how they name things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazymig._entries import Place
    from lazymig._records import ActorKey


def _restore(cls: type[LazymigError], args: tuple[Any, ...]) -> LazymigError:
    """Rebuild an unpickled error without running the constructor that made its message."""
    return cls.__new__(cls, *args)


def who(key: ActorKey | None, place: Place | None = None) -> str:
    """Name an actor, or one of its entries, in a message."""
    actor = "this state" if key is None else f"{key.type} {key.id!r}"
    return actor if place is None else f"entry {place[1]!r} of table {place[0]!r} of {actor}"


def listed(names: Iterable[object]) -> str:
    """List names in a message."""
    return ", ".join(str(name) for name in names) or "none"


def counted(count: int, ids: Iterable[str] = (), what: str = "") -> str:
    """Say of how many stored actors a sentence goes on to speak, and name the first."""
    shown = [repr(name) for name in ids]
    named = f" ({', '.join(shown)}{', …' if count > len(shown) else ''})" if shown else ""
    one = count == 1
    return f"{count:,} stored {'actor' if one else 'actors'}{what}{named} {'is' if one else 'are'}"


class LazymigError(Exception):
    """Base of all errors that lazymig raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle message and fields; a chained cause stays behind, as with any exception."""
        return (_restore, (type(self), self.args), self.__dict__)
