"""Many actors at once over SQL; see `lazymig.sweeping` for what that promises."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lazymig import _rows
from lazymig._bases import NO_POLICY
from lazymig._sql_lineage import UNSTAMPED
from lazymig._sql_operations import OtherEpoch, last
from lazymig.sweeping import Batch, SweepNote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lazymig._bases import WritePolicy
    from lazymig._records import AppliedSet, Fence, Stamp
    from lazymig._sql_lineage import Learning, Lineage
    from lazymig._sql_operations import Connection, Operation, Rows, Statement


class Swept(NamedTuple):
    """What a claim of many found.

    Attributes:
        rows: Id and state of each actor, in order.
        after: See `Batch`.
        policy: Version and epoch of the type's write policy, None without one.
        clock: The engine's wall clock in microseconds, None if it has none.
    """

    rows: Rows
    after: str | None
    policy: tuple[Any, ...] | None
    clock: int | None = None


class SweepDealing(Protocol):
    """How an engine deals with many locked actors: each of these is the operation as a generator."""

    def claim(self, of: Mapping[str, Any]) -> Operation[Swept | None]:
        """Get locks and read what they protect; None: the node isn't registered.

        Args:
            of: ``type``, ``lineage`` and ``state`` (its name) of the actors; ``node`` and ``number`` of the fence;
                ``after`` and ``limit``; ``now`` by the store's clock.
        """
        ...

    def commit(
        self, of: Mapping[str, Any], changes: Sequence[tuple[str, bytes]], released: Sequence[str]
    ) -> Operation[Collection[str] | OtherEpoch]:
        """Store states and stamp, and give the locks up; see `Sweeping.commit`.

        Args:
            of: ``type``, ``state``, ``node`` and ``number``; the stamp; ``epoch`` and ``drops_previous``.
            changes: Id and state, in order.
            released: Ids.
        """
        ...

    def unsettled(self, of: Mapping[str, Any], entries: Sequence[int]) -> Statement:
        """Return what selects ids.

        Args:
            of: ``type``; ``base``, a lineage or None; ``after`` and ``limit``.
            entries: Lineages.
        """
        ...

    def count_unsettled(self, of: Mapping[str, Any], entries: Sequence[int], without: Sequence[int]) -> Statement:
        """Return what counts them.

        Args:
            of: ``type``; ``base``, a lineage or None.
            entries: Lineages.
            without: Those of actors that don't count.
        """
        ...


@dataclass(frozen=True, slots=True)
class SweepDialect:
    """The statements of one engine; parameters are named and bound.

    Attributes:
        dealing: What is done under locks.
    """

    dealing: SweepDealing
    tidy_notes: str
    put_note: str
    notes: str
    pause: str
    go_on: str
    is_paused: str
    paused: str


class SqlSweeping:
    """See `lazymig.sweeping.Sweeping`.

    Args:
        dialect: The statements.
        connection: Drives them.
        learning: Drives what names applied sets.
    """

    def __init__(self, dialect: SweepDialect, connection: Connection, learning: Learning) -> None:
        self._sql = dialect
        self._connection = connection
        self._learning = learning

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
        of = {"type": actor_type, "state": state, **_lock(fence), "after": after, "limit": limit}
        return await self._learning.run(partial(self._claim, of, applied, fence))

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
        of = {"type": actor_type, "state": state, **_lock(fence), "epoch": epoch, "drops_previous": drops_previous}
        done = await self._learning.run(partial(self._commit, of, stamp, changes, released), durable=True)
        return _rows.read_policy(None, actor_type, *done) if isinstance(done, OtherEpoch) else done

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
        of = {"type": actor_type, "after": after, "limit": limit}
        return await self._learning.run(partial(self._unsettled, of, entries, base), writes=False)

    async def count_unsettled(
        self,
        actor_type: str,
        entries: frozenset[AppliedSet],
        base: AppliedSet | None,
        *,
        without: frozenset[AppliedSet | None],
    ) -> int:
        """See `Sweeping.count_unsettled`."""
        work = partial(self._count_unsettled, {"type": actor_type}, entries, base, without)
        return await self._learning.run(work, writes=False)

    async def note(self, actor_type: str, node_id: str, progress: bytes) -> bool:
        """See `Sweeping.note`."""
        at = _rows.write_time(datetime.now(UTC))
        of = {"type": actor_type, "node": node_id, "progress": progress, "at": at}
        statements = [(statement, of) for statement in (self._sql.tidy_notes, self._sql.put_note, self._sql.is_paused)]
        *_, paused = await self._connection.run(partial(_carry_out, statements))
        return bool(paused)

    async def notes(self) -> Sequence[SweepNote]:
        """See `Sweeping.notes`."""
        (rows,) = await self._connection.run(partial(_carry_out, [(self._sql.notes, {})]), writes=False)
        return [_read_note(*row) for row in rows]

    async def pause(self, actor_type: str, *, is_paused: bool) -> bool:
        """See `Sweeping.pause`."""
        statement = self._sql.pause if is_paused else self._sql.go_on
        (rows,) = await self._connection.run(partial(_carry_out, [(statement, {"type": actor_type})]), durable=True)
        return bool(rows)

    async def paused(self) -> Collection[str]:
        """See `Sweeping.paused`."""
        (rows,) = await self._connection.run(partial(_carry_out, [(self._sql.paused, {})]), writes=False)
        return frozenset(_rows.read_type(name) for (name,) in rows)

    # --- operations --------------------------------------------------------------------------------------------

    def _claim(
        self, of: dict[str, Any], applied: AppliedSet | None, fence: Fence, lineage: Lineage
    ) -> Operation[Batch | None]:
        numbers = yield from lineage.find(of["type"], [applied])
        number = numbers[0] if numbers else None  # which no actor has that anything is stored of
        found = yield from self._sql.dealing.claim({**of, "lineage": number, "now": self._connection.now()})
        if found is None:
            return None
        ids = [row[0] for row in found.rows]
        data = [row[1] for row in found.rows]
        now = datetime.now(UTC) if found.clock is None else _rows.EPOCH + timedelta(microseconds=found.clock)
        policy = NO_POLICY if found.policy is None else _rows.read_policy(None, of["type"], *found.policy)
        return Batch(fence, ids, data, found.after, now, policy)

    def _commit(
        self,
        of: dict[str, Any],
        stamp: Stamp,
        changes: Sequence[tuple[str, bytes]],
        released: Sequence[str],
        lineage: Lineage,
    ) -> Operation[Collection[str] | OtherEpoch]:
        columns = yield from lineage.columns(of["type"], stamp)
        return (yield from self._sql.dealing.commit({**of, **columns}, changes, released))

    def _unsettled(
        self, of: dict[str, Any], entries: frozenset[AppliedSet], base: AppliedSet | None, lineage: Lineage
    ) -> Operation[list[str]]:
        numbers = yield from lineage.find(of["type"], entries)
        of = {**of, "base": (yield from _kept(of["type"], base, lineage))}
        (rows,) = yield last(self._sql.dealing.unsettled(of, numbers))
        return [_rows.read_key(of["type"], actor_id).id for (actor_id,) in rows]

    def _count_unsettled(
        self,
        of: dict[str, Any],
        entries: frozenset[AppliedSet],
        base: AppliedSet | None,
        without: frozenset[AppliedSet | None],
        lineage: Lineage,
    ) -> Operation[int]:
        numbers = yield from lineage.find(of["type"], entries)
        others = yield from lineage.find(of["type"], without)
        of = {**of, "base": (yield from _kept(of["type"], base, lineage))}
        (((count,),),) = yield last(self._sql.dealing.count_unsettled(of, numbers, others))
        return int(count)


def _kept(actor_type: str, base: AppliedSet | None, lineage: Lineage) -> Operation[int]:
    found = [] if base is None else (yield from lineage.find(actor_type, [base]))
    return found[0] if found else UNSTAMPED


def _lock(fence: Fence) -> dict[str, Any]:
    return {"node": fence.node, "number": fence.number}


def _carry_out(statements: Sequence[Statement]) -> Operation[list[Rows]]:
    return (yield last(*statements))


def _read_note(actor_type: Any, node_id: Any, at: Any, progress: Any) -> SweepNote:
    moment = _rows.read_moment(None, f"when a sweep of {actor_type} noted how far it is", at)
    return SweepNote(_rows.read_type(actor_type), str(node_id), moment, bytes(progress))
