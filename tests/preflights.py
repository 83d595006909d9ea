"""Types with migrations of all kinds, good ones and bad ones, for dry runs of sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig import Node, Suite
from lazymig._records import ActorKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig.rollout import FailedActor, SweepReport
    from lazymig.rollout._preflight_report import Preflight
    from lazymig.store import Store

CAR = "Car"
ACTORS = 1_000
FAST: dict[str, Any] = {"dry_run": True, "actors_per_second": None, "bytes_per_second": None}


def key(actor_id: str) -> ActorKey:
    return ActorKey(CAR, actor_id)


async def put(store: Store, **values: str) -> None:
    """Store actors without migration-info."""
    await store.insert(CAR, "state", [(actor_id, data.encode()) for actor_id, data in values.items()])


def found(report: SweepReport) -> Preflight:
    assert report.preflight is not None
    return report.preflight


def named(failed: tuple[FailedActor, ...]) -> list[tuple[str, str | None]]:
    return [(one.key.id, None if one.version is None else str(one.version)) for one in failed]


def suite_of(*steps: Callable[..., Any], down: Callable[..., Any] | None = None, **options: Any) -> Suite:
    """Return a suite of a type with migrations to 1.0.0, 2.0.0 and so on."""
    suite = Suite("preflight")
    car = suite.actor_type(CAR, **options)
    for number, step in enumerate(steps, 1):
        migration = car.migration(f"{number}.0.0")(step)
        if down is not None:
            migration.down(down)
    return suite


def give_owner(state: dict[str, Any], context: object) -> None:
    state["owner"] = "nobody"


def take_owner(state: dict[str, Any], context: object) -> None:
    state.pop("owner", None)


def faulty(state: dict[str, Any], context: object) -> None:
    if state["n"] == 17:
        raise RuntimeError("seventeen")
    state["half"] = float("nan") if state["n"] == 400 else state["n"] / 2
    if state["n"] == 3:
        del state["n"]


def mend(state: dict[str, Any], context: object) -> None:
    del state["half"]


def with_entries(*, eager: bool) -> Suite:
    suite = suite_of(give_owner)
    step = suite.actor_types[CAR].migration("2.0.0")(lambda state, context: None)

    step.down(lambda state, context: None)

    @step.entries("log", eager=eager)
    def convert(entry: dict[str, Any], context: object) -> None:
        if entry["n"] == 7:
            raise RuntimeError("seven")
        entry["text"] = "x" * 10

    @convert.down
    def back(entry: dict[str, Any], context: object) -> None:
        del entry["text"]
        if entry["n"] == 5:
            entry["n"] = 6

    return suite


async def put_entries(store: Store, actor_id: str, numbers: range) -> None:
    async with Node(store, [suite_of(give_owner)]) as node, node.activate(CAR, actor_id) as activation:
        await activation.state().migrate_and_load({"n": 0})
        log = activation.table("log")
        for number in numbers:
            await log.put(f"e{number:05}", {"n": number})
        await activation.persist()
