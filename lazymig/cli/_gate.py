"""``lazymig gate``: whether a step of a deploy is safe; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazymig.cli._access import Family, common_options, pass_store_on
from lazymig.cli._verdicts import answer

if TYPE_CHECKING:
    from lazymig.cli._output import Output

_type = click.argument("actor_type", metavar="TYPE")
_version = click.argument("version", metavar="VERSION")


@click.group("gate", cls=Family)
@common_options
@click.pass_context
def command(context: click.Context, store: str | None) -> None:
    """Ask whether a step of a deploy is safe: exits with 0 if it is, with 1 and the reasons if not.

    Reads only. What is unknown counts as no, and so does a store that can't be asked.
    """
    pass_store_on(context, store)


@command.command("pin", short_help="May TYPE be written at an older VERSION?")
@_type
@_version
@common_options
@click.pass_obj
def pin(output: Output, actor_type: str, version: str, store: str | None) -> int:
    """Ask whether every node can store TYPE at VERSION, which is not above what it is written at now."""
    return answer(output, "pin", actor_type, version, store)


@command.command("flip", short_help="May TYPE be written at a newer VERSION?")
@_type
@_version
@common_options
@click.pass_obj
def flip(output: Output, actor_type: str, version: str, store: str | None) -> int:
    """Ask whether every node of TYPE is alive and supports VERSION, and every actor can be brought there."""
    return answer(output, "flip", actor_type, version, store)


@command.command("unpin", short_help="May each node store what it supports?")
@_type
@common_options
@click.pass_obj
def unpin(output: Output, actor_type: str, store: str | None) -> int:
    """Ask whether every node of TYPE can read what any of them stores without a write version."""
    return answer(output, "unpin", actor_type, None, store)


@command.command("retire", short_help="May the migration VERSION be removed?")
@_type
@_version
@common_options
@click.pass_obj
def retire(output: Output, actor_type: str, version: str, store: str | None) -> int:
    """Ask whether all that is stored of TYPE has the migration VERSION, and all that any node will store."""
    return answer(output, "retire", actor_type, version, store)


@command.command("rollback", short_help="May the release VERSION take over again?")
@_type
@_version
@common_options
@click.pass_obj
def rollback(output: Output, actor_type: str, version: str, store: str | None) -> int:
    """Ask whether the release of TYPE that ends at VERSION can read all that is stored and will be."""
    return answer(output, "roll_back", actor_type, version, store)
