"""``lazymig rollout``: where a deploy is, and what its actors are written at."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazymig.cli._access import Family, common_options, opened, pass_store_on, run
from lazymig.cli._census import as_document as census_document
from lazymig.cli._census import census_table
from lazymig.cli._nodes import as_document as node_document
from lazymig.cli._nodes import state_of
from lazymig.cli._output import Output, plain, print_tables
from lazymig.cli._settings import Settings, read_settings
from lazymig.cli._verdicts import answer, readable, require_known
from lazymig.cli._verdicts import as_document as gate_document
from lazymig.rollout import PHASES
from lazymig.rollout._status import status as ask_status

if TYPE_CHECKING:
    from rich.table import Table

    from lazymig.rollout import ReleaseStatus, Status

_type = click.argument("actor_type", metavar="TYPE")
_version = click.argument("version", metavar="VERSION")


@click.group("rollout", cls=Family)
@common_options
@click.pass_context
def command(context: click.Context, store: str | None) -> None:
    """Show where a deploy is and what is safe next; set the version that a type is written at.

    Each change asks its gate, and changes nothing if that says no: exit status 1, with the reasons.
    """
    pass_store_on(context, store)


@command.command("pin", short_help="Let TYPE be written at an older VERSION.")
@_type
@_version
@common_options
@click.pass_obj
def pin(output: Output, actor_type: str, version: str, store: str | None) -> int:
    """Let TYPE be written at VERSION, not above what it is written at now; nobody need have registered it yet."""
    return answer(output, "pin", actor_type, version, store, is_change=True)


@command.command("flip", short_help="Let TYPE be written at a newer VERSION.")
@_type
@_version
@common_options
@click.pass_obj
def flip(output: Output, actor_type: str, version: str, store: str | None) -> int:
    """Let TYPE be written at VERSION, not below what it is written at now."""
    return answer(output, "flip", actor_type, version, store, is_change=True)


@command.command("unpin", short_help="Let each node store what it supports.")
@_type
@common_options
@click.pass_obj
def unpin(output: Output, actor_type: str, store: str | None) -> int:
    """Remove the write version of TYPE: each node stores what it supports."""
    return answer(output, "unpin", actor_type, None, store, is_change=True)


@command.command("status", short_help="Show where the deploy of TYPE is.")
@_type
@common_options
@click.pass_obj
def status(output: Output, actor_type: str, store: str | None) -> None:
    """Show the phase of a deploy of TYPE, its releases and nodes, actors by version, gates, and the next safe command.

    \b
    Phases: 1  new code reads both, writes old
            2  every node runs it
            3  writes flipped
            4  swept, old migrations retired
    """  # noqa: D301  (click's mark of lines that stay as they are)
    settings = read_settings(store)
    found = run(partial(_status, settings, actor_type))
    if output.is_json:
        output.answer({"store": settings.shown_store, **as_document(found)}, "")
    else:
        _print(found)


async def _status(settings: Settings, actor_type: str) -> Status:
    async with opened(settings) as store:
        with readable(actor_type):
            found = await ask_status(store, actor_type)
        if not found.is_known:
            await require_known(store, actor_type, settings)
        return found


def as_document(found: Status) -> dict[str, Any]:
    """Return a status as a document has it."""
    return {
        "type": found.type,
        "phase": found.phase,
        "phase_text": PHASES[found.phase - 1],
        "write_version": None if found.write_version is None else str(found.write_version),
        "epoch": found.epoch,
        "target": str(found.target),
        "releases": [_release(release) for release in found.releases],
        "unreadable_nodes": list(found.unreadable),
        "census": census_document(found.type, found.census),
        "gates": [gate_document(gate) for gate in found.gates],
        "next": {"command": found.next.command, "text": found.next.text},
    }


def _release(release: ReleaseStatus) -> dict[str, Any]:
    return {
        "version": str(release.version),
        "registered": [str(version) for version in release.registered],
        "build": release.build,
        "seen_at": None if release.seen_at is None else release.seen_at.isoformat(),
        "nodes": [node_document(node) for node in release.nodes],
    }


def _print(found: Status) -> None:
    written = (
        "each node writes what it supports" if found.write_version is None else f"written at {found.write_version}"
    )
    click.echo(plain(f"{found.type}: phase {found.phase}, {PHASES[found.phase - 1]}"))
    click.echo(f"{written}, newest is {found.target}\n")
    print_tables(_releases(found), census_table(found.census), _gates(found))
    if found.next.command is not None:
        click.echo(plain(f"next: {found.next.command}"))
    click.echo(plain(f"{'  ' if found.next.command else 'next: '}{found.next.text}"))


def _releases(found: Status) -> Table:
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("release", "build", "nodes", box=None)
    for release in found.releases:
        nodes = ", ".join(
            node.label if (state := state_of(node)) == "alive" else f"{node.label} ({state})" for node in release.nodes
        )
        row = (str(release.version), release.build or "", nodes or "none")
        table.add_row(*(Text(plain(cell)) for cell in row))  # plain text, whatever brackets it holds
    if found.unreadable:
        table.add_row("?", "", Text(plain(f"rows that can't be read: {', '.join(found.unreadable)}")))
    return table


def _gates(found: Status) -> Table:
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("gate", "answer", box=None)
    for gate in found.gates:
        answered = "yes" if gate.allowed else "no: " + ", ".join(dict.fromkeys(reason.code for reason in gate.reasons))
        table.add_row(Text(plain(gate.title)), answered)
    return table
