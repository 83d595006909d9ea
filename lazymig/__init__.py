"""lazymig: per-actor lazy state migration."""

from lazymig import errors, hooks
from lazymig._migrations import Migration
from lazymig._records import ActorKey, ActorRecord, MigrationInfo
from lazymig._upgrade import Upgraded
from lazymig.activation import Activation
from lazymig.actor import Actor, action
from lazymig.node import Node
from lazymig.state import State
from lazymig.stores import open_store
from lazymig.suite import ActorType, Suite

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
    "Upgraded",
    "action",
    "errors",
    "hooks",
    "open_store",
]
