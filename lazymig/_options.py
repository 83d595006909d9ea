"""Checks of what a node is given."""

from __future__ import annotations

from lazymig import _records
from lazymig.errors import DefinitionError, InvalidKeyError


def check_text(name: str, text: object) -> None:
    """Refuse what is neither None nor a name."""
    if not text:
        return
    try:
        _records.check_text(name, text, _records.MAX_NAME_BYTES)
    except InvalidKeyError as error:
        raise DefinitionError(str(error)) from None


def check_positive(name: str, value: object) -> None:
    """Refuse what is no number above 0."""
    if not (isinstance(value, (int, float)) and value > 0):
        raise DefinitionError(f"{name} is {value!r}; it must be a number above 0.")


def check_not_negative(name: str, value: object) -> None:
    """Refuse what is no number of 0 or more."""
    if not (isinstance(value, (int, float)) and value >= 0):
        raise DefinitionError(f"{name} is {value!r}; it must be a number, 0 or more.")
