"""Plain actors brought up in batches: claimed together, migrated on copies, committed together.

Rules:

1. An actor is brought up here only if its applied set and its main state are all that is to be known of it, and its
   migrations are plain functions that get a context object of the type: nothing that they do can reach an activation.
   Nor is anything to be kept of it, see `Commit.keeps_previous`; what was, goes with another major version.
2. What comes of an actor is written before the next one is migrated: they may share what a migration puts into both,
   the context object's say, and what the next one does to that is none of the first one's.
3. What fails here is given back as it was, and tried once more by itself, as an activation does it: there it fails by
   name.
"""

from __future__ import annotations

from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any

from lazymig import _plan, codec
from lazymig._bases import WritePolicy
from lazymig._records import ActorKey, Stamp
from lazymig._uncut import uncut
from lazymig._version import is_newer_major
from lazymig.errors import ActivationError
from lazymig.hooks import MigrationApplied, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._migrations import MigrateFunction, Migration
    from lazymig._records import AppliedSet
    from lazymig.hooks import Hook
    from lazymig.rollout._sweep_hand import Hand
    from lazymig.rollout._sweep_pace import Pace
    from lazymig.rollout._sweep_report import Tally
    from lazymig.store import Store
    from lazymig.suite import ActorType
    from lazymig.sweeping import Batch

_FAILED = object()
"""Stands for the value of an actor that is to be tried by itself."""

_Made = tuple[Any, bytes]
"""What came of an actor, and what was written of it then."""


class Batches:
    """Brings plain actors of a type up.

    Args:
        store: Where they are.
        actor_type: Their type.
        hand: Whose node claims them.
        pace: How many at once.
        tally: What is counted.
        hooks: Told of migrations.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (the sweep's parts)
        self,
        store: Store,
        actor_type: ActorType[Any],
        hand: Hand,
        pace: Pace,
        tally: Tally,
        hooks: tuple[Hook, ...] = (),
    ) -> None:
        self._store = store
        self._type = actor_type
        self._hand = hand
        self._pace = pace
        self._tally = tally
        self._hooks = hooks

    def plan(self, applied: AppliedSet | None, policy: WritePolicy) -> _plan.Plan | None:
        """Return what is to be run on plain actors of a set; None if they are to be brought up one by one."""
        chain = self._type.chain
        is_pinned = policy.version is not None and policy.version != chain.release.highest
        if is_pinned or not self._type.has_shared_context or (applied is None and self._type.infers_version):
            return None
        stamp = None if applied is None else Stamp(applied, chain.release)
        found = _plan.Found(stamp, has_states=True, has_main=True, write_version=policy.version)
        plan = _plan.decide(chain, found, None)
        if isinstance(plan, ActivationError) or not plan.steps or plan.is_async or not chain.knows(plan.applied):
            return None
        is_kept = self._type.keeps_previous and is_newer_major(plan.applied.highest, found.applied.highest)
        return None if is_kept else plan

    async def next(self, applied: AppliedSet | None, after: str, limit: int) -> str | None:
        """Bring the next actors of a set up; return the id after which more may follow, None if none do.

        Args:
            applied: What is applied to them.
            after: Only those whose id is above it.
            limit: How many at most.
        """
        fence, size = await self._hand.next_fence(), min(limit, self._pace.size)
        claimed = self._store.sweeping.claim(self._type.name, applied, self._type.state, fence, after=after, limit=size)
        batch = await uncut(claimed)
        if batch is None:  # somebody forgot this node
            self._hand.membership.expire()
            return after
        if batch.ids:
            self._tally.begin(batch.now)
            self._hand.hold(batch.ids)
            try:
                await self._bring_up(batch, applied)
            finally:
                self._hand.free(batch.ids)
        return batch.after

    async def _bring_up(self, batch: Batch, applied: AppliedSet | None) -> None:
        started = self._pace.clock()
        plan = self.plan(applied, batch.policy)
        made = [None] * len(batch.ids) if plan is None else self._migrate(batch.data, plan.steps)
        seconds = self._pace.clock() - started
        pairs = list(zip(batch.ids, made, strict=True))
        changes = [(actor_id, data) for actor_id, data in pairs if data is not None]
        released = [actor_id for actor_id, data in pairs if data is None] if len(changes) < len(pairs) else []
        stamp = Stamp(self._type.chain.release if plan is None else plan.applied, self._type.chain.release, batch.now)
        version = 0 if applied is None else applied.highest
        lost = await uncut(
            self._store.sweeping.commit(
                self._type.name,
                self._type.state,
                batch.fence,
                changes,
                stamp=stamp,
                epoch=batch.policy.epoch,
                released=released,
                drops_previous=is_newer_major(stamp.applied.highest, version),
            )
        )
        if isinstance(lost, WritePolicy):  # they come again, for that one
            keys = [(ActorKey(self._type.name, actor_id), batch.fence) for actor_id in batch.ids]
            await uncut(self._store.release(keys))
            return
        before, after = sum(map(len, batch.data)), sum(len(data) for _, data in changes)
        self._pace.note(len(batch.ids), before + after, seconds)
        if unstored := {*lost, *released}:
            stored = [(actor_id, data) for actor_id, data in changes if actor_id not in unstored]
            after = sum(len(data) for _, data in stored)
            read = zip(batch.ids, batch.data, strict=True)
            before = sum(len(data) for actor_id, data in read if actor_id not in unstored)
        self._tally.add(version, len(batch.ids) - len(unstored), before, after)
        if self._hooks and plan is not None:
            self._tell([actor_id for actor_id in batch.ids if actor_id not in unstored], plan.steps)

    def _tell(self, ids: Sequence[str], steps: Sequence[Migration]) -> None:
        node_id = self._hand.node_id
        for actor_id in ids:
            for step in steps:
                key = ActorKey(self._type.name, actor_id)
                tell(self._hooks, MigrationApplied(node_id, key, step.version, step.name))

    def _migrate(self, data: Sequence[bytes], steps: Sequence[Migration]) -> Sequence[bytes | None]:
        """Return what migrations make of each state; None for what is to be tried by itself."""
        functions = [step.function for step in steps]
        context = self._type.shared_context
        return _kept([_run(functions, value, context) for value in _decoded(data)])


def _decoded(data: Sequence[bytes]) -> list[Any]:
    try:
        return codec.decode_many(data)
    except ValueError:
        return [_decoded_alone(one) for one in data]


def _decoded_alone(data: bytes) -> Any:
    try:
        return codec.decode(data)
    except ValueError:
        return _FAILED


def _run(functions: Sequence[MigrateFunction], value: Any, context: Any) -> _Made | None:
    """Return what functions make of a value, which they may change in place; None: it is to be tried by itself."""
    if value is _FAILED:
        return None
    try:
        for function in functions:
            result = function(value, context)
            if result is not None:
                if isawaitable(result):
                    if iscoroutine(result):
                        result.close()  # it has not begun
                    return None
                value = result
        return value, codec.write(value)
    except Exception:  # told by who tries it by itself
        return None


def _kept(made: Sequence[_Made | None]) -> Sequence[bytes | None]:
    """Return what was written of each; None where that would not come back equal, or is another one by now."""
    whole = [one for one in made if one is not None]
    if codec.come_back([value for value, _ in whole], [data for _, data in whole]):
        return [None if one is None else one[1] for one in made]
    return [one[1] if one is not None and codec.come_back([one[0]], [one[1]]) else None for one in made]
