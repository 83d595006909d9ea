"""The nine rules of the API, and a tenth of what it promises of calls: each a check over what is stored and noted.

What is stored is read beside the library, see `tests.beside`. Each check returns how many facts it compared, so that a
scenario can tell whether it put the rule to the test.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lazymig.errors import NewerStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.beside import Reading, Row
    from tests.journal import Entry, Journal, Key, Turn

STEPS = {"1.0.0": 100, "1.0.1": 10_000, "1.1.0": 1_000, "2.0.0": 100_000}
"""How much each migration adds to ``n``, so that the number shows which ones ran, and how often."""

SPOILED = -1_000_000
"""What an action that fails leaves in memory."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is judged.

    Attributes:
        before: What was stored before the journal was begun, or at an earlier reading.
        after: What is stored now.
        journal: What user code noted up to now.
        strikes: How many faults struck.
        where: Names the case, for people.
    """

    before: Reading
    after: Reading
    journal: Journal
    strikes: int
    where: str

    def need(self, rule: int, holds: object, what: object) -> None:
        """Say which rule is broken, where."""
        assert holds, f"rule {rule}: {what} [{self.where}]"

    def readable(self) -> Iterator[tuple[Key, Row, dict[str, Any]]]:
        """Yield the actors whose states can be read."""
        for key, row in self.after.items():
            values = row.values
            if values is not None:
                yield key, row, values

    def turns(self, key: Key) -> list[Turn]:
        return [turn for turn in self.journal.turns if turn.key == key]


def rule_1(evidence: Evidence) -> int:
    """A refused or failed activation changes nothing, and no user code runs on an actor that did not activate."""
    facts = 0
    activated: set[int] = set()
    for entry in evidence.journal.entries:
        if entry.what == "activated":
            activated.add(entry.seat)
        facts += entry.what == "failed"
    blocks = {entry.seat for entry in evidence.journal.entries} - _objects(evidence)
    for entry in evidence.journal.entries:
        if entry.what in {"begin", "begin shared", "deactivate"} and entry.seat not in blocks:
            evidence.need(1, entry.seat in activated, f"{entry.what} on {entry.key}, which did not activate")
    for key, row in evidence.before.items():
        evidence.need(1, key in evidence.after, f"{key} is gone")
        if _may_have_changed(evidence, key):
            continue
        facts += 1
        evidence.need(1, evidence.after[key].kept == row.kept, f"{key} was {row}, is {evidence.after[key]}")
    return facts


def _objects(evidence: Evidence) -> set[int]:
    return {entry.seat for entry in evidence.journal.entries if entry.what == "made"}


def _may_have_changed(evidence: Evidence, key: Key) -> bool:
    """Tell whether somebody was told that it stored something since the reading before, or was told nothing."""
    known = _log(evidence.before[key])
    return any(
        turn.outcome in {"acknowledged", "unknown", "open"} and turn.text not in known for turn in evidence.turns(key)
    )


def _log(row: Row) -> list[str]:
    values = row.values
    log: list[str] = [] if values is None else values.get("main", {}).get("log", [])
    return log


def rule_2(evidence: Evidence) -> int:
    """State newer by a major version never reaches user code."""
    facts = 0
    for sighting in evidence.journal.sightings:
        supported = evidence.journal.releases[sighting.build][-1]
        newest = max((_major(mark) for mark in sighting.marks), default=0)
        evidence.need(2, newest <= _major(supported), f"software {sighting.build} was handed {sighting}")
        facts += newest > 0
    return facts + sum(isinstance(error, NewerStateError) for error in evidence.journal.errors)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def rule_3(evidence: Evidence) -> int:
    """Every change is one commit that was acknowledged, or whose outcome is unknown; a lost one wrote nothing."""
    facts = 0
    for key, row, values in evidence.readable():
        log = values["main"]["log"]
        turns = {turn.text: turn for turn in evidence.turns(key)}
        evidence.need(3, set(log) <= set(turns), f"{key} has what nobody stored: {log}")
        evidence.need(3, len(set(log)) == len(log), f"{key} has a commit twice: {log}")
        evidence.need(3, log == [text for text in turns if text in log], f"{key} has its commits out of order: {log}")
        unknown = 0
        for turn in turns.values():
            if turn.kind == "clear":
                continue
            if turn.outcome == "acknowledged":
                evidence.need(3, turn.text in log, f"{turn} was acknowledged, {key} has {log}")
            elif turn.text in log:
                evidence.need(3, turn.outcome in {"unknown", "open"}, f"{turn} was not to be stored, {key} has {log}")
                unknown += 1
            facts += 1
        evidence.need(
            3,
            unknown <= evidence.strikes + evidence.journal.cuts,
            f"{key} has {unknown} commits nobody was told of: {log}",
        )
        least, most = _hidden(turns.values())
        commits = row.revision - len(log) - (key in evidence.journal.imported)
        facts += 1
        evidence.need(3, least <= commits <= most, f"{key} has revision {row.revision} and the commits {log}")
    return facts


def _hidden(turns: Any) -> tuple[int, int]:
    """Return how many commits there must and may be that the log doesn't show."""
    clears = [turn.outcome for turn in turns if turn.kind == "clear"]
    known = clears.count("acknowledged")
    return known, known + clears.count("unknown")


def rule_4(evidence: Evidence) -> int:
    """States and stamp of one commit are there together or not at all: each carries its marks and its turn."""
    facts = 0
    for key, row, values in evidence.readable():
        main, notes = values["main"], values.get("notes")
        evidence.need(4, sorted(row.applied or ()) == sorted(main["marks"]), f"{key}: stamp {row.applied}, {main}")
        facts += bool(main["marks"])
        cleared = [turn for turn in evidence.turns(key) if turn.kind == "clear" and turn.outcome != "lost"]
        if notes is None:
            missed = "1.1.0" in main["marks"] and not cleared
            evidence.need(4, not missed, f"{key} has no notes beside {main}")
            continue
        evidence.need(4, notes["marks"] == main["marks"], f"{key}: notes {notes} beside main {main}")
        evidence.need(4, notes["turn"] == main["log"][-1], f"{key}: notes {notes} beside main {main}")
    return facts


def rule_5(evidence: Evidence) -> int:
    """Each migration is applied exactly once to what is stored, and told of once at most, under the same key."""
    facts = 0
    ran = Counter(evidence.journal.runs)
    told = Counter(evidence.journal.told)
    for key, _row, values in evidence.readable():
        main = values["main"]
        marks = main["marks"]
        evidence.need(5, len(set(marks)) == len(marks), f"{key}: applied twice: {marks}")
        kinds = [text.split(":")[1] for text in main["log"]]
        expected = sum(STEPS[mark] for mark in marks) + sum(kind != "chain" for kind in kinds)
        evidence.need(5, main["n"] == expected, f"{key}: {main} has another n than {expected}")
        if key in evidence.journal.imported:
            evidence.need(5, all(ran[key, mark] for mark in marks), f"{key}: {marks} without a run: {ran}")
        for mark in STEPS:
            evidence.need(5, told[key, mark] <= (mark in marks), f"{key}: told of {mark} {told[key, mark]} times")
        facts += sum(ran[key, mark] > 0 for mark in marks)
    known = set(evidence.after) | set(evidence.before) | {turn.key for turn in evidence.journal.turns}
    evidence.need(5, {key for key, _ in ran} <= known, f"migrations were told another key: {ran}")
    return facts


def rule_6(evidence: Evidence) -> int:
    """The stamp says what happened, and never moves back."""
    facts = 0
    for key, row, values in evidence.readable():
        applied = row.applied or ()
        highest = max((_pack(version) for version in applied), default=None)
        evidence.need(6, row.version == highest, f"{key}: version {row.version} beside {applied}")
        writer = _writer(evidence.journal.releases, values["main"])
        evidence.need(6, row.written_by == writer, f"{key}: written by {row.written_by}, not {writer}")
        facts += bool(values["main"]["log"])
        before = evidence.before.get(key)
        if before is None:
            continue
        evidence.need(6, row.revision >= before.revision, f"{key}: revision {before.revision}, then {row.revision}")
        evidence.need(6, set(before.applied or ()) <= set(applied), f"{key}: {before.applied}, then {applied}")
        evidence.need(6, before.applied is None or row.applied is not None, f"{key}: its stamp is gone")
    return facts


def _pack(version: str) -> int:
    major, minor, patch = map(int, version.split("."))
    return major << 42 | minor << 21 | patch


def _writer(releases: Mapping[str, tuple[str, ...]], main: Any) -> tuple[str, ...] | None:
    """Return what the last writer registers: after load() alone the older of the two."""
    writer: tuple[str, ...] | None = None
    for text in main["log"]:
        _, kind, build = text.split(":")
        if kind != "load":
            writer = releases[build]
        elif writer is not None:
            writer = min(writer, releases[build], key=lambda release: _pack(release[-1]))
    return writer


def rule_7(evidence: Evidence) -> int:
    """Unreadable state is kept byte for byte."""
    facts = 0
    for key, row in evidence.before.items():
        if row.values is None:
            facts += 1
            evidence.need(7, evidence.after[key].kept == row.kept, f"{key} was {row}, is {evidence.after[key]}")
    for key, row in evidence.after.items():
        before = evidence.before.get(key)
        was_unreadable = before is not None and before.values is None
        evidence.need(7, row.values is not None or was_unreadable, f"{key} became unreadable: {row}")
    return facts


def rule_8(evidence: Evidence) -> int:
    """One node at most begins actions on an actor; what runs where the lock was lost may only end."""
    facts = 0
    running: dict[Key, dict[int, str]] = {}
    for entry in evidence.journal.entries:
        seats = running.setdefault(entry.key, {})
        if entry.what in {"begin", "begin shared", "activating", "deactivate"}:
            beside = {seat: what for seat, what in seats.items() if seat != entry.seat}
            together = entry.what == "begin shared" and set(beside.values()) <= {"begin shared"}
            evidence.need(8, together or not beside, f"{entry} while {beside} are under way")
            facts += 1
        _follow(seats, entry)
    return facts


def _follow(seats: dict[int, str], entry: Entry) -> None:
    if entry.what == "overtaken":
        seats.clear()
    elif entry.what in {"begin", "begin shared", "activating"}:
        seats[entry.seat] = entry.what
    elif entry.what in {"end", "raised", "activated", "failed"}:
        seats.pop(entry.seat, None)


def rule_9(evidence: Evidence) -> int:
    """An exclusive action that failed leaves no trace: another object goes on, under the same lock."""
    facts = 0
    spent: set[int] = set()
    exclusive: set[int] = set()
    objects = _objects(evidence)
    for entry in evidence.journal.entries:
        evidence.need(9, entry.seat not in spent, f"{entry} after an exclusive action failed")
        if entry.what in {"begin", "end", "raised"} and entry.seat in objects:
            if entry.what == "begin":
                exclusive.add(entry.seat)
            else:
                if entry.what == "raised" and entry.seat in exclusive:
                    spent.add(entry.seat)
                    facts += 1
                exclusive.discard(entry.seat)
    for _, _, values in evidence.readable():
        evidence.need(9, values["main"]["n"] >= 0, f"what failed was stored: {values}")
    for sighting in evidence.journal.sightings:
        evidence.need(9, sighting.number >= 0, f"what failed was seen: {sighting}")
    for first, second in pairwise(evidence.journal.locks):
        if first.strikes == second.strikes:
            facts += 1
            evidence.need(9, first == second, f"another lock: {first}, {second}")
    return facts


def rule_10(evidence: Evidence) -> int:
    """A call that was answered ran once, one that was refused never does, and none runs twice."""
    begun = evidence.journal.begun
    for asked in evidence.journal.asked:
        allowed = {"answered": {1}, "refused": {0}}.get(asked.end, {0, 1})
        evidence.need(10, begun[asked.tag] in allowed, f"{asked} began {begun[asked.tag]} times")
    return len(evidence.journal.asked)


RULES: dict[int, Callable[[Evidence], int]] = {
    1: rule_1, 2: rule_2, 3: rule_3, 4: rule_4, 5: rule_5, 6: rule_6, 7: rule_7, 8: rule_8, 9: rule_9,
    10: rule_10,
}  # fmt: skip


def check(evidence: Evidence) -> dict[int, int]:
    """Check all rules; return how many facts each compared."""
    return {number: rule(evidence) for number, rule in RULES.items()}
