"""Stores to be copied: actors of every kind, written by commits, and what is compared of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lazymig._bases import NO_BASE, BaseWrite, Kept
from lazymig._entries import Entry
from lazymig._quarantine import Failure
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Marks, NodeRecord, Stamp
from lazymig._version import pack, parse

if TYPE_CHECKING:
    from lazymig.copies import Whole
    from lazymig.store import Store

TYPE = "Vehicle"
FILLER = "filler"

ONE, TWO = (
    AppliedSet([pack(parse("1.0.0"))]),
    AppliedSet([pack(parse("2.0.0")), pack(parse("2.1.0"))], floor=pack(parse("1.0.0"))),
)
DAY = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)
FAILURE = Failure(TWO.highest, "two", "ValueError: no", 3, DAY, DAY + timedelta(seconds=8), "web-1", 7)
NAMES = ("car-{}", "é{}", "\uffff{}", "💥{}", "CAR {}", "'{}'")


async def fill(store: Store, number: int, *, entries: int = 5) -> None:
    """Store so many actors of every kind.

    Imported, migrated, with entries, with a base, cleared, in the midst of a conversion, with what is kept from before
    a major version, with the record of a migration that failed.
    """
    await store.register(NodeRecord(FILLER, FILLER, None, 1000.0))
    for at in range(number):
        key = ActorKey(TYPE, NAMES[at % 6].format(at))
        if at % 7 == 0:
            await store.insert(TYPE, "main", [(key.id, b'{"imported": %d}' % at)])
            continue
        stamp = Stamp(ONE, TWO, DAY + timedelta(seconds=at)) if at % 2 else Stamp(TWO, TWO)
        writes: dict[str, bytes | None] = {"main": b'{"n": %d}' % at, "é": b"\xff"}
        put = {(("log", "tags")[n % 2], f"{n:05}"): Entry(b"%d" % n, (ONE, TWO)[n % 2]) for n in range(entries)}
        states = {"main": Kept(b"new"), "gone": Kept(None)}
        await write(
            store,
            key,
            Commit(
                key,
                Fence(FILLER, 1),
                0,
                stamp,
                writes,
                entries=put if at % 3 else {},
                marks=Marks(stamp.applied.highest if at % 11 == 0 else 0, 0) if at % 3 else None,
                base=BaseWrite(TWO, at, is_current=bool(at % 4), states=states) if at % 5 == 0 else None,
            ),
        )
        if at % 13 == 0:
            gone: dict[tuple[str, str], Entry | None] = dict.fromkeys(put)
            cleared = Commit(key, Fence(FILLER, 1), 1, stamp, {"main": None, "é": None}, entries=gone, marks=Marks())
            await write(store, key, cleared._replace(base=NO_BASE))
        elif at % 5 == 3:
            later = Commit(key, Fence(FILLER, 1), 1, Stamp(TWO, TWO, DAY), {"main": b'"kept"'}, keeps_previous=True)
            await write(store, key, later)
        elif at % 5 == 4:
            await store.claim(key, Fence(FILLER, 1))
            await store.failures.note(key, Fence(FILLER, 1), FAILURE)
            await store.release([(key, Fence(FILLER, 1))])


async def fill_large(store: Store, key: ActorKey, entries: int = 50) -> None:
    """Store an actor with so many entries, after `fill`."""
    put = {("log", f"{n:06}"): Entry(b"%d" % n, ONE) for n in range(entries)}
    stamp = Stamp(ONE, ONE)
    await write(store, key, Commit(key, Fence(FILLER, 1), 0, stamp, {"main": b"1"}, entries=put, marks=Marks(0, 1)))


async def write(store: Store, key: ActorKey, commit: Commit | None = None) -> None:
    """Store a commit, by default one that changes a state."""
    claim = await store.claim(key, Fence(FILLER, 1))
    assert isinstance(claim, Claim)
    if commit is None:
        commit = Commit(key, claim.fence, claim.actor.revision, Stamp(TWO, TWO), {"main": b'"written"'})
    commit = commit._replace(fence=claim.fence, revision=claim.actor.revision, release=True)
    assert await store.commit(commit) == claim.actor.revision + 1


async def all_of(store: Store, actor_type: str = TYPE) -> dict[str, Whole]:
    """Return what a store shows of a type."""
    found: dict[str, Whole] = {}
    while page := await store.copies.outlines(actor_type, after=max(found, default="")):
        for whole in await store.copies.read(actor_type, [outline.id for outline in page]):
            found[whole.actor.key.id] = whole._replace(actor=whole.actor._replace(owner=None, number=0))
    return found
