"""A suite: the actor types of one piece of software, each with its migrations and its context."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from lazymig import _plan, _shapes, _upgrade, _version, codec
from lazymig._migrations import Chain, Migration
from lazymig._records import MAX_NAME_BYTES, Stamp, check_text
from lazymig.errors import ActivationError, CorruptStateError, DefinitionError, InvalidKeyError, InvalidVersionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from semver import Version

    from lazymig._info import MigrationInfo
    from lazymig._migrations import MigrateFunction
    from lazymig._records import ActorKey
    from lazymig._upgrade import Upgraded
    from lazymig.activation import Activation
    from lazymig.actor import Actor

A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B", bound="Actor")


class ActorType(Generic[A_co]):
    """One kind of actor: its name, class, states and migrations. Made by `Suite.actor_type`.

    Attributes:
        name: Name of the type, as stores keep it.
        actor_class: The class calls are made on, or None.
        state: Name of the main state, the one migrations are handed.
        write_version: What its actors are stored as at first, see `Suite.actor_type`; None without one.
        keeps_previous: Whether what an actor was before a new major is kept, see `Suite.actor_type`.
    """

    def __init__(  # noqa: PLR0913  (the options of Suite.actor_type)
        self,
        name: str,
        actor_class: Callable[[Activation], A_co] | None,
        *,
        state: str,
        context: object,
        context_factory: Callable[[Activation], Any] | None,
        infer_version: Callable[[Any], str | Version] | None,
        baseline: Version | None,
        write_version: Version | None,
        keeps_previous: bool,
    ) -> None:
        self.name = name
        self.actor_class = actor_class
        self.state = state
        self.write_version = write_version
        self.keeps_previous = keeps_previous
        self.chain = Chain(name, baseline)
        self._context = context
        self._context_factory = context_factory
        self._infer_version = infer_version

    def __repr__(self) -> str:
        """Show name and supported version."""
        return f"<ActorType {self.name} {self.supported}>"

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """The registered migrations, in order."""
        return self.chain.migrations

    @property
    def baseline(self) -> Version | None:
        """Migrations up to it were retired; None without one."""
        return self.chain.baseline

    @property
    def supported(self) -> Version:
        """The highest version registered, else the baseline, else 0.0.0."""
        return self.chain.supported

    def migration(self, version: str | Version, *, late: bool = False) -> Callable[[MigrateFunction], Migration]:
        """Register the decorated function ``migrate(state, context)``, plain or async, as a migration.

        ``state`` is the main state's value, a private working copy: change it in place, or return its replacement.

        Args:
            version: ``MAJOR.MINOR.PATCH``, above all registered before: a major step keeps older software out.
            late: It may run on states that are already at a later version (a hotfix 1.0.1 after 1.1.0).

        Raises:
            DefinitionError: The version is none, is not above the one before, or the actor type is in use.
        """
        if callable(version):
            raise InvalidVersionError(
                version, f"write @….migration('1.0.0') above {getattr(version, '__name__', '')!r}"
            )

        def register(function: MigrateFunction) -> Migration:
            return self.chain.add(version, function, late=late)

        return register

    def check_write_version(self) -> None:
        """Refuse a write version that this software doesn't support.

        Raises:
            DefinitionError: It is above what is registered.
        """
        if self.write_version is not None and self.write_version > self.supported:
            raise DefinitionError(
                f"{self.name} has write_version={str(self.write_version)!r}, but supports {self.supported} only. "
                f"Register the migrations up to it, or give a write_version of at most {self.supported}."
            )

    def freeze(self) -> None:
        """Forbid changes: a node or a tool uses the actor type now."""
        self.chain.freeze()

    def make_context(self, activation: Activation) -> Any:
        """Return the context object of an activation."""
        return self._context if self._context_factory is None else self._context_factory(activation)

    @property
    def has_shared_context(self) -> bool:
        """Whether all activations have one context object, or none."""
        return self._context_factory is None

    @property
    def shared_context(self) -> Any:
        """That object."""
        return self._context

    @property
    def infers_version(self) -> bool:
        """Whether a main state stored without migration-info is asked for its version."""
        return self._infer_version is not None

    def infer(self, data: bytes, key: ActorKey | None) -> int:
        """Return the packed version of a main state stored without migration-info; 0 without ``infer_version``.

        Raises:
            CorruptStateError: The value can't be read, or ``infer_version`` raised or returned no version.
        """
        if self._infer_version is None:
            return 0
        try:
            value = codec.decode(data)
        except ValueError as error:
            raise CorruptStateError(key, f"its main state {self.state!r} is no JSON ({error})") from error
        try:
            return _version.pack(_version.parse(self._infer_version(value)))
        except Exception as error:
            raise CorruptStateError(key, f"infer_version gave no version ({type(error).__name__}: {error})") from error

    async def upgrade(self, value: Any, info: MigrationInfo | None = None, context: Any = None) -> Upgraded:
        """Bring a value up that is kept in a store other than lazymig's: no lock, no I/O.

        Args:
            value: The main state as stored, JSON; None if nothing is stored. It is left alone.
            info: Its migration-info as stored; None if it never had one.
            context: What the migrations get; without it the ``context=`` of the type.

        Raises:
            NewerStateError: It is newer by a major version.
            StateTooOldError: It is below the baseline.
            LateMigrationError: It lacks a late migration that has no consent.
            MigrationFailedError: A migration raised, or its result is not JSON.
            CorruptStateError: ``infer_version`` gave no version.
            InvalidValueError: ``value`` is not JSON.
        """
        stamp = None if info is None else Stamp.of(info)
        data = codec.encode(value, f"the value of {self.name}")
        is_stored = value is not None
        inferred = self.infer(data, None) if is_stored and stamp is None else 0
        found = _plan.Found(stamp, is_stored, is_stored, inferred)
        plan = _plan.decide(self.chain, found, None)
        if isinstance(plan, ActivationError):
            raise plan
        value = await _upgrade.run(plan.steps, codec.decode(data), self._context if context is None else context, None)
        if plan.steps:
            _upgrade.encode_result(value, f"the value of {self.name}", plan.steps, None)
        migrated_at = datetime.now(UTC) if plan.steps else None
        storing = _shapes.Storing(creates_main=False, migrated_at=migrated_at)
        after = _shapes.stamp_after(self.chain, found, plan, storing)
        if after is None:
            raise AssertionError("a plan always has a stamp")
        return _upgrade.Upgraded(value, after.info, tuple(step.version for step in plan.steps))


class Suite:
    """A family of actor types that are registered together.

    Args:
        name: For people; at most 200 bytes of UTF-8.
    """

    def __init__(self, name: str) -> None:
        _check_name("a suite name", name)
        self.name = name
        self._actor_types: dict[str, ActorType[Any]] = {}

    def __repr__(self) -> str:
        """Show the name."""
        return f"<Suite {self.name}>"

    @property
    def actor_types(self) -> Mapping[str, ActorType[Any]]:
        """Name to actor type."""
        return MappingProxyType(self._actor_types)

    @overload
    def actor_type(
        self,
        name: str,
        actor_class: type[B],
        *,
        state: str = ...,
        context: object = ...,
        context_factory: Callable[[Activation], Any] | None = ...,
        infer_version: Callable[[Any], str | Version] | None = ...,
        baseline: str | Version | None = ...,
        write_version: str | Version | None = ...,
        keep_previous: bool = ...,
    ) -> ActorType[B]: ...

    @overload
    def actor_type(
        self,
        name: str,
        actor_class: None = ...,
        *,
        state: str = ...,
        context: object = ...,
        context_factory: Callable[[Activation], Any] | None = ...,
        infer_version: Callable[[Any], str | Version] | None = ...,
        baseline: str | Version | None = ...,
        write_version: str | Version | None = ...,
        keep_previous: bool = ...,
    ) -> ActorType[Any]: ...

    def actor_type(  # noqa: PLR0913  (the contract's options)
        self,
        name: str,
        actor_class: type[Any] | None = None,
        *,
        state: str = "state",
        context: object = None,
        context_factory: Callable[[Activation], Any] | None = None,
        infer_version: Callable[[Any], str | Version] | None = None,
        baseline: str | Version | None = None,
        write_version: str | Version | None = None,
        keep_previous: bool = False,
    ) -> ActorType[Any]:
        """Add an actor type.

        Args:
            name: At most 200 bytes of UTF-8; stored with every actor.
            actor_class: A subclass of `Actor`; without one the type is used through `Node.activate`.
            state: Name of the main state, the one migrations are handed.
            context: What every migration gets as its second argument.
            context_factory: Called once an activation that needs a context, instead of ``context``.
            infer_version: Called with a main state stored without migration-info; says which version it is.
            baseline: Migrations up to it were retired; actors below it are refused.
            write_version: What the actors are stored as at first, so that an older release can read them. It counts
                only for a store where no write version was ever set; from then on only an operator changes it.
            keep_previous: Keep states and migration-info as they were before a commit that takes an actor to a higher
                major version, so that `rollout.restore` can put them back: until the next such commit, of whatever
                release, or until the actor is brought down again. It doubles the data, and such a commit's work; a
                sweep brings such actors up one by one.

        Raises:
            DefinitionError: The name is taken or none, the class is no `Actor`, both contexts are given, the
                baseline is no version above 0.0.0, or the write version is none.
        """
        _check_name("an actor type", name)
        _check_name("a state name", state)
        if name in self._actor_types:
            raise DefinitionError(f"suite {self.name!r} has an actor type {name!r} already. Give one another name.")
        if context is not None and context_factory is not None:
            raise DefinitionError(f"{name} has both context= and context_factory=. Keep the factory.")
        _check_class(name, actor_class)
        floor = None if baseline is None else _version.parse(baseline)
        if floor == _version.ZERO:
            raise DefinitionError(f"{name} has the baseline 0.0.0, which retires nothing. Leave baseline= out.")
        made = ActorType(
            name,
            actor_class,
            state=state,
            context=context,
            context_factory=context_factory,
            infer_version=infer_version,
            baseline=floor,
            write_version=None if write_version is None else _read_write_version(name, write_version),
            keeps_previous=keep_previous,
        )
        self._actor_types[name] = made
        return made


def name_of(actor_type: ActorType[Any] | str) -> str:
    """Return the name of an actor type that is given itself or by name."""
    return actor_type.name if isinstance(actor_type, ActorType) else actor_type


def _check_name(what: str, value: object) -> None:
    try:
        check_text(what, value, MAX_NAME_BYTES)
    except InvalidKeyError as error:
        raise DefinitionError(str(error)) from None


def _read_write_version(name: str, value: object) -> Version:
    try:
        return _version.parse(value)
    except InvalidVersionError as error:
        raise InvalidVersionError(value, f"{error.reason} (write_version= of {name})") from None


def _check_class(name: str, actor_class: object) -> None:
    if actor_class is not None and not getattr(actor_class, "is_actor_class", False):
        raise DefinitionError(
            f"the class of {name} is {actor_class!r}, not a subclass of lazymig.Actor. Derive it from Actor."
        )
