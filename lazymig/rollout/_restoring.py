"""Going back with one actor: what was kept of it from before a major version is put back.

Rules:

1. It is done under the actor's lock, by a registered node, as everything that stores: in one commit, or not at all.
2. Nobody is asked to let go of the actor: whoever restores it knows that it isn't in use.
3. What the kept release can't read is never left beside what is put back: entries stay as they are, so none may have
   what the kept stamp lacks.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazymig import _version
from lazymig._bases import NO_BASE
from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES, Range
from lazymig._lease import Lease
from lazymig._options import check_store
from lazymig._records import AppliedSet, Held
from lazymig._uncut import finish, uncut
from lazymig.errors import ActorLockedError, RestoreError, StoreError
from lazymig.fleet import Membership

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semver import Version

    from lazymig._entries import Count, Place
    from lazymig._fleet_records import NodeStatus
    from lazymig._info import MigrationInfo
    from lazymig._records import ActorKey, Previous, Stamp, StoredActor
    from lazymig.store import Store

LABEL = "lazymig restore"

LEASE_SECONDS = 10.0
"""How long a restore that was killed keeps the actor from others."""

_FORWARD = "the way forward is a new migration, or a backup of the store"


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore` has put back.

    Attributes:
        key: The actor.
        replaced: The migration-info that it had.
        info: The one that it has again; None if it had none.
        states: Names of the states that it has again, in order.
        removed: Names of those that were created since, and are gone.
        revision: The actor's now.
        readers: The registered nodes that take it as it is now, ordered by label, then id.
        migrators: Those that bring it up again when it is next activated there, likewise.
    """

    key: ActorKey
    replaced: MigrationInfo
    info: MigrationInfo | None
    states: tuple[str, ...]
    removed: tuple[str, ...]
    revision: int
    readers: tuple[NodeStatus, ...]
    migrators: tuple[NodeStatus, ...]

    @property
    def version(self) -> Version:
        """The version that it has again; 0.0.0 without migration-info."""
        return _version.ZERO if self.info is None else self.info.version


async def restore(store: Store, key: ActorKey) -> Restored:
    """Put an actor back to what it was before it was last taken to a higher major version.

    States and migration-info become exactly what they were, all that was stored since is lost, and nothing is kept any
    more. A last resort for one actor; the way forward is a new migration. What was kept is described at
    `Suite.actor_type` (``keep_previous=True``).

    Entries of tables are not kept, and stay as they are. Neither does a write version change: a release that supports
    more than what was put back brings the actor up again at its next activation there, and keeps it again. One that
    supports less than the write version doesn't take it, until that is pinned to what was put back.

    Args:
        store: An open store.
        key: The actor.

    Raises:
        ActorLockedError: The actor is active on a node.
        RestoreError: Nothing is kept, or there are entries that what was kept can't be read with.
        CorruptStateError: The actor's migration-info, its entries, or what is kept of it, can't be read.
        LeaseLostError: Somebody else removed this node from the store meanwhile.
        StoreError: The store's fault. Whether the actor was restored is unknown; if it was, another attempt is refused.
        DefinitionError: The store is none.
    """
    check_store(store)
    membership = Membership(store, LABEL, None, LEASE_SECONDS)
    try:
        await finish(membership.join())
        return await _restore(store, key, membership)
    finally:
        with suppress(StoreError):  # it is silent from now on, and its lock free
            await finish(membership.leave())


async def _restore(store: Store, key: ActorKey, membership: Membership) -> Restored:
    fence = membership.next_fence()
    try:
        claim = await uncut(store.claim(key, fence))
        if isinstance(claim, Held):
            raise ActorLockedError(key, claim.owner, None)
        previous = await store.previous(key)
        if previous is None:
            reason = "nothing is kept of it from before a major version (keep_previous=True), or not any more"
            raise RestoreError(key, reason, _FORWARD)
        replaced = await _check(store, claim.actor, previous)
        nodes = await store.nodes()
        lease = Lease(claim, store, membership)
        writes: dict[str, bytes | None] = {**dict.fromkeys(claim.actor.states), **previous.states}
        base = None if lease.base is None else NO_BASE
        while not await lease.commit(writes, previous.stamp, base=base, keeps_previous=False):
            pass  # the write version was changed, and is another one now
    finally:
        with suppress(StoreError):
            await uncut(store.release([(key, fence)]))
    readers, migrators = _takers(nodes, key.type, previous.stamp, lease.policy.version)
    return Restored(
        key,
        replaced.info,
        None if previous.stamp is None else previous.stamp.info,
        tuple(sorted(previous.states)),
        tuple(sorted(claim.actor.states.keys() - previous.states.keys())),
        lease.revision,
        readers,
        migrators,
    )


async def _check(store: Store, found: StoredActor, previous: Previous) -> Stamp:
    """Return the stamp that is to be replaced.

    Raises:
        RestoreError: What is kept doesn't belong to what is stored, or can't be put beside it.
    """
    key, kept = found.key, _applied(previous.stamp)
    if found.stamp is None or not _version.is_newer_major(found.stamp.applied.highest, kept.highest):
        at, was = _version.unpack(_applied(found.stamp).highest), _version.unpack(kept.highest)
        raise RestoreError(key, f"it is at {at}, and what is kept of it at {was}: no major version below", _FORWARD)
    if found.marks.converting:
        mark = _version.unpack(found.marks.converting)
        raise RestoreError(key, f"its entries are being converted to {mark}, some may be already", _FORWARD)
    if found.marks.oldest is not None:
        lacking = [of for of in await store.tables(key) if not kept.covers(of.applied)]
        if lacking:
            raise await _entries_above(store, key, lacking, _version.unpack(kept.highest))
    return found.stamp


async def _entries_above(store: Store, key: ActorKey, lacking: Sequence[Count], kept: Version) -> RestoreError:
    """Return the refusal of an actor with entries that were converted, or put, since."""
    total, table = sum(of.entries for of in lacking), lacking[0].table
    sets = {of.applied for of in lacking if of.table == table}
    place: Place | None = None
    rest: Range | None = Range(table)
    while place is None and rest is not None:
        page = await store.entries(key, rest, PAGE_ENTRIES, PAGE_BYTES)
        place = next(((table, name) for name, of in zip(page.keys, page.applied, strict=True) if of in sets), None)
        rest = None if page.is_last else rest.after(page.keys[-1])
    highest = _version.unpack(max(of.applied.highest for of in lacking))
    what = "1 entry has" if total == 1 else f"{total:,} entries have"
    reason = f"{what} what was kept at {kept} lacks, up to {highest}: they would be unreadable beside it"
    return RestoreError(key, reason, _FORWARD, place)


def _applied(stamp: Stamp | None) -> AppliedSet:
    """Return what counts as applied; without migration-info nothing, whatever a suite infers."""
    return AppliedSet() if stamp is None else stamp.applied


def _takers(
    nodes: Sequence[NodeStatus], actor_type: str, stamp: Stamp | None, written: int | None
) -> tuple[tuple[NodeStatus, ...], tuple[NodeStatus, ...]]:
    """Return the nodes that take an actor with this stamp as it is, and those that bring it up."""
    applied = _applied(stamp)
    readers: list[NodeStatus] = []
    migrators: list[NodeStatus] = []
    for node in nodes:
        offer = node.offer(actor_type)
        if offer is None or not offer.can_read(applied.highest) or offer.registered.floor > applied.highest:
            continue
        if written is None or offer.registered.highest >= written:
            (readers if applied.covers(offer.registered) else migrators).append(node)
    return tuple(readers), tuple(migrators)
