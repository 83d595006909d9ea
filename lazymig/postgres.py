"""PostgreSQL: opening a schema, a connection for the store's operations, and one for heartbeats.

Rules:

1. Time is the server's: nodes on machines with different clocks agree on who is alive. Only tests bring their own.
2. The layout is looked at before anything is changed, and laid out in one transaction under an advisory lock: of many
   that open an empty database at once one lays it out, and the others find it.
3. The first connection is a plain one, so that what is wrong with URL, server or rights is said at once by its name.
4. A heartbeat has a connection and a thread of its own; each beat that fails raises, and the next one connects anew,
   as does one that finds its connection closed. One without an answer is given up after as long as connecting may take.
"""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lazymig import _postgres_sql as sql
from lazymig._postgres_copy_sql import copy_dialect
from lazymig._postgres_dealing import dialect
from lazymig._postgres_driver import CONNECT_SECONDS, CONNECTING, PAUSES, Driver, hang_up, is_quiet
from lazymig._postgres_errors import IN_THE_WAY, in_use, translate
from lazymig._postgres_failure_sql import failure_dialect
from lazymig._postgres_opening import check_readable, check_server, lay_out
from lazymig._postgres_post_sql import LISTEN, post_dialect
from lazymig._postgres_ruling_sql import ruling_dialect
from lazymig._sql import SqlStore
from lazymig._sql_failures import SqlFailures
from lazymig._sql_operations import trip
from lazymig._sql_post import SqlPost
from lazymig._sql_read_only import ReadOnly
from lazymig.errors import InvalidStoreUrlError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from lazymig._sql_operations import Operation

T = TypeVar("T")

EXCLUDE_SECONDS = 10.0
"""How long a ruling tries again that others were in the way of, as whoever reads a policy is when it is changed."""

LISTEN_AGAIN_SECONDS = 5.0
"""How soon a connection for notifications that was lost is made anew: nothing depends on it."""

_UNKNOWN_OPTION = re.compile(r'invalid URI query parameter: "([A-Za-z_]+)"')
_WRONG_OPTION = re.compile(
    r"(invalid \w+ value|invalid port number|bad value for|definition of service|could not parse network address).*"
)
"""What libpq says of the options' values, once it connects."""

_PORTS = re.compile(r"[0-9,]*")

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is.

    Attributes:
        name: Its URL, the password hidden.
        conninfo: What libpq connects to.
        schema: Of its tables.
        partitions: Of the tables that grow, 1 for none; None: as it is.
        pool: How many connections a process has at most, beside one for each node's heartbeats.
    """

    name: str
    conninfo: str = field(repr=False)
    schema: str = "lazymig"
    partitions: int | None = None
    pool: int = 4


def read_conninfo(url: str, name: str) -> str:
    """Return what libpq connects to, completed by what the URL doesn't say.

    Raises:
        InvalidStoreUrlError: libpq doesn't understand it. What it says is not passed on: a password may be in it.
    """
    quoting = "in a user's name or password write @ : / ? # % as %40 %3A %2F %3F %23 %25"
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        unknown = _UNKNOWN_OPTION.search(str(error))
        raise InvalidStoreUrlError(name, f"unknown option {unknown[1]!r}" if unknown else quoting) from None
    if "@" in str(given.get("host", "")) or not _PORTS.fullmatch(str(given.get("port", ""))):
        raise InvalidStoreUrlError(name, quoting)
    return make_conninfo(**{**CONNECTING, **given, "client_encoding": "utf8"})


class PostgresPulse:
    """Heartbeats on a connection of their own, so that neither a busy loop nor a busy store delays them."""

    def __init__(self, place: Place, clock: Callable[[], float] | None) -> None:
        self._place = place
        self._clock = clock
        self._beat = sql.in_schema(sql.STATEMENTS["beat"], place.schema)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        with _translating(place):
            self._live()

    def _live(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is not None and not is_quiet(self._connection):
            self.close()
        if self._connection is None:
            self._connection = psycopg.connect(self._place.conninfo, autocommit=True, prepare_threshold=None)
        return self._connection

    def beat(self, node_id: str, active: int = 0) -> bool:
        """See `Pulse.beat`."""
        with _translating(self._place):
            connection = self._live()
            watch = threading.Timer(CONNECT_SECONDS, hang_up, [connection])
            watch.daemon = True
            watch.start()
            try:
                now = None if self._clock is None else self._clock()
                cursor = connection.execute(self._beat, {"at": now, "node": node_id, "active": active})
            except BaseException:
                self.close()
                raise
            finally:
                watch.cancel()
            return cursor.rowcount == 1

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresConnection:
    """The `Connection` of a PostgreSQL store.

    Attributes:
        name: The store's URL, the password hidden.
        commits: How many operations were durable.
        driver: Where they run.
    """

    poll_seconds = 0.05
    is_outlived = True

    def __init__(self, driver: Driver, place: Place, clock: Callable[[], float] | None) -> None:
        self.name = place.name
        self.commits = 0
        self.driver = driver
        self._place = place
        self._clock = clock

    @property
    def trips(self) -> int:
        """How many round trips were made."""
        return self.driver.trips

    async def run(
        self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False, brief: bool = False
    ) -> T:
        """See `Connection.run`."""
        self.commits += durable
        return await self.driver.run(operation, writes=writes, durable=durable, brief=brief and writes)

    @asynccontextmanager
    async def watch(self, wake: Callable[[str], None]) -> AsyncIterator[None]:
        """See `Post.watch`: by a connection of its own that listens."""
        listening = asyncio.create_task(_listen(self._place, wake))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def look(self, operation: Callable[[], Operation[T]]) -> T:
        """See `Connection.look`."""
        return await self.driver.run(operation, writes=False, durable=False, counts=False)

    async def exclude(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """See `Connection.exclude`: by a lock that no claim or commit waits for, until a policy is changed."""
        lock = sql.in_schema(sql.LOCK_RULINGS, self._place.schema)
        begin = partial(_locked, lock, operation, wait=sql.LOCK_IN_TURN)
        clock = asyncio.get_running_loop().time
        deadline = clock() + EXCLUDE_SECONDS
        pauses = chain(PAUSES, repeat(PAUSES[-1]))
        while True:
            try:
                return await self.run(begin, writes=writes, durable=durable)
            except StoreUnavailableError as error:  # unless it was in the way, it may have been done
                left = deadline - clock()
                if left < 0 or not isinstance(error.__cause__, IN_THE_WAY):
                    raise in_use(error, self.name, self._place.schema, EXCLUDE_SECONDS) from error.__cause__
            await asyncio.sleep(min(next(pauses), left))

    async def forget(self, operation: Callable[[], Operation[T]]) -> T:
        """See `Connection.forget`: the table of nodes is locked for a moment, which every claim and commit reads."""
        lock = sql.in_schema(sql.LOCK_NODES, self._place.schema)
        for pause in PAUSES:
            try:
                return await self.run(partial(_locked, lock, operation), durable=True)
            except StoreUnavailableError as error:
                await asyncio.sleep(pause if isinstance(error.__cause__, IN_THE_WAY) else 0.0)
        return await self.run(partial(_locked, lock, operation), durable=True)

    def now(self) -> float | None:
        """Return the tests' clock, if there is one."""
        return None if self._clock is None else self._clock()

    def enter(self, node_id: str) -> None:
        """Nothing shows that a node lives but its heartbeat."""

    def leave(self, node_id: str) -> None:
        """Likewise."""

    def is_dead(self, node_id: str) -> bool:  # noqa: ARG002  (the Protocol's)
        """Only a heartbeat's age tells."""
        return False

    def open_pulse(self) -> PostgresPulse:
        """See `Store.open_pulse`."""
        return PostgresPulse(self._place, self._clock)


@asynccontextmanager
async def open_postgres(
    place: Place, *, create: bool = True, read_only: bool = False, clock: Callable[[], float] | None = None
) -> AsyncIterator[SqlStore]:
    """Open the store in a schema of a PostgreSQL database, laid out if it isn't yet.

    Args:
        place: Where it is.
        create: Whether a missing layout is made.
        read_only: See `open_store`.
        clock: Seconds of a clock that all processes share, instead of the server's: for tests.

    Raises:
        StoreError: It can't be opened, or is no store of this release; nothing was changed then.
    """
    with _translating(place):
        async with await _connect(place) as connection:
            await check_server(connection, place, read_only=read_only)
            await (check_readable(connection, place) if read_only else lay_out(connection, place, create=create))
    schema = place.schema
    driver = Driver(place.conninfo, place.name, schema, place.pool, read_only=read_only)
    await driver.open()
    try:
        opened = PostgresConnection(driver, place, clock)
        lent = ReadOnly(opened) if read_only else opened
        dialects = dialect(schema), ruling_dialect(schema), copy_dialect(schema, place.name)
        post, failures = SqlPost(post_dialect(schema), lent), SqlFailures(failure_dialect(schema), lent)
        yield SqlStore(*dialects, lent, post, failures)
    finally:
        await driver.close()


async def _connect(place: Place) -> _Connection:
    try:
        return await psycopg.AsyncConnection.connect(place.conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        if wrong := _WRONG_OPTION.search(str(error)):
            raise InvalidStoreUrlError(place.name, wrong[0]) from None
        raise


async def _listen(place: Place, wake: Callable[[str], None]) -> None:
    """Wake whoever notifications name, until cancelled; while there is no connection, looking for mail is enough."""
    while True:
        with suppress(psycopg.Error, StoreError):
            async with await _connect(place) as connection:
                await connection.execute(LISTEN)
                wake("")
                async for notification in connection.notifies():
                    wake(notification.payload)
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


def _locked(lock: str, operation: Callable[[], Operation[T]], *, wait: str = sql.LOCK_SOON) -> Operation[T]:
    yield trip((wait, {}), (lock, {}))
    return (yield from operation())


@contextmanager
def _translating(place: Place) -> Iterator[None]:
    """Let no driver error out."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, place.name, place.schema, "") from error
