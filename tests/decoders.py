"""What every reader of stored bytes promises, each promise once: for Hypothesis (test_decoders) and atheris (fuzz).

A reader gives a value or its documented error, never another exception, and never a wrong value. What is right is said
by the standard library's json, asked to refuse what it would change: a key that is there twice, NaN, an integer beyond
64 bits.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import pydantic

from lazymig import ActorKey, _rows, codec
from lazymig._info import MigrationInfo
from lazymig._inspection import as_record, decode_state
from lazymig._records import Stamp, StoredActor
from lazymig._typed import typed
from lazymig._version import unpack
from lazymig.errors import CorruptStateError, InvalidValueError
from lazymig.memory import MemoryStore
from lazymig.transfer import export_states, import_json_lines, to_json_line

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

KEY = ActorKey("Box", "a")
REFUSED = object()
"""What the oracle says of bytes that are no JSON value that can be kept."""

TOKENS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1e-400", b"-0.0", b"-0", b"true", b"null", b"1.5e3"),
    *(b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809", b"9" * 25, b"9" * 400),
    *(b'"\\ud800"', b'"\\ud83d\\ude00"', b"\\u0000", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\0", b"\xf0\x9f"),
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b" ", b"\n", b'"a":1,"a":1', b'{"a":1,"\\u0061":2}', b'"<=1.0.0"'),
    *(b'"1.0.0"', b'"0.0.0"', b'"2.0.0"', b'"owner":"ann"', b'"id":"x"', b'"since":"0001-01-01T00:00:00+05:00"'),
]  # fmt: skip
"""Pieces of JSON that a reader may get wrong."""


def expected(data: bytes) -> Any:
    """Return the value of JSON bytes by the standard library, REFUSED if they can't be kept."""
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        return value if _can_be_kept(value) else REFUSED
    except (ValueError, RecursionError):
        return REFUSED


def _refuse(text: str) -> None:
    raise ValueError(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def _can_be_kept(value: Any, depth: int = 0) -> bool:
    if isinstance(value, (list, dict)):
        if depth == 250:
            return False
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return all(_can_be_kept(item, depth + 1) for item in inner)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool) or -(2**63) <= value < 2**64


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same: 1 is neither 1.0 nor true, and 0.0 not -0.0."""
    return repr(one) == repr(other)


# --- bytes of states -------------------------------------------------------------------------------------------------


def check_state(data: bytes) -> None:
    """Bytes of a state give the value they say, which can be stored again; or CorruptStateError, exactly as refused."""
    right = expected(data)
    try:
        value = decode_state(KEY, "state", data)
    except CorruptStateError as error:
        assert error.key == KEY, error
        assert "its state 'state' is no JSON (" in str(error), error
        assert right is REFUSED, f"refused, but it is {right!r}"
        return
    assert same(value, right), f"{value!r} instead of {right!r}"
    again = codec.encode(value, "it")
    assert same(codec.decode(again), value)
    assert same(codec.copy(value, "it"), value)
    line = to_json_line(as_record(StoredActor(KEY, 1, None, {"state": data})))
    assert json.loads(line)["states"] == {"state": value}


# --- typed states ----------------------------------------------------------------------------------------------------


@dataclass
class Wheel:
    size: float
    maker: str | None = None


@dataclass
class Bike:
    owner: str
    gears: int = 1
    wheels: list[Wheel] = field(default_factory=list)
    since: datetime | None = None


class BikeStruct(msgspec.Struct):
    owner: str
    gears: int = 1
    wheels: list[Wheel] = []
    labels: dict[str, bool] = {}


@attrs.define
class BikeAttrs:
    owner: str
    gears: int = 1
    wheels: tuple[float, ...] = ()


class BikeDict(TypedDict):
    owner: str
    gears: NotRequired[int]


class BikeModel(pydantic.BaseModel):
    owner: str
    gears: int = 1
    wheels: list[float] = []
    since: datetime | None = None


FORMS = (Bike, BikeStruct, BikeAttrs, BikeDict, BikeModel)


def check_typed(data: bytes) -> None:
    """A stored value fits a type or is corrupt; one that fits is stored again with every field, and fits again."""
    value = expected(data)
    if value is REFUSED:
        return
    before = repr(value)
    for form in FORMS:
        try:
            found, carried = typed(form).decode(value, KEY, "state")
        except CorruptStateError as error:
            assert error.key == KEY, error
            assert f"its state 'state' doesn't fit {form.__name__} (" in str(error), error
            continue
        assert repr(value) == before, "decoding changed the value"
        try:
            plain = typed(form).encode(found, carried, "it")
        except InvalidValueError:  # pydantic reads integers of any length from text
            assert form is BikeModel
            assert not -(2**63) <= found.gears < 2**64
            continue
        assert set(value) <= set(plain), f"{form.__name__} lost {set(value) - set(plain)}"
        undeclared = set(value) - {"owner", "gears", "wheels", "since", "labels"}
        assert all(same(plain[name], value[name]) for name in undeclared)
        assert plain["owner"] == value["owner"]
        again, _ = typed(form).decode(codec.decode(codec.encode_typed(plain, "it")), KEY, "state")
        assert again == found, f"{again!r} instead of {found!r}"


# --- stamps ----------------------------------------------------------------------------------------------------------


_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")


def _are_versions(names: Any) -> bool:
    """Tell whether these are applied versions in order, by nothing of lazymig's."""
    if not isinstance(names, list) or not all(isinstance(name, str) and _VERSION.fullmatch(name) for name in names):
        return False
    numbers = [tuple(map(int, name.split("."))) for name in names]
    return (0, 0, 0) not in numbers and all(one < other for one, other in pairwise(numbers))


def _is_info(value: Any) -> bool:
    if not isinstance(value, dict) or not {"version", "applied", "written_by", "migrated_at"} <= set(value):
        return False
    applied, floor, time = value["applied"], value.get("floor"), value["migrated_at"]
    if not _are_versions(applied) or value["version"] != (applied[-1] if applied else "0.0.0"):
        return False
    if floor is not None and floor not in applied[:1]:
        return False
    written_by = value["written_by"]
    return (_are_versions([written_by]) or written_by == "0.0.0") and (time is None or _is_time(time))


def _is_time(time: Any) -> bool:
    try:
        return datetime.fromisoformat(time).astimezone(UTC).year > 0 and datetime.fromisoformat(time).tzinfo is not None
    except (TypeError, ValueError, OverflowError):
        return False


def _is_set(text: Any) -> bool:
    try:
        names = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, AttributeError, RecursionError):
        return False
    if isinstance(names, list) and names and isinstance(names[0], str):
        names = [names[0].removeprefix("<="), *names[1:]]
    return _are_versions(names)


def check_info(value: Any) -> None:
    """A stamp as JSON gives the info that it says; or CorruptStateError."""
    try:
        info = MigrationInfo.from_json(value)
    except CorruptStateError as error:
        assert "its migration-info " in str(error), error
        assert not _is_info(value), error
        return
    assert _is_info(value)
    shown = info.to_json()
    assert {name: shown[name] for name in ("version", "applied", "written_by")} == {
        name: value[name] for name in ("version", "applied", "written_by")
    }
    assert shown["floor"] == value.get("floor")
    numbers = [[int(part) for part in text.split(".")] for text in value["applied"]]
    assert numbers == sorted(numbers), "out of order"
    assert [0, 0, 0] not in numbers, "0.0.0 counts as applied"
    time = value["migrated_at"]
    assert (time is None) == (info.migrated_at is None)
    if info.migrated_at is not None:
        assert info.migrated_at == datetime.fromisoformat(time)
    assert MigrationInfo.from_json(shown) == info
    assert Stamp.of(info).info == info


def check_set(text: bytes | str | float | None) -> None:
    """An applied set as SQL stores keep it gives the versions that the text says; or CorruptStateError."""
    try:
        applied = _rows.read_set(KEY, text)
    except CorruptStateError as error:
        assert error.key == KEY, error
        assert "its migration-info is unreadable (" in str(error), error
        assert not _is_set(text), error
        return
    assert isinstance(text, (bytes, str))
    assert _is_set(text)
    names = [str(unpack(number)) for number in applied.packed]
    assert json.loads(text) == [*([f"<={unpack(applied.floor)}"] if applied.floor else []), *names]


# --- lines -----------------------------------------------------------------------------------------------------------


def check_line(line: bytes) -> None:
    """A line is imported as it says, passed over if it is blank, or rejected by its number; the others always are."""
    run_now(_check_line(line))


async def _check_line(line: bytes) -> None:
    store = MemoryStore()
    lines = [b'{"id":"first"}', line, b'{"id":"last"}']
    report = await import_json_lines(store, "Box", lines, id_field="id")
    found = {record.key.id: record.states["state"] async for record in export_states(store, "Box")}
    assert found.pop("first") == {"id": "first"}
    assert found.pop("last")["id"] == "last"
    right = expected(line.rstrip())
    if report.rejected:
        assert (report.imported, [rejection.position for rejection in report.rejections]) == (2, [2])
        assert report.rejections[0].reason
        assert not found
        assert not _is_row(right), f"rejected, but it is {right!r}: {report.rejections[0].reason}"
    elif report.skipped:
        assert right["id"] in {"first", "last"}
    elif report.imported == 2:
        assert not line.rstrip()
    else:
        assert _is_row(right), f"{right!r} was imported"
        assert same(found, {str(right["id"]): right})


def _is_row(value: Any) -> bool:
    """Tell whether a value is an object with an id that a store takes."""
    actor_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(actor_id, int) and not isinstance(actor_id, bool):
        return True
    return isinstance(actor_id, str) and 0 < len(actor_id.encode()) <= 1_000 and "\0" not in actor_id


def check_kept(value: Any) -> None:
    """Any Python value is stored and comes back the same, or is refused by name of its place."""
    try:
        data = codec.encode(value, "it")
    except InvalidValueError as error:
        assert error.path.startswith("$"), error
        return
    assert codec.decode(data) == value


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, as with the memory store, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("it waits")
