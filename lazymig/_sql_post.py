"""Travelling calls over SQL; see `lazymig._sql` for what an operation is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from lazymig import _rows
from lazymig._fleet_records import NOBODY, Call, CallState, CallStatus, Mail
from lazymig._records import ActorKey
from lazymig._sql_operations import last
from lazymig.errors import InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._sql_operations import Connection, Operation, Rows, Statement

KEEP_SECONDS = 600.0
"""How long a call is kept whose answer nobody fetches."""

FORGET_LEASES = 10
"""After that many lease times of silence a node is forgotten."""


@dataclass(frozen=True, slots=True)
class PostDialect:
    """The statements of one engine for calls; parameters are named and bound.

    Attributes:
        ring_taker: Tells who may take a call; "" where nothing can be told.
        ring_sender: Tells who waits for its end.
    """

    send: str
    takeable: str
    wanted: str
    answers: str
    fleet: str
    taken_ids: str
    take: str
    taken: str
    answer: str
    forward: str
    cancel: str
    cancel_stored: str
    lose: str
    state: str
    remove: str
    tidy_calls: str
    silent_nodes: str
    ring_taker: str = ""
    ring_sender: str = ""


class SqlPost:
    """See `lazymig.store.Post`.

    Args:
        dialect: The statements.
        connection: Drives them.
    """

    def __init__(self, dialect: PostDialect, connection: Connection) -> None:
        self._sql = dialect
        self._connection = connection
        self._lasting = connection.is_outlived  # a step that the engine forgets would be done again by somebody else
        self.poll_seconds = connection.poll_seconds
        self.watch = connection.watch

    async def send(self, call: Call, *, max_waiting: int) -> bool:
        """See `Post.send`."""
        return await self._connection.run(partial(self._send, call, max_waiting))

    async def peek(self, node_id: str, sender: str) -> Mail:
        """See `Post.peek`."""
        return await self._connection.look(partial(self._peek, node_id, sender))

    async def take(self, node_id: str, limit: int, *, only_nested: bool = False) -> Sequence[Call]:
        """See `Post.take`."""
        of = {"node": node_id, "limit": limit, "nested": only_nested}
        return await self._connection.run(partial(self._take, of), durable=self._lasting)

    async def taken(self, node_id: str) -> Sequence[Call]:
        """See `Post.taken`."""
        return await self._connection.run(partial(self._taken, node_id), writes=False)

    async def answer(self, call_id: str, node_id: str, result: bytes, *, takes: int) -> bool:
        """See `Post.answer`."""
        of = {"call": call_id, "node": node_id, "takes": takes, "result": result, "keep": KEEP_SECONDS}
        change = partial(self._change, self._sql.answer, self._sql.ring_sender, of)
        return await self._connection.run(change, durable=self._lasting)

    async def forward(  # noqa: PLR0913  (the Protocol's)
        self,
        call_id: str,
        node_id: str,
        *,
        takes: int,
        needs: int = 0,
        target: str | None = None,
        target_seconds: float | None = None,
    ) -> bool:
        """See `Post.forward`."""
        of = {"call": call_id, "node": node_id, "takes": takes, "needs": needs, "target": target}
        of["seconds"] = target_seconds
        change = partial(self._change, self._sql.forward, self._sql.ring_taker, of)
        return await self._connection.run(change, durable=self._lasting)

    async def cancel(self, call_id: str, sender: str, *, is_stored: bool = False) -> CallState:
        """See `Post.cancel`."""
        of = {"call": call_id, "sender": sender, "keep": KEEP_SECONDS}
        statement = self._sql.cancel_stored if is_stored else self._sql.cancel
        return await self._connection.run(partial(self._end, statement, of), durable=self._lasting)

    async def lose(self, call_id: str) -> CallState:
        """See `Post.lose`."""
        return await self._connection.run(partial(self._end, self._sql.lose, {"call": call_id, "keep": KEEP_SECONDS}))

    async def remove(self, call_ids: Sequence[str]) -> None:
        """See `Post.remove`."""
        await self._connection.run(partial(self._remove, call_ids))

    async def tidy(self) -> Sequence[str]:
        """See `Post.tidy`."""
        return await self._connection.run(self._tidy)

    # --- operations --------------------------------------------------------------------------------------------

    def _now(self) -> dict[str, Any]:
        return {"now": self._connection.now()}

    def _send(self, call: Call, max_waiting: int) -> Operation[bool]:
        row = {
            "call": call.call_id,
            "type": call.key.type,
            "id": call.key.id,
            "action": call.action,
            "arguments": call.arguments,
            "sender": call.sender,
            "chain": orjson.dumps([[key.type, key.id] for key in call.chain]).decode(),
            "traceparent": call.traceparent,
            "needs": call.needs,
            "target": call.target,
            "wait": call.wait_seconds,
            "others": max_waiting - 1,
        }
        rows, *_ = yield last((self._sql.send, row | self._now()), *self._ring(self._sql.ring_taker, call.call_id))
        return bool(rows)

    def _ring(self, statement: str, call_id: str) -> Sequence[Statement]:
        return [(statement, {"call": call_id})] if statement else []

    def _peek(self, node_id: str, sender: str) -> Operation[Mail]:
        mine = {"node": node_id} | self._now()
        calls, wanted, answers, fleet, taken = yield last(
            (self._sql.takeable, mine),
            (self._sql.wanted, mine),
            (self._sql.answers, {"sender": sender} | self._now()),
            (self._sql.fleet, {}),
            (self._sql.taken_ids, {"node": node_id}),
        )
        keys = tuple(ActorKey(*row) for row in wanted)
        ends = {call_id: _state(row) for call_id, *row in answers}
        return Mail(bool(calls), keys, ends, int(fleet[0][0]), frozenset((call_id, takes) for call_id, takes in taken))

    def _take(self, of: dict[str, Any]) -> Operation[list[Call]]:
        (rows,) = yield last((self._sql.take, of | self._now()))
        return _read(rows)

    def _taken(self, node_id: str) -> Operation[list[Call]]:
        (rows,) = yield last((self._sql.taken, {"node": node_id}))
        return _read(rows)

    def _change(self, statement: str, ring: str, of: dict[str, Any]) -> Operation[bool]:
        rows, *_ = yield last((statement, of | self._now()), *self._ring(ring, of["call"]))
        return bool(rows)

    def _end(self, statement: str, of: dict[str, Any]) -> Operation[CallState]:
        of |= self._now()
        _, rows = yield last((statement, of), (self._sql.state, of))
        return _state(rows[0]) if rows else CallState(CallStatus.LOST)

    def _remove(self, call_ids: Sequence[str]) -> Operation[None]:
        yield last(*((self._sql.remove, {"call": call_id}) for call_id in sorted(call_ids)))

    def _tidy(self) -> Operation[list[str]]:
        of = {"keep": KEEP_SECONDS, "leases": FORGET_LEASES} | self._now()
        _, rows = yield last((self._sql.tidy_calls, of), (self._sql.silent_nodes, of))
        return _rows.read_nodes(rows)


def _state(row: Sequence[Any]) -> CallState:
    status, result, taker, is_alive, needs, target = row
    return CallState(CallStatus(status), result, taker, bool(is_alive), needs, target)


def _read(rows: Rows) -> list[Call]:
    """Return calls, oldest first. One that can't be read has no action, so that its sender gets an answer at least."""
    found = []
    for row in sorted(rows, key=itemgetter(0)):
        _, call_id, actor_type, actor_id, action, arguments, sender, chain, traceparent, needs, target, takes = row
        try:
            key, keys = ActorKey(actor_type, actor_id), tuple(ActorKey(*key) for key in orjson.loads(chain))
            call = Call(call_id, key, action, arguments, sender, 0.0, needs, target, keys, traceparent, takes)
        except (ValueError, TypeError, InvalidKeyError):
            call = Call(call_id, NOBODY, "", b"", str(sender), 0.0, takes=takes)
        found.append(call)
    return found
