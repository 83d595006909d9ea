"""How a SQL store names applied sets: each by a small integer, learned once a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lazymig import _rows
from lazymig._records import AppliedSet, Stamp
from lazymig._sql_operations import last, trip
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lazymig._records import ActorKey
    from lazymig._sql_operations import Connection, Dialect, Operation

T = TypeVar("T")

UNSTAMPED = 0
"""Names, in an actor's row, the set of one that is stored without migration-info; one of which nothing is stored has
NULL: so actors are counted by an index alone."""

NONE = (None, UNSTAMPED)


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

    def find(self, actor_type: str, sets: Collection[AppliedSet | None]) -> Operation[list[int]]:
        """Return the names of sets, in order; those that have none are no actor's."""
        known = {applied: self._ids.get((actor_type, applied)) for applied in sets if applied is not None}
        asked = [applied for applied, number in known.items() if number is None]
        if asked:
            named = [{"type": actor_type, "applied": _rows.write_set(applied)} for applied in asked]
            answers = yield trip(*((self._sql.find_lineage, of) for of in named))
            for applied, rows in zip(asked, answers, strict=True):
                for (number,) in rows:
                    known[applied] = number
                    self._learned[number] = (actor_type, applied)
        found = [number for number in known.values() if number is not None]
        return sorted([*found, UNSTAMPED] if None in sets else found)

    def stamp(self, key: ActorKey, applied: object, writer: object, migrated_at: object) -> Operation[Stamp | None]:
        if applied == writer and applied in NONE and migrated_at is None:
            return None
        read = yield from self.get(key, applied)
        return Stamp(read, (yield from self.get(key, writer)), _rows.read_time(key, migrated_at))

    def columns(self, actor_type: str, stamp: Stamp | None) -> Operation[dict[str, int | None]]:
        if stamp is None:
            return {"version": None, "lineage": UNSTAMPED, "written_by": UNSTAMPED, "migrated_at": None}
        time = None if stamp.migrated_at is None else _rows.write_time(stamp.migrated_at)
        return {
            "version": stamp.applied.highest,
            "lineage": (yield from self.id(actor_type, stamp.applied)),
            "written_by": (yield from self.id(actor_type, stamp.writer)),
            "migrated_at": time,
        }


class Learning:
    """Runs operations that name applied sets; what a process learns on the way is kept once they have committed.

    Args:
        dialect: The statements.
        connection: Drives the operations.
    """

    def __init__(self, dialect: Dialect, connection: Connection) -> None:
        self._sql = dialect
        self._connection = connection
        self._sets: dict[int, AppliedSet] = {}
        self._ids: dict[tuple[str, AppliedSet], int] = {}

    async def run(
        self,
        operation: Callable[[Lineage], Operation[T]],
        *,
        writes: bool = True,
        durable: bool = False,
        brief: bool = False,
    ) -> T:
        """See `Connection.run`."""
        lineage = Lineage(self._sql, self._sets, self._ids)

        def begin() -> Operation[T]:
            lineage.forget()
            return operation(lineage)

        found = await self._connection.run(begin, writes=writes, durable=durable, brief=brief)
        lineage.keep()
        return found
