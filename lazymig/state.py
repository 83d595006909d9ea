"""A handle on one of an actor's states within an activation."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from lazymig import codec
from lazymig._inspection import decode_state
from lazymig._running import base_in
from lazymig._upgrade import encode_result
from lazymig.errors import DefinitionError, NotLoadedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._info import MigrationInfo
    from lazymig._migrations import Migration
    from lazymig._typed import Carried, Typed
    from lazymig.activation import Activation

T = TypeVar("T")


class State(Generic[T]):
    """One state of an actor; got by `Activation.state`, one handle per name.

    ``T`` is the type given there, else any JSON value. It is loaded by `load` or `migrate_and_load`, changed in place
    or by assigning `value`, and stored by `persist`.

    Attributes:
        name: The state's name.
    """

    _value: Any
    _is_loaded: bool | None  # None: a migration staged it
    __slots__ = ("_activation", "_carried", "_has_value", "_is_loaded", "_typed", "_value", "name")

    def __init__(self, activation: Activation, name: str, typed: Typed[T] | None) -> None:
        self.name = name
        self._activation = activation
        self._typed = typed
        self.reset()

    def __repr__(self) -> str:
        """Show whose state it is, never its value."""
        return f"<State {self.name} of {self._activation.key}>"

    # --- for users ---------------------------------------------------------------------------------------------

    @property
    def value(self) -> T:
        """The value: change it in place, or assign another; None if nothing is stored and there was no default.

        Raises:
            NotLoadedError: It was not loaded, or loading it was refused or failed.
        """
        self.check_loaded()
        value: T = self._value
        return value

    @value.setter
    def value(self, value: T) -> None:
        self.check_loaded()
        self._value = value
        self._has_value = True

    @property
    def info(self) -> MigrationInfo | None:
        """The actor's migration-info, see `Activation.info`."""
        return self._activation.info

    @property
    def exists(self) -> bool:
        """Whether the state is stored."""
        return self._activation.is_stored(self.name)

    @property
    def base(self) -> Any:
        """While a ``reconcile`` runs: the state as newer software last stored it, as JSON.

        Brought down to the shape of the migration; the value as it is stored where older software did not touch it,
        None where there was none.

        Raises:
            DefinitionError: No ``reconcile`` runs.
        """
        return base_in(self._activation, self._activation.key, self.name)

    async def load(self) -> T | None:
        """Return the value as stored, without migrating: a persist after it leaves the stamp as it was.

        Changes that were not persisted are dropped. None if nothing is stored.

        Raises:
            NewerStateError: It is newer than this software by a major version.
            CorruptStateError: It can't be read, or doesn't fit its type.
            LeaseLostError: Another node may have taken the actor.
        """
        return await self._activation.load(self)

    @overload
    async def migrate_and_load(self, default: T) -> T: ...

    @overload
    async def migrate_and_load(self, default: None = ...) -> T | None: ...

    async def migrate_and_load(self, default: T | None = None) -> T | None:
        """Bring the actor up, once an activation, and return this state's value.

        Loads all the actor's states, compares majors, runs what is pending on working copies, in order, and commits
        the results with their stamp in one transaction. Whichever state it is called on, migrations are handed the
        main one.

        Args:
            default: The value if nothing is stored. It is copied, and stored by the first persist.

        Raises:
            NewerStateError: The state is newer than this software by a major version.
            StateTooOldError: It is below the baseline.
            LateMigrationError: It lacks a late migration that has no consent.
            MigrationFailedError: A migration raised; the stored states are as they were.
            CorruptStateError: It can't be read, or doesn't fit its type.
            ActivationInProgressError: Migrations take longer than the node's ``activation_seconds``, and go on: call
                again to wait for them again.
            LeaseLostError: Another node may have taken the actor; nothing was stored.
        """
        return await self._activation.migrate_and_load(self, default)

    async def persist(self) -> None:
        """Store the value, if it differs from what is stored; inside a migration it is stored with its result.

        Raises:
            NotLoadedError: It was not loaded.
            InvalidValueError: JSON can't hold the value; nothing was stored.
            ReadOnlyActionError: Called by a shared action.
            LeaseLostError: Another node may have taken the actor; nothing was stored.
            StoreError: The store's fault.
        """
        self.check_loaded()
        await self._activation.persist_states([self])

    async def clear(self) -> None:
        """Remove the stored value, at once, and store what is staged of tables; inside a migration, with its result.

        Raises:
            NotLoadedError: It was not loaded.
            ReadOnlyActionError: Called by a shared action.
            LeaseLostError: Another node may have taken the actor; nothing was removed.
            StoreError: The store's fault.
        """
        self.check_loaded()
        await self._activation.clear_state(self)

    # --- for the activation ------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether it has a value to use."""
        return self._is_loaded is not False

    @property
    def is_empty(self) -> bool:
        """Whether it has no value, not even null: a default holds."""
        return not self._has_value

    def check_loaded(self) -> None:
        """Refuse the use of a value that isn't there, or that migrations work on whose caller has left."""
        if self._is_loaded is not True and not (self.is_loaded and self._activation.sees_staged()):
            raise NotLoadedError(self._activation.key, self.name)

    def reset(self) -> None:
        """Forget the value: it must be loaded again."""
        self._is_loaded = False
        self._has_value = False
        self._value = None
        self._carried: Carried | None = None

    def fill(self, data: bytes | None, default: T | None = None, *, as_json: bool = False) -> T | None:
        """Take the value from stored bytes, or from the default; inside a migration as plain JSON.

        Raises:
            CorruptStateError: They are no JSON, or don't fit the type; the handle is not loaded then.
        """
        self.reset()
        if data is not None:
            self._value = self._decode(data, as_json=as_json)
            self._has_value = True
        elif default is not None:
            self._value = self._copy(default, as_json=as_json)
            self._has_value = True
        self._is_loaded = None if as_json else True
        value: T | None = self._value
        return value

    def empty(self) -> None:
        """Take the value away; the handle stays loaded."""
        is_loaded = self._is_loaded
        self.reset()
        self._is_loaded = None if is_loaded is None else True

    def retype(self, typed: Typed[Any]) -> None:
        """Decode the value as another type from the next load on.

        Raises:
            DefinitionError: The handle has a type, or a value, already.
        """
        if self._typed is not None and self._typed is not typed:
            raise DefinitionError(f"{self.subject} has a type already. Give it the same type= everywhere.")
        if self._typed is None and self.is_loaded:
            raise DefinitionError(f"{self.subject} is loaded already. Give type= where the handle is first asked for.")
        self._typed = typed

    def encoded(self) -> bytes | None:
        """Return the value as bytes, None if there is none.

        Raises:
            InvalidValueError: JSON can't hold it.
        """
        if not self._has_value:
            return None
        if self._typed is None:
            return codec.encode(self._value, self.subject)
        return codec.encode_typed(self._typed.encode(self._value, self._carried, self.subject), self.subject)

    def encoded_result(self, steps: Sequence[Migration]) -> bytes | None:
        """Return what a chain of migrations left here as bytes, None if nothing.

        Raises:
            MigrationFailedError: JSON can't hold it.
        """
        if not self._has_value:
            return None
        return encode_result(self._value, self.subject, steps, self._activation.key)

    def kept(self) -> tuple[Any, bool, Carried | None]:
        """Return the value, to be put back by `keep`."""
        return self._value, self._has_value, self._carried

    def keep(self, kept: tuple[Any, bool, Carried | None]) -> None:
        """Take a value back that `kept` gave."""
        self._value, self._has_value, self._carried = kept
        self._is_loaded = True

    @property
    def subject(self) -> codec.Subject:
        """What errors call it."""
        return codec.Subject("state {!r} of {}", self.name, self._activation.key)

    def _decode(self, data: bytes, *, as_json: bool) -> Any:
        value = decode_state(self._activation.key, self.name, data)
        if self._typed is None or as_json:
            return value
        decoded, self._carried = self._typed.decode(value, self._activation.key, self.name)
        return decoded

    def _copy(self, default: T, *, as_json: bool) -> Any:
        if self._typed is None or (as_json and isinstance(default, (dict, list))):
            return deepcopy(default)  # a migration's default has the shape of its time, not the type's
        if as_json:
            return codec.as_lists(self._typed.encode(default, None, self.subject))
        return self._typed.copy(default, self._activation.key, self.name)


def converter(form: Any) -> Any:
    """Return what decodes values as a type; None for none."""
    if form is None:
        return None
    from lazymig._typed import typed  # noqa: PLC0415  (its libraries are extras)

    return typed(form)
