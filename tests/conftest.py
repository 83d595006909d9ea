from __future__ import annotations

import gc
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from lazymig import _eager, open_store
from tests import postgres
from tests.eager_logs import CHUNK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from pathlib import Path

    from lazymig.store import Store


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Trace no test marked no_cover: in the processes of xdist pytest-cov pauses one of its two tracers only."""
    if item.get_closest_marker("no_cover") is None:
        return (yield)
    trace, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(trace)
        threading.settrace(of_threads)


@pytest.fixture(scope="session", autouse=True)
def _nothing_old_is_garbage() -> None:
    """Let tests that collect garbage look through what came since they began: all else lives as long as they run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres":
        with postgres.schema_url() as url:
            yield url
    else:
        yield "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        yield store


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let eager conversions store few entries in a transaction."""
    monkeypatch.setattr(_eager, "PAGE_ENTRIES", CHUNK)
