"""Actors whose entries are converted eagerly, and what is stored of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lazymig import Activation, Node, Suite
from lazymig._entries import Range
from lazymig._records import ActorKey
from lazymig._version import pack, parse
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig.store import Store


KEY = ActorKey("Log", "a")
CHUNK = 7
"""How many entries are converted in a transaction here."""


def make_suite(convert: Callable[[Any, Any], Any], **options: Any) -> Suite:
    """Return a suite whose release 2.0.0 converts eagerly."""
    suite = Suite("logs")
    log = suite.actor_type("Log", context_factory=lambda activation: activation)
    log.migration("1.0.0")(lambda state, context: None)

    @log.migration("2.0.0")
    def two(state: Any, context: Any) -> None:
        state["migrated"] = state.get("migrated", 0) + 1

    two.entries("log", eager=True, **options)(convert)
    return suite


def count(entry: Any, context: Any) -> None:
    """Count how often an entry was converted."""
    entry["times"] = entry.get("times", 0) + 1


@asynccontextmanager
async def held(store: Store, suite: Suite, hooks: Any = ()) -> AsyncIterator[Activation]:
    async with (
        Node(store, [suite], hooks=hooks, hand_over_seconds=5.0) as node,
        node.activate("Log", "a") as activation,
    ):
        yield activation


async def bring_up(store: Store, suite: Suite, hooks: Any = ()) -> Any:
    async with held(store, suite, hooks) as activation:
        return await activation.state().migrate_and_load()


async def fill(store: Store, number: int, value: Callable[[int], Any] = lambda number: {"n": number}) -> None:
    """Store an actor with entries by release 1.0.0."""
    async with held(store, release(make_suite(count), "1.0.0")) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.table("other").put("x", {"n": 0})
        await activation.persist()
        await activation.table("log").put_many((f"{n:06}", value(n)) for n in range(number))


async def entries(store: Store, table: str = "log") -> list[tuple[str, bytes, str]]:
    page = await store.entries(KEY, Range(table), 100_000, 100_000_000)
    stamps = (str(applied.versions[-1]) for applied in page.applied)
    return [*zip(page.keys, page.data, stamps, strict=True)]


async def found(store: Store) -> tuple[str, str | None, str | None]:
    """Return version, mark and lower bound of the actor."""
    record = await store.read(KEY)
    assert record is not None
    assert record.stamp is not None
    converting, oldest = (
        None if not packed else next(v for v in ("0.0.0", "1.0.0", "2.0.0", "3.0.0") if pack(parse(v)) == packed)
        for packed in record.marks
    )
    return str(record.stamp.info.version), converting, oldest
