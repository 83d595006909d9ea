"""Checks of what a node is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig import _records
from lazymig.errors import DefinitionError, InvalidKeyError
from lazymig.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.suite import ActorType


def check_store(store: object) -> None:
    """Refuse what is no open store."""
    if not hasattr(store, "claim"):
        raise DefinitionError(f"store is {store!r}, no open store. Use it inside 'async with open_store(…) as store:'.")


def read_items(name: str, given: object, fits: Callable[[object], bool], cure: str) -> list[object]:
    """Return what an iterable holds, if all of it fits."""
    try:
        items: list[object] = list(given)  # type: ignore[call-overload]
    except TypeError:
        raise DefinitionError(f"{name} is {given!r}. {cure}") from None
    for item in items:
        if not fits(item):
            raise DefinitionError(f"{name} has {item!r} in it. {cure}")
    return items


def read_suites(suites: object) -> dict[str, ActorType[Any]]:
    """Return the actor types of suites by name."""
    cure = "Write a list of suites: Node(store, [suite]); none for a client."
    given: Any = read_items("suites", suites, lambda item: isinstance(item, Suite), cure)
    found: dict[str, ActorType[Any]] = {}
    for suite in given:
        for name, actor_type in suite.actor_types.items():
            if name in found:
                raise DefinitionError(f"two suites of the node have an actor type {name!r}. Give one another name.")
            found[name] = actor_type
    return found


def check_text(name: str, text: object) -> None:
    """Refuse what is neither None, nor "", nor a name."""
    if text is None or text == "":
        return
    try:
        _records.check_text(name, text, _records.MAX_NAME_BYTES)
    except InvalidKeyError as error:
        raise DefinitionError(str(error)) from None


def check_positive(name: str, value: object) -> None:
    """Refuse what is no number above 0."""
    if not (_is_number(value) and value > 0):  # type: ignore[operator]
        raise DefinitionError(f"{name} is {value!r}; it must be a number above 0.")


def check_not_negative(name: str, value: object) -> None:
    """Refuse what is no number of 0 or more."""
    if not (_is_number(value) and value >= 0):  # type: ignore[operator]
        raise DefinitionError(f"{name} is {value!r}; it must be a number, 0 or more.")


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number above 0."""
    if not (isinstance(value, int) and _is_number(value) and value > 0):
        raise DefinitionError(f"{name} is {value!r}; it must be a whole number above 0.")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise DefinitionError(f"{name} is {value!r}; it must be True or False.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
