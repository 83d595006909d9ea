"""A copy of one stored actor, in a store of its own in memory: whatever is stored there, the real one isn't touched.

Rules:

1. A copy is what was stored between two commits: the actor is read again once its entries were read, and copied anew
   if it was stored meanwhile.
2. It holds so many entries only, and says if there are more.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lazymig._bases import BaseWrite
from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES, Entry, Range
from lazymig._lease import Lease
from lazymig._records import Claim, Commit
from lazymig._rulings import Ruled
from lazymig.fleet import Machine, Membership, on_machine
from lazymig.memory import MemoryStore
from lazymig.rollout._preflight_report import MAX_BYTES, MAX_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._bases import WritePolicy
    from lazymig._entries import Place
    from lazymig._records import ActorKey, StoredActor
    from lazymig._rulings import Ruling
    from lazymig.store import Store

_TRIES = 3
"""How often an actor is copied that is stored again meanwhile."""


class Copied(NamedTuple):
    """A copy.

    Attributes:
        actor: The actor as stored.
        entries: Those of its entries that were copied.
        is_whole: Whether those are all.
        kept: Bytes of what is kept from before its last major version.
        lease: The copy's lock, in the store in memory.
    """

    actor: StoredActor
    entries: Mapping[Place, Entry]
    is_whole: bool
    kept: int
    lease: Lease

    @property
    def size(self) -> int:
        """Bytes of all that is stored of it, or was copied."""
        kept = {} if self.actor.base is None else self.actor.base.states
        return self.kept + sum(
            [
                *map(len, self.actor.states.values()),
                *(len(entry.data) for entry in self.entries.values()),
                *(len(of.data) for of in kept.values() if of.data is not None),
            ]
        )


async def copied(
    store: Store, actor: StoredActor, policy: WritePolicy, *, keeps_previous: bool = False
) -> Copied | None:
    """Return a copy of an actor; None if it is gone, or stored too often to be copied.

    It has no record of a migration that failed: it may be tried at once.

    Args:
        store: Where it is.
        actor: As it was read.
        policy: What its type is written at.
        keeps_previous: Whether software keeps what it was before a major version.

    Raises:
        CorruptStateError: It can't be read.
        StoreError: The store's fault.
    """
    kept = await previous_size(store, actor.key) if keeps_previous else 0
    for _ in range(_TRIES):
        if actor.marks.oldest is None:
            return await _put(actor, {}, policy, kept, is_whole=True)
        entries, is_whole = await read_entries(store, actor.key)
        again = await store.read(actor.key)
        if again is None:
            return None
        if again.revision == actor.revision:
            return await _put(actor, entries, policy, kept, is_whole=is_whole)
        actor = again
    return None


async def read_entries(store: Store, key: ActorKey) -> tuple[dict[Place, Entry], bool]:
    """Return an actor's entries, and whether those are all.

    Raises:
        CorruptStateError: One can't be read.
    """
    entries: dict[Place, Entry] = {}
    left = MAX_BYTES
    for table in dict.fromkeys(count.table for count in await store.tables(key)):
        rest: Range | None = Range(table)
        while rest is not None:
            limit = min(PAGE_ENTRIES, MAX_ENTRIES - len(entries))
            if limit <= 0 or left <= 0:
                return entries, False
            page = await store.entries(key, rest, limit, PAGE_BYTES)
            for name, data, applied in zip(page.keys, page.data, page.applied, strict=True):
                entries[table, name] = Entry(data, applied)
                left -= len(data)
            rest = None if page.is_last else rest.after(page.keys[-1])
    return entries, True


async def previous_size(store: Store, key: ActorKey) -> int:
    """Return the bytes of what is kept of an actor from before its last major version."""
    previous = await store.previous(key)
    return 0 if previous is None else sum(map(len, previous.states.values()))


async def _put(
    actor: StoredActor, entries: dict[Place, Entry], policy: WritePolicy, kept: int, *, is_whole: bool
) -> Copied:
    apart = MemoryStore()
    with on_machine(Machine(heart=_Still)):
        membership = Membership(apart, "preflight", None, float("inf"))
    await membership.join()
    epoch = 0
    if policy.epoch:
        await apart.rule(partial(_writing_at, actor.key.type, policy.version), is_change=True)
        epoch = (await apart.policy(actor.key.type)).epoch
    claim = await apart.claim(actor.key, membership.next_fence())
    base = None
    if actor.base is not None:
        is_current = actor.base.revision == actor.revision
        base = BaseWrite(actor.base.applied, actor.base.digest, is_current=is_current, states=actor.base.states)
    commit = Commit(
        actor.key, _got(claim).fence, 0, actor.stamp, actor.states, entries=entries, marks=actor.marks, epoch=epoch,
        base=base,
    )  # fmt: skip
    await apart.commit(commit)
    lease = Lease(_got(await apart.claim(actor.key, membership.next_fence())), apart, membership)
    return Copied(actor, entries, is_whole, kept, lease)


def _writing_at(actor_type: str, version: int | None) -> Ruling:
    yield from ()
    return Ruled(None, {actor_type: version})


def _got(claim: object) -> Claim:
    if not isinstance(claim, Claim):
        raise AssertionError("nobody else uses the store of a copy")  # noqa: TRY004  (no caller's type)
    return claim


class _Still:
    """Sends no heartbeats: nobody takes from this node."""

    def __init__(self, membership: Membership, store: Store) -> None:
        """See `Machine.heart`."""

    def start(self) -> None:
        """See `Heart.start`."""

    async def stop(self) -> None:
        """See `Heart.stop`."""
