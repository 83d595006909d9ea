"""``lazymig inspect``: one actor, as stored."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click
import orjson

from lazymig._inspection import inspect
from lazymig._records import ActorKey
from lazymig.cli._access import check_known, common_options, opened, run
from lazymig.cli._output import FOUND, Output, Refusal
from lazymig.cli._settings import Settings, read_settings

if TYPE_CHECKING:
    from lazymig._records import ActorRecord


@click.command("inspect")
@click.argument("actor_type", metavar="TYPE")
@click.argument("actor_id", metavar="ID")
@common_options
@click.pass_obj
def command(output: Output, actor_type: str, actor_id: str, store: str | None) -> None:
    """Show the stored migration-info and states of the actor ID of a TYPE.

    Reads beside the lock; checks, runs and changes nothing. Exits with 1 if the actor is not stored or can't be read.
    """
    key = ActorKey(actor_type, actor_id)
    record = run(partial(_read, key, read_settings(store)))
    output.answer(as_document(record), as_text(record))


async def _read(key: ActorKey, settings: Settings) -> ActorRecord:
    async with opened(settings) as store:
        record = await inspect(store, key)
        if record is not None:
            return record
        await check_known(store, key.type, settings)
        raise Refusal("unknown_actor", f"{key} is not stored in {store.name}. Check the id.", FOUND)


def as_document(record: ActorRecord) -> dict[str, Any]:
    """Return the answer's document."""
    return {
        "type": record.key.type,
        "id": record.key.id,
        "info": None if record.info is None else record.info.to_json(),
        "states": dict(record.states),
        "owner": record.owner,
        "quarantine": record.quarantine,
        "revision": record.revision,
    }


def as_text(record: ActorRecord) -> str:
    """Return the answer for people."""
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
    lines = [str(record.key), *(f"  {name:<11}  {value}" for name, value in rows)]
    for name, value in record.states.items():
        shown = orjson.dumps(value, None, orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        lines.append(f"  state {name!r}\n    " + shown.replace("\n", "\n    "))
    return "\n".join(lines)
