"""Nodes and actors of a type put into a store by hand, without the software that would do so."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from lazymig._bases import BaseWrite, Kept
from lazymig._entries import Entry
from lazymig._fleet_records import Offer
from lazymig._records import ActorKey, Claim, Commit, Fence, Marks, NodeRecord, Stamp
from tests import postgres
from tests.worlds import TYPE, applied, packed

if TYPE_CHECKING:
    from lazymig.store import Store
    from tests.worlds import An

SILENT = 0.0
"""Lease of a node that is silent from the start."""


async def join(store: Store, name: str, registered: str, *, lease: float = 60.0, **offered: Any) -> str:
    """Register a node of the type; its id is its label in capitals."""
    offer = Offer(TYPE, applied(registered), **offered)
    await store.register(NodeRecord(name.upper(), name, "build", lease, (offer,)))
    return name.upper()


async def put(store: Store, actor_id: str, actor: An, epoch: int = 0) -> None:
    """Store an actor."""
    key = ActorKey(TYPE, actor_id)
    if actor.set is None:
        await store.insert(TYPE, "vehicle", [(actor_id, b"{}")])
        return
    await store.register(NodeRecord("WRITER", "writer", None, 60.0))
    fence = Fence("WRITER", 1)
    claim = await store.claim(key, fence)
    assert isinstance(claim, Claim)
    base = None
    if actor.base is not None:
        base = BaseWrite(applied(actor.base), 1, is_current=True, states={"vehicle": Kept(b"{}")})
    entries = {("log", str(n)): Entry(b"1", applied(entry)) for n, entry in enumerate(actor.entries)}
    oldest = min((entry.applied.highest for entry in entries.values()), default=None)
    writer = actor.set if actor.writer is None else applied(actor.writer)
    marks = Marks(packed(actor.converting), oldest)
    commit = Commit(
        key, fence, claim.actor.revision, Stamp(actor.set, writer), {"vehicle": b"{}"},
        release=True, entries=entries, marks=marks, epoch=epoch, base=base,
    )  # fmt: skip
    assert isinstance(await store.commit(commit), int)
    await store.unregister("WRITER")


async def execute(url: str, statement: str) -> None:
    """Change a store's tables behind lazymig's back; ``{0}`` stands for what precedes their names."""
    await asyncio.to_thread(_execute, url, statement)


def _execute(url: str, statement: str) -> None:
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute(statement.format(""))
    else:
        with postgres.connect() as connection:
            connection.execute(statement.format(f"{postgres.schema_of(url)}."))
            connection.commit()
