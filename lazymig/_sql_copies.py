"""Whole actors over SQL; see `lazymig._sql` for what an operation is.

What takes actors names all applied sets before it locks a row, as commits do: whoever names a new set waits for others
that name it, and must have nothing then that they may wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lazymig import _rows
from lazymig._sql_copy_rows import NOTHING, Values, entries_of, entry_values, values_of
from lazymig._sql_operations import last, trip
from lazymig._sql_previous import previous_of
from lazymig.copies import CopiedEntry, Outline, Put, TypeSettings, Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from lazymig._records import ActorKey, StoredActor
    from lazymig._sql_lineage import Learning, Lineage
    from lazymig._sql_operations import Connection, Found, Operation, Rows, Statement


class CopyDealing(Protocol):
    """How an engine reads and writes many actors of a ``type`` at once: each of these is a part of an operation."""

    def read(self, actor_type: str, ids: Sequence[str]) -> Operation[list[tuple[Any, Found, Rows, Rows]]]:
        """Return id, actor, its entries in order, and what is kept from before; each from one snapshot.

        Of an entry: table, key, value and lineage; of what is kept: name and value of a state, and `Lineage.stamp`'s.
        """
        ...

    def take(self, of: Mapping[str, Any], actors: Sequence[Mapping[str, Any]]) -> Operation[set[str]]:
        """Write rows of actors where there are none, or older ones that nobody holds, and lock them.

        Args:
            of: Their ``type``; ``now`` by the store's clock; ``below``: also what is of a lower revision is older.
            actors: ``id`` and `NOTHING`'s columns of each, in order of their ids.

        Returns:
            The ids of those written.
        """
        ...

    def clear(self, actor_type: str, ids: Sequence[str]) -> Operation[None]:
        """Remove all that is stored of some actors but their rows, drafts included."""
        ...

    def fill(self, actor_type: str, values: Values) -> Operation[None]:
        """Store values; entries that are there already are replaced."""
        ...


@dataclass(frozen=True, slots=True)
class CopyDialect:
    """The statements of one engine for copies; parameters are named and bound.

    Attributes:
        dealing: What is done with many actors at once.
        backup: See `Copies.backup`.
        lock_policies: See `RulingDialect.lock_policies`.
    """

    types: str
    outlines: str
    policy: str
    releases: str
    put_policy: str
    put_release: str
    revision: str
    has_draft: str
    put_draft: str
    lock_draft: str
    end_draft: str
    dealing: CopyDealing
    backup: Callable[[Path, Callable[[float], object]], Coroutine[Any, Any, None]]
    lock_policies: Sequence[str] = ()


class _DraftLostError(Exception):
    """Another copy has begun its own: nothing is to be stored."""


class SqlCopies:
    """See `lazymig.copies.Copies`.

    Args:
        dialect: The statements.
        connection: Drives them.
        learning: Drives those that name sets.
        read_actor: Reads an actor's rows.
    """

    def __init__(
        self,
        dialect: CopyDialect,
        connection: Connection,
        learning: Learning,
        read_actor: Callable[[ActorKey, Found, Lineage], Operation[StoredActor]],
    ) -> None:
        self._sql = dialect
        self._connection = connection
        self._learning = learning
        self._read_actor = read_actor

    async def types(self) -> Sequence[str]:
        """See `Copies.types`."""
        rows = await self._connection.run(partial(self._select, self._sql.types, {}), writes=False)
        return [_rows.read_type(name) for (name,) in rows]

    async def settings(self, actor_type: str) -> TypeSettings:
        """See `Copies.settings`."""
        return await self._connection.run(partial(self._settings, actor_type), writes=False)

    async def outlines(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[Outline]:
        """See `Copies.outlines`."""
        of = {"type": actor_type, "after": after, "limit": limit}
        rows = await self._connection.run(partial(self._select, self._sql.outlines, of), writes=False)
        keys = [_rows.read_key(actor_type, actor_id) for actor_id, _, _ in rows]
        return [
            Outline(key.id, _rows.read_count(key, "revision", revision), int(size))
            for key, (_, revision, size) in zip(keys, rows, strict=True)
        ]

    async def read(self, actor_type: str, ids: Sequence[str]) -> Sequence[Whole]:
        """See `Copies.read`."""
        return await self._learning.run(partial(self._read, actor_type, sorted({*ids})), writes=False)

    async def note(self, actor_type: str, settings: TypeSettings) -> None:
        """See `Copies.note`."""
        await self._connection.exclude(partial(self._note, actor_type, settings), durable=True)

    async def put(self, actor_type: str, wholes: Sequence[Whole]) -> Sequence[Put]:
        """See `Copies.put`."""
        return await self._learning.run(partial(self._put, actor_type, wholes), durable=True)

    async def begin(self, key: ActorKey, revision: int, draft: str, entries: Sequence[CopiedEntry]) -> Put:
        """See `Copies.begin`."""
        return await self._learning.run(partial(self._begin, key, revision, draft, entries), durable=True)

    async def add(self, key: ActorKey, draft: str, entries: Sequence[CopiedEntry]) -> bool:
        """See `Copies.add`."""
        return await self._learning.run(partial(self._add, key, draft, entries), durable=True)

    async def finish(self, whole: Whole, draft: str) -> Put:
        """See `Copies.finish`."""
        try:
            return await self._learning.run(partial(self._finish, whole, draft), durable=True)
        except _DraftLostError:
            return Put.HELD

    async def backup(self, file: Path, progress: Callable[[float], object]) -> None:
        """See `Copies.backup`."""
        await self._sql.backup(file, progress)

    # --- operations --------------------------------------------------------------------------------------------

    def _select(self, statement: str, of: Mapping[str, Any]) -> Operation[Rows]:
        (rows,) = yield last((statement, of))
        return rows

    def _settings(self, actor_type: str) -> Operation[TypeSettings]:
        of = {"type": actor_type}
        policy, releases = yield last((self._sql.policy, of), (self._sql.releases, of))
        return TypeSettings(
            _rows.read_policy(None, actor_type, *(policy[0] if policy else (None, None))),
            [_rows.read_release(actor_type, *row) for row in releases],
        )

    def _read(self, actor_type: str, ids: Sequence[str], lineage: Lineage) -> Operation[list[Whole]]:
        rows = yield from self._sql.dealing.read(actor_type, ids)
        wholes = []
        for actor_id, found, entries, kept in rows:
            key = _rows.read_key(actor_type, actor_id)
            actor = yield from self._read_actor(key, found, lineage)
            previous = yield from previous_of(key, kept, lineage)
            if actor.revision:
                wholes.append(Whole(actor, tuple((yield from entries_of(key, entries, lineage))), previous))
        return wholes

    def _note(self, actor_type: str, settings: TypeSettings) -> Operation[None]:
        for release in settings.releases:
            seen = {"seen_at": _rows.write_time(release.seen_at)}
            yield trip((self._sql.put_release, {"type": actor_type, **_rows.write_release(release), **seen}))
        if settings.policy.epoch:
            policy = {"type": actor_type, "version": settings.policy.version, "epoch": settings.policy.epoch}
            locks: list[Statement] = [(lock, {}) for lock in self._sql.lock_policies]
            yield trip(*locks, (self._sql.put_policy, policy))

    def _put(self, actor_type: str, wholes: Sequence[Whole], lineage: Lineage) -> Operation[list[Put]]:
        ordered = sorted(wholes, key=_id_of)
        rows = []
        for whole in ordered:
            row = yield from self._columns(whole.actor, lineage, has_entries=bool(whole.entries))
            rows.append(row)
        values = yield from values_of(ordered, lineage)
        taken = yield from self._take(actor_type, rows)
        ours = [whole for whole in ordered if whole.actor.key.id in taken]
        if ours:
            if len(ours) < len(ordered):
                values = yield from values_of(ours, lineage)
            yield from self._sql.dealing.clear(actor_type, [whole.actor.key.id for whole in ours])
            yield from self._sql.dealing.fill(actor_type, values)
        outcomes = []
        for whole in wholes:
            outcome = yield from self._outcome(whole.actor.key, whole.actor.revision, taken)
            outcomes.append(outcome)
        return outcomes

    def _begin(
        self, key: ActorKey, revision: int, draft: str, entries: Sequence[CopiedEntry], lineage: Lineage
    ) -> Operation[Put]:
        rows = yield from entry_values(key, entries, lineage)
        taken = yield from self._take(key.type, [{**NOTHING, "id": key.id}], below=revision)
        if taken:
            yield from self._sql.dealing.clear(key.type, [key.id])
            yield trip((self._sql.put_draft, _of_draft(key, draft)))
            yield from self._sql.dealing.fill(key.type, Values([], [], [], [], rows))
        return (yield from self._outcome(key, revision, taken))

    def _add(self, key: ActorKey, draft: str, entries: Sequence[CopiedEntry], lineage: Lineage) -> Operation[bool]:
        rows = yield from entry_values(key, entries, lineage)
        (found,) = yield trip((self._sql.lock_draft, _of_draft(key, draft)))
        if found:
            yield from self._sql.dealing.fill(key.type, Values([], [], [], [], rows))
        return bool(found)

    def _finish(self, whole: Whole, draft: str, lineage: Lineage) -> Operation[Put]:
        key = whole.actor.key
        (found,) = yield trip((self._sql.has_draft, _of_draft(key, draft)))
        if not found:
            return Put.HELD
        row = yield from self._columns(whole.actor, lineage, has_entries=True)
        values = yield from values_of([whole], lineage)
        taken = yield from self._take(key.type, [row])
        (ended,) = yield trip((self._sql.end_draft, _of_draft(key, draft)))
        if not taken or not ended:
            raise _DraftLostError
        yield from self._sql.dealing.fill(key.type, values)
        return Put.STORED

    def _take(self, actor_type: str, rows: Sequence[Mapping[str, Any]], below: int = 0) -> Operation[set[str]]:
        of = {"type": actor_type, "now": self._connection.now(), "below": below}
        return (yield from self._sql.dealing.take(of, rows))

    def _outcome(self, key: ActorKey, revision: int, taken: set[str]) -> Operation[Put]:
        if key.id in taken:
            return Put.STORED
        (rows,) = yield trip((self._sql.revision, {"type": key.type, "id": key.id}))
        return Put.NOT_OLDER if rows and rows[0][0] >= revision else Put.HELD

    def _columns(self, actor: StoredActor, lineage: Lineage, *, has_entries: bool) -> Operation[dict[str, Any]]:
        """Return an actor's row; of one of which nothing is stored but its revision it has no set."""
        row = {**NOTHING, "id": actor.key.id, "revision": actor.revision}
        if actor.states or actor.base is not None or has_entries:
            row |= yield from lineage.columns(actor.key.type, actor.stamp)
        row["failing"] = actor.failure is not None
        row |= {"converting": actor.marks.converting, "oldest": actor.marks.oldest}
        if actor.base is not None:
            number = yield from lineage.id(actor.key.type, actor.base.applied)
            row |= {"base_lineage": number, "base_revision": actor.base.revision, "base_digest": actor.base.digest}
        return row


def _id_of(whole: Whole) -> str:
    return whole.actor.key.id


def _of_draft(key: ActorKey, draft: str) -> dict[str, Any]:
    return {"type": key.type, "id": key.id, "draft": draft}
