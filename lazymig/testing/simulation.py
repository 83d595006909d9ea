"""Several processes in one, under a scheduler that draws every interleaving from a seed; time is virtual.

All of detangle that lazymig uses is named here, its checker of histories (`lin`) too: another scheduler would change
this file alone. Its random strategy is the one to use: its default one starves callbacks, and with them anyio's cancel
scopes.

A scenario is an async function without arguments that makes everything anew. What it leaves to chance it takes from
`choice`, `flip` and `randint`, and waits by `asyncio.sleep`; then a schedule follows from its seed, and one that fails
is shrunk to the few decisions that matter.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import detangle
from detangle import History, choice, flip, inject_cancellation, lin, randint

from lazymig.fleet import Beats, Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from detangle._loop import Lane

    from lazymig.fleet import Membership
    from lazymig.store import Store

__all__ = [
    "SILENCE_SECONDS",
    "History",
    "Killed",
    "Process",
    "choice",
    "explore",
    "flip",
    "inject_cancellation",
    "lin",
    "randint",
    "replay",
]

_CONFIG = detangle.SimConfig(timer_jitter=0.05, max_steps=100_000, max_time=10_000.0)
"""Timers come up to 0.05 s late; a schedule that ends neither in steps nor in virtual seconds hangs."""

SILENCE_SECONDS = 10.0
"""How long a simulated event loop may be blocked before its heart stops: less than a real one, to save steps."""

STALL_CHANCE = 0.02
"""How often a process stands still where it passes a gate: a few times in a schedule."""


def explore(scenario: Callable[[], Coroutine[Any, Any, None]], *, schedules: int, seed: int) -> detangle.ExploreStats:
    """Run a scenario under that many schedules drawn from a seed.

    Returns:
        Numbers of runs, distinct interleavings and steps.

    Raises:
        AssertionError: A schedule failed; its text has the seed, the shrunk interleaving, and the token for `replay`.
    """
    with _collecting_between():
        return detangle.explore(
            _repeatable(scenario), runs=schedules, strategy="random", seed=seed, config=_CONFIG, database=False,
            name=getattr(scenario, "func", scenario).__name__,
        )  # fmt: skip


def replay(scenario: Callable[[], Coroutine[Any, Any, None]], token: str) -> None:
    """Run a scenario once under the schedule that a failure printed.

    Raises:
        AssertionError: It fails again.
    """
    with _collecting_between():
        detangle.replay(_repeatable(scenario), token, config=_CONFIG)


@contextmanager
def _collecting_between() -> Iterator[None]:
    """Collect garbage after each schedule only: within one, what a killed process left could end anywhere.

    What exists already is passed over, so that this costs little.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _repeatable(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Let no step depend on when garbage is collected."""

    async def run() -> None:
        gc.collect()  # of the schedule before
        await scenario()
        detangle.current_loop()._asyncgens.clear()  # noqa: SLF001  (all have ended; those left would be closed again)

    return run


class Killed(BaseException):
    """Raised wherever a killed process would go on."""


class Process:
    """A simulated process: what it runs can be stopped, blocked or killed from outside.

    Its nodes must be made under `lazymig.fleet.on_machine` with its `machine`, on a store that awaits its `gate` around
    each operation, such as ``FaultyStore(store, process.gate)``.

    Args:
        name: For people; the same one for a process that is started again.
        number: Tells it from the others of its name.
        stalls: Seconds it may stand still by itself where it passes a gate; drawn at `STALL_CHANCE`.

    Attributes:
        is_alive: Whether it was not killed.
    """

    def __init__(self, name: str, number: int = 0, stalls: Sequence[float] = ()) -> None:
        self.name = name
        self.is_alive = True
        self._stalls = stalls
        self._host = f"{name}.{number}"
        self._numbers = count(1)
        self._blocked_until = 0.0

    def __repr__(self) -> str:
        """Show its name."""
        return f"<Process {self._host}>"

    @property
    def machine(self) -> Machine:
        """The machine its nodes run on: virtual time, and a heart that stands still when the process does."""
        return Machine(asyncio.get_running_loop().time, self._draw, partial(_LoopHeart, process=self))

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin to run a coroutine in it; the tasks that it makes are the process's too."""
        return detangle.spawn(main, host=self._host)

    async def gate(self) -> None:
        """Let others have their turn; pass when the process runs.

        Raises:
            Killed: It never will again.
        """
        await self.beat_gate()
        while (left := self._blocked_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)
            await self.beat_gate()

    async def beat_gate(self) -> None:
        """See `gate`; passed by a heart even while the event loop is blocked."""
        if self._stalls and flip(STALL_CHANCE):
            self.stop(choice(self._stalls))
        await asyncio.sleep(0)
        if not self.is_alive:
            raise Killed(self._host)

    @property
    def is_blocked(self) -> bool:
        """Whether its event loop stands still."""
        return asyncio.get_running_loop().time() < self._blocked_until

    def stop(self, seconds: float) -> None:
        """Let it stand still, heartbeats and all, and then go on: SIGSTOP, SIGCONT."""
        if self.is_alive:
            _Ice.on(detangle.current_loop()).freeze(self._host, seconds)

    def block(self, seconds: float) -> None:
        """Let its event loop stand still, at its gates, while its heart beats on."""
        self._blocked_until = max(self._blocked_until, asyncio.get_running_loop().time() + seconds)

    def kill(self) -> None:
        """End it: nothing of it has an effect from now on."""
        self.is_alive = False
        _Ice.on(detangle.current_loop()).thaw(self._host)
        for task in self._tasks():
            task.cancel()

    async def reap(self) -> None:
        """Wait until nothing of a killed process is left."""
        while left := [task for task in self._tasks() if not task.done()]:
            await asyncio.wait(left)
        for task in self._tasks():
            _check_ended(task)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        loop = detangle.current_loop()
        return [task for task in loop.tasks if loop.task_info[task].host == self._host]

    def _draw(self) -> str:
        return f"{self._host}.{next(self._numbers)}"


class _Ice:
    """Processes of a loop that stand still: their tasks are queued, and not run.

    detangle has no such thing, and is pinned: this is the one place that reaches into its loop.
    """

    def __init__(self, loop: detangle.SimLoop) -> None:
        self._loop = loop
        self._until: dict[str | None, float] = {}
        self._enqueue = loop._enqueue_lane  # noqa: SLF001
        loop._enqueue_lane = self._enqueue_unless_frozen  # type: ignore[method-assign]  # noqa: SLF001
        self._active = loop._active  # noqa: SLF001

    @classmethod
    def on(cls, loop: detangle.SimLoop) -> _Ice:
        """Return the loop's own."""
        found: _Ice | None = vars(loop).get("lazymig_ice")
        if found is None:
            found = vars(loop)["lazymig_ice"] = cls(loop)
        return found

    def freeze(self, host: str, seconds: float) -> None:
        """Let a host stand still."""
        until = max(self._until.get(host, 0.0), self._loop.time() + seconds)
        self._until[host] = until
        for lane in list(self._active.values()):
            if self._host(lane) == host:
                del self._active[lane.id]
        self._loop.call_at_exact(until, self._thaw_at, host, until)

    def thaw(self, host: str) -> None:
        """Let it go on."""
        self._until.pop(host, None)
        for task in self._loop.tasks:
            lane = self._loop.task_info[task].lane
            if lane.queue and self._host(lane) == host:
                self._active[lane.id] = lane

    def _thaw_at(self, host: str, until: float) -> None:
        if self._until.get(host) == until:
            self.thaw(host)

    def _enqueue_unless_frozen(self, lane: Lane, handle: asyncio.Handle) -> None:
        self._enqueue(lane, handle)
        if self._host(lane) in self._until:
            self._active.pop(lane.id, None)

    def _host(self, lane: Lane) -> str | None:
        return None if lane.task is None else self._loop.task_info[lane.task].host


def _check_ended(task: asyncio.Task[Any]) -> None:
    """Take note of how a task of a killed process ended; only what was asserted before its end counts."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, AssertionError):
        raise error


class _LoopHeart:
    """Beats on the simulated loop, in place of the thread."""

    def __init__(self, membership: Membership, store: Store, process: Process) -> None:
        self._beats = Beats(membership, store, SILENCE_SECONDS)
        self._interval = membership.beat_seconds
        self._process = process

    def start(self) -> None:
        """See `Heart.start`."""
        self._task = asyncio.create_task(self._run(), name=f"heart of {self._beats.node_id}")

    async def stop(self) -> None:
        """See `Heart.stop`."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._beats.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if not self._process.is_blocked:
                self._beats.note_answer()
            if self._beats.is_silent:
                continue
            await self._process.beat_gate()
            note_outcome = self._beats.send()
            await self._process.beat_gate()
            note_outcome()
