"""One activation of an actor: load, migrate, persist, all under one lease.

Rules:

1. The version check is a pure function of what is stored, asked at every load: no flag remembers that it passed.
2. Migrations work on copies decoded from the stored bytes. Until their commit is acknowledged nobody sees the results;
   if anything fails, every handle is unloaded and the bytes are what they were.
3. Inside a migration (told by a context variable, so that tasks beside it are not confused) `persist` and `clear` only
   stage, and `migrate_and_load` of another state is load plus default.
4. A shared action only reads: whoever runs in its context can't persist, nor bring the actor up.
5. What reads or writes the stored states takes turns within an activation: a task beside another one sees its commit
   entirely or not at all.
6. An actor that failed to come up has not activated, even if its own code swallowed the error.
7. Migrations that may take long, or wait, run in a task of their own, see `lazymig._migrating`; the others make none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from lazymig import _storing
from lazymig._holding import Holding
from lazymig._lowering import Lowering, lowered_entries
from lazymig._records import MAX_NAME_BYTES, check_text
from lazymig._running import REHEARSING, running_in
from lazymig._settling import Settling
from lazymig._tables import Tables
from lazymig._telling import SILENT, Telling
from lazymig._upbringing import Upbringing
from lazymig.errors import ActivationClosedError, ActivationError, DefinitionError, NotLoadedError
from lazymig.state import State, converter
from lazymig.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lazymig._info import MigrationInfo
    from lazymig._lease import Lease
    from lazymig._migrating import Migrating
    from lazymig._migrations import Migration
    from lazymig._plan import Plan
    from lazymig._records import ActorKey
    from lazymig._running import Staged
    from lazymig._slots import Slots
    from lazymig.hooks import Hook
    from lazymig.suite import ActorType

T = TypeVar("T")

DEFAULT_ACTIVATION_SECONDS = 30.0
"""Longer than most callers wait, and far longer than most migrations take."""

_NOTHING: Mapping[str, int] = {}


class Activation:
    """An actor's states and tables between getting its lock and giving it up.

    Handed to actor classes, to context factories, and by `Node.activate`.

    Attributes:
        key: The actor.
        failure: Why it did not come up, None if it did or was not asked to.
    """

    __slots__ = (
        "_activation_seconds", "_context", "_holding", "_is_block", "_lowering", "_slots", "_states", "_tables",
        "_telling", "failure", "key",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  (made by the node only)
        self,
        key: ActorKey,
        actor_type: ActorType[Any],
        lease: Lease | None,
        *,
        hooks: tuple[Hook, ...] = (),
        refusal: ActivationError | None = None,
        started: float = 0.0,
        is_block: bool = False,
        activation_seconds: float = DEFAULT_ACTIVATION_SECONDS,
        slots: Slots | None = None,
    ) -> None:
        self.key = key
        self.failure: ActivationError | None = None
        self._holding = Holding(self, key, actor_type, lease, refusal)
        self._activation_seconds = activation_seconds
        self._slots = slots
        self._is_block = is_block
        node = "" if lease is None else lease.fence.node
        self._telling = Telling(hooks, key, actor_type, node, started) if hooks else SILENT
        self._states: dict[str, State[Any]] = {}
        self._tables: Tables | None = None
        self._lowering: Lowering | None = None
        self._context: Any = _NOTHING  # it is not made yet

    def __repr__(self) -> str:
        """Show the actor."""
        return f"<Activation of {self.key}>"

    @property
    def info(self) -> MigrationInfo | None:
        """The actor's migration-info as stored; of a new actor, once a state is loaded, what it will be stamped with.

        None for an actor that was imported without one, and before the first load of a new actor.

        Raises:
            CorruptStateError: It can't be read.
        """
        holding, lease = self._holding, self._holding.lease
        if lease is None:
            raise holding.refusal or ActivationClosedError(self.key)
        stamp = lease.stamp
        if not lease.states and any(state.is_loaded for state in self._states.values()):
            shape = holding.shape(creates_main=True)
            stamp = stamp if isinstance(shape, ActivationError) else shape.stamp
        return None if stamp is None else stamp.info

    @property
    def context(self) -> Any:
        """The context object that migrations get, made at its first use."""
        if self._context is _NOTHING:
            self._context = self._holding.type.make_context(self)
        return self._context

    @property
    def is_projection(self) -> bool:
        """Whether the migration that runs is a projection: its results are not yet all that is stored of the actor.

        It may run again whenever older software has stored, so it has no effects outside; nor where it ran as one
        before, nor in a dry run of a sweep. A ``context_factory`` hands it on. False where no migration runs.
        """
        running = running_in(self)
        step = None if running is None else running.step
        return step is not None and (REHEARSING.get() or self._holding.is_projection(step.packed))

    @overload
    def state(self, name: str | None = ..., *, type: type[T]) -> State[T]: ...

    @overload
    def state(self, name: str | None = ..., *, type: None = ...) -> State[Any]: ...

    def state(self, name: str | None = None, *, type: type[Any] | None = None) -> State[Any]:  # noqa: A002
        """Return the handle of a state; the same one for the same name.

        Args:
            name: Its name; without one the main state.
            type: Decode it as this dataclass, msgspec.Struct, attrs class, TypedDict or pydantic model. Fields that
                the type doesn't declare are kept when it is stored.

        Raises:
            InvalidKeyError: The name is none.
            DefinitionError: The type can't be used, or the handle exists with another one.
        """
        if name is None:
            name = self._holding.type.state
        found = self._states.get(name)
        if found is None:
            check_text("a state name", name, MAX_NAME_BYTES)
            found = self._states[name] = State(self, name, converter(type))
        elif type is not None:
            found.retype(converter(type))
        return found

    def table(self, name: str) -> Table:
        """Return a handle on a table.

        Raises:
            InvalidKeyError: The name is none.
        """
        check_text("a table's name", name, MAX_NAME_BYTES)
        if self._tables is None:
            self._tables = Tables(self, self._holding, self._telling)
        return Table(self._tables, name)

    async def persist(self, *, release: bool = False) -> None:
        """Store all loaded states that changed, and the staged entries of tables, in one transaction.

        Args:
            release: Give the actor's lock up in the same transaction, as the last thing done in a ``with`` block of
                `Node.activate`: it saves a round trip.

        Raises:
            NotLoadedError: No state was loaded, and no table used.
            DefinitionError: ``release`` in an actor class, whose lock the node gives up.
            InvalidValueError: JSON can't hold a value; nothing was stored.
            ReadOnlyActionError: Called by a shared action.
            LeaseLostError: Another node may have taken the actor; nothing was stored.
            StoreError: The store's fault.
        """
        if release and not self._is_block:
            raise DefinitionError("persist(release=True) is for blocks of node.activate. Leave it out in an actor.")
        loaded = [state for state in self._states.values() if state.is_loaded]
        if not loaded and self._tables is None:
            raise NotLoadedError(self.key, self._holding.type.state)
        await self.persist_states(loaded, release=release)

    # --- for the states ----------------------------------------------------------------------------------------

    def is_stored(self, name: str) -> bool:
        """Tell whether a state is stored."""
        return name in self._holding.values

    def sees_staged(self) -> bool:
        """Tell whether the code that runs may see what migrations have staged: not who has left them."""
        return self._holding.migrating is None or running_in(self) is not None

    async def load(self, state: State[T]) -> T | None:
        """See `State.load`."""
        if self._is_in_chain():
            return self._fill_staged(state, None)
        return await self._load(state, None, migrates=False)

    async def migrate_and_load(self, state: State[T], default: T | None) -> T | None:
        """See `State.migrate_and_load`."""
        if self._is_in_chain():
            return self._fill_staged(state, default)
        return await self._load(state, default, migrates=True)

    async def persist_states(self, states: Iterable[State[Any]], *, release: bool = False) -> None:
        """Store the given states as far as they changed, and what is staged of tables."""
        if self._is_in_chain():
            for state in states:
                state.check_loaded()
            return
        self._holding.check_writable()
        lease = await self._holding.take_turn()
        try:
            writes: dict[str, bytes | None] = {}
            values = self._holding.values
            for state in states:
                state.check_loaded()
                data = state.encoded()
                if data is not None and data != values.get(state.name):
                    writes[state.name] = data
            if writes or (self._tables is not None and self._tables.has_staged):
                await self._commit(lease, writes, release=release)
            elif release:
                await lease.release()
        finally:
            self._holding.turns.release()

    async def clear_state(self, state: State[Any]) -> None:
        """See `State.clear`."""
        if self._is_in_chain():
            state.empty()
            return
        self._holding.check_writable()
        lease = await self._holding.take_turn()
        try:
            if state.name in lease.states or state.name in self._holding.values:
                await self._commit(lease, {state.name: None})
            state.empty()
        finally:
            self._holding.turns.release()

    def stage(self, entries: Staged) -> None:
        """Let entries be stored by the next commit that stores anything."""
        if entries:
            if self._tables is None:
                self._tables = Tables(self, self._holding, self._telling)
            self._tables.add(entries)

    async def lowered(self, values: Mapping[str, bytes], steps: Sequence[Migration]) -> Mapping[str, bytes]:
        """Return states brought down by migrations, the highest first; the handles are left alone."""
        if self._lowering is None:
            holding = self._holding
            apart = Activation(self.key, holding.type, holding.lease)
            self._lowering = Lowering(apart, apart._holding, apart._states)
        return await self._lowering.run(values, steps)

    async def lowered_entries(self, entries: Staged, limit: int) -> Staged:
        """Return entries brought down to a version, packed."""
        return await lowered_entries(self, self._holding.type.chain, entries, limit)

    # --- for the node ------------------------------------------------------------------------------------------

    def refusal(self) -> ActivationError | None:
        """Return why the actor can't be activated, None if it can."""
        try:
            plan = self._holding.decide()
        except ActivationError as error:
            plan = error
        if not isinstance(plan, ActivationError):
            return None
        self._telling.failed(plan)
        return plan

    async def settle(self) -> bool:
        """Bring the actor, entries included, to the version its type is written at; tell whether something was stored.

        Raises:
            ActivationError: It can't be; some of its entries may be.
        """
        lease = await self._holding.take_turn()
        before = lease.revision
        try:
            await self._bring_up(lease)
            await Settling(self, self._holding, lease, self._telling).run()
        except ActivationError as error:
            self._telling.failed(error)
            raise
        finally:
            self._holding.turns.release()
        return lease.revision != before

    def close(self) -> Migrating | None:
        """End it: nothing is read or stored through it any more, but by the migrations that still go on, if any."""
        self._holding.is_closed = True
        migrating, self._holding.migrating = self._holding.migrating, None
        if migrating is None:
            return None
        migrating.tell_end(self._telling.failed)
        return None if migrating.task.done() else migrating

    # --- within ------------------------------------------------------------------------------------------------

    async def _load(self, state: State[T], default: T | None, *, migrates: bool) -> T | None:
        """Load a state in a turn; it is not loaded if that fails, and the hooks hear why."""
        try:
            lease = await self._holding.take_turn()
            try:
                state.reset()  # not before the turn: migrations work on the handles
                if not migrates:
                    self._holding.check_version()
                elif self._holding.plan is None:
                    await self._bring_up(lease)
                value = state.fill(self._holding.values.get(state.name), default)
                self._telling.activated(lease.stamp, 0)
            finally:
                self._holding.turns.release()
        except BaseException as error:
            if not self._holding.is_busy:
                state.reset()
            if isinstance(error, ActivationError):
                self.failure = error
                self._telling.failed(error)
            raise
        self.failure = None
        return value

    def _is_in_chain(self) -> bool:
        running = running_in(self)
        if running is not None and running.is_conversion:
            raise DefinitionError(
                f"a conversion of entries of {self.key.type} uses a state. Give it what it needs by the context "
                f"object, or do it in the migration's function."
            )
        return running is not None

    async def _bring_up(self, lease: Lease) -> None:
        holding = self._holding
        holding.raise_failure()
        plan = holding.decide()
        if isinstance(plan, ActivationError):
            raise plan
        eager = holding.eager_tables()
        if plan.must_commit or eager:
            holding.check_writable()
            holding.check_quarantine(runs=plan.runs or bool(eager))
            work = Upbringing(self, holding, self._states, lease, plan, eager, self._telling, self._slots)
            await work.run(self._activation_seconds)
        elif plan.takes_base:
            self._take(plan)
        else:
            holding.take(plan)
        self._telling.activated(lease.stamp, len(plan.steps))

    def _take(self, plan: Plan) -> None:
        """Let the states be those of the base, and handles that were loaded show them."""
        before = self._holding.values
        self._holding.take(plan)
        values = self._holding.values
        for state in self._states.values():
            if state.is_loaded and values.get(state.name) != before.get(state.name):
                state.fill(values.get(state.name))

    def _fill_staged(self, state: State[T], default: T | None) -> T | None:
        main = self._holding.type.state
        if state.name == main:
            raise DefinitionError(
                f"a migration of {self.key.type} loads the main state {main!r}, which is its first argument. Use that."
            )
        if state.is_loaded:
            return state.fill(None, default, as_json=True) if state.is_empty else state.value
        return state.fill(self._holding.handed.get(state.name), default, as_json=True)

    async def _commit(self, lease: Lease, writes: dict[str, bytes | None], *, release: bool = False) -> None:
        if self._tables is None:
            await _storing.commit(self._holding, lease, writes, release=release)
            return
        staged, riding = self._tables.to_store()
        await _storing.commit(self._holding, lease, writes, staged, riding=riding, release=release)
        self._tables.note_stored({**riding, **staged})
