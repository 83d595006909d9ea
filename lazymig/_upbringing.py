"""How an actor is brought up: what its plan says is run on private copies, and committed in one transaction.

Rules:

1. The handles are reset first: migrations fill them with copies, and once the commit is acknowledged they show what is
   stored. If anything fails they are unloaded, and the stored bytes are what they were.
2. Up to the write version, what runs makes the states as stored; above it, it goes on from there, and makes the base.
3. A `reconcile` comes right after what runs up to its migration, and gets the base in the shape of that time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _storing, _upgrade
from lazymig._eager import Conversions
from lazymig._holding import PolicyChangedError, values_of
from lazymig._inspection import decode_state
from lazymig._quarantining import record
from lazymig._running import RUNNING, Running
from lazymig._slots import give_way, has_slot
from lazymig._tables import Tables
from lazymig.errors import ActivationError, MigrationFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._holding import Holding
    from lazymig._lease import Lease
    from lazymig._migrations import Migration
    from lazymig._plan import Plan
    from lazymig._running import Staged
    from lazymig._slots import Slots
    from lazymig._telling import Telling
    from lazymig.activation import Activation
    from lazymig.state import State


class _Made(NamedTuple):
    """What came of running a plan.

    Attributes:
        writes: Name to what it made of a state, None to remove it; without projections.
        entries: To be stored.
        projected: All states with the projections, None if there were none.
        staged: Entries of projections that nothing keeps: stored by the next commit.
        is_migrated: Whether something was made of the states as stored.
        is_kept_by_nothing: Whether there is nothing but projections that nothing keeps.
    """

    writes: dict[str, bytes | None]
    entries: Staged
    projected: Mapping[str, bytes] | None = None
    staged: Staged = {}  # noqa: RUF012  (never changed)
    is_migrated: bool = False
    is_kept_by_nothing: bool = False


class Upbringing:
    """Brings one actor up by a plan.

    Args:
        activation: The activation, which has the context object.
        holding: What it has of the stored actor; its turn is held.
        states: Its handles.
        lease: The actor's lock.
        plan: What is to be done.
        eager: Tables whose entries are converted first, to which version, packed.
        telling: Told of it.
        slots: Of the node, one of which is held while something runs; None: as many as come.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (the activation's parts)
        self,
        activation: Activation,
        holding: Holding,
        states: Mapping[str, State[Any]],
        lease: Lease,
        plan: Plan,
        eager: Mapping[str, int],
        telling: Telling,
        slots: Slots | None,
    ) -> None:
        self._activation = activation
        self._holding = holding
        self._states = states
        self._lease = lease
        self._plan = plan
        self._eager = eager
        self._telling = telling
        self._slots = slots if plan.runs or eager else None

    async def run(self, seconds: float) -> None:
        """Convert entries, run the plan on copies, commit what came out, and let the handles see it.

        Anew, if the write policy was changed meanwhile: nothing was stored then but converted entries. What fails is
        recorded, under the same lock. What may take long, or has to wait, does so in a task of its own.

        Args:
            seconds: How long to wait for that.

        Raises:
            ActivationInProgressError: It takes longer, and goes on.
        """
        slots = self._slots
        run = self._run_noting if slots is None else partial(self._run_in_slot, slots)
        is_long = self._eager or self._plan.is_async or (slots is not None and slots.is_full)
        running = self._holding.migrate(run, seconds) if is_long else run()
        await (give_way(running) if has_slot() else running)

    async def _run_in_slot(self, slots: Slots) -> None:
        async with slots.one():
            await self._lease.check()  # it may have been lost meanwhile
            await self._run_noting()

    async def _run_noting(self) -> None:
        try:
            await self._bring_up()
        except MigrationFailedError as error:
            await record(self._holding, self._lease, self._telling, error)
            raise

    async def _bring_up(self) -> None:
        holding = self._holding
        before = dict(holding.values)
        kept = [(state, state.kept()) for state in self._states.values() if state.is_loaded]
        while holding.plan is None:
            try:
                await self._follow()
            except PolicyChangedError:
                plan = holding.decide()
                if isinstance(plan, ActivationError):
                    raise plan from None
                self._plan, self._eager = plan, holding.eager_tables()
        values = holding.values
        changed = [state for state, _ in kept if values.get(state.name) != before.get(state.name)]
        for state, value in kept:
            if state not in changed:
                state.keep(value)
        for state in changed:  # last: one may not fit its type
            state.fill(values.get(state.name))

    async def _follow(self) -> None:
        holding, lease, plan = self._holding, self._lease, self._plan
        stamp = lease.stamp
        lease.clears_failure = False  # not by what is converted first
        self._reset_states()
        try:
            conversions = Conversions(self._activation, holding, lease, self._eager, self._telling)
            oldest = await conversions.run() if self._eager else None
            made = await self._run()
            if made.is_migrated or conversions.has_run:
                holding.migrated_at = lease.now
            holding.note_up()
            if not made.is_kept_by_nothing or conversions.has_run:
                await _storing.commit_once(
                    holding, lease, made.writes, made.entries, plan=plan, projected=made.projected, oldest=oldest
                )
                self._telling.applied(plan, stamp, holding.limit)
            self._activation.stage(made.staged)
        finally:
            self._reset_states()
        holding.take(plan, made.projected if plan.keeps_base else None)

    def _reset_states(self) -> None:
        for state in self._states.values():
            state.reset()

    async def _run(self) -> _Made:
        plan, holding = self._plan, self._holding
        chain, main, start = holding.type.chain, holding.type.state, holding.values_for(plan)
        items: Sequence[Migration] = plan.steps
        if plan.reconciles:
            items = [step for step in chain.migrations if step in plan.steps or step in plan.reconciles]
        if not items:
            return _Made({}, {}, is_migrated=plan.takes_base)
        bases = await self._bases() if plan.reconciles else {}
        first = len(items)
        limit = holding.limit
        if limit is not None and holding.found().applied.highest <= limit and not plan.takes_base:
            first = sum(step.packed <= limit for step in items)
        value = decode_state(holding.key, main, start[main])
        holding.handed = start
        running = Running(self._activation, converted=self._eager)
        context = self._activation.context
        token = RUNNING.set(running)
        projected = None
        try:
            value = await self._each(items[:first], value, context, running, bases)
            writes = self._staged(value, items[:first], start) if first else {}
            if first < len(items):
                running.staged.append({})
                value = await self._each(items[first:], value, context, running, bases)
                made = self._staged(value, items, start)
                projected = {name: data for name, data in {**start, **made}.items() if data is not None}
        finally:
            running.is_running = False
            RUNNING.reset(token)
        entries, *more = running.staged
        high = more[0] if more else {}
        if entries or high:
            tables = Tables(self._activation, holding, self._telling)
            entries, high = await tables.bring_up(entries), await tables.bring_up(high)
        is_migrated = first > 0 or plan.takes_base
        if plan.keeps_base:
            return _Made(writes, entries, projected, high, is_migrated, is_kept_by_nothing=not first)
        return _Made(writes, {**entries, **high}, projected, is_migrated=is_migrated)

    async def _each(
        self,
        items: Sequence[Migration],
        value: Any,
        context: Any,
        running: Running,
        bases: Mapping[int, dict[str, Any]],
    ) -> Any:
        plan, key, main = self._plan, self._holding.key, self._holding.type.state
        if not plan.reconciles:
            return await _upgrade.run(running.each(items), value, context, key)
        for running.step in items:
            step = running.step
            if step in plan.steps:
                value = await _upgrade.run((step,), value, context, key)
            if step in plan.reconciles and step.reconciler is not None:
                running.bases = bases[step.packed]
                rest = (running.bases[main], context)
                value = await _upgrade.call(step.reconciler, value, rest, step, "reconcile", key)
                running.bases = None
        return value

    def _staged(self, value: Any, ran: Sequence[Migration], start: Mapping[str, bytes]) -> dict[str, bytes | None]:
        """Return what was made of the states so far, as far as it differs."""
        staged = {state.name: state.encoded_result(ran) for state in self._states.values() if state.is_loaded}
        subject = self._activation.state().subject
        staged[self._holding.type.state] = _upgrade.encode_result(value, subject, ran, self._holding.key)
        return {name: data for name, data in staged.items() if data != start.get(name)}

    async def _bases(self) -> dict[int, dict[str, Any]]:
        """Return, for each migration that is reconciled, the base in the shape that it leaves."""
        wanted = {step.packed for step in self._plan.reconciles}
        base, key = self._lease.base, self._holding.key
        if base is None or not wanted:
            return {}
        values: Mapping[str, bytes] = values_of(base, self._lease.states)
        bases = {}
        for step in reversed(self._holding.type.chain.migrations):
            if not base.applied.has(step.packed):
                continue
            if step.packed in wanted:
                bases[step.packed] = {name: decode_state(key, name, data) for name, data in values.items()}
            if min(wanted) >= step.packed:
                break
            if step.downgrade is not None:
                values = await self._activation.lowered(values, (step,))
        return bases
