"""What a dry run of a sweep tells: differences of what was brought up and down again, and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, rollout
from lazymig.rollout._preflight import rehearse
from lazymig.rollout._preflight_differences import first_difference
from lazymig.rollout._preflight_report import Growth
from lazymig.rollout._preflight_times import Times, bucket_of
from lazymig.rollout._sweep_pace import Pace
from tests.preflights import (
    CAR,
    FAST,
    found,
    give_owner,
    key,
    put,
    suite_of,
    take_owner,
)

if TYPE_CHECKING:
    from lazymig.activation import Activation
    from lazymig.store import Store


# --- down after up -------------------------------------------------------------------------------------------------


async def test_what_has_no_way_down_is_counted_and_said(store: Store) -> None:
    await put(store, a="{}", b="{}")
    report = await rollout.sweep(store, suite_of(give_owner), CAR, **FAST)
    assert (found(report).compared, found(report).uncompared, report.is_complete) == (0, 2, True)
    assert any("Whether 2 actors could be brought down again" in text for text in found(report).unproven)


async def test_a_way_down_that_raises_is_a_difference_and_no_failure(store: Store) -> None:
    def down(state: dict[str, Any], context: object) -> None:
        raise KeyError("gone")

    await put(store, a="{}")
    report = await rollout.sweep(store, suite_of(give_owner, down=down), CAR, **FAST)
    (difference,) = found(report).differences
    assert (report.migrated, report.failed, difference.key, difference.state) == (1, (), key("a"), "state")
    assert difference.error is not None
    assert "down of give_owner" in difference.error


async def test_states_that_appear_or_go_are_differences_and_values_are_not_told(store: Store) -> None:
    async def split(state: dict[str, Any], activation: Activation) -> None:
        await activation.state("secret").migrate_and_load({"password": state.pop("password")})

    def down(state: dict[str, Any], context: object) -> None:
        state["password"] = "other"

    suite = suite_of(split, down=down, context_factory=lambda activation: activation)
    await put(store, a='{"password":"hunter2"}')
    report = await rollout.sweep(store, suite, CAR, **FAST)
    assert [(one.state, one.path) for one in found(report).differences] == [("secret", "$"), ("state", "$.password")]
    assert "hunter2" not in repr(report)
    assert "hunter2" not in repr(report.to_json())


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        (b'{"a":1,"b":2}', b'{"b":2.0,"a":1}', None),
        (b'{"a":true}', b'{"a":1}', "$.a"),
        (b'{"a":[1,{"b":null}]}', b'{"a":[1,{}]}', "$.a[1].b"),
        (b'{"a":[1]}', b'{"a":[1,2],"c":3}', "$.a[1]"),
        (b'{"a":"x"}', b'{"a":"y","b":1}', "$.a"),
        (b"1", None, "$"),
        (None, b"1", "$"),
        (b"[" * 200 + b"1" + b"]" * 200, b"[" * 200 + b"2" + b"]" * 200, "$" + "[0]" * 200),
    ],
)
def test_the_first_place_that_differs_is_named(before: bytes | None, after: bytes | None, path: str | None) -> None:
    assert first_difference(before, after) == path


# --- figures -------------------------------------------------------------------------------------------------------


async def test_percentiles_tell_how_long_migrations_took(store: Store) -> None:
    seconds = {f"c{number:03}": 0.001 * number for number in range(1, 101)}
    now = 0.0

    def slow(state: dict[str, Any], activation: Activation) -> None:
        nonlocal now
        now += seconds[activation.key.id]

    suite = suite_of(slow, context_factory=lambda activation: activation)
    await put(store, **dict.fromkeys(seconds, "{}"))
    pace = Pace(None, None, clock=lambda: now)
    report = await rehearse(store, suite.actor_types[CAR], pace, limit=None, max_failures=9, stop=None, progress=None)
    times = found(report).times
    assert (times.p50, times.p95, times.p99) == pytest.approx((0.05, 0.095, 0.099), rel=0.011)
    assert times.longest == pytest.approx(0.1)
    assert report.seconds == pytest.approx(sum(seconds.values()))
    assert found(report).to_json()["seconds"]["max"] == pytest.approx(0.1)


def test_times_are_added_and_without_any_they_are_zero() -> None:
    assert (Times().p50, Times().p99, Times().longest) == (0.0, 0.0, 0.0)
    first, second = (Times({bucket_of(seconds): 1}, seconds) for seconds in (0.0, 86_400.0))
    both = first + second
    assert (both.p50, both.p99) == pytest.approx((1e-7, 86_400), rel=0.02)
    assert both.percentile(1.0) <= both.longest == 86_400


async def test_growth_is_told_in_total_and_of_the_actor_that_grew_most(store: Store) -> None:
    def grow(state: dict[str, Any], context: object) -> None:
        state["x"] = "x" * state["n"]

    await put(store, a='{"n":1}', b='{"n":50}', c='{"n":2}')
    preflight = found(await rollout.sweep(store, suite_of(grow), CAR, **FAST))
    before, more = len('{"n":50}'), len(',"x":""') + 50
    assert preflight.largest == Growth(key("b"), before, before + more)
    assert preflight.bytes_before == before + 2 * len('{"n":1}')
    assert preflight.bytes_after - preflight.bytes_before == 3 * len(',"x":""') + 53


async def test_what_is_kept_from_before_a_major_version_counts(store: Store) -> None:
    await put(store, a='{"n":1}')
    suite = suite_of(give_owner, take_owner, keep_previous=True)
    for size in (1, 2):  # what was kept before is replaced
        report = await rollout.sweep(store, suite, CAR, **FAST)
        assert found(report).bytes_before == size * len('{"n":1}')
        assert found(report).bytes_after == 2 * len('{"n":1}')
        await rollout.sweep(store, suite, CAR)
        suite = suite_of(give_owner, take_owner, take_owner, keep_previous=True)


async def test_actors_that_a_node_holds_are_tried_and_that_is_said(store: Store) -> None:
    await put(store, a="{}")
    async with Node(store, [suite_of()]) as node, node.activate(CAR, "a"):
        report = await rollout.sweep(store, suite_of(give_owner), CAR, **FAST)
    assert (report.migrated, report.busy, found(report).held) == (1, 0, 1)
    assert any("1 actor that a node holds now" in text for text in found(report).unproven)


async def test_reports_of_types_are_added_and_what_is_not_proved_comes_first(store: Store) -> None:
    suite = suite_of(give_owner)
    suite.actor_type("Bus").migration("1.0.0")(give_owner)
    await put(store, a="{}")
    await store.insert("Bus", "state", [("b", b'{"n":1}')])
    car, bus = [await rollout.sweep(store, suite, name, **FAST) for name in (CAR, "Bus")]
    both = found(car + bus)
    assert (both.tried, both.uncompared, both.largest) == (2, 2, found(bus).largest)
    document = (car + bus).to_json()["preflight"]
    assert next(iter(document)) == "unproven"
    assert document["tried"] == 2
    assert sum("could be brought down again" in text for text in document["unproven"]) == 1
