"""Every store call fails, is cut off or comes late while calls travel: they run at most once, and errors are true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import pytest

from lazymig import _courier
from lazymig.post import Post
from lazymig.testing import Fault
from tests.call_scenarios import CALL_SCENARIOS
from tests.test_faults import KINDS, each, opened, operations

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fault_scenarios import Scenario

pytestmark = pytest.mark.no_cover  # as those of test_faults

CallHow = Literal["error", "interrupt"]
"""Nobody cancels the tasks that look for mail and serve calls; callers are cancelled ("interrupt")."""

BY_THE_CLOCK = {"peek", "watch", "tidy"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a store again at once."""
    monkeypatch.setattr(_courier, "RETRY_SECONDS", 0.001)


@pytest.mark.parametrize("kind", [*KINDS[:-1], pytest.param(KINDS[-1], marks=pytest.mark.stress)])
@pytest.mark.parametrize("how", get_args(CallHow))
@pytest.mark.parametrize("scenario", CALL_SCENARIOS, ids=lambda scenario: scenario.id)
async def test_whatever_call_fails_calls_run_at_most_once(
    kind: str, how: CallHow, scenario: Scenario, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as bench:
        calls, _ = await bench.attempt(scenario, None)
        for fault in each(kind, calls, how):
            await bench.attempt(scenario, fault)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", CALL_SCENARIOS, ids=lambda scenario: scenario.id)
async def test_whatever_call_comes_late_calls_run_at_most_once(kind: str, scenario: Scenario, tmp_path: Path) -> None:
    """Its connection is lost; it takes effect after that was told."""
    async with opened(kind, tmp_path) as bench:
        calls, _ = await bench.attempt(scenario, None)
        for number in (number for number, name in enumerate(calls) if name in operations(Post)):
            await bench.attempt(scenario, Fault(number, "later", "error"))


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_two_calls_in_a_row_fail_calls_run_at_most_once(kind: str, tmp_path: Path) -> None:
    """The asking for what was taken by a take that failed fails as well, and so does the cancelling of a call."""
    scenario = CALL_SCENARIOS[0]
    async with opened(kind, tmp_path) as bench:
        calls, _ = await bench.attempt(scenario, None)
        for fault in each(kind, calls, "error", times=2):
            await bench.attempt(scenario, fault)


@pytest.mark.parametrize("scenario", CALL_SCENARIOS, ids=lambda scenario: scenario.id)
async def test_a_scenario_of_calls_puts_its_rules_to_the_test(scenario: Scenario, tmp_path: Path) -> None:
    async with opened("memory", tmp_path) as bench:
        _, facts = await bench.attempt(scenario, None)
    assert all(facts[number] for number in scenario.rules), facts


async def test_the_scenarios_strike_every_operation_of_a_post(tmp_path: Path) -> None:
    struck: set[str] = set()
    async with opened("memory", tmp_path) as bench:
        for scenario in CALL_SCENARIOS:
            calls, _ = await bench.attempt(scenario, None)
            struck |= set(calls)
        take = (await bench.attempt(CALL_SCENARIOS[0], None))[0].index("take")
        struck |= set((await bench.attempt(CALL_SCENARIOS[0], Fault(take, "after", "error")))[0])
    assert struck >= operations(Post) - BY_THE_CLOCK
