"""How far sweeps are, as they noted it in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from datetime import datetime

    from lazymig.store import Store
    from lazymig.sweeping import SweepNote

SweepState = Literal["running", "paused", "ended", "lost"]


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """How far a sweep is.

    Attributes:
        type: The actor type.
        node_id: Of its node.
        label: Its node's.
        state: "running"; "paused"; "ended"; "lost": it was killed, and goes on when it is begun again.
        ended: Why it ended, see `SweepReport.ended`.
        migrated: Actors that it has brought up; likewise the others.
        rate: How many a second.
        noted_at: When it noted that, by the store's wall clock, aware UTC.
    """

    type: str
    node_id: str
    label: str
    state: SweepState
    ended: str
    migrated: int
    left: int
    busy: int
    failed: int
    rate: float
    noted_at: datetime

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at its rate; None where that isn't known."""
        return self.left / self.rate if self.state == "running" and self.rate > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values: its attributes by name."""
        left = self.seconds_left
        return {
            "type": self.type,
            "node_id": self.node_id,
            "label": self.label,
            "state": self.state,
            "ended": self.ended,
            "migrated": self.migrated,
            "left": self.left,
            "busy": self.busy,
            "failed": self.failed,
            "rate": self.rate,
            "seconds_left": None if left is None else round(left, 1),
            "noted_at": self.noted_at.isoformat(),
        }


async def sweep_statuses(store: Store) -> list[SweepStatus]:
    """Return how far all sweeps are, and what the last ones came to, ordered by type.

    Raises:
        StoreError: The store can't be asked.
    """
    notes, paused = await store.sweeping.notes(), await store.sweeping.paused()
    alive = {node.node_id for node in await store.nodes() if node.is_alive}
    return [_status(note, is_alive=note.node_id in alive, is_paused=note.actor_type in paused) for note in notes]


def _status(note: SweepNote, *, is_alive: bool, is_paused: bool) -> SweepStatus:
    try:
        found = orjson.loads(note.progress)
        ended, failed = str(found["ended"]), len(found["failed"])
        label, rate = str(found["label"]), float(found["rate"])
        migrated, left, busy = (int(found[name]) for name in ("migrated", "left", "busy"))
    except (ValueError, TypeError, KeyError):  # of another release
        ended, failed, label, rate, migrated, left, busy = "running", 0, "?", 0.0, 0, 0, 0
    state: SweepState = "ended"
    if ended == "running":
        state = "lost" if not is_alive else "paused" if is_paused else "running"
    return SweepStatus(
        note.actor_type, note.node_id, label, state, ended, migrated, left, busy, failed, rate, note.noted_at
    )
