"""What is done while the n-th store call fails: each scenario with the rules that it puts to the test."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazymig import errors, rollout
from lazymig._records import ActorKey, Claim, Commit, Fence, NodeRecord
from lazymig.codec import encode
from lazymig.transfer import export_states, import_json_lines, import_states
from tests.scenarios import GATES, LEASE_SECONDS, LEGACY, NEW_SOFTWARE, Build, World, up_to_date_and_consented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lazymig import Node

OLD = Build("1.1.0")
CONSENTING = Build(late=True)
WITHOUT_CONSENT = Build(late=False)
FAILING = Build(fails="2.0.0")
UNREADABLE = b'{"n": 0, "mar'


async def legacy(w: World) -> None:
    await w.put_legacy()


async def recovered(w: World) -> None:
    """Let a node that has nothing of the others' use the actor, at once."""
    await w.add_once()


async def retried(w: World) -> None:
    """Do so after an operator has let it be tried."""
    await rollout.retry(w.store, w.type)
    await recovered(w)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something done under faults.

    Attributes:
        run: What is done.
        rules: The rules it puts to the test, see tests/rules.py.
        prepare: What is done before, without faults.
        recover: What must be possible afterwards.
    """

    run: Callable[[World], Awaitable[None]]
    rules: tuple[int, ...]
    prepare: Callable[[World], Awaitable[None]] = legacy
    recover: Callable[[World], Awaitable[None]] = recovered

    @property
    def id(self) -> str:
        return f"{self.run.__name__}-rules{''.join(map(str, self.rules))}"


@contextmanager
def tried(w: World, *expected: type[Exception]) -> Iterator[None]:
    """Expect an error; the planted one may come in its place."""
    try:
        with w.journal.expecting(*expected):
            yield
    except errors.StoreError:
        return


# --- one node -------------------------------------------------------------------------------------------------------


async def by_block(w: World) -> None:
    async with w.node() as node, w.block(node) as hands:
        await hands.up()
        await hands.keep()
        await hands.keep()
        await hands.clear_notes()
        await hands.keep(release=True)


async def by_calls(w: World) -> None:
    async with w.node() as node:
        await w.add(node)
        w.look_at_lock()
        with tried(w, RuntimeError):
            await node.call(w.type, "a", "spoil")
        await w.add(node)
        w.look_at_lock()


async def by_load_alone(w: World) -> None:
    async with w.node() as node, w.block(node) as hands:
        await hands.load()
        await hands.keep("load")
        await hands.keep("load")


async def on_a_new_actor(w: World) -> None:
    async with w.node() as node:
        await w.add(node)
        await w.add(node)


async def nothing(w: World) -> None:
    """Prepare nothing."""


async def by_shared_actions(w: World) -> None:
    async with w.node() as node:
        calls = [node.call(w.type, "a", name) for name in ("total", "total", "add", "total")]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


async def by_letting_go(w: World) -> None:
    """The longest idle actor is evicted, and asked for again."""
    async with w.node(max_active=1) as node:
        await w.add(node)
        await w.add(node, "b")
        async with asyncio.timeout(20):
            await w.journal.let_go.wait()
        async with w.block(node) as hands:
            await hands.up()
            await hands.keep()


async def by_idling(w: World) -> None:
    async with w.node(idle_seconds=0) as node:
        await w.add(node)
        async with asyncio.timeout(20):
            await w.journal.let_go.wait()
        await w.add(node)


async def by_stopping(w: World) -> None:
    """A node stops while an action runs: it gets no grace, and can't store what it did."""
    name = w.type
    w.journal.cuts = 1  # deactivate() of "b" gets no grace either
    GATES[name], GATES[f"{name} ends"] = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(w.node(grace_seconds=0))
        await w.add(node, "b")
        holding = asyncio.create_task(node.call(w.type, "a", "hold", name))
        begun = asyncio.create_task(GATES[name].wait())
        try:
            await asyncio.wait([holding, begun], return_when=asyncio.FIRST_COMPLETED)
            await stack.aclose()
        finally:
            GATES[f"{name} ends"].set()
            begun.cancel()
            await asyncio.gather(holding, begun, return_exceptions=True)
        with tried(w, errors.LeaseLostError, errors.ActivationClosedError, errors.NodeStoppedError):
            await holding


# --- what is refused or fails ---------------------------------------------------------------------------------------


async def by_older_software(w: World) -> None:
    async with w.node(OLD) as node:
        await refused_everywhere(w, node, OLD, errors.NewerStateError)


async def refused_everywhere(w: World, node: Node, build: Build, error: type[Exception]) -> None:
    with tried(w, error):
        await w.add(node)
    with tried(w, error, errors.NotLoadedError):
        async with w.block(node, build) as hands:
            with tried(w, error):
                await hands.up()
            with w.journal.expecting(errors.NotLoadedError):
                await hands.store()
            await hands.main.clear()
    with tried(w, error):
        await node.call(w.type, "a", "total")


async def up_to_date(w: World) -> None:
    await w.put_legacy()
    await w.add_once()


async def still_refused(w: World) -> None:
    async with w.node(OLD, is_sound=True) as node:
        await refused_everywhere(w, node, OLD, errors.NewerStateError)
    await w.add_once()


async def by_newer_software_meanwhile(w: World) -> None:
    """A node that refused an actor doesn't keep it from one that can read it."""
    async with w.node(OLD) as older, w.node(hand_over_seconds=2) as newer:
        with tried(w, errors.NewerStateError):
            await w.add(older)
        async with w.block(newer) as hands:
            await hands.up()
        with tried(w, errors.NewerStateError):
            async with w.block(older, OLD) as hands:
                await hands.load()
        await w.add(newer)


async def without_consent(w: World) -> None:
    async with w.node(WITHOUT_CONSENT) as node:
        await refused_everywhere(w, node, WITHOUT_CONSENT, errors.LateMigrationError)


async def with_consent(w: World) -> None:
    async with w.node(CONSENTING) as node:
        await w.add(node)


async def recovered_with_consent(w: World) -> None:
    await w.add_once(CONSENTING)


async def on_unreadable_state(w: World) -> None:
    async with w.node() as node:
        await refused_everywhere(w, node, NEW_SOFTWARE, errors.CorruptStateError)


async def unreadable(w: World) -> None:
    await w.put("a", UNREADABLE)


async def still_unreadable(w: World) -> None:
    async with w.node(is_sound=True) as node:
        await refused_everywhere(w, node, NEW_SOFTWARE, errors.CorruptStateError)


async def unreadable_beside_main(w: World) -> None:
    """Make the other state unreadable, of an actor that is up to date."""
    await up_to_date(w)
    key, fence = ActorKey(w.type, "a"), Fence("spoiler", 1)
    await w.inner.register(NodeRecord("spoiler", "spoiler", None, LEASE_SECONDS))
    claim = await w.inner.claim(key, fence)
    assert isinstance(claim, Claim)
    actor = claim.actor
    await w.inner.commit(Commit(key, fence, actor.revision, actor.stamp, {"notes": UNREADABLE}, release=True))
    await w.inner.unregister("spoiler")


async def on_unreadable_notes(w: World) -> None:
    async with w.node() as node:
        for _ in range(2):
            with tried(w, errors.CorruptStateError):
                await w.add(node)


async def still_unreadable_notes(w: World) -> None:
    async with w.node(is_sound=True) as node:
        with w.journal.expecting(errors.CorruptStateError):
            await w.add(node)


async def by_failing_migration(w: World) -> None:
    async with w.node(FAILING) as node:
        for _ in range(2):
            with tried(w, errors.MigrationFailedError):
                await w.add(node)
            with tried(w, errors.MigrationFailedError, errors.QuarantinedError):  # the former if it wasn't recorded
                await w.add(node)
            assert await rollout.retry(w.store, w.type) == len([one async for one in rollout.quarantined(w.store)])
        async with w.block(node, FAILING) as hands:
            await hands.load()
            with tried(w, errors.MigrationFailedError):
                await hands.up()
            for state in (hands.main, hands.notes):
                with w.journal.expecting(errors.NotLoadedError):
                    assert state.value is None, "rule 1: what a failed migration made stays loaded"


# --- several nodes --------------------------------------------------------------------------------------------------


async def by_handing_over(w: World) -> None:
    """Two nodes in turn, each gives the actor up."""
    async with w.node() as first, w.node() as second:
        for node in (first, second, first):
            async with w.block(node) as hands:
                await hands.up()
                await hands.keep()
        await w.add(second)
        with tried(w, errors.ActorLockedError):
            await w.add(first)


async def by_taking_over(w: World) -> None:
    """A node falls silent in the midst of its work, another takes over, and the first one's write comes late."""
    async with w.node() as first:
        async with w.block(first) as hands:
            await hands.up()
            await hands.keep()
            w.clock.advance(LEASE_SECONDS)
            w.journal.overtaken((w.type, "a"))
            async with w.node() as second:
                await second.call(w.type, "a", "total")  # stores nothing: only the fence tells the two apart
                with tried(w, errors.LeaseLostError):
                    await hands.keep()
                await w.add(second)
                with tried(w, errors.LeaseLostError):
                    await hands.up()
        await w.add(first)


async def by_registering_anew(w: World) -> None:
    """Somebody forgets the node: its next commit is refused, and it registers anew."""
    async with w.node() as node:
        await w.add(node)
        await w.inner.unregister(node.node_id)
        with tried(w, errors.LeaseLostError):
            await w.add(node)
        await w.add(node)


# --- in and out -----------------------------------------------------------------------------------------------------

ROWS = [(f"i{number}", LEGACY) for number in range(5)]
LINES = [encode({"id": actor_id, "state": value}, "a line") for actor_id, value in ROWS]


async def by_import(w: World) -> None:
    announce(w)
    report = await import_states(w.store, w.type, ROWS, state="main")
    assert report.imported == len(ROWS)


def announce(w: World) -> None:
    w.journal.imported |= {(w.type, actor_id) for actor_id, _ in ROWS}


async def by_import_of_lines(w: World) -> None:
    announce(w)
    w.journal.imported.discard((w.type, "i1"))
    async with w.node() as node:
        await w.add(node, "i1")  # an actor that exists is left alone
        report = await import_json_lines(w.store, w.type, LINES, id_field="id", value_field="state", state="main")
    assert (report.imported, report.skipped) == (len(ROWS) - 1, 1), "rule 3: import wrote an actor that exists"


async def imported_again(w: World) -> None:
    """Run the same import again: it ends where the first one would have, and the actors can be used."""
    known = w.read()
    w.journal.imported |= {(w.type, actor_id) for actor_id, _ in ROWS} - set(known)
    report = await import_states(w.inner, w.type, ROWS, state="main")
    assert report.imported + report.skipped == len(ROWS)  # a batch that was cut off may have come in meanwhile
    assert {actor_id for _, actor_id in w.read()} == {actor_id for actor_id, _ in ROWS}
    async with w.node(is_sound=True) as node:
        for actor_id, _ in ROWS:
            await w.add(node, actor_id)


async def of_all_kinds(w: World) -> None:
    await w.put_legacy("a", "b", "c")
    await w.add_once()
    await w.add_once(OLD, "b")


async def by_export(w: World) -> None:
    rows = w.read()
    found: dict[tuple[str, str], Any] = {}
    async for record in export_states(w.store, w.type):
        found[record.key.type, record.key.id] = (record.revision, dict(record.states))
    assert found == {key: (row.revision, row.values) for key, row in rows.items()}


async def by_counting(w: World) -> None:
    rows = w.read()
    assert w.type in await w.store.types()
    census = await w.store.census(w.type)
    assert sum(census.values()) == len(rows)
    async with w.node() as node:
        record = await node.inspect(w.type, "a")
    assert record is not None
    assert record.revision == rows[w.type, "a"].revision


SCENARIOS = [
    Scenario(by_block, (3, 4, 5)),
    Scenario(by_calls, (3, 4, 5, 8, 9)),
    Scenario(by_load_alone, (3, 6)),
    Scenario(on_a_new_actor, (3, 4, 6), nothing),
    Scenario(by_shared_actions, (5, 8)),
    Scenario(by_letting_go, (3, 8)),
    Scenario(by_idling, (3, 8)),
    Scenario(by_stopping, (3, 8)),
    Scenario(by_older_software, (1, 2), up_to_date, still_refused),
    Scenario(by_newer_software_meanwhile, (2, 8), up_to_date),
    Scenario(without_consent, (1, 6), up_to_date_and_consented, recovered_with_consent),
    Scenario(with_consent, (4, 5, 6), up_to_date, recovered_with_consent),
    Scenario(on_unreadable_state, (1, 7), unreadable, still_unreadable),
    Scenario(on_unreadable_notes, (1, 7), unreadable_beside_main, still_unreadable_notes),
    Scenario(by_failing_migration, (1,), recover=retried),
    Scenario(by_handing_over, (3, 5, 8)),
    Scenario(by_taking_over, (3, 8)),
    Scenario(by_registering_anew, (3, 8)),
    Scenario(by_import, (3,), nothing, imported_again),
    Scenario(by_import_of_lines, (3,), nothing, imported_again),
    Scenario(by_export, (1, 6), of_all_kinds),
    Scenario(by_counting, (1, 6), of_all_kinds),
]
