"""Preflight: the migrations of a sweep, run on copies of what is stored.

Rules:

1. The store is read only, and no lock is taken: no node is registered, and nobody waits for it.
2. All that is pending runs, also what is above the write version: as it will for whoever activates the actors.
3. An actor is in memory while it is tried, with a bounded number of entries, if it has some, and then no other one that
   has; of the others there are counts.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig._bases import WritePolicy
from lazymig._calls import offers_of
from lazymig._records import ActorKey
from lazymig._releases import check_write_version
from lazymig.errors import CorruptStateError, NewerStateError
from lazymig.rollout._preflight_copy import copied
from lazymig.rollout._preflight_report import Findings, Growth
from lazymig.rollout._preflight_trial import tried
from lazymig.rollout._sweep_report import FailedActor, SweepReport
from lazymig.rollout._sweep_singles import AT_ONCE, gather
from lazymig.rollout._sweep_targets import Targets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from lazymig._records import AppliedSet, StoredActor
    from lazymig.rollout._preflight_copy import Copied
    from lazymig.rollout._preflight_trial import Trial
    from lazymig.rollout._sweep import Stop
    from lazymig.rollout._sweep_pace import Pace
    from lazymig.rollout._sweep_report import Ending
    from lazymig.store import Store
    from lazymig.suite import ActorType

PROGRESS_SECONDS = 0.1
"""How often it tells its progress, at most."""


async def rehearse(  # noqa: PLR0913  (the options of `sweep`)
    store: Store,
    actor_type: ActorType[Any],
    pace: Pace,
    *,
    limit: int | None,
    max_failures: int,
    stop: Stop | None,
    progress: Callable[[SweepReport], object] | None,
) -> SweepReport:
    """Run the migrations on copies; see `sweep`.

    Raises:
        NewerStateError: The type is written at a version above what the suite supports.
        WriteVersionError: It is written at a version that this software has no way down to.
        StoreError: The store's fault.
        CorruptStateError: What all actors of the type share can't be read.
    """
    policy = await store.policy(actor_type.name)
    if not policy.epoch and actor_type.write_version is not None:  # as the first node that starts sets it
        policy = WritePolicy(_version.pack(actor_type.write_version), 1)
    if policy.version is not None and policy.version > actor_type.chain.release.highest:
        raise NewerStateError(None, _version.unpack(policy.version), actor_type.supported, of="type")
    (offer,) = offers_of({actor_type.name: actor_type})
    check_write_version(offer, policy.version)
    counts = await store.census(actor_type.name)
    run = _Preflight(store, actor_type, policy, counts, pace)
    run.limit, run.max_failures, run.stop, run.progress = limit, max_failures, stop, progress
    return await run.run()


class _Preflight:
    """The preflight of one type.

    Attributes:
        limit: See `sweep`; likewise the others.
    """

    limit: int | None
    max_failures: int
    stop: Stop | None
    progress: Callable[[SweepReport], object] | None

    def __init__(
        self,
        store: Store,
        actor_type: ActorType[Any],
        policy: WritePolicy,
        counts: Mapping[AppliedSet | None, int],
        pace: Pace,
    ) -> None:
        self._store = store
        self._type = actor_type
        self._policy = policy
        self._targets = Targets(actor_type, policy)
        self._kept = actor_type.chain.release if self._targets.is_pinned else None
        self._sets = frozenset(applied for applied in counts if self._is_pending(applied))
        self._total = sum(counts.values())
        self._pending = sum(counts[applied] for applied in self._sets)
        self._newer = sum(count for applied, count in counts.items() if self._targets.is_newer(applied))
        self._counted = self._sets.union(applied for applied in counts if self._targets.is_newer(applied))
        self._pace = pace
        self._seen = self._seen_second = self._unseen = 0
        self._migrated: Counter[int] = Counter()
        self._failed: list[FailedActor] = []
        self._bytes_before = self._bytes_after = 0
        self._findings = Findings()
        self._entries = asyncio.Lock()
        self._began_at = pace.clock()
        self._told_at = float("-inf")

    def _is_pending(self, applied: AppliedSet | None) -> bool:
        """Tell whether something is to be run on actors of a set, or to be stored of them."""
        if self._targets.is_stale(applied):
            return True
        return applied is not None and not self._targets.is_newer(applied) and bool(self._type.chain.pending(applied))

    async def run(self) -> SweepReport:
        """Try all actors of which something would be stored."""
        name = self._type.name
        if self._sets:
            await self._each(partial(self._store.stragglers, name, self._sets))
        counts = await self._store.entry_census(name)
        entries = frozenset(applied for applied in counts if self._targets.is_stale_entry(applied))
        if self._ending() is None:
            await self._each(partial(self._store.sweeping.unsettled, name, entries, self._kept), is_second=True)
        if self._ending() is not None:
            count = self._store.sweeping.count_unsettled(name, entries, self._kept, without=self._counted)
            self._unseen = max(0, await count - self._seen_second)
        report = self._report(self._ending() or "finished")
        if self.progress is not None:
            self.progress(report)
        return report

    async def _each(self, find: Callable[..., Awaitable[Sequence[str]]], *, is_second: bool = False) -> None:
        """Try the actors that are found, page by page."""
        after = ""
        while await self._is_ready():
            size = min(AT_ONCE, self._pace.size, self._left(), self.max_failures - len(self._failed))
            ids = await find(after=after, limit=size)
            await self._try_page(ids, is_second=is_second)
            if len(ids) < size:
                break
            after = ids[-1]

    async def _try_page(self, ids: Sequence[str], *, is_second: bool) -> None:
        """Try some actors, beside each other where they wait for something: so the time of each is its own."""
        keys = [ActorKey(self._type.name, actor_id) for actor_id in ids]
        outcomes = await gather([self._try(key, is_second=is_second) for key in keys])
        self._pace.note(len(ids), sum(size for size, _ in outcomes), sum(seconds for _, seconds in outcomes))
        await self._pace.sleep(0.0)  # a store in memory never lets others run

    async def _try(self, key: ActorKey, *, is_second: bool) -> tuple[int, float]:
        """Try one; return the bytes of its states, before and after, and how long it took."""
        self._seen += not is_second
        try:
            actor = await self._store.read(key)
            if actor is None or (is_second and self._was_tried(actor)):
                return 0, 0.0
            self._seen_second += is_second and not self._is_counted(actor)
            if actor.marks.oldest is None:
                return await self._try_stored(actor, is_second=is_second)
            async with self._entries:
                return await self._try_stored(actor, is_second=is_second)
        except CorruptStateError as error:
            self._fail(FailedActor.of(key, error))
            return 0, 0.0

    def _was_tried(self, actor: StoredActor) -> bool:
        return (None if actor.stamp is None else actor.stamp.applied) in self._sets

    def _is_counted(self, actor: StoredActor) -> bool:
        return (None if actor.stamp is None else actor.stamp.applied) in self._counted

    async def _try_stored(self, actor: StoredActor, *, is_second: bool) -> tuple[int, float]:
        found = self._findings
        copy = await copied(self._store, actor, self._policy, keeps_previous=self._type.keeps_previous)
        if copy is None:
            found.moving += 1
            return 0, 0.0
        trial = await tried(self._type, copy, self._pace.clock)
        found.held += copy.actor.owner is not None
        found.quarantined += copy.actor.failure is not None
        found.truncated += not copy.is_whole
        found.waiting += self._has_waiting_entries and copy.actor.marks.oldest is not None
        self._newer += trial.is_newer and not is_second  # else it was counted at first
        if trial.failure is not None:
            self._fail(trial.failure)
        elif trial.is_stored:
            self._note(copy, trial)
        return trial.states_before + trial.states_after, trial.seconds

    @property
    def _has_waiting_entries(self) -> bool:
        """Whether entries are converted above the version that the type is written at."""
        above = (step for step in self._type.chain.migrations if step.packed > self._targets.version)
        return self._targets.is_pinned and any(step.conversions for step in above)

    def _fail(self, failure: FailedActor) -> None:
        self._findings.tried += 1
        self._failed.append(failure)

    def _note(self, copy: Copied, trial: Trial) -> None:
        """Note one that came up; what is only above the write version is nothing that a sweep does."""
        found, stamp = self._findings, copy.actor.stamp
        applied = None if stamp is None else stamp.applied
        found.tried += 1
        found.note_time(trial.seconds)
        found.note_growth(Growth(copy.actor.key, copy.size, trial.after))
        if trial.has_run:
            found.note_differences(trial.differences)
        if applied not in self._sets or self._targets.is_stale(applied) or self._is_unsettled(copy):
            self._migrated[0 if applied is None else applied.highest] += 1
            self._bytes_before += trial.states_before
            self._bytes_after += trial.states_after

    def _is_unsettled(self, copy: Copied) -> bool:
        """Tell whether a sweep comes to an actor whatever its stamp says, see `Sweeping.unsettled`."""
        actor, base = copy.actor, copy.actor.base
        if actor.marks.converting or (
            base is not None and (base.applied, base.revision) != (self._kept, actor.revision)
        ):
            return True
        return any(self._targets.is_stale_entry(entry.applied) for entry in copy.entries.values())

    # --- between two pages -------------------------------------------------------------------------------------

    @property
    def _came_up(self) -> int:
        return self._findings.tried - len(self._failed)

    def _left(self) -> int:
        """Return how many actors may still come up."""
        return sys.maxsize if self.limit is None else self.limit - self._came_up

    def _ending(self) -> Ending | None:
        """Return why it is to end now, if it is."""
        if self.stop is not None and self.stop.is_set():
            return "stopped"
        if len(self._failed) >= self.max_failures:
            return "failures"
        return "limit" if self._left() <= 0 else None

    async def _is_ready(self) -> bool:
        """Wait until the next page may come; tell whether one is to."""
        now = self._pace.clock()
        if self.progress is not None and now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self.progress(self._report("running"))
        while self._ending() is None:
            if await self._pace.is_due():
                return True
        return False

    def _report(self, ended: Ending) -> SweepReport:
        migrated = self._migrated.total()
        others = max(0, self._total - migrated - self._newer - len(self._failed))
        left = min(others, max(0, self._pending - self._seen) + self._unseen + self._findings.moving)
        versions = sorted(self._migrated)
        return SweepReport(
            types=(self._type.name,),
            migrated=migrated,
            from_versions={_version.unpack(number): self._migrated[number] for number in versions},
            current=others - left,
            newer=self._newer,
            failed=tuple(sorted(self._failed, key=lambda failed: failed.key)),
            left=left,
            ended=ended,
            passes=1,
            seconds=self._pace.clock() - self._began_at,
            bytes_before=self._bytes_before,
            bytes_after=self._bytes_after,
            preflight=self._findings.report(left),
        )
