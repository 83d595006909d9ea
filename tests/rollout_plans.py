"""Plans drawn from a seed: nodes of three releases serve wallets, and an operator pins, flips and unpins.

Nodes restart, and crash in the middle of what they do; commits fail, or are cut off. After each step one release reads
the wallet that was touched, and the stamps are looked at; the census is what a recount of all actors gives; at the end
every release that the stamps promise a wallet to reads it, twice. `tests.rollout_books` says what must hold. There are
three variants: releases that mend by `reconcile` what older software stored; the same ones without it, that still lose
nothing as long as no older software stores in between; and one more release, with a late hotfix. A plan is a list of
steps, printed when it fails: give it to `Fleet.run` again, or its seed to the tests as LAZYMIG_SEED.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from lazymig import Node, errors, rollout
from lazymig._records import ActorKey
from lazymig._version import pack, parse, unpack
from lazymig.testing import Fault, FaultyStore
from tests import postgres, rollout_books
from tests.rollout_books import HOTFIXED, TABLE, Account, is_new
from tests.wallets import Wallets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from lazymig import Activation, Suite
    from lazymig._records import AppliedSet, StoredActor
    from lazymig.store import Store

RELEASES = ("1.1.0", "2.0.0", "2.1.0")
VERSIONS = ("1.0.0", *RELEASES)
IDS = ("a", "b")
KINDS = (
    *("load", "save", "save", "save", "save", "other", "other alone", "load then other", "only load", "clear"),
    *("put", "put alone", "entries", "cancel", "cancel after load", "open", "open loaded", "commit", "commit"),
    *("pin", "pin", "pin", "flip", "flip", "unpin", "restart", "stop", "crash"),
)
Variant = Literal["mended", "bare", "hotfixed"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
FAULTS = ("before error", "after error", "before cancel", "after cancel")
CENSUS_STEPS = 4
"""Steps from one look at the census to the next: it is dear on PostgreSQL."""

Step = tuple[str, ...]

REFUSED = (errors.NewerStateError, errors.ActorLockedError)
UNSTARTED = (errors.WriteVersionError, errors.MissingMigrationError, errors.LateMigrationError)


def releases_of(variant: Variant) -> tuple[str, ...]:
    """Return the releases that serve wallets."""
    return (*RELEASES[:2], HOTFIXED) if variant == "hotfixed" else RELEASES


def draw(seed: int, steps: int = 18) -> tuple[Variant, list[Step]]:
    """Return a plan, and for what."""
    rng = random.Random(seed)
    variant = VARIANTS[seed % len(VARIANTS)]
    releases = releases_of(variant)
    plan: list[Step] = []
    for _ in range(steps):
        kind = rng.choice(KINDS)
        if kind in {"pin", "flip"}:
            plan.append((kind, rng.choice(VERSIONS)))
        elif kind == "unpin":
            plan.append((kind,))
        elif kind.startswith("cancel"):
            plan.append((kind, rng.choice(releases), rng.choice(IDS), rng.choice(FAULTS)))
        else:
            plan.append((kind, rng.choice(releases), rng.choice(IDS)))
    return variant, plan


@contextmanager
def fresh(kind: str, folder: Path, seed: int) -> Iterator[str]:
    """Return the URL of a new store."""
    if kind == "postgres":
        with postgres.schema_url() as url:
            yield url
    else:
        yield "memory:" if kind == "memory" else f"sqlite:///{folder}/{seed}.db"


class Fleet:
    """A node of each release on one store, and what was acknowledged.

    Args:
        store: The store.
        variant: Which releases there are.
        actor_type: The name of the wallets' type: several fleets, one after another, can use a store.
    """

    def __init__(self, store: Store, variant: Variant = "mended", actor_type: str = "Wallet") -> None:
        self._store = store
        self._variant = variant
        self._type = actor_type
        wallets = Wallets(actor_type)
        if variant == "bare":
            for migration in wallets.suite.actor_types[actor_type].migrations[:-1]:
                migration.reconciler = None  # but that of the last, a minor one: its shape would never come back
        mended = Wallets(actor_type, is_hotfixed=True)
        self._suites: dict[str, Suite] = {
            name: (mended if name == HOTFIXED else wallets).release(name.split()[0]) for name in releases_of(variant)
        }
        self._nodes: dict[str, tuple[Node, FaultyStore]] = {}
        self._open: dict[tuple[str, str], tuple[AsyncExitStack, Activation]] = {}
        self._accounts = {actor: Account() for actor in IDS}
        self._seen: dict[str, StoredActor | None] = dict.fromkeys(IDS)  # since the last change of the write version
        self._written: int | None = None
        self._number = 0
        self.done: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for name in self._suites:
            await self._start(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for key in [*self._open]:
            await self._leave(*key)
        for name in [*self._nodes]:
            await self._stop(name)

    async def run(self, plan: Sequence[Step]) -> None:
        """Do what a plan says; look at what it touched after each step, and at everything at the end."""
        number = 0
        try:
            for number, step in enumerate(plan):
                await self._do(*step)
                await self._check(number, step[2] if len(step) > 2 else IDS[number % len(IDS)])
            await self._check_all()
        except BaseException:
            print(f"failed at step {number} of Fleet(store, {self._variant!r}).run({list(plan)!r})")
            raise

    # --- steps ----------------------------------------------------------------------------------------------------

    async def _do(self, kind: str, *rest: str) -> None:
        if kind in {"pin", "flip", "unpin"}:
            await self._change(kind, *rest)
        elif kind in {"restart", "stop"}:
            await self._stop(rest[0])
            if kind == "restart":
                await self._start(rest[0])
        elif rest[0] in self._nodes:
            await self._work(kind, *rest)

    async def _change(self, kind: str, version: str = "") -> None:
        if kind == "unpin":
            gate = await rollout.unpin(self._store, self._type)
        else:
            gate = await (rollout.pin if kind == "pin" else rollout.flip)(self._store, self._type, version)
        if gate.allowed:
            self._written, self._seen = pack(parse(version)) if version else None, {}
            self.done[kind] += 1

    async def _work(self, kind: str, release: str, actor: str, fault: str = "") -> None:
        if kind.startswith("open"):
            await self._enter(release, actor, is_loaded=kind == "open loaded")
        elif kind == "commit":
            await self._commit(actor)
        elif not self._is_open(actor):
            try:
                async with self._nodes[release][0].activate(self._type, actor, wait_seconds=0) as activation:
                    await self._act(kind, release, activation, fault)
                self.done[kind] += 1
            except REFUSED:
                self.done["refused"] += 1

    async def _act(self, kind: str, release: str, activation: Activation, fault: str) -> None:
        is_alone = kind in {"other alone", "put alone"}
        is_only_loaded = kind in {"only load", "load then other", "cancel after load"}
        if is_only_loaded and await activation.state().load() is None:
            return
        if not (is_alone or is_only_loaded):
            await self._bring_up(release, activation)
        if kind in {"save", "only load"}:
            await self._save(release, activation)
        elif kind in {"other", "other alone", "load then other"}:
            await self._other(release, activation)
        elif kind in {"put", "put alone"}:
            await self._put(release, activation, is_read=kind == "put")
        elif kind == "entries":
            await rollout_books.check_entries(release, activation, self._account(activation), self._store)
        elif kind == "clear":
            await activation.state().clear()
            await self._note(release, activation, None)
        elif kind == "crash":
            await self._crash(release, activation)
        elif fault:
            await self._cancel(release, activation, fault, is_up=not is_only_loaded)

    async def _bring_up(self, release: str, activation: Activation) -> None:
        value = await activation.state().migrate_and_load(default=rollout_books.default(release))
        account = self._account(activation)
        if account.amount is not None:
            rollout_books.check_value(release, value, account)

    async def _save(self, release: str, activation: Activation) -> None:
        value = activation.state().value
        self._set(release, value)
        await activation.persist()
        await self._note(release, activation, value)

    async def _other(self, release: str, activation: Activation) -> None:
        """Store another state only."""
        other = activation.state("other")
        assert await other.migrate_and_load(default=0) == (self._account(activation).other or 0)
        await self._store_other(release, activation)

    async def _store_other(self, release: str, activation: Activation, *, is_up: bool = True) -> None:
        self._number += 1
        other, account = activation.state("other"), self._account(activation)
        other.value = number = self._number
        await other.persist()
        account.other = number
        account.note_other(self._registered(release), await self._read(activation.key.id), is_up=is_up)

    async def _put(self, release: str, activation: Activation, *, is_read: bool) -> None:
        """Put an entry, and store what is loaded."""
        if is_read:
            await activation.table(TABLE).get("k0")  # it may be stored anew with the next one
        self._number += 1
        key = f"k{self._number % 3}"
        await activation.table(TABLE).put(key, {"money" if is_new(release) else "amount": self._number})
        await activation.persist()
        self._account(activation).entries[key] = self._number
        if self._account(activation).amount is None:
            await self._note(release, activation, await activation.state().migrate_and_load())

    async def _crash(self, release: str, activation: Activation) -> None:
        """Forget the node while it holds the wallet; what it would store then is not stored."""
        self._set(release, activation.state().value)
        node, _ = self._nodes[release]
        await self._store.forget(node.node_id)
        try:
            await activation.persist()
        except errors.LeaseLostError:
            return
        raise AssertionError("a forgotten node has stored something")

    async def _cancel(self, release: str, activation: Activation, fault: str, *, is_up: bool) -> None:
        """Let a commit fail, or be cut off, before or after it took effect; then store another state, and it again."""
        state, account = activation.state(), self._account(activation)
        await activation.state("other").load()
        self._set(release, state.value)
        when, _, how = fault.partition(" ")
        faulty = self._nodes[release][1]
        faulty.arm(Fault(0, cast("Any", when), cast("Any", how)))
        try:
            with suppress(errors.StoreUnavailableError, asyncio.CancelledError):
                await asyncio.create_task(state.persist())
        finally:
            faulty.arm(None)  # if it was refused before it asked the store
        stored = await self._read(activation.key.id)
        if stored is not None and rollout_books.stored_amount(stored) == self._number:
            account.note(self._registered(release), state.value, stored)
        if self._number % 2:
            await self._store_other(release, activation, is_up=is_up)
        await self._save(release, activation)

    async def _enter(self, release: str, actor: str, *, is_loaded: bool) -> None:
        if self._is_open(actor):
            return
        stack, node = AsyncExitStack(), self._nodes[release][0]
        try:
            activation = await stack.enter_async_context(node.activate(self._type, actor, wait_seconds=0))
            other = activation.state("other")
            await other.load()
            self._number += 1
            other.value = self._number
            if is_loaded:
                await activation.state().load()
            else:
                await self._bring_up(release, activation)
            assert other.value == self._number
        except REFUSED:
            await stack.aclose()
            return
        self._open[release, actor] = stack, activation
        self.done["open"] += 1

    async def _commit(self, actor: str) -> None:
        """Let whoever holds a wallet store it."""
        for release in [release for release, held in self._open if held == actor]:
            _, activation = self._open[release, actor]
            other = activation.state("other")
            number = other.value
            try:
                await self._bring_up(release, activation)
                assert other.value == number
                await self._save(release, activation)
                self._accounts[actor].other = number
                self.done["commit"] += 1
            except (*REFUSED, errors.LeaseLostError):
                self.done["refused"] += 1
            await self._leave(release, actor)

    async def _leave(self, release: str, actor: str) -> None:
        stack, _ = self._open.pop((release, actor))
        await stack.aclose()

    async def _start(self, release: str) -> None:
        faulty = FaultyStore(self._store)
        node = Node(faulty, [self._suites[release]], label=release, drain_on_sigterm=False)
        try:
            await node.__aenter__()
        except UNSTARTED:
            self.done["not started"] += 1
            return
        self._nodes[release] = node, faulty

    async def _stop(self, release: str) -> None:
        for key in [key for key in self._open if key[0] == release]:
            await self._leave(*key)
        if release in self._nodes:
            node, _ = self._nodes.pop(release)
            await node.__aexit__(None, None, None)

    # --- what is known --------------------------------------------------------------------------------------------

    def _is_open(self, actor: str) -> bool:
        return any(held == actor for _, held in self._open)

    def _account(self, activation: Activation) -> Account:
        return self._accounts[activation.key.id]

    def _registered(self, release: str) -> AppliedSet:
        return self._suites[release].actor_types[self._type].chain.release

    async def _read(self, actor: str) -> StoredActor | None:
        return await self._store.read(ActorKey(self._type, actor))

    async def _note(self, release: str, activation: Activation, value: Any) -> None:
        self._account(activation).note(self._registered(release), value, await self._read(activation.key.id))

    def _set(self, release: str, value: Any) -> None:
        self._number += 1
        rollout_books.change(release, value, self._number)

    # --- what must hold -------------------------------------------------------------------------------------------

    async def _check(self, number: int, actor: str) -> None:
        stored = await self._read(actor)
        if actor in self._seen:
            rollout_books.check_stamp(self._seen[actor], stored, self._written)
        self._seen[actor] = stored
        if number % CENSUS_STEPS == 0:
            await self._check_census()
        if stored is not None and not self._is_open(actor):
            await self._check_reading([*self._suites][number % len(self._suites)], stored)

    async def _check_all(self) -> None:
        """Let every release read everything twice: the second time it finds nothing to do."""
        await self._check_census()
        for actor in IDS:
            for release in () if self._is_open(actor) else self._suites:
                revisions = []
                for _ in range(2):
                    stored = await self._read(actor)
                    if stored is not None:
                        await self._check_reading(release, stored, is_last=True)
                        revisions.append(getattr(await self._read(actor), "revision", 0))
                assert len({*revisions}) < 2, f"{release} stores {actor} again: {revisions}"

    async def _check_census(self) -> None:
        actors = await self._store.scan(self._type)
        left = [actor for actor in actors if actor.states or actor.base or actor.marks.oldest is not None]
        counted = Counter(unpack(0 if actor.stamp is None else actor.stamp.applied.highest) for actor in left)
        census = await rollout.census(self._store, self._type)
        assert Counter(census.versions) == counted, f"census {census.versions}, recount {counted}"

    async def _check_reading(self, release: str, stored: StoredActor, *, is_last: bool = False) -> None:
        """Let a release read a wallet: it does if the stamp promises it, and finds what was stored last."""
        if release not in self._nodes:
            return
        account, promised = self._accounts[stored.key.id], rollout_books.is_promised(release, stored)
        node, _ = self._nodes[release]
        try:
            async with node.activate(self._type, stored.key.id, wait_seconds=0) as activation:
                state = activation.state()
                if promised:
                    applied = None if stored.stamp is None else stored.stamp.applied
                    rollout_books.check_stored(release, applied, await state.load(), account)
                rollout_books.check_value(release, await state.migrate_and_load(), account)
                assert promised, f"{release} read {stored}"
                assert await activation.state("other").migrate_and_load() == account.other
                if is_last:
                    await rollout_books.check_entries(release, activation, account, self._store)
        except errors.NewerStateError as error:
            if promised and not rollout_books.is_excused(error, stored, release):
                raise
