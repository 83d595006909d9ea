"""The cases, each with its goal."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from benchmarks import footprint, in_memory, on_postgres, on_sqlite, peers, rollouts, sweeps, tables
from benchmarks.measure import Size, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.measure import Block, Comparison

    Open = Callable[[Size], AbstractAsyncContextManager[tuple[Block, Block]]]

Unit = Literal["ratio", "µs", "µs more", "kB more", "times faster"]

PARTS = {"µs": 1e-6, "µs more": 1e-6, "kB more": 1e3}
"""A figure's unit, in what blocks return: seconds or bytes."""


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes:
        name: Chosen by it.
        title: What is measured; may name the size's actors or calls.
        baseline: What it is compared with.
        goal: At most that, or for "times faster" at least.
        unit: Of goal and figure.
        open: Yields both sides.
        size: Of a full run.
        quick: Of a quick one.
    """

    name: str
    title: str
    baseline: str
    goal: float
    unit: Unit
    open: Open
    size: Size
    quick: Size

    @property
    def quantity(self) -> Literal["seconds", "bytes"]:
        """What its blocks return."""
        return "bytes" if self.unit == "kB more" else "seconds"

    def size_of(self, *, is_quick: bool) -> Size:
        """Return how much of it is measured."""
        return self.quick if is_quick else self.size

    async def run(self, size: Size) -> Result:
        """Measure it."""
        return Result(self, size, await measure(self.open(size), size))


@dataclass(frozen=True, slots=True)
class Result:
    """What a case gave.

    Attributes:
        case: The case.
        size: How much was measured.
        comparison: What was measured.
    """

    case: Case
    size: Size
    comparison: Comparison

    @property
    def title(self) -> str:
        """What was measured."""
        return self.case.title.format(actors=self.size.actors, calls=self.size.calls)

    @property
    def figures(self) -> Sequence[float]:
        """One a trial, in the unit of the goal, in order of size."""
        if self.case.unit == "ratio":
            return self.comparison.ratios
        if self.case.unit == "µs":
            return sorted(seconds / PARTS[self.case.unit] for seconds in self.comparison.ours)
        if self.case.unit == "times faster":
            return sorted(1.0 / ratio for ratio in self.comparison.ratios)
        return [difference / PARTS[self.case.unit] for difference in self.comparison.differences]

    @property
    def figure(self) -> float:
        """Their median."""
        return statistics.median(self.figures)

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached."""
        return self.figure >= self.case.goal if self.case.unit == "times faster" else self.figure <= self.case.goal


FAST, FAST_QUICK = Size(trials=7, rounds=40, calls=200), Size(trials=5, rounds=5, calls=100)
SLOW, SLOW_QUICK = Size(trials=7, rounds=12, calls=50), Size(trials=5, rounds=6, calls=20)
CROWD, CROWD_QUICK = Size(trials=7, rounds=8, calls=100), Size(trials=5, rounds=4, calls=100)
MANY, MANY_QUICK = replace(SLOW, actors=1_000_000), replace(SLOW_QUICK, actors=50_000)
LONG, LONG_QUICK = Size(trials=7, rounds=4, calls=50_000), Size(trials=5, rounds=2, calls=5_000)
GATE, GATE_QUICK = replace(SLOW, actors=1_000_000), replace(SLOW_QUICK, actors=20_000)
COUNTED, COUNTED_QUICK = replace(GATE, rounds=4, calls=2), replace(GATE_QUICK, calls=2)
SWEPT, SWEPT_QUICK = Size(trials=5, rounds=1, calls=200_000), Size(trials=3, rounds=1, calls=5_000)
BESIDE, BESIDE_QUICK = Size(5, 1, calls=2_000, actors=60_000), Size(2, 1, calls=100, actors=5_000)
HELD, HELD_QUICK = Size(trials=1, rounds=1, calls=100_000), Size(trials=1, rounds=1, calls=10_000)
"""Bytes are the same each time."""

CASES = (
    Case(
        "core", "decide, run and stamp, none pending", "decode",
        3.0, "µs more", partial(in_memory.core, is_pending=False), FAST, FAST_QUICK,
    ),
    Case(
        "core-pending", "decide, run and stamp, 3 pending", "decode, 3 functions, encode",
        8.0, "µs more", partial(in_memory.core, is_pending=True), FAST, FAST_QUICK,
    ),
    Case(
        "block", "node.activate … exit, memory", "decode",
        30.0, "µs", in_memory.block, FAST, FAST_QUICK,
    ),
    Case(
        "proxy", "a call to an active actor", "await of the method",
        10.0, "µs more", in_memory.proxy, FAST, FAST_QUICK,
    ),
    Case(
        "registered", "1,000 migrations registered, none pending", "1 registered",
        1.10, "ratio", in_memory.many_migrations, FAST, FAST_QUICK,
    ),
    Case(
        "cold", "cold activation, SQLite", "load in one trip, decode",
        1.75, "ratio", on_sqlite.cold, SLOW, SLOW_QUICK,
    ),
    Case(
        "pending", "3 pending, SQLite, NORMAL", "claim, 3 functions, fenced save in two trips",
        1.35, "ratio", partial(on_sqlite.pending, synchronous="normal"), SLOW, SLOW_QUICK,
    ),
    Case(
        "pending-full", "3 pending, SQLite, FULL", "the same, synced",
        1.35, "ratio", partial(on_sqlite.pending, synchronous="full"), SLOW, SLOW_QUICK,
    ),
    Case(
        "crowd", "100 at once, 3 pending, NORMAL", "synchronous read, change, write",
        2.5, "ratio", partial(on_sqlite.crowd, synchronous="normal"), CROWD, CROWD_QUICK,
    ),
    Case(
        "crowd-full", "100 at once, 3 pending, FULL", "the same, synced",
        0.4, "ratio", partial(on_sqlite.crowd, synchronous="full"), CROWD, CROWD_QUICK,
    ),
    Case(
        "grouped", "100 at once, FULL, group commit", "without it",
        4.0, "times faster", on_sqlite.grouped, CROWD, CROWD_QUICK,
    ),
    Case(
        "actors", "cold activation, {actors:,} actors, SQLite", "1,000 actors",
        1.5, "ratio", partial(on_sqlite.populated, few=1_000), MANY, MANY_QUICK,
    ),
    Case(
        "postgres", "cold activation, PostgreSQL", "SELECT by key, decode",
        1.5, "ratio", on_postgres.cold, SLOW, SLOW_QUICK,
    ),
    Case(
        "postgres-pending", "3 pending, PostgreSQL", "SELECT, 3 functions, UPDATE",
        1.3, "ratio", on_postgres.pending, SLOW, SLOW_QUICK,
    ),
    Case(
        "pyrmute", "decide, run, stamp, 3 pending, dict to dict", "pyrmute: find the way, run, dict to dict",
        0.6, "ratio", peers.pyrmute, FAST, FAST_QUICK,
    ),
    Case(
        "eventsourcing-get", "cold activation, migrated before, SQLite", "eventsourcing: get, 3 upcasts, snapshots on",
        0.9, "ratio", partial(peers.eventsourcing, case="get"), SLOW, SLOW_QUICK,
    ),
    Case(
        "eventsourcing-durable", "3 pending, SQLite, synchronous as theirs", "eventsourcing: take_snapshot, 3 upcasts",
        0.5, "ratio", partial(peers.eventsourcing, case="durable"), SLOW, SLOW_QUICK,
    ),
    Case(
        "lazy", "cold activation, {actors:,} entries to convert", "no entries",
        1.1, "ratio", tables.activation, MANY, MANY_QUICK,
    ),
    Case(
        "eager", "eager conversion, {calls:,} entries of 200 B, SQLite", "the same change by one UPDATE",
        2.0, "ratio", tables.conversion, LONG, LONG_QUICK,
    ),
    Case(
        "scan", "scan, {calls:,} entries of 200 B, SQLite", "SELECT row by row (aiosqlite), decode",
        1.3, "ratio", partial(tables.scan, is_at_once=False), LONG, LONG_QUICK,
    ),
    Case(
        "scan-at-once", "the same", "SELECT, all rows in memory, decode",
        1.3, "ratio", partial(tables.scan, is_at_once=True), LONG, LONG_QUICK,
    ),
    Case(
        "gate", "a gate that needs no count, {actors:,} actors, SQLite", "SELECT by key",
        5_000.0, "µs", rollouts.gate, GATE, GATE_QUICK,
    ),
    Case(
        "census", "census, {actors:,} actors, SQLite", "a bare GROUP BY",
        2.0, "ratio", rollouts.census, COUNTED, COUNTED_QUICK,
    ),
    Case(
        "pinned", "cold activation that takes its base, SQLite", "without a write version",
        2.0, "ratio", rollouts.pinned, SLOW, SLOW_QUICK,
    ),
    Case(
        "sweep", "sweep of {calls:,} actors of 300 B, SQLite, FULL", "the same change by one UPDATE, and their stamps",
        2.0, "ratio", sweeps.sweep, SWEPT, SWEPT_QUICK,
    ),
    Case(
        "sweep-singly", "sweep of {calls:,} actors, NORMAL", "one transaction an actor, without locks",
        3.0, "times faster", sweeps.one_by_one, replace(SWEPT, calls=50_000), SWEPT_QUICK,
    ),
    Case(
        "sweep-calls", "median of calls that store, beside a sweep", "without it",
        2.0, "ratio", sweeps.calls, BESIDE, BESIDE_QUICK,
    ),
    Case(
        "memory", "{calls:,} active actors, states of 300 B", "their decoded values",
        2.0, "kB more", footprint.active, HELD, HELD_QUICK,
    ),
)  # fmt: skip
