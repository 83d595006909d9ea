"""Run migrations on private copies, in order; nothing here reads or writes a store."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from lazymig import codec
from lazymig.errors import InvalidValueError, MigrationFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from semver import Version

    from lazymig._conversions import Conversion
    from lazymig._migrations import Migration
    from lazymig._records import ActorKey, MigrationInfo
    from lazymig._running import Running
    from lazymig._entries import Place


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
        except Exception as error:
            raise MigrationFailedError(key, step.version, step.name, f"{type(error).__name__}: {error}") from error
        if result is not None:
            value = result
    return value


async def convert(  # noqa: PLR0913, PLR0917  (what errors name, and what runs)
    steps: Sequence[Conversion], value: Any, context: Any, key: ActorKey | None, place: Place, running: Running
) -> Any:
    """Return what conversions make of an entry's value, which they may change in place.

    Raises:
        MigrationFailedError: One raised; those after it did not run.
    """
    for step in steps:
        running.step = step.migration
        try:
            result = step.function(value, context)
            if isawaitable(result):
                result = await result
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise MigrationFailedError(key, step.migration.version, step.name, reason, place) from error
        if result is not None:
            value = result
    return value


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
