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
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from lazymig import _plan, _upgrade
from lazymig._inspection import decode_state
from lazymig._records import MAX_NAME_BYTES, check_text
from lazymig._telling import Telling
from lazymig._turn import TURN
from lazymig.errors import (
    ActivationClosedError,
    ActivationError,
    DefinitionError,
    LeaseLostError,
    NotLoadedError,
    ReadOnlyActionError,
)
from lazymig.state import State, converter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from lazymig._lease import Lease
    from lazymig._records import ActorKey, MigrationInfo, Stamp
    from lazymig.hooks import Hook
    from lazymig.suite import ActorType

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Chain:
    """A chain of migrations under way; tasks that one left behind see that it has ended."""

    activation: Activation
    is_running: bool = True


_CHAIN: ContextVar[_Chain | None] = ContextVar("lazymig_chain", default=None)


class Activation:
    """An actor's states between getting its lock and giving it up.

    Handed to actor classes, to context factories, and by `Node.activate`.

    Attributes:
        key: The actor.
        failure: Why it did not come up, None if it did or was not asked to.
    """

    __slots__ = (
        "_context", "_has_context", "_inferred", "_is_block", "_is_closed", "_lease", "_migrated_at", "_plan",
        "_refusal", "_states", "_telling", "_turns", "_type", "failure", "key",
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
    ) -> None:
        self.key = key
        self.failure: ActivationError | None = None
        self._type = actor_type
        self._lease = lease
        self._refusal = refusal
        self._is_block = is_block
        self._telling = Telling(hooks, key, actor_type, "" if lease is None else lease.fence.node, started)
        self._states: dict[str, State[Any]] = {}
        self._plan: _plan.Plan | None = None
        self._inferred: int | None = None
        self._migrated_at: datetime | None = None
        self._context: Any = None
        self._has_context = False
        self._is_closed = False
        self._turns = asyncio.Lock()

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
        if self._lease is None:
            raise self._refusal or ActivationClosedError(self.key)
        stamp = self._lease.stamp
        if not self._lease.states and any(state.is_loaded for state in self._states.values()):
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
            found = self._states[name] = State(self, name, converter(type))
        elif type is not None:
            found.retype(converter(type))
        return found

    async def persist(self, *, release: bool = False) -> None:
        """Store all loaded states that changed, in one transaction.

        Args:
            release: Give the actor's lock up in the same transaction, as the last thing done in a ``with`` block of
                `Node.activate`: it saves a round trip.

        Raises:
            NotLoadedError: No state was loaded.
            DefinitionError: ``release`` in an actor class, whose lock the node gives up.
            InvalidValueError: JSON can't hold a value; nothing was stored.
            ReadOnlyActionError: Called by a shared action.
            LeaseLostError: Another node may have taken the actor; nothing was stored.
            StoreError: The store's fault.
        """
        if release and not self._is_block:
            raise DefinitionError("persist(release=True) is for blocks of node.activate. Leave it out in an actor.")
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
        if self._is_in_chain():
            return self._fill_staged(state, None)
        return await self._load(state, None, migrates=False)

    async def migrate_and_load(self, state: State[T], default: T | None) -> T | None:
        """See `State.migrate_and_load`."""
        if self._is_in_chain():
            return self._fill_staged(state, default)
        return await self._load(state, default, migrates=True)

    async def persist_states(self, states: Iterable[State[Any]], *, release: bool = False) -> None:
        """Store the given states as far as they changed."""
        if self._is_in_chain():
            for state in states:
                state.check_loaded()
            return
        self._check_writable()
        lease = await self._take_turn()
        try:
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
        finally:
            self._turns.release()

    async def clear_state(self, state: State[Any]) -> None:
        """See `State.clear`."""
        if self._is_in_chain():
            state.empty()
            return
        self._check_writable()
        lease = await self._take_turn()
        try:
            if state.name in lease.states:
                await self._commit(lease, {state.name: None})
            state.empty()
        finally:
            self._turns.release()

    # --- for the node ------------------------------------------------------------------------------------------

    def refusal(self) -> ActivationError | None:
        """Return why the actor can't be activated, None if it can."""
        try:
            plan = self._decide()
        except ActivationError as error:
            plan = error
        if not isinstance(plan, ActivationError):
            return None
        self._telling.failed(plan)
        return plan

    def close(self) -> None:
        """End it: nothing is read or stored through it any more."""
        self._is_closed = True

    # --- within ------------------------------------------------------------------------------------------------

    async def _take_turn(self) -> Lease:
        """Wait until no other task works on the stored states; they are settled, and still ours.

        Whoever got the turn ends it by releasing `_turns`.
        """
        await self._turns.acquire()
        try:
            if self._refusal is not None:
                raise self._refusal
            if self._lease is not None and self._lease.is_lost:  # told even if the node found out first
                raise LeaseLostError(self.key)
            if self._is_closed or self._lease is None or self._lease.is_released:
                raise ActivationClosedError(self.key)
            await self._lease.check()
        except BaseException:
            self._turns.release()
            raise
        return self._lease

    async def _load(self, state: State[T], default: T | None, *, migrates: bool) -> T | None:
        """Load a state in a turn; it is not loaded if that fails, and the hooks hear why."""
        state.reset()
        try:
            lease = await self._take_turn()
            try:
                if migrates and self._plan is None:
                    await self._bring_up(lease)
                elif not migrates and (refusal := _plan.check(self._type.chain, self._found(), self.key)):
                    raise refusal
                value = state.fill(lease.states.get(state.name), default)
                self._telling.activated(lease.stamp, 0)
            finally:
                self._turns.release()
        except ActivationError as error:
            self.failure = error
            self._telling.failed(error)
            raise
        self.failure = None
        return value

    def _is_in_chain(self) -> bool:
        chain = _CHAIN.get()
        return chain is not None and chain.activation is self and chain.is_running

    def _check_writable(self) -> None:
        turn = TURN.get()
        if turn is not None and turn.is_shared and turn.key == self.key and turn.is_running:
            raise ReadOnlyActionError(self.key, turn.action)

    def _found(self) -> _plan.Found:
        if self._lease is None:
            raise self._refusal or ActivationClosedError(self.key)
        states, stamp = self._lease.states, self._lease.stamp
        main = states.get(self._type.state)
        if stamp is None and main is not None and self._inferred is None:
            self._inferred = self._type.infer(main, self.key)
        inferred = (self._inferred or 0) if stamp is None else 0
        return _plan.Found(stamp, bool(states), main is not None, inferred)

    def _decide(self) -> _plan.Plan | ActivationError:
        return _plan.decide(self._type.chain, self._found(), self.key)

    async def _bring_up(self, lease: Lease) -> None:
        plan = self._decide()
        if isinstance(plan, ActivationError):
            raise plan
        if plan.must_commit:
            self._check_writable()
            await self._migrate(lease, plan)
        self._plan = plan
        self._telling.activated(lease.stamp, len(plan.steps))

    async def _migrate(self, lease: Lease, plan: _plan.Plan) -> None:
        """Run the plan on copies, commit what came out, and let the handles see it."""
        before = dict(lease.states)
        kept = [(state, state.kept()) for state in self._states.values() if state.is_loaded]
        self._reset_states()
        try:
            writes = await self._run(lease, plan)
            if plan.steps:
                self._migrated_at = lease.now
            await self._commit(lease, writes, plan=plan)
        finally:
            self._reset_states()
        self._telling.applied(plan.steps)
        for state, value in kept:
            if lease.states.get(state.name) == before.get(state.name):
                state.keep(value)
            else:
                state.fill(lease.states.get(state.name))

    async def _run(self, lease: Lease, plan: _plan.Plan) -> dict[str, bytes | None]:
        if not plan.steps:
            return {}
        main = self._type.state
        value = decode_state(self.key, main, lease.states[main])
        context = self.context
        chain = _Chain(self)
        token = _CHAIN.set(chain)
        try:
            value = await _upgrade.run(plan.steps, value, context, self.key)
        finally:
            chain.is_running = False
            _CHAIN.reset(token)
        loaded = [state for state in self._states.values() if state.is_loaded]
        staged = {state.name: state.encoded_result(plan.steps) for state in loaded}
        staged[main] = _upgrade.encode_result(value, self.state().subject, plan.steps, self.key)
        return {name: data for name, data in staged.items() if data != lease.states.get(name)}

    def _fill_staged(self, state: State[T], default: T | None) -> T | None:
        if state.name == self._type.state:
            raise DefinitionError(
                f"a migration of {self.key.type} loads the main state {state.name!r}, which is its first argument. "
                f"Use that."
            )
        if state.is_loaded:
            return state.fill(None, default, as_json=True) if state.is_empty else state.value
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
        if main in writes:
            self._inferred = None  # of another value

    def _stamp_after(self, plan: _plan.Plan | None = None, *, creates_main: bool) -> Stamp | None:
        chain, found, plan = self._type.chain, self._found(), plan or self._plan
        return _plan.stamp_after(chain, found, plan, creates_main=creates_main, migrated_at=self._migrated_at)
