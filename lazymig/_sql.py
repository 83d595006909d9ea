"""One store over SQL: what the operations do, written once as generators without I/O.

An operation yields statements and is sent their rows; a connection drives it inside one transaction and one trip, and
rolls back if it raises. So an operation may raise in the middle and nothing has happened, and the same text can be
driven by a thread, inline, or over a network.

What a process learns on the way (which small integer names which applied set) is kept only after the transaction has
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lazymig import _rows
from lazymig._records import ActorKey, AppliedSet, Claim, Held, Stamp, StoredActor
from lazymig.errors import CorruptStateError, LeaseLostError

if TYPE_CHECKING:
    from lazymig._records import Commit, Fence, NodeRecord
    from lazymig.store import Pulse

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
Operation = Generator[tuple[str, Mapping[str, Any]], Rows, T]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The statements of one engine; parameters are named and bound."""

    add_node: str
    remove_node: str
    add_heartbeat: str
    beat: str
    remove_heartbeat: str
    nodes: str
    claim: str
    holder: str
    states: str
    commit: str
    put_state: str
    remove_state: str
    release: str
    forget_unstored: str
    read: str
    scan: str
    scan_states: str
    census: str
    types: str
    insert_actor: str
    find_lineage: str
    add_lineage: str
    lineage: str


class Connection(Protocol):
    """Drives operations for one process."""

    name: str

    async def run(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """Drive one operation in one transaction and one trip.

        Args:
            operation: Makes the generator; called once.
            writes: Whether it may write.
            durable: Whether it must survive a crash of the machine once this returns.
        """
        ...

    def now(self) -> float:
        """Return the store's clock for heartbeats, in seconds; it never goes back while the machine runs."""
        ...

    def enter(self, node_id: str) -> None:
        """Show that a node of this process lives, before it registers."""
        ...

    def leave(self, node_id: str) -> None:
        """Take that back, after the node was removed."""
        ...

    def is_dead(self, node_id: str) -> bool | None:
        """Tell whether a node is gone for certain, whatever its heartbeat says; None if it may just be removed."""
        ...

    def open_pulse(self) -> Pulse:
        """See `Store.open_pulse`."""
        ...


class SqlStore:
    """A store in a SQL database. Open it by `lazymig.open_store`.

    Args:
        dialect: The statements.
        connection: Drives them.
    """

    def __init__(self, dialect: Dialect, connection: Connection) -> None:
        self._sql = dialect
        self._connection = connection
        self._sets: dict[int, AppliedSet] = {}
        self._ids: dict[tuple[str, AppliedSet], int] = {}

    @property
    def name(self) -> str:
        """Its URL."""
        return self._connection.name

    async def register(self, node: NodeRecord, *, replaces: str | None = None) -> None:
        """See `Store.register`. Nodes that are gone for certain are removed on the way."""
        self._connection.enter(node.node_id)
        try:
            nodes = await self._connection.run(self._nodes, writes=False)
            gone = [other for other in nodes if other == replaces or self._connection.is_dead(other)]
            await self._connection.run(partial(self._register, node, gone))
        except BaseException:
            self._connection.leave(node.node_id)
            raise
        for other in gone:
            self._connection.leave(other)
        if replaces is not None:  # somebody may have forgotten it already
            self._connection.leave(replaces)

    async def unregister(self, node_id: str) -> None:
        """See `Store.unregister`."""
        await self._connection.run(partial(self._unregister, node_id))
        self._connection.leave(node_id)

    def open_pulse(self) -> Pulse:
        """See `Store.open_pulse`."""
        return self._connection.open_pulse()

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """See `Store.claim`; one trip, a second one only to take over from a node proved dead, or removed meanwhile."""
        found = await self._learning(partial(self._claim, key, fence, None))
        if isinstance(found, Held) and (is_dead := self._connection.is_dead(found.owner)) is not False:
            return await self._learning(partial(self._claim, key, fence, found.owner if is_dead else None))
        return found

    async def commit(self, commit: Commit) -> int:
        """See `Store.commit`."""
        return await self._learning(partial(self._commit, commit), durable=True)

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        """See `Store.release`."""
        await self._connection.run(partial(self._release, held))

    async def read(self, key: ActorKey) -> StoredActor | None:
        """See `Store.read`."""
        return await self._learning(partial(self._read, key), writes=False)

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """See `Store.scan`."""
        return await self._learning(partial(self._scan, actor_type, after, limit), writes=False)

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """See `Store.census`."""
        return await self._learning(partial(self._census, actor_type), writes=False)

    async def types(self) -> Sequence[str]:
        """See `Store.types`."""
        rows = await self._connection.run(partial(_select, self._sql.types), writes=False)
        return [_rows.read_type(name) for (name,) in rows]

    async def insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> frozenset[str]:
        """See `Store.insert`."""
        return await self._connection.run(partial(self._insert, actor_type, state, rows), durable=True)

    async def _learning(
        self, operation: Callable[[_Lineage], Operation[T]], *, writes: bool = True, durable: bool = False
    ) -> T:
        lineage = _Lineage(self._sql, self._sets, self._ids)
        found = await self._connection.run(partial(operation, lineage), writes=writes, durable=durable)
        lineage.keep()
        return found

    # --- operations --------------------------------------------------------------------------------------------

    def _nodes(self) -> Operation[list[str]]:
        rows = yield self._sql.nodes, {}
        return _rows.read_nodes(rows)

    def _register(self, node: NodeRecord, gone: Sequence[str]) -> Operation[None]:
        for other in gone:
            yield from self._unregister(other)
        yield self._sql.add_node, {"node": node.node_id, "label": node.label, "build": node.build}
        lease = {"node": node.node_id, "at": self._connection.now(), "lease": node.lease_seconds}
        yield self._sql.add_heartbeat, lease

    def _unregister(self, node_id: str) -> Operation[None]:
        yield self._sql.remove_node, {"node": node_id}
        yield self._sql.remove_heartbeat, {"node": node_id}

    def _claim(self, key: ActorKey, fence: Fence, dead: str | None, lineage: _Lineage) -> Operation[Claim | Held]:
        actor = {"type": key.type, "id": key.id}
        who = {"node": fence.node, "number": fence.number, "dead": dead, "now": self._connection.now()}
        rows = yield self._sql.claim, actor | who
        if not rows:
            held = yield self._sql.holder, actor | {"node": fence.node}
            if not held:
                raise LeaseLostError(key)
            return Held(_rows.read_holder(key, held[0][0]))
        revision, *stamp = rows[0]
        states = yield self._sql.states, actor
        row = (revision, fence.node, fence.number, *stamp)
        found = yield from self._actor(key, row, states, lineage)
        return Claim(fence, found, datetime.now(UTC))

    def _commit(self, commit: Commit, lineage: _Lineage) -> Operation[int]:
        key = commit.key
        actor = {"type": key.type, "id": key.id}
        stamp = yield from lineage.columns(key.type, commit.stamp)
        fence = {"node": commit.fence.node, "number": commit.fence.number, "revision": commit.revision}
        rows = yield self._sql.commit, actor | fence | stamp | {"keep": not commit.release}
        if not rows:
            raise LeaseLostError(key)
        for name, data in commit.writes.items():
            if data is None:
                yield self._sql.remove_state, actor | {"name": name}
            else:
                yield self._sql.put_state, actor | {"name": name, "value": data}
        return int(rows[0][0])

    def _release(self, held: Sequence[tuple[ActorKey, Fence]]) -> Operation[None]:
        for key, fence in sorted(held, key=lambda pair: pair[0]):
            actor = {"type": key.type, "id": key.id}
            rows = yield self._sql.release, actor | {"node": fence.node, "number": fence.number}
            if rows and rows[0][0] == 0:
                yield self._sql.forget_unstored, actor

    def _read(self, key: ActorKey, lineage: _Lineage) -> Operation[StoredActor | None]:
        actor = {"type": key.type, "id": key.id}
        rows = yield self._sql.read, actor
        if not rows:
            return None
        states = yield self._sql.states, actor
        found = yield from self._actor(key, rows[0], states, lineage)
        return found if found.revision else None

    def _actor(self, key: ActorKey, row: tuple[Any, ...], states: Rows, lineage: _Lineage) -> Operation[StoredActor]:
        revision, owner, number, *stamp = row
        revision = _rows.read_count(key, "revision", revision)
        number = _rows.read_count(key, "lock's number", number)
        read = yield from lineage.stamp(key, *stamp)
        of_actor = _rows.read_states(key, revision, states)
        return StoredActor(key, revision, read, of_actor, _rows.read_owner(key, owner), number)

    def _scan(self, actor_type: str, after: str, limit: int, lineage: _Lineage) -> Operation[list[StoredActor]]:
        page = {"type": actor_type, "after": after, "limit": limit}
        actors = yield self._sql.scan, page
        if not actors:
            return []
        keys = [_rows.read_key(actor_type, actor_id) for actor_id, *_ in actors]
        states: dict[str, Rows] = {key.id: [] for key in keys}
        rows = yield self._sql.scan_states, {"type": actor_type, "after": after, "last": keys[-1].id}
        for actor_id, name, data in rows:
            if actor_id in states:
                states[actor_id].append((name, data))
        found = []
        for key, (_, *row) in zip(keys, actors, strict=True):
            found.append((yield from self._actor(key, tuple(row), states[key.id], lineage)))
        return found

    def _census(self, actor_type: str, lineage: _Lineage) -> Operation[dict[AppliedSet | None, int]]:
        rows = yield self._sql.census, {"type": actor_type}
        counts: dict[AppliedSet | None, int] = {}
        for number, count in rows:
            applied = None if number is None else (yield from lineage.get(None, number))
            counts[applied] = counts.get(applied, 0) + count
        return counts

    def _insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> Operation[frozenset[str]]:
        inserted = set()
        for actor_id, data in sorted(rows):
            actor = {"type": actor_type, "id": actor_id}
            if (yield self._sql.insert_actor, actor):
                yield self._sql.put_state, actor | {"name": state, "value": data}
                inserted.add(actor_id)
        return frozenset(inserted)


class _Lineage:
    """Names applied sets by small integers within one operation; what it learns counts once that has committed."""

    def __init__(self, dialect: Dialect, sets: dict[int, AppliedSet], ids: dict[tuple[str, AppliedSet], int]) -> None:
        self._sql = dialect
        self._sets = sets
        self._ids = ids
        self._learned: dict[int, tuple[str, AppliedSet]] = {}

    def keep(self) -> None:
        for number, (actor_type, applied) in self._learned.items():
            known = self._sets.setdefault(number, applied)
            self._ids[actor_type, known] = number

    def get(self, key: ActorKey | None, number: Any) -> Operation[AppliedSet]:
        if number in self._sets:
            return self._sets[number]
        if number in self._learned:
            return self._learned[number][1]
        rows = (yield self._sql.lineage, {"lineage": number}) if isinstance(number, int) else []
        if not rows:
            raise CorruptStateError(key, f"its migration-info names the unknown lineage {number!r}")
        actor_type, text = rows[0]
        applied = _rows.read_set(key, text)
        self._learned[number] = (actor_type, applied)
        return applied

    def _id(self, actor_type: str, applied: AppliedSet) -> Operation[int]:
        known = self._ids.get((actor_type, applied))
        if known is not None:
            return known
        named = {"type": actor_type, "applied": _rows.write_set(applied)}
        rows = yield self._sql.find_lineage, named
        if not rows:
            rows = yield self._sql.add_lineage, named
        number = int(rows[0][0])
        self._learned[number] = (actor_type, applied)
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
            "lineage": (yield from self._id(actor_type, stamp.applied)),
            "written_by": (yield from self._id(actor_type, stamp.writer)),
            "migrated_at": time,
        }


def _select(statement: str) -> Operation[Rows]:
    return (yield statement, {})
