"""A user's file that uses the whole contract; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, assert_type

import msgspec
from semver import Version

from lazymig import (
    Activation,
    Actor,
    ActorKey,
    ActorRecord,
    ActorType,
    Migration,
    MigrationInfo,
    Node,
    State,
    Suite,
    Upgraded,
    action,
    errors,
    hooks,
    open_store,
    rollout,
)
from lazymig.store import Store


@dataclass
class Profile:
    name: str
    age: int = 0


class Login(msgspec.Struct):
    at: str


class Settings(TypedDict):
    dark: bool


@dataclass(frozen=True)
class Context:
    logins: State[Any]
    rates: Mapping[str, float]


suite = Suite("users")


class User(Actor):
    def __init__(self, activation: Activation) -> None:
        self.profile = activation.state(type=Profile)
        self.login = activation.state("login", type=Login)
        self.settings = activation.state("settings", type=Settings)
        self.plain = activation.state("plain")
        self.activation = activation
        assert_type(self.profile, State[Profile])
        assert_type(self.settings, State[Settings])
        assert_type(self.plain, State[Any])

    async def activate(self) -> None:
        assert_type(await self.profile.migrate_and_load(default=Profile("ann")), Profile)
        assert_type(await self.login.migrate_and_load(), Login | None)
        assert_type(await self.settings.migrate_and_load(default={"dark": False}), Settings)
        assert_type(await self.plain.migrate_and_load(default=[1, 2]), Any)
        assert_type(await self.profile.load(), Profile | None)

    async def deactivate(self) -> None:
        await self.activation.persist()

    @action
    async def rename(self, name: str, *, loud: bool = False) -> str:
        assert_type(self.profile.value, Profile)
        before = self.profile.value.name
        self.profile.value.name = name.upper() if loud else name
        self.login.value = Login(at="now")
        await self.profile.persist()
        await self.plain.clear()
        return before

    @action(shared=True)
    async def age(self) -> int:
        assert_type(self.profile.exists, bool)
        assert_type(self.profile.info, MigrationInfo | None)
        assert_type(self.profile.name, str)
        return self.profile.value.age


def make_context(activation: Activation) -> Context:
    assert_type(activation.key, ActorKey)
    return Context(activation.state("logins"), {"EUR": 1.0})


def infer(value: Any) -> str:
    return str(value["schemaVersion"])


user = suite.actor_type("User", User, state="profile", context_factory=make_context, infer_version=infer)
bare = suite.actor_type(
    "Bare", context={"rates": 1}, baseline=Version(1, 0, 0), write_version="1.0.0", keep_previous=True
)
assert_type(user, ActorType[User])
assert_type(bare, ActorType[Any])
assert_type(suite.actor_types, Mapping[str, ActorType[Any]])
assert_type(user.supported, Version)
assert_type(user.migrations, tuple[Migration, ...])


@user.migration("1.0.0")
def add_name(state: dict[str, Any], context: Context) -> None:
    """Add a name."""
    state["name"] = "nobody"


@user.migration(Version(1, 1, 0), late=True)
async def move_logins(state: dict[str, Any], context: Context) -> dict[str, Any]:
    logins = await context.logins.migrate_and_load(default=[])
    logins.append(state.pop("login", None))
    return state


@user.migration("2.0.0")
def replace(state: Any, context: Context) -> Any:
    return {"value": state}


@replace.down
def put_back(state: dict[str, Any], context: Context) -> Any:
    return state["value"]


@replace.reconcile
async def reconcile(state: dict[str, Any], base: dict[str, Any], context: Context) -> None:
    state.setdefault("value", base["value"])


assert_type(add_name, Migration)
assert_type(add_name.version, Version)
assert_type(add_name.name, str)
assert_type(add_name.description, str)


def on_event(event: hooks.Event) -> None:
    if isinstance(event, hooks.MigrationApplied):
        assert_type(event.key, ActorKey)
        assert_type(event.version, Version)


async def call(node: Node) -> None:
    ann = node.actor(user, "ann")
    assert_type(ann, User)
    assert_type(await ann.rename("bob", loud=True), str)
    assert_type(await ann.age(), int)
    assert_type(node.actor("User", "ann"), Any)
    assert_type(await node.call(user, "ann", "rename", "bob", loud=True), Any)
    assert_type(await node.call("User", "ann", "age"), Any)
    assert_type(node.node_id, str)
    assert_type(node.label, str)


async def activate(node: Node) -> None:
    async with node.activate(user, "ann", wait_seconds=0.5) as activation:
        assert_type(activation, Activation)
        assert_type(activation.info, MigrationInfo | None)
        state = activation.state(type=Profile)
        assert_type(state, State[Profile])
        profile = await state.migrate_and_load(default=Profile("ann"))
        profile.age += 1
        await activation.persist(release=True)
    async with node.activate("Bare", "b") as activation:
        value = await activation.state().migrate_and_load(default={"velocity": 0.0})
        value["velocity"] += 1.0
        await activation.persist()


async def inspect(node: Node) -> None:
    record = await node.inspect("User", "ann")
    assert_type(record, ActorRecord | None)
    if record is None or record.info is None:
        return
    assert_type(record.key, ActorKey)
    assert_type(record.owner, str | None)
    assert_type(record.states["profile"], Any)
    assert_type(record.quarantine, rollout.Quarantine | None)
    assert_type(record.info.version, Version)
    assert_type(record.info.applied, tuple[Version, ...])
    assert_type(record.info.written_by, Version)
    assert_type(record.info.migrated_at, datetime | None)


async def upgrade(value: dict[str, Any], stored: object) -> None:
    info = MigrationInfo.from_json(stored)
    upgraded = await user.upgrade(value, info, {"rates": 1})
    assert_type(upgraded, Upgraded)
    assert_type(upgraded.value, Any)
    assert_type(upgraded.info, MigrationInfo)
    assert_type(upgraded.applied, tuple[Version, ...])
    assert_type(info.to_json(), dict[str, Any])
    await user.upgrade(value)


def handle(error: errors.LazymigError) -> object:
    if isinstance(error, errors.NewerStateError):
        assert_type(error.key, ActorKey | None)
        assert_type(error.stored, Version)
        assert_type(error.supported, Version)
        assert_type(error.capable, tuple[str, ...])
    if isinstance(error, errors.MigrationFailedError):
        return error.version, error.name
    if isinstance(error, errors.ActorLockedError):
        assert_type(error.owner, str)
    if isinstance(error, errors.StoreError):
        assert_type(error.retryable, bool)
    return None


async def main() -> None:
    async with (
        open_store("sqlite:///users.db") as store,
        Node(
            store,
            [suite],
            label="pod-1",
            build="abc",
            lease_seconds=3.0,
            hand_over_seconds=10.0,
            idle_seconds=5.0,
            max_active=100,
            hooks=[on_event, hooks.LoggingHook()],
        ) as node,
    ):
        assert_type(store, Store)
        assert_type(node, Node)
        jobs: list[Callable[[Node], Awaitable[None]]] = [call, activate, inspect]
        for job in jobs:
            await job(node)
