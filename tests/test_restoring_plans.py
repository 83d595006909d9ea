"""Plans drawn from a seed: releases store, an operator pins, flips and restores; what comes back is what a model says.

The model knows nothing of stores: it keeps the wallet's bytes as they were read before and after a step, and the rule
that what was before a step up across a major version is kept until the next one, or until the actor comes down again.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lazymig import errors, rollout
from lazymig._entries import Range
from lazymig._version import is_newer_major
from tests.test_restoring import Fleet
from tests.wallets import KEY, held, write_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig import Suite
    from lazymig._records import AppliedSet, Stamp
    from lazymig.store import Store

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

KINDS = (
    *("load", "save", "save", "save", "other", "clear", "put", "get"),
    *("pin", "flip", "unpin", "restore", "restore"),
)
REFUSED = (errors.NewerStateError,)


class Seen(NamedTuple):
    """An actor as it was read."""

    stamp: Stamp | None
    states: Mapping[str, bytes]


async def look(store: Store) -> Seen:
    found = await store.read(KEY)
    return Seen(None, {}) if found is None else Seen(found.stamp, dict(found.states))


def at(seen: Seen) -> int:
    return 0 if seen.stamp is None else seen.stamp.applied.highest


async def sets_of_entries(store: Store) -> set[AppliedSet]:
    return {count.applied for count in await store.tables(KEY)}


class Model:
    """What is kept of the wallet, by what is seen of it before and after each step."""

    def __init__(self) -> None:
        self.kept: Seen | None = None

    async def note(self, store: Store, before: Seen, *, keeps: bool) -> None:
        """Note what a step has made; one that comes up and stores is two commits, and the first one decides."""
        after = await look(store)
        has_entries = bool(await sets_of_entries(store))
        if not (after.states or has_entries):
            self.kept = None
        elif is_newer_major(at(after), at(before)):
            self.kept = before if keeps and before.states else None
        elif is_newer_major(at(before), at(after)):
            self.kept = None
        kept = await store.previous(KEY)
        assert (None if kept is None else Seen(kept.stamp, dict(kept.states))) == self.kept

    async def restore(self, store: Store) -> None:
        """Restore; the outcome is the model's."""
        before = await look(store)
        sets = await sets_of_entries(store)
        kept = self.kept
        covered = kept is not None and all(
            kept.stamp is not None and kept.stamp.applied.covers(applied) for applied in sets
        )
        if kept is None or not covered:
            with pytest.raises(errors.RestoreError):
                await rollout.restore(store, KEY)
            assert await look(store) == before
            return
        await rollout.restore(store, KEY)
        assert await look(store) == kept
        self.kept = None


async def step(store: Store, suite: Suite, kind: str, rng: random.Random) -> None:
    """Let a release do something with the wallet."""
    is_new = suite.actor_types["Wallet"].supported.major > 1
    default = {"money": {"amount": 1, "currency": "EUR"}} if is_new else {"amount": 1}
    async with held(store, suite) as activation:
        state = activation.state()
        value: Any = await state.migrate_and_load(default=default | {"name": "ann"} if kind == "save" else None)
        if kind == "save":
            value["more"] = rng.random()
            await activation.persist()
        elif kind == "other":
            await activation.state("other").migrate_and_load(default={})
            await activation.persist()
        elif kind == "clear":
            await state.clear()
        elif kind == "put":
            await activation.table("payments").put(rng.choice("ab"), {"money" if is_new else "amount": 1})
        elif kind == "get":
            await activation.table("payments").get(rng.choice("ab"))
            await activation.persist()


async def run(store: Store, seed: int) -> None:
    rng, model = random.Random(seed), Model()
    fleets = {keeps: Fleet(keep_previous=keeps) for keeps in (True, False)}
    await store.insert("Wallet", "wallet", [("w", b'{ "amount": 5}')])
    plan = []
    try:
        for _ in range(25):
            kind, keeps = rng.choice(KINDS), rng.random() < 0.8
            name, version = rng.choice(["first", "old", "new", "new"]), rng.choice(["1.1.0", "2.0.0"])
            plan.append((kind, name, version, keeps))
            before = await look(store)
            if kind == "restore":
                await model.restore(store)
            elif kind in {"pin", "flip", "unpin"}:
                await write_at(store, None if kind == "unpin" else version)
            else:
                try:
                    await step(store, getattr(fleets[keeps], name), kind, rng)
                except REFUSED:
                    assert await look(store) == before
            await model.note(store, before, keeps=keeps and kind != "restore")
    except BaseException:
        print(f"failed with seed {seed}: {plan}")
        raise
    page = await store.entries(KEY, Range("payments"), 9, 999)
    assert len(page.keys) <= 2


@pytest.mark.parametrize("seed", range(30))
async def test_what_comes_back_is_what_was_before_the_last_step_up(store: Store, seed: int) -> None:
    await run(store, seed)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(30, 1_000))
async def test_likewise_in_many_more_plans(store: Store, seed: int) -> None:
    await run(store, seed)
