"""Everything that reads stored bytes, stamps and lines, on whatever Hypothesis can think of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazymig.cli import main
from tests import decoders
from tests.damage import PLACES, Damage, DamagedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**25]),
    st.floats(),
    st.text(max_size=8),
)
names = st.one_of(
    st.sampled_from(["a", "b", "id", "owner", "gears", "wheels", "since", "labels", "size"]), st.text(max_size=4)
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)


pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines


def spell(pairs: list[tuple[str, Any]]) -> str:
    """Write an object whose keys may be there twice."""
    return "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"


objects = st.lists(st.tuples(names, leaves), max_size=5).map(spell)
written = st.builds(
    lambda value, ascii_only, gaps: json.dumps(value, ensure_ascii=ascii_only, separators=gaps),
    values,
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]),
)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged_json(draw: st.DrawFn) -> bytes:
    """Valid JSON with a few places cut out, or with tokens put in."""
    data = draw(st.one_of(written, objects).map(encoded))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 4)))
        data = data[:start] + draw(st.one_of(st.just(b""), st.sampled_from(decoders.TOKENS))) + data[end:]
    return data


@st.composite
def deep_json(draw: st.DrawFn) -> bytes:
    """JSON at depths around every limit there is."""
    depth = draw(st.one_of(st.integers(247, 257), st.integers(990, 1_030)))
    opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]")]))
    return opening * depth + draw(st.sampled_from([b"1", b"[]", b"9" * 20, b"1.5", b'{"a":1,"a":2}'])) + closing * depth


state_bytes = st.one_of(
    st.binary(max_size=48),
    written.map(encoded),
    objects.map(encoded),
    numbers.map(str.encode),
    damaged_json(),
    deep_json(),
)
rows = st.dictionaries(st.just("id"), leaves, min_size=1).flatmap(
    lambda row: st.dictionaries(names, leaves, max_size=3).map(lambda more: encoded(json.dumps(more | row)))
)
bikes = st.fixed_dictionaries(
    {"owner": st.one_of(st.text(max_size=5), leaves)},
    optional={
        "gears": leaves,
        "wheels": st.lists(st.one_of(leaves, st.fixed_dictionaries({"size": leaves, "more": leaves})), max_size=3),
        "since": st.one_of(
            leaves, st.datetimes().map(str), st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00"])
        ),
        "labels": st.dictionaries(names, leaves, max_size=2),
        "newer": values,
    },
).map(lambda value: encoded(json.dumps(value)))

version_texts = st.one_of(
    st.from_regex(r"(<=)?[0-2]\.[0-2]\.[0-2]", fullmatch=True),
    st.sampled_from(
        ["1.0", "v1.0.0", "01.0.0", "1.0.0-rc.1", "1000000.0.0", "0.0.0", "9" * 5_000 + ".0.0", "1.0.0\n", ""]
    ),
    st.text(max_size=5),
)
times = st.one_of(
    st.none(),
    st.datetimes().map(str),
    st.datetimes().map(lambda time: f"{time.isoformat()}+14:00"),
    st.sampled_from(["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2026-01-01", "2026-W01-1T00:00:00Z"]),
    leaves,
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


junk_leaves = st.one_of(leaves, version_texts, st.sampled_from([nested(1_500), {"a": 1}, []]))
sorted_versions = st.lists(st.from_regex(r"[0-2]\.[0-2]\.[1-2]", fullmatch=True), unique=True, max_size=3).map(sorted)
infos = st.one_of(
    values,
    st.builds(
        lambda applied, writer, time, has_floor: {
            "version": applied[-1] if applied else "0.0.0",
            "applied": applied,
            "written_by": writer,
            "migrated_at": time,
            "floor": applied[0] if applied and has_floor else None,
        },
        sorted_versions,
        st.one_of(st.just("1.0.0"), junk_leaves),
        times,
        st.booleans(),
    ).flatmap(
        lambda info: st.dictionaries(st.sampled_from(sorted(info)), junk_leaves, max_size=1).map(
            lambda junk: info | junk
        )
    ),
)
set_texts = st.one_of(
    st.lists(version_texts, max_size=4).map(json.dumps),
    st.lists(version_texts, max_size=4).map(sorted).map(json.dumps),
    st.sampled_from(['["1.0.0",' + "[" * 1_000 + "]" * 1_000 + "]", "[" * 2_000, '["\udcff"]']),
    values.map(json.dumps),
    state_bytes,
    st.none(),
    st.integers(),
    st.floats(),
)

ints = st.one_of(st.integers(-3, 5), st.integers(-(2**63), 2**63 - 1))
texts = st.one_of(
    state_bytes,
    version_texts.map(encoded),
    st.lists(version_texts, max_size=3).map(json.dumps).map(encoded),
    st.sampled_from([b"", b"a", b"Box", b"state", b"\xff", b"a\0b", b"x" * 1_001, b"1", b"1.5"]),
)
damages = st.builds(
    lambda place, value: Damage(*place, *value),
    st.sampled_from(PLACES),
    st.one_of(
        st.tuples(st.one_of(st.none(), ints, st.floats())),
        st.tuples(texts, st.booleans()),
    ),
)

CHECKS: dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any], int]] = {
    "state": (decoders.check_state, state_bytes, 300),
    "typed": (decoders.check_typed, st.one_of(bikes, state_bytes), 250),
    "info": (decoders.check_info, infos, 150),
    "set": (decoders.check_set, set_texts, 200),
    "line": (decoders.check_line, st.one_of(rows, state_bytes), 200),
    "kept": (decoders.check_kept, values, 100),
}
"""Reader: its promise, what it is given, and how many examples take about a second."""

INFO = {"version": "2.0.0", "applied": ["1.0.0", "2.0.0"], "written_by": "2.0.0", "migrated_at": None, "floor": "1.0.0"}

CASES: dict[str, list[Any]] = {
    "state": [b'{"a":1,"a":1}', b"18446744073709551616", b" [1.5, -0.0]", b"[" * 1_000 + b"9" * 20 + b"]" * 1_000],
    "info": [
        INFO,
        INFO | {"floor": None},
        INFO | {"applied": ["1.0.0", "0.5.0", "2.0.0"]},
        INFO | {"applied": ["1.0.0", "1.0.0", "2.0.0"]},
        INFO | {"applied": ["0.0.0", "2.0.0"], "floor": None},
        INFO | {"floor": "2.0.0"},
        INFO | {"version": "1.0.0"},
        INFO | {"version": nested(1_500)},
        INFO | {"migrated_at": "0001-01-01T00:00:00+05:00"},
        INFO | {"migrated_at": "9999-12-31T23:59:59-05:00"},
        INFO | {"migrated_at": "2026-01-01T00:00:00"},
    ],
    "set": [
        '["<=1.0.0","2.0.0"]',
        '["<=0.0.0"]',
        '["2.0.0","1.0.0"]',
        "[1]",
        "[]",
        f'["1.0.0",{"[" * 999}{"]" * 999}]',
    ],
    "line": [b'{"id":true}', b'{"id":-7}', b'{"id":""}', b'{"id":"a","id":"b"}', b"  ", b'{"id":"first"}', b"[]"],
}
"""What a reader is given each time, as it is seldom drawn."""

UNHURRIED = settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


def run(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int) -> None:
    settings(UNHURRIED, max_examples=examples)(given(strategy)(check))()


@pytest.mark.parametrize("reader", CHECKS)
def test_a_reader_gives_the_value_that_is_stored_or_its_error(reader: str) -> None:
    check, strategy, examples = CHECKS[reader]
    for case in CASES.get(reader, []):
        check(case)
    run(check, strategy, examples)


@pytest.mark.stress
@pytest.mark.parametrize("reader", CHECKS)
def test_a_reader_gives_the_value_that_is_stored_or_its_error_many_times(reader: str) -> None:
    check, strategy, examples = CHECKS[reader]
    run(check, strategy, 50 * examples)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DamagedStore]:
    store = DamagedStore(tmp_path_factory.mktemp("damaged"))
    yield store
    store.close()


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_column_with_a_value_of_any_type_is_read_as_it_is_or_told_as_corrupt(
    damaged: DamagedStore, place: tuple[str, str]
) -> None:
    for value in (None, -1, 0, 99, 1.5, 1e300, b"", b"{}", b"Box", b"a", b"\xff"):
        damaged.check(Damage(*place, value))
        if isinstance(value, bytes):
            damaged.check(Damage(*place, value, as_text=True))


def test_whatever_a_column_holds_is_read_as_it_is_or_told_as_corrupt(damaged: DamagedStore) -> None:
    run(damaged.check, damages, 50)


@pytest.mark.stress
@pytest.mark.timeout(1_800)
def test_whatever_a_column_holds_is_read_as_it_is_or_told_as_corrupt_many_times(damaged: DamagedStore) -> None:
    run(damaged.check, damages, 3_000)


def check_command(damaged: DamagedStore, damage: Damage) -> None:
    """``lazymig inspect --json`` gives one document: the actor, or why not."""

    def look() -> None:
        result = CliRunner().invoke(main, ["inspect", "Box", "b", "--json", "--store", damaged.url()])
        document = json.loads(result.stdout)
        if result.exit_code == 0:
            assert (document["type"], document["id"]) == ("Box", "b")
            return
        assert result.exit_code == 1, result.output
        assert document["error"]["code"] in {"corrupt_state", "unknown_actor", "unknown_type"}, document
        assert "Traceback" not in result.stderr

    damaged.damaged(damage, look)


def test_the_command_line_gives_one_document_whatever_a_column_holds(damaged: DamagedStore) -> None:
    run(lambda damage: check_command(damaged, damage), damages, 10)


@pytest.mark.stress
@pytest.mark.timeout(1_800)
def test_the_command_line_gives_one_document_whatever_a_column_holds_many_times(damaged: DamagedStore) -> None:
    run(lambda damage: check_command(damaged, damage), damages, 1_000)


@pytest.mark.stress
@pytest.mark.parametrize("reader", ["state", "typed", "info", "set", "line", "row"])
def test_atheris_finds_nothing_in_some_seconds(reader: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install 'lazymig[fuzz]'")
    command = [sys.executable, "-m", "tests.fuzz", reader, "-max_total_time=10"]
    root = str(Path(__file__).parents[1])
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4_000:]
    assert " runs in " in result.stderr
