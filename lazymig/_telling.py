"""What an activation tells the hooks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lazymig._version import unpack
from lazymig.errors import (
    ActivationClosedError,
    ActivationInProgressError,
    LeaseLostError,
    MigrationFailedError,
    NoEntryError,
    QuarantinedError,
)
from lazymig.hooks import (
    Activated,
    ActorQuarantined,
    DriftRepaired,
    DriftSeen,
    EntriesConverted,
    MigrationApplied,
    MigrationFailed,
    StateRefused,
    tell,
)

if TYPE_CHECKING:
    from lazymig._plan import Plan
    from lazymig._quarantine import Failure
    from lazymig._records import ActorKey, Stamp
    from lazymig.errors import ActivationError
    from lazymig.hooks import Hook
    from lazymig.suite import ActorType

_UNTOLD = (LeaseLostError, ActivationClosedError, ActivationInProgressError, NoEntryError, QuarantinedError)
"""Errors that say nothing about the stored state, or nothing that was not told."""


class Telling:
    """Tells of one activation; without hooks it does nothing.

    Args:
        hooks: Told.
        key: The actor.
        actor_type: Its type.
        node: Id of the node.
        started: When the lock was asked for, by `time.monotonic`.
    """

    __slots__ = ("_hooks", "_is_told", "_key", "_node", "_started", "_type")

    def __init__(
        self, hooks: tuple[Hook, ...], key: ActorKey, actor_type: ActorType[Any], node: str, started: float
    ) -> None:
        self._hooks = hooks
        self._key = key
        self._type = actor_type
        self._node = node
        self._started = started
        self._is_told = False

    def failed(self, error: ActivationError) -> None:
        """Tell that a migration failed, or that the stored state was refused or can't be read."""
        if not self._hooks or isinstance(error, _UNTOLD):
            return
        if isinstance(error, MigrationFailedError):
            kind = type(error.__cause__ or error).__name__
            tell(self._hooks, MigrationFailed(self._node, self._key, error.version, error.name, kind))
        else:
            stored = getattr(error, "stored", None)
            event = StateRefused(self._node, self._key, type(error).__name__, stored, self._type.supported)
            tell(self._hooks, event)

    def quarantined(self, failure: Failure, error: MigrationFailedError) -> None:
        """Tell that a migration that failed was recorded."""
        if self._hooks:
            kind = type(error.__cause__ or error).__name__
            event = ActorQuarantined(
                self._node, self._key, error.version, failure.name, kind, failure.attempts, failure.retry_at
            )
            tell(self._hooks, event)

    def activated(self, stamp: Stamp | None, migrations: int) -> None:
        """Tell that states were loaded, the first time."""
        if self._is_told or not self._hooks:
            return
        self._is_told = True
        version = None if stamp is None else stamp.info.version
        tell(self._hooks, Activated(self._node, self._key, version, migrations, time.monotonic() - self._started))

    def converted(self, table: str, version: int, entries: int) -> None:
        """Tell that a chunk of entries was converted eagerly, to a packed version."""
        if self._hooks:
            tell(self._hooks, EntriesConverted(self._node, self._key, unpack(version), table, entries))

    def applied(self, plan: Plan, before: Stamp | None, limit: int | None) -> None:
        """Tell that migrations were committed, and what was done about what older software had stored.

        Args:
            plan: What was done.
            before: The stamp before it.
            limit: The write version, packed, if what is above it was committed as a projection; else None.
        """
        if not self._hooks:
            return
        for step in plan.steps:
            is_projection = limit is not None and step.packed > limit
            tell(self._hooks, MigrationApplied(self._node, self._key, step.version, step.name, is_projection))
        written_by = unpack(0 if before is None else before.writer.highest)
        for step in plan.reconciles:
            tell(self._hooks, DriftRepaired(self._node, self._key, step.version, step.name, written_by))
        for step in plan.unrepaired:
            tell(self._hooks, DriftSeen(self._node, self._key, step.version, step.name, written_by))


SILENT = Telling((), None, None, "", 0.0)  # type: ignore[arg-type]  # without hooks nothing of it is looked at
"""Tells nobody; one for all activations of nodes without hooks."""
