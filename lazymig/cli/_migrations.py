"""``lazymig migrations``: what is registered, and how many stored actors are at each version."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazymig import _version
from lazymig.cli._access import common_options, opened, run
from lazymig.cli._output import FINE, FOUND, Output, Refusal, print_tables
from lazymig.cli._settings import STORE_VARIABLE, Settings, read_settings
from lazymig.cli._suites import load_types
from lazymig.errors import CorruptStateError
from lazymig.rollout import Census

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semver import Version

    from lazymig._migrations import Migration
    from lazymig.store import Store
    from lazymig.suite import ActorType

NO_INFO = "no info"
"""What stands for the version of imported actors that no software has migrated yet."""


@click.command("migrations")
@common_options
@click.pass_obj
def command(output: Output, store: str | None) -> int:
    """Show each actor type's registered migrations, and how many stored actors are at each version.

    Without a store only what is registered; of types that no suite has, only what is stored. Exits with 1 if a type's
    migration-info can't be read.
    """
    settings = read_settings(store)
    types = load_types(settings)
    censuses: dict[str, Census | None] = {}
    if settings.store is None:
        if not settings.suites:
            raise Refusal("nothing", f"neither suites nor a store are configured. Give --store or {STORE_VARIABLE}.")
        output.note(f"no store is configured, so no actors are counted. Give --store URL, or set {STORE_VARIABLE}.")
    else:
        censuses = run(partial(_count, settings, types, output))
    names = sorted({*types, *censuses})
    documents = [_document(name, types.get(name), censuses.get(name)) for name in names]
    if output.is_json or not names:
        output.answer({"store": settings.shown_store, "types": documents}, "no actor types")
    else:
        for name in names:
            _print(name, types.get(name), censuses.get(name), is_counted=settings.store is not None)
    return FOUND if None in censuses.values() else FINE


async def _count(settings: Settings, types: Mapping[str, ActorType[Any]], output: Output) -> dict[str, Census | None]:
    async with opened(settings) as store:
        names = {*types, *await store.types()}
        return {name: await _census(store, name, output) for name in sorted(names)}


async def _census(store: Store, actor_type: str, output: Output) -> Census | None:
    try:
        return Census.of(await store.census(actor_type))
    except CorruptStateError as error:
        output.note(f"{actor_type} can't be counted: {error.reason}. 'lazymig export {actor_type}' names the actors.")
        return None


def _document(name: str, actor_type: ActorType[Any] | None, census: Census | None) -> dict[str, Any]:
    """Return what is known of a type; null is what is not known."""
    registered: dict[str, Any] = {"state": None, "supported": None, "baseline": None, "migrations": None}
    if actor_type is not None:
        registered = {
            "state": actor_type.state,
            "supported": str(actor_type.supported),
            "baseline": None if actor_type.baseline is None else str(actor_type.baseline),
            "migrations": [_migration(step) for step in actor_type.migrations],
        }
    return {"type": name, **registered, "stored": None if census is None else _stored(census)}


def _migration(step: Migration) -> dict[str, Any]:
    return {"version": str(step.version), "name": step.name, "description": step.description, "late": step.late}


def _stored(census: Census) -> dict[str, Any]:
    versions = [{"version": str(version), "actors": count} for version, count in _with_info(census).items()]
    return {"actors": census.actors, "without_info": census.without_info, "versions": versions}


def _with_info(census: Census) -> dict[Version, int]:
    """Return how many actors are at each version, without those that no software has migrated yet."""
    versions = dict(census.versions)
    if census.without_info:
        versions[_version.ZERO] -= census.without_info
    return {version: count for version, count in versions.items() if count}


def _print(name: str, actor_type: ActorType[Any] | None, census: Census | None, *, is_counted: bool) -> None:
    """Print a type's table: one row a version that is registered or stored, oldest first."""
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("version", "actors", "migration", "", box=None, title_justify="left", title_style="bold")
    table.title = Text(f"{name}, in no suite" if actor_type is None else f"{name}, supported {actor_type.supported}")
    table.columns[1].justify = "right"
    steps = {} if actor_type is None else {step.version: step for step in actor_type.migrations}
    counts = {} if census is None else _with_info(census)
    unknown = "?" if is_counted else ""
    if census is not None and census.without_info:
        table.add_row(NO_INFO, f"{census.without_info:,}", "imported, not migrated yet", "")
    for version in sorted({*steps, *counts}):
        shown = unknown if census is None else f"{counts.get(version, 0):,}"
        table.add_row(str(version), shown, *_described(version, steps.get(version), actor_type))
    print_tables(table)


def _described(version: Version, step: Migration | None, actor_type: ActorType[Any] | None) -> tuple[Any, Any]:
    from rich.text import Text  # noqa: PLC0415  (see _print; plain text, whatever brackets it holds)

    if step is not None:
        late = "late. " if step.late else ""
        return Text(step.name), Text(late + step.description)
    if version == _version.ZERO:
        return "", "before all migrations"
    if actor_type is not None and version == actor_type.baseline:
        return "", "the baseline"
    return "", "" if actor_type is None else "not registered here"
