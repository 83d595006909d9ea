"""Run migrations on private copies, in order; nothing here reads or writes a store."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import codec
from lazymig.errors import InvalidValueError, LeaseLostError, MigrationFailedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from semver import Version

    from lazymig._conversions import Conversion
    from lazymig._entries import Place
    from lazymig._info import MigrationInfo
    from lazymig._migrations import Migration
    from lazymig._records import ActorKey
    from lazymig._running import Running


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What `ActorType.upgrade` made of a value.

    Attributes:
        value: The value at the version the software supports (or the newer minor it had); a copy.
        info: Its migration-info, to be stored beside it.
        applied: Versions of the migrations that ran in this call.
    """

    value: Any
    info: MigrationInfo
    applied: tuple[Version, ...]


async def run(steps: Iterable[Migration], value: Any, context: Any, key: ActorKey | None) -> Any:
    """Return what the migrations make of ``value``, which they may change in place.

    Raises:
        MigrationFailedError: One raised; those after it did not run.
    """
    for step in steps:
        try:
            result = step.function(value, context)
            if result is None:  # changed in place, as most do
                continue
            if isawaitable(result):
                result = await result
        except (StoreError, LeaseLostError):  # not the function's
            raise
        except Exception as error:
            raise MigrationFailedError(key, step.version, step.name, f"{type(error).__name__}: {error}") from error
        if result is not None:
            value = result
    return value


async def call(  # noqa: PLR0913, PLR0917  (what is called, and what errors name)
    function: Callable[..., Any], value: Any, rest: Sequence[Any], step: Migration, what: str, key: ActorKey | None
) -> Any:
    """Return what a `down` or `reconcile` of a migration makes of ``value``, which it may change in place.

    Raises:
        MigrationFailedError: It raised.
    """
    try:
        result = function(value, *rest)
        if isawaitable(result):
            result = await result
    except (StoreError, LeaseLostError):  # not the function's
        raise
    except Exception as error:
        name = f"{what} of {step.name}"
        raise MigrationFailedError(key, step.version, name, f"{type(error).__name__}: {error}") from error
    return value if result is None else result


def convert_at_once(  # noqa: PLR0913, PLR0917  (what errors name, and what runs)
    steps: Sequence[Conversion], value: Any, context: Any, key: ActorKey | None, place: Place, running: Running
) -> Any:
    """Return what conversions make of an entry's value, which they may change in place; a `Rest` if one is async.

    Raises:
        MigrationFailedError: One raised; those after it did not run.
    """
    for number, step in enumerate(steps):
        running.step = step.migration
        try:
            result = step.function(value, context)
        except Exception as error:
            raise _failed(step, key, place, error) from error
        if result is not None:
            if isawaitable(result):
                return Rest(steps[number:], result, value, context, key, place, running)
            value = result
    return value


class Rest(NamedTuple):
    """What is left of the conversions of an entry, of which the first has begun."""

    steps: Sequence[Conversion]
    begun: Awaitable[Any]
    value: Any
    context: Any
    key: ActorKey | None
    place: Place
    running: Running

    async def finish(self) -> Any:
        """Return what they make of the entry's value; as `convert_at_once`."""
        step, *rest = self.steps
        try:
            result = await self.begun
        except (StoreError, LeaseLostError):  # not the function's
            raise
        except Exception as error:
            raise _failed(step, self.key, self.place, error) from error
        return await convert(rest, self.value if result is None else result, *self[3:])


async def convert(  # noqa: PLR0913, PLR0917  (likewise)
    steps: Sequence[Conversion], value: Any, context: Any, key: ActorKey | None, place: Place, running: Running
) -> Any:
    """Return what conversions make of an entry's value, as `convert_at_once`, async ones too."""
    value = convert_at_once(steps, value, context, key, place, running)
    return await value.finish() if isinstance(value, Rest) else value


def _failed(step: Conversion, key: ActorKey | None, place: Place, error: Exception) -> MigrationFailedError:
    return MigrationFailedError(key, step.migration.version, step.name, f"{type(error).__name__}: {error}", place)


def encode_entry(value: Any, steps: Sequence[Conversion], key: ActorKey | None, place: Place) -> bytes:
    """Return what conversions made of an entry as bytes.

    Raises:
        MigrationFailedError: JSON can't hold it; names the last one.
    """
    try:
        return codec.encode(value, "the entry")
    except InvalidValueError as error:
        last, reason = steps[-1], f"the result is no JSON: {error.path} {error.reason}"
        raise MigrationFailedError(key, last.migration.version, last.name, reason, place) from error


def encode_result(value: Any, subject: object, steps: Sequence[Migration], key: ActorKey | None) -> bytes:
    """Return what a chain of migrations made as bytes.

    Raises:
        MigrationFailedError: JSON can't hold it; names the last migration, and the chain if it has several.
    """
    try:
        return codec.encode_and_copy(value, subject)[0]
    except InvalidValueError as error:
        last = steps[-1]
        chain = "" if len(steps) == 1 else f"of {', '.join(str(step.version) for step in steps)}, "
        raise MigrationFailedError(
            key, last.version, last.name, f"{chain}the result of {subject} is no JSON: {error.path} {error.reason}"
        ) from error
