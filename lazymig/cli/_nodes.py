"""``lazymig nodes``: the processes that serve actors; drain one, or forget one that is dead."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lazymig import _version
from lazymig.cli._access import Family, common_options, opened, pass_store_on, run
from lazymig.cli._output import FOUND, Output, Refusal, plain, print_tables, suggest
from lazymig.cli._settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._fleet_records import NodeStatus, Offer
    from lazymig.store import Store


@click.group("nodes", cls=Family, invoke_without_command=True)
@common_options
@click.pass_context
def command(context: click.Context, store: str | None) -> None:
    """List the nodes: label, id, state, build, age of the last heartbeat, active actors, versions.

    A node is alive, draining (alive, and giving its actors up), or silent: its last heartbeat is older than its lease.
    Others may take a silent node's actors.
    """
    pass_store_on(context, store)
    if context.invoked_subcommand is None:
        settings = read_settings(store)
        nodes = run(partial(_list, settings))
        output: Output = context.obj
        document = {"store": settings.shown_store, "nodes": [as_document(node) for node in nodes]}
        if output.is_json or not nodes:
            output.answer(document, "no nodes")
        else:
            _print(nodes)


@command.command("drain", short_help="Let a node give its actors up.")
@click.argument("name", metavar="ID")
@common_options
@click.pass_obj
def drain(output: Output, name: str, store: str | None) -> None:
    """Let the node ID (or LABEL) take no new actors, finish running actions and give its actors up.

    Returns when the node is told, before it is done: 'lazymig nodes' shows how many actors are left. Exits with 1 if
    there is no such node, or it is silent.
    """
    node = run(partial(_drain, name, read_settings(store)))
    output.answer(_named(node), f"{_shown(node)} was told to drain; it has {node.active:,} active actors")


@command.command("forget", short_help="Remove a silent node.")
@click.argument("name", metavar="ID")
@common_options
@click.pass_obj
def forget(output: Output, name: str, store: str | None) -> None:
    """Remove the silent node ID (or LABEL): nothing it may yet try to store is stored.

    Any living node removes silent ones after ten lease times. One that is alive is refused: it might begin actions
    that only read, until it notices. Exits with 1 then, and if there is no such node.
    """
    node = run(partial(_forget, name, read_settings(store)))
    if node is None:
        output.answer({"id": name, "label": None}, f"node {plain(name)} is forgotten; its row could not be read")
    else:
        output.answer(_named(node), f"{_shown(node)} is forgotten")


async def _list(settings: Settings) -> Sequence[NodeStatus]:
    async with opened(settings) as store:
        return await store.nodes()


async def _drain(name: str, settings: Settings) -> NodeStatus:
    async with opened(settings) as store:
        node = await _find(store, name)
        if not node.is_alive:
            raise Refusal(
                "silent_node",
                f"{_shown(node)} is silent and can't be told. Others may take its actors already; "
                f"'lazymig nodes forget {node.node_id}' removes it.",
                FOUND,
            )
        await store.drain(node.node_id)  # one that signed off meanwhile has nothing left to give up
        return node


async def _forget(name: str, settings: Settings) -> NodeStatus | None:
    async with opened(settings) as store:
        try:
            node = await _find(store, name)
        except Refusal:
            if not await store.forget(name):
                raise
            return None  # a row that can't be read is not among the nodes
        if node.is_alive:
            raise Refusal(
                "living_node",
                f"{_shown(node)} is alive. Stop its process, after 'lazymig nodes drain {node.node_id}'; one that "
                f"hangs is silent after {node.lease_seconds:g} s.",
                FOUND,
            )
        await store.forget(node.node_id)
        return node


async def _find(store: Store, name: str) -> NodeStatus:
    """Return the node of an id, or of a label that one node alone has.

    Raises:
        Refusal: There is none, or several have the label.
    """
    nodes = await store.nodes()
    found = [node for node in nodes if node.node_id == name] or [node for node in nodes if node.label == name]
    if len(found) > 1:
        ids = ", ".join(sorted(node.node_id for node in found))
        raise Refusal("ambiguous_node", f"{len(found)} nodes have the label {name!r}. Give one of the ids {ids}.")
    if not found:
        known = [known for node in nodes for known in (node.node_id, node.label)]
        hint = suggest(name, known) or " 'lazymig nodes' lists them."
        raise Refusal("unknown_node", f"{store.name} has no node with the id or label {name!r}.{hint}", FOUND)
    return found[0]


def as_document(node: NodeStatus) -> dict[str, Any]:
    """Return a node as a document has it; ``version`` is the highest that it registers for the type."""
    return {
        **_named(node),
        "build": node.build,
        "alive": node.is_alive,
        "draining": node.is_draining,
        "age_seconds": node.age_seconds,
        "lease_seconds": node.lease_seconds,
        "active": node.active,
        "types": [
            {
                "type": offer.type,
                "version": _supported(offer),
                "registered": [str(version) for version in offer.registered.versions],
                "actions": list(offer.actions),
            }
            for offer in node.offers
        ],
    }


def _named(node: NodeStatus) -> dict[str, Any]:
    return {"id": node.node_id, "label": node.label}


def _shown(node: NodeStatus) -> str:
    return f"node {plain(node.label)} ({node.node_id})"


def _supported(offer: Offer) -> str:
    return str(_version.unpack(offer.registered.highest))


def state_of(node: NodeStatus) -> str:
    """Return "alive", "draining" or "silent"."""
    return "silent" if not node.is_alive else "draining" if node.is_draining else "alive"


def _print(nodes: Sequence[NodeStatus]) -> None:
    """Print a row for each node."""
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("label", "id", "state", "build", "heartbeat", "active", "versions", box=None)
    table.columns[4].justify = table.columns[5].justify = "right"
    for node in nodes:
        versions = ", ".join(f"{offer.type} {_supported(offer)}" for offer in node.offers)
        row = (
            node.label,
            node.node_id,
            state_of(node),
            node.build or "",
            f"{node.age_seconds:.1f} s ago",
            f"{node.active:,}",
            versions,
        )
        table.add_row(*(Text(plain(cell)) for cell in row))  # plain text, whatever brackets it holds
    print_tables(table)
