from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazymig import codec
from lazymig.errors import InvalidValueError

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    ),
    max_leaves=20,
)


@dataclass
class Point:
    x: int


class Colour(enum.Enum):
    RED = "red"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@given(values)
def test_what_is_stored_comes_back_equal(value: Any) -> None:
    assert codec.decode(codec.encode(value, "it")) == value
    assert codec.decode_foreign(codec.encode(value, "it")) == value


BAD = [
    (float("nan"), "is nan"),
    (float("inf"), "is inf"),
    (-float("inf"), "is -inf"),
    (2**64, "beyond 64 bits"),
    (-(2**63) - 1, "beyond 64 bits"),
    ((1, 2), "type tuple"),
    ({1, 2}, "type set"),
    (b"bytes", "type bytes"),
    (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "type datetime"),
    (dt.date(2026, 1, 1), "type date"),
    (decimal.Decimal(1), "type Decimal"),
    (uuid.UUID(int=1), "type UUID"),
    (Point(1), "type Point"),
    (Colour.RED, "type Colour"),
    (object(), "type object"),
    ("\ud800", "lone surrogate"),
]


@pytest.mark.parametrize(("value", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_json_lacks_is_refused_with_its_place(value: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.encode({"fine": [1, {"here": [None, value]}]}, "state 'vehicle' of Car 'a'")

    assert caught.value.path == "$.fine[1].here[1]"
    assert reason in caught.value.reason
    assert str(caught.value).startswith("state 'vehicle' of Car 'a' can't be stored as JSON: $.fine[1].here[1]")


@pytest.mark.parametrize("key", [1, None, 1.5, True, (1,)])
def test_keys_are_strings(key: Any) -> None:
    with pytest.raises(InvalidValueError, match="has the key") as caught:
        codec.encode({"a": {key: 1}}, "it")

    assert caught.value.path == "$.a"


def test_keys_have_no_lone_surrogates() -> None:
    with pytest.raises(InvalidValueError, match="has a key that contains a lone surrogate"):
        codec.encode({"\ud800": 1}, "it")


def test_deep_nesting_is_kept_or_refused_but_never_crashes() -> None:
    assert codec.decode(codec.encode(nested(250), "it")) == nested(250)
    with pytest.raises(InvalidValueError, match="deeper"):
        codec.encode(nested(2_000), "it")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidValueError, match="deeper"):
        codec.encode(loop, "it")


@pytest.mark.parametrize(
    "line",
    [
        b"18446744073709551616",
        b'{"a": -9223372036854775809}',
        b"[123456789012345678901234567890]",
        b"1e400",
        b"NaN",
        b"[Infinity]",
        b"{'a': 1}",
        b"",
        b'"\xff"',
        b'"\\ud800"',
        b"[" * 300 + b"]" * 300,
    ],
)
def test_foreign_json_that_can_not_be_kept_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.decode_foreign(line)


@pytest.mark.parametrize(
    "line",
    [b"18446744073709551615", b"-9223372036854775808", b"0.12345678901234567890123", b'"12345678901234567890123"'],
)
def test_foreign_json_with_long_digits_is_taken_when_it_fits(line: bytes) -> None:
    import json

    assert codec.decode_foreign(line) == json.loads(line)


@given(st.binary(max_size=60))
def test_any_foreign_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    try:
        value = codec.decode_foreign(data)
    except ValueError:
        return
    assert codec.decode(codec.encode(value, "it")) == value
