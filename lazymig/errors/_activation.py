"""Errors of an actor and the software that would activate it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lazymig.errors._base import LazymigError, counted, listed, who

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from semver import Version

    from lazymig._entries import Place
    from lazymig._records import ActorKey


class ActivationError(LazymigError):
    """This actor can't be activated or stored by this software now; nothing was written.

    Attributes:
        key: The actor, None for a value given to `ActorType.upgrade`.
        table: If it is about an entry, the table's name; else None.
        entry: If it is about an entry, its key; else None.
    """

    def __init__(self, key: ActorKey | None, message: str, place: Place | None = None) -> None:
        self.key = key
        self.table = None if place is None else place[0]
        self.entry = None if place is None else place[1]
        super().__init__(message)


class NewerStateError(ActivationError):
    """The stored state is newer than this software by a major version.

    Or its type is written at a version above this software; or what newer software keeps beside it would be lost.

    Attributes:
        stored: Version of the stored state, the write version, or the version of what newer software keeps.
        supported: Highest version this software supports.
        capable: Ids of nodes that could take the actor.
    """

    def __init__(  # noqa: PLR0913  (its fields)
        self,
        key: ActorKey | None,
        stored: Version,
        supported: Version,
        capable: Sequence[str] = (),
        place: Place | None = None,
        *,
        of: Literal["state", "type", "base"] = "state",
    ) -> None:
        self.stored = stored
        self.supported = supported
        self.capable = tuple(capable)
        cure = "Activate it" if place is None else "Activate the actor"
        release = f"{stored.major}.x" if of == "state" else str(stored)
        found, reason = {
            "state": (f"is stored at {stored}", "newer by a major version"),
            "type": (f"is of a type that is written at {stored}", "it can store nothing of it"),
            "base": (f"is kept at {stored} beside its states", "what it would store there would lose what is newer"),
        }[of]
        super().__init__(
            key,
            f"{who(key, place)} {found}, this software supports {supported}: {reason}, so it was left alone. {cure} on "
            f"a process of a release that supports {release}.",
            place,
        )


class StateTooOldError(ActivationError):
    """The stored state is below the baseline: the migrations it needs were retired.

    Attributes:
        stored: Version of the stored state.
        baseline: Baseline of this software.
    """

    def __init__(self, key: ActorKey | None, stored: Version, baseline: Version, place: Place | None = None) -> None:
        self.stored = stored
        self.baseline = baseline
        cure = "Activate it once" if place is None else "Read and persist it once"
        super().__init__(
            key,
            f"{who(key, place)} is stored at {stored}, below the baseline {baseline}: its migrations were retired. "
            f"{cure} on an older release that still has them.",
            place,
        )


class LateMigrationError(ActivationError):
    """A pending migration is below the actor's version and doesn't say `late=True`; or a node of it did not start.

    Attributes:
        stored: Version of the stored state; where a node did not start, the highest that the store has seen.
        late: The pending versions below it that have no consent.
        actor_type: Where a node did not start, the name of the actor type; else None.
        count: Where a node did not start, how many stored actors would miss them; else None.
    """

    def __init__(  # noqa: PLR0913  (the last two are for a node's start)
        self,
        key: ActorKey | None,
        stored: Version,
        late: Sequence[Version],
        place: Place | None = None,
        *,
        actor_type: str | None = None,
        count: int | None = None,
    ) -> None:
        self.stored = stored
        self.late = tuple(late)
        self.actor_type = actor_type
        self.count = count
        found = f"{who(key, place)} is at {stored} and never had {listed(late)}"
        if actor_type is not None:
            found = (
                f"{actor_type} has {listed(late)} new, though this store has seen {stored} already: "
                f"{counted(count or 0)} past it and never had it"
            )
        super().__init__(
            key,
            f"{found}. If a migration may run on states of a later shape, register it with late=True; else give it a "
            f"version above {stored}.",
            place,
        )


class MigrationFailedError(ActivationError):
    """A migration raised, or its result can't be stored; the cause is chained.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        reason: What it raised, or what is wrong with its result.
    """

    def __init__(
        self, key: ActorKey | None, version: Version, name: str, reason: str, place: Place | None = None
    ) -> None:
        self.version = version
        self.name = name
        self.reason = reason
        left = "stored state" if place is None else "stored entry"
        super().__init__(
            key,
            f"migration {version} ({name}) of {who(key, place)} failed: {reason.rstrip('.')}. The {left} is as it was; "
            f"mend the migration and activate the actor again.",
            place,
        )


class QuarantinedError(ActivationError):
    """A migration of the actor failed, and is not tried again yet; nothing was run.

    Attributes:
        version: Version of the migration.
        name: Name of its function.
        reason: What it raised, or what is wrong with its result.
        attempts: How often it failed in a row.
        retry_at: When it is tried again, by the store's clock, aware UTC.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (its fields)
        self, key: ActorKey, version: Version, name: str, reason: str, attempts: int, retry_at: datetime
    ) -> None:
        self.version = version
        self.name = name
        self.reason = reason
        self.attempts = attempts
        self.retry_at = retry_at
        times = "once" if attempts == 1 else f"{attempts:,} times"
        super().__init__(
            key,
            f"{who(key)} is quarantined until {retry_at.isoformat(' ', 'seconds')}: migration {version} ({name}) "
            f"failed {times}, at last with {reason.rstrip('.')}. Mend the migration: a release whose code of it is "
            f"another one tries at once. 'lazymig quarantine retry' lets this one try now.",
        )


class CorruptStateError(ActivationError):
    """What is stored can't be read; it is neither replaced nor overwritten.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, key: ActorKey | None, reason: str, place: Place | None = None) -> None:
        self.reason = reason
        super().__init__(
            key,
            f"{who(key, place)} can't be read: {reason}. It was left as it is; put what is stored right, or "
            f"restore it from a backup.",
            place,
        )


class NotLoadedError(ActivationError):
    """A state was used before it was loaded, or after loading it was refused or failed.

    Attributes:
        state: Name of the state.
    """

    def __init__(self, key: ActorKey | None, state: str) -> None:
        self.state = state
        super().__init__(key, f"state {state!r} of {who(key)} is not loaded. Await migrate_and_load() or load() first.")


class NoEntryError(ActivationError):
    """An entry was to be updated that is not there."""

    def __init__(self, key: ActorKey, place: Place) -> None:
        super().__init__(
            key,
            f"{who(key)} has no entry {place[1]!r} in table {place[0]!r} to update. Put it first, or give update a "
            f"default=.",
            place,
        )


class ReadOnlyActionError(ActivationError):
    """A shared action tried to store something.

    Attributes:
        action: Name of the action.
    """

    def __init__(self, key: ActorKey, action: str) -> None:
        self.action = action
        super().__init__(
            key,
            f"{action!r} of {who(key)} is a shared action, which only reads. Make it exclusive (@action without "
            f"shared=True) to persist.",
        )


class ActivationClosedError(ActivationError):
    """An activation was used after it had ended."""

    def __init__(self, key: ActorKey) -> None:
        super().__init__(
            key,
            f"the activation of {who(key)} has ended, so nothing was read or stored through it. Activate the actor "
            f"again, and keep no State beyond its activation.",
        )


class ActorLockedError(ActivationError):
    """Another node holds the actor's lock and didn't give it up in time; what was asked for did not run and will not.

    Attributes:
        owner: Node id of the holder.
    """

    def __init__(self, key: ActorKey, owner: str, waited_seconds: float | None) -> None:
        self.owner = owner
        told = (
            f"so it was left alone. Try again when it is idle there, or drain the node ('lazymig nodes drain {owner}')"
            if waited_seconds is None
            else f"which did not give it up within {waited_seconds:g} s. Try again later, or wait longer "
            f"(wait_seconds=, Node(hand_over_seconds=…))"
        )
        super().__init__(key, f"{who(key)} is active on node {owner}, {told}.")


class RestoreError(ActivationError):
    """The actor can't be put back to what it was before a major version.

    Attributes:
        reason: What was found.
    """

    def __init__(self, key: ActorKey, reason: str, cure: str, place: Place | None = None) -> None:
        self.reason = reason
        super().__init__(key, f"{who(key)} was not restored: {reason}. It was left as it is; {cure}.", place)


class ActivationInProgressError(ActivationError):
    """Migrations of the actor take longer than callers wait, and go on; what was asked for did not run and will not.

    Attributes:
        waited_seconds: How long the caller waited.
    """

    def __init__(self, key: ActorKey, waited_seconds: float) -> None:
        self.waited_seconds = waited_seconds
        super().__init__(
            key,
            f"migrations of {who(key)}, or of its entries, still run on this node after {waited_seconds:g} s, and go "
            f"on. Call or activate it again later, or let callers wait longer (Node(activation_seconds=…)).",
        )


class LeaseLostError(ActivationError):
    """Another node took over, or this one was out of touch too long; what was to be stored was not stored."""

    def __init__(self, key: ActorKey) -> None:
        super().__init__(
            key,
            f"the lock of {who(key)} was lost, so nothing was stored. Call or activate the actor again: it starts "
            f"from what is stored.",
        )
