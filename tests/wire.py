"""A wire between a store and its server that counts the turns of their talk, and can be cut."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.postgres import libpq_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Cut = Literal["before", "after"]


class Wire:
    """Passes bytes on between clients on a port and a server.

    Attributes:
        turns: How often a client spoke after the server had spoken.
        connections: How many clients came.
        refuses: Whether those that come are hung up on.
    """

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(libpq_url(url))
        self._host = str(given.get("host") or "127.0.0.1")
        self._port = int(str(given.get("port") or 5432))
        self.turns = 0
        self.connections = 0
        self.refuses = False
        self._cut: Cut | None = None
        self._marks: tuple[bytes, ...] = ()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, when: Cut, *marks: bytes) -> None:
        """Cut the next talk in which a client says one of these: before the server hears it, or after its answer."""
        self._cut, self._marks = when, marks

    @property
    def is_whole(self) -> bool:
        """Whether no cut is due any more."""
        return self._cut is None

    def cut_all(self) -> None:
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.close()
            return
        if self._host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            there = await asyncio.open_connection(self._host, self._port)
        ends = (writer, there[1])
        self._open.update(ends)
        try:
            with suppress(OSError):
                await Talk(self, reader, there, writer).carry()
        finally:
            for end in ends:
                self._open.discard(end)
                end.close()

    def take_cut(self, said: bytes) -> Cut | None:
        if self._cut is None or not any(mark in said for mark in self._marks):
            return None
        due, self._cut = self._cut, None
        return due


class Talk:
    """One client's talk with the server."""

    def __init__(
        self,
        wire: Wire,
        client: asyncio.StreamReader,
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        to_client: asyncio.StreamWriter,
    ) -> None:
        self._wire = wire
        self._client = client
        self._server, self._to_server = server
        self._to_client = to_client
        self._is_server_last = False
        self._is_deaf = False

    async def carry(self) -> None:
        both = [asyncio.ensure_future(self._up()), asyncio.ensure_future(self._down())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _up(self) -> None:
        while data := await self._client.read(1 << 20):
            self._wire.turns += self._is_server_last
            self._is_server_last = False
            due = self._wire.take_cut(data)
            if due == "before":
                return
            self._is_deaf |= due == "after"
            self._to_server.write(data)
            await self._to_server.drain()

    async def _down(self) -> None:
        while data := await self._server.read(1 << 20):
            self._is_server_last = True
            if self._is_deaf:
                if b"Z\x00\x00\x00\x05" in data:  # ReadyForQuery: the transaction has ended
                    return
                continue
            self._to_client.write(data)
            await self._to_client.drain()


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """Yield a wire to a store's server, and the store's URL through it."""
    wire = Wire(url)
    server = await asyncio.start_server(wire._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    given = conninfo_to_dict(libpq_url(url))
    ours = url.partition("?")[2].split("&")
    kept = "&".join(option for option in ours if option.partition("=")[0] in {"schema", "pool", "partitions"})
    user, database = quote(str(given["user"])), quote(str(given["dbname"]))
    try:
        yield wire, f"postgresql://{user}@127.0.0.1:{port}/{database}?sslmode=disable&gssencmode=disable&{kept}"
    finally:
        wire.cut_all()
        server.close()
        await server.wait_closed()
