"""The nodes of a type, as gates see and name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lazymig import _version
from lazymig._rulings import SAMPLE
from lazymig.rollout._verdict import Reason, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lazymig._fleet_records import NodeStatus, Offer
    from lazymig._records import AppliedSet
    from lazymig._rulings import Counted, TypeFacts


class Serving(NamedTuple):
    """A node that serves the type.

    Attributes:
        node: The node.
        offer: What it can do for the type.
    """

    node: NodeStatus
    offer: Offer

    @property
    def supported(self) -> int:
        """The highest version that it registers, packed."""
        return self.offer.registered.highest


def serving(facts: TypeFacts, actor_type: str) -> tuple[Serving, ...]:
    """Return the registered nodes of a type, silent ones too, ordered by label, then id."""
    found = [Serving(node, offer) for node in facts.nodes if (offer := node.offer(actor_type)) is not None]
    return tuple(sorted(found, key=lambda one: (one.node.label, one.node.node_id)))


def releases(facts: TypeFacts, actor_type: str) -> frozenset[AppliedSet]:
    """Return what any release registers or registered."""
    seen = {release.applied for release in facts.releases}
    return frozenset(seen | {one.offer.registered for one in serving(facts, actor_type)})


def about_nodes(code: str, nodes: Sequence[Serving], what: str, cure: str) -> Reason:
    """Return a reason that names nodes."""
    return Reason(code, f"{what}: {named(nodes)}. {cure}", tuple(one.node.node_id for one in nodes))


def about_actors(code: str, counted: Counted, what: str, cure: str) -> Iterator[Reason]:
    """Yield a reason that names actors, if any were counted."""
    if counted.total:
        noun = "actor" if counted.total == 1 else "actors"
        shown = _listed([repr(actor) for actor in counted.actors], counted.total)
        text = f"{what}: {counted.total:,} {noun}, {shown}. {cure}"
        yield Reason(code, text, count=counted.total, actors=tuple(counted.actors))


def quarantined(actor_type: str, counted: Counted) -> str:
    """Return what to say of those among counted actors whose migration failed; "" if there are none."""
    if not counted.total:
        return ""
    shown = _listed([repr(actor) for actor in counted.actors], counted.total)
    are = "is" if counted.total == 1 else "are"
    why = f"'{command('quarantine', 'list', actor_type)}' says why its migration failed"
    return f" {counted.total:,} of them {are} quarantined, {shown}: {why}."


def named(nodes: Sequence[Serving]) -> str:
    """Return labels and ids for people."""
    shown = [f"{one.node.label} ({one.node.node_id})" for one in nodes[:SAMPLE]]
    return f"{'node' if len(nodes) == 1 else f'{len(nodes):,} nodes,'} {_listed(shown, len(nodes))}"


def _listed(names: Sequence[str], total: int) -> str:
    more = f" and {total - len(names):,} more" if total > len(names) else ""
    return ", ".join(names) + more


def unreadable(facts: TypeFacts) -> Iterator[Reason]:
    """Yield a reason if a node's row can't be read: it may be of the type."""
    if not facts.unreadable:
        return
    ids = tuple(sorted(facts.unreadable))
    text = (
        f"the store has rows of nodes that can't be read, so what those run is unknown: "
        f"{_listed(ids[:SAMPLE], len(ids))}. Stop their processes, then '{command('nodes', 'forget', ids[0])}'."
    )
    yield Reason("unreadable_nodes", text, ids)


def cannot_store(nodes: Iterable[Serving], actor_type: str, version: int) -> Iterator[Reason]:
    """Yield why nodes can't store their actors at a version (packed): a reason for each why, with its nodes."""
    by_why: dict[str, list[Serving]] = {}
    for one in nodes:
        if why := one.offer.why_not_stored(version):
            by_why.setdefault(why, []).append(one)
    for why, those in by_why.items():
        is_old = those[0].supported < version
        each = why if len(those) == 1 else why.replace("it ", "each ", 1)
        text = (
            f"{actor_type} can't be stored at {_version.unpack(version)} by {named(those)}: {each}. Deploy a release "
            f"there that {'supports it' if is_old else 'can'}, or stop what runs there."
        )
        code = "not_supported" if is_old else "cannot_store"
        yield Reason(code, text, tuple(one.node.node_id for one in those))
