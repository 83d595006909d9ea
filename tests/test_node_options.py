"""What a node is given wrongly: refused by name, before anything is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors, open_store, traceparent
from lazymig.errors import DefinitionError
from tests.boxes import Place

if TYPE_CHECKING:
    from lazymig.store import Store

NOT_POSITIVE: tuple[Any, ...] = (0, -1, float("nan"), "3", None, True, [3])
NOT_COUNTS: tuple[Any, ...] = (*NOT_POSITIVE, 2.5)
NEGATIVE: tuple[Any, ...] = (-1, float("nan"), "3", None, False)

WRONG: dict[str, tuple[Any, ...]] = {
    "lease_seconds": NOT_POSITIVE,
    "max_active": NOT_COUNTS,
    "max_migrations": tuple(value for value in NOT_COUNTS if value is not None),
    "hand_over_seconds": NEGATIVE,
    "idle_seconds": NEGATIVE,
    "move_on_seconds": NEGATIVE,
    "grace_seconds": NEGATIVE,
    "drain_on_sigterm": ("no", 0, None),
    "label": (0, b"", b"x", ["x"], "a\0", "x" * 201, "\ud800"),
    "build": ([], 1, "x" * 201),
    "hooks": (print, 3, None, ["x"], [None]),
    "suites": (None, 3, ["a"], "a", [None], Suite("s"), Suite),
}


def _shown(value: object) -> str:
    return repr(value)[:20]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=_shown
)
async def test_a_wrong_option_is_refused_by_its_name(store: Store, name: str, value: Any) -> None:
    given = {"suites": [], name: value}
    with pytest.raises(DefinitionError, match=name):
        Node(store, **given)
    assert list(await store.nodes()) == []


@pytest.mark.parametrize("given", ["memory:", None, open_store, 3])
def test_what_is_no_open_store_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match=r"store is .*async with open_store"):
        Node(given)


def test_a_store_that_was_not_opened_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"store is .*async with open_store"):
        Node(open_store("memory:"))  # type: ignore[arg-type]


def test_an_empty_label_is_none(store: Store) -> None:
    assert Node(store, label="", build="").label == Node(store).label


@pytest.mark.parametrize("value", [-1, float("nan"), "x", True])
async def test_a_block_waits_for_no_such_time(store: Store, value: Any) -> None:
    async with Place().run(store) as node:
        with pytest.raises(DefinitionError, match="wait_seconds"):
            node.activate("Box", "a", wait_seconds=value)


async def test_a_block_on_a_client_is_told_that_this_node_has_no_such_type(store: Store) -> None:
    async with Place().run(store), Node(store, label="client") as client:
        with pytest.raises(errors.UnknownActorTypeError, match="node client itself has no actor type 'Box'"):
            async with client.activate("Box", "a"):
                raise AssertionError


@pytest.mark.parametrize("trace", ["", "x", 3, "00-" + "A" * 32 + "-" + "b" * 16 + "-01", "\ud800", "a\0", "0" * 300])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_trace_that_is_none_is_refused_before_the_action_runs(store: Store, trace: Any, where: str) -> None:
    place = Place()
    async with place.run(store) as node, Node(store) as client:
        token = traceparent.set(trace)
        with pytest.raises(DefinitionError, match="traceparent is "):
            await (node if where == "here" else client).call("Box", "a", "add")
        traceparent.reset(token)
    assert place.log == []
