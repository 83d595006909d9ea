"""Many actors at once in the store in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lazymig._bases import NO_POLICY
from lazymig.sweeping import Batch, SweepNote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lazymig._bases import WritePolicy
    from lazymig._memory_rows import Row
    from lazymig._records import ActorKey, AppliedSet, Fence, Stamp


class MemorySweeping:
    """See `lazymig.sweeping.Sweeping`.

    Args:
        check_open: Raises if the store is closed.
        rows: The actors.
        nodes: Those registered, by id.
        policies: The write policies by type.
    """

    def __init__(
        self,
        check_open: Callable[[], None],
        rows: Mapping[ActorKey, Row],
        nodes: Mapping[str, object],
        policies: Mapping[str, WritePolicy],
    ) -> None:
        self._check_open = check_open
        self._rows = rows
        self._nodes = nodes
        self._policies = policies
        self._notes: dict[tuple[str, str], SweepNote] = {}
        self._paused: set[str] = set()

    async def claim(  # noqa: PLR0913  (the Protocol's)
        self,
        actor_type: str,
        applied: AppliedSet | None,
        state: str,
        fence: Fence,
        *,
        after: str = "",
        limit: int = 500,
    ) -> Batch | None:
        """See `Sweeping.claim`."""
        self._check_open()
        if fence.node not in self._nodes:
            return None
        plain = [
            (actor_id, row)
            for actor_id, row in self._stored(actor_type, after)
            if row.applied == applied and row.fence is None and state in row.states and row.is_plain
        ][:limit]
        for _, row in plain:
            row.fence = fence
        ids, data = [actor_id for actor_id, _ in plain], [row.states[state] for _, row in plain]
        last = ids[-1] if len(ids) == limit else None
        return Batch(fence, ids, data, last, datetime.now(UTC), self._policies.get(actor_type, NO_POLICY))

    async def commit(  # noqa: PLR0913  (the Protocol's)
        self,
        actor_type: str,
        state: str,
        fence: Fence,
        changes: Sequence[tuple[str, bytes]],
        *,
        stamp: Stamp,
        epoch: int,
        released: Sequence[str] = (),
        drops_previous: bool = False,
    ) -> Collection[str] | WritePolicy:
        """See `Sweeping.commit`."""
        self._check_open()
        policy = self._policies.get(actor_type, NO_POLICY)
        if policy.epoch != epoch:
            return policy
        rows = dict(self._stored(actor_type)) if fence.node in self._nodes else {}
        held = {actor_id: row for actor_id, row in rows.items() if row.fence == fence}
        for actor_id in released:
            if actor_id in held:
                held[actor_id].fence = None
        for actor_id, data in changes:
            if actor_id in held:
                row = held[actor_id]
                row.states[state], row.stamp, row.fence = data, stamp, None
                row.revision += 1
                row.keep(False if drops_previous else None)
        return [actor_id for actor_id, _ in changes if actor_id not in held]

    async def unsettled(
        self,
        actor_type: str,
        entries: frozenset[AppliedSet],
        base: AppliedSet | None,
        *,
        after: str = "",
        limit: int = 500,
    ) -> Sequence[str]:
        """See `Sweeping.unsettled`."""
        self._check_open()
        found = self._stored(actor_type, after)
        return [actor_id for actor_id, row in found if _is_unsettled(row, entries, base)][:limit]

    async def count_unsettled(
        self,
        actor_type: str,
        entries: frozenset[AppliedSet],
        base: AppliedSet | None,
        *,
        without: frozenset[AppliedSet | None],
    ) -> int:
        """See `Sweeping.count_unsettled`."""
        self._check_open()
        rows = [row for _, row in self._stored(actor_type) if row.applied not in without]
        return sum(_is_unsettled(row, entries, base) for row in rows)

    async def note(self, actor_type: str, node_id: str, progress: bytes) -> bool:
        """See `Sweeping.note`."""
        self._check_open()
        ended = [of for of in self._notes if of[0] == actor_type and of[1] not in self._nodes]
        for of in ended:
            del self._notes[of]
        self._notes[actor_type, node_id] = SweepNote(actor_type, node_id, datetime.now(UTC), progress)
        return actor_type in self._paused

    async def notes(self) -> Sequence[SweepNote]:
        """See `Sweeping.notes`."""
        self._check_open()
        return [note for _, note in sorted(self._notes.items())]

    async def pause(self, actor_type: str, *, is_paused: bool) -> bool:
        """See `Sweeping.pause`."""
        self._check_open()
        is_change = is_paused != (actor_type in self._paused)
        if is_change:
            self._paused ^= {actor_type}
        return is_change

    async def paused(self) -> Collection[str]:
        """See `Sweeping.paused`."""
        self._check_open()
        return frozenset(self._paused)

    def _stored(self, actor_type: str, after: str = "") -> list[tuple[str, Row]]:
        return sorted(
            (key.id, row)
            for key, row in self._rows.items()
            if key.type == actor_type and key.id > after and row.revision and not row.is_blank
        )


def _is_unsettled(row: Row, entries: frozenset[AppliedSet], base: AppliedSet | None) -> bool:
    has_base = row.base is not None and (row.base.applied != base or row.base.revision != row.revision)
    found = (entry.applied for table in row.tables.values() for entry in table.entries.values())
    return bool(row.marks.converting) or has_base or any(applied in entries for applied in found)
