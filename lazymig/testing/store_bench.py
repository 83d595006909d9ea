"""What the contracts of stores are tested with: an open store, its clock, and two nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lazymig._records import NodeRecord
from lazymig.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from lazymig.store import Store

LEASE_SECONDS = 10.0


class StoreBench:
    """What the suites of tests have in common; `open` is for the store to give."""

    def open(self, folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[Store]:  # noqa: ARG002  (to override)
        """Return a new, empty store; liveness is measured by ``clock``."""
        raise AssertionError("give the test class a method open(folder, clock) that returns the store to test")

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock that heartbeats are measured by."""
        return ManualClock()

    @pytest.fixture
    async def store(self, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
        """Open the store with two registered nodes, "n1" and "n2"."""
        async with self.open(tmp_path, clock) as store:
            for node_id in ("n1", "n2"):
                await store.register(NodeRecord(node_id, "label", "build", LEASE_SECONDS))
            yield store


def beat(store: Store, node_id: str, active: int = 0) -> bool:
    """Send one heartbeat."""
    pulse = store.open_pulse()
    try:
        return pulse.beat(node_id, active)
    finally:
        pulse.close()
