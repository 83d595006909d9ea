"""What an activation has of its actor's tables: what is to be stored, and how entries are read.

Rules:

1. `put`, `update` and `delete` are staged, and stored by the next commit of the activation; what is read is what is
   stored with what is staged over it.
2. An entry is checked whenever it is read, by its own stamp and by the actor's.
3. An entry that was converted when it was read rides on the next commit: a bounded number, never alone, and only once
   the actor was brought up, so that migrations find none; none where it would be brought down again, and lose by it.
4. Code of migrations reads and writes past the turn, whose holder waits for it, see `lazymig._running`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from lazymig import _entry_plan, _storing, _upgrade, codec
from lazymig._entries import NEXT, PAGE_BYTES, PAGE_ENTRIES, Entry, Range
from lazymig._inspection import decode_entry
from lazymig._running import RUNNING, Running, Staged, running_in
from lazymig.codec import Subject
from lazymig.errors import ActivationError, DefinitionError, NoEntryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from lazymig._entries import Page, Place
    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._records import AppliedSet
    from lazymig._telling import Telling
    from lazymig.activation import Activation

RIDING_ENTRIES = 100
"""How many entries that were converted when they were read are kept for the next commit."""

RIDING_BYTES = 100_000
"""How many bytes they have together."""


class Tables:
    """The tables of one activation's actor.

    Args:
        activation: The activation, which has the context object.
        holding: What it has of the stored actor.
        telling: Told of entries that are refused or can't be converted.
    """

    __slots__ = ("_activation", "_holding", "_riding", "_riding_bytes", "_staged", "_telling")

    def __init__(self, activation: Activation, holding: Holding, telling: Telling) -> None:
        self._telling = telling
        self._activation = activation
        self._holding = holding
        self._staged: Staged = {}
        self._riding: dict[Place, Entry] = {}
        self._riding_bytes = 0

    # --- for the activation ------------------------------------------------------------------------------------

    @property
    def has_staged(self) -> bool:
        """Whether something is to be stored."""
        return bool(self._staged)

    def to_store(self) -> tuple[Staged, Staged]:
        """Return what the next commit is to store, and what rides on it."""
        return dict(self._staged), dict(self._riding)

    def add(self, entries: Staged) -> None:
        """Let entries be stored by the next commit that stores anything."""
        self._staged |= entries

    async def bring_up(self, entries: Staged) -> Staged:
        """Bring up what migrations put into tables, as what is stored by this software is; return it.

        What converts it sees the rest of it, and may write: that is brought up as well.
        """
        own: Staged = {}
        running = Running(self._activation, [entries, own], is_conversion=True)
        waiting = [*entries]
        while waiting:
            place = waiting.pop()
            entry = entries[place]
            if entry is not None and self._decide(place, entry.applied, None).steps:
                value, applied = await self._bring_up(place, entry, running, is_read_only=False)
                entries[place] = Entry(self.encode(place, value), applied)
                entries.update(own)
                waiting += own
                own.clear()
        return entries

    def note_stored(self, entries: Staged) -> None:
        """Forget what was stored, but not what was staged meanwhile."""
        for place, entry in entries.items():
            if place in self._staged and self._staged[place] is entry:
                del self._staged[place]
            if self._riding.get(place) is entry:
                self._drop_riding(place)

    # --- for the tables ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(self, *, writes: bool = False) -> AsyncIterator[tuple[Lease, Running | None]]:
        """Work on the stored actor, which this software may read; code of migrations does within its holder's turn."""
        holding = self._holding
        running = running_in(self._activation)
        if running is not None:
            if writes and running.is_read_only:
                raise DefinitionError(
                    f"a conversion of entries of {holding.key.type} that runs when they are read writes to a table. "
                    f"Register it with eager=True and let nobody read them before migrate_and_load(), nor another "
                    f"conversion; or write in the migration's function."
                )
            if holding.lease is None:
                raise AssertionError("migrations run under a lock only")
            yield holding.lease, running
            return
        if writes:
            holding.check_writable()
        lease = await holding.take_turn()
        try:
            if self._activation.failure is not None and holding.plan is None:
                raise self._activation.failure
            holding.check_version()
            yield lease, None
        except ActivationError as error:
            if error is not self._activation.failure:
                self._telling.failed(error)
            raise
        finally:
            holding.turns.release()

    def stage(self, place: Place, entry: Entry | None, running: Running | None) -> None:
        """Let an entry be stored, or removed, by the next commit."""
        if running is None:
            self._staged[place] = entry
            self._drop_riding(place)
        else:
            running.staged[-1][place] = entry

    def written(self, running: Running | None) -> AppliedSet:
        """Return the stamp of an entry that is written now."""
        return self._holding.type.chain.release_up_to(self._highest(running))

    def encode(self, place: Place, value: Any) -> bytes:
        """Return a value as it is stored.

        Raises:
            InvalidValueError: JSON can't hold it.
        """
        return codec.encode(value, self._subject(place))

    async def get(self, lease: Lease, place: Place, running: Running | None) -> tuple[Any, AppliedSet] | None:
        """Return an entry's value, brought up, and what is applied to it then; None if there is none."""
        self._check_order(place[0], running)
        entry = await self._find(lease, place, running)
        return None if entry is None else await self._bring_up(place, entry, running)

    async def update(self, place: Place, function: Callable[[Any], Any], default: Any) -> None:
        """Stage what a function makes of an entry."""
        async with self.turn(writes=True) as (lease, running):
            if running is not None and running.is_beside_others:
                raise DefinitionError(
                    f"conversions that run beside each other can't update an entry of table {place[0]!r}: none would "
                    f"see what the others made of it. Leave concurrency= out, or put entries."
                )
            found = await self.get(lease, place, running)
            if found is None and default is None:
                raise NoEntryError(self._holding.key, place)
            value, applied = found or (codec.copy(default, self._subject(place)), self.written(running))
            result = function(value)
            if isawaitable(result):
                if hasattr(result, "close"):
                    result.close()
                raise DefinitionError(
                    f"the function that updates {self._subject(place)} is async. Give update a plain one: nothing may "
                    f"come between reading and writing."
                )
            data = self.encode(place, value if result is None else result)
            self.stage(place, Entry(data, applied.union(self.written(running))), running)

    async def page(self, of: Range, limit: int) -> tuple[Sequence[tuple[str, Any]], Range | None]:
        """Return the first entries of a range, brought up, and what is left of it, None if nothing is."""
        async with self.turn() as (lease, running):
            self._check_order(of.table, running)
            removed = sum(entry is None for entry in self._staged_in(of, running).values())
            size = min(limit + removed, PAGE_ENTRIES)
            page = await lease.store.entries(self._holding.key, of, size, PAGE_BYTES)
            rest = None if page.is_last else of.after(page.keys[-1])
            over = self._over(of, rest, running)
            if not over and (plain := self._plain(of.table, page, running)) is not None:
                return plain, rest
            entries: dict[str, Entry | None] = {
                key: Entry(data, applied) for key, data, applied in zip(*page[:3], strict=True)
            }
            entries.update(over)
            items = []
            for key, entry in sorted(entries.items(), reverse=of.is_reverse):
                if entry is not None:
                    items.append((key, (await self._bring_up((of.table, key), entry, running))[0]))
            return items, rest

    async def count(self, of: Range) -> int:
        """Return how many entries there are in a range."""
        async with self.turn() as (lease, running):
            self._check_order(of.table, running)
            count = await lease.store.count_entries(self._holding.key, of)
            staged = self._staged_in(of, running)
            count += sum(entry is not None for entry in staged.values())
            return count - await self._stored_of(lease, of.table, sorted(staged))

    async def put(self, values: Mapping[Place, bytes]) -> None:
        """Store entries at once, in place of what is staged for them; stage them in a migration."""
        async with self.turn(writes=True) as (lease, running):
            applied = self.written(running)
            entries: Staged = {place: Entry(data, applied) for place, data in values.items()}
            await self._store(lease, entries, running)

    async def remove(self, of: Range) -> tuple[int, Range | None]:
        """Remove the first entries of a range at once; return how many, and what is left of it, None if nothing is."""
        async with self.turn(writes=True) as (lease, running):
            self._check_order(of.table, running)
            page = await lease.store.entries(self._holding.key, of, PAGE_ENTRIES, PAGE_BYTES)
            for key, applied in zip(page.keys, page.applied, strict=True):
                self._decide((of.table, key), applied, running)
            rest = None if page.is_last else of.after(page.keys[-1])
            over = self._over(of, rest, running)
            present = {key for key in page.keys if key not in over} | {key for key, entry in over.items() if entry}
            gone: Staged = {(of.table, key): None for key in page.keys}
            if gone or running is not None:
                await self._store(lease, gone, running)
            self._unstage([(of.table, key) for key in over], running)
            return len(present), rest

    async def _store(self, lease: Lease, entries: Staged, running: Running | None) -> None:
        if running is not None:
            running.staged[-1].update(entries)
            return
        await _storing.commit(self._holding, lease, {}, entries)
        self._unstage(entries, running)

    def _unstage(self, places: Iterable[Place], running: Running | None) -> None:
        """Take back what was staged."""
        for place in places:
            if running is not None:
                running.staged[-1][place] = None
            else:
                self._staged.pop(place, None)
                self._drop_riding(place)

    def _staged_in(self, of: Range, running: Running | None) -> dict[str, Entry | None]:
        """Return what is staged within a range, by key."""
        layers = [self._staged] if running is None else running.staged
        return {
            key: entry for layer in layers for (table, key), entry in layer.items() if table == of.table and of.has(key)
        }

    async def _stored_of(self, lease: Lease, table: str, keys: Sequence[str]) -> int:
        """Return how many of some keys, in order, are stored; read page by page from the first to the last."""
        rest = Range(table, keys[0], keys[-1] + NEXT) if keys else None
        wanted = frozenset(keys)
        count = 0
        while rest is not None:
            page = await lease.store.entries(self._holding.key, rest, PAGE_ENTRIES, PAGE_BYTES)
            count += len(wanted.intersection(page.keys))
            rest = None if page.is_last else rest.after(page.keys[-1])
        return count

    # --- reading -----------------------------------------------------------------------------------------------

    def _highest(self, running: Running | None) -> int:
        """Return up to which version, packed, entries are brought."""
        if running is None or running.step is None:
            return self._holding.type.chain.release.highest
        return max(running.step.packed, self._holding.found().applied.highest)  # the latter for a late one

    def _check_order(self, table: str, running: Running | None) -> None:
        """Refuse a migration's function that reads entries which a later migration has converted before it."""
        step = None if running is None else running.step
        if running is not None and step is not None and running.converted.get(table, 0) > step.packed:
            raise DefinitionError(
                f"migration {step.version} ({step.name}) reads table {table!r}, whose entries a later migration "
                f"converts before it (eager=True). Leave eager out there, or let this one not read the table."
            )

    async def _find(self, lease: Lease, place: Place, running: Running | None) -> Entry | None:
        for layer in (self._staged, self._riding) if running is None else reversed(running.staged):
            if place in layer:
                return layer[place]
        table, key = place
        page = await lease.store.entries(self._holding.key, Range(table, key, key + NEXT), 1, PAGE_BYTES)
        return Entry(page.data[0], page.applied[0]) if page.keys else None

    def _over(self, of: Range, rest: Range | None, running: Running | None) -> dict[str, Entry | None]:
        """Return what lies over the stored entries of a range up to what is left of it."""
        if rest is not None:
            of = of._replace(start=rest.end) if of.is_reverse else of._replace(end=rest.start)
        over = self._staged_in(of, running)
        if running is None and self._riding:
            riding = {key: entry for (table, key), entry in self._riding.items() if table == of.table and of.has(key)}
            return {**riding, **over}
        return over

    def _plain(self, table: str, page: Page, running: Running | None) -> list[tuple[str, Any]] | None:
        """Return the values of a page of which nothing is to be converted; None if there may be something else."""
        stamps = {id(applied): applied for applied in page.applied}  # by object: a page has few different ones
        for applied in stamps.values():
            first = page.keys[page.applied.index(applied)]
            if self._decide((table, first), applied, running).steps:
                return None
        try:
            return [*zip(page.keys, codec.decode_many(page.data), strict=True)]
        except ValueError:
            return None

    def _decide(self, place: Place, applied: AppliedSet, running: Running | None) -> _entry_plan.EntryPlan:
        holding = self._holding
        plan = _entry_plan.decide_entry(holding.type.chain, place, applied, self._highest(running), holding.key)
        if isinstance(plan, ActivationError):
            raise plan
        return plan

    async def _bring_up(
        self, place: Place, entry: Entry, running: Running | None, *, is_read_only: bool = True
    ) -> tuple[Any, AppliedSet]:
        """Return an entry's value, converted if need be, and what is applied to it then."""
        plan = self._decide(place, entry.applied, running)
        value = decode_entry(self._holding.key, place, entry.data)
        if not plan.steps:
            return value, entry.applied
        layers = [self._riding, self._staged, {}] if running is None else running.staged
        inner = Running(self._activation, [*layers], is_conversion=True, is_read_only=is_read_only)
        token = RUNNING.set(inner)
        try:
            value = await _upgrade.convert(plan.steps, value, self._activation.context, self._holding.key, place, inner)
        finally:
            inner.is_running = False
            RUNNING.reset(token)
        data = _upgrade.encode_entry(value, plan.steps, self._holding.key, place)
        if running is None and place not in self._staged and self._holding.plan is not None:
            self._ride(place, Entry(data, plan.applied))
        return value, plan.applied

    def _ride(self, place: Place, entry: Entry) -> None:
        if len(self._riding) < RIDING_ENTRIES and self._riding_bytes + len(entry.data) <= RIDING_BYTES:
            self._drop_riding(place)
            self._riding[place] = entry
            self._riding_bytes += len(entry.data)

    def _drop_riding(self, place: Place) -> None:
        entry = self._riding.pop(place, None)
        if entry is not None:
            self._riding_bytes -= len(entry.data)

    def _subject(self, place: Place) -> Subject:
        return Subject("entry {!r} of table {!r} of {}", place[1], place[0], self._holding.key)
