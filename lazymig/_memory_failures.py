"""The records of failures of the store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from lazymig._memory_rows import Row
    from lazymig._quarantine import Failure
    from lazymig._records import ActorKey, Fence


class MemoryFailures:
    """See `lazymig.failures.Failures`.

    Args:
        check_open: Raises if the store is closed.
        rows: The actors.
        nodes: The registered nodes.
    """

    def __init__(self, check_open: Callable[[], None], rows: Mapping[ActorKey, Row], nodes: Container[str]) -> None:
        self._check_open = check_open
        self._rows = rows
        self._nodes = nodes

    async def note(self, key: ActorKey, fence: Fence, failure: Failure) -> None:
        """See `Failures.note`."""
        self._check_open()
        row = self._rows.get(key)
        if row is None or row.is_blank or row.fence != fence or fence.node not in self._nodes:
            raise LeaseLostError(key)
        row.failure = failure

    async def page(
        self, actor_type: str | None = None, *, after: ActorKey | None = None, limit: int = 500
    ) -> Sequence[tuple[ActorKey, Failure]]:
        """See `Failures.page`."""
        self._check_open()
        found = [(key, failure) for key, failure in self._of(actor_type) if after is None or key > after]
        return sorted(found)[:limit]

    async def retry(self, actor_type: str, actor_id: str | None = None) -> int:
        """See `Failures.retry`."""
        self._check_open()
        found = [(key, failure) for key, failure in self._of(actor_type) if actor_id in {None, key.id}]
        for key, failure in found:
            self._rows[key].failure = failure._replace(retry_at=failure.failed_at)
        return len(found)

    def _of(self, actor_type: str | None) -> list[tuple[ActorKey, Failure]]:
        return [
            (key, row.failure)
            for key, row in self._rows.items()
            if row.failure is not None and actor_type in {None, key.type}
        ]
