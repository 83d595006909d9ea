"""How a SQL store names applied sets: each by a small integer, learned once a process."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lazymig import _rows
from lazymig._records import AppliedSet, Stamp
from lazymig._sql_operations import last, trip
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from lazymig._records import ActorKey
    from lazymig._sql_operations import Dialect, Operation

_MICROSECOND = timedelta(microseconds=1)


class Lineage:
    """Names applied sets by small integers within one operation; what it learns counts once that has committed."""

    def __init__(self, dialect: Dialect, sets: dict[int, AppliedSet], ids: dict[tuple[str, AppliedSet], int]) -> None:
        self._sql = dialect
        self._sets = sets
        self._ids = ids
        self._learned: dict[int, tuple[str, AppliedSet]] = {}
        self._learned_ids: dict[tuple[str, AppliedSet], int] = {}

    def forget(self) -> None:
        """Forget what was learned: the operation is begun anew."""
        self._learned.clear()
        self._learned_ids.clear()

    def keep(self) -> None:
        for number, (actor_type, applied) in self._learned.items():
            known = self._sets.setdefault(number, applied)
            self._ids[actor_type, known] = number

    def get(self, key: ActorKey | None, number: Any) -> Operation[AppliedSet]:
        if number in self._sets:
            return self._sets[number]
        if number in self._learned:
            return self._learned[number][1]
        (rows,) = (yield last((self._sql.lineage, {"lineage": number}))) if isinstance(number, int) else [[]]
        if not rows:
            raise CorruptStateError(key, f"its migration-info names the unknown lineage {number!r}")
        actor_type, text = rows[0]
        applied = _rows.read_set(key, text)
        self._learned[number] = (actor_type, applied)
        return applied

    def id(self, actor_type: str, applied: AppliedSet) -> Operation[int]:
        known = (actor_type, applied)
        if known in self._ids or known in self._learned_ids:
            return self._ids.get(known) or self._learned_ids[known]
        named = {"type": actor_type, "applied": _rows.write_set(applied)}
        _, rows = yield trip((self._sql.add_lineage, named), (self._sql.find_lineage, named))
        number = int(rows[0][0])
        self._learned[number] = known
        self._learned_ids[known] = number
        return number

    def stamp(self, key: ActorKey, applied: object, writer: object, migrated_at: object) -> Operation[Stamp | None]:
        if applied is None and writer is None and migrated_at is None:
            return None
        read = yield from self.get(key, applied)
        return Stamp(read, (yield from self.get(key, writer)), _rows.read_time(key, migrated_at))

    def columns(self, actor_type: str, stamp: Stamp | None) -> Operation[dict[str, int | None]]:
        if stamp is None:
            return {"version": None, "lineage": None, "written_by": None, "migrated_at": None}
        time = None if stamp.migrated_at is None else (stamp.migrated_at - _rows.EPOCH) // _MICROSECOND
        return {
            "version": stamp.applied.highest,
            "lineage": (yield from self.id(actor_type, stamp.applied)),
            "written_by": (yield from self.id(actor_type, stamp.writer)),
            "migrated_at": time,
        }
