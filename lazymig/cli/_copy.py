"""``lazymig copy``: whole actors from one store to another."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazymig.cli._access import opened, output_options, run, unknown_type
from lazymig.cli._interrupts import Interrupted, stopping
from lazymig.cli._output import FINE, FOUND, Output, Refusal
from lazymig.cli._progress import progress
from lazymig.cli._settings import Settings
from lazymig.transfer import CopyReport, copy
from lazymig.transfer._copy import is_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig.cli._progress import Progress
    from lazymig.store import Store
    from lazymig.transfer import Contents


@click.command("copy")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Copy this type only; may be given several times.")
@output_options
@click.pass_obj
def command(output: Output, source: str, target: str, types: tuple[str, ...]) -> int:
    """Copy all actors from the store SOURCE to the store TARGET, which is made if it isn't there, and compare both.

    States, entries, migration-info, releases and write versions are copied; locks, nodes and calls are not. SOURCE is
    only read. What TARGET has of a higher revision, or active, is left alone. Whatever differs afterwards is named:
    exit status 1. Safe to run again at any time: what was copied is passed over.
    """
    ours, theirs = Settings(None, source, "SOURCE", ()), Settings(None, target, "TARGET", ())
    with progress() as shown:
        report = run(partial(_run, ours, theirs, types, shown))
        for difference in report.differences:
            shown.note(difference.reason)
    output.answer(_document(ours, theirs, report), "\n".join(_lines(report)))
    return FINE if report.is_identical else FOUND


async def _run(ours: Settings, theirs: Settings, types: Sequence[str], shown: Progress) -> CopyReport:
    async with opened(ours, read_only=True) as source:
        await _check_types(source, types)
        async with opened(theirs, create=True) as target:
            if is_one(source, target):
                raise Refusal("same_store", f"{source.name} is SOURCE and TARGET. Name two stores.")
            with stopping() as stop:

                def on_progress(report: CopyReport) -> None:
                    shown.update(report.copied + report.present + report.compared, _summary(report))
                    if stop.is_set:
                        where = f"{report.copied:,} actors copied. Run the same command again: it goes on."
                        raise Interrupted(where, _document(ours, theirs, report))

                return await copy(source, target, types=types or None, progress=on_progress)


async def _check_types(source: Store, types: Sequence[str]) -> None:
    """Refuse a type that the source doesn't have, before a target is made."""
    known = list(await source.copies.types())
    for actor_type in types:
        if actor_type not in known:
            raise unknown_type(actor_type, known)


def _summary(report: CopyReport) -> str:
    compared = f", {report.compared:,} compared" if report.compared else ""
    return f"{report.copied:,} copied, {report.present:,} there already{compared}"


def _lines(report: CopyReport) -> list[str]:
    """Return the answer: a line a type, and what it came to."""
    lines = []
    for found in report.types:
        is_same = found.source == found.target
        lines.append(
            f"{found.type}: {_told(found.source)}{'' if is_same else f'; in the target {_told(found.target)}'}"
        )
    verdict = "both stores are identical" if report.is_identical else f"{report.differing:,} differ"
    return [*lines, f"{_summary(report)}: {verdict}"]


def _told(contents: Contents) -> str:
    counts = f"{contents.actors:,} actors, {contents.states:,} states, {contents.entries:,} entries"
    return f"{counts}, digest {contents.digest[:16]}"


def _document(ours: Settings, theirs: Settings, report: CopyReport) -> dict[str, Any]:
    return {
        "source": ours.shown_store,
        "target": theirs.shown_store,
        "copied": report.copied,
        "present": report.present,
        "compared": report.compared,
        "differing": report.differing,
        "differences": [
            {"type": found.type, "id": found.id, "code": found.code, "reason": found.reason}
            for found in report.differences
        ],
        "types": [
            {"type": found.type, "source": _contents(found.source), "target": _contents(found.target)}
            for found in report.types
        ],
    }


def _contents(contents: Contents) -> dict[str, Any]:
    return {
        "actors": contents.actors,
        "states": contents.states,
        "entries": contents.entries,
        "digest": contents.digest,
    }
