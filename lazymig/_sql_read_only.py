"""A connection that only reads: what would write is refused before anything is asked of the engine.

The engine refuses it, too: the file is opened to be read, the transactions are read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from lazymig.errors import StoreReadOnlyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from lazymig._sql_operations import Connection, Operation

T = TypeVar("T")


class ReadOnly:
    """See `Connection`.

    Args:
        connection: Carries out what only reads.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.name = connection.name
        self.is_outlived = connection.is_outlived
        self.poll_seconds = connection.poll_seconds
        self.now = connection.now
        self.is_dead = connection.is_dead

    async def run(
        self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False, brief: bool = False
    ) -> T:
        """See `Connection.run`."""
        if writes:
            self._refuse()
        return await self._connection.run(operation, writes=False, durable=durable, brief=brief)

    def watch(self, wake: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """See `Connection.watch`."""
        return self._connection.watch(wake)

    async def look(self, operation: Callable[[], Operation[T]]) -> T:
        """See `Connection.look`."""
        return await self._connection.look(operation)

    async def exclude(self, operation: Callable[[], Operation[T]], *, writes: bool = True, durable: bool = False) -> T:
        """Do as `run`: who changes nothing can't make others wait."""
        return await self.run(operation, writes=writes, durable=durable)

    async def forget(self, operation: Callable[[], Operation[T]]) -> T:
        """See `Connection.forget`."""
        return await self.run(operation)

    def enter(self, node_id: str) -> None:  # noqa: ARG002  (the Protocol's)
        """Refuse a node."""
        self._refuse()

    def leave(self, node_id: str) -> None:
        """Nothing to take back: no node entered."""

    def open_pulse(self) -> NoReturn:
        """Refuse heartbeats."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreReadOnlyError(
            f"{self.name} was opened to be read only, so nothing was written. Open it by open_store(url) to write."
        )
