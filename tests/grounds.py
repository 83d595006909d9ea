"""Where a recorded history happens: a SQLite file, or a schema of a PostgreSQL server, and what is done to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from tests import beside, postgres
from tests.processes import writing

if TYPE_CHECKING:
    import random
    from pathlib import Path


class Ground(Protocol):
    """Where the actors are.

    Attributes:
        url: The store's.
        path: The file that nobody may stop in the middle of writing, or None.
        pauses: Seconds between two disturbances.
    """

    url: str
    path: Path | None
    pauses: tuple[float, float]

    async def disturb(self, chance: random.Random) -> None:
        """Do something to the store."""
        ...

    def read(self) -> beside.Reading:
        """Read it beside the library, and check it by the engine's own means."""
        ...


class FileGround:
    """A SQLite file; now and then nobody can write, so that writes queue."""

    pauses = (0.2, 1.0)

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.url = f"sqlite:///{path}?synchronous=normal"
        self._path = path

    async def disturb(self, chance: random.Random) -> None:
        """See `Ground.disturb`."""
        with writing(self._path):
            await asyncio.sleep(chance.uniform(0.01, 0.05))

    def read(self) -> beside.Reading:
        """See `Ground.read`."""
        return beside.read(self._path)


class ServerGround:
    """A schema of PostgreSQL; now and then the server is restarted, in good order or by killing it."""

    pauses = (2.0, 5.0)
    path: Path | None = None

    def __init__(self, server: postgres.Server, url: str) -> None:
        self.url = url
        self.restarts = 0
        self._server = server

    async def disturb(self, chance: random.Random) -> None:
        """See `Ground.disturb`."""
        await asyncio.to_thread(self._server.restart, chance.choice(["fast", "immediate"]))
        self.restarts += 1

    def read(self) -> beside.Reading:
        """See `Ground.read`."""
        if self._server.has_amcheck:
            self._server.check_pages(postgres.schema_of(self.url))
        with postgres.connect(postgres.libpq_url(self.url)) as connection:
            return beside.rows_of_schema(connection, postgres.schema_of(self.url))
