"""Old and new releases of every suite beside each other, see `tests.mixed_fleet`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store
from tests.mixed_fleet import MixedFleet, Pair, There, drawn, pairs, short

if TYPE_CHECKING:
    from lazymig.store import Store


pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: f"{pair.suite}-{pair.old}-{pair.new}")
async def test_what_either_release_stored_is_there_after_each_two_steps(pair: Pair) -> None:
    async with open_store("memory:") as store:
        await MixedFleet(store, pair).run(short())


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: f"{pair.suite}-{pair.old}-{pair.new}")
async def test_what_either_release_stored_is_there_on_long_ways(store: Store, pair: Pair) -> None:
    await MixedFleet(store, pair).run(drawn(4, seed=11))


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
async def test_what_either_process_stored_is_there_after_kills_and_flips(store: Store, url: str) -> None:
    async def sit(url: str, _: Store, pair: Pair, version: str) -> There:
        return await There(url, pair, version).begin()

    await MixedFleet(store, Pair("vehicles", "1.1.0", "2.0.0"), partial(sit, url)).run(drawn(2, seed=3))
