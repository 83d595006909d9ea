"""``lazymig census``: how many stored actors are at which version, and which are behind."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazymig import _version
from lazymig.cli._access import common_options, known_types, opened, run
from lazymig.cli._output import FINE, FOUND, Output, plain, print_tables
from lazymig.cli._settings import Settings, read_settings
from lazymig.cli._verdicts import readable, require_known
from lazymig.errors import CorruptStateError
from lazymig.rollout._census import Census, census, stragglers

if TYPE_CHECKING:
    from rich.table import Table
    from semver import Version

    from lazymig.store import Store


@click.command("census")
@click.argument("actor_type", metavar="[TYPE]", required=False)
@click.option("--below", metavar="VERSION", help="Name the actors of TYPE that are below it instead.")
@common_options
@click.pass_obj
def command(output: Output, actor_type: str | None, below: str | None, store: str | None) -> int:
    """Count stored actors by version, and entries of tables; of all types without a TYPE.

    Exits with 1 if a type's migration-info can't be read, or with --below if an actor is below VERSION. Without
    migration-info an actor counts as 0.0.0.
    """
    settings = read_settings(store)
    if below is not None:
        if actor_type is None:
            raise click.UsageError("--below without a TYPE: of which? Add its name.")
        with readable(actor_type):
            return run(partial(_name, output, settings, actor_type, _version.parse(below)))
    counted = run(partial(_count, output, settings, actor_type))
    documents = [as_document(name, found) for name, found in counted.items()]
    if output.is_json or not counted:
        output.answer({"store": settings.shown_store, "types": documents}, "no actor types")
    else:
        print_tables(*(census_table(found, name) for name, found in counted.items() if found is not None))
    return FOUND if None in counted.values() else FINE


async def _count(output: Output, settings: Settings, actor_type: str | None) -> dict[str, Census | None]:
    async with opened(settings) as store:
        if actor_type is None:
            return {name: await _census(output, store, name) for name in sorted(await known_types(store, settings))}
        with readable(actor_type):
            await require_known(store, actor_type, settings)
            return {actor_type: await census(store, actor_type)}


async def _census(output: Output, store: Store, actor_type: str) -> Census | None:
    try:
        return await census(store, actor_type)
    except CorruptStateError as error:
        output.note(plain(f"{actor_type} can't be counted: {error.reason}."))
        return None


async def _name(output: Output, settings: Settings, actor_type: str, below: Version) -> int:
    """Name stragglers: a line each as they are found, or a document."""
    total = 0
    async with opened(settings) as store:
        await require_known(store, actor_type, settings)
        if output.is_json:
            ids = [key.id for key in await stragglers(store, actor_type, below=below)]
            document = {"store": settings.shown_store, "type": actor_type, "below": str(below), "actors": ids}
            output.answer(document, "")
            return FOUND if ids else FINE
        async for key in stragglers(store, actor_type, below=below):
            click.echo(plain(key.id))
            total += 1
    if not total:
        click.echo(plain(f"no actor of {actor_type} is below {below}"))
    return FOUND if total else FINE


def as_document(actor_type: str, found: Census | None) -> dict[str, Any]:
    """Return a type's census as a document has it; null is what is not known."""
    if found is None:
        return {"type": actor_type, "actors": None}
    return {
        "type": actor_type,
        "actors": found.actors,
        "without_info": found.without_info,
        "versions": {str(version): count for version, count in found.versions.items()},
        "applied": [
            {"applied": None if applied is None else [str(version) for version in applied], "actors": count}
            for applied, count in found.applied.items()
        ],
        "entries": {str(version): count for version, count in found.entries.items()},
        "bases": found.bases,
        "quarantined": found.quarantined,
    }


def census_table(found: Census, title: str | None = None) -> Table:
    """Return a table with a row for each version, the oldest first."""
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("version", "actors", box=None, title_justify="left", title_style="bold")
    if title is not None:
        table.title = Text(plain(title))
    if found.entries:
        table.add_column("entries")
    for column in table.columns[1:]:
        column.justify = "right"
    for version in sorted({*found.versions, *found.entries}):
        cells = [f"{found.versions.get(version, 0):,}", f"{found.entries.get(version, 0):,}"]
        table.add_row(str(version), *cells[: len(table.columns) - 1])
    if not table.row_count:
        table.add_row("none", "0")
    if found.bases:
        table.add_row("bases", f"{found.bases:,}")
    if found.quarantined:
        table.add_row("quarantined", f"{found.quarantined:,}")
    return table
