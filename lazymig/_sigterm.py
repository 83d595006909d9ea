"""SIGTERM drains the nodes of a process before it ends it, unless the application handles the signal itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from typing import Protocol

_log = logging.getLogger("lazymig.node")


class Drainable(Protocol):
    """A node."""

    label: str

    async def drain(self) -> None:
        """Give all actors up."""
        ...


_watched: dict[asyncio.AbstractEventLoop, list[Drainable]] = {}
_drains: set[asyncio.Task[None]] = set()


def watch(node: Drainable) -> None:
    """Drain the node on SIGTERM, if nobody else handles it and this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    if loop in _watched:
        _watched[loop].append(node)
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    try:
        loop.add_signal_handler(signal.SIGTERM, _begin, loop)
    except (NotImplementedError, RuntimeError):  # a loop without signals
        return
    _watched[loop] = [node]


def unwatch(node: Drainable) -> None:
    """Let SIGTERM do what it did before, once no node is left."""
    loop = asyncio.get_running_loop()
    nodes = _watched.get(loop, [])
    if node in nodes:
        nodes.remove(node)
        if not nodes:
            del _watched[loop]
            loop.remove_signal_handler(signal.SIGTERM)


def _begin(loop: asyncio.AbstractEventLoop) -> None:
    if not _drains:
        task = loop.create_task(_drain_and_end(loop))
        _drains.add(task)
        task.add_done_callback(_drains.discard)


async def _drain_and_end(loop: asyncio.AbstractEventLoop) -> None:
    nodes = list(_watched.get(loop, []))
    _log.info("SIGTERM: draining %s", ", ".join(node.label for node in nodes))
    for result in await asyncio.gather(*(node.drain() for node in nodes), return_exceptions=True):
        if isinstance(result, Exception):
            _log.warning("a node could not be drained: %s", result)
    loop.remove_signal_handler(signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
