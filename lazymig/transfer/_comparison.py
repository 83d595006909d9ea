"""What two stores have of an actor type, compared actor by actor."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazymig._records import ActorKey
from lazymig.errors import CorruptStateError
from lazymig.transfer._contents import Sum, content_of, merged, outlines, read_content
from lazymig.transfer._lines import MAX_BATCH_ACTORS, MAX_BATCH_BYTES, MAX_KEPT_REJECTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from lazymig.copies import Outline
    from lazymig.store import Store
    from lazymig.transfer._contents import Content, Contents


@dataclass(frozen=True, slots=True)
class Difference:
    """What two stores do not have alike.

    Attributes:
        type: The actor type.
        id: The actor; None if it is about the type.
        code: ``newer`` or ``other`` (in the target: of a higher revision, or of the same and with other content),
            ``behind`` or ``missing`` (in the target, where it was active, or written in the source meanwhile),
            ``extra`` (in the target alone), ``unreadable`` (in either), ``write_version``.
        reason: The same for people, with the cure.
    """

    type: str
    id: str | None
    code: str
    reason: str


class Comparison:
    """Compares, and sums up what was compared.

    Args:
        source: A store.
        target: The one that is to have the same.
        actor_type: Of the actors.
        tell: Called after each page of an actor that is larger than a batch.

    Attributes:
        differing: How many differ.
        differences: The first 1,000 of them.
    """

    def __init__(self, source: Store, target: Store, actor_type: str, tell: Callable[[], None]) -> None:
        self._source = source
        self._target = target
        self._type = actor_type
        self._tell = tell
        self._sums = Sum(), Sum()
        self.differing = 0
        self.differences: list[Difference] = []

    @property
    def contents(self) -> tuple[Contents, Contents]:
        """What each store has."""
        return self._sums[0].contents, self._sums[1].contents

    async def run(self) -> AsyncGenerator[int, None]:
        """Compare all actors; yield now and then how many of the source's were."""
        ours = outlines(self._source, self._type, MAX_BATCH_ACTORS)
        theirs = outlines(self._target, self._type, MAX_BATCH_ACTORS)
        batch: list[tuple[Outline | None, Outline | None]] = []
        size = count = 0
        async with aclosing(ours), aclosing(theirs), aclosing(merged(ours, theirs)) as pairs:
            async for pair in pairs:
                larger = max(outline.size for outline in pair if outline is not None)
                if batch and (len(batch) == MAX_BATCH_ACTORS or size + larger > MAX_BATCH_BYTES):
                    await self._compare(batch)
                    yield count
                    batch, size = [], 0
                batch.append(pair)
                size += larger
                count += pair[0] is not None
        await self._compare(batch)
        yield count

    def note(self, difference: Difference) -> None:
        """Note a difference."""
        self.differing += 1
        if len(self.differences) < MAX_KEPT_REJECTIONS:
            self.differences.append(difference)

    async def _compare(self, batch: Sequence[tuple[Outline | None, Outline | None]]) -> None:
        """Compare some; a batch is one actor if that alone is larger than a batch may be."""
        source = await self._read(self._source, self._sums[0], [mine for mine, _ in batch if mine is not None])
        target = await self._read(self._target, self._sums[1], [other for _, other in batch if other is not None])
        for mine, other in batch:
            actor_id = (mine or other).id  # type: ignore[union-attr]  # one of them is there
            if source.get(actor_id) != target.get(actor_id) or isinstance(source.get(actor_id), str):
                await self._explain(actor_id, source.get(actor_id), target.get(actor_id))

    async def _read(self, store: Store, total: Sum, batch: Sequence[Outline]) -> dict[str, Content | str]:
        """Return what the actors come to, or why they can't be read."""
        found: dict[str, Content | str] = {}
        is_large = sum(outline.size for outline in batch) > MAX_BATCH_BYTES
        try:
            if is_large and len(batch) == 1:
                key = ActorKey(self._type, batch[0].id)
                content = await read_content(store, key, self._tell)
                if content is None:
                    return {key.id: "it is written all the time. Copy again"}
                contents = {key.id: content}
            else:
                wholes = await store.copies.read(self._type, [outline.id for outline in batch]) if batch else ()
                contents = {whole.actor.key.id: content_of(whole) for whole in wholes}
        except CorruptStateError as error:
            if len(batch) == 1:
                return {batch[0].id: f"{error.reason}. Put right what is stored"}
            for outline in batch:
                found |= await self._read(store, total, [outline])
            return found
        for content in contents.values():
            total.add(content)
        return {**contents}

    async def _explain(self, actor_id: str, source: Content | str | None, target: Content | str | None) -> None:
        """Note why an actor differs."""
        key = ActorKey(self._type, actor_id)
        if isinstance(source, str) or isinstance(target, str):
            where, why = ("source", source) if isinstance(source, str) else ("target", target)
            code, reason = "unreadable", f"can't be read in the {where}: {why}"
        elif source is None:
            code, reason = "extra", "is only in the target. It was left there"
        elif target is None:
            code, reason = "missing", f"is not whole in the target: it {await self._in_the_way(key)}. Copy again"
        elif target.revision > source.revision:
            code = "newer"
            reason = f"has revision {target.revision} in the target, {source.revision} in the source. It was left alone"
        elif target.revision == source.revision:
            code = "other"
            reason = f"has revision {source.revision} in both stores, and other content. The target's was left alone"
        else:
            code = "behind"
            revisions = f"has revision {target.revision} in the target, {source.revision} in the source"
            reason = f"{revisions}: it {await self._in_the_way(key)}. Copy again"
        self.note(Difference(key.type, key.id, code, f"{key} {reason}."))

    async def _in_the_way(self, key: ActorKey) -> str:
        found = await self._target.read(key)
        if found is not None and found.owner is not None:
            return f"is active there (node {found.owner})"
        return "was written in the source meanwhile, or is active in the target"
