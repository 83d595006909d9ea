"""What a dry run tells is what a sweep does then, whatever is stored."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, rollout
from lazymig.errors import MigrationFailedError
from lazymig.testing import release
from tests.preflights import (
    CAR,
    FAST,
    faulty,
    found,
    give_owner,
    mend,
    put,
    put_entries,
    suite_of,
    take_owner,
    with_entries,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig.store import Store

TOLD = ("migrated", "from_versions", "current", "newer", "failed", "left", "bytes_before", "bytes_after", "ended")


async def activate(store: Store, suite: Suite, actor_id: str, **fields: Any) -> None:
    """Bring an actor up on a node, a new one from 0.0.0, and store it."""
    await put(store, **{actor_id: '{"n":0}'})
    async with Node(store, [suite]) as node, node.activate(CAR, actor_id) as activation:
        state = activation.state()
        await state.migrate_and_load()
        state.value.update(fields)
        await activation.persist()


async def imported(store: Store) -> Suite:
    await put(store, a='{"n":1}', b='{"n":17}', c='{"n":3}', d='{"n":400}', torn='{"n":')
    return suite_of(faulty, give_owner, down=mend)


async def of_all_versions(store: Store) -> Suite:
    suite = suite_of(give_owner, take_owner, give_owner)
    for number in range(4):
        await activate(store, release(suite, f"{number}.0.0"), f"c{number}")
    await put(store, legacy="{}")
    return release(suite, "2.0.0")


async def with_inferred_versions(store: Store) -> Suite:
    await put(store, a='{"n":1}', b='{"n":1,"owner":"x"}', c='{"n":17}', odd='{"owner":null}')
    return suite_of(give_owner, faulty, infer_version=lambda state: "1.0.0" if state.get("owner") else "0.0.0")


async def with_lazy_entries(store: Store) -> Suite:
    for actor_id, numbers in {"a": range(5), "b": range(5, 9), "c": range(0)}.items():
        await put_entries(store, actor_id, numbers)
    return with_entries(eager=False)


async def with_eager_entries(store: Store) -> Suite:
    await with_lazy_entries(store)
    return with_entries(eager=True)


async def with_a_conversion_that_was_cut_off(store: Store) -> Suite:
    suite = await with_eager_entries(store)
    with suppress(MigrationFailedError):
        await activate(store, suite, "b")
    await rollout.retry(store, CAR)
    return suite


async def with_old_entries_of_new_actors(store: Store) -> Suite:
    suite = await with_lazy_entries(store)
    for actor_id in "abc":
        await activate(store, suite, actor_id)
    return suite


async def with_entries_and_no_state(store: Store) -> Suite:
    suite = await with_lazy_entries(store)
    async with Node(store, [suite_of(give_owner)]) as node, node.activate(CAR, "a") as activation:
        await activation.state().migrate_and_load()
        await activation.state().clear()
    return suite


async def pinned_below(store: Store) -> Suite:
    suite = suite_of(give_owner, faulty, down=mend)
    for actor_id in "ab":
        await activate(store, suite, actor_id, n=ord(actor_id))
    await rollout.pin(store, CAR, "1.0.0")
    await activate(store, suite, "b", n=5)
    return suite


async def flipped(store: Store) -> Suite:
    suite = await pinned_below(store)
    await rollout.flip(store, CAR, "2.0.0")
    return suite


async def drifted(store: Store) -> Suite:
    suite = suite_of(give_owner, faulty, down=mend)
    second = suite.actor_types[CAR].migrations[1]

    @second.reconcile
    def reconcile(state: dict[str, Any], base: dict[str, Any], context: object) -> None:
        state["half"] = base["half"] + 1

    await rollout.pin(store, CAR, "1.0.0")
    for actor_id in "ab":
        await activate(store, suite, actor_id, n=ord(actor_id))
    await activate(store, release(suite, "1.0.0"), "b", n=6)
    await rollout.flip(store, CAR, "2.0.0")
    return suite


def of_two_majors() -> Suite:
    suite = suite_of(give_owner)
    for version, step, down in (("1.1.0", take_owner, give_owner), ("2.0.0", give_owner, take_owner)):
        suite.actor_types[CAR].migration(version)(step).down(down)
    return suite


async def newer_with_old_entries(store: Store) -> Suite:
    await put_entries(store, "a", range(3))
    await activate(store, of_two_majors(), "a")
    return release(of_two_majors(), "1.1.0")


async def with_a_newer_base(store: Store) -> Suite:
    await activate(store, suite_of(give_owner), "a")
    await rollout.pin(store, CAR, "1.0.0")
    await activate(store, of_two_majors(), "a", n=1)
    return release(of_two_majors(), "1.1.0")


async def pinned_with_the_base_of_an_older_release(store: Store) -> Suite:
    await activate(store, suite_of(give_owner), "a")
    await rollout.pin(store, CAR, "1.0.0")
    await activate(store, release(of_two_majors(), "1.1.0"), "a", n=1)
    return of_two_majors()


async def pinned_with_old_entries(store: Store) -> Suite:
    await put_entries(store, "a", range(3))
    await activate(store, release(of_two_majors(), "1.1.0"), "a")
    await rollout.pin(store, CAR, "1.1.0")
    return of_two_majors()


SCENARIOS: list[Callable[[Store], Awaitable[Suite]]] = [
    imported,
    of_all_versions,
    with_inferred_versions,
    with_lazy_entries,
    with_eager_entries,
    with_a_conversion_that_was_cut_off,
    with_old_entries_of_new_actors,
    with_entries_and_no_state,
    pinned_below,
    flipped,
    drifted,
    newer_with_old_entries,
    with_a_newer_base,
    pinned_with_the_base_of_an_older_release,
    pinned_with_old_entries,
]


@pytest.mark.parametrize("prepare", SCENARIOS, ids=lambda prepare: prepare.__name__)
async def test_a_sweep_does_what_was_told(store: Store, prepare: Callable[[Store], Awaitable[Suite]]) -> None:
    suite = await prepare(store)

    told = await rollout.sweep(store, suite, CAR, **FAST)
    done = await rollout.sweep(store, suite, CAR)

    assert {name: getattr(told, name) for name in TOLD} == {name: getattr(done, name) for name in TOLD}
    again = await rollout.sweep(store, suite, CAR, **FAST)
    assert (again.migrated, again.failed, found(again).tried) == (0, done.failed, len(done.failed))
