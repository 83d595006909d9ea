"""What tests of the commands of rolling deploys share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lazymig import Node, open_store
from lazymig.testing.releases import release
from suites import vehicles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from tests.cli_project import Project


@asynccontextmanager
async def running(project: Project, label: str = "web-1", upto: str = "2.0.0") -> AsyncIterator[Node]:
    suite = release(vehicles.suite, upto)
    async with open_store(project.url) as store, Node(store, [suite], label=label, build="2026.11") as node:
        yield node


def within(project: Project, work: Any) -> None:
    async def run() -> None:
        async with open_store(project.url) as store:
            await work(store)

    asyncio.run(run())


def lines(result: Any) -> list[str]:
    """Return the lines of stdout with single spaces."""
    return [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()]


def beside(call: Any, *arguments: Any, **options: Any) -> Coroutine[Any, Any, Any]:
    """Run a command beside the nodes of this event loop."""
    return asyncio.to_thread(call, *arguments, **options)
