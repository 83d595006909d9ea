"""Quarantine: what is recorded of a migration that failed, and when it is tried again. Pure.

| the record's migration           | held up until it is due                                                        |
|----------------------------------|--------------------------------------------------------------------------------|
| is not registered                | no: this software doesn't run it                                               |
| has other code, or what has to   | no: what was changed is tried at once                                          |
| run before it has                |                                                                                |
| is the same, and something runs  | yes                                                                            |
| is the same, and nothing runs    | no: there is nothing that could fail                                           |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from lazymig import _version

if TYPE_CHECKING:
    from datetime import datetime

    from semver import Version

    from lazymig._migrations import Chain
    from lazymig._records import ActorKey, AppliedSet

FIRST_SECONDS = 1.0
"""How long after its first failure a migration is tried again; doubled with each further one."""

LONGEST_SECONDS = 300.0
"""How long at most."""

MAX_TEXT = 2_000
"""How many characters are kept of a name, and of an error."""


class Failure(NamedTuple):
    """The record of a migration that failed, as stores keep it beside the actor.

    Attributes:
        version: Of the migration, packed.
        name: Of its function.
        error: Type and message of what it raised.
        attempts: How often it failed in a row, its code being the same.
        failed_at: When it last did, by the store's wall clock, aware UTC.
        retry_at: Until when activations are held up.
        node: Label of the node on which it did.
        checksum: Of the code that ran, see `Chain.checksum_of`.
    """

    version: int
    name: str
    error: str
    attempts: int
    failed_at: datetime
    retry_at: datetime
    node: str
    checksum: int


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The record of an actor whose migration failed.

    Attributes:
        key: The actor.
        version: Of the migration.
        name: Of its function.
        error: Type and message of what it raised, up to 2,000 characters.
        attempts: How often it failed in a row, its code being the same.
        failed_at: When it last did, by the store's wall clock, aware UTC.
        retry_at: Until when activations raise `QuarantinedError`, unless the code is another one.
        node: Label of the node on which it failed.
    """

    key: ActorKey
    version: Version
    name: str
    error: str
    attempts: int
    failed_at: datetime
    retry_at: datetime
    node: str

    @classmethod
    def of(cls, key: ActorKey, failure: Failure) -> Quarantine:
        """Return what users see of a record."""
        return cls(key, _version.unpack(failure.version), *failure[1:-1])


def back_off(attempts: int) -> timedelta:
    """Return how long after so many failures in a row a migration is tried again."""
    doublings = min(attempts - 1, 20)  # far beyond the longest; more would overflow
    return timedelta(seconds=min(FIRST_SECONDS * 2**doublings, LONGEST_SECONDS))


def failed(  # noqa: PLR0913  (what is recorded)
    before: Failure | None, version: int, name: str, error: str, *, at: datetime, node: str, checksum: int
) -> Failure:
    """Return the record of a failure after the one before it, None if there is none."""
    is_again = before is not None and (before.version, before.checksum) == (version, checksum)
    attempts = before.attempts + 1 if before is not None and is_again else 1
    return Failure(version, _text(name), _text(error), attempts, at, at + back_off(attempts), node, checksum)


def holds_up(failure: Failure, chain: Chain, applied: AppliedSet, *, runs: bool, now: datetime) -> bool:
    """Tell whether an activation has to wait.

    Args:
        failure: The actor's record.
        chain: Of its type.
        applied: What counts as applied to the actor.
        runs: Whether bringing it up would run something.
        now: By the store's wall clock.
    """
    return runs and now < failure.retry_at and chain.checksum_of(failure.version, applied) == failure.checksum


def _text(text: str) -> str:
    """Return what every store takes."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()
