"""The user's suites, imported as their own software would import them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lazymig.cli._output import Refusal
from lazymig.suite import ActorType, Suite

if TYPE_CHECKING:
    from lazymig.cli._settings import Settings


def load_types(settings: Settings) -> dict[str, ActorType[Any]]:
    """Return the actor types of the configured suites by name, frozen: a tool uses them now.

    Raises:
        Refusal: A suite can't be imported, isn't one, or has a type that another one has.
    """
    if settings.file is not None and settings.suites:
        sys.path.insert(0, str(settings.file.parent))
    types: dict[str, ActorType[Any]] = {}
    for name in settings.suites:
        for actor_type in _load(name, settings).actor_types.values():
            if actor_type.name in types:
                raise _refusal(name, settings, f"has the actor type {actor_type.name!r}, as another suite has")
            actor_type.freeze()
            types[actor_type.name] = actor_type
    return types


def _load(name: str, settings: Settings) -> Suite:
    module, _, attribute = name.partition(":")
    try:
        with redirect_stdout(sys.stderr):  # stdout is the answer's alone
            found = getattr(import_module(module), attribute, None)
    except (Exception, SystemExit) as error:
        reason = f"can't be imported ({type(error).__name__}: {error})"
        raise _refusal(name, settings, reason) from error
    if found is None:
        raise _refusal(name, settings, f"does not exist: module {module!r} has no {attribute!r}")
    if not isinstance(found, Suite):
        raise _refusal(name, settings, f"is of type {type(found).__name__}, not a lazymig.Suite")
    return found


def _refusal(name: str, settings: Settings, reason: str) -> Refusal:
    return Refusal("suite", f"the suite {name!r} of {settings.file} {reason}. Put it right; --debug shows more.")
