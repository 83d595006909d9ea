"""How an actor that has come up is brought to the version that its type is written at, up or down, with its entries.

An activation leaves that to what it stores anyway; who sweeps does it at once.

Rules:

1. What is stored above the write version is brought down, and kept as the base; entries have none.
2. Every entry gets the stamp of that version, converted or not, so that what is older may be retired.
3. A base of which nothing is left to be taken is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig import _plan, _storing
from lazymig._eager import Conversions
from lazymig._entries import PAGE_BYTES, PAGE_ENTRIES, Entry, Range
from lazymig._holding import PolicyChangedError
from lazymig._quarantining import record
from lazymig._records import Marks
from lazymig.errors import MigrationFailedError

if TYPE_CHECKING:
    from lazymig._entries import Place
    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._telling import Telling
    from lazymig.activation import Activation


class Settling:
    """Brings one actor to its version.

    Args:
        activation: The activation; it has come up.
        holding: What it has of the stored actor; its turn is held.
        lease: The actor's lock.
        telling: Told of entries that are converted.
    """

    def __init__(self, activation: Activation, holding: Holding, lease: Lease, telling: Telling) -> None:
        self._activation = activation
        self._holding = holding
        self._lease = lease
        self._telling = telling

    async def run(self) -> None:
        """Store what is not stored at that version.

        Raises:
            MigrationFailedError: Something failed, and was recorded; entries before it are stored.
            QuarantinedError: It failed before, and it is too soon to try again.
            NewerStateError: An entry, or a base, is newer by a major version.
            DefinitionError: There is no way down.
        """
        if not (self._has_to_store_states() or self._lease.marks.oldest is not None):
            return
        self._holding.check_quarantine(runs=True)
        while True:
            try:
                await self._settle()
            except PolicyChangedError:
                continue
            except MigrationFailedError as error:
                await record(self._holding, self._lease, self._telling, error)
                raise
            return

    async def _settle(self) -> None:
        self._lease.clears_failure = False  # not by entries before the one that may fail
        if self._has_to_store_states():
            await _storing.commit_once(self._holding, self._lease, {}, plan=self._holding.plan)
        if self._lease.marks.oldest is not None:
            await self._settle_entries()

    def _has_to_store_states(self) -> bool:
        holding, found = self._holding, self._holding.found()
        chain = holding.type.chain
        if not found.has_main or holding.memory is not None:
            return False
        if _plan.has_to_lower(chain, found, found.applied):
            return True
        return found.base is not None and chain.knows(found.base.applied) and not self._is_of_use(found)

    def _is_of_use(self, found: _plan.Found) -> bool:
        """Tell whether a base has something that the states as stored lack."""
        return found.base is not None and not found.applied.covers(found.base.applied)

    async def _settle_entries(self) -> None:
        holding, lease, chain = self._holding, self._lease, self._holding.type.chain
        limit = holding.limit
        counts = await lease.store.tables(holding.key)
        if limit is not None:
            for table in sorted({of.table for of in counts if of.applied.highest > limit}):
                await self._lower(table, limit)
        target = chain.release.highest if limit is None else limit
        tables = dict.fromkeys(sorted({of.table for of in counts}), target)
        conversions = Conversions(self._activation, holding, lease, tables, self._telling, restamps=True)
        oldest = await conversions.run()
        converting, before = lease.marks
        is_over = lease.stamp is not None and 0 < converting <= lease.stamp.applied.highest
        self._holding.note_up()
        if is_over or before != oldest or lease.clears_failure:
            await _storing.commit_once(holding, lease, {}, oldest=oldest)

    async def _lower(self, table: str, limit: int) -> None:
        """Bring the entries of a table down to a version, page by page."""
        rest: Range | None = Range(table)
        while rest is not None:
            page = await self._lease.store.entries(self._holding.key, rest, PAGE_ENTRIES, PAGE_BYTES)
            above: dict[Place, Entry | None] = {
                (table, key): Entry(data, applied)
                for key, data, applied in zip(page.keys, page.data, page.applied, strict=True)
                if applied.highest > limit
            }
            if above:
                lowered = await self._activation.lowered_entries(above, limit)
                marks = Marks(self._lease.marks.converting, _storing.lowest(self._lease.marks.oldest, lowered))
                if not await self._lease.commit({}, self._lease.stamp, entries=lowered, marks=marks):
                    raise PolicyChangedError
            rest = None if page.is_last else rest.after(page.keys[-1])
