"""Run migrations on private copies, in order; nothing here reads or writes a store."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from lazymig import codec
from lazymig.errors import InvalidValueError, MigrationFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semver import Version

    from lazymig._migrations import Migration
    from lazymig._records import ActorKey, MigrationInfo


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


async def run(steps: Sequence[Migration], value: Any, context: Any, key: ActorKey | None) -> Any:
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
