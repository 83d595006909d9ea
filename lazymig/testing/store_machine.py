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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lazymig._records import ActorKey, AppliedSet, Claim, Commit, Fence, NodeRecord, Stamp, StoredActor
from lazymig._version import pack, parse
from lazymig.errors import LazymigError
from lazymig.memory import MemoryStore
from lazymig.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from lazymig.store import Store

NODES = ("n1", "n2", "n3")
KEYS = tuple(ActorKey(kind, name) for kind in ("Car", "bus") for name in ("a", "A", "é", "\U0001f697", "_"))
SETS = tuple(
    AppliedSet((pack(parse(version)) for version in versions), floor)
    for versions, floor in [((), 0), (("1.0.0",), 0), (("1.0.0", "1.1.0"), 0), (("2.0.0",), pack(parse("1.0.0")))]
)
STAMPS = (None, *(Stamp(first, second) for first in SETS for second in SETS[:2]))

nodes = st.sampled_from(NODES)
keys = st.sampled_from(KEYS)
numbers = st.integers(1, 3)
writes = st.dictionaries(st.sampled_from(["main", "other"]), st.sampled_from([b"1", b"{}", None]))


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
    )
    def commit(self, *, is_right: bool, **fields: Any) -> None:
        """A commit, right or wrong."""
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
        )
        self.both(lambda store: store.commit(change))

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


async def _outcome(operation: Callable[[Store], Awaitable[Any]], store: Store) -> Any:
    try:
        return _comparable(await operation(store))
    except LazymigError as error:
        return type(error)


def _comparable(found: Any) -> Any:
    if isinstance(found, Claim):
        return ("claim", found.fence, _comparable(found.actor))
    if isinstance(found, StoredActor):
        return (found.key, found.revision, found.stamp, dict(found.states), found.owner, found.number)
    if isinstance(found, dict):
        return {key: value for key, value in found.items() if value}
    if isinstance(found, (list, tuple)):
        return [_comparable(item) for item in found]
    return found


async def _beat(store: Store, node_id: str) -> bool:
    pulse = store.open_pulse()
    try:
        return pulse.beat(node_id)
    finally:
        pulse.close()


def _node(node_id: str) -> NodeRecord:
    return NodeRecord(node_id, f"label of {node_id}", None, 10.0)
