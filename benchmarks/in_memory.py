"""Cases without a disk: the pure core, the store in memory, and a call to an active actor."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.measure import computed, repeated
from benchmarks.things import FUNCTIONS, Car, suite, value
from lazymig import Node, _plan, _shapes, _upgrade, codec, open_store
from lazymig._records import Stamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.measure import Block, Size
    from lazymig._migrations import Chain, Migration

NOW = datetime.now(UTC)


@asynccontextmanager
async def core(size: Size, *, is_pending: bool) -> AsyncIterator[tuple[Block, Block]]:
    """Decide, run and stamp, over decoding; with pending migrations, over the functions and encoding, too."""
    chain = suite(3).actor_types["Car"].chain
    data = orjson.dumps(value())
    stamp = None if is_pending else Stamp(chain.release, chain.release)
    found = _plan.Found(stamp, True, True, 0)  # noqa: FBT003  (a record)

    def plain() -> bytes | None:
        state = orjson.loads(data)
        if not is_pending:
            return None
        for function in FUNCTIONS:
            function(state)
        return orjson.dumps(state)

    async def ours() -> bytes | None:
        state, steps = await upgrade(chain, found, codec.decode(data))
        return _upgrade.encode_result(state, "it", steps, None) if steps else None

    yield repeated(ours, size.calls), computed(plain, size.calls)


async def upgrade(chain: Chain, found: _plan.Found, state: Any) -> tuple[Any, Sequence[Migration]]:
    """Decide, run and stamp, as an activation does, to which the claim has told the time; return state and what ran."""
    plan = _plan.decide(chain, found, None)
    if not isinstance(plan, _plan.Plan):
        raise plan
    migrated_at = None
    if plan.steps:
        state = await _upgrade.run(plan.steps, state, None, None)
        migrated_at = NOW
    _shapes.shape(chain, found, plan, _shapes.Storing(creates_main=False, migrated_at=migrated_at), None)
    return state, plan.steps


@asynccontextmanager
async def block(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A whole ``node.activate`` … exit with a load, beside decoding what it loads."""
    data = orjson.dumps(value())
    async with open_store("memory:") as store, Node(store, [suite(0)], lease_seconds=1_000) as node:
        await store.insert("Car", "state", [("a", data)])

        async def ours() -> Any:
            async with node.activate("Car", "a") as activation:
                return await activation.state().migrate_and_load()

        yield repeated(ours, size.calls), computed(partial(orjson.loads, data), size.calls)


@asynccontextmanager
async def proxy(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A call to an active actor through its proxy, over awaiting the method itself."""
    async with open_store("memory:") as store, Node(store, [suite(0)], idle_seconds=1_000, lease_seconds=1_000) as node:
        await store.insert("Car", "state", [("a", orjson.dumps(value()))])
        car: Car = node.actor("Car", "a")
        await car.echo(0)
        numbers = count()
        direct = node._residents._mailboxes[next(iter(node._residents._mailboxes))].actor
        assert direct is not None

        async def ours() -> int:
            return await car.echo(next(numbers))

        async def plain() -> int:
            found: int = await direct.echo(next(numbers))
            return found

        yield repeated(ours, size.calls), repeated(plain, size.calls)


@asynccontextmanager
async def many_migrations(size: Size) -> AsyncIterator[tuple[Block, Block]]:
    """A block on an actor of a type with 1,000 migrations, none pending, over one of a type with one."""
    data = orjson.dumps(value())
    async with open_store("memory:") as store, open_store("memory:") as other:
        many, one = suite(1_000), suite(1)
        async with Node(store, [many], lease_seconds=1_000) as node, Node(other, [one], lease_seconds=1_000) as beside:
            sides = []
            for where, serving in ((store, node), (other, beside)):
                await where.insert("Car", "state", [("a", data)])
                sides.append(repeated(partial(_load, serving), size.calls))
            await asyncio.gather(_load(node), _load(beside))
            yield sides[0], sides[1]


async def _load(node: Node) -> Any:
    async with node.activate("Car", "a") as activation:
        return await activation.state().migrate_and_load()
