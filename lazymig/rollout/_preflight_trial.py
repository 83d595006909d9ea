"""One actor brought up on a copy by what an activation uses, and down again.

Brought down again is what migrations made of the actor as it is stored. An actor with a base isn't: what newer software
kept of it was made of something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig._holding import values_of
from lazymig._running import REHEARSING
from lazymig._version import is_newer_major
from lazymig.activation import Activation
from lazymig.errors import ActivationError, NewerStateError, StoreError
from lazymig.hooks import MigrationApplied
from lazymig.rollout._preflight_copy import previous_size, read_entries
from lazymig.rollout._preflight_differences import first_difference
from lazymig.rollout._preflight_report import MAX_ENTRIES, Difference
from lazymig.rollout._sweep_report import FailedActor
from lazymig.rollout._sweep_singles import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazymig._entries import Entry, Place
    from lazymig._lease import Lease
    from lazymig._migrations import Migration
    from lazymig.hooks import Event
    from lazymig.rollout._preflight_copy import Copied
    from lazymig.suite import ActorType


class Trial(NamedTuple):
    """What came of trying an actor.

    Attributes:
        is_stored: Whether something would have been stored.
        seconds: How long it took to bring it up.
        states_before: Bytes of its states.
        states_after: Likewise, afterwards.
        after: Bytes of all that would be stored of it.
        differences: Between what is stored and what was brought up and down again; None: that wasn't compared.
        has_run: Whether a migration or conversion ran that could be brought down again.
        failure: Why it failed; None if it did not.
        is_newer: Whether it is newer by a major than this software.
    """

    is_stored: bool = False
    seconds: float = 0.0
    states_before: int = 0
    states_after: int = 0
    after: int = 0
    differences: list[Difference] | None = None
    has_run: bool = False
    failure: FailedActor | None = None
    is_newer: bool = False


async def tried(actor_type: ActorType[Any], copied: Copied, clock: Callable[[], float]) -> Trial:
    """Bring a copy up, as a sweep does it, and down again.

    Args:
        actor_type: Its type.
        copied: The copy.
        clock: Seconds.

    Raises:
        StoreError: Of what migrations use.
    """
    ran: list[Migration] = []

    def note(event: Event) -> None:
        if isinstance(event, MigrationApplied):
            ran.extend(step for step in actor_type.chain.migrations if step.version == event.version)

    key, lease = copied.actor.key, copied.lease
    activation = Activation(key, actor_type, lease, hooks=(note,), is_block=True, activation_seconds=PATIENCE_SECONDS)
    token = REHEARSING.set(True)
    started = clock()
    try:
        is_stored = await activation.settle()
        seconds = clock() - started
        entries, _ = await read_entries(lease.store, key) if copied.entries else ({}, True)
        comparison = _Comparison(actor_type, activation, copied, ran, entries)
        return Trial(
            is_stored,
            seconds,
            sum(map(len, copied.actor.states.values())),
            sum(map(len, lease.states.values())),
            _size(lease, entries) + (await previous_size(lease.store, key) or copied.kept),
            await comparison.run(),
            comparison.has_run,
        )
    except StoreError:
        raise
    except Exception as error:  # a context factory may raise anything
        if isinstance(error, NewerStateError) and _is_newer(copied, actor_type):
            return Trial(is_newer=True, seconds=clock() - started)
        return Trial(failure=_failed(copied, error), seconds=clock() - started)
    finally:
        REHEARSING.reset(token)
        activation.close()


def _is_newer(copied: Copied, actor_type: ActorType[Any]) -> bool:
    stamp = copied.actor.stamp
    return stamp is not None and is_newer_major(stamp.applied.highest, actor_type.chain.release.highest)


def _failed(copied: Copied, error: Exception) -> FailedActor:
    failed = FailedActor.of(copied.actor.key, error)
    if copied.is_whole:
        return failed
    told = f"{failed.error} (Of its entries the first {len(copied.entries):,} were there: {MAX_ENTRIES:,} are copied.)"
    return FailedActor(failed.key, failed.version, told)


def _size(lease: Lease, entries: Mapping[Place, Entry]) -> int:
    kept = () if lease.base is None else lease.base.states.values()
    sizes = [*map(len, lease.states.values()), *(len(entry.data) for entry in entries.values())]
    return sum(sizes) + sum(len(of.data) for of in kept if of.data is not None)


class _Comparison:
    """Brings an actor down again that was brought up, and compares.

    Attributes:
        has_run: Whether there was something to bring down.
    """

    def __init__(
        self,
        actor_type: ActorType[Any],
        activation: Activation,
        copied: Copied,
        ran: Sequence[Migration],
        entries: Mapping[Place, Entry],
    ) -> None:
        self._chain = actor_type.chain
        self._activation = activation
        self._copied = copied
        self._ran = ran
        self._entries = entries
        self.has_run = bool(ran)

    async def run(self) -> list[Difference] | None:
        """Return what differs; None if something could not be compared."""
        if self._copied.actor.base is not None:
            return None
        states, entries = await self._of_states(), await self._of_entries()
        return None if states is None or entries is None else states + entries

    async def _of_states(self) -> list[Difference] | None:
        if any(step.downgrade is None for step in self._ran):
            return None
        actor, lease = self._copied.actor, self._copied.lease
        full: Mapping[str, bytes] = lease.states
        if lease.base is not None:
            full = values_of(lease.base, lease.states)
        try:
            low = await self._activation.lowered(full, tuple(reversed(self._ran)))
        except ActivationError as error:
            return [Difference(actor.key, state=self._activation.state().name, error=str(error))]
        places = {name: first_difference(actor.states.get(name), low.get(name)) for name in {*actor.states, *low}}
        return [Difference(actor.key, state=name, path=path) for name, path in sorted(places.items()) if path]

    async def _of_entries(self) -> list[Difference] | None:
        """Compare entries that were converted; the first one of each table that differs is named."""
        found: dict[str, Difference] = {}
        for place, before in self._copied.entries.items():
            after = self._entries.get(place)
            if after is None or place[0] in found or after.data == before.data:
                continue
            self.has_run = True
            if not self._has_way_down(place[0], before, after):
                return None
            difference = await self._of_entry(place, before, after)
            if difference is not None:
                found[place[0]] = difference
        return [*found.values()]

    def _has_way_down(self, table: str, before: Entry, after: Entry) -> bool:
        steps = [
            step
            for step in self._chain.migrations
            if after.applied.has(step.packed) and not before.applied.has(step.packed) and table in step.conversions
        ]
        is_late = any(step.packed < before.applied.highest for step in steps)
        return not is_late and all(step.conversions[table].downgrade is not None for step in steps)

    async def _of_entry(self, place: Place, before: Entry, after: Entry) -> Difference | None:
        key = self._copied.actor.key
        try:
            lowered = await self._activation.lowered_entries({place: after}, before.applied.highest)
        except ActivationError as error:
            return Difference(key, table=place[0], entry=place[1], error=str(error))
        low = lowered[place]
        path = first_difference(before.data, None if low is None else low.data)
        return None if path is None else Difference(key, table=place[0], entry=place[1], path=path)
