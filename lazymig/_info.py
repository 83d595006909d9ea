"""Migration-info as users see it, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig.errors import CorruptStateError, InvalidVersionError

if TYPE_CHECKING:
    from semver import Version


@dataclass(frozen=True, slots=True)
class MigrationInfo:
    """What happened to an actor's stored states.

    Attributes:
        applied: All versions applied, in order; the floor first, if there is one.
        written_by: Highest version supported by the software that last stored a state; after a `load()` alone the
            older of the two.
        migrated_at: When a migration last ran (aware, UTC); None if none ever did.
        floor: Version that counts as all up to it (a baseline, or an inferred version), None without one.
    """

    applied: tuple[Version, ...]
    written_by: Version
    migrated_at: datetime | None = None
    floor: Version | None = None

    @property
    def version(self) -> Version:
        """The highest version applied; 0.0.0 if none was."""
        return self.applied[-1] if self.applied else _version.ZERO

    def to_json(self) -> dict[str, Any]:
        """Return the stamp as JSON values, to be kept beside a state in a store that isn't lazymig's.

        Keys: ``version``, ``written_by``, ``floor`` (strings; floor may be null), ``applied`` (list of strings),
        ``migrated_at`` (ISO 8601 with offset, or null).
        """
        return {
            "version": str(self.version),
            "applied": [str(version) for version in self.applied],
            "written_by": str(self.written_by),
            "migrated_at": None if self.migrated_at is None else self.migrated_at.isoformat(),
            "floor": None if self.floor is None else str(self.floor),
        }

    @classmethod
    def from_json(cls, value: object) -> MigrationInfo:
        """Return the stamp that ``to_json`` wrote.

        Raises:
            CorruptStateError: It isn't one; an unreadable stamp never counts as 0.0.0.
        """
        try:
            return _read_info(value)
        except KeyError as error:
            raise CorruptStateError(None, f"its migration-info has no {error}") from error
        except (TypeError, ValueError, OverflowError, InvalidVersionError) as error:
            raise CorruptStateError(None, f"its migration-info is none ({error})") from error


def _read_info(value: object) -> MigrationInfo:
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} instead of an object")
    if not isinstance(value["applied"], list):
        raise TypeError("'applied' is not a list")
    applied = tuple(_version.parse(version) for version in value["applied"])
    if any(earlier >= later for earlier, later in pairwise(applied)):
        raise ValueError("'applied' is not in order")
    floor = None if value.get("floor") is None else _version.parse(value["floor"])
    info = MigrationInfo(applied, _version.parse(value["written_by"]), _read_time(value["migrated_at"]), floor)
    if floor is not None and (not applied or applied[0] != floor):
        raise ValueError("'floor' is not the first of 'applied'")
    if _version.ZERO in applied:
        raise ValueError("0.0.0 can't be applied")
    if _version.parse(value["version"]) != info.version:
        raise ValueError("'version' is not the highest of 'applied'")
    return info


def _read_time(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError("'migrated_at' is not a string")
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("'migrated_at' has no time zone")
    return time.astimezone(UTC)
