"""An actor that was cleared counts as new: it closes no gate, and keeps no release from starting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig import ActorKey, Node, Suite, rollout

if TYPE_CHECKING:
    from lazymig.store import Store


def make(*versions: str, baseline: str | None = None) -> Suite:
    suite = Suite("fleet")
    car = suite.actor_type("Car", state="car", baseline=baseline)
    for version in versions:

        def step(state: Any, context: Any) -> None:
            pass

        car.migration(version)(step).down(lambda state, context: None)
    return suite


OLD, NEW = make("1.0.0"), make("1.0.0", "2.0.0")


async def save(store: Store, suite: Suite, actor: str) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", actor) as activation:
        await activation.state().migrate_and_load(default={})
        await activation.persist()


async def clear(store: Store, suite: Suite, actor: str) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", actor) as activation:
        await activation.state().migrate_and_load()
        await activation.table("log").put("a", 1)
        await activation.state("other").migrate_and_load(default=1)
        await activation.persist()
        await activation.state().clear()
        await activation.state("other").clear()
        await activation.table("log").delete("a")
        await activation.persist()


async def test_a_cleared_actor_keeps_no_migration_from_being_retired(store: Store) -> None:
    await save(store, OLD, "a")
    await clear(store, OLD, "a")
    await save(store, NEW, "b")

    assert (await rollout.census(store, "Car")).versions == {NEW.actor_types["Car"].chain.supported: 1}
    assert [actor async for actor in rollout.stragglers(store, "Car", below="2.0.0")] == []
    gate = await rollout.gate_retire(store, "Car", "2.0.0")
    assert gate.allowed, gate
    async with Node(store, [make(baseline="2.0.0")]) as node, node.activate("Car", "a") as activation:
        assert await activation.state().migrate_and_load(default={"anew": 1}) == {"anew": 1}
        await activation.persist()
    found = await store.read(ActorKey("Car", "a"))
    assert found is not None
    assert found.revision == 6


async def test_a_cleared_actor_keeps_no_release_from_coming_back(store: Store) -> None:
    await save(store, OLD, "b")
    await save(store, NEW, "a")
    await clear(store, NEW, "a")
    await rollout.pin(store, "Car", "1.0.0")

    gate = await rollout.gate_roll_back(store, "Car", "1.0.0")
    assert gate.allowed, gate
    async with Node(store, [OLD]) as node, node.activate("Car", "a") as activation:
        assert await activation.state().migrate_and_load(default={"anew": 1}) == {"anew": 1}
