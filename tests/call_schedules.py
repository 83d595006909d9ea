"""A fleet whose calls travel, for schedules drawn from a seed: strikes are aimed at the steps of a call.

Processes without suites call an actor that those of old and new releases serve; one action only the newest has. What
strikes is drawn beside where it strikes: at a call that is sent, taken, answered, passed on, cancelled or given up as
lost, before or after that takes effect, its process is killed or stands still, or the store fails. Meanwhile nodes are
drained. What must hold is what `tests.schedules` says: no call takes effect twice, and none that was told as refused.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazymig.testing.simulation import choice, flip, randint
from tests.aims import Aim
from tests.schedules import RELEASES, STALLS, Fleet, Seat, World, renew

if TYPE_CHECKING:
    from collections import Counter

    from tests.keeps import Keep

STEPS = ("send", "take", "answer", "forward", "cancel", "lose", "remove", "claim", "commit")
AIM_SECONDS = 2.0
"""How long a step is waited for."""


async def run_calls(keep: Keep, counts: Counter[Any]) -> None:
    """Let a fleet live whose calls travel, and check what became of the actor; add to the counts, see `Sights`."""
    await renew(keep)
    fleet = Fleet(World(keep))
    for number, upto in enumerate((RELEASES[-1], choice(RELEASES))):
        fleet.start(f"pod-{number}", upto, clients=randint(0, 1))
    for number in range(randint(1, 2)):
        fleet.start(f"client-{number}", "", clients=randint(2, 3))
    for _ in range(randint(1, 4)):
        if flip(0.2):
            await _drain(choice(fleet.seats))
        else:
            await _aim(fleet)
    await fleet.end()
    counts.update(fleet.world.sights.counts)


async def _drain(seat: Seat) -> None:
    if seat.inner is not None and seat.node is not None and seat.process.is_alive:
        await seat.inner.drain(seat.node.node_id)


async def _aim(fleet: Fleet) -> None:
    """Let something strike the first process that comes to a step; who was killed is started again."""
    aim = Aim(choice(STEPS), choice(["before", "after"]), choice(["kill", "stop", "fail"]), choice(STALLS))
    fleet.world.sights.aim = aim
    with suppress(TimeoutError):
        async with asyncio.timeout(AIM_SECONDS):
            await aim.has_struck.wait()
    fleet.world.sights.aim = None
    if aim.victim is not None and not aim.victim.is_alive:
        upto = next(seat.upto for seat in fleet.seats if seat.process is aim.victim)
        fleet.start(aim.victim.name, upto, clients=1)
