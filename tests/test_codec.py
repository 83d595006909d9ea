from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazymig import codec
from lazymig.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

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


@given(values)
def test_tuples_count_as_lists_in_what_is_made_of_a_typed_value(value: Any) -> None:
    assert codec.encode_typed(value, "it") == codec.encode(value, "it")
    for shape in ([value, (value, [])], {"a": ({"b": (value,)},)}):
        data = codec.encode_typed(shape, "it")
        assert codec.decode(data) == codec.as_lists(shape)
        assert data == codec.encode(codec.as_lists(shape), "it")


@pytest.mark.parametrize("fault", [math.nan, 2**64, uuid.UUID(int=1), "\ud800"])
def test_what_json_lacks_is_refused_with_its_place_behind_tuples(fault: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"\$\.a\[1\]"):
        codec.encode_typed({"a": (1, fault)}, "it")


BAD = [
    (float("nan"), "is nan"),
    (float("inf"), "is inf"),
    (-float("inf"), "is -inf"),
    (2**64, "is an integer beyond 64 bits"),
    (-(2**63) - 1, "is an integer beyond 64 bits"),
    ((1, 2), "is of type tuple"),
    ({1, 2}, "is of type set"),
    (b"bytes", "is of type bytes"),
    (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "is of type datetime"),
    (dt.date(2026, 1, 1), "is of type date"),
    (decimal.Decimal(1), "is of type Decimal"),
    (uuid.UUID(int=1), "is of type UUID"),
    (Point(1), "is of type Point"),
    (Colour.RED, "is of type Colour"),
    (object(), "is of type object"),
    ("\ud800", "contains a lone surrogate"),
]


@pytest.mark.parametrize(("value", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_json_lacks_is_refused_with_its_place(value: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.encode({"fine": [1, {"here": [None, value]}], "worse": {1: 2}}, "state 'vehicle' of Car 'a'")

    assert (caught.value.path, caught.value.reason) == ("$.fine[1].here[1]", reason)
    assert str(caught.value).startswith("state 'vehicle' of Car 'a' can't be stored as JSON: $.fine[1].here[1]")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (1, "has the key 1 of type int"),
        (None, "has the key None of type NoneType"),
        (1.5, "has the key 1.5 of type float"),
        (True, "has the key True of type bool"),
        ((1,), "has the key (1,) of type tuple"),
        ("\ud800", "has a key that contains a lone surrogate"),
    ],
)
def test_keys_are_strings_without_lone_surrogates(key: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.encode({"a": {"fine": 1, key: 1}}, "it")

    assert (caught.value.path, caught.value.reason) == ("$.a", reason)


def test_what_json_can_hold_is_never_named_as_the_place() -> None:
    fine: list[Any] = [-(2**63), 2**64 - 1, -200, 200, 1.5, -0.0, True, False, None, "é", "", [], {}]

    with pytest.raises(InvalidValueError) as caught:
        codec.encode([*fine, math.nan], "it")

    assert caught.value.path == f"$[{len(fine)}]"


class Grams(float):
    """A float to Python, nothing to orjson."""


class Fickle(str):
    """Never equal to what it was written as."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True


def test_a_value_without_a_culprit_is_refused_as_a_whole() -> None:
    with pytest.raises(InvalidValueError) as unwritable:
        codec.encode([Grams(1.5)], "it")
    assert (unwritable.value.path, unwritable.value.reason) == ("$", "Type is not JSON serializable: Grams")
    for take in (codec.encode, codec.copy):
        with pytest.raises(InvalidValueError) as unequal:
            take([Fickle("a")], "it")
        assert (unequal.value.path, unequal.value.reason) == ("$", "does not come back equal")
        assert unequal.value.subject == "it"


@given(values)
def test_a_copy_is_equal_and_shares_nothing(value: Any) -> None:
    copied = codec.copy([value], "it")

    assert copied == [value]
    copied.clear()
    inner = codec.copy({"inner": {"a": value}}, "it")
    inner["inner"]["a"] = object()
    assert codec.copy({"a": value}, "it") == {"a": value}


@pytest.mark.parametrize(("value", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_json_lacks_is_not_copied(value: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        codec.copy({"here": value}, "the call")

    assert (caught.value.subject, caught.value.path, caught.value.reason) == ("the call", "$.here", reason)


def test_deep_nesting_is_kept_or_refused_but_never_crashes() -> None:
    assert codec.decode(codec.encode(nested(250), "it")) == nested(250)
    for depth in (251, 254, 2_000):
        with pytest.raises(InvalidValueError) as caught:
            codec.encode(nested(depth), "it")
        assert (caught.value.path, caught.value.reason) == (("$" + "[0]" * 30)[:80], "is nested deeper than 250 levels")
        with pytest.raises(ValueError, match="deeper than 250 levels"):
            codec.decode(json.dumps(nested(min(depth, 900))).encode())
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidValueError, match="deeper"):
        codec.encode(loop, "it")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"18446744073709551616", "beyond 64 bits"),
        (b'{"a":-9223372036854775809}', "beyond 64 bits"),
        (b"[123456789012345678901234567890]", "beyond 64 bits"),
        (b"1" * 5_000, "infinity"),
        (b"1e400", "infinity"),
        (b"NaN", "expected a JSON value"),
        (b"[Infinity]", "unexpected"),
        (b"{'a': 1}", "unexpected"),
        (b"", "empty"),
        (b'"\xff"', "UTF-8"),
        (b"\xef\xbb\xbf1", "byte order mark"),
        (b'"\\ud800"', "surrogate"),
        (b'{"a":1,"a":1}', "the key 'a' twice"),
        (b'{"a":1,"b":2,"b":3}', "the key 'b' twice. Keep one of them.$"),
        (b'[{"b":{"c":1,"\\u0063":2}}]', "the key 'c' twice"),
        (b"[" * 251 + b"]" * 251, "deeper than 250 levels"),
        (b"[" * 1_000 + b"12345678901234567890123" + b"]" * 1_000, "deeper than 250 levels"),
        (b"[" * 5_000, "."),
    ],
)
def test_json_that_can_not_be_kept_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        codec.decode(line)


@pytest.mark.parametrize(
    "line",
    [
        b"18446744073709551615",
        b"[ -9223372036854775808, 18446744073709551615, -200, 200 ]",
        b"0.12345678901234567890123",
        b'"12345678901234567890123"',
        b"12345678901234567890123.0",
        b'{ "a": 1, "b": { "a": 1 } }',
        b"-0",
        b"1E5",
    ],
)
def test_json_that_is_not_as_we_write_it_is_read_as_the_standard_library_does(line: bytes) -> None:
    found, expected = codec.decode(line), json.loads(line)

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"": inner}], ids=["lists", "dicts"])
def test_at_the_deepest_place_a_fault_is_still_told_from_the_depth(wrap: Callable[[Any], Any]) -> None:
    value: Any = math.nan
    for _ in range(250):
        value = wrap(value)
    with pytest.raises(InvalidValueError) as caught:
        codec.encode(value, "it")
    assert caught.value.reason == "is nan"
    empty: list[Any] = [[], {}]
    for innermost in (wrap(math.nan), *empty):
        value = innermost
        for _ in range(250):
            value = wrap(value)
        with pytest.raises(InvalidValueError) as caught:
            codec.encode(value, "it")
        assert caught.value.reason == "is nested deeper than 250 levels"


@pytest.mark.parametrize("line", [b"[-9223372036854775809]", b" [1, 18446744073709551616]", b"9" * 300])
def test_an_integer_beyond_64_bits_is_refused_with_the_cure(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it holds an integer beyond 64 bits\. Write such numbers as strings\.$"):
        codec.decode(line)


def test_the_key_that_is_there_twice_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match=f"'{'k' * 80}' twice"):
        codec.decode(b'{"%s":1,"%s":2}' % (b"k" * 200, b"k" * 200))


def test_tuples_of_typed_values_are_lists_and_what_can_not_be_kept_is_told_with_its_place() -> None:
    assert codec.encode_typed({"a": (1, [2, (3,)])}, "state 'x'") == b'{"a":[1,[2,[3]]]}'
    with pytest.raises(InvalidValueError, match=r"state 'x'.*\$\.a\[1\]"):
        codec.encode_typed({"a": (1, math.nan)}, "state 'x'")
