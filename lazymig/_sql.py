"""One store over SQL: what the operations do, written once (see `lazymig._sql_operations`).

What a process learns on the way (which small integer names which applied set) is kept only after the transaction has
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from lazymig import _rows
from lazymig._bases import NO_POLICY
from lazymig._entries import END, Count, Page
from lazymig._records import AppliedSet, Claim, Held, StoredActor
from lazymig._sql_commits import looks_brief, of_lock, store
from lazymig._sql_copies import SqlCopies
from lazymig._sql_failures import find_failure
from lazymig._sql_lineage import UNSTAMPED, Learning
from lazymig._sql_operations import last, trip
from lazymig._sql_previous import read_previous
from lazymig._sql_rulings import SqlRulings
from lazymig._sql_sweeping import SqlSweeping
from lazymig.errors import CorruptStateError, LeaseLostError

if TYPE_CHECKING:
    from lazymig._bases import Base, WritePolicy
    from lazymig._entries import Range
    from lazymig._fleet_records import NodeStatus
    from lazymig._records import ActorKey, Commit, Fence, NodeRecord, Previous
    from lazymig._rulings import Ruling
    from lazymig._sql_copies import CopyDialect
    from lazymig._sql_lineage import Lineage
    from lazymig._sql_operations import Connection, Dialect, Found, Operation, Rows, Statement
    from lazymig._sql_rulings import RulingDialect
    from lazymig.failures import Failures
    from lazymig.post import Post
    from lazymig.store import Pulse

T = TypeVar("T")

_NO_BASE = [None, None, None]
"""What an actor's row says of a base that isn't there."""


class SqlStore:
    """A store in a SQL database. Open it by `lazymig.open_store`.

    Args:
        dialect: The statements.
        rulings: Those of rulings.
        copying: Those of copies.
        connection: Drives them.
        post: Of the same database.
        failures: Likewise.

    Attributes:
        post: See `Store.post`.
        copies: See `Store.copies`.
        sweeping: See `Store.sweeping`.
        failures: See `Store.failures`.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (what an engine is)
        self,
        dialect: Dialect,
        rulings: RulingDialect,
        copying: CopyDialect,
        connection: Connection,
        post: Post,
        failures: Failures,
    ) -> None:
        self._sql = dialect
        self._rulings = SqlRulings(rulings, connection.now)
        self._connection = connection
        self._learning = Learning(dialect, connection)
        self.post = post
        self.copies = SqlCopies(copying, connection, self._learning, self._actor)
        self.sweeping = SqlSweeping(dialect.sweeping, connection, self._learning)
        self.failures = failures

    @property
    def name(self) -> str:
        """Its URL."""
        return self._connection.name

    async def register(
        self, node: NodeRecord, *, replaces: str | None = None, ruling: Callable[[], Ruling] | None = None
    ) -> Any:
        """See `Store.register`. Nodes that are gone for certain are removed on the way."""
        self._connection.enter(node.node_id)
        try:
            nodes = await self._connection.run(self._nodes, writes=False)
            gone = [other for other in nodes if other == replaces or self._connection.is_dead(other)]
            register = partial(self._register, node, gone, ruling)
            is_durable = ruling is not None or self._connection.is_outlived
            answer = await self._connection.exclude(register, durable=is_durable)
        except BaseException:
            self._connection.leave(node.node_id)
            raise
        for other in gone:
            self._connection.leave(other)
        if replaces is not None:  # somebody may have forgotten it already
            self._connection.leave(replaces)
        return answer

    async def rule(self, ruling: Callable[[], Ruling], *, is_change: bool = False) -> Any:
        """See `Store.rule`."""
        rule = partial(self._rule, ruling, is_change=is_change)
        return await self._connection.exclude(rule, writes=is_change, durable=is_change)

    async def policy(self, actor_type: str) -> WritePolicy:
        """See `Store.policy`."""
        return await self._connection.run(partial(self._rulings.policy, actor_type), writes=False)

    async def unregister(self, node_id: str) -> None:
        """See `Store.unregister`."""
        await self._connection.run(partial(self._remove_node, node_id), durable=self._connection.is_outlived)
        self._connection.leave(node_id)

    async def nodes(self) -> Sequence[NodeStatus]:
        """See `Store.nodes`."""
        return await self._connection.look(self._statuses)

    async def forget(self, node_id: str) -> bool:
        """See `Store.forget`."""
        is_known = await self._connection.forget(partial(self._remove_node, node_id))
        self._connection.leave(node_id)
        return is_known

    async def drain(self, node_id: str) -> bool:
        """See `Store.drain`."""
        return await self._connection.run(partial(self._drain, node_id), durable=self._connection.is_outlived)

    def open_pulse(self) -> Pulse:
        """See `Store.open_pulse`."""
        return self._connection.open_pulse()

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """See `Store.claim`; one trip, a second one only to take over from a node proved dead, or removed meanwhile."""
        found = await self._try_to_claim(key, fence, None)
        if isinstance(found, Held) and (is_dead := self._connection.is_dead(found.owner)) is not False:
            return await self._try_to_claim(key, fence, found.owner if is_dead else None)
        return found

    async def _try_to_claim(self, key: ActorKey, fence: Fence, dead: str | None) -> Claim | Held:
        try:
            while (found := await self._learning.run(partial(self._claim, key, fence, dead), brief=True)) is None:
                pass  # it was given up between two statements
        except CorruptStateError:
            await self.release([(key, fence)])  # it may have been committed before its stamp was read
            raise
        return found

    async def commit(self, commit: Commit) -> int | WritePolicy:
        """See `Store.commit`."""
        is_brief = looks_brief(commit)
        return await self._learning.run(partial(self._commit, commit), durable=True, brief=is_brief)

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        """See `Store.release`."""
        await self._connection.run(partial(self._release, held), brief=len(held) == 1)

    async def read(self, key: ActorKey) -> StoredActor | None:
        """See `Store.read`."""
        return await self._learning.run(partial(self._read, key), writes=False)

    async def previous(self, key: ActorKey) -> Previous | None:
        """See `Store.previous`."""
        return await self._learning.run(partial(read_previous, self._sql.previous, key), writes=False)

    async def entries(self, key: ActorKey, of: Range, limit: int, max_bytes: int) -> Page:
        """See `Store.entries`."""
        return await self._learning.run(partial(self._entries, key, of, limit, max_bytes), writes=False)

    async def count_entries(self, key: ActorKey, of: Range) -> int:
        """See `Store.count_entries`."""
        rows = await self._connection.run(
            partial(_select, self._sql.count_entries, self._within(key, of)), writes=False
        )
        return int(rows[0][0])

    async def tables(self, key: ActorKey) -> Sequence[Count]:
        """See `Store.tables`."""
        return await self._learning.run(partial(self._tables, key), writes=False)

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """See `Store.scan`."""
        return await self._learning.run(partial(self._scan, actor_type, after, limit), writes=False)

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """See `Store.census`."""
        return await self._learning.run(partial(self._census, actor_type), writes=False)

    async def stragglers(
        self, actor_type: str, sets: frozenset[AppliedSet | None], *, after: str = "", limit: int = 500
    ) -> Sequence[str]:
        """See `Store.stragglers`."""
        return await self._learning.run(partial(self._stragglers, actor_type, sets, after, limit), writes=False)

    async def entry_census(self, actor_type: str) -> Mapping[AppliedSet, int]:
        """See `Store.entry_census`."""
        return await self._connection.run(partial(self._rulings.entry_census, actor_type), writes=False)

    async def types(self) -> Sequence[str]:
        """See `Store.types`."""
        rows = await self._connection.run(partial(_select, self._sql.types, {}), writes=False)
        return [_rows.read_type(name) for (name,) in rows]

    async def insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> frozenset[str]:
        """See `Store.insert`."""
        return await self._connection.run(partial(self._insert, actor_type, state, rows), durable=True)

    # --- operations --------------------------------------------------------------------------------------------

    def _nodes(self) -> Operation[list[str]]:
        (rows,) = yield last((self._sql.nodes, {}))
        return _rows.read_nodes(rows)

    def _rule(self, ruling: Callable[[], Ruling], *, is_change: bool) -> Operation[Any]:
        ruled = yield from self._rulings.decide(ruling())
        if is_change:
            yield from self._rulings.note(ruled)
        return ruled.answer

    def _register(self, node: NodeRecord, gone: Sequence[str], ruling: Callable[[], Ruling] | None) -> Operation[Any]:
        removals = [statement for other in gone for statement in self._removal(other)]
        if ruling is None:
            yield last(*removals, *self._addition(node))
            return None
        if removals:
            yield trip(*removals)
        ruled = yield from self._rulings.decide(ruling())
        yield trip(*self._addition(node))
        yield from self._rulings.note(ruled)
        return ruled.answer

    def _addition(self, node: NodeRecord) -> Sequence[Statement]:
        lease = {"node": node.node_id, "at": self._connection.now(), "lease": node.lease_seconds}
        offers = orjson.dumps([_rows.write_offer(offer) for offer in node.offers]).decode()
        described = {"label": node.label, "build": node.build, "offers": offers}
        noted = [(self._sql.note_recovery, {"now": self._connection.now()})] if self._sql.note_recovery else []
        offered = [
            {"type": offer.type, "action": name, "below": offer.below, "supported": offer.registered.highest}
            for offer in node.offers
            for name in offer.actions
        ]
        return [
            *noted,
            (self._sql.add_node, lease | described),
            (self._sql.add_heartbeat, lease),
            *((self._sql.add_offer, {"node": node.node_id, **offer}) for offer in offered),
            (self._sql.count_change, {}),
        ]

    def _remove_node(self, node_id: str) -> Operation[bool]:
        rows, *_ = yield last(*self._removal(node_id), (self._sql.count_change, {}))
        return bool(rows)

    def _removal(self, node_id: str) -> Sequence[Statement]:
        node = {"node": node_id}
        return (self._sql.remove_node, node), (self._sql.remove_heartbeat, node), (self._sql.remove_offers, node)

    def _drain(self, node_id: str) -> Operation[bool]:
        rows, _ = yield last((self._sql.drain, {"node": node_id}), (self._sql.count_change, {}))
        return bool(rows)

    def _statuses(self) -> Operation[list[NodeStatus]]:
        (rows,) = yield last((self._sql.statuses, {"now": self._connection.now()}))
        return _rows.read_statuses(rows)

    def _claim(self, key: ActorKey, fence: Fence, dead: str | None, lineage: Lineage) -> Operation[Claim | Held | None]:
        of = {**of_lock(key, fence), "now": self._connection.now(), "dead": dead}
        found = yield from self._sql.dealing.claim(of)
        if found is None:
            raise LeaseLostError(key)
        if found.found is None:
            return None if found.owner is None else Held(_rows.read_holder(key, found.owner))
        actor = yield from self._actor(key, found.found, lineage)
        now = datetime.now(UTC) if found.clock is None else _rows.EPOCH + timedelta(microseconds=found.clock)
        policy = NO_POLICY if found.policy is None else _rows.read_policy(key, key.type, *found.policy)
        return Claim(fence, actor, now, policy)

    def _commit(self, commit: Commit, lineage: Lineage) -> Operation[int | WritePolicy]:
        done = yield from store(self._sql.dealing, commit, lineage)
        if done is None:
            raise LeaseLostError(commit.key)
        return done if isinstance(done, int) else _rows.read_policy(commit.key, commit.key.type, *done)

    def _entries(self, key: ActorKey, of: Range, limit: int, max_bytes: int, lineage: Lineage) -> Operation[Page]:
        within = self._within(key, of)
        rows, is_last = yield from self._sql.dealing.entries(within, limit, max_bytes, is_reverse=of.is_reverse)
        keys, data, numbers = _rows.read_entries(key, of.table, rows)
        sets = {}
        for number in dict.fromkeys(numbers):
            what = f"entry {keys[numbers.index(number)]!r} of table {of.table!r}"
            sets[number] = yield from _applied_to(what, key, number, lineage)
        applied = [*sets.values()] * len(numbers) if len(sets) == 1 else [sets[number] for number in numbers]
        return Page(keys, data, applied, is_last)

    def _within(self, key: ActorKey, of: Range) -> dict[str, Any]:
        end = self._sql.end if of.end == END else of.end
        return {"type": key.type, "id": key.id, "name": of.table, "start": of.start, "end": end}

    def _tables(self, key: ActorKey, lineage: Lineage) -> Operation[list[Count]]:
        (rows,) = yield last((self._sql.tables, {"type": key.type, "id": key.id}))
        counts = []
        for name, number, count in rows:
            table = _rows.read_table(key, name)
            applied = yield from _applied_to(f"an entry of table {table!r}", key, number, lineage)
            counts.append(Count(table, applied, count))
        return counts

    def _release(self, held: Sequence[tuple[ActorKey, Fence]]) -> Operation[None]:
        ordered = sorted(held, key=lambda pair: pair[0])
        yield from self._sql.dealing.release([of_lock(key, fence) for key, fence in ordered])

    def _read(self, key: ActorKey, lineage: Lineage) -> Operation[StoredActor | None]:
        found = yield from self._sql.dealing.read({"type": key.type, "id": key.id})
        if found is None:
            return None
        actor = yield from self._actor(key, found, lineage)
        return actor if actor.revision else None

    def _actor(self, key: ActorKey, found: Found, lineage: Lineage) -> Operation[StoredActor]:
        revision, owner, number, applied, writer, migrated_at, converting, oldest, *of_base = found.actor
        revision = _rows.read_count(key, "revision", revision)
        number = _rows.read_count(key, "lock's number", number)
        read = yield from lineage.stamp(key, applied, writer, migrated_at)
        marks = _rows.read_marks(key, revision, converting, oldest)
        states = _rows.read_states(key, revision, found.states)
        base = None if of_base == _NO_BASE else (yield from _base(key, revision, of_base, found.kept, lineage))
        owner, failure = _rows.read_owner(key, owner), find_failure(key, found.failure)
        return StoredActor(key, revision, read, states, owner, number, marks, base, failure)

    def _scan(self, actor_type: str, after: str, limit: int, lineage: Lineage) -> Operation[list[StoredActor]]:
        rows = yield from self._sql.dealing.scan({"type": actor_type, "after": after, "limit": limit})
        actors = []
        for actor_id, found in rows:
            actors.append((yield from self._actor(_rows.read_key(actor_type, actor_id), found, lineage)))
        return actors

    def _census(self, actor_type: str, lineage: Lineage) -> Operation[dict[AppliedSet | None, int]]:
        (rows,) = yield last((self._sql.census, {"type": actor_type}))
        counts: dict[AppliedSet | None, int] = {}
        for number, count in rows:
            applied = None if number == UNSTAMPED else (yield from lineage.get(None, number))
            counts[applied] = counts.get(applied, 0) + count
        return counts

    def _stragglers(
        self, actor_type: str, sets: frozenset[AppliedSet | None], after: str, limit: int, lineage: Lineage
    ) -> Operation[list[str]]:
        numbers = yield from lineage.find(actor_type, sets)
        return (yield from self._rulings.stragglers(actor_type, numbers, after, limit))

    def _insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> Operation[frozenset[str]]:
        ordered = sorted(rows)
        found = yield trip(*((self._sql.insert_actor, {"type": actor_type, "id": actor_id}) for actor_id, _ in ordered))
        inserted = [row for row, written in zip(ordered, found, strict=True) if written]
        actor = {"type": actor_type, "name": state}
        yield last(*((self._sql.put_state, actor | {"id": actor_id, "value": data}) for actor_id, data in inserted))
        return frozenset(actor_id for actor_id, _ in inserted)


def _base(key: ActorKey, revision: int, columns: Sequence[Any], kept: Rows, lineage: Lineage) -> Operation[Base | None]:
    number, *rest = columns
    applied = None if number is None else (yield from lineage.get(key, number))
    return _rows.read_base(key, revision, applied, rest, kept)


def _applied_to(what: str, key: ActorKey, number: Any, lineage: Lineage) -> Operation[AppliedSet]:
    """Return the set of an entry."""
    try:
        return (yield from lineage.get(key, number))
    except CorruptStateError as error:
        raise CorruptStateError(key, f"of {what}, {error.reason}") from error


def _select(statement: str, parameters: Mapping[str, Any]) -> Operation[Rows]:
    (rows,) = yield last((statement, parameters))
    return rows
