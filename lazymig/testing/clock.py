"""A clock that goes only when told to."""

from __future__ import annotations


class ManualClock:
    """Callable like `time.monotonic`; stands still between calls of `advance`."""

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
