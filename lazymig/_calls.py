"""Where a call runs: here, or on the node that holds the actor, or on one that supports its state.

Rules:

1. A call is tried here first, unless what is known says that it can't run here: the actor is given up on a refusal, and
   the call travels.
2. Only a refusal before any code of the action ran sends a call on.
3. Nothing is awaited between the check that an action may begin and its first line.
4. Arguments and results pass as JSON wherever the action runs, so that nothing is shared by accident.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from lazymig import _outcome, _version
from lazymig._courier import Answer
from lazymig._fleet_records import CallState, CallStatus, Offer
from lazymig._turn import (
    SERVED,
    Served,
    check_trace,
    in_turn,
    running_turn,
    traceparent,
    waiting_chain,
    waiting_elsewhere,
)
from lazymig.actor import actions_of
from lazymig.codec import Subject
from lazymig.errors import (
    ActorLockedError,
    CallLostError,
    CallNotTakenError,
    LeaseLostError,
    NewerStateError,
    NodeStoppedError,
    ReentrantCallError,
    StoreError,
    UnknownActionError,
    UnknownActorTypeError,
)
from lazymig.hooks import ActionFailed, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazymig._courier import Courier
    from lazymig._fleet_records import Call
    from lazymig._fleet_view import FleetView
    from lazymig._mailbox import Mailbox
    from lazymig._records import ActorKey
    from lazymig._residents import Residents
    from lazymig.fleet import Membership
    from lazymig.hooks import Hook
    from lazymig.suite import ActorType


GUESS_SECONDS = 1.0
"""How long a call that could be tried here waits for another node."""


class _Elsewhere(Exception):  # noqa: N818  (no error: it says where to)
    """The action can't run here; none of its code ran.

    Args:
        refusal: Why.
        needs: The version (packed) that the actor needs.
        target: Node id of who holds it.
        is_guess: It may run here after all, if nobody else takes it.
    """

    def __init__(
        self, refusal: Exception, *, needs: int = 0, target: str | None = None, is_guess: bool = False
    ) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.needs = needs
        self.target = target
        self.is_guess = is_guess


def offers_of(types: Mapping[str, ActorType[Any]]) -> list[Offer]:
    """Return what a node with these actor types can do."""
    return [
        Offer(name, known.chain.release, tuple(sorted(_actions(known))), known.chain.late, known.chain.one_way)
        for name, known in sorted(types.items())
    ]


class Calls:
    """The calls of one node: those made on it, and those it takes.

    Args:
        types: Its actor types.
        residents: Its actors.
        membership: Its registration.
        view: What it knows of the others.
        hooks: Told of actions that failed.
        check_running: Raises if the node is not running.
        hand_over_seconds: How long a call may wait for another node.
        move_on_seconds: How long an actor is idle before a newer release may have it.

    Attributes:
        courier: Set before the first call.
        is_draining: No new actors are taken.
    """

    courier: Courier

    def __init__(  # noqa: PLR0913  (made by the node only)
        self,
        types: Mapping[str, ActorType[Any]],
        residents: Residents,
        membership: Membership,
        view: FleetView,
        hooks: tuple[Hook, ...],
        *,
        check_running: Callable[[], None],
        hand_over_seconds: float,
        move_on_seconds: float,
    ) -> None:
        self.check_running = check_running
        self._types = types
        self._residents = residents
        self._membership = membership
        self._view = view
        self._hooks = hooks
        self._hand_over_seconds = hand_over_seconds
        self._move_on_seconds = move_on_seconds
        self.is_draining = False

    async def call(self, key: ActorKey, action: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run an action wherever it can run, and return its result."""
        check_trace()
        arguments = _outcome.encode_arguments(args, kwargs, Subject("the call of {} on {}", action, key))
        wait = self._hand_over_seconds
        known = self._types.get(key.type)
        if known is None or action not in _actions(known):
            await self._check_known(key.type, action)
            await self._residents.give_up(key, "elsewhere")
            return self._end(key, action, await self._send(key, action, arguments, wait, None), None)
        guess = None if self._stays(key, known) else await self._route(key, known, action)
        if guess is not None:
            started = self._membership.clock()
            limit = GUESS_SECONDS if guess.is_guess else wait
            state = await self._send(key, action, arguments, min(wait, limit), guess)
            wait -= self._membership.clock() - started
            if state.status != CallStatus.CANCELLED or not guess.is_guess:
                return self._end(key, action, state, guess)
            self._view.unlearn(key.type)
        try:
            return await self._run_here(key, known, action, arguments)
        except _Elsewhere as elsewhere:
            why = elsewhere
        return self._end(key, action, await self._send(key, action, arguments, wait, why), why)

    def check_turn(self, key: ActorKey, *, is_bounded: bool = False) -> None:
        """Refuse to wait for an actor that waits for us; a block that waits for a bounded time may."""
        if key in waiting_elsewhere():
            raise ReentrantCallError(key, waiting_chain())
        turn = running_turn()
        while turn is not None:
            if turn.blocks(key, self._residents) and not (is_bounded and turn.task is not None):
                raise ReentrantCallError(key, waiting_chain())
            turn = turn.parent

    # --- here --------------------------------------------------------------------------------------------------

    def _stays(self, key: ActorKey, known: ActorType[Any]) -> bool:
        """Tell whether an actor is here, and no newer release is there that might have it."""
        return self._residents.is_here(key) and not self._view.has_newer(key.type, known.chain.release.highest)

    async def _route(self, key: ActorKey, known: ActorType[Any], action: str) -> _Elsewhere | None:
        """Return where a call is to go that could be tried here; None to try."""
        registered = known.chain.release.highest
        newest = await self._move_on(key, action)
        if newest is not None:
            refusal = ActorLockedError(key, newest, self._hand_over_seconds)
            return _Elsewhere(refusal, target=newest, is_guess=True)
        if self._residents.is_here(key):
            return None
        if self.is_draining:
            return _Elsewhere(CallNotTakenError(key, action, self._hand_over_seconds))
        needs = self._view.needs(key.type, _version.next_major(registered))
        if not needs:
            return None
        stored, supported = _version.unpack(needs), _version.unpack(registered)
        return _Elsewhere(NewerStateError(key, stored, supported), needs=needs, is_guess=True)

    async def _move_on(self, key: ActorKey, action: str) -> str | None:
        """Give an actor up that was long idle here, a newer release being there; return the node that is to have it."""
        if not self._residents.is_here(key):
            return None
        is_long_idle = self._residents.idle_for(key) >= self._move_on_seconds > 0
        newest = self._view.newest(key.type, action) if is_long_idle else None
        if newest is not None:
            await self._residents.give_up(key, "moved on")
        return newest

    async def _run_here(
        self, key: ActorKey, known: ActorType[Any], action: str, arguments: bytes, taken_as: str | None = None
    ) -> Any:
        """Run an action on this node.

        Raises:
            _Elsewhere: It can't run here, and none of its code ran.
        """
        shared = _actions(known)[action]
        self.check_turn(key)
        mailbox = await self._take(key, shared=shared, is_served=taken_as is not None)
        try:
            if self.is_draining and mailbox.lease is None:  # it was given up while we waited for our turn
                raise _Elsewhere(CallNotTakenError(key, action, self._hand_over_seconds))
            await self._open(mailbox, known, is_served=taken_as is not None)
            if taken_as not in {None, self._membership.node_id}:
                raise _Elsewhere(LeaseLostError(key))
            positional, named = orjson.loads(arguments)
            with in_turn(key, self._residents, action, shared=shared):
                return await self._run(mailbox, action, positional, named, shared=shared)
        finally:
            self._residents.give(mailbox, shared=shared)

    async def _take(self, key: ActorKey, *, shared: bool, is_served: bool) -> Mailbox:
        try:
            return await self._residents.take(key, shared=shared)
        except NodeStoppedError as error:
            if is_served:
                raise _Elsewhere(error) from error
            raise

    async def _open(self, mailbox: Mailbox, known: ActorType[Any], *, is_served: bool) -> None:
        key = mailbox.key
        try:
            self.check_running()
            await self._residents.open(mailbox, known)
        except NodeStoppedError as error:
            if is_served:
                raise _Elsewhere(error) from error
            raise
        except ActorLockedError as error:
            if error.key != key:
                raise
            raise _Elsewhere(error, target=error.owner) from error
        except NewerStateError as error:
            if error.key != key:
                raise
            needs = _version.pack(error.stored)
            self._view.learn(key.type, needs)
            raise _Elsewhere(error, needs=needs) from error

    async def _run(
        self, mailbox: Mailbox, action: str, args: list[Any], kwargs: dict[str, Any], *, shared: bool
    ) -> Any:
        """Run the action now."""
        activation = mailbox.activation
        try:
            result = await getattr(mailbox.actor, action)(*args, **kwargs)
            return _outcome.check_result(result, Subject("the result of {} on {}", action, mailbox.key))
        except BaseException as error:
            if not shared:
                if mailbox.activation is activation:
                    self._residents.drop(mailbox)
                if self._hooks:
                    failed = ActionFailed(self._membership.node_id, mailbox.key, action, type(error).__name__)
                    tell(self._hooks, failed)
            raise

    # --- elsewhere ---------------------------------------------------------------------------------------------

    async def _send(
        self, key: ActorKey, action: str, arguments: bytes, wait: float, why: _Elsewhere | None
    ) -> CallState:
        """Let a call travel; return its end."""
        self.check_running()
        self.check_turn(key)
        if wait <= 0:
            return CallState(CallStatus.CANCELLED)
        call = self.courier.outbox.new_call(
            key, action, arguments, wait,
            needs=why.needs if why else 0,
            target=why.target if why else None,
            chain=waiting_chain(),
            traceparent=traceparent.get(),
        )  # fmt: skip
        return await self.courier.outbox.call(call)

    def _end(self, key: ActorKey, action: str, state: CallState, why: _Elsewhere | None) -> Any:
        """Return the result of a call that has ended, or raise its error."""
        if state.status == CallStatus.LOST:
            raise CallLostError(key, action, state.taker or "")
        if state.status == CallStatus.DONE and state.result is not None:
            return _outcome.read(state.result, state.taker or "")
        raise self._refusal(key, action, state, why)

    def _refusal(self, key: ActorKey, action: str, state: CallState, why: _Elsewhere | None) -> Exception:
        """Return why nobody took a call in time."""
        needs = max(state.needs, why.needs if why else 0)
        if needs:
            self._view.learn(key.type, needs)
            known = self._types.get(key.type)
            supported = _version.unpack(known.chain.release.highest) if known is not None else _version.ZERO
            return NewerStateError(key, _version.unpack(needs), supported, self._view.capable(key.type, needs))
        target = state.target or (why.target if why else None)
        if target is not None:
            return ActorLockedError(key, target, self._hand_over_seconds)
        return why.refusal if why is not None else CallNotTakenError(key, action, self._hand_over_seconds)

    async def _check_known(self, actor_type: str, action: str) -> None:
        """Refuse at once what no node has."""
        known = self._types.get(actor_type)
        if action not in self._view.actions(actor_type):
            await self._view.read()
        types = self._view.types() | set(self._types)
        if actor_type not in types:
            raise UnknownActorTypeError(actor_type, types)
        actions = self._view.actions(actor_type) | (set() if known is None else set(_actions(known)))
        if action not in actions:
            raise UnknownActionError(actor_type, action, actions)

    # --- calls of others ---------------------------------------------------------------------------------------

    async def serve(self, call: Call, node_id: str) -> Answer:
        """See `Work.serve`."""
        try:
            with _travelled(call):
                return await self._serve(call, node_id)
        except _Elsewhere as elsewhere:
            return Answer(None, needs=elsewhere.needs, target=elsewhere.target)
        except (KeyboardInterrupt, SystemExit):  # the process ends, and with it the call
            raise
        except BaseException as error:
            return Answer(_outcome.encode_error(error))

    async def _serve(self, call: Call, node_id: str) -> Answer:
        if not call.action:
            raise StoreError("the call can't be read: its row in the store is damaged. Make it again.")
        known = self._types.get(call.key.type)
        try:
            if known is None or call.action not in _actions(known):
                await self._residents.give_up(call.key, "elsewhere")
                return Answer(None)
            stays = self._stays(call.key, known)
            if not stays and (newest := await self._move_on(call.key, call.action)) is not None:
                return Answer(None, target=newest, target_seconds=GUESS_SECONDS)
        except NodeStoppedError:
            return Answer(None)
        result = await self._run_here(call.key, known, call.action, call.arguments, node_id)
        return Answer(_outcome.encode_result(result))


def _actions(known: ActorType[Any]) -> Mapping[str, bool]:
    actor_class: Any = known.actor_class
    return {} if actor_class is None else actions_of(actor_class)


@contextmanager
def _travelled(call: Call) -> Iterator[None]:
    """Let the code in it see who waits for it, and in whose trace it runs."""
    served = Served(call.chain)
    before, trace = SERVED.set(served), traceparent.set(call.traceparent)
    try:
        yield
    finally:
        served.is_running = False
        traceparent.reset(trace)
        SERVED.reset(before)
