"""A type's deploy as operators see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig._rulings import AskType, Ruled
from lazymig.rollout._asking import ask, checked_name
from lazymig.rollout._census import Census, census
from lazymig.rollout._fleet import releases
from lazymig.rollout._phases import Deploy, Step

if TYPE_CHECKING:
    from datetime import datetime

    from semver import Version

    from lazymig._fleet_records import NodeStatus
    from lazymig._rulings import Ruling, TypeFacts
    from lazymig.rollout._verdict import Gate
    from lazymig.store import Store
    from lazymig.suite import ActorType

PHASES = ("new code reads both, writes old", "every node runs it", "writes flipped", "swept, old migrations retired")
"""What the phases of a deploy are, from 1 on."""


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """A release of a type.

    Attributes:
        version: Its highest version.
        registered: All its versions, in order, its baseline first.
        build: Of the node that had it last.
        seen_at: When that one registered, aware UTC; None if the store has no record of it.
        nodes: Those that run it, ordered by label, then id.
    """

    version: Version
    registered: tuple[Version, ...]
    build: str | None
    seen_at: datetime | None
    nodes: tuple[NodeStatus, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A type's deploy.

    Attributes:
        type: The actor type.
        is_known: Whether the store or a node knows the type.
        phase: 1 to 4, see `PHASES`.
        write_version: What its actors are written at; None: each node stores what it supports.
        epoch: Counts the changes of that.
        target: The highest version that a node supports, or a release did if there is no node.
        releases: The oldest first.
        unreadable: Ids of nodes whose rows can't be read: what they run is unknown.
        census: Of its actors.
        gates: The answers to what may come next; of all migrations those to retire the first one that may not go, and
            the last.
        next: The next safe step.
    """

    type: str
    is_known: bool
    phase: int
    write_version: Version | None
    epoch: int
    target: Version
    releases: tuple[ReleaseStatus, ...]
    unreadable: tuple[str, ...]
    census: Census
    gates: tuple[Gate, ...]
    next: Step


async def status(store: Store, actor_type: ActorType[Any] | str) -> Status:
    """Tell where a type's deploy is, what its gates say, and what is safe to do next.

    Each gate is asked by itself, so that no starting node waits for all of them.

    Args:
        store: An open store.
        actor_type: The type, or its name.

    Raises:
        StoreError: The store can't be asked.
        CorruptStateError: What it has of the type can't be read.
    """
    name = checked_name(store, actor_type)
    facts = await read_facts(store, name)
    deploy = Deploy(name, facts)
    gates = await _ask_all(store, deploy)
    written = facts.policy.version
    return Status(
        type=name,
        is_known=is_known(facts, name),
        phase=deploy.phase(gates),
        write_version=None if written is None else _version.unpack(written),
        epoch=facts.policy.epoch,
        target=_version.unpack(deploy.target),
        releases=_releases(deploy),
        unreadable=tuple(sorted(facts.unreadable)),
        census=await census(store, name),
        gates=tuple(gates),
        next=deploy.next_step(gates),
    )


async def _ask_all(store: Store, deploy: Deploy) -> list[Gate]:
    asking = deploy.asking()
    try:
        asked = next(asking)
        while True:
            version = None if asked.version is None else _version.unpack(asked.version)
            asked = asking.send(await ask(store, asked.question, asked.type, version))
    except StopIteration as end:
        gates: list[Gate] = end.value
        return gates


async def read_facts(store: Store, actor_type: str) -> TypeFacts:
    """Return what the store knows of a type, without counting."""
    facts: TypeFacts = await store.rule(partial(_facts, actor_type))
    return facts


def _facts(actor_type: str) -> Ruling:
    return Ruled((yield AskType(actor_type)))


def is_known(facts: TypeFacts, actor_type: str) -> bool:
    """Tell whether the store or a node knows a type."""
    return bool(facts.policy.epoch or releases(facts, actor_type) or facts.actors or facts.known)


def _releases(deploy: Deploy) -> tuple[ReleaseStatus, ...]:
    seen = {release.applied: release for release in deploy.facts.releases}
    found = []
    for applied in releases(deploy.facts, deploy.type):
        release = seen.get(applied)
        nodes = tuple(one.node for one in deploy.nodes if one.offer.registered == applied)
        build = nodes[0].build if release is None else release.build
        seen_at = None if release is None else release.seen_at
        found.append(ReleaseStatus(_version.unpack(applied.highest), applied.versions, build, seen_at, nodes))
    return tuple(sorted(found, key=lambda one: (one.version, one.registered)))
