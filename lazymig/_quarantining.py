"""Recording what a migration of an actor failed with, under the actor's lock."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lazymig import _version
from lazymig._quarantine import failed
from lazymig._uncut import is_cancelled
from lazymig.errors import LeaseLostError, StoreError

if TYPE_CHECKING:
    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._telling import Telling
    from lazymig.errors import MigrationFailedError

_log = logging.getLogger("lazymig.actor")


async def record(holding: Holding, lease: Lease, telling: Telling, error: MigrationFailedError) -> None:
    """Record that a migration failed, unless it was cut off; that it can't be recorded is logged.

    Args:
        holding: What the activation has of the actor.
        lease: The actor's.
        telling: Told of the record.
        error: What it failed with.
    """
    if is_cancelled():
        return
    version = _version.pack(error.version)
    reason = error.reason
    if error.entry is not None:
        reason = f"entry {error.entry!r} of table {error.table!r}: {reason}"
    checksum = holding.type.chain.checksum_of(version, holding.found().applied)
    failure = failed(
        lease.failure, version, error.name, reason, at=lease.time, node=lease.node_label, checksum=checksum
    )
    try:
        await lease.note_failure(failure)
    except (StoreError, LeaseLostError) as problem:  # what failed is told all the same
        _log.warning("that a migration of %s failed could not be recorded: %s", holding.key, problem)
    else:
        telling.quarantined(failure, error)
