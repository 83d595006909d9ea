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
    grace_seconds: float

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
    await asyncio.gather(*(_drain(node) for node in nodes))
    loop.remove_signal_handler(signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


async def _drain(node: Drainable) -> None:
    """Drain a node, as far as it can be in its grace time."""
    try:
        async with asyncio.timeout(node.grace_seconds):
            await node.drain()
    except TimeoutError:
        _log.warning("node %s was not drained within %g s", node.label, node.grace_seconds)
    except Exception as error:
        _log.warning("node %s could not be drained: %s", node.label, error)
