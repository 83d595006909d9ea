"""The reference store: dictionaries in one process. The others are compared with it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lazymig._bases import NO_POLICY, WritePolicy
from lazymig._entries import Count, Page
from lazymig._memory_copies import MemoryCopies
from lazymig._memory_failures import MemoryFailures
from lazymig._memory_post import MemoryPost, Registered
from lazymig._memory_rows import Row, Table
from lazymig._memory_rulings import MemoryRulings
from lazymig._memory_sweeping import MemorySweeping
from lazymig._records import ActorKey, Claim, Held, StoredActor
from lazymig.errors import CorruptStateError, LeaseLostError, StoreClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazymig._entries import Range
    from lazymig._fleet_records import NodeStatus
    from lazymig._records import AppliedSet, Commit, Fence, NodeRecord, Previous
    from lazymig._rulings import Ruling


class MemoryStore:
    """Keeps everything in memory and forgets it when it is closed.

    Args:
        clock: Seconds of a clock that never goes back; heartbeats are measured by it.
    """

    name = "memory:"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[ActorKey, Row] = {}
        self._nodes: dict[str, Registered] = {}
        self._is_open = True
        self._policies: dict[str, WritePolicy] = {}
        self._rulings = MemoryRulings(self._rows, self._policies)
        self.copies = MemoryCopies(self._check_open, self._rows, self._policies, self._rulings, self._holder)
        self.post = MemoryPost(self._check_open, clock, self._nodes, self._policies, self._holder)
        self.sweeping = MemorySweeping(self._check_open, self._rows, self._nodes, self._policies)
        self.failures = MemoryFailures(self._check_open, self._rows, self._nodes)

    async def register(
        self, node: NodeRecord, *, replaces: str | None = None, ruling: Callable[[], Ruling] | None = None
    ) -> Any:
        """See `Store.register`."""
        self._check_open()
        ruled = None if ruling is None else self._rulings.decide(ruling(), lambda: self._statuses(replaces))
        if replaces is not None:
            self._nodes.pop(replaces, None)
        self._nodes[node.node_id] = Registered(node, self._clock())
        self.post.fleet += 1
        if ruled is None:
            return None
        self._rulings.note(ruled)
        return ruled.answer

    async def rule(self, ruling: Callable[[], Ruling], *, is_change: bool = False) -> Any:
        """See `Store.rule`."""
        self._check_open()
        ruled = self._rulings.decide(ruling(), self._statuses)
        if is_change:
            self._rulings.note(ruled)
        return ruled.answer

    async def policy(self, actor_type: str) -> WritePolicy:
        """See `Store.policy`."""
        self._check_open()
        return self._policies.get(actor_type, NO_POLICY)

    async def unregister(self, node_id: str) -> None:
        """See `Store.unregister`."""
        await self.forget(node_id)

    async def nodes(self) -> Sequence[NodeStatus]:
        """See `Store.nodes`."""
        self._check_open()
        return self._statuses()

    def _statuses(self, unseen: str | None = None) -> list[NodeStatus]:
        now = self._clock()
        nodes = (node.status(now) for node_id, node in self._nodes.items() if node_id != unseen)
        return sorted(nodes, key=lambda node: (node.label, node.node_id))

    async def forget(self, node_id: str) -> bool:
        """See `Store.forget`."""
        self._check_open()
        self.post.fleet += 1
        return self._nodes.pop(node_id, None) is not None

    async def drain(self, node_id: str) -> bool:
        """See `Store.drain`."""
        self._check_open()
        self.post.fleet += 1
        if node_id in self._nodes:
            self._nodes[node_id].is_draining = True
        return node_id in self._nodes

    def open_pulse(self) -> MemoryStore:
        """Return the store itself: it takes heartbeats from any thread."""
        self._check_open()
        return self

    def beat(self, node_id: str, active: int = 0) -> bool:
        """See `Pulse.beat`."""
        self._check_open()
        node = self._nodes.get(node_id)
        if node is None:
            return False
        node.beat_at = self._clock()
        node.active = active
        return True

    def close(self) -> None:
        """Nothing to free for heartbeats."""

    async def shut(self) -> None:
        """Forget everything; the store can't be used afterwards."""
        self._is_open = False
        self._rows.clear()
        self._nodes.clear()
        self._policies.clear()

    async def claim(self, key: ActorKey, fence: Fence) -> Claim | Held:
        """See `Store.claim`."""
        self._check_open()
        if fence.node not in self._nodes:
            raise LeaseLostError(key)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row()
        elif row.is_draft:
            raise CorruptStateError(key, "it was copied in part only. Run 'lazymig copy' again")
        elif row.fence is not None and row.fence.node != fence.node and self._is_alive(row.fence.node):
            return Held(row.fence.node)
        row.fence = fence
        return Claim(fence, row.stored(key), datetime.now(UTC), self._policies.get(key.type, NO_POLICY))

    async def commit(self, commit: Commit) -> int | WritePolicy:
        """See `Store.commit`."""
        self._check_open()
        policy = self._policies.get(commit.key.type, NO_POLICY)
        if policy.epoch != commit.epoch:
            return policy
        row = self._rows.get(commit.key)
        is_valid = row is not None and row.fence == commit.fence and row.revision == commit.revision
        if row is None or not is_valid or commit.fence.node not in self._nodes:
            raise LeaseLostError(commit.key)
        row.keep(commit.keeps_previous)
        row.revision += 1
        row.stamp = commit.stamp
        for name, data in commit.writes.items():
            if data is None:
                row.states.pop(name, None)
            else:
                row.states[name] = data
        for (table, name), entry in commit.entries.items():
            row.tables.setdefault(table, Table()).put(name, entry)
        if commit.marks is not None:
            row.marks = commit.marks if row.has_entries else commit.marks._replace(oldest=None)
        if commit.base is not None:
            row.change_base(commit.base)
        row.tidy(clears_failure=commit.clears_failure)
        if commit.release:
            row.fence = None
        return row.revision

    async def release(self, held: Sequence[tuple[ActorKey, Fence]]) -> None:
        """See `Store.release`."""
        self._check_open()
        for key, fence in held:
            row = self._rows.get(key)
            if row is None or row.fence != fence or fence.node not in self._nodes:
                continue
            row.fence = None
            if row.revision == 0:  # a draft has no lock
                del self._rows[key]

    async def read(self, key: ActorKey) -> StoredActor | None:
        """See `Store.read`."""
        self._check_open()
        row = self._rows.get(key)
        return None if row is None or row.revision == 0 else self._shown(key, row)

    async def previous(self, key: ActorKey) -> Previous | None:
        """See `Store.previous`."""
        self._check_open()
        return self._rows.get(key, Row()).previous

    async def entries(self, key: ActorKey, of: Range, limit: int, max_bytes: int) -> Page:
        """See `Store.entries`."""
        self._check_open()
        table = self._table(key, of)
        first, end = table.within(of)
        left = slice(max(first, end - limit), end) if of.is_reverse else slice(first, min(first + limit, end))
        keys = table.keys[left][:: -1 if of.is_reverse else 1]
        found, size = [table.entries[name] for name in keys], 0
        for number, entry in enumerate(found):
            size += len(entry.data)
            if size >= max_bytes:
                del keys[number + 1 :], found[number + 1 :]
                break
        data, applied = [entry.data for entry in found], [entry.applied for entry in found]
        return Page(keys, data, applied, is_last=len(keys) == max(end - first, 0))

    async def count_entries(self, key: ActorKey, of: Range) -> int:
        """See `Store.count_entries`."""
        self._check_open()
        first, end = self._table(key, of).within(of)
        return max(end - first, 0)

    async def tables(self, key: ActorKey) -> Sequence[Count]:
        """See `Store.tables`."""
        self._check_open()
        tables = sorted(self._rows.get(key, Row()).tables.items())
        counted = [(name, Counter(entry.applied for entry in table.entries.values())) for name, table in tables]
        return [Count(name, applied, count) for name, counts in counted for applied, count in counts.items()]

    def _table(self, key: ActorKey, of: Range) -> Table:
        return self._rows.get(key, Row()).tables.get(of.table, Table())

    async def scan(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[StoredActor]:
        """See `Store.scan`."""
        self._check_open()
        keys = sorted(key for key in self._known() if key.type == actor_type and key.id > after)
        return [self._shown(key, self._rows[key]) for key in keys[:limit]]

    async def census(self, actor_type: str) -> Mapping[AppliedSet | None, int]:
        """See `Store.census`."""
        self._check_open()
        return self._rulings.census(actor_type)

    async def stragglers(
        self, actor_type: str, sets: frozenset[AppliedSet | None], *, after: str = "", limit: int = 500
    ) -> Sequence[str]:
        """See `Store.stragglers`."""
        self._check_open()
        return self._rulings.stragglers(actor_type, sets, after, limit)

    async def entry_census(self, actor_type: str) -> Mapping[AppliedSet, int]:
        """See `Store.entry_census`."""
        self._check_open()
        return self._rulings.entry_census(actor_type)

    async def types(self) -> Sequence[str]:
        """See `Store.types`."""
        self._check_open()
        return sorted({key.type for key in self._known() if not self._rows[key].is_blank})

    async def insert(self, actor_type: str, state: str, rows: Sequence[tuple[str, bytes]]) -> frozenset[str]:
        """See `Store.insert`."""
        self._check_open()
        inserted = set()
        for actor_id, data in rows:
            row = self._rows.setdefault(ActorKey(actor_type, actor_id), Row())
            if row.revision == 0 and not row.is_draft:
                row.revision = 1
                row.states[state] = data
                inserted.add(actor_id)
        return frozenset(inserted)

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError(self.name)

    def _is_alive(self, node_id: str) -> bool:
        node = self._nodes.get(node_id)
        return node is not None and node.is_alive(self._clock())

    def _holder(self, key: ActorKey) -> str | None:
        """Return the living node that holds an actor."""
        row = self._rows.get(key)
        return row.fence.node if row is not None and row.fence is not None and self._is_alive(row.fence.node) else None

    def _known(self) -> list[ActorKey]:
        return [key for key, row in self._rows.items() if row.revision > 0]

    def _shown(self, key: ActorKey, row: Row) -> StoredActor:
        is_held = row.fence is not None and row.fence.node in self._nodes
        return (row if is_held else replace(row, fence=None)).stored(key)
