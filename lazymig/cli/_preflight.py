"""What ``sweep --dry-run`` says to people: what it can't prove comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazymig.cli._output import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig.rollout._preflight_report import Difference, Preflight
    from lazymig.rollout._sweep_report import SweepReport

_SHOWN_DIFFERENCES = 20
"""How many people are shown; a document has all that are kept."""


def print_unproven(preflight: Preflight) -> None:
    """Say what a dry run can't prove."""
    click.echo("a dry run can't prove:")
    for sentence in preflight.unproven:
        click.echo(plain(f"- {sentence}"))


def print_verdict(report: SweepReport, preflight: Preflight) -> None:
    """Say whether a sweep would bring all actors to their version."""
    verdict = f"{'' if report.is_complete else 'not '}all actors would be at their version"
    count = f"{preflight.tried:,} tried, {len(report.failed):,} failed"
    click.echo(f"verdict: {verdict} ({count}). Nothing was stored.")


def print_figures(preflight: Preflight) -> None:
    """Say how long migrations take, how actors grow, and what isn't brought down as it was."""
    for line in _figures(preflight):
        click.echo(plain(line))


def _figures(preflight: Preflight) -> Iterator[str]:
    times = preflight.times
    if times.counts:
        named = {"half": times.p50, "95 %": times.p95, "99 %": times.p99, "all": times.longest}
        took = ", ".join(f"{share} within {_duration(seconds)}" for share, seconds in named.items())
        yield f"time of an actor's migrations: {took}"
        before, after = preflight.bytes_before, preflight.bytes_after
        change = f" ({(after - before) / before:+.1%})" if before else ""
        yield f"size: {before:,} bytes before, {after:,} after{change}"
    if (largest := preflight.largest) is not None:
        yield f"grows most: {largest.key}, from {largest.before:,} to {largest.after:,} bytes"
    if preflight.compared:
        yield f"down again: {preflight.compared:,} compared, {preflight.differing:,} are not what they were"
    for difference in preflight.differences[:_SHOWN_DIFFERENCES]:
        yield f"differs: {_difference(difference)}"
    if len(preflight.differences) > _SHOWN_DIFFERENCES:
        yield f"and {len(preflight.differences) - _SHOWN_DIFFERENCES:,} more: --json names them"


def _difference(found: Difference) -> str:
    where = f"state {found.state!r}" if found.table is None else f"entry {found.entry!r} of table {found.table!r}"
    return f"{found.key}: {where} at {found.path}{'' if found.error is None else f': {found.error}'}"


def _duration(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1_000_000:.3g} µs"
    return f"{seconds * 1_000:.3g} ms" if seconds < 1 else f"{seconds:,.1f} s"
