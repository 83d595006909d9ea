"""Whole actors from one store to another.

Rules:

1. An actor is copied if the target has none, or one of a lower revision that no living node holds. So a copy may be
   stopped anywhere and run again: what was copied is passed over, by its revision alone. (Therefore the record of a
   migration that failed goes with the actor, and is not compared: it moves no revision.)
2. Releases and write versions go first: a node that starts on the target meanwhile is judged as it will be. They go
   once more before what was copied is compared: those that came meanwhile.
3. Memory is bounded by a batch, `MAX_BATCH_ACTORS` or `MAX_BATCH_BYTES`. A larger actor goes page by page, and is an
   actor in the target with its last page; if it is written meanwhile, it begins anew. One that the target has is read
   to its end first: what can't be read takes the place of nothing.
4. What was copied is not believed: both stores are read and compared afterwards, and what differs is named.
"""

from __future__ import annotations

import uuid
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lazymig import _version
from lazymig._records import ActorKey
from lazymig.copies import Put, Whole
from lazymig.errors import CorruptStateError
from lazymig.transfer._comparison import Comparison, Difference
from lazymig.transfer._contents import TRIES, merged, outlines, pages, read_content
from lazymig.transfer._lines import MAX_BATCH_ACTORS, MAX_BATCH_BYTES, MAX_KEPT_REJECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lazymig._bases import WritePolicy
    from lazymig.copies import Outline
    from lazymig.store import Store
    from lazymig.transfer._contents import Contents


_FILE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class CopiedType:
    """A type, as both stores have it.

    Attributes:
        type: Its name.
        source: What the source has of it.
        target: What the target has of it.
    """

    type: str
    source: Contents
    target: Contents


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did, or has done so far.

    Attributes:
        copied: Actors stored in the target.
        present: Actors that the target had already, of the same revision or a higher one.
        compared: Actors of the source that were read again, with the target's.
        differing: What differs: actors, and write versions.
        differences: The first 1,000 of them, by type and in order.
        types: What both stores have of each type.
    """

    copied: int = 0
    present: int = 0
    compared: int = 0
    differing: int = 0
    differences: tuple[Difference, ...] = ()
    types: tuple[CopiedType, ...] = ()

    @property
    def is_identical(self) -> bool:
        """Whether the target has what the source has of these types, and nothing else."""
        return not self.differing


async def copy(
    source: Store,
    target: Store,
    *,
    types: Iterable[str] | None = None,
    progress: Callable[[CopyReport], object] | None = None,
) -> CopyReport:
    """Copy all that is kept of actors, releases and write versions; then compare both stores.

    Locks, nodes and travelling calls are not copied. What the target has of a higher revision is left alone, and so is
    what is active there; both are named as differences, as is what was written in the source meanwhile.

    Args:
        source: Where from; only read.
        target: Where to.
        types: The actor types; None: all of which the source has something, those that come meanwhile included.
        progress: Called with what was done so far after each batch and each page. What it raises ends the copy there.

    Raises:
        ValueError: Both are the same store, or the source has no such type.
        CorruptStateError: An actor's id, its revision, or what is kept of a type can't be read. (Of an actor whatever
            else can't be read is a difference.)
        StoreError: One store's fault. What was copied stays, each actor whole; run the same copy again.
    """
    if is_one(source, target):
        raise ValueError(f"{source.name} is source and target. Name two stores.")
    run = _Copy(source, target, progress)
    stored = await source.copies.types()
    names = sorted({*(stored if types is None else types)})
    if unknown := [name for name in names if name not in stored]:
        known = ", ".join(stored) or "none"
        raise ValueError(f"{source.name} has no actor type {unknown[0]!r}; it has: {known}. Correct the name.")
    for actor_type in names:
        await run.note(actor_type)
    for actor_type in names:
        await run.copy(actor_type)
    for actor_type in await source.copies.types() if types is None else names:
        await run.compare(actor_type)
    return run.report


def is_one(source: Store, target: Store) -> bool:
    """Tell whether two stores are the same one: a file may have many names."""
    if source is target:
        return True
    files = [Path(store.name.removeprefix(_FILE)) for store in (source, target) if store.name.startswith(_FILE)]
    if len(files) == 2:
        return files[0].exists() and files[1].exists() and files[0].samefile(files[1])
    return source.name == target.name != "memory:"


class _Copy:
    """One copy and its counts."""

    def __init__(self, source: Store, target: Store, progress: Callable[[CopyReport], object] | None) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self.report = CopyReport()

    async def note(self, actor_type: str) -> None:
        """Copy what is kept of a type."""
        await self._target.copies.note(actor_type, await self._source.copies.settings(actor_type))

    async def copy(self, actor_type: str) -> None:
        """Copy the actors of a type."""
        ours = outlines(self._source, actor_type, MAX_BATCH_ACTORS)
        theirs = outlines(self._target, actor_type, MAX_BATCH_ACTORS)
        batch = _Batch()
        async with aclosing(ours), aclosing(theirs), aclosing(merged(ours, theirs)) as pairs:
            async for mine, other in pairs:
                if mine is None:
                    continue
                if other is not None and other.revision >= mine.revision:
                    self._count(present=1)
                    if self.report.present % MAX_BATCH_ACTORS == 0:
                        self._tell()
                elif mine.size > MAX_BATCH_BYTES:
                    await self._copy_large(ActorKey(actor_type, mine.id), is_there=other is not None)
                else:
                    if not batch.has_room(mine.size):
                        await self._copy_batch(actor_type, batch.take())
                    batch.add(mine)
        await self._copy_batch(actor_type, batch.take())
        self._tell()

    async def compare(self, actor_type: str) -> None:
        """Compare what both stores have of a type."""
        await self.note(actor_type)
        comparison = Comparison(self._source, self._target, actor_type, self._tell)
        compared = self.report.compared
        async for count in comparison.run():
            self.report = replace(self.report, compared=compared + count)
            self._tell()
        policies = [(await store.copies.settings(actor_type)).policy for store in (self._source, self._target)]
        if policies[0].version != policies[1].version:
            comparison.note(Difference(actor_type, None, "write_version", _other_policy(actor_type, *policies)))
        self.report = replace(
            self.report,
            differing=self.report.differing + comparison.differing,
            differences=(*self.report.differences, *comparison.differences)[:MAX_KEPT_REJECTIONS],
            types=(*self.report.types, CopiedType(actor_type, *comparison.contents)),
        )

    async def _copy_batch(self, actor_type: str, ids: Sequence[str]) -> None:
        if not ids:
            return
        try:
            wholes = await self._source.copies.read(actor_type, ids)
        except CorruptStateError:
            if len(ids) > 1:  # one of them can't be read
                for actor_id in ids:
                    await self._copy_batch(actor_type, [actor_id])
            return
        put = await self._target.copies.put(actor_type, wholes)
        self._count(copied=put.count(Put.STORED), present=put.count(Put.NOT_OLDER))
        self._tell()

    async def _copy_large(self, key: ActorKey, *, is_there: bool) -> None:
        try:
            if is_there and await read_content(self._source, key, self._tell) is None:
                return
            for _ in range(TRIES):
                put = await self._put_in_pages(key)
                if put is not None:
                    self._count(copied=put is Put.STORED, present=put is Put.NOT_OLDER)
                    return
        except CorruptStateError:
            pass

    async def _put_in_pages(self, key: ActorKey) -> Put | None:
        """Copy an actor; return None if it was written meanwhile."""
        actor = await self._source.read(key)
        if actor is None:
            return Put.NOT_OLDER
        previous = await self._source.previous(key)
        draft = uuid.uuid4().hex
        has_begun = False
        async for page in pages(self._source, key):
            if not has_begun:
                put = await self._target.copies.begin(key, actor.revision, draft, page)
                if put is not Put.STORED:
                    return put
                has_begun = True
            elif not await self._target.copies.add(key, draft, page):
                return Put.HELD
            self._tell()
        after = await self._source.read(key)
        if after is None or after.revision != actor.revision:
            return None
        whole = Whole(actor, previous=previous)
        if has_begun:
            return await self._target.copies.finish(whole, draft)
        return (await self._target.copies.put(key.type, [whole]))[0]

    def _count(self, *, copied: int = 0, present: int = 0) -> None:
        self.report = replace(self.report, copied=self.report.copied + copied, present=self.report.present + present)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report)


class _Batch:
    """Collects actors until they are as many, or as large, as a batch may be."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._size = 0

    def has_room(self, size: int) -> bool:
        return not self._ids or (len(self._ids) < MAX_BATCH_ACTORS and self._size + size <= MAX_BATCH_BYTES)

    def add(self, outline: Outline) -> None:
        self._ids.append(outline.id)
        self._size += outline.size

    def take(self) -> list[str]:
        ids, self._ids, self._size = self._ids, [], 0
        return ids


def _other_policy(actor_type: str, source: WritePolicy, target: WritePolicy) -> str:
    one, other = (
        f"{'none' if policy.version is None else _version.unpack(policy.version)} (epoch {policy.epoch})"
        for policy in (source, target)
    )
    return (
        f"the write version of {actor_type} is {one} in the source, {other} in the target, which was left as it is. "
        f"Set it by 'lazymig rollout'."
    )
