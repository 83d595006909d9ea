"""Migrations and the ordered chain of one actor type.

Pending is what is registered and not in the actor's applied set, in order. A pending version below the actor's is
late: it runs only with consent. Both follow from the applied set alone, so the chain works them out once per set.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import getdoc, iscoroutinefunction, unwrap
from typing import TYPE_CHECKING, Any, TypeVar

from lazymig import _checksums, _version
from lazymig._conversions import Conversion
from lazymig._records import MAX_NAME_BYTES, AppliedSet, check_text
from lazymig.errors import (
    DefinitionError,
    DuplicateMigrationError,
    FrozenDefinitionError,
    InvalidKeyError,
    MigrationOrderError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from semver import Version

    from lazymig._conversions import ConvertFunction

MigrateFunction = Callable[[Any, Any], Any | Awaitable[Any]]
"""``migrate(state, context)``: changes the state in place, or returns its replacement; plain or async."""

ReconcileFunction = Callable[[Any, Any, Any], Any | Awaitable[Any]]
"""``reconcile(state, base, context)``: mends what older software stored over a newer value."""

F = TypeVar("F", bound=Callable[..., Any])

_KEPT_PLANS = 1024
"""How many plans a chain keeps."""

_UNKNOWN = -1
"""A checksum that was not worked out yet."""


class Migration:
    """One step of a suite, registered by `ActorType.migration`; calling it calls the function it wraps.

    Attributes:
        version: The version a state has afterwards.
        name: The function's name.
        description: First line of the function's docstring, or "".
        late: Whether it may run on states of a later version.
        packed: The version as one sortable integer.
        is_async: Whether its function is known to be async: a plain one that returns an awaitable can't be told.
        function: The function it wraps.
        downgrade: The function registered by `down`, or None.
        reconciler: The function registered by `reconcile`, or None.
        conversions: Table to what converts its entries, registered by `entries`.
    """

    __slots__ = (
        "_chain", "_checksum", "_checksum_of_all", "conversions", "description", "downgrade", "function", "is_async",
        "late", "name", "packed", "reconciler", "version",
    )  # fmt: skip

    def __init__(self, version: Version, function: MigrateFunction, chain: Chain, *, late: bool) -> None:
        self.version = version
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self.description = (getdoc(function) or "").partition("\n")[0]
        self.late = late
        self.downgrade: MigrateFunction | None = None
        self.reconciler: ReconcileFunction | None = None
        self.conversions: dict[str, Conversion] = {}
        self._chain = chain
        self._checksum: int | None = _UNKNOWN
        self._checksum_of_all = _UNKNOWN
        self.packed = _version.pack(version)
        self.is_async = _is_async(function)

    def __call__(self, state: Any, context: Any) -> Any:
        """Call the wrapped function, so that authors can test it."""
        return self.function(state, context)

    def __repr__(self) -> str:
        """Show version and name."""
        return f"Migration({str(self.version)!r}, {self.name})"

    @property
    def reconciles_async(self) -> bool:
        """Whether what was registered by `reconcile` is known to be async."""
        return self.reconciler is not None and _is_async(self.reconciler)

    @property
    def checksum(self) -> int | None:
        """63 bits of its function's code, without comments and docstring; None if its source isn't there."""
        if self._checksum == _UNKNOWN:
            self._checksum = _checksums.checksum(_innermost(self.function))
        return self._checksum

    @property
    def checksum_of_all(self) -> int:
        """63 bits of the code of all its functions: also of its `down`, its `reconcile`, and those of entries.

        How entries are converted counts, too: eagerly or not, and how many beside each other.
        """
        if self._checksum_of_all == _UNKNOWN:
            conversions = [self.conversions[table] for table in sorted(self.conversions)]
            functions = [self.function, self.downgrade, self.reconciler]
            functions += [function for of in conversions for function in (of.function, of.downgrade)]
            sums = [None if function is None else _checksums.checksum(_innermost(function)) for function in functions]
            how = [(of.table, of.is_eager, of.concurrency) for of in conversions]
            self._checksum_of_all = _checksums.hashed(map(str, [*sums, *how]))
        return self._checksum_of_all

    def one_way(self) -> Iterator[str]:
        """Yield what has no way down, for people."""
        which = f"{self.version} ({self.name}) has no down"
        if self.downgrade is None:
            yield which
        for table, conversion in self.conversions.items():
            if conversion.downgrade is None:
                yield f"{which} for the entries of table {table!r}"

    def down(self, function: F) -> F:
        """Register the way back: ``down(state, context)`` makes the older shape of the newer one.

        Raises:
            DefinitionError: It has one already, or the actor type is in use.
        """
        self._check("down", self.downgrade, function)
        self.downgrade = function
        return function

    def reconcile(self, function: F) -> F:
        """Register ``reconcile(state, base, context)``, which mends what older software stored over a newer value.

        Raises:
            DefinitionError: It has one already, or the actor type is in use.
        """
        self._check("reconcile", self.reconciler, function)
        self.reconciler = function
        return function

    def entries(
        self, table: str, *, eager: bool = False, concurrency: int = 1
    ) -> Callable[[ConvertFunction], Conversion]:
        """Register the decorated function ``convert(entry, context)``, plain or async, for a table's entries.

        ``entry`` is an entry's value: change it in place, or return its replacement. By default an entry is converted
        when it is read, and stored so when it is next written: what converts it may run again until then, and writes
        nothing. With ``eager`` all are converted before the actor gets the migration's version, and before the
        functions of its pending migrations run: chunk by chunk, each entry once, and what is put into tables on the
        way is stored with its chunk.

        Args:
            table: The table's name.
            eager: Convert all entries before the actor is activated.
            concurrency: How many entries an eager, async function may be working on at once.

        Raises:
            DefinitionError: The table is none or has a conversion in this migration, ``concurrency`` is no number of 1
                or more, or the actor type is in use.
        """
        if callable(table):
            raise DefinitionError(f"entries takes a table's name: @{self.name}.entries('log').")
        try:
            check_text("a table's name", table, MAX_NAME_BYTES)
        except InvalidKeyError as error:
            raise DefinitionError(str(error)) from None
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise DefinitionError(f"concurrency is {concurrency!r}. Give a whole number of 1 or more.")
        if not isinstance(eager, bool):
            raise DefinitionError(f"eager is {eager!r}. Give True or False.")

        def register(function: ConvertFunction) -> Conversion:
            self._check(f"entries({table!r})", self.conversions.get(table), function)
            made = Conversion(self, table, function, is_eager=eager, concurrency=concurrency)
            self.conversions[table] = made
            return made

        return register

    def check_open(self) -> None:
        """Refuse a change after the first use."""
        self._chain.check_open()

    def _check(self, what: str, present: object, function: object) -> None:
        self._chain.check_open()
        if not callable(function):
            raise DefinitionError(f"@{self.name}.{what} takes a function, not {function!r}. Write it above a def.")
        if present is not None:
            raise DefinitionError(f"migration {self.version} ({self.name}) has a {what} already. Remove one of them.")


def _innermost(function: Any) -> Any:
    """Return what a function decorates."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, Migration | Conversion):
            function = function.function
        elif hasattr(function, "__wrapped__"):
            function = unwrap(function)
        else:
            return function


def _is_async(function: Any) -> bool:
    """Tell whether a function, or what it decorates, is known to be async."""
    inner = _innermost(function)
    return iscoroutinefunction(inner) or iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


class Chain:
    """The migrations of one actor type, in order.

    Attributes:
        actor_type: Its name.
        baseline: The oldest version that a state may have, None for any.
        migrations: In order.
        is_frozen: Whether it is in use, and can't change any more.
        plans: What was decided for actors by their applied set, see `lazymig._plan`.
        entry_plans: Likewise for entries: by table, applied set, and the version they are brought to.
    """

    def __init__(self, actor_type: str, baseline: Version | None = None) -> None:
        self.actor_type = actor_type
        self.baseline = baseline
        self.migrations: tuple[Migration, ...] = ()
        self.is_frozen = False
        self._floor = 0 if baseline is None else _version.pack(baseline)
        self.plans: dict[AppliedSet, Any] = {}
        self.entry_plans: dict[tuple[str, AppliedSet, int], Any] = {}
        self._known: dict[AppliedSet, bool] = {}
        self._unions: dict[tuple[AppliedSet, AppliedSet], AppliedSet] = {}
        self._digests: dict[tuple[int, ...], int] = {}
        self._release: AppliedSet | None = None

    @property
    def supported(self) -> Version:
        """The highest version registered, else the baseline, else 0.0.0."""
        return self.migrations[-1].version if self.migrations else self.baseline or _version.ZERO

    @property
    def floor(self) -> int:
        """The baseline, packed; 0 without one."""
        return self._floor

    @property
    def release(self) -> AppliedSet:
        """All that is registered, the baseline as its floor: what a new actor is stamped with."""
        if self._release is None:
            self._release = AppliedSet((migration.packed for migration in self.migrations), self._floor)
        return self._release

    @property
    def late(self) -> tuple[int, ...]:
        """The versions, packed, that may run on states of a later one."""
        return tuple(migration.packed for migration in self.migrations if migration.late)

    @property
    def one_way(self) -> tuple[tuple[int, str], ...]:
        """The versions, packed, that have no way down, each with what lacks it, for people."""
        return tuple((migration.packed, what) for migration in self.migrations for what in migration.one_way())

    @property
    def checksums(self) -> dict[int, int]:
        """Version, packed, to checksum of its function; those without source are left out."""
        found = ((migration.packed, migration.checksum) for migration in self.migrations)
        return {version: checksum for version, checksum in found if checksum is not None}

    def checksum_of(self, version: int, applied: AppliedSet) -> int:
        """Return 63 bits of what runs to bring an actor to a version, packed: its migration and the pending ones below.

        Those below count, too: what a migration is handed, and whether the result can be stored, is their doing.

        Returns:
            0 if the version is not registered. A function without source never counts as another one.
        """
        ran = [step for step in self.migrations if step.packed <= version and not applied.has(step.packed)]
        last = next((step for step in self.migrations if step.packed == version), None)
        if last is None:
            return 0
        steps = ran if last in ran else [*ran, last]
        return _checksums.hashed(f"{step.packed} {step.checksum_of_all}" for step in steps)

    def digest(self, versions: Iterable[int]) -> int:
        """Return 63 bits of the checksums of these versions, packed, in any order; 0 if none is known.

        Versions that are not registered, or whose function has no source, are passed over.
        """
        wanted = tuple(sorted(set(versions)))
        digest = self._digests.get(wanted)
        if digest is None:
            known = self.checksums
            words = [f"{version} {known[version]}" for version in wanted if version in known]
            if len(self._digests) >= _KEPT_PLANS:
                self._digests.clear()
            digest = self._digests[wanted] = _checksums.hashed(words) if words else 0
        return digest

    def check_open(self) -> None:
        """Refuse a change after the first use."""
        if self.is_frozen:
            raise FrozenDefinitionError(self.actor_type)

    def freeze(self) -> None:
        """Forbid changes from now on."""
        self.is_frozen = True

    def add(self, version: object, function: MigrateFunction, *, late: bool) -> Migration:
        """Append a migration.

        Raises:
            DefinitionError: A bad version, not above the one before it, or the chain is in use.
        """
        self.check_open()
        parsed = _version.parse(version)
        if not callable(function):
            raise DefinitionError(f"migration {parsed} of {self.actor_type} is {function!r}, not a function.")
        migration = Migration(parsed, function, self, late=late)
        self._check_order(migration)
        self.migrations += (migration,)
        self._release = None
        self.plans.clear()
        self.entry_plans.clear()
        self._known.clear()
        self._digests.clear()
        return migration

    def _check_order(self, migration: Migration) -> None:
        version = migration.version
        if version == _version.ZERO:
            raise MigrationOrderError(self.actor_type, version, _version.ZERO, "the version of unmigrated states,")
        for other in self.migrations:
            if other.version == version:
                raise DuplicateMigrationError(self.actor_type, version, other.name, migration.name)
        if self.migrations and version < self.migrations[-1].version:
            raise MigrationOrderError(self.actor_type, version, self.migrations[-1].version)
        if self.baseline is not None and version <= self.baseline:
            raise MigrationOrderError(self.actor_type, version, self.baseline, "its baseline")

    def pending(self, applied: AppliedSet) -> tuple[Migration, ...]:
        """Return what is registered and not applied, in order."""
        has = frozenset(applied.packed)
        first = bisect_left(self.migrations, applied.floor + 1, key=lambda migration: migration.packed)
        return tuple(migration for migration in self.migrations[first:] if migration.packed not in has)

    def union(self, first: AppliedSet, second: AppliedSet) -> AppliedSet:
        """Return what either has; a fleet has a few dozen applied sets."""
        if first is second:
            return first
        found = self._unions.get((first, second))
        if found is None:
            if len(self._unions) >= _KEPT_PLANS:
                self._unions.clear()
            found = self._unions[first, second] = first if first == second else first.union(second)
        return found

    def knows(self, applied: AppliedSet) -> bool:
        """Tell whether nothing was applied that is not registered, see `AppliedSet.covers`."""
        known = self._known.get(applied)
        if known is None:
            if len(self._known) >= _KEPT_PLANS:
                self._known.clear()
            known = self._known[applied] = self.release.covers(applied)
        return known

    def release_up_to(self, highest: int) -> AppliedSet:
        """Return what is registered up to a version, packed."""
        release = self.release
        if highest >= release.highest:
            return release
        return release.up_to(highest)

    def keep_plan(self, applied: AppliedSet, plan: Any) -> None:
        """Keep what was decided; a fleet has a few dozen applied sets."""
        if len(self.plans) >= _KEPT_PLANS:
            self.plans.clear()
        self.plans[applied] = plan

    def keep_entry_plan(self, known: tuple[str, AppliedSet, int], plan: Any) -> None:
        """Keep what was decided for entries."""
        if len(self.entry_plans) >= _KEPT_PLANS:
            self.entry_plans.clear()
        self.entry_plans[known] = plan
