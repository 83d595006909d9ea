"""Processes that copy are killed by SIGKILL: only whole actors are there, and the next copy goes on."""

from __future__ import annotations

import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest

from lazymig import open_store
from lazymig._records import ActorKey, Fence, NodeRecord
from lazymig.errors import CorruptStateError
from lazymig.transfer import CopyReport, _contents, _copy, copy
from tests import postgres
from tests.copying import TYPE, all_of, fill, fill_large
from tests.processes import Line, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lazymig.store import Store

pytestmark = pytest.mark.no_cover  # tracing would add a third to their time, and other tests cover the same lines

LARGE = ActorKey(TYPE, "large")


@pytest.fixture(params=["sqlite", "postgres"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres":
        with postgres.schema_url() as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path}/target.db"


SMALL = ((_copy, "MAX_BATCH_ACTORS", 50), (_copy, "MAX_BATCH_BYTES", 100_000), (_contents, "PAGE_ENTRIES", 50))
"""Batches and pages of which there are many, of few actors."""


async def copier(line: Line, source_url: str, target_url: str, moment: int, *, is_small: bool) -> None:
    """Copy; tell once, after so many batches and pages, and go on."""
    for module, name, value in SMALL if is_small else ():
        setattr(module, name, value)
    steps = count(1)

    def tell(report: CopyReport) -> None:
        if next(steps) == moment:
            line.tell(report.copied)

    async with open_store(source_url) as source, open_store(target_url) as target:
        await copy(source, target, progress=tell)


async def kill_after(moment: int, source_url: str, target_url: str, *, is_small: bool = True) -> int:
    """Let a process copy so many batches and pages, and kill it; return how many actors it had copied by then."""
    with Worker(partial(copier, is_small=is_small), source_url, target_url, moment) as worker:
        copied: int = await worker.hear()
        worker.kill()
        return copied


async def has_draft(store: Store) -> bool:
    """Tell whether the large actor is there in part; check that nobody can have it then."""
    if await store.read(LARGE) is not None or not await store.tables(LARGE):
        return False
    await store.register(NodeRecord("n1", "n1", None, 1000.0))
    with pytest.raises(CorruptStateError, match="copy"):
        await store.claim(LARGE, Fence("n1", 1))
    await store.forget("n1")
    return True


async def test_a_copy_that_is_killed_again_and_again_becomes_whole(target_url: str, tmp_path: Path) -> None:
    source_url = f"sqlite:///{tmp_path}/source.db"
    drafts = 0
    async with open_store(source_url) as source:
        await fill(source, 2_000)
        await fill_large(source, LARGE, 4_000)
        whole = await all_of(source)
        for moment in (3, 30, 60, 80):
            await kill_after(moment, source_url, target_url)
            async with open_store(target_url) as target:
                assert (await all_of(target)).items() <= whole.items()
                drafts += await has_draft(target)
        async with open_store(target_url) as target:
            report = await copy(source, target)
            assert report.is_identical
            assert report.copied + report.present == report.compared == 2_001
            assert await all_of(target) == whole
    assert drafts > 0


@pytest.mark.stress
@pytest.mark.timeout(600)
async def test_fifty_thousand_actors_are_copied_by_a_process_that_is_killed_half_way(
    target_url: str, tmp_path: Path
) -> None:
    source_url = f"sqlite:///{tmp_path}/source.db"
    async with open_store(f"{source_url}?synchronous=normal") as source:
        await fill(source, 50_000)
        await fill_large(source, LARGE, 100_000)
        began_at = time.monotonic()
        assert 20_000 <= await kill_after(55, source_url, target_url, is_small=False) <= 30_000
        seconds = time.monotonic() - began_at
        async with open_store(target_url) as target:
            began_at = time.monotonic()
            report = await copy(source, target)
            print(
                f"first half {seconds:.1f} s, the rest and the comparison {time.monotonic() - began_at:.1f} s, {report}"
            )
            assert report.is_identical
            assert report.copied >= 20_000
            assert report.compared == 50_001
            assert report.types[0].source == report.types[0].target
