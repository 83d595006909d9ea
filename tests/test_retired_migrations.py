"""What older software stores while newer software has retired the migrations that would bring it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, errors
from lazymig.testing.releases import release
from tests.wallets import base_of, load, save, stored

if TYPE_CHECKING:
    from lazymig.store import Store


def make_suite() -> Suite:
    suite = Suite("fleet")
    wallet = suite.actor_type("Wallet", state="wallet")

    @wallet.migration("1.0.0")
    def begin(state: Any, context: Any) -> None:
        pass

    @wallet.migration("1.1.0")
    def double(state: Any, context: Any) -> None:
        state["double"] = 2 * state["n"]

    @double.reconcile
    def same(state: Any, base: Any, context: Any) -> None:
        state["double"] = 2 * state["n"]

    return suite


def retired() -> Suite:
    suite = Suite("fleet")
    suite.actor_type("Wallet", state="wallet", baseline="1.1.0")
    return suite


async def test_what_older_software_stored_is_refused_where_its_reconcile_was_retired(store: Store) -> None:
    old, new = release(make_suite(), "1.0.0"), make_suite()
    await save(store, old, n=0)
    await save(store, new, n=1, double=2)
    assert await load(store, retired()) == {"n": 1, "double": 2}
    await save(store, old, n=5)
    before = await stored(store)

    with pytest.raises(errors.StateTooOldError, match=r"stored at 1\.0\.0, below the baseline 1\.1\.0"):
        await load(store, retired())

    after = await stored(store)
    assert (after[:4], after.base) == (before[:4], before.base)
    assert await load(store, new) == {"n": 5, "double": 10}
    assert await load(store, retired()) == {"n": 5, "double": 10}
    assert await base_of(store) is None


async def test_a_release_that_retires_a_reconcile_that_is_still_to_come_does_not_start(store: Store) -> None:
    old, new = release(make_suite(), "1.0.0"), make_suite()
    await save(store, old, n=0)
    await save(store, new, n=1, double=2)
    await save(store, old, n=5)

    with pytest.raises(errors.MissingMigrationError, match=r"no migration 1\.0\.0, 1\.1\.0.*'w'"):
        async with Node(store, [retired()]):
            pass

    await load(store, new)
    async with Node(store, [retired()]):
        pass
