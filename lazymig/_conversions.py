"""What converts the entries of a table, registered by `Migration.entries`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lazymig.errors import DefinitionError

if TYPE_CHECKING:
    from lazymig._migrations import Migration

ConvertFunction = Callable[[Any, Any], Any | Awaitable[Any]]
"""``convert(entry, context)``: changes the entry's value in place, or returns its replacement; plain or async."""

F = TypeVar("F", bound=Callable[..., Any])


class Conversion:
    """How one migration converts the entries of one table; calling it calls the function it wraps.

    Attributes:
        migration: The migration.
        table: The table's name.
        is_eager: Whether all entries are converted before the actor gets the migration's version.
        concurrency: How many entries an eager one converts beside each other.
        name: The function's name.
        function: The function it wraps.
        downgrade: The function registered by `down`, or None.
    """

    __slots__ = ("concurrency", "downgrade", "function", "is_eager", "migration", "name", "table")

    def __init__(
        self, migration: Migration, table: str, function: ConvertFunction, *, is_eager: bool, concurrency: int
    ) -> None:
        self.migration = migration
        self.table = table
        self.function = function
        self.is_eager = is_eager
        self.concurrency = concurrency
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self.downgrade: ConvertFunction | None = None

    def __call__(self, entry: Any, context: Any) -> Any:
        """Call the wrapped function, so that authors can test it."""
        return self.function(entry, context)

    def __repr__(self) -> str:
        """Show version, table and name."""
        return f"Conversion({str(self.migration.version)!r}, {self.table!r}, {self.name})"

    def down(self, function: F) -> F:
        """Register the way back: ``down(entry, context)`` makes the older shape of the newer one.

        Raises:
            DefinitionError: It has one already, or the actor type is in use.
        """
        self.migration.check_open()
        if not callable(function):
            raise DefinitionError(f"@{self.name}.down takes a function, not {function!r}. Write it above a def.")
        if self.downgrade is not None:
            raise DefinitionError(
                f"the entries of {self.table!r} in migration {self.migration.version} have a down already. Remove one."
            )
        self.downgrade = function
        return function
