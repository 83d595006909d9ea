"""lazymig: per-actor lazy state migration.

Names are imported from their rooms at their first use, so that a command that only reads a store starts quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazymig import errors, hooks, rollout
    from lazymig._info import MigrationInfo
    from lazymig._migrations import Migration
    from lazymig._records import ActorKey, ActorRecord
    from lazymig._turn import traceparent
    from lazymig._upgrade import Upgraded
    from lazymig.activation import Activation
    from lazymig.actor import Actor, action
    from lazymig.node import Node
    from lazymig.state import State
    from lazymig.stores import open_store
    from lazymig.suite import ActorType, Suite
    from lazymig.table import Table

__all__ = [
    "Activation",
    "Actor",
    "ActorKey",
    "ActorRecord",
    "ActorType",
    "Migration",
    "MigrationInfo",
    "Node",
    "State",
    "Suite",
    "Table",
    "Upgraded",
    "action",
    "errors",
    "hooks",
    "open_store",
    "rollout",
    "traceparent",
]

_ROOMS = {
    "_migrations": ("Migration",),
    "_records": ("ActorKey", "ActorRecord", "MigrationInfo"),
    "_turn": ("traceparent",),
    "_upgrade": ("Upgraded",),
    "activation": ("Activation",),
    "actor": ("Actor", "action"),
    "errors": ("errors",),
    "hooks": ("hooks",),
    "node": ("Node",),
    "rollout": ("rollout",),
    "state": ("State",),
    "stores": ("open_store",),
    "suite": ("ActorType", "Suite"),
    "table": ("Table",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562); it stays here from then on."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'lazymig' has no attribute {name!r}")
    room = import_module(f"lazymig.{_ROOM_OF[name]}")
    found: object = room if name == _ROOM_OF[name] else getattr(room, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
