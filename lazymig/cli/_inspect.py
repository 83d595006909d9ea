"""``lazymig inspect``: one actor, as stored."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import orjson

from lazymig._inspection import inspect_tables
from lazymig._records import ActorKey
from lazymig.cli._access import common_options, find_actor, opened, run
from lazymig.cli._entries import DEFAULT_LIMIT, MAX_LIMIT, Asked, show_entries
from lazymig.cli._output import plain
from lazymig.cli._settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from semver import Version

    from lazymig._quarantine import Quarantine
    from lazymig._records import ActorRecord
    from lazymig.cli._output import Output


class Shown(NamedTuple):
    """What there is of an actor.

    Attributes:
        record: All but its tables.
        tables: How many entries each of them has, by version.
    """

    record: ActorRecord
    tables: Mapping[str, Counter[Version]]


@click.command("inspect")
@click.argument("actor_type", metavar="TYPE")
@click.argument("actor_id", metavar="ID")
@click.option("--table", metavar="NAME", help="Show entries of this table instead, a page at a time.")
@click.option("--prefix", metavar="TEXT", help="Only entries whose key begins with it.")
@click.option("--after", metavar="KEY", help="Only entries behind this one.")
@click.option("--reverse", is_flag=True, help="The highest key first.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    metavar="N",
    help=f"How many entries, at most {MAX_LIMIT:,}. [default: {DEFAULT_LIMIT}]",
)
@common_options
@click.pass_obj
def command(output: Output, /, actor_type: str, actor_id: str, store: str | None, **options: Any) -> None:
    """Show the stored migration-info, states and tables of the actor ID of a TYPE.

    Reads beside the lock; checks, converts, runs and changes nothing. Exits with 1 if the actor is not stored, has no
    such table, or can't be read.
    """
    key = ActorKey(actor_type, actor_id)
    if options["table"] is None:
        given = [f"--{name}" for name, value in options.items() if value not in {None, False}]
        if given:
            raise click.UsageError(f"{', '.join(given)} without --table: which entries? Add --table NAME.")
        shown = run(partial(_read, key, read_settings(store)))
        output.answer(as_document(shown), as_text(shown))
    else:
        show_entries(output, key, Asked(**options), read_settings(store))


async def _read(key: ActorKey, settings: Settings) -> Shown:
    async with opened(settings) as store:
        return Shown(await find_actor(store, key, settings), await inspect_tables(store, key))


def as_document(shown: Shown) -> dict[str, Any]:
    """Return the answer's document."""
    record = shown.record
    return {
        "type": record.key.type,
        "id": record.key.id,
        "info": None if record.info is None else record.info.to_json(),
        "states": dict(record.states),
        "converting": None if record.converting is None else str(record.converting),
        "tables": {
            table: {
                "entries": versions.total(),
                "versions": {str(version): entries for version, entries in versions.items()},
            }
            for table, versions in shown.tables.items()
        },
        "owner": record.owner,
        "quarantine": None if record.quarantine is None else quarantine_document(record.quarantine),
        "revision": record.revision,
    }


def quarantine_document(found: Quarantine) -> dict[str, Any]:
    """Return a record as a document has it."""
    return {
        "type": found.key.type,
        "id": found.key.id,
        "version": str(found.version),
        "name": found.name,
        "error": found.error,
        "attempts": found.attempts,
        "failed_at": found.failed_at.isoformat(),
        "retry_at": found.retry_at.isoformat(),
        "node": found.node,
    }


def quarantine_rows(found: Quarantine) -> list[tuple[str, str]]:
    """Return a record for people: what each line is, and what it says."""
    return [
        ("migration", f"{found.version} ({found.name})"),
        ("error", found.error),
        ("attempts", f"{found.attempts:,}"),
        ("failed at", f"{found.failed_at.isoformat(' ', 'seconds')} on node {found.node}"),
        ("next try", found.retry_at.isoformat(" ", "seconds")),
    ]


def as_text(shown: Shown) -> str:
    """Return the answer for people."""
    record = shown.record
    rows = [("owner", record.owner or "none"), ("revision", str(record.revision))]
    if record.info is None:
        rows.insert(0, ("version", "none: imported, not migrated yet"))
    else:
        info = record.info
        applied = ", ".join(str(version) for version in info.applied) or "none"
        rows[:0] = [
            ("version", str(info.version)),
            ("applied", applied if info.floor is None else f"all up to {applied}"),
            ("written by", str(info.written_by)),
            ("migrated at", "never" if info.migrated_at is None else info.migrated_at.isoformat(" ", "seconds")),
        ]
    if record.quarantine is not None:
        rows += [(name, plain(value)) for name, value in quarantine_rows(record.quarantine)]
    lines = [str(record.key), *(f"  {name:<11}  {value}" for name, value in rows), *_table_lines(shown)]
    for name, value in record.states.items():
        text = orjson.dumps(value, None, orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        lines.append(f"  state {name!r}\n    " + text.replace("\n", "\n    "))
    return "\n".join(lines)


def _table_lines(shown: Shown) -> Iterator[str]:
    converting = shown.record.converting
    if converting is not None:
        all_versions = sum(shown.tables.values(), Counter[Any]())
        done = sum(entries for version, entries in all_versions.items() if version >= converting)
        yield f"  converting to {converting}: {done:,} of {all_versions.total():,} entries"
    for table, versions in shown.tables.items():
        at = ", ".join(f"{entries:,} at {version}" for version, entries in versions.items())
        total = versions.total()
        yield f"  table {table!r}  {total:,} {'entry' if total == 1 else 'entries'}: {at}"
