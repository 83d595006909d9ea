"""Cases beside other libraries, of the extra ``bench``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.in_memory import core
from benchmarks.measure import computed
from benchmarks.things import FUNCTIONS, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Block, Size

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")


@asynccontextmanager
async def pyrmute(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """Decode, decide, run three migrations, stamp and encode, over the same with pyrmute, which stamps nothing."""
    manager = import_module("pyrmute").ModelManager()
    pydantic = import_module("pydantic")
    loose = pydantic.ConfigDict(extra="allow")
    for version in VERSIONS:
        manager.model("Car", version)(pydantic.create_model(f"Car{version}", __config__=loose))
    for before, after, function in zip(VERSIONS, VERSIONS[1:], FUNCTIONS, strict=False):
        manager.migration("Car", before, after)(_returning(function))
    data = orjson.dumps(value())

    def theirs() -> bytes:
        return orjson.dumps(manager.migrate_data(orjson.loads(data), "Car", VERSIONS[0], VERSIONS[-1]))

    async with core(size, is_pending=True) as (ours, _):
        yield ours, computed(theirs, size.calls)


def _returning(function: Any) -> Any:
    def migrate(state: Any) -> Any:
        function(state)
        return state

    return migrate
