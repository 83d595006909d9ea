"""``lazymig restore``: one actor, as it was before a major version."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazymig._records import ActorKey
from lazymig.cli._access import common_options, find_actor, opened, run
from lazymig.cli._output import FOUND, INTERRUPTED, Output, Refusal, code_of, plain
from lazymig.cli._settings import Settings, read_settings
from lazymig.errors import CorruptStateError, RestoreError, StoreError
from lazymig.rollout._restoring import Restored, restore
from lazymig.rollout._verdict import command as shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazymig._fleet_records import NodeStatus


@click.command("restore")
@click.argument("actor_type", metavar="TYPE")
@click.argument("actor_id", metavar="ID")
@common_options
@click.pass_obj
def command(output: Output, actor_type: str, actor_id: str, store: str | None) -> None:
    """Put the actor ID of a TYPE back to what it was before it was last taken to a higher major version.

    All that was stored since is lost: a last resort for one actor. Only of types with keep_previous=True something is
    kept. Changes nothing and exits with 1 if nothing is, if the actor is active on a node, or if it has entries that
    were put or converted since.
    """
    key, settings = ActorKey(actor_type, actor_id), read_settings(store)
    try:
        restored = run(partial(_restore, key, settings))
    except KeyboardInterrupt:
        raise Refusal("interrupted", f"interrupted.{_unknown(key)}", INTERRUPTED) from None
    except StoreError as error:
        unknown = "" if error.is_unchanged else _unknown(key)
        raise Refusal(code_of(error), f"{error}{unknown}", FOUND) from error
    document = {"store": settings.shown_store, **as_document(restored)}
    output.answer(document, "\n".join(map(plain, _lines(restored))))


async def _restore(key: ActorKey, settings: Settings) -> Restored:
    async with opened(settings) as store:
        try:
            return await restore(store, key)
        except RestoreError:
            with suppress(CorruptStateError):
                await find_actor(store, key, settings)  # it may be misspelt
            raise


def _unknown(key: ActorKey) -> str:
    return f" Whether {key} was restored is unknown: '{shell('inspect', key.type, key.id)}' shows its version."


def as_document(restored: Restored) -> dict[str, Any]:
    """Return the answer's document; the last two are the nodes that take the actor now."""
    return {
        "type": restored.key.type,
        "id": restored.key.id,
        "version": str(restored.version),
        "replaced": str(restored.replaced.version),
        "info": None if restored.info is None else restored.info.to_json(),
        "states": list(restored.states),
        "removed": list(restored.removed),
        "revision": restored.revision,
        "readers": [node.node_id for node in restored.readers],
        "migrators": [node.node_id for node in restored.migrators],
    }


def _lines(restored: Restored) -> Iterator[str]:
    """Yield the answer for people."""
    yield f"{restored.key} is at {restored.version} again; what was stored at {restored.replaced.version} is gone"
    yield f"  put back: {', '.join(restored.states)}"
    if restored.removed:
        yield f"  removed: {', '.join(restored.removed)}"
    yield f"  taken as it is by: {_named(restored.readers)}"
    yield f"  brought up again, when it is next active there, by: {_named(restored.migrators)}"


def _named(nodes: Sequence[NodeStatus]) -> str:
    return ", ".join(f"{node.label} ({node.node_id})" for node in nodes) or "no registered node"
