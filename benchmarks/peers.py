"""Cases beside other libraries, of the extra ``bench``; each library is imported where it is measured."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.in_memory import upgrade
from benchmarks.measure import computed, repeated
from benchmarks.things import FUNCTIONS, suite, value
from lazymig._plan import Found

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from benchmarks.measure import Block, Size

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")


@asynccontextmanager
async def pyrmute(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """Decide, run three migrations and stamp, over what pyrmute does instead: parse versions, find the way and run.

    Both go from dict to dict: nothing is decoded or encoded, and each call has its own shallow copy of the same state,
    which the functions change in place. pyrmute is asked for the raw data and validates no model.
    """
    manager = import_module("pyrmute").ModelManager()
    create_model = import_module("pydantic").create_model
    for version in VERSIONS:
        manager.model("Car", version)(create_model("Car"))
    for before, after, function in zip(VERSIONS, VERSIONS[1:], FUNCTIONS, strict=False):
        manager.migration("Car", before, after)(_returning(function))
    chain = suite(len(FUNCTIONS)).actor_types["Car"].chain
    found = Found(None, has_states=True, has_main=True)
    state = value()

    async def ours() -> Any:
        migrated, _ = await upgrade(chain, found, state.copy())
        return migrated

    def theirs() -> Any:
        return manager.migrate_data(state.copy(), "Car", VERSIONS[0], VERSIONS[-1])

    assert await ours() == theirs() != state
    yield repeated(ours, size.calls), computed(theirs, size.calls)


def _returning(function: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def migrate(state: dict[str, Any]) -> dict[str, Any]:
        function(state)
        return state

    return migrate


def eventsourcing(size: Size, *, case: str) -> AbstractAsyncContextManager[tuple[Block, Block]]:
    """Open a case of `benchmarks.event_sourced`, which can't be imported without the library."""
    opened: AbstractAsyncContextManager[tuple[Block, Block]]
    opened = getattr(import_module("benchmarks.event_sourced"), case)(size)
    return opened
