"""Hooks: what happened, told to whoever listens.

A hook is anything that can be called with an event. Events are frozen, past tense, and never carry state values. They
are told after the fact: a raising hook is logged and changes nothing. Without hooks nothing is built.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from semver import Version

    from lazymig._records import ActorKey

_log = logging.getLogger("lazymig.hooks")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a node.

    Attributes:
        node: Node id.
    """

    level: ClassVar[int] = logging.INFO
    node: str


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    """A node registered, at its start or anew after it had been out of touch.

    Attributes:
        label: The node's label.
        replaces: Node id it had before, or None.
    """

    label: str
    replaces: str | None


@dataclass(frozen=True, slots=True)
class NodeStopped(Event):
    """A node signed off in good order."""


@dataclass(frozen=True, slots=True)
class MigrationChanged(Event):
    """A node registered a migration whose code is not what it was when the store last saw it.

    Attributes:
        actor_type: Name of the actor type.
        version: Version of the migration.
        name: Name of its function.
    """

    level: ClassVar[int] = logging.WARNING
    actor_type: str
    version: Version
    name: str


@dataclass(frozen=True, slots=True)
class ActorEvent(Event):
    """Something that happened to an actor.

    Attributes:
        key: The actor.
    """

    key: ActorKey


@dataclass(frozen=True, slots=True)
class Activated(ActorEvent):
    """An actor's states were loaded for the first time in an activation.

    Attributes:
        version: Version of the stored state after that, None without migration-info.
        migrations: How many migrations ran.
        seconds: From asking for the lock until the states were there.
    """

    level: ClassVar[int] = logging.DEBUG
    version: Version | None
    migrations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MigrationApplied(ActorEvent):
    """A migration ran and its result was committed.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        is_projection: Whether it is above the write version: its result is kept as the base, and it may run again.
    """

    version: Version
    name: str
    is_projection: bool = False


@dataclass(frozen=True, slots=True)
class EntriesConverted(ActorEvent):
    """An eager conversion of an actor's entries went on by a chunk, which was committed.

    Attributes:
        version: Version that the entries are brought to.
        table: Their table.
        entries: How many of it were converted so far, in this activation.
    """

    level: ClassVar[int] = logging.DEBUG
    version: Version
    table: str
    entries: int


@dataclass(frozen=True, slots=True)
class DriftRepaired(ActorEvent):
    """Older software had stored over what a migration made; its `reconcile` ran and the result was committed.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        written_by: What the older software supports.
    """

    version: Version
    name: str
    written_by: Version


@dataclass(frozen=True, slots=True)
class DriftSeen(ActorEvent):
    """Older software had stored over what a migration made: what it stored stands.

    The migration has no `reconcile`, or the base can't be brought down to its shape: a `down` above it is missing.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        written_by: What the older software supports.
    """

    level: ClassVar[int] = logging.WARNING
    version: Version
    name: str
    written_by: Version


@dataclass(frozen=True, slots=True)
class MigrationFailed(ActorEvent):
    """A migration raised, or its result can't be stored; nothing was written.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        error: Name of the exception's class.
    """

    level: ClassVar[int] = logging.ERROR
    version: Version
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class ActorQuarantined(ActorEvent):
    """A migration that failed was recorded with the actor: until its next try activations fail at once.

    Nothing is told of those: whoever calls gets `QuarantinedError`.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        error: Name of the exception's class.
        attempts: How often it failed in a row.
        retry_at: When it is tried again, by the store's clock, aware UTC.
    """

    level: ClassVar[int] = logging.WARNING
    version: Version
    name: str
    error: str
    attempts: int
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class StateRefused(ActorEvent):
    """The stored state was refused: newer by a major, too old, late or unreadable.

    Attributes:
        error: Name of the error's class.
        stored: Version of the stored state, None if it can't be read.
        supported: Highest version this software supports.
    """

    level: ClassVar[int] = logging.WARNING
    error: str
    stored: Version | None
    supported: Version


@dataclass(frozen=True, slots=True)
class LeaseLost(ActorEvent):
    """The node lost an actor it had active; what it had not stored is gone."""

    level: ClassVar[int] = logging.ERROR


@dataclass(frozen=True, slots=True)
class ActionFailed(ActorEvent):
    """An exclusive action raised or was cancelled; the actor starts again from what is stored.

    Attributes:
        action: Name of the action.
        error: Name of the exception's class.
    """

    level: ClassVar[int] = logging.WARNING
    action: str
    error: str


@dataclass(frozen=True, slots=True)
class DeactivationFailed(ActorEvent):
    """`deactivate()` of an actor raised; what it had not stored is gone.

    Attributes:
        error: Name of the exception's class.
    """

    level: ClassVar[int] = logging.ERROR
    error: str


@dataclass(frozen=True, slots=True)
class Deactivated(ActorEvent):
    """An activation ended.

    Attributes:
        reason: "idle", "evicted", "left", "replaced", "stopped".
    """

    level: ClassVar[int] = logging.DEBUG
    reason: str


class Hook(Protocol):
    """Told of every event, on the event loop; it must return soon and should not raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        ...


class LoggingHook:
    """Writes every event to the standard logger ``lazymig.node`` or ``lazymig.actor``.

    The message is the event's name with its fields; the same fields are in ``extra`` with the prefix ``lazymig_``.
    """

    def __init__(self) -> None:
        self._of_node = logging.getLogger("lazymig.node")
        self._of_actor = logging.getLogger("lazymig.actor")

    def __call__(self, event: Event, /) -> None:
        """Log one event at its level."""
        logger = self._of_actor if isinstance(event, ActorEvent) else self._of_node
        if not logger.isEnabledFor(event.level):
            return
        values = {field.name: getattr(event, field.name) for field in fields(event)}
        shown = " ".join(f"{name}={value}" for name, value in values.items())
        extra = {f"lazymig_{name}": value for name, value in values.items()}
        logger.log(
            event.level, "%s %s", type(event).__name__, shown, extra=extra | {"lazymig_event": type(event).__name__}
        )


def tell(hooks: tuple[Hook, ...], event: Event) -> None:
    """Tell every hook; one that raises is logged and hinders nobody."""
    for hook in hooks:
        try:
            hook(event)
        except Exception as error:
            error.__suppress_context__ = True  # what was being handled meanwhile may speak of state values
            _log.exception("hook %r failed on %s", hook, type(event).__name__)
