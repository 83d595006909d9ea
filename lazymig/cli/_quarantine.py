"""``lazymig quarantine``: actors whose migration failed; show them, and let them be tried again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from lazymig._records import ActorKey
from lazymig.cli._access import Family, common_options, find_actor, opened, pass_store_on, run
from lazymig.cli._inspect import quarantine_document, quarantine_rows
from lazymig.cli._output import FINE, FOUND, Output, Refusal, plain, print_tables
from lazymig.cli._settings import Settings, read_settings
from lazymig.cli._verdicts import require_known
from lazymig.rollout._quarantined import quarantined
from lazymig.rollout._quarantined import retry as let_retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._quarantine import Quarantine


@click.group("quarantine", cls=Family)
@common_options
@click.pass_context
def command(context: click.Context, store: str | None) -> None:
    """List the actors whose migration failed, show one, or let them be tried again at once.

    Until its next try an actor's activations fail at once, but on nodes whose code of the migration is another one.
    """
    pass_store_on(context, store)


@command.command("list", short_help="List the actors whose migration failed.")
@click.argument("actor_type", metavar="[TYPE]", required=False)
@common_options
@click.pass_obj
def list_all(output: Output, actor_type: str | None, store: str | None) -> int:
    """List the actors of TYPE whose migration failed, of all types without one: what failed, how often, and when.

    Exits with 1 if there are any.
    """
    settings = read_settings(store)
    found = run(partial(_list, settings, actor_type))
    if output.is_json or not found:
        documents = [quarantine_document(one) for one in found]
        output.answer({"store": settings.shown_store, "quarantined": documents}, "no quarantined actors")
    else:
        _print(found)
    return FOUND if found else FINE


@command.command("show", short_help="Show why an actor is quarantined.")
@click.argument("actor_type", metavar="TYPE")
@click.argument("actor_id", metavar="ID")
@common_options
@click.pass_obj
def show(output: Output, actor_type: str, actor_id: str, store: str | None) -> None:
    """Show what is recorded of the actor ID of a TYPE. Exits with 1 if it is not quarantined."""
    settings = read_settings(store)
    found = run(partial(_show, settings, ActorKey(actor_type, actor_id)))
    lines = [str(found.key), *(f"  {name:<9}  {value}" for name, value in quarantine_rows(found))]
    output.answer({"store": settings.shown_store, **quarantine_document(found)}, "\n".join(map(plain, lines)))


@command.command("retry", short_help="Let actors be tried again at once.")
@click.argument("actor_type", metavar="TYPE")
@click.argument("actor_id", metavar="[ID]", required=False)
@common_options
@click.pass_obj
def retry(output: Output, actor_type: str, actor_id: str | None, store: str | None) -> None:
    """Let the actor ID of a TYPE, or all of the TYPE, be tried again at the next activation.

    The number of attempts stays: after one more failure the next try comes as late as it would have. Exits with 1 if
    the actor ID is not quarantined.
    """
    settings = read_settings(store)
    count = run(partial(_retry, settings, actor_type, actor_id))
    actors = f"{count:,} {'actor' if count == 1 else 'actors'} of {actor_type}"
    document = {"store": settings.shown_store, "type": actor_type, "id": actor_id, "actors": count}
    output.answer(document, plain(f"{actors} will be tried again at the next activation"))


async def _list(settings: Settings, actor_type: str | None) -> list[Quarantine]:
    async with opened(settings) as store:
        if actor_type is not None:
            await require_known(store, actor_type, settings)
        return [one async for one in quarantined(store, actor_type)]


async def _show(settings: Settings, key: ActorKey) -> Quarantine:
    async with opened(settings) as store:
        record = await find_actor(store, key, settings)
        if record.quarantine is None:
            raise _not_quarantined(key)
        return record.quarantine


async def _retry(settings: Settings, actor_type: str, actor_id: str | None) -> int:
    async with opened(settings) as store:
        count = await let_retry(store, actor_type, actor_id)
        if not count and actor_id is None:
            await require_known(store, actor_type, settings)
        elif not count and actor_id is not None:
            key = ActorKey(actor_type, actor_id)
            await find_actor(store, key, settings)
            raise _not_quarantined(key)
        return count


def _not_quarantined(key: ActorKey) -> Refusal:
    return Refusal(
        "not_quarantined", f"{key} is not quarantined. 'lazymig quarantine list' names those that are.", FOUND
    )


def _print(found: Sequence[Quarantine]) -> None:
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("type", "id", "migration", "attempts", "failed at", "next try", "error", box=None)
    table.columns[3].justify = "right"
    for one in found:
        times = [time.isoformat(" ", "seconds") for time in (one.failed_at, one.retry_at)]
        row = (one.key.type, one.key.id, f"{one.version} ({one.name})", f"{one.attempts:,}", *times, one.error)
        table.add_row(*(Text(plain(cell)) for cell in row))  # plain text, whatever brackets it holds
    print_tables(table)
