"""Sweep: bring all idle actors of a type to the version that it is written at, up or down, entries included.

Rules:

1. It goes through claim, plan, run and commit as every activation does, so it is safe beside calls, and beside a second
   sweep. Actors that a node holds are left, and come again.
2. It goes through the actors until it finds nothing to do: some appear behind it. What older software stored over once
   more is mended, and is no reason to go through them again: that would go on for as long as it serves them.
3. The versions are the progress: a sweep that was stopped or killed goes on by being begun again.
4. One actor's failure is noted with it, and the others go on.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from lazymig import _options, _version
from lazymig._uncut import uncut
from lazymig.errors import DefinitionError, NewerStateError, StoreError, UnknownActorTypeError
from lazymig.rollout._preflight import rehearse
from lazymig.rollout._sweep_batches import Batches
from lazymig.rollout._sweep_hand import Hand
from lazymig.rollout._sweep_pace import ACTORS_PER_SECOND, BYTES_PER_SECOND, Pace
from lazymig.rollout._sweep_report import SweepReport, Tally
from lazymig.rollout._sweep_singles import Singles
from lazymig.rollout._sweep_targets import Facts, Targets, asking
from lazymig.suite import Suite, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from lazymig._records import AppliedSet
    from lazymig.hooks import Hook
    from lazymig.rollout._sweep_report import Ending
    from lazymig.store import Store
    from lazymig.suite import ActorType

MAX_FAILURES = 1_000
"""By default: so many broken actors are a broken migration."""

NOTE_SECONDS = 1.0
"""How often it notes in the store how far it is, and looks whether it is to pause."""


SETTLE_SECONDS = (0.05, 0.2, 0.5)
"""How long it waits, once nothing else is left, for actors that a node held: many are just being brought up there."""

PROGRESS_SECONDS = 0.1
"""How often it tells its progress, at most."""


class Stop(Protocol):
    """Says when a sweep is to end; an `asyncio.Event` is one, and a `threading.Event`."""

    def is_set(self) -> bool:
        """Tell whether it is to end."""
        ...


async def sweep(  # noqa: PLR0913  (the contract's options)
    store: Store,
    suite: Suite,
    actor_type: ActorType[Any] | str,
    *,
    dry_run: bool = False,
    limit: int | None = None,
    actors_per_second: float | None = ACTORS_PER_SECOND,
    bytes_per_second: float | None = BYTES_PER_SECOND,
    max_failures: int = MAX_FAILURES,
    build: str | None = None,
    stop: Stop | None = None,
    progress: Callable[[SweepReport], object] | None = None,
    hooks: Iterable[Hook] = (),
) -> SweepReport:
    """Bring all idle actors of a type, entries included, to the version that it is written at, up or down.

    It may be stopped or killed at any time, and goes on when it is begun again.

    Args:
        store: An open store.
        suite: Has the type, as the newest release does.
        actor_type: The type, or its name.
        dry_run: Run the migrations on copies only, and write nothing: see `SweepReport.preflight`. What migrations do
            outside happens; `Activation.is_projection` is true in them.
        limit: Bring up so many actors at most.
        actors_per_second: How many at most; None for no limit.
        bytes_per_second: Of states read and written, likewise.
        max_failures: It ends once so many actors have failed.
        build: Name of the release, for people.
        stop: It ends after the batch at hand once this is set.
        progress: Called with what was done so far, a few times a second.
        hooks: Told of migrations, see `lazymig.hooks`, and of what else happens to actors brought up one by one.

    Raises:
        UnknownActorTypeError: The suite has no such type.
        NewerStateError: The type is written at a version above what the suite supports.
        DefinitionError: An option is none that can be used, or the release may not start beside what the store has.
        StoreError: The store's fault; what was brought up stays so.
    """
    return await sweep_type(
        store,
        _known(store, suite, actor_type),
        dry_run=dry_run,
        limit=limit,
        actors_per_second=actors_per_second,
        bytes_per_second=bytes_per_second,
        max_failures=max_failures,
        build=build,
        stop=stop,
        progress=progress,
        hooks=hooks,
    )


async def sweep_type(  # noqa: PLR0913  (the options of `sweep`)
    store: Store,
    actor_type: ActorType[Any],
    *,
    dry_run: bool = False,
    limit: int | None = None,
    actors_per_second: float | None = ACTORS_PER_SECOND,
    bytes_per_second: float | None = BYTES_PER_SECOND,
    max_failures: int = MAX_FAILURES,
    build: str | None = None,
    stop: Stop | None = None,
    progress: Callable[[SweepReport], object] | None = None,
    hooks: Iterable[Hook] = (),
) -> SweepReport:
    """Do as `sweep`, of a type that is known."""
    _options.check_count("max_failures", max_failures)
    if limit is not None:
        _options.check_count("limit", limit)
    for name, rate in {"actors_per_second": actors_per_second, "bytes_per_second": bytes_per_second}.items():
        if rate is not None:
            _options.check_positive(name, rate)
    listeners: tuple[Any, ...] = tuple(_options.read_items("hooks", hooks, callable, "Write a list of functions."))
    pace = Pace(actors_per_second, bytes_per_second)
    actor_type.freeze()
    if dry_run:
        return await rehearse(
            store, actor_type, pace, limit=limit, max_failures=max_failures, stop=stop, progress=progress
        )
    async with Hand(store, actor_type, "sweep", build) as hand:
        run = _Sweep(store, actor_type, hand, pace, listeners, limit, max_failures, stop, progress)
        return await run.run()


def _known(store: Store, suite: Suite, actor_type: ActorType[Any] | str) -> ActorType[Any]:
    _options.check_store(store)
    if not isinstance(suite, Suite):
        raise DefinitionError(f"suite is {suite!r}, no suite. Write sweep(store, suite, 'Vehicle').")
    name = name_of(actor_type)
    known = suite.actor_types.get(name)
    if known is None:
        raise UnknownActorTypeError(name, suite.actor_types)
    return known


class _Sweep:
    """One sweep of one type."""

    def __init__(  # noqa: PLR0913, PLR0917  (the options of `sweep`)
        self,
        store: Store,
        actor_type: ActorType[Any],
        hand: Hand,
        pace: Pace,
        hooks: tuple[Hook, ...],
        limit: int | None,
        max_failures: int,
        stop: Stop | None,
        progress: Callable[[SweepReport], object] | None,
    ) -> None:
        self._store = store
        self._type = actor_type
        self._hand = hand
        self._pace = pace
        self._limit = limit
        self._max_failures = max_failures
        self._stop = stop
        self._progress = progress
        self._tally = Tally(actor_type.name)
        self._batches = Batches(store, actor_type, hand, pace, self._tally, hooks)
        self._singles = Singles(actor_type, hand, pace, self._tally, hooks)
        self._epoch: int | None = None
        self._began_at = pace.clock()
        self._noted_at = self._told_at = float("-inf")

    async def run(self) -> SweepReport:
        """Go through the actors until there is nothing to do."""
        try:
            is_over = False
            while not is_over:
                await self._go_through()
                facts = await self._facts()
                await self._count(facts)
                if self._ending() is not None:
                    await self._count_unsettled(facts)
                is_over = self._ending() is not None or facts.policy.epoch == self._epoch
        except BaseException:
            with suppress(StoreError):  # what ended it is told
                await uncut(self._note("stopped"))
            raise
        report = self._report(self._ending() or "finished")
        await self._note(report.ended)
        if self._progress is not None:
            self._progress(report)
        return report

    async def _go_through(self) -> None:
        waits = iter(SETTLE_SECONDS)
        while self._ending() is None:
            if await self._pass():
                continue
            seconds = next(waits, None) if self._tally.busy else None
            if seconds is None:
                return
            await self._pace.sleep(seconds)

    async def _facts(self) -> Facts:
        facts: Facts = await self._store.rule(partial(asking, self._type.name))
        written = facts.policy.version
        if written is not None and written > self._type.chain.release.highest:
            raise NewerStateError(None, _version.unpack(written), self._type.supported, of="type")
        return facts

    async def _count(self, facts: Facts) -> None:
        targets = Targets(self._type, facts.policy)
        counts = await self._store.census(self._type.name)
        stale = sum(count for applied, count in counts.items() if targets.is_stale(applied))
        newer = sum(count for applied, count in counts.items() if targets.is_newer(applied))
        self._tally.note_total(sum(counts.values()), stale, newer)

    async def _count_unsettled(self, facts: Facts) -> None:
        """Count those that it did not come to and whose stamps don't tell it: no count of stamps has them."""
        targets = Targets(self._type, facts.policy)
        others = frozenset(of for of in facts.actors if targets.is_stale(of) or targets.is_newer(of))
        entries, base = _unsettled(targets, facts, self._type)
        self._tally.stale += await self._store.sweeping.count_unsettled(self._type.name, entries, base, without=others)

    async def _pass(self) -> bool:
        """Go through the actors once; tell whether one was brought up."""
        facts = await self._facts()
        targets = Targets(self._type, facts.policy)
        self._epoch = facts.policy.epoch
        self._tally.begin_pass()
        await self._count(facts)
        before = self._tally.migrated
        stale = frozenset(applied for applied in facts.actors if targets.is_stale(applied))
        for applied in sorted(stale, key=_order):
            if self._batches.plan(applied, facts.policy) is not None:
                await self._in_batches(applied)
        find = partial(self._store.stragglers, self._type.name, stale)
        is_stored = bool(stale) and await self._one_by_one(find, is_stale=True)
        find = partial(self._store.sweeping.unsettled, self._type.name, *_unsettled(targets, facts, self._type))
        await self._one_by_one(find)
        return is_stored or self._tally.migrated > before

    async def _in_batches(self, applied: AppliedSet | None) -> None:
        after: str | None = ""
        while after is not None and await self._is_ready():
            after = await self._batches.next(applied, after, self._left())

    async def _one_by_one(self, find: Callable[..., Awaitable[Sequence[str]]], *, is_stale: bool = False) -> bool:
        """Bring up what is found page by page; tell whether something was stored."""
        after, is_stored = "", False
        while await self._is_ready():
            size = min(self._singles.size, self._left())
            ids = await find(after=after, limit=size)
            known = [actor_id for actor_id in ids if actor_id not in self._tally.failed]
            if known:
                is_stored |= await self._singles.bring_up(known, is_stale=is_stale)
            if len(ids) < size:
                break
            after = ids[-1]
        return is_stored

    # --- between two batches -----------------------------------------------------------------------------------

    def _left(self) -> int:
        """Return how many actors may still be brought up."""
        return sys.maxsize if self._limit is None else max(1, self._limit - self._tally.migrated)

    def _ending(self) -> Ending | None:
        """Return why it is to end now, if it is."""
        if self._stop is not None and self._stop.is_set():
            return "stopped"
        if len(self._tally.failed) >= self._max_failures:
            return "failures"
        return "limit" if self._limit is not None and self._tally.migrated >= self._limit else None

    async def _is_ready(self) -> bool:
        """Wait until the next batch may come; tell whether one is to."""
        await self._pace.sleep(0.0)  # a store in memory never lets others run
        self._tell(is_paused=False)
        while self._ending() is None:
            if self._pace.clock() - self._noted_at >= NOTE_SECONDS:
                await self._hand.locks.release_left()
                if await self._note("running"):
                    self._tell(is_paused=True)
                    await self._pace.sleep(NOTE_SECONDS)
                    continue
            if await self._pace.is_due():
                return True
        return False

    def _tell(self, *, is_paused: bool) -> None:
        now = self._pace.clock()
        if self._progress is not None and now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._progress(replace(self._report("running"), is_paused=is_paused))

    async def _note(self, ended: Ending) -> bool:
        """Note in the store how far it is; tell whether it is to pause."""
        self._noted_at = self._pace.clock()
        if not self._hand.node_id:
            return False
        noted = {"label": self._hand.label, **self._report(ended).to_json()}
        return await self._store.sweeping.note(self._type.name, self._hand.node_id, orjson.dumps(noted))

    def _report(self, ended: Ending) -> SweepReport:
        return self._tally.report(ended, self._pace.clock() - self._began_at)


def _unsettled(
    targets: Targets, facts: Facts, actor_type: ActorType[Any]
) -> tuple[frozenset[AppliedSet], AppliedSet | None]:
    """Return what actors are found by whose stamps don't tell all, see `Sweeping.unsettled`."""
    entries = frozenset(applied for applied in facts.known if targets.is_stale_entry(applied))
    return entries, actor_type.chain.release if targets.is_pinned else None


def _order(applied: AppliedSet | None) -> tuple[int, int, tuple[int, ...]]:
    return (-1, 0, ()) if applied is None else (applied.highest, applied.floor, applied.packed)
