"""Where PostgreSQL's statements run: on a small pool of connections, a batch in one trip.

Rules:

1. A batch of one whole statement is sent as such. Another one is a pipeline: what the server carries out up to the
   sync is one implicit transaction, in which each statement has its own snapshot. An operation whose first batch is
   `last` needs no BEGIN and no COMMIT; another one gets a BEGIN with its first batch, and its COMMIT travels with the
   last one.
2. Nothing is kept in a session: no prepared statements, no settings beyond the transaction. So a pooler may give each
   transaction another server connection.
3. What was begun goes on when its await is cancelled: it runs in a task of its own. What still waits for a connection
   then is dropped.
4. A connection goes back to the pool idle, or closed. One that the server closed meanwhile shows it: something can be
   read from it. So it is replaced without a trip.
5. An operation has one connection, and waits for it only so long; while it waits, connecting is tried again and again.
   (The pool's own waiting would double its pause with each failed attempt, and be late when the server is back.)
6. Nobody waits for others to come. But brief operations that wait for a connection at the same time go together when
   one is free (see `lazymig._postgres_walk`), if the commits of all, or of none, wait for the disk: a function that
   doesn't says so for its whole transaction. If one fails, each goes by itself.
7. What fails or is cut off before the sync was sent ends its connection: a sync would commit what was sent by then.
8. Only a server that answers, and goes on, is believed that it stored nothing. When a connection is lost after the last
   of a batch was sent, nobody knows.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import psycopg_pool
from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus

from lazymig._postgres_errors import translate
from lazymig._postgres_walk import ALONE, Walk
from lazymig._uncut import End
from lazymig.errors import (
    StoreClosedError,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from lazymig._sql_operations import Operation

T = TypeVar("T")

WAIT_SECONDS = 10.0
"""How long an operation waits for a connection: longer than a server takes to restart."""

RETRY_SECONDS = 0.25
"""How soon connecting is tried again while an operation waits."""

MIN_SECONDS = 0.01
"""How long one waits at least, whose time is over."""

ANSWER_SECONDS = 60.0
"""How long a server may take for one operation before its connection is given up."""

CONNECT_SECONDS = 5
"""How long one attempt to connect may take, a whole number for libpq."""

CONNECTING: Mapping[str, Any] = {
    "application_name": "lazymig",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""What the URL doesn't say. A host that vanished is noticed after 20 to 25 seconds."""

LARGEST = 20
"""How many operations go together at most: with as many, a trip and a commit of their own cost each next to nothing."""

PAUSES = (0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
"""Seconds between tries to lock a table: at each try whoever claims or commits waits behind it a moment at most, and in
between they go on."""


@dataclass(slots=True, eq=False)
class _Waiting:
    operation: Callable[[], Operation[Any]]
    is_durable: bool
    ended: asyncio.Future[Any]
    is_taken: bool = False


def _settle(ended: asyncio.Future[Any], outcome: Any) -> None:
    """Tell an outcome, unless nobody waits for it any more."""
    if ended.done():
        return
    if isinstance(outcome, asyncio.CancelledError):
        ended.cancel()
    elif isinstance(outcome, BaseException):
        ended.set_exception(outcome)
    else:
        ended.set_result(outcome)


def _is_idle(connection: AsyncConnection[Any]) -> bool:
    """Tell whether the next operation may have it."""
    line = connection.pgconn
    return line.transaction_status == TransactionStatus.IDLE and line.pipeline_status == PipelineStatus.OFF


def is_quiet(connection: psycopg.Connection[Any] | AsyncConnection[Any]) -> bool:
    """Tell whether an idle connection is as it was left: a server that closes it says so, or just hangs up."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def hang_up(connection: psycopg.Connection[Any] | AsyncConnection[Any]) -> None:
    """End a connection whose server doesn't answer: whoever waits for it fails at once."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class Driver:
    """Runs operations on a pool of connections.

    Args:
        conninfo: What libpq connects to.
        name: The store's, for people.
        schema: Of its tables, likewise.
        size: How many connections there are at most.
        read_only: Whether the server is to refuse what would write.

    Attributes:
        trips: How many round trips were made.
        wait_seconds: See `WAIT_SECONDS`.
        answer_seconds: See `ANSWER_SECONDS`.
    """

    def __init__(self, conninfo: str, name: str, schema: str, size: int, *, read_only: bool = False) -> None:
        self.trips = 0
        self.wait_seconds = WAIT_SECONDS
        self.answer_seconds = ANSWER_SECONDS
        self._name = name
        self._schema = schema
        self._size = size
        self._read_only = read_only
        self._is_closed = False
        self._running: set[asyncio.Task[Any]] = set()
        self._waiting: deque[_Waiting] = deque()
        self._refusal: psycopg.Error | None = None
        self._pool = psycopg_pool.AsyncConnectionPool(
            conninfo,
            connection_class=_noting(self._note),
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=size,
            open=False,
            reconnect_timeout=-1.0,  # see rule 5; 0 would still be tried a second time, a second later
            name="lazymig",
        )

    def _note(self, refusal: psycopg.Error | None) -> None:
        self._refusal = refusal

    async def open(self) -> None:
        """Begin to connect."""
        await self._pool.open()

    async def close(self) -> None:
        """Finish what was begun, and disconnect."""
        self._is_closed = True
        while self._running:
            await asyncio.wait(self._running)
        await self._pool.close()

    async def run(
        self,
        operation: Callable[[], Operation[T]],
        *,
        writes: bool,
        durable: bool,
        brief: bool = False,
        counts: bool = True,
    ) -> T:
        """Drive an operation; see `Connection.run`.

        Args:
            operation: Makes the generator.
            writes: Whether it may write.
            durable: Whether its commit waits for the disk.
            brief: Whether it may go with others if it has to wait.
            counts: Whether its trips are counted.
        """
        if self._is_closed:
            raise StoreClosedError(self._name)
        if brief and len(self._running) >= self._size:
            return await self._waits(operation, durable=durable)
        has_begun = asyncio.Event()
        task = self._begin(self._run(operation(), has_begun, writes=writes, durable=durable, counts=counts))
        try:
            await End(task)
        except asyncio.CancelledError:
            if not has_begun.is_set():
                task.cancel()
            task.add_done_callback(_take_note)
            raise
        return task.result()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        group: list[_Waiting] = []
        while self._waiting and len(group) < LARGEST:
            first = self._waiting[0]
            if first.ended.done():  # cut off, or given up
                self._waiting.popleft()
            elif not group or first.is_durable == group[0].is_durable:
                group.append(self._waiting.popleft())
            else:
                break
        for waiting in group:
            waiting.is_taken = True
        if group:
            self._begin(self._run_group(group, durable=group[0].is_durable))

    async def _waits(self, operation: Callable[[], Operation[T]], *, durable: bool) -> T:
        """Wait for a connection with others."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[T] = loop.create_future()
        waiting = _Waiting(operation, durable, ended)
        self._waiting.append(waiting)
        watch = loop.call_later(self.wait_seconds, self._give_up, waiting)
        try:
            return await ended
        finally:
            watch.cancel()

    def _give_up(self, waiting: _Waiting) -> None:
        if not waiting.is_taken:
            _settle(waiting.ended, self._no_connection(psycopg_pool.PoolTimeout("all are in use")))

    async def _run_group(self, group: Sequence[_Waiting], *, durable: bool) -> None:
        """Drive operations that waited, together; each by itself if that fails, or can't be."""
        outcomes: list[Any]
        walk = None
        try:
            try:
                async with self._walk(syncs=True, writes=True) as walk:  # a function says itself what needs no sync
                    outcomes = await walk.take_together([waiting.operation() for waiting in group])
            except Exception as error:
                outcomes = [error if walk is None or walk.is_unknown else ALONE] * len(group)
            deadline = asyncio.get_running_loop().time() + self.wait_seconds
            for waiting, outcome in zip(group, outcomes, strict=True):
                is_alone = outcome is ALONE
                _settle(waiting.ended, await self._alone(waiting, deadline, durable=durable) if is_alone else outcome)
        except BaseException as error:
            for waiting in group:
                _settle(waiting.ended, error)
            raise

    async def _alone(self, waiting: _Waiting, deadline: float, *, durable: bool) -> Any:
        """Drive one that waited; return what it returns or raises."""
        try:
            async with self._walk(syncs=durable, writes=True, deadline=deadline) as walk:
                return await walk.take(waiting.operation())
        except Exception as error:
            return error

    async def _run(
        self, operation: Operation[T], has_begun: asyncio.Event, *, writes: bool, durable: bool, counts: bool
    ) -> T:
        async with self._walk(syncs=durable or not writes, writes=writes, counts=counts) as walk:
            has_begun.set()
            return await walk.take(operation)

    @asynccontextmanager
    async def _walk(
        self, *, syncs: bool, writes: bool, counts: bool = True, deadline: float | None = None
    ) -> AsyncIterator[Walk]:
        """Lend a connection to carry operations out on."""
        async with self._lent(deadline) as connection:
            walk = Walk(connection, syncs=syncs, read_only=self._read_only)
            watch = asyncio.get_running_loop().call_later(self.answer_seconds, hang_up, connection)
            try:
                yield walk
            except psycopg.Error as error:
                stored = "Whether it was stored is unknown. " if walk.is_unknown else "Nothing was stored. "
                raise translate(error, self._name, self._schema, stored if writes else "") from error
            finally:
                watch.cancel()
                self.trips += walk.trips if counts else 0

    @asynccontextmanager
    async def _lent(self, deadline: float | None = None) -> AsyncIterator[AsyncConnection[Any]]:
        connection = await self._borrow(deadline)
        try:
            yield connection
        except StoreReadOnlyError:  # its server is no primary any more: the next connection may find the one that is
            await connection.close()
            raise
        finally:
            if not _is_idle(connection):
                await connection.close()
            await self._pool.putconn(connection)

    async def _borrow(self, deadline: float | None) -> AsyncConnection[Any]:
        clock = asyncio.get_running_loop().time
        if deadline is None:
            deadline = clock() + self.wait_seconds
        while True:
            try:
                timeout = min(RETRY_SECONDS, max(deadline - clock(), MIN_SECONDS))
                connection = await self._pool.getconn(timeout=timeout)
            except psycopg_pool.PoolTimeout as error:
                if clock() >= deadline:
                    raise self._no_connection(error) from (self._refusal or error)
                continue
            except psycopg_pool.PoolClosed as error:
                raise StoreClosedError(self._name) from error
            if is_quiet(connection):
                return connection
            await connection.close()
            await self._pool.putconn(connection)

    def _no_connection(self, error: psycopg.Error) -> StoreError:
        if self._refusal is not None:
            return translate(self._refusal, self._name, self._schema, "Nothing was stored. ")
        return StoreUnavailableError(
            f"{self._name} had no connection free for {self.wait_seconds:g} seconds ({error}). Nothing was stored. "
            f"Try again; if it stays so, raise ?pool= (now {self._size})."
        )


def _noting(note: Callable[[psycopg.Error | None], None]) -> type[AsyncConnection[Any]]:
    """Return a kind of connection that notes why it could not be made: the pool would only log it."""

    class Noting(AsyncConnection[Any]):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                connection = await super().connect(*args, **kwargs)
            except psycopg.Error as error:
                note(error)
                raise
            note(None)
            return connection

    return Noting


def _take_note(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
