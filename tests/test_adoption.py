"""Data that was stored before there was a lazymig, and tells its version in a way of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors

if TYPE_CHECKING:
    from lazymig.store import Store
from tests.test_activation import imported


async def test_infer_version_is_asked_until_its_answer_is_stored(store: Store) -> None:
    asked: list[Any] = []
    suite = Suite("shop")

    def infer(value: Any) -> str:
        asked.append(value)
        return str(value["schemaVersion"])

    order = suite.actor_type("Order", state="main", infer_version=infer)
    order.migration("1.0.0")(lambda state, context: state.update(one=True))
    order.migration("2.0.0")(lambda state, context: state.update(two=True))
    await imported(store, b'{"schemaVersion":"1.0.0"}')
    await imported(store, b'{"schemaVersion":"2.0.0"}', "b")
    async with Node(store, [suite]) as node:
        async with node.activate("Order", "a") as activation:
            await activation.state().load()
        for actor_id in ("a", "b", "a", "b"):
            async with node.activate("Order", actor_id) as activation:
                await activation.state().migrate_and_load()
        record = await node.inspect("Order", "a")
        other = await node.inspect("Order", "b")
    assert len(asked) == 3
    assert record is not None
    assert record.info is not None
    assert record.states["main"] == {"schemaVersion": "1.0.0", "two": True}
    assert [str(version) for version in record.info.applied] == ["1.0.0", "2.0.0"]
    assert str(record.info.floor) == "1.0.0"
    assert other is not None
    assert other.info is not None
    assert (str(other.info.version), other.info.migrated_at) == ("2.0.0", None)


@pytest.mark.parametrize("answer", ["2.0", "v3.0.0", None, 3, "1.0.0-rc.1"])
async def test_an_inferred_version_that_is_none_is_corrupt(store: Store, answer: Any) -> None:
    suite = Suite("shop")
    suite.actor_type("Order", state="main", infer_version=lambda value: answer)
    await imported(store)
    async with Node(store, [suite]) as node, node.activate("Order", "a") as activation:
        for load in (activation.state().load, activation.state().migrate_and_load):
            with pytest.raises(errors.CorruptStateError, match="infer_version"):
                await load()
    assert (await store.scan("Order"))[0].states == {"main": b'{"note":"hi"}'}
