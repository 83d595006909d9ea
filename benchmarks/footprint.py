"""What active actors take in memory.

Counted is what Python allocated and still holds, as tracemalloc sees it (which leaves out what the allocator loses by
rounding up). The store is a SQLite file: what it keeps isn't Python's and doesn't count, while the encoded states that
a node keeps do; in the memory store they would be the store's own bytes.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.on_sqlite import activate_all, fill, giving_up, place, serving
from benchmarks.things import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.measure import Block, Size

STATE_BYTES = 300


@asynccontextmanager
async def active(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """An active actor with a state of 300 bytes, over its decoded value in a list."""
    data = orjson.dumps(value(STATE_BYTES))
    async with place("normal") as at, serving(at.store, 0) as node:
        ids = await fill(at.store, size.calls, STATE_BYTES)

        async def decode() -> list[Any]:
            return [orjson.loads(data) for _ in ids]

        yield giving_up(node, held(lambda: activate_all(node, ids), size.calls)), held(decode, size.calls)


def held(make: Callable[[], Awaitable[object]], number: int) -> Block:
    """Return a block that makes so many; it returns how many bytes are held for one of them afterwards."""

    async def block() -> float:
        tracemalloc.start()
        try:
            made = await make()
            await asyncio.sleep(0)  # what the event loop has to let go of
            gc.collect()
            current, _ = tracemalloc.get_traced_memory()
            del made
        finally:
            tracemalloc.stop()
        return current / number

    return block
