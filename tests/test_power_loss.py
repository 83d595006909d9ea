"""A power failure at every moment: what was acknowledged is there, and nothing is there by halves."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node
from lazymig.sqlite import Syncing, open_sqlite
from lazymig.testing import ManualClock
from tests.aftermath import faults_of, images, is_torn, read
from tests.disk import FailedSync, Write, lay_down
from tests.power import IDS, NeverSyncing, car, record, record_failed_syncs, suite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.disk import Entry
    from tests.power import Policy

pytestmark = pytest.mark.no_cover  # tracing doubles their time, and other tests cover the same lines

FULL = partial(Syncing, is_full=True)
NORMAL = partial(Syncing, is_full=False)
NEVER = partial(NeverSyncing, is_full=True)

LOST = frozenset({"lost"})
ALL = frozenset({"unreadable", "half migrated", "lost", "no prefix"})

MARKS = ["2.0.0", "1.1.0", "1.0.0", "0.0.0"]
"""By how many migrations are pending."""

REBOOTED = 1.0
"""A machine that has been up for a second: heartbeats of the time before lie in its future."""


async def survey(
    seed: int, policy: Policy, folder: Path, a_cut: int, *, allowed: frozenset[str] = frozenset()
) -> Counter[str]:
    """Judge images of one recording; return how many there were, and how many had which fault.

    A fault that is not allowed fails, and leaves the image's files in ``folder``, as found by SQLite.
    """
    recording = await record(seed, policy)
    counts: Counter[str] = Counter()
    for cut, number, image in images(recording, seed, a_cut):
        faults = faults_of(recording, cut, image, folder)
        counts.update(faults | {"images"})
        assert faults <= allowed, f"seed {seed}, cut {cut}, image {number}: {faults} (of {counts['images']} images)"
    return counts


async def surveys(
    seeds: range, policy: Policy, folder: Path, a_cut: int, *, allowed: frozenset[str] = frozenset()
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += await survey(seed, policy, folder, a_cut, allowed=allowed)
    return counts


async def test_power_loss_keeps_every_acknowledged_commit_and_tears_none(tmp_path: Path) -> None:
    counts = await surveys(range(3), FULL, tmp_path, a_cut=1)
    assert counts["images"] >= 2_000


async def test_power_loss_with_synchronous_normal_loses_the_last_commits_at_most(tmp_path: Path) -> None:
    counts = await survey(7, NORMAL, tmp_path, a_cut=1, allowed=LOST)
    assert counts["images"] >= 500
    assert counts["lost"] > 0, "the disk lost nothing"


async def test_power_loss_of_a_store_that_never_syncs_is_seen_by_each_check(tmp_path: Path) -> None:
    counts = await survey(0, NEVER, tmp_path, a_cut=2, allowed=ALL)
    assert set(counts) == ALL | {"images"}, counts


async def test_recording_of_a_seed_is_always_the_same() -> None:
    assert shape((await record(5, FULL)).log) == shape((await record(5, FULL)).log)


def shape(log: list[Entry]) -> list[tuple[object, ...]]:
    """Return a log without what the files hold: ids of nodes are drawn, and times go on."""
    return [
        (Write, entry.file, entry.offset, len(entry.data)) if isinstance(entry, Write) else (type(entry), entry)
        for entry in log
    ]


MENDING = 12
"""So many entries after a failed sync the log has been mended and written on; each cut there gives many images."""


@pytest.mark.parametrize(
    ("failing", "checkpoint_pages"),
    [
        (range(10, 11), 1000),  # SQLite's own number of pages
        (range(12, 13), 1000),
        (range(15, 16), 1000),
        (range(13, 14), 12),
        (range(28, 29), 12),
        (range(18, 19), 20),
        (range(13, 15), 12),  # the sync of the mended log fails as well
        (range(10, 12), 20),
    ],
    ids=str,
)
async def test_power_loss_after_a_failed_sync_keeps_every_acknowledged_commit(
    failing: range, checkpoint_pages: int, tmp_path: Path
) -> None:
    """What was written before it, unsynced, is gone: neither later commits nor a checkpoint may hang on it."""
    recording = await record_failed_syncs(failing, checkpoint_pages)
    failed = [position for position, entry in enumerate(recording.log, 1) if isinstance(entry, FailedSync)]
    assert len(failed) == len(failing)
    for cut, number, image in images(recording, failing.start, 15):
        if cut >= failed[0] and (number == 0 or cut <= failed[-1] + MENDING):
            faults = faults_of(recording, cut, image, tmp_path)
            assert faults <= {"no prefix"}, f"cut {cut}, image {number}: {faults}"  # the failed commit may be there


@pytest.mark.parametrize("policy", [FULL, NORMAL])
async def test_new_node_activates_every_actor_at_once_after_a_power_loss(policy: Policy, tmp_path: Path) -> None:
    recording = await record(6, policy)
    for cut, number, image in islice(images(recording, 6, 1), 0, None, 60):
        folder = tmp_path / f"{cut}-{number}"
        folder.mkdir()
        lay_down(image, folder)
        found = read(folder) or {}
        async with (
            open_sqlite(folder / "store.db", clock=ManualClock(REBOOTED)) as store,
            Node(store, [suite], hand_over_seconds=0) as node,
        ):
            for actor_id in IDS:
                before: dict[str, Any] = (
                    found[actor_id].states["main"] if actor_id in found else {"mark": "2.0.0", "n": 0}
                )
                pending = MARKS.index(before["mark"])
                assert await node.actor(car, actor_id).count(5) == before["n"] + pending + 1, (cut, number)
        assert not any(map(is_torn, (read(folder) or {}).values())), (cut, number)


# --- the long versions ---------------------------------------------------------------------------------------------


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 120))
async def test_power_loss_keeps_every_acknowledged_commit_in_10_000_images(seed: int, tmp_path: Path) -> None:
    counts = await survey(seed, FULL, tmp_path, a_cut=19)
    assert counts["images"] >= 10_000


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(200, 202))
async def test_power_loss_with_synchronous_normal_loses_a_suffix_in_10_000_images(seed: int, tmp_path: Path) -> None:
    counts = await survey(seed, NORMAL, tmp_path, a_cut=19, allowed=LOST)
    assert counts["images"] >= 10_000
    assert counts["lost"] > 0
