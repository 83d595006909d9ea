from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from lazymig.cli._interrupts import stopping


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_asks_for_a_stop_and_the_second_ends() -> None:
    with stopping() as stop:
        assert not stop.is_set
        interrupt()
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_after_the_block_ctrl_c_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        pass
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not stop.is_set


def test_within_an_event_loop_the_second_ctrl_c_cancels_the_work() -> None:
    seen: list[str] = []

    async def work() -> None:
        with stopping() as stop:
            interrupt()
            await asyncio.sleep(0)
            seen.append(f"stop {stop.is_set}")
            interrupt()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert seen == ["stop True", "cancelled"]


def test_ctrl_c_ends_a_wait_for_others() -> None:
    read, write = os.pipe()
    with stopping() as stop, os.fdopen(read, "rb") as waited_for, os.fdopen(write, "wb"):
        main = threading.main_thread().ident
        assert main is not None

        def wait() -> bytes:
            signal.pthread_kill(main, signal.SIGINT)
            return waited_for.read(1)

        assert stop.wait_for(wait) is None
        assert stop.wait_for(lambda: pytest.fail("it waits though it is to stop")) is None


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping() as stop:
            interrupt()
            assert not stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)
