from __future__ import annotations

import pickle
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from lazymig import _version
from lazymig._info import MigrationInfo
from lazymig._records import AppliedSet, Stamp
from lazymig.errors import CorruptStateError, InvalidVersionError

parts = st.integers(0, 999_999)
versions = st.builds(Version, parts, parts, parts)


@given(versions, versions)
def test_packed_versions_sort_as_versions_do(first: Version, second: Version) -> None:
    assert (_version.pack(first) < _version.pack(second)) == (first < second)


@given(versions)
def test_a_packed_version_unpacks_to_itself_and_fits_63_bits(version: Version) -> None:
    assert _version.unpack(_version.pack(version)) == version
    assert _version.pack(version) < 2**63


@given(versions, versions)
def test_only_the_major_decides_who_may_read(stored: Version, supported: Version) -> None:
    is_newer = _version.is_newer_major(_version.pack(stored), _version.pack(supported))

    assert is_newer == (stored.major > supported.major)


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1.0", "2.0", "1.0.0.0", "v1.0.0", "v3.0.0", "01.0.0", "1.00.0", "1.0.0-rc.1", "1.0.0+build", " 1.0.0",
        "1.0.0 ", "1.0.0\n", "-1.0.0", "1.0.-1", "1.0.x", "latest", "1.٠.0", "1000000.0.0", "0.1000000.0",
        "0.0.1000000",
    ],
)  # fmt: skip
def test_what_is_no_released_version_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(InvalidVersionError, match=r"MAJOR\.MINOR\.PATCH") as caught:
        _version.parse(text)

    assert caught.value.version == text


@pytest.mark.parametrize("value", [None, 1, 1.0, b"1.0.0", (1, 0, 0), True])
def test_what_is_no_text_is_no_version(value: object) -> None:
    with pytest.raises(InvalidVersionError, match=f"it is of type {type(value).__name__}, not a string") as caught:
        _version.parse(value)
    assert caught.value.version == repr(value)


RELEASED = "a stored state belongs to a released version, not to a pre-release or build"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (Version(1, 0, 0, "rc.1"), RELEASED),
        (Version(1, 0, 0, None, "build"), RELEASED),
        (Version(1_000_000), "its parts must be below 1,000,000"),
        (Version(0, 0, 1_000_000), "its parts must be below 1,000,000"),
    ],
)
def test_a_version_object_is_checked_as_well(version: Version, reason: str) -> None:
    for given_as in (version, str(version)):
        with pytest.raises(InvalidVersionError, match=f" is no version: {reason}. Write") as caught:
            _version.parse(given_as)
        assert caught.value.version == (given_as if isinstance(given_as, str) else repr(version))


def test_a_version_object_of_a_release_is_taken_as_it_is() -> None:
    version = Version(999_999, 999_999, 999_999)

    assert _version.parse(version) is version


packed = st.integers(1, 2**63 - 1)
sets = st.builds(AppliedSet, st.lists(packed, max_size=6), st.one_of(st.just(0), packed))


@given(sets)
def test_an_applied_set_is_ordered_above_its_floor(applied: AppliedSet) -> None:
    assert list(applied.packed) == sorted(set(applied.packed))
    assert all(number > applied.floor for number in applied.packed)
    assert applied.highest == max([applied.floor, *applied.packed])


def has(applied: AppliedSet, number: int) -> bool:
    """Tell whether a version counts as applied: a floor counts as every version up to it."""
    return number <= applied.floor or number in applied.packed


@given(sets, sets, packed)
def test_a_union_has_what_either_has(first: AppliedSet, second: AppliedSet, number: int) -> None:
    union = first.union(second)

    assert has(union, number) == (has(first, number) or has(second, number))
    assert union == second.union(first)
    assert hash(union) == hash(second.union(first))


small_sets = st.builds(
    AppliedSet,
    st.lists(versions.filter(bool).map(_version.pack), max_size=4),
    st.one_of(st.just(0), versions.map(_version.pack)),
)
stamps = st.builds(Stamp, small_sets, small_sets, st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))))


@given(stamps)
def test_migration_info_survives_json(stamp: Stamp) -> None:
    info = stamp.info

    assert MigrationInfo.from_json(info.to_json()) == info
    assert Stamp.of(info).applied == stamp.applied
    assert Stamp.of(info).info == info
    assert pickle.loads(pickle.dumps(info)) == info


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


GOOD = MigrationInfo((Version(1, 0, 0), Version(2, 0, 0)), Version(2, 0, 0)).to_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "2.0.0",
        {},
        GOOD | {"version": "2.0"},
        GOOD | {"version": "1.0.0"},
        GOOD | {"applied": ["2.0.0", "1.0.0"]},
        GOOD | {"applied": ["1.0.0", "1.0.0", "2.0.0"]},
        GOOD | {"applied": ["v1.0.0", "2.0.0"]},
        GOOD | {"applied": "2.0.0"},
        GOOD | {"applied": ["0.0.0", "2.0.0"]},
        GOOD | {"written_by": None},
        GOOD | {"floor": "2.0.0"},
        GOOD | {"floor": 1},
        GOOD | {"migrated_at": "2026-01-01T00:00:00"},
        GOOD | {"migrated_at": "yesterday"},
        GOOD | {"migrated_at": 1},
        GOOD | {"migrated_at": "0001-01-01T00:00:00+05:00"},
        GOOD | {"version": nested(1_500)},
        {key: value for key, value in GOOD.items() if key != "migrated_at"},
    ],
)
def test_unreadable_info_is_corrupt_and_never_counts_as_unmigrated(value: object) -> None:
    with pytest.raises(CorruptStateError, match="migration-info"):
        MigrationInfo.from_json(value)


def test_times_of_other_zones_are_read_as_utc() -> None:
    info = MigrationInfo.from_json(GOOD | {"migrated_at": "2026-01-01T05:00:00+05:00"})
    assert info.migrated_at is not None
    assert info.migrated_at.isoformat() == "2026-01-01T00:00:00+00:00"
