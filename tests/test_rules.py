"""Each check of tests/rules.py fails on what breaks its rule: a check that can't fail is none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests import rules
from tests.fault_scenarios import Scenario, by_calls
from tests.journal import Asked, Entry, Lock
from tests.rules import Evidence
from tests.scenarios import LEGACY, NEWEST
from tests.test_faults import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.beside import Row

KEY = ("Account1", "a")


@pytest.fixture
async def evidence(tmp_path: Path) -> Evidence:
    """Return what a sound run of a scenario leaves."""
    async with opened("memory", tmp_path) as bench:
        w = bench.world()
        scenario = Scenario(by_calls, ())
        await scenario.prepare(w)
        before = w.read()
        await scenario.run(w)
        found = Evidence(before, w.read(), w.journal, 0, "here")
    rules.check(found)
    return found


def alter(evidence: Evidence, **changes: Any) -> None:
    evidence.after[KEY] = replace(evidence.after[KEY], **changes)


def alter_state(evidence: Evidence, name: str, **changes: Any) -> None:
    row = evidence.after[KEY]
    values = row.values
    assert values is not None
    alter(evidence, data={**row.data, name: json.dumps(values[name] | changes).encode()})


def unreadable(evidence: Evidence) -> Row:
    return replace(evidence.before[KEY], data={"main": b"{"})


def seat(evidence: Evidence) -> int:
    return next(entry.seat for entry in evidence.journal.entries if entry.what == "raised")


def deactivated(e: Evidence) -> None:
    e.journal.entries.insert(0, Entry("made", 99, KEY))
    e.journal.note("deactivate", 99, KEY)


def other_states(e: Evidence) -> None:
    """Change what no turn speaks of."""
    e.journal.turns.clear()


def later_log(e: Evidence) -> None:
    alter_state(e, "main", log=[*(turn.text for turn in e.journal.turns), "99:add:2.0.0"])


def asked(e: Evidence, end: Any, times: int) -> None:
    """Let a call end, and its action begin that often."""
    e.journal.asked.append(Asked("x", end))
    e.journal.begun["x"] = times


BREAKS: list[tuple[int, str, Callable[[Evidence], Any]]] = [
    (1, "deactivate after a failure", deactivated),
    (1, "a change that nobody made", other_states),
    (1, "an actor that is gone", lambda e: e.after.clear()),
    (2, "newer state in old hands", lambda e: e.journal.releases.update({NEWEST: ("1.0.0",)})),
    (3, "a commit of nobody", later_log),
    (3, "an acknowledged commit that is lost", lambda e: alter_state(e, "main", log=[e.journal.turns[0].text])),
    (3, "a lost commit that is stored", lambda e: setattr(e.journal.turns[-1], "outcome", "lost")),
    (3, "more unknown outcomes than faults", lambda e: setattr(e.journal.turns[-1], "outcome", "unknown")),
    (3, "a revision too many", lambda e: alter(e, revision=e.after[KEY].revision + 1)),
    (4, "states of two commits", lambda e: alter_state(e, "notes", turn=e.journal.turns[0].text)),
    (4, "a state without the mark", lambda e: alter_state(e, "notes", marks=["1.0.0"])),
    (4, "a missing state", lambda e: alter(e, data={"main": e.after[KEY].data["main"]})),
    (4, "a stamp ahead of the states", lambda e: alter_state(e, "main", marks=["1.0.0"])),
    (5, "a migration applied twice", lambda e: alter_state(e, "main", n=200_000)),
    (5, "a mark without a run", lambda e: e.journal.runs.clear()),
    (5, "a migration told of twice", lambda e: e.journal.told.extend(e.journal.told)),
    (5, "another key", lambda e: e.journal.runs.append((("Account1", "z"), "1.0.0"))),
    (6, "another writer", lambda e: alter(e, written_by=("1.0.0",))),
    (6, "a version column of its own", lambda e: alter(e, version=1)),
    (6, "a stamp that moved back", lambda e: e.before.update({KEY: replace(e.before[KEY], applied=("1.0.1",))})),
    (7, "a default over unreadable state", lambda e: e.before.update({KEY: unreadable(e)})),
    (7, "a state torn by a commit", lambda e: alter(e, data={"main": b"{"})),
    (8, "two at once", lambda e: e.journal.entries.insert(len(e.journal.entries) - 2, Entry("begin", 99, KEY))),
    (9, "an object that goes on after a failure", lambda e: e.journal.note("deactivate", seat(e), KEY)),
    (9, "what failed is stored", lambda e: alter_state(e, "main", n=-1)),
    (9, "what failed is seen", lambda e: e.journal.saw(KEY, NEWEST, LEGACY | {"n": -1})),
    (9, "another lock", lambda e: e.journal.locks.append(Lock(KEY, "else", 7, 0))),
    (10, "a call answered that did not run", lambda e: asked(e, "answered", 0)),
    (10, "a call refused that ran", lambda e: asked(e, "refused", 1)),
    (10, "a call that ran twice", lambda e: asked(e, "unknown", 2)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "broken"), [pytest.param(n, f, id=f"rule{n}-{name.replace(' ', '-')}") for n, name, f in BREAKS]
)
def test_a_broken_rule_is_found(number: int, broken: Callable[[Evidence], Any], evidence: Evidence) -> None:
    broken(evidence)
    with pytest.raises(AssertionError, match=rf"^rule {number}: .*\[here\]"):
        rules.RULES[number](evidence)


def test_every_rule_has_a_case() -> None:
    assert {number for number, _, _ in BREAKS} == set(rules.RULES)
