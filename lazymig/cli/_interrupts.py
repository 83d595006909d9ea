"""Ctrl-C of long work: the first lets it stop between two batches, the second ends it at once.

    with stopping() as stop:
        while not stop.is_set and (batch := await …):
            …
    if stop.is_set:
        raise Interrupted("1,200 actors imported. Run the same command again: it goes on.", counts)

Within an event loop the second Ctrl-C cancels the main task, as asyncio does it.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from lazymig.cli._output import INTERRUPTED, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

T = TypeVar("T")


class Interrupted(Refusal):
    """Ends a command that stopped where it was told to.

    Args:
        where: Where it stands, and what a second run does.
        document: What it has done so far, as the keys of its document.
    """

    def __init__(self, where: str, document: Mapping[str, Any]) -> None:
        super().__init__("interrupted", f"interrupted: {where}", INTERRUPTED, document)


class Stop:
    """Tells long work whether it is to stop.

    Attributes:
        is_set: It is.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._is_waiting = False

    def wait_for(self, read: Callable[[], T]) -> T | None:
        """Call what may wait for others, as a pipe's reader does; return None if it is to stop, or is told so there."""
        try:
            try:
                self._is_waiting = True
                return None if self.is_set else read()
            finally:
                self._is_waiting = False
        except _WaitEndedError:
            return None

    def set(self) -> None:
        """Let the work stop; what waits ends."""
        self.is_set = True
        if self._is_waiting:
            raise _WaitEndedError


class _WaitEndedError(Exception):
    """Is raised out of a wait, as a signal's handler does it."""


@contextmanager
def stopping() -> Iterator[Stop]:
    """Let the first Ctrl-C in the block set what it returns; the next ones do what they did before.

    Where Ctrl-C is ignored, and on another thread than the main one, it is never set.
    """
    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            before(number, frame)
        else:
            stop.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
