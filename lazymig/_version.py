"""Versions: parsing, order, and which of them a software may read.

A stored state belongs to a released version, so only ``MAJOR.MINOR.PATCH`` of SemVer 2.0.0 section 2 is taken: no
pre-release, no build metadata. Every part is below 1,000,000, so that a version packs into one sortable integer of
63 bits (21 a part), which stores order and compare.
"""

from __future__ import annotations

from functools import lru_cache

from semver import Version

from lazymig.errors import InvalidVersionError

ZERO = Version(0, 0, 0)
"""The version of a state that no migration has touched."""

_PART_BITS = 21
_PART_MASK = (1 << _PART_BITS) - 1
_PART_LIMIT = 1_000_000


def parse(value: object) -> Version:
    """Return the released version that ``value`` names.

    Args:
        value: Text like ``"1.2.3"``, or a ``Version``.

    Raises:
        InvalidVersionError: It is neither, or has a pre-release, build metadata or a part of 1,000,000 or more.
    """
    if isinstance(value, Version):
        _check(value, value)
        return value
    if not isinstance(value, str):
        raise InvalidVersionError(value, f"it is of type {type(value).__name__}, not a string")
    return _parse_text(value)


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> Version:
    try:
        version = Version.parse(text)
    except ValueError:
        raise InvalidVersionError(text, "not in SemVer's form") from None
    _check(version, text)
    return version


def _check(version: Version, given: object) -> None:
    if version.prerelease or version.build:
        raise InvalidVersionError(given, "a stored state belongs to a released version, not to a pre-release or build")
    if max(version.major, version.minor, version.patch) >= _PART_LIMIT:
        raise InvalidVersionError(given, f"its parts must be below {_PART_LIMIT:,}")


def pack(version: Version) -> int:
    """Return the version as one integer that sorts as versions do."""
    return (version.major << 2 * _PART_BITS) | (version.minor << _PART_BITS) | version.patch


@lru_cache(maxsize=4096)
def unpack(packed: int) -> Version:
    """Return the version that ``pack`` made ``packed`` of."""
    return Version(packed >> 2 * _PART_BITS, (packed >> _PART_BITS) & _PART_MASK, packed & _PART_MASK)


def is_newer_major(stored: int, supported: int) -> bool:
    """Tell whether a packed stored version is out of reach of software that supports ``supported``.

    Only the major decides; 0.x counts as one major.
    """
    return stored >= next_major(supported)


def next_major(supported: int) -> int:
    """Return the first packed version that software that supports ``supported`` may not read."""
    return ((supported >> 2 * _PART_BITS) + 1) << 2 * _PART_BITS
