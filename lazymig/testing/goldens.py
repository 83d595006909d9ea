"""Golden states: what every released version stored, kept byte for byte, forever.

A folder has one file a version, ``<version>.json``: actors as that release stored them. ``0.0.0.json`` is written by
hand or taken from real legacy data; `record` makes the others from it with the releases themselves. Whatever HEAD makes
of any of them must be what the newest file has, so a migration that was released can't change unnoticed.

A file is a list of objects, one an actor: ``id``; ``states``, name to the stored bytes as text; ``info``, the stamp as
`MigrationInfo.to_json` gives it, or null.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig._info import MigrationInfo
from lazymig._records import ActorKey, Claim, Commit, Fence, NodeRecord, Stamp, StoredActor
from lazymig.node import Node
from lazymig.stores import open_store
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from semver import Version

    from lazymig.store import Store
    from lazymig.suite import ActorType, Suite

MIGRATED_AT = datetime(2024, 1, 1, tzinfo=UTC)
"""Stands for the time of every migration: it says nothing about the states."""


@dataclass(frozen=True)
class Golden:
    """One actor as a release stored it.

    Attributes:
        id: The actor's id.
        states: Name to the stored bytes.
        info: Its migration-info, with `MIGRATED_AT` for any time; None for an imported actor.
    """

    id: str
    states: Mapping[str, bytes]
    info: MigrationInfo | None


def versions(actor_type: ActorType[Any]) -> list[Version]:
    """Return every version that must have a golden file: 0.0.0, and all that are registered."""
    return [_version.ZERO, *(migration.version for migration in actor_type.migrations)]


def read(path: Path) -> list[Golden]:
    """Return the actors of a golden file."""
    return [_read_golden(one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _read_golden(one: dict[str, Any]) -> Golden:
    states = {name: text.encode() for name, text in one["states"].items()}
    return Golden(one["id"], states, None if one["info"] is None else MigrationInfo.from_json(one["info"]))


def dump(goldens: Iterable[Golden]) -> str:
    """Return the text of a golden file."""
    rows = [
        {
            "id": golden.id,
            "states": {name: data.decode() for name, data in sorted(golden.states.items())},
            "info": None if golden.info is None else golden.info.to_json(),
        }
        for golden in goldens
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


async def upgrade(suite: Suite, actor_type: str, goldens: Iterable[Golden], url: str = "memory:") -> list[Golden]:
    """Store actors as they were recorded, activate each with a suite, and return what is stored then.

    Args:
        suite: The software that activates them.
        actor_type: Name of their type.
        goldens: The actors.
        url: A store without them.

    Raises:
        ActivationError: The suite can't take one of them.
    """
    goldens = list(goldens)
    keys = [ActorKey(actor_type, golden.id) for golden in goldens]
    async with open_store(url) as store:
        for key, golden in zip(keys, goldens, strict=True):
            await put(store, key, golden)
        async with Node(store, [suite]) as node:
            for key in keys:
                async with node.activate(key.type, key.id) as activation:
                    await activation.state().migrate_and_load()
        return [_golden(await store.read(key)) for key in keys]


async def put(store: Store, key: ActorKey, golden: Golden) -> None:
    """Store an actor as it was recorded, stamp and all; it must be unknown."""
    fence = Fence("golden", 1)
    await store.register(NodeRecord(fence.node, "golden states", None, lease_seconds=60.0))
    try:
        claim = await store.claim(key, fence)
        if not isinstance(claim, Claim):
            raise AssertionError(f"{key} is held by {claim.owner}")  # noqa: TRY004  (not a type that was given)
        stamp = None if golden.info is None else Stamp.of(golden.info)
        await store.commit(Commit(key, fence, 0, stamp, golden.states, release=True, epoch=claim.policy.epoch))
    finally:
        await store.unregister(fence.node)


async def record(suite: Suite, actor_type: str, folder: Path, version: Version) -> None:
    """Write the golden file of a version, made of ``0.0.0.json`` by that release of the suite.

    Raises:
        AssertionError: The file exists with other bytes: a released version doesn't change. It was left alone.
        ActivationError: The release can't take one of the legacy actors; nothing was written.
    """
    legacy = read(folder / f"{_version.ZERO}.json")
    text = dump(await upgrade(release(suite, version), actor_type, legacy))
    path = folder / f"{version}.json"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise AssertionError(
            f"{path} has other bytes than release {version} makes now. What was released doesn't change: undo the "
            f"change of its migrations, and add a migration with a version of its own."
        )
    path.write_text(text, encoding="utf-8")


def _golden(stored: StoredActor | None) -> Golden:
    if stored is None:
        raise AssertionError("what was just stored is there")
    info = None if stored.stamp is None else stored.stamp.info
    if info is not None and info.migrated_at is not None:
        info = replace(info, migrated_at=MIGRATED_AT)
    return Golden(stored.key.id, stored.states, info)
