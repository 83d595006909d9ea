"""A process whose disk fails: counts cars up through the library, under libfiu's preload library.

``fiu-run -x -f '' python -m tests.failing_io <file> <point> <errno> <odds> <seed> <commits>`` prints what callers were
told, and what failed, as JSON. The points are libfiu's names of the calls that SQLite makes; a seed decides which of
them fail. Without odds, seed and commits all of them fail from the second commit on, and then the process ends at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import sqlite3
import sys
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import Node, open_store
from lazymig.errors import StoreError, StoreUnavailableError
from tests.power import CHECKPOINT_PAGES, IDS, car, count_up, load, suite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lazymig.store import Store

ATTEMPTS = 100
"""After so many a worker gives up; far more than the odds ask for."""


class FailingCall:
    """A system call that fails now and then while `active`.

    Attributes:
        failed: How often it failed.
    """

    def __init__(self, point: str, errno: int, odds: float, seed: int) -> None:
        self.failed = 0
        self._libfiu = ctypes.CDLL(None)  # preloaded
        self._point = point.encode()
        self._errno = errno
        self._odds = odds
        self._rng = random.Random(seed)
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(self._asked)

    def _asked(self, *_: object) -> int:
        fails = self._rng.random() < self._odds
        self.failed += fails
        return fails

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let it fail from now on."""
        errno = ctypes.c_void_p(self._errno)
        assert self._libfiu.fiu_enable_external(self._point, 1, errno, 0, self._callback) == 0
        try:
            yield
        finally:
            assert self._libfiu.fiu_disable(self._point) == 0


class Caller:
    """Tries until it works, as a user would; notes what failed on the way."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()

    async def until_done(self, step: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return await step()
            except StoreError as error:
                self.errors[describe(error)] += 1
        raise AssertionError(f"failed {ATTEMPTS} times: {self.errors}")


def describe(error: StoreError) -> str:
    """Check that an error has class, cure and cause; return SQLite's name of the cause."""
    assert type(error) is StoreUnavailableError, repr(error)
    assert "try again" in str(error)
    assert isinstance(error.__cause__, sqlite3.Error)
    return error.__cause__.sqlite_errorname


def tell(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def limit_log(store: Any) -> None:
    """Let checkpoints come often."""
    await store._connection.driver.execute_fetchall(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


async def count(node: Node, actor_id: str, number: int) -> int:
    """Count up once, by a call or in a block that gives the lock up with its commit."""
    padding = (5, 500, 9_000)[number % 3]
    if number % 2:
        called: int = await node.actor(car, actor_id).count(padding)
        return called
    async with node.activate(car, actor_id) as activation:
        await load(activation)
        return await count_up(activation, padding, release=True)


async def serve(store: Store, failing: FailingCall, commits: int, caller: Caller) -> dict[str, int]:
    """Count up while the disk fails; afterwards the same node goes on. Return what each actor said last."""
    told = dict.fromkeys(IDS, 0)
    async with AsyncExitStack() as stack:
        with failing.active():
            await caller.until_done(lambda: store.insert("Car", "main", [(one, LEGACY) for one in IDS]))
            node = await caller.until_done(lambda: stack.enter_async_context(
                Node(store, [suite], lease_seconds=1000.0, hand_over_seconds=0)
            ))  # fmt: skip
            for number in range(commits):
                actor_id = IDS[number % len(IDS)]
                n = await caller.until_done(partial(count, node, actor_id, number))
                assert n == max(told[actor_id], MIGRATED) + 1, f"{actor_id} counted from {told[actor_id]} to {n}"
                told[actor_id] = n
        for actor_id in IDS:
            told[actor_id] += 1
            assert await count(node, actor_id, 1) == told[actor_id]
    return told


LEGACY = b'{"mark":"0.0.0","n":0}'

MIGRATED = len(car.migrations)
"""What an actor has counted to when it has been migrated."""


async def count_up_for_long(url: str, failing: FailingCall, commits: int) -> None:
    caller = Caller()
    async with AsyncExitStack() as stack:
        with failing.active():
            store = await caller.until_done(lambda: stack.enter_async_context(open_store(url)))
        await limit_log(store)
        told = await serve(store, failing, commits, caller)
    tell(json.dumps({"told": told, "errors": caller.errors, "failed": failing.failed}))


async def end_after_a_failure(url: str, failing: FailingCall) -> None:
    """Count to what is printed, let the next commit fail, and end without another word."""
    async with open_store(url) as store, Node(store, [suite], lease_seconds=1000.0) as node:
        tell(await node.actor(car, "a").count(5))
        with failing.active():
            try:
                await node.actor(car, "a").count(5)
            except StoreError as error:
                tell(describe(error))
                tell(error)
                os._exit(0)


def main(path: str, point: str, errno: str, *rest: str) -> None:
    url = f"sqlite:///{path}"
    if rest:
        odds, seed, commits = rest
        failing = FailingCall(point, int(errno), float(odds), int(seed))
        asyncio.run(count_up_for_long(url, failing, int(commits)))
    else:
        asyncio.run(end_after_a_failure(url, FailingCall(point, int(errno), 1.0, 0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
