"""An opening of the thread's driver that is cut off while SQLite still connects."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import anyio
import pytest

from lazymig._sqlite_drivers import Thread

SECONDS = 10
"""How long a broken test hangs."""


class SlowOpening:
    """Connects when it may."""

    def __init__(self) -> None:
        self.driver = Thread(self._connect, iter_chunk_size=64)
        self._begun = threading.Event()
        self._may_end = threading.Event()

    def _connect(self) -> sqlite3.Connection:
        self._begun.set()
        assert self._may_end.wait(SECONDS)
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        return self._connection

    async def wait(self) -> None:
        """Wait until the thread connects."""
        assert await asyncio.to_thread(self._begun.wait, SECONDS)

    def end(self) -> None:
        """Let it connect."""
        self._may_end.set()

    def assert_undone(self) -> None:
        """Check that connection and thread are gone."""
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            self._connection.execute("SELECT 1")
        assert not self.driver._thread.is_alive()


async def test_opening_cancelled_again_and_again_closes_what_is_connected_later() -> None:
    slow = SlowOpening()
    opening = asyncio.create_task(slow.driver.open())
    await slow.wait()
    for _ in range(3):
        opening.cancel()
        await asyncio.sleep(0)
        assert not opening.done()
    slow.end()
    with pytest.raises(asyncio.CancelledError):
        await opening
    slow.assert_undone()


async def test_opening_in_a_cancelled_scope_closes_what_is_connected_later() -> None:
    slow = SlowOpening()
    with anyio.CancelScope() as scope:
        ending = asyncio.create_task(cancel_then_end(scope, slow))
        await slow.driver.open()
    assert scope.cancelled_caught
    slow.assert_undone()
    await ending


async def cancel_then_end(scope: anyio.CancelScope, slow: SlowOpening) -> None:
    """Let it connect some turns of the loop after the cancellation: a cancelled scope cancels in each of them."""
    await slow.wait()
    scope.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    slow.end()
