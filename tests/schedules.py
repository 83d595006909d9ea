"""A fleet in one process, for schedules drawn from a seed: what its processes do, what is done to them, what must hold.

Two or three processes, of old and new releases, work on one actor: calls, blocks, shared reads, actions that raise or
take longer than a lease, callers that give up. Meanwhile processes stand still, are blocked, killed and started again,
forgotten by an operator, and their store calls fail. In the end another process must get the actor, the history must
be linearizable, and what is stored must be whole, read beside the library.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from lazymig import Node
from lazymig._calls import offers_of
from lazymig._records import NodeRecord
from lazymig._releases import starting
from lazymig.errors import (
    ActorLockedError,
    CallLostError,
    CallNotTakenError,
    LeaseLostError,
    NewerStateError,
    NodeDrainingError,
    NodeStoppedError,
    RemoteError,
    StoreError,
    StoreUnavailableError,
    UnknownActionError,
    UnknownActorTypeError,
)
from lazymig.fleet import on_machine
from lazymig.testing import Fault
from lazymig.testing.simulation import (
    SILENCE_SECONDS,
    History,
    Killed,
    Process,
    choice,
    flip,
    inject_cancellation,
    lin,
    randint,
)
from tests.aims import AimedStore, Sights
from tests.tallies import LATE, VERSIONS, NewestTally, load, raise_by, tallies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lazymig.store import Store
    from tests.keeps import Keep

LEASE_SECONDS = 2.0
PAUSES = (0.0, 0.25, LEASE_SECONDS / 2, 1.5 * LEASE_SECONDS)
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
STALLS = (0.5, 1.25 * LEASE_SECONDS, 2.25 * LEASE_SECONDS)
RELEASES = VERSIONS[1:]
PATIENCE_SECONDS = SILENCE_SECONDS + 50.0
"""How long the last process waits for the actor: clients that use it without a pause have ended by then, and whoever
holds it has given it up, or is taken for dead."""

NOTHING_STORED = (
    ActorLockedError, CallNotTakenError, LeaseLostError, NewerStateError, NodeDrainingError, NodeStoppedError,
    RuntimeError, UnknownActionError, UnknownActorTypeError,
)  # fmt: skip
"""What promises that; the RuntimeError is the actor's own, raised before it persists."""


class World:
    """What outlives the processes of a schedule.

    Attributes:
        keep: Where the actor is.
        sights: What is aimed at.
        history: The operations on it.
        closing: Set when the processes are to end.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.sights = Sights()
        self.history = History()
        self.closing = asyncio.Event()
        self._made = 0
        self._begun = 0

    def made(self) -> int:
        """See `Watch.made`."""
        self._made += 1
        return self._made

    def begins(self, serial: int) -> None:
        """See `Watch.begins`."""
        assert serial >= self._begun, "an action began on an actor that is active elsewhere (rule 8)"
        self._begun = serial

    def check(self) -> None:
        """Check the history, and what is stored."""
        applied, states = self.keep.read()
        self.history.ok(self.history.invoke("disk", "read"), states["main"]["n"])
        self.history.assert_linearizable(lin.Counter())
        assert states["main"] == states["echo"], f"states that were stored together differ (rule 4): {states}"
        marks = states["main"]["applied"]
        assert sorted(marks) == sorted({LATE, *VERSIONS}), f"not each migration once (rule 5): {marks}"
        assert list(applied) == sorted(marks), f"the stamp says {applied}, it was {marks} (rule 6)"


class Seat:
    """A process of the fleet: a node of a release, or without suites if that is "", and clients that use it."""

    def __init__(self, world: World, process: Process, upto: str) -> None:
        self.world = world
        self.process = process
        self.upto = upto
        self.made = world.made
        self.gate = process.gate
        self.node: Node | None = None
        self.store: AimedStore | None = None
        self.inner: Store | None = None

    def begins(self, serial: int) -> None:
        """See `Watch.begins`."""
        if not self.process.is_alive:
            raise Killed
        self.world.begins(serial)

    async def live(self, clients: int) -> None:
        """Run a node and its clients, and wait for the end."""
        async with self.world.keep.open() as self.inner:
            self.store = AimedStore(self.inner, self.process, self.kill, self.world.sights)
            with on_machine(self.process.machine):
                node = Node(
                    self.store,
                    [tallies(self)] if self.upto else [],
                    label=self.process.name,
                    lease_seconds=LEASE_SECONDS,
                    hand_over_seconds=choice([0.0, 1.0, 3.0]),
                    idle_seconds=choice([0.0, 0.5, 4.0]),
                )
            try:
                async with node:
                    self.node = node
                    await asyncio.gather(*(self._work(f"{self.process!r}{number}") for number in range(clients)))
                    await self.world.closing.wait()
            except StoreError:  # the start failed: as good as killed
                self.process.is_alive = False

    async def _work(self, client: str) -> None:
        for _ in range(randint(1, 4)):
            await asyncio.sleep(choice(PAUSES))
            calls = [self._add, self._add_newly, self._read, self._spoil, self._add_slowly]
            operation = choice([*calls, self._block] if self.upto else calls)
            if flip(0.1):
                await self._give_up(operation, client)
            else:
                await operation(client)

    async def _give_up(self, operation: Callable[[str], Awaitable[None]], client: str) -> None:
        task = asyncio.ensure_future(operation(client))
        inject_cancellation(task)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _add(self, client: str) -> None:
        number = randint(1, 3)
        await self._do(client, "add", number, lambda tally: tally.add(number))

    async def _add_newly(self, client: str) -> None:
        await self._do(client, "add", 1, lambda tally: tally.add_newly(1))

    async def _add_slowly(self, client: str) -> None:
        pause = randint(1, 8) * LEASE_SECONDS / 4
        await self._do(client, "add", 1, lambda tally: tally.add(1, pause))

    async def _read(self, client: str) -> None:
        await self._do(client, "read", None, lambda tally: tally.total())

    async def _spoil(self, client: str) -> None:
        await self._do(client, "add", 100, lambda tally: tally.spoil(100))

    async def _block(self, client: str) -> None:
        await self._do(client, "add", 10, lambda _: self.add_in_block(10))

    async def add_in_block(self, number: int) -> int:
        assert self.node is not None
        async with self.node.activate("Tally", "t") as activation:
            await load(activation, self.upto)
            total = raise_by(activation, number)
            await self.gate()
            await activation.persist(release=flip(0.5))
        return total

    async def _do(
        self, client: str, name: str, number: int | None, run: Callable[[NewestTally], Awaitable[int]]
    ) -> None:
        """Run an operation, and record what is known of its outcome."""
        assert self.node is not None
        operation = self.world.history.invoke(client, name, number)
        try:
            found = await run(self.node.actor("Tally", "t"))
        except NOTHING_STORED:
            self.world.history.fail(operation)
        except RemoteError as error:
            if error.type != "RuntimeError":
                raise
            self.world.history.fail(operation)
        except (StoreError, CallLostError):
            self.world.history.info(operation)
        except BaseException:
            self.world.history.info(operation)
            raise
        else:
            self.world.history.ok(operation, found)

    # --- what is done to it ------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Kill it; now and then somebody keeps its file locks, such as a forked child."""
        self.process.kill()
        if self.inner is not None and flip(0.7):
            self.world.keep.free_locks(self.inner)

    def fail(self) -> None:
        """Let one of its next store calls fail."""
        if self.store is not None:
            self.store.arm(Fault(randint(0, 4), choice(["before", "after", "later"]), "error"))

    async def forget(self) -> None:
        """Let it stand still, and an operator forget its node once it counts as dead."""
        self.process.stop(3 * LEASE_SECONDS)
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        if self.inner is not None and self.node is not None:
            await self.inner.unregister(self.node.node_id)


async def renew(keep: Keep) -> None:
    """Begin anew, every release having been there: the first pods of a newer one come while the older ones run."""
    await keep.renew()
    async with keep.open() as store:
        for number, upto in enumerate(VERSIONS):
            types = dict(tallies(Seat(World(keep), Process("before"), upto)).actor_types)
            node = NodeRecord(f"before-{number}", "before", None, LEASE_SECONDS, offers_of(types))
            await store.register(node, ruling=partial(starting, node, types, BEFORE))
            await store.unregister(node.node_id)


async def run_fleet(keep: Keep) -> None:
    """Let a fleet live, and check what became of the actor."""
    await renew(keep)
    fleet = Fleet(World(keep))
    for number in range(randint(2, 3)):
        fleet.start(f"pod-{number}", choice(RELEASES), clients=randint(1, 2))
    for _ in range(randint(0, 4)):
        await asyncio.sleep(randint(0, 16) / 8)
        await _disturb(fleet)
    await fleet.end()


class Fleet:
    """The processes of a schedule."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seats: list[Seat] = []
        self._mains: list[asyncio.Task[None]] = []

    def start(self, name: str, upto: str, clients: int) -> None:
        """Start a process of a release."""
        seat = Seat(self.world, Process(name, len(self.seats), STALLS), upto)
        self.seats.append(seat)
        self._mains.append(seat.process.start(seat.live(clients)))

    async def end(self) -> None:
        """Let another process get the actor, then all end; check what became of it."""
        judge = Seat(self.world, Process("judge"), VERSIONS[-1])
        await judge.process.start(_judge(judge))
        self.world.closing.set()
        for seat, main in zip(self.seats, self._mains, strict=True):
            if seat.process.is_alive:
                await main
            else:
                await seat.process.reap()
        self.world.check()


async def _disturb(fleet: Fleet) -> None:
    """Do something to one of the processes."""
    seat = choice(fleet.seats)
    match choice(["stop", "kill", "fail", "forget", "block"]):
        case "stop":
            seat.process.stop(choice(STALLS))
        case "block":
            seat.process.block(choice([3.0, 2 * PATIENCE_SECONDS]))
        case "fail":
            seat.fail()
        case "forget" if seat.process.is_alive:
            await seat.forget()
        case "kill" if seat.process.is_alive:
            seat.kill()
            fleet.start(seat.process.name, choice(RELEASES), clients=1)


async def _judge(seat: Seat) -> None:
    """Get the actor, whatever became of the others, and work on it."""
    async with seat.world.keep.open() as inner:
        with on_machine(seat.process.machine):
            node = Node(inner, [tallies(seat)], lease_seconds=1000.0, hand_over_seconds=PATIENCE_SECONDS)
        async with node:
            seat.node = node
            operation = seat.world.history.invoke("judge", "add", 1_000)
            while True:
                try:
                    total = await seat.add_in_block(1_000)  # a call might run where the actor is
                except StoreUnavailableError:  # a process stands still inside a write
                    continue
                break
            seat.world.history.ok(operation, total)
