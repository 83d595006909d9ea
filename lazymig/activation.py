"""One activation of an actor: load, migrate, persist, all under one lease.

Rules:

1. The version check is a pure function of what is stored, asked at every load: no flag remembers that it passed.
2. Migrations work on copies decoded from the stored bytes. Until their commit is acknowledged nobody sees the results;
   if anything fails, every handle is unloaded and the bytes are what they were.
3. Inside a migration (told by a context variable, so that tasks beside it are not confused) `persist` and `clear` only
   stage, and `migrate_and_load` of another state is load plus default.
4. A shared action only reads: whoever runs in its context can't persist.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, overload

from lazymig import _plan, _upgrade
from lazymig._inspection import decode_state
from lazymig._records import MAX_NAME_BYTES, check_text
from lazymig._turn import TURN
from lazymig.errors import (
    ActivationClosedError,
    ActivationError,
    DefinitionError,
    LeaseLostError,
    MigrationFailedError,
    NotLoadedError,
    ReadOnlyActionError,
)
from lazymig.hooks import Activated, MigrationApplied, MigrationFailed, StateRefused, tell
from lazymig.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazymig._lease import Lease
    from lazymig._records import ActorKey, MigrationInfo, Stamp
    from lazymig.hooks import Event, Hook
    from lazymig.suite import ActorType

T = TypeVar("T")


_CHAIN: ContextVar[Activation | None] = ContextVar("lazymig_chain", default=None)


class Activation:
    """An actor's states between getting its lock and giving it up.

    Handed to actor classes, to context factories, and by `Node.activate`.

    Attributes:
        key: The actor.
    """

    __slots__ = (
        "_bringing_up", "_context", "_has_context", "_hooks", "_inferred", "_is_closed", "_is_told", "_lease",
        "_migrated_at", "_plan", "_refusal", "_started", "_states", "_type", "key",
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
    ) -> None:
        self.key = key
        self._type = actor_type
        self._lease = lease
        self._hooks = hooks
        self._refusal = refusal
        self._started = started
        self._states: dict[str, State[Any]] = {}
        self._plan: _plan.Plan | None = None
        self._inferred: int | None = None
        self._migrated_at: Any = None
        self._context: Any = None
        self._has_context = False
        self._is_closed = False
        self._is_told = False
        self._bringing_up: asyncio.Lock | None = None

    def __repr__(self) -> str:
        """Show the actor."""
        return f"<Activation of {self.key}>"

    # --- for users ---------------------------------------------------------------------------------------------

    @property
    def info(self) -> MigrationInfo | None:
        """The actor's migration-info as stored; of a new actor, once a state is loaded, what it will be stamped with.

        None for an actor that was imported without one, and before the first load of a new actor.
        """
        stamp = None if self._lease is None else self._lease.stamp
        if (
            self._lease is not None
            and not self._lease.states
            and any(state.is_loaded for state in self._states.values())
        ):
            stamp = self._stamp_after(creates_main=True)
        return None if stamp is None else stamp.info

    @property
    def context(self) -> Any:
        """The context object that migrations get, made at its first use."""
        if not self._has_context:
            self._context = self._type.make_context(self)
            self._has_context = True
        return self._context

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
            name = self._type.state
        found = self._states.get(name)
        if found is None:
            check_text("a state name", name, MAX_NAME_BYTES)
            found = self._states[name] = State(self, name, _converter(type))
        elif type is not None:
            found.retype(_converter(type))
        return found

    async def persist(self, *, release: bool = False) -> None:
        """Store all loaded states that changed, in one transaction.

        Args:
            release: Give the actor's lock up in the same transaction, as the last thing this activation does: it
                saves a round trip.

        Raises:
            NotLoadedError: No state was loaded.
            InvalidValueError: JSON can't hold a value; nothing was stored.
            ReadOnlyActionError: Called by a shared action.
            LeaseLostError: Another node may have taken the actor; nothing was stored.
            StoreError: The store's fault.
        """
        loaded = [state for state in self._states.values() if state.is_loaded]
        if not loaded:
            raise NotLoadedError(self.key, self._type.state)
        await self.persist_states(loaded, release=release)

    # --- for the states ----------------------------------------------------------------------------------------

    def is_stored(self, name: str) -> bool:
        """Tell whether a state is stored."""
        return self._lease is not None and name in self._lease.states

    async def load(self, state: State[T]) -> T | None:
        """See `State.load`."""
        if _CHAIN.get() is self:
            return self._fill_staged(state, None)
        state.reset()
        lease = await self._check_usable()
        refusal = self._check()
        if refusal is not None:
            self._tell_refused(refusal)
            raise refusal
        value = state.fill(lease.states.get(state.name))
        self._tell_activated(0)
        return value

    async def migrate_and_load(self, state: State[T], default: T | None) -> T | None:
        """See `State.migrate_and_load`."""
        if _CHAIN.get() is self:
            return self._fill_staged(state, default)
        state.reset()
        lease = await self._check_usable()
        if self._plan is None:
            await self._bring_up(lease)
        value = state.fill(lease.states.get(state.name), default)
        self._tell_activated(0)
        return value

    async def persist_states(self, states: Iterable[State[Any]], *, release: bool = False) -> None:
        """Store the given states as far as they changed."""
        if _CHAIN.get() is self:
            for state in states:
                state.check_loaded()
            return
        self._check_writable()
        lease = await self._check_usable()
        writes: dict[str, bytes | None] = {}
        for state in states:
            state.check_loaded()
            data = state.encoded()
            if data is not None and data != lease.states.get(state.name):
                writes[state.name] = data
        if writes:
            await self._commit(lease, writes, release=release)
        elif release:
            await lease.release()

    async def clear_state(self, state: State[Any]) -> None:
        """See `State.clear`."""
        if _CHAIN.get() is self:
            state.empty()
            return
        self._check_writable()
        lease = await self._check_usable()
        if state.name in lease.states:
            await self._commit(lease, {state.name: None})
        state.empty()

    # --- for the node ------------------------------------------------------------------------------------------

    def refusal(self) -> ActivationError | None:
        """Return why the actor can't be activated, None if it can."""
        try:
            plan = self._decide()
        except ActivationError as error:
            plan = error
        if not isinstance(plan, ActivationError):
            return None
        self._tell_refused(plan)
        return plan

    def close(self) -> None:
        """End it: nothing is read or stored through it any more."""
        self._is_closed = True

    # --- within ------------------------------------------------------------------------------------------------

    async def _check_usable(self) -> Lease:
        if self._refusal is not None:
            self._tell_refused(self._refusal)
            raise self._refusal
        if self._lease is not None and self._lease.is_lost:  # told even if the node found out first, and closed this
            raise LeaseLostError(self.key)
        if self._is_closed or self._lease is None or self._lease.is_released:
            raise ActivationClosedError(self.key)
        await self._lease.check()
        return self._lease

    def _check_writable(self) -> None:
        turn = TURN.get()
        if turn is not None and turn.is_shared and turn.key == self.key and turn.is_running:
            raise ReadOnlyActionError(self.key, turn.action)

    def _found(self) -> _plan.Found:
        if self._lease is None:
            raise ActivationClosedError(self.key)
        states, stamp = self._lease.states, self._lease.stamp
        main = states.get(self._type.state)
        if stamp is None and main is not None and self._inferred is None:
            self._inferred = self._type.infer(main, self.key)
        inferred = (self._inferred or 0) if stamp is None else 0
        return _plan.Found(stamp, bool(states), main is not None, inferred)

    def _check(self) -> ActivationError | None:
        return _plan.check(self._type.chain, self._found(), self.key)

    def _decide(self) -> _plan.Plan | ActivationError:
        if self._refusal is not None:
            return self._refusal
        return _plan.decide(self._type.chain, self._found(), self.key)

    async def _bring_up(self, lease: Lease) -> None:
        if self._bringing_up is None:
            self._bringing_up = asyncio.Lock()
        async with self._bringing_up:
            if self._plan is not None:
                return
            plan = self._decide()
            if isinstance(plan, ActivationError):
                self._tell_refused(plan)
                raise plan
            if plan.must_commit:
                await self._migrate(lease, plan)
            self._plan = plan
            self._tell_activated(len(plan.steps))

    async def _migrate(self, lease: Lease, plan: _plan.Plan) -> None:
        """Run the plan on copies, commit what came out, and let the handles see it."""
        was_loaded = [state for state in self._states.values() if state.is_loaded]
        self._reset_states()
        try:
            writes = await self._run(lease, plan)
            if plan.steps:
                self._migrated_at = lease.now
            await self._commit(lease, writes, plan=plan)
        except MigrationFailedError as error:
            cause = error.__cause__
            name = type(error if cause is None else cause).__name__
            self._tell(MigrationFailed(lease.fence.node, self.key, error.version, error.name, name))
            raise
        finally:
            self._reset_states()
        for step in plan.steps:
            self._tell(MigrationApplied(lease.fence.node, self.key, step.version, step.name))
        for state in was_loaded:
            state.fill(lease.states.get(state.name))

    async def _run(self, lease: Lease, plan: _plan.Plan) -> dict[str, bytes | None]:
        if not plan.steps:
            return {}
        main = self._type.state
        value = decode_state(self.key, main, lease.states[main])
        context = self.context
        token = _CHAIN.set(self)
        try:
            value = await _upgrade.run(plan.steps, value, context, self.key)
        finally:
            _CHAIN.reset(token)
        staged: dict[str, bytes | None] = {}
        for state in self._states.values():
            if state.is_loaded:
                staged[state.name] = state.encoded_result(plan.steps[-1])
        staged[main] = _upgrade.encode_result(value, self.state().subject, plan.steps[-1], self.key)
        return {name: data for name, data in staged.items() if data != lease.states.get(name)}

    def _fill_staged(self, state: State[T], default: T | None) -> T | None:
        if state.name == self._type.state:
            raise DefinitionError(
                f"a migration of {self.key.type} loads the main state {state.name!r}, which is its first argument. "
                f"Use that."
            )
        if state.is_loaded:
            return state.value
        lease = self._lease
        return state.fill(None if lease is None else lease.states.get(state.name), default, as_json=True)

    def _reset_states(self) -> None:
        for state in self._states.values():
            state.reset()

    async def _commit(
        self,
        lease: Lease,
        writes: dict[str, bytes | None],
        *,
        plan: _plan.Plan | None = None,
        release: bool = False,
    ) -> None:
        main = self._type.state
        creates_main = writes.get(main) is not None and main not in lease.states
        await lease.commit(writes, self._stamp_after(plan, creates_main=creates_main), release=release)

    def _stamp_after(self, plan: _plan.Plan | None = None, *, creates_main: bool) -> Stamp | None:
        storing = _plan.Storing(plan or self._plan, creates_main, self._migrated_at)
        return _plan.stamp_after(self._type.chain, self._found(), storing)

    # --- events ------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if self._hooks:
            tell(self._hooks, event)

    def _node(self) -> str:
        return "" if self._lease is None else self._lease.fence.node

    def _tell_refused(self, error: ActivationError) -> None:
        if self._hooks:
            stored = getattr(error, "stored", None)
            self._tell(StateRefused(self._node(), self.key, type(error).__name__, stored, self._type.supported))

    def _tell_activated(self, migrations: int) -> None:
        if self._is_told or not self._hooks:
            return
        self._is_told = True
        info = None if self._lease is None or self._lease.stamp is None else self._lease.stamp.info
        version = None if info is None else info.version
        seconds = time.monotonic() - self._started
        self._tell(Activated(self._node(), self.key, version, migrations, seconds))


def _converter(form: Any) -> Any:
    if form is None:
        return None
    from lazymig._typed import typed  # noqa: PLC0415  (its libraries are extras)

    return typed(form)
