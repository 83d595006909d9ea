"""The copies of a store that fails when told to; see `lazymig.testing.faults`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from lazymig._records import ActorKey, StoredActor
    from lazymig.copies import CopiedEntry, Copies, Outline, Put, TypeSettings, Whole


class FaultyCopies:
    """The copies of a `FaultyStore`.

    Args:
        copies: Those of the other store.
        pass_on: Carries an operation out, or lets it fail.
    """

    def __init__(self, copies: Copies, pass_on: Callable[[str, Coroutine[Any, Any, Any]], Awaitable[Any]]) -> None:
        self._copies = copies
        self._pass = pass_on

    async def types(self) -> Sequence[str]:
        """See `Copies.types`."""
        found: Sequence[str] = await self._pass("copied_types", self._copies.types())
        return found

    async def settings(self, actor_type: str) -> TypeSettings:
        """See `Copies.settings`."""
        found: TypeSettings = await self._pass("settings", self._copies.settings(actor_type))
        return found

    async def outlines(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[Outline]:
        """See `Copies.outlines`."""
        asked = self._copies.outlines(actor_type, after=after, limit=limit)
        found: Sequence[Outline] = await self._pass("outlines", asked)
        return found

    async def read(self, actor_type: str, ids: Sequence[str]) -> Sequence[Whole]:
        """See `Copies.read`."""
        found: Sequence[Whole] = await self._pass("read_whole", self._copies.read(actor_type, ids))
        return found

    async def note(self, actor_type: str, settings: TypeSettings) -> None:
        """See `Copies.note`."""
        await self._pass("note", self._copies.note(actor_type, settings))

    async def put(self, actor_type: str, wholes: Sequence[Whole]) -> Sequence[Put]:
        """See `Copies.put`."""
        outcomes: Sequence[Put] = await self._pass("put", self._copies.put(actor_type, wholes))
        return outcomes

    async def begin(self, key: ActorKey, revision: int, draft: str, entries: Sequence[CopiedEntry]) -> Put:
        """See `Copies.begin`."""
        outcome: Put = await self._pass("begin", self._copies.begin(key, revision, draft, entries))
        return outcome

    async def add(self, key: ActorKey, draft: str, entries: Sequence[CopiedEntry]) -> bool:
        """See `Copies.add`."""
        return bool(await self._pass("add", self._copies.add(key, draft, entries)))

    async def finish(self, actor: StoredActor, draft: str) -> Put:
        """See `Copies.finish`."""
        outcome: Put = await self._pass("finish", self._copies.finish(actor, draft))
        return outcome

    async def backup(self, file: Path, progress: Callable[[float], object]) -> None:
        """See `Copies.backup`."""
        await self._pass("backup", self._copies.backup(file, progress))
