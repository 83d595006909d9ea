"""The group of commands: each is imported when it is called, errors become one line and an exit status."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from lazymig.cli._output import PIPE_CLOSED, USAGE, Output, Refusal, silence, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "backup": "Write a copy of a SQLite store into a new file, beside those who work on it.",
    "census": "Count stored actors by version, or name those below one.",
    "config": "Show each setting and where it came from.",
    "copy": "Copy actors from one store to another, and compare both.",
    "export": "Write all actors of a type as JSON lines.",
    "gate": "Ask whether a step of a deploy is safe.",
    "import": "Store actors from JSON lines.",
    "inspect": "Show what is stored of one actor.",
    "migrations": "Show what is registered, and how many actors are at each version.",
    "nodes": "List the nodes of the fleet; drain one, or forget one that is dead.",
    "quarantine": "List actors whose migration failed; let them be tried again.",
    "restore": "Put one actor back to what it was before a major version.",
    "rollout": "Show where a deploy is; set what a type is written at.",
    "sweep": "Bring idle actors to the version that their type is written at.",
}
"""Name and summary; each is the object ``command`` of the module ``lazymig.cli._<name>``."""


class Tool(click.Group):
    """Finds commands by name without importing the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's)
        """Return the names in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's)
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"lazymig.cli._{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"there is no command {name!r}.{suggest(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        """List the summaries."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whoever reads its output may stop at any time."""
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            silence()
            return PIPE_CLOSED
        return status

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> Any:
        """Run the tool and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        output = Output.of(arguments)
        extra["standalone_mode"] = False
        try:
            status = super().main(arguments, prog_name or "lazymig", obj=output, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            status = output.fail(Refusal("usage", "no command given.")) if output.is_json else USAGE
        except (Exception, KeyboardInterrupt) as error:
            status = output.fail(error)
        sys.exit(status or 0)


@click.group("lazymig", cls=Tool, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lazymig", prog_name="lazymig")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.option("--json", is_flag=True, expose_value=False, help="One JSON document on stdout, errors included.")
@click.option("--store", metavar="URL", help="See below; every command takes it, too.")
@click.pass_context
def main(context: click.Context, store: str | None) -> None:
    """Per-actor lazy state migration.

    The store comes from --store or LAZYMIG_STORE; the suites from [tool.lazymig] in the nearest pyproject.toml.
    Exit status: 0 fine, 1 the answer is no or something was found, 2 usage.
    """
    context.default_map = {name: {"store": store} for name in COMMANDS}
