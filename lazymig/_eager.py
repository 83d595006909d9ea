"""Eager conversion: all entries of an actor are brought up before its new stamp is committed.

Rules:

1. First a mark is committed with the highest version they are brought to: whoever can't read that is refused from then
   on, however far the conversion has come.
2. Then chunk after chunk, each in a transaction of its own, every entry with its stamp: a conversion that was cut off
   goes on with the entries that lack it, and none is converted twice.
3. When one fails, those before it in its chunk are stored first. Entries that are refused are found before the mark.
4. What a conversion writes to tables is stored with its entry's chunk, and converted in turn if its stamp is too low
   for its table: tables are gone through until none has such an entry.
5. The stamp comes last, with what the migrations' functions make, and takes the mark away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazymig import _entry_plan, _upgrade, codec
from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES, Entry, Range
from lazymig._holding import PolicyChangedError
from lazymig._inspection import decode_entry
from lazymig._records import Marks
from lazymig._running import RUNNING, Running, Staged
from lazymig._storing import lowest
from lazymig._uncut import is_cancelled
from lazymig.errors import ActivationError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from lazymig._entries import Count, Page, Place
    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._records import AppliedSet
    from lazymig._telling import Telling
    from lazymig.activation import Activation

_Waiting = list[tuple["Place", bytes, _entry_plan.EntryPlan]]


FAILURES = (ActivationError, StoreError, asyncio.CancelledError)
"""What ends a conversion, and leaves what came before it."""


@dataclass(slots=True)
class _Chunk:
    """What came of converting a page.

    Attributes:
        entries: To be stored.
        converted: How many entries were converted.
        failure: Why the others were not.
    """

    entries: Staged = field(default_factory=dict)
    converted: int = 0
    failure: BaseException | None = None

    def add(self, place: Place, entry: Entry, own: Staged) -> None:
        """Add what came of an entry, and what its conversion wrote, which stands if it wrote the entry itself."""
        self.entries[place] = entry
        if own:
            self.entries.update(own)
        self.converted += 1

    def fail(self, error: BaseException) -> None:
        """Note a failure.

        Raises:
            CancelledError: It is we who are cancelled.
        """
        if is_cancelled():
            raise error
        self.failure = error


class Conversions:
    """The eager conversion of one actor's entries.

    Args:
        activation: The activation, which has the context object.
        holding: What it has of the stored actor; its turn is held.
        lease: The actor's lock.
        tables: Name to the version, packed, that the entries are brought to.
        telling: Told, after each chunk, how many entries it has converted of which table.
        restamps: Whether entries that nothing converts get the stamp, too. Else it is left to who stores them next.

    Attributes:
        has_run: Whether there was an entry to convert.
    """

    def __init__(  # noqa: PLR0913  (named, all but five)
        self,
        activation: Activation,
        holding: Holding,
        lease: Lease,
        tables: Mapping[str, int],
        telling: Telling,
        *,
        restamps: bool = False,
    ) -> None:
        self._activation = activation
        self._holding = holding
        self._lease = lease
        self._tables = tables
        self._telling = telling
        self._restamps = restamps
        self.has_run = False

    async def run(self) -> int | None:
        """Convert everything; return what all entries are at least at then, packed, None if there are none.

        Raises:
            MigrationFailedError: A conversion raised; the entries before it are converted, its own is as it was.
            NewerStateError: An entry is newer by a major version; as CorruptStateError, likewise.
        """
        while True:
            counts = await self._lease.store.tables(self._holding.key)
            lacking = sorted({of.table for of in counts if await self._lacks(of)})
            if not lacking:
                return min((of.applied.highest for of in counts), default=None)
            self.has_run = True
            mark = max(self._tables.values())
            if max(self._holding.found().applied.highest, self._lease.marks.converting) < mark:
                await self._commit({}, mark)
            for table in lacking:
                await self._convert_table(table)

    async def _lacks(self, of: Count) -> bool:
        """Tell whether entries of a stamp are to be converted.

        Raises:
            ActivationError: They are refused: before anything is stored.
        """
        if of.table not in self._tables:
            return False
        plan = self._decide((of.table, ""), of.applied)
        if not isinstance(plan, ActivationError):
            return bool(plan.steps) or (self._restamps and plan.applied != of.applied)
        async for page in self._pages(of.table):
            if of.applied in page.applied:
                plan = self._decide((of.table, page.keys[page.applied.index(of.applied)]), of.applied)
                break
        raise plan if isinstance(plan, ActivationError) else AssertionError("the actor is locked")

    async def _pages(self, table: str) -> AsyncIterator[Page]:
        rest: Range | None = Range(table)
        while rest is not None:
            page = await self._lease.store.entries(self._holding.key, rest, PAGE_ENTRIES, PAGE_BYTES)
            yield page
            rest = None if page.is_last else rest.after(page.keys[-1])

    async def _convert_table(self, table: str) -> None:
        count = 0
        async for page in self._pages(table):
            chunk = await self._convert(table, page)
            if chunk.entries:
                await self._commit(chunk.entries, self._lease.marks.converting)
                count += chunk.converted
                self._telling.converted(table, self._tables[table], count)
            if chunk.failure is not None:
                raise chunk.failure

    async def _commit(self, entries: Staged, mark: int) -> None:
        lease = self._lease
        marks = Marks(mark, lowest(lease.marks.oldest, entries))
        if not await lease.commit({}, lease.stamp, entries=entries, marks=marks):
            raise PolicyChangedError

    async def _convert(self, table: str, page: Page) -> _Chunk:
        plans: dict[int, _entry_plan.EntryPlan | ActivationError] = {}  # by object: a page has few different stamps
        waiting: _Waiting = []
        restamped: Staged = {}
        refusal: ActivationError | None = None
        for key, data, applied in zip(page.keys, page.data, page.applied, strict=True):
            plan = plans.get(id(applied))
            if plan is None:
                plan = plans[id(applied)] = self._decide((table, key), applied)
            if isinstance(plan, ActivationError):
                refusal = plan
                break
            if plan.steps:
                waiting.append(((table, key), data, plan))
            elif self._restamps and plan.applied != applied:
                restamped[table, key] = Entry(data, plan.applied)
        at_once = min((step.concurrency for plan in {plan for *_, plan in waiting} for step in plan.steps), default=1)
        chunk = await (self._one_by_one(waiting) if at_once == 1 else self._at_once(waiting, at_once))
        chunk.failure = chunk.failure or refusal
        chunk.entries = {**restamped, **chunk.entries}
        return chunk

    def _decide(self, place: Place, applied: AppliedSet) -> _entry_plan.EntryPlan | ActivationError:
        chain = self._holding.type.chain
        return _entry_plan.decide_entry(chain, place, applied, self._tables[place[0]], self._holding.key)

    async def _one_by_one(self, waiting: _Waiting) -> _Chunk:
        chunk = _Chunk()
        own: Staged = {}
        running = Running(self._activation, [chunk.entries, own], is_conversion=True)
        context, key = self._activation.context, self._holding.key
        token = RUNNING.set(running)
        try:
            for (place, data, plan), decoded in zip(waiting, _decoded(waiting), strict=True):
                if place in chunk.entries:
                    continue
                running.is_read_only = not all(step.is_eager for step in plan.steps)
                value = decode_entry(key, place, data) if decoded is None else decoded
                result = _upgrade.convert_at_once(plan.steps, value, context, key, place, running)
                if isinstance(result, _upgrade.Rest):
                    result = await result.finish()
                chunk.add(place, Entry(_upgrade.encode_entry(result, plan.steps, key, place), plan.applied), own)
                if own:
                    own.clear()
        except FAILURES as error:
            chunk.fail(error)
        finally:
            running.is_running = False
            RUNNING.reset(token)
        return chunk

    async def _at_once(self, waiting: _Waiting, at_once: int) -> _Chunk:
        """Convert beside each other; what comes after one that failed is left for another time."""
        limit = asyncio.Semaphore(at_once)
        outcomes: list[tuple[Entry, Staged] | BaseException | None] = [None] * len(waiting)
        has_failed = False

        async def convert(number: int, value: Any) -> None:
            nonlocal has_failed
            place, data, plan = waiting[number]
            async with limit:
                if has_failed:
                    return
                is_read_only = not all(step.is_eager for step in plan.steps)
                running = Running(
                    self._activation, is_conversion=True, is_beside_others=True, is_read_only=is_read_only
                )
                RUNNING.set(running)  # of this task
                try:
                    outcomes[number] = await self._entry(place, data, plan, value, running), running.staged[-1]
                except FAILURES as error:
                    outcomes[number] = error
                    has_failed = True
                    if is_cancelled():
                        raise
                finally:
                    running.is_running = False

        async with asyncio.TaskGroup() as group:
            for number, value in enumerate(_decoded(waiting)):
                group.create_task(convert(number, value))
        chunk = _Chunk(failure=next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None))
        for (place, _, _), outcome in zip(waiting, outcomes, strict=True):
            if not isinstance(outcome, tuple):
                break
            if place not in chunk.entries:
                chunk.add(place, *outcome)
        return chunk

    async def _entry(
        self, place: Place, data: bytes, plan: _entry_plan.EntryPlan, decoded: Any, running: Running
    ) -> Entry:
        key = self._holding.key
        value = decode_entry(key, place, data) if decoded is None else decoded
        result = await _upgrade.convert(plan.steps, value, self._activation.context, key, place, running)
        return Entry(_upgrade.encode_entry(result, plan.steps, key, place), plan.applied)


def _decoded(waiting: _Waiting) -> list[Any]:
    """Return the values of entries; None for each that is to be decoded by itself."""
    try:
        return codec.decode_many([data for _, data, _ in waiting])
    except ValueError:
        return [None] * len(waiting)
