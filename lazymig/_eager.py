"""Eager conversion: all entries of an actor are brought up before its new stamp is committed.

Rules:

1. First a mark is committed with the highest version they are brought to: whoever can't read that is refused from then
   on, however far the conversion has come.
2. Then chunk after chunk, each in a transaction of its own, every entry with its stamp: a conversion that was cut off
   goes on with the entries that lack it, and none is converted twice.
3. When one fails, those before it in its chunk are stored first.
4. What a conversion writes to tables is stored with its entry's chunk, and converted in turn if its stamp is too low
   for its table: tables are gone through until none has such an entry.
5. The stamp comes last, with what the migrations' functions make, and takes the mark away.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lazymig import _plan, _upgrade, codec
from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES, Entry, Range
from lazymig._holding import lowest
from lazymig._inspection import decode_entry
from lazymig._records import Marks
from lazymig._running import RUNNING, Running, Staged
from lazymig.errors import ActivationError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._entries import Count, Page, Place
    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._records import AppliedSet
    from lazymig._telling import Telling
    from lazymig.activation import Activation

_Waiting = list[tuple["Place", bytes, _plan.EntryPlan]]


class Conversions:
    """The eager conversion of one actor's entries.

    Args:
        activation: The activation, which has the context object.
        holding: What it has of the stored actor; its turn is held.
        lease: The actor's lock.
        tables: Name to the version, packed, that the entries are brought to.
        telling: Told, after each chunk, how many entries it has converted of which table.
    """

    def __init__(
        self,
        activation: Activation,
        holding: Holding,
        lease: Lease,
        tables: Mapping[str, int],
        telling: Telling,
    ) -> None:
        self._activation = activation
        self._holding = holding
        self._lease = lease
        self._tables = tables
        self._telling = telling

    async def run(self) -> int | None:
        """Convert everything; return what all entries are at least at then, packed, None if there are none.

        Raises:
            MigrationFailedError: A conversion raised; the entries before it are converted, its own is as it was.
            NewerStateError: An entry is newer by a major version; as CorruptStateError, likewise.
        """
        while True:
            counts = await self._lease.store.tables(self._holding.key)
            lacking = sorted({of.table for of in counts if self._lacks(of)})
            if not lacking:
                return min((of.applied.highest for of in counts), default=None)
            mark = max(self._tables.values())
            if self._lease.marks.converting < mark:
                await self._commit({}, mark)
            for table in lacking:
                await self._convert_table(table)

    def _lacks(self, of: Count) -> bool:
        """Tell whether entries of a stamp are to be converted, or refused."""
        if of.table not in self._tables:
            return False
        plan = self._decide((of.table, ""), of.applied)
        return isinstance(plan, ActivationError) or bool(plan.steps)

    async def _convert_table(self, table: str) -> None:
        rest: Range | None = Range(table)
        count = 0
        while rest is not None:
            page = await self._lease.store.entries(self._holding.key, rest, PAGE_ENTRIES, PAGE_BYTES)
            converted, failure = await self._convert(table, page)
            if converted:
                await self._commit(converted, self._lease.marks.converting)
                count += len(converted)
                self._telling.converted(table, self._tables[table], count)
            if failure is not None:
                raise failure
            rest = None if page.is_last else rest.after(page.keys[-1])

    async def _commit(self, entries: Staged, mark: int) -> None:
        lease = self._lease
        marks = Marks(mark, lowest(lease.marks.oldest, entries))
        await lease.commit({}, lease.stamp, entries=entries, marks=marks)

    async def _convert(self, table: str, page: Page) -> tuple[Staged, BaseException | None]:
        """Return what is to be stored of a page, and what failed after it."""
        plans: dict[int, _plan.EntryPlan | ActivationError] = {}  # by object: a page has few different stamps
        waiting: _Waiting = []
        failure: BaseException | None = None
        for key, data, applied in zip(page.keys, page.data, page.applied, strict=True):
            plan = plans.get(id(applied))
            if plan is None:
                plan = plans[id(applied)] = self._decide((table, key), applied)
            if isinstance(plan, ActivationError):
                failure = plan
                break
            if plan.steps:
                waiting.append(((table, key), data, plan))
        at_once = max((step.concurrency for plan in {plan for *_, plan in waiting} for step in plan.steps), default=1)
        stored, failed = await (self._one_by_one(waiting) if at_once == 1 else self._at_once(waiting, at_once))
        return stored, failed or failure

    def _decide(self, place: Place, applied: AppliedSet) -> _plan.EntryPlan | ActivationError:
        chain = self._holding.type.chain
        return _plan.decide_entry(chain, place, applied, self._tables[place[0]], self._holding.key)

    async def _one_by_one(self, waiting: _Waiting) -> tuple[Staged, BaseException | None]:
        """Convert in order, and encode together what came out."""
        written: Staged = {}
        own: Staged = {}
        running = Running(self._activation, [written, own], is_conversion=True)
        context, key = self._activation.context, self._holding.key
        results: list[tuple[Place, _plan.EntryPlan, Any, Staged]] = []
        failure: BaseException | None = None
        token = RUNNING.set(running)
        try:
            for (place, data, plan), decoded in zip(waiting, _decoded(waiting), strict=True):
                if place in written:
                    continue
                value = decode_entry(key, place, data) if decoded is None else decoded
                result = _upgrade.convert_at_once(plan.steps, value, context, key, place, running)
                if isinstance(result, _upgrade.Rest):
                    result = await result.finish()
                results.append((place, plan, result, own))
                if own:
                    written.update(own)
                    running.staged[-1] = own = {}
        except ActivationError as error:
            failure = error
        finally:
            running.is_running = False
            RUNNING.reset(token)
        return self._encoded(results, failure)

    def _encoded(
        self, results: Sequence[tuple[Place, _plan.EntryPlan, Any, Staged]], failure: BaseException | None
    ) -> tuple[Staged, BaseException | None]:
        """Return what is to be stored of conversions, up to one whose result is no JSON."""
        try:
            encoded = codec.encode_many([value for _, _, value, _ in results], "the entries")
        except InvalidValueError:
            encoded = []
        stored: Staged = {}
        for number, (place, plan, value, own) in enumerate(results):
            if encoded:
                data = encoded[number]
            else:
                try:
                    data = _upgrade.encode_entry(value, plan.steps, self._holding.key, place)
                except ActivationError as error:
                    return stored, error
            stored[place] = Entry(data, plan.applied)
            if own:
                stored.update(own)
        return stored, failure

    async def _at_once(self, waiting: _Waiting, at_once: int) -> tuple[Staged, BaseException | None]:
        """Convert beside each other; what comes after one that failed is left for another time."""
        limit = asyncio.Semaphore(at_once)
        outcomes: list[tuple[Staged, Entry] | BaseException | None] = [None] * len(waiting)
        has_failed = False

        async def convert(number: int, value: Any) -> None:
            nonlocal has_failed
            place, data, plan = waiting[number]
            async with limit:
                if has_failed:
                    return
                running = Running(self._activation, is_conversion=True)
                RUNNING.set(running)  # of this task
                try:
                    outcomes[number] = running.staged[-1], await self._entry(place, data, plan, value, running)
                except (ActivationError, asyncio.CancelledError) as error:
                    outcomes[number] = error
                    has_failed = True
                    if (task := asyncio.current_task()) is not None and task.cancelling():
                        raise  # it is we who are cancelled, not something that it awaited
                finally:
                    running.is_running = False

        async with asyncio.TaskGroup() as group:
            for number, value in enumerate(_decoded(waiting)):
                group.create_task(convert(number, value))
        stored: Staged = {}
        for (place, _, _), outcome in zip(waiting, outcomes, strict=True):
            if outcome is None or isinstance(outcome, BaseException):
                return stored, outcome
            own, entry = outcome
            if place not in stored:
                stored.update(own)
                stored[place] = entry
        return stored, None

    async def _entry(self, place: Place, data: bytes, plan: _plan.EntryPlan, value: Any, running: Running) -> Entry:
        key = self._holding.key
        if value is None:
            value = decode_entry(key, place, data)
        value = await _upgrade.convert(plan.steps, value, self._activation.context, key, place, running)
        return Entry(_upgrade.encode_entry(value, plan.steps, key, place), plan.applied)


def _decoded(waiting: _Waiting) -> list[Any]:
    """Return the values of entries; None for each that is to be decoded by itself."""
    try:
        return codec.decode_many([data for _, data, _ in waiting])
    except ValueError:
        return [None] * len(waiting)
