"""When a recorded failure holds an activation up, and for how long: as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazymig import Suite
from lazymig._quarantine import FIRST_SECONDS, LONGEST_SECONDS, MAX_TEXT, Failure, back_off, failed, holds_up
from lazymig._records import AppliedSet
from lazymig._version import pack, parse

AT = datetime(2026, 5, 4, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NOTHING = AppliedSet()


def packed(version: str) -> int:
    return pack(parse(version))


def one(state: Any, context: Any) -> None:
    state["one"] = 1


def two(state: Any, context: Any) -> None:
    state["two"] = 2


def two_otherwise(state: Any, context: Any) -> None:
    state["two"] = 3


def suite(**functions: Any) -> Any:
    made = Suite("cars").actor_type("Car")
    for version, function in functions.items():
        made.migration(f"{version[1]}.0.0")(function)
    return made


def chain(**functions: Any) -> Any:
    return suite(**functions).chain


def recorded(of: Any, version: str, applied: AppliedSet = NOTHING) -> Failure:
    checksum = of.checksum_of(packed(version), applied)
    return failed(None, packed(version), "two", "ValueError", at=AT, node="n", checksum=checksum)


@pytest.mark.parametrize(
    ("registered", "runs", "now", "held"),
    [
        ({"v1": one, "v2": two}, True, AT, True),
        ({"v1": one, "v2": two}, True, AT + SECOND - timedelta.resolution, True),
        ({"v1": one, "v2": two}, True, AT + SECOND, False),
        ({"v1": one, "v2": two}, True, AT + 9 * SECOND, False),
        ({"v1": one, "v2": two}, False, AT, False),
        ({"v1": one, "v2": two_otherwise}, True, AT, False),
        ({"v1": two, "v2": two}, True, AT, False),
        ({"v2": two}, True, AT, False),
        ({"v1": one}, True, AT, False),
        ({}, True, AT, False),
        ({"v1": one, "v2": two, "v3": one}, True, AT, True),
        ({"v1": one, "v2": two, "v3": two_otherwise}, True, AT - 9 * SECOND, True),
    ],
)
def test_what_holds_an_activation_up(registered: dict[str, Any], runs: bool, now: datetime, held: bool) -> None:  # noqa: FBT001  (a row)
    failure = recorded(chain(v1=one, v2=two), "2.0.0")
    assert holds_up(failure, chain(**registered), NOTHING, runs=runs, now=now) is held


def test_what_was_applied_before_counts_for_nothing() -> None:
    applied = AppliedSet([packed("1.0.0")])
    failure = recorded(chain(v1=one, v2=two), "2.0.0", applied)
    for other in (chain(v1=two_otherwise, v2=two), chain(v2=two)):
        assert holds_up(failure, other, applied, runs=True, now=AT)


@pytest.mark.parametrize("what", ["down", "reconcile", "entries", "entries down", "eager", "concurrency", "table"])
def test_all_that_a_migration_runs_counts_as_its_code(what: str) -> None:
    def with_all(**changed: Any) -> Any:
        made = suite(v2=two)
        step = made.migrations[0]
        step.down(changed.get("down", two))
        step.reconcile(changed.get("reconcile", two))
        eager, concurrency = changed.get("eager", False), changed.get("concurrency", 1)
        register = step.entries(changed.get("table", "log"), eager=eager, concurrency=concurrency)
        register(changed.get("entries", two)).down(changed.get("entries down", two))
        return made.chain

    others = {"eager": True, "concurrency": 2, "table": "other"}
    failure = recorded(with_all(), "2.0.0")
    assert holds_up(failure, with_all(), NOTHING, runs=True, now=AT)
    assert not holds_up(failure, with_all(**{what: others.get(what, two_otherwise)}), NOTHING, runs=True, now=AT)


def test_code_without_source_never_counts_as_changed() -> None:
    functions = [eval(f"lambda state, context: {number}") for number in range(2)]
    failure = recorded(chain(v2=functions[0]), "2.0.0")
    assert holds_up(failure, chain(v2=functions[1]), NOTHING, runs=True, now=AT)
    assert not holds_up(failure, chain(v3=functions[1]), NOTHING, runs=True, now=AT)


@given(st.integers(1, 10**9))
def test_the_back_off_never_shrinks_and_never_passes_its_bound(attempts: int) -> None:
    found, after = back_off(attempts), back_off(attempts + 1)
    assert FIRST_SECONDS <= found / SECOND <= LONGEST_SECONDS
    assert after in {min(2 * found, LONGEST_SECONDS * SECOND), found}


def test_attempts_count_the_same_migration_with_the_same_code() -> None:
    first = failed(None, 7, "f", "e", at=AT, node="n", checksum=5)
    again = failed(first, 7, "f", "e", at=AT, node="m", checksum=5)
    assert (first.attempts, again.attempts, again.node, again.retry_at) == (1, 2, "m", AT + 2 * SECOND)
    assert failed(again, 7, "f", "e", at=AT, node="n", checksum=6).attempts == 1
    assert failed(again, 8, "f", "e", at=AT, node="n", checksum=5).attempts == 1


def test_texts_are_bounded_and_of_characters_that_can_be_stored() -> None:
    found = failed(None, 7, "n" * 9_999, "\udcff\0" + "e" * 9_999, at=AT, node="n", checksum=5)
    assert (len(found.name), len(found.error)) == (MAX_TEXT, MAX_TEXT)
    assert found.error.startswith("?\0e")
