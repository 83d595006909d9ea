"""Actors whose entries are converted when they are read, and what is stored of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lazymig import Activation, Node, Suite
from lazymig._entries import Range
from lazymig._records import ActorKey
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store


KEY = ActorKey("Log", "a")


def make_suite() -> Suite:
    """Return three releases: 1.1.0 adds a field to an entry, 2.0.0 splits its message."""
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)

    @log.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @log.migration("1.1.0")
    def number(state: Any, context: Any) -> None:
        pass

    @number.entries("log")
    def add_length(entry: Any, context: Any) -> None:
        entry["length"] = len(entry["message"])

    @log.migration("2.0.0")
    def split(state: Any, context: Any) -> None:
        pass

    @split.entries("log")
    async def split_message(entry: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        level, _, text = entry.pop("message").partition(": ")
        return {**entry, "level": level, "text": text}

    return suite


@asynccontextmanager
async def held(store: Store, suite: Suite) -> AsyncIterator[Activation]:
    async with Node(store, [suite]) as node, node.activate("Log", "a") as activation:
        yield activation


async def stamps(store: Store, table: str = "log") -> dict[str, str]:
    """Return the version of each stored entry."""
    page = await store.entries(KEY, Range(table), 10_000, 10_000_000)
    return {key: str(applied.versions[-1]) for key, applied in zip(page.keys, page.applied, strict=True)}


async def fill(store: Store, version: str, **entries: Any) -> None:
    """Store entries by the release of a version."""
    async with held(store, release(make_suite(), version)) as activation:
        await activation.state().migrate_and_load(default={})
        for key, value in entries.items():
            await activation.table("log").put(key, value)
        await activation.persist()


async def one(log: Any) -> Any:
    return [pair async for pair in log.scan()]
