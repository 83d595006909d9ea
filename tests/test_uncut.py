"""What a cancellation does not cut off: its end comes first, then the cancellation goes on."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from lazymig._uncut import End, finish, uncut
from tests.test_node import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Guard = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]

guards = pytest.mark.parametrize("guard", [finish, uncut])


class Work:
    """Waits in several ways, and notes that it came to its end."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.notes: list[str] = []

    async def run(self, error: Exception | None = None) -> str:
        self.notes.append("begun")
        await asyncio.sleep(0)
        await self.gate.wait()
        await asyncio.sleep(0)
        self.notes.append("ended")
        if error is not None:
            raise error
        return "result"


@guards
async def test_it_returns_and_raises_as_await_does(guard: Guard) -> None:
    work = Work()
    work.gate.set()
    assert await guard(work.run()) == "result"
    error = ValueError("as asked")
    with pytest.raises(ValueError, match="as asked") as caught:
        await guard(work.run(error))
    assert caught.value is error


@pytest.mark.parametrize("is_cut", [True, False])
async def test_the_end_of_a_task_is_awaited_within_a_guard_too(is_cut: bool) -> None:  # noqa: FBT001
    gate = asyncio.Event()
    task = asyncio.create_task(gate.wait())

    async def run() -> str:
        await End(task)
        return "result"

    guarded = asyncio.create_task(uncut(run()))
    await settle()
    if is_cut:
        guarded.cancel()
        await settle()
    assert not guarded.done()
    gate.set()
    await asyncio.wait([guarded])
    assert guarded.cancelled() == is_cut
    assert is_cut or guarded.result() == "result"


async def test_who_awaits_the_end_of_a_task_is_cancelled_at_once_and_the_task_is_not() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(gate.wait())

    async def run() -> None:
        await End(task)

    waiting = [asyncio.create_task(run()) for _ in range(3)]
    await settle()
    for _ in range(2):
        waiting[0].cancel("enough")
    await asyncio.wait(waiting[:1])
    with pytest.raises(asyncio.CancelledError, match="enough"):
        waiting[0].result()
    gate.set()
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
    assert task.result()
    await run()


async def test_who_is_cancelled_when_a_task_has_just_ended_is_cancelled_once() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(gate.wait())
    notes: list[str] = []

    async def run() -> None:
        try:
            await End(task)
        except asyncio.CancelledError:
            notes.append("cancelled")
            await asyncio.sleep(0)
            notes.append("tidied up")
            raise

    waiting = asyncio.create_task(run())
    await settle()
    task.add_done_callback(lambda _: waiting.cancel())
    gate.set()
    await asyncio.wait([waiting])
    assert notes in ([], ["cancelled", "tidied up"])


@guards
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("error", [None, ValueError("lost")])
async def test_a_cancellation_comes_after_its_end(guard: Guard, times: int, error: Exception | None) -> None:
    work = Work()
    task = asyncio.create_task(guard(work.run(error)))
    await settle()
    for _ in range(times):
        task.cancel()
        await settle()
    assert (task.done(), work.notes) == (False, ["begun"])
    work.gate.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert work.notes == ["begun", "ended"]


@guards
@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5, 6])
async def test_a_cancellation_at_any_turn_comes_after_its_end(guard: Guard, turns: int) -> None:
    work = Work()
    task = asyncio.create_task(guard(work.run()))
    asyncio.get_running_loop().call_soon(work.gate.set)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is not was_done
    assert work.notes == ["begun", "ended"]


@guards
async def test_a_cancelled_scope_does_not_keep_the_loop_busy(guard: Guard) -> None:
    """It cancels in every turn of the loop, unless it is kept out."""
    work = Work()

    async def run_scoped() -> None:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(0.01, scope.cancel)
            await guard(work.run())

    scoped = asyncio.create_task(run_scoped())
    await asyncio.sleep(0.05)
    for _ in range(200):
        await asyncio.sleep(0)
    assert not scoped.done()
    assert scoped.cancelling() < 10
    work.gate.set()
    await scoped
    assert work.notes == ["begun", "ended"]


@guards
async def test_a_timeout_around_it_comes_after_its_end(guard: Guard) -> None:
    work = Work()
    asyncio.get_running_loop().call_later(0.1, work.gate.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await guard(work.run())
    assert work.notes == ["begun", "ended"]


async def test_what_waits_for_nothing_takes_no_turn_of_the_loop() -> None:
    async def at_once() -> int:
        return 1

    turns: list[None] = []
    asyncio.get_running_loop().call_soon(turns.append, None)
    assert await uncut(at_once()) == 1
    assert turns == []


def test_an_event_loop_that_goes_closes_it() -> None:
    work: list[Work] = []
    closed: list[str] = []

    async def run() -> None:
        try:
            await work[0].gate.wait()
        finally:
            closed.append("closed")

    async def main() -> None:
        work.append(Work())
        coroutine = uncut(run())
        coroutine.send(None)
        coroutine.close()

    with suppress(RuntimeError):
        asyncio.run(main())
    gc.collect()
    assert closed == ["closed"]
