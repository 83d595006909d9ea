"""Any store against the memory store: Hypothesis does the same random things to both and compares every answer.

A store joins with two lines::

    TestMachine = machine(open_my_store).TestCase
    TestMachine.settings = settings(max_examples=50, stateful_step_count=40)
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lazymig._bases import BaseWrite, Kept
from lazymig._entries import Entry, Range
from lazymig._quarantine import failed
from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, Marks, NodeRecord, Stamp, StoredActor
from lazymig._rulings import AskActors, AskBases, AskConverting, AskEntries, AskFailing, AskType, Based, TypeFacts
from lazymig._version import pack, parse
from lazymig.errors import LazymigError
from lazymig.memory import MemoryStore
from lazymig.testing.clock import ManualClock
from lazymig.testing.ruling_bench import answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from lazymig._rulings import Question
    from lazymig.store import Store

NODES = ("n1", "n2", "n3")
KEYS = tuple(ActorKey(kind, name) for kind in ("Car", "bus") for name in ("a", "A", "é", "\U0001f697", "_"))
SETS = tuple(
    AppliedSet((pack(parse(version)) for version in versions), floor)
    for versions, floor in [((), 0), (("1.0.0",), 0), (("1.0.0", "1.1.0"), 0), (("2.0.0",), pack(parse("1.0.0")))]
)
_AT = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)

STAMPS = (None, *(Stamp(first, second) for first in SETS for second in SETS[:2]))

nodes = st.sampled_from(NODES)
keys = st.sampled_from(KEYS)
numbers = st.integers(1, 3)
writes = st.dictionaries(st.sampled_from(["main", "other"]), st.sampled_from([b"1", b"{}", None]))
tables = st.sampled_from(["log", "\U0001f697", "none"])
entry_keys = st.sampled_from(["a", "a\x01", "B", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"])
entries = st.dictionaries(
    st.tuples(tables.filter(lambda table: table != "none"), entry_keys),
    st.none() | st.builds(Entry, st.sampled_from([b"", b"1", b"\x00\xff" * 5, b"x" * 40]), st.sampled_from(SETS)),
    max_size=6,
)
kept = st.none() | st.builds(Kept, st.sampled_from([None, b"", b"1", b"\x00\xff"]))
bases = st.none() | st.builds(
    BaseWrite,
    st.none() | st.sampled_from(SETS),
    st.sampled_from([0, -1, 2**62]),
    st.booleans(),
    st.dictionaries(st.sampled_from(["main", "other", "é"]), kept),
)
keeps = st.sampled_from([None, None, True, False])
kinds = st.sampled_from(["Car", "bus", "none"])
versions = st.none() | st.sampled_from([0, 1, 2**62])
some_sets = st.frozensets(st.none() | st.sampled_from(SETS))
some_bases = st.frozensets(
    st.builds(Based, st.none() | st.sampled_from(SETS), st.sampled_from([None, *SETS[:2]]), st.sampled_from(SETS))
)
questions = st.one_of(
    st.builds(AskType, kinds),
    st.builds(AskActors, kinds, some_sets),
    st.builds(AskBases, kinds, some_bases),
    st.builds(AskEntries, kinds, st.frozensets(st.sampled_from(SETS)), st.none() | st.sampled_from([0, 1, 2, 2**62])),
    st.builds(AskConverting, kinds, st.sampled_from([1, 2, 2**62])),
    st.builds(AskFailing, kinds, st.none() | some_sets),
)
marks = st.builds(Marks, st.sampled_from([0, 1, 2**62]), st.none() | st.sampled_from([0, 1, 2**62]))
ranges = st.builds(
    Range, tables, st.just("") | entry_keys, st.just(Range("").end) | entry_keys | st.just(""), st.booleans()
)


def machine(open_store: Callable[[Path, ManualClock], AbstractAsyncContextManager[Store]]) -> type[StoreMachine]:
    """Return the state machine for a store, made by ``open_store(folder, clock)``."""
    return type("Machine", (StoreMachine,), {"open_store": staticmethod(open_store)})


class StoreMachine(RuleBasedStateMachine):
    """Does the same to the store and to its model."""

    open_store: Callable[[Path, ManualClock], AbstractAsyncContextManager[Store]]

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="lazymig-machine-"))
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._clock = ManualClock()
        self._number = 100  # above all numbers that are drawn
        self._model = MemoryStore(self._clock)
        self._store = self._runner.run(
            self._stack.enter_async_context(type(self).open_store(self._folder, self._clock))
        )

    def teardown(self) -> None:
        """Close the store and remove its folder."""
        self._runner.run(self._stack.aclose())
        self._runner.close()
        shutil.rmtree(self._folder)

    def both(self, operation: Callable[[Store], Awaitable[Any]]) -> Any:
        """Do something to both; the answers, or the kinds of error, are the same."""
        expected = self._runner.run(_outcome(operation, self._model))
        found = self._runner.run(_outcome(operation, self._store))
        assert found == expected
        return found

    @initialize()
    def register_all(self) -> None:
        """Begin with registered nodes."""
        for node_id in NODES:
            self.both(lambda store, node_id=node_id: store.register(_node(node_id)))  # type: ignore[misc]  # bound now

    @rule(node_id=nodes)
    def unregister(self, node_id: str) -> None:
        """A node signs off, or is forgotten."""
        self.both(lambda store: store.unregister(node_id))

    @rule(node_id=nodes, replaced=nodes)
    def register_anew(self, node_id: str, replaced: str) -> None:
        """A node comes, in place of itself or of another."""
        self.both(lambda store: store.unregister(node_id))
        self.both(lambda store: store.register(_node(node_id), replaces=replaced if replaced != node_id else None))

    @rule(node_id=nodes)
    def beat(self, node_id: str) -> None:
        """A heartbeat."""
        self.both(lambda store: _beat(store, node_id))

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._clock.advance(seconds)

    @rule(key=keys, node_id=nodes, number=numbers)
    def claim(self, key: ActorKey, node_id: str, number: int) -> None:
        """A node asks for an actor."""
        self.both(lambda store: store.claim(key, Fence(node_id, number)))

    @rule(
        key=keys,
        node_id=nodes,
        number=numbers,
        revision=st.integers(0, 4),
        stamp=st.sampled_from(STAMPS),
        writes=writes,
        release=st.booleans(),
        is_right=st.booleans(),
        epoch=st.integers(0, 2),
        base=bases,
        keeps=keeps,
    )
    def commit(self, *, is_right: bool, **fields: Any) -> None:
        """A commit, right or wrong."""
        if is_right:
            fields["epoch"] = self._epoch(fields["key"])
        stored = self._model._rows.get(fields["key"])  # noqa: SLF001  (the model is ours to look into)
        if is_right and stored is not None and stored.fence is not None:
            fields |= {"node_id": stored.fence.node, "number": stored.fence.number, "revision": stored.revision}
        change = Commit(
            fields["key"],
            Fence(fields["node_id"], fields["number"]),
            fields["revision"],
            fields["stamp"],
            fields["writes"],
            fields["release"],
            epoch=fields["epoch"],
            base=fields["base"],
            keeps_previous=fields["keeps"],
        )
        self.both(lambda store: store.commit(change))

    def _epoch(self, key: ActorKey) -> int:
        policy = self._model._policies.get(key.type)  # noqa: SLF001  (likewise)
        return 0 if policy is None else policy.epoch

    @rule(
        key=keys,
        entries=entries,
        marks=marks,
        writes=writes,
        release=st.booleans(),
        stamp=st.sampled_from(STAMPS),
        base=bases,
        keeps=keeps,
        clears=st.booleans(),
    )
    def commit_entries(self, *, key: ActorKey, stamp: Stamp | None, release: bool, **fields: Any) -> None:
        """A commit that puts and removes entries, under a claim unless another node has the actor."""
        self._number += 1
        fence = Fence(NODES[0], self._number)
        self.both(lambda store: store.claim(key, fence))
        stored = self._model._rows.get(key)  # noqa: SLF001  (likewise)
        revision = 0 if stored is None else stored.revision
        change = Commit(key, fence, revision, stamp, fields["writes"], release, fields["entries"], fields["marks"])
        change = change._replace(epoch=self._epoch(key), base=fields["base"], keeps_previous=fields["keeps"])
        change = change._replace(clears_failure=fields["clears"])
        self.both(lambda store: store.commit(change))

    @rule(key=keys, attempts=st.integers(1, 3), is_held=st.booleans())
    def note_failure(self, key: ActorKey, attempts: int, *, is_held: bool) -> None:
        """A failure is recorded, under a claim or not."""
        self._number += 1
        fence = Fence(NODES[0], self._number)
        if is_held:
            self.both(lambda store: store.claim(key, fence))
        failure = failed(None, 1, "name", "error", at=_AT, node="n", checksum=attempts)._replace(attempts=attempts)
        self.both(lambda store: store.failures.note(key, fence, failure))

    @rule(kind=kinds, key=st.none() | keys, limit=st.integers(1, 4))
    def look_at_failures(self, kind: str, key: ActorKey | None, limit: int) -> None:
        """The records are read, and the next try of some comes at once."""
        self.both(lambda store: store.failures.page(kind, after=key, limit=limit))
        self.both(lambda store: store.failures.page(after=key, limit=limit))
        self.both(lambda store: store.failures.retry(kind, None if key is None else key.id))

    @rule(kind=kinds, version=versions, is_change=st.booleans())
    def change_policy(self, kind: str, version: int | None, *, is_change: bool) -> None:
        """A write version is set or taken away, or only asked about."""
        ruling = answers(AskActors(kind, frozenset(SETS)), policies={kind: version})
        self.both(lambda store: store.rule(ruling, is_change=is_change))

    @rule(asked=st.lists(questions, min_size=1, max_size=3))
    def ask(self, asked: list[Question]) -> None:
        """A ruling asks."""
        self.both(lambda store: store.rule(answers(*asked)))

    @rule(kind=kinds, sets=some_sets, after=st.sampled_from(["", "A", "_", "é"]), limit=st.integers(1, 4))
    def count_stragglers(self, kind: str, sets: frozenset[AppliedSet | None], after: str, limit: int) -> None:
        """Who lags behind, and how many entries there are of each set."""
        self.both(lambda store: store.stragglers(kind, sets, after=after, limit=limit))
        self.both(lambda store: store.entry_census(kind))

    @rule(key=keys, of=ranges, limit=st.integers(1, 4), max_bytes=st.sampled_from([1, 10, 11, 50, 1_000]))
    def read_entries(self, key: ActorKey, of: Range, limit: int, max_bytes: int) -> None:
        """A range, page by page."""
        self.both(lambda store: _tables(store, key))
        self.both(lambda store: store.count_entries(key, of))
        keys, _, _, is_last = self.both(lambda store: store.entries(key, of, limit, max_bytes))
        while not is_last:
            of = of.after(keys[-1])
            keys, _, _, is_last = self.both(lambda store, of=of: store.entries(key, of, limit, max_bytes))  # type: ignore[misc]  # bound now

    @rule(held=st.lists(st.tuples(keys, st.builds(Fence, nodes, numbers)), max_size=3))
    def release(self, held: list[tuple[ActorKey, Fence]]) -> None:
        """Some locks are given up, valid or not."""
        self.both(lambda store: store.release(held))

    @rule(key=keys, more=keys)
    def insert(self, key: ActorKey, more: ActorKey) -> None:
        """An import."""
        rows = [(key.id, b"1"), (more.id, b"2")] if key.id != more.id else [(key.id, b"1")]
        self.both(lambda store: store.insert(key.type, "main", rows))

    @rule(
        kind=st.sampled_from(["Car", "bus", "none"]),
        after=st.sampled_from(["", "A", "_", "é"]),
        limit=st.integers(1, 4),
    )
    def look_around(self, kind: str, after: str, limit: int) -> None:
        """Scan, census, types."""
        self.both(lambda store: store.scan(kind, after=after, limit=limit))
        self.both(lambda store: store.census(kind))
        self.both(lambda store: store.types())

    @invariant()
    def every_actor_reads_the_same(self) -> None:
        """Nothing differs behind the scenes."""
        for key in KEYS:
            self.both(lambda store, key=key: store.read(key))  # type: ignore[misc]  # bound now
            self.both(lambda store, key=key: store.previous(key))  # type: ignore[misc]  # bound now


async def _outcome(operation: Callable[[Store], Awaitable[Any]], store: Store) -> Any:
    try:
        return _comparable(await operation(store))
    except LazymigError as error:
        return type(error)


def _comparable(found: Any) -> Any:
    if isinstance(found, Claim):
        return ("claim", found.fence, _comparable(found.actor), found.policy)
    if isinstance(found, StoredActor):
        base = None if found.base is None else (*found.base[:3], dict(found.base.states))
        return (*found[:3], dict(found.states), *found[4:7], base, found.failure)
    if isinstance(found, TypeFacts):
        assert found.known >= {based.base for based in found.bases} | {of for of in found.actors if of is not None}
        nodes = [(node.node_id, node.is_alive) for node in found.nodes]
        return (found.policy, nodes, found.actors, found.bases, found.oldest)
    if isinstance(found, dict):
        return {key: value for key, value in found.items() if value}
    if isinstance(found, (list, tuple)):
        return [_comparable(item) for item in found]
    return found


async def _tables(store: Store, key: ActorKey) -> dict[Any, int]:
    """Return the counts by table and stamp, the tables in order."""
    counts = await store.tables(key)
    names = [count.table for count in counts]
    assert names == sorted(names)
    return {(table, applied): entries for table, applied, entries in counts}


async def _beat(store: Store, node_id: str) -> bool:
    pulse = store.open_pulse()
    try:
        return pulse.beat(node_id)
    finally:
        pulse.close()


def _node(node_id: str) -> NodeRecord:
    return NodeRecord(node_id, f"label of {node_id}", None, 10.0)
