"""Plans drawn from a seed: nodes of three releases serve wallets, and an operator pins, flips and unpins.

Nodes restart, and crash in the middle of what they do. After each step the census is what a recount of all actors
gives, and every release that the stamps promise a wallet to reads it, with the amount that was acknowledged last. A
plan is a list of steps, printed when it fails: give it to `Fleet.run` again.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from lazymig import Node, errors, rollout
from lazymig._records import ActorKey
from lazymig._version import is_newer_major, pack, parse, unpack
from tests import postgres
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
    *("load", "save", "save", "save", "other", "only load", "clear", "open", "commit"),
    *("pin", "pin", "flip", "flip", "unpin", "restart", "crash"),
)
Step = tuple[str, ...]

REFUSED = (errors.NewerStateError, errors.ActorLockedError)
UNSTARTED = (errors.WriteVersionError, errors.MissingMigrationError, errors.LateMigrationError)


def draw(seed: int, steps: int = 18) -> list[Step]:
    """Return a plan."""
    rng = random.Random(seed)
    plan: list[Step] = []
    for _ in range(steps):
        kind = rng.choice(KINDS)
        if kind in {"pin", "flip"}:
            plan.append((kind, rng.choice(VERSIONS)))
        elif kind == "unpin":
            plan.append((kind,))
        else:
            plan.append((kind, rng.choice(RELEASES), rng.choice(IDS)))
    return plan


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
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wallets = Wallets()
        self._suites: dict[str, Suite] = {name: self._wallets.release(name) for name in RELEASES}
        self._nodes: dict[str, Node] = {}
        self._open: dict[tuple[str, str], tuple[AsyncExitStack, Activation]] = {}
        self._amounts: dict[str, int | None] = dict.fromkeys(IDS)
        self._number = 0
        self.done: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for name in RELEASES:
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
        """Do what a plan says; look at everything after each step."""
        for number, step in enumerate(plan):
            try:
                await self._do(*step)
                await self._check(step[2:] or IDS)
            except BaseException:
                print(f"failed at step {number} of {list(plan)!r}")
                raise

    # --- steps ----------------------------------------------------------------------------------------------------

    async def _do(self, kind: str, *rest: str) -> None:
        if kind == "pin":
            self.done[kind] += (await rollout.pin(self._store, "Wallet", rest[0])).allowed
        elif kind == "flip":
            self.done[kind] += (await rollout.flip(self._store, "Wallet", rest[0])).allowed
        elif kind == "unpin":
            self.done[kind] += (await rollout.unpin(self._store, "Wallet")).allowed
        elif kind == "restart":
            await self._stop(rest[0])
            await self._start(rest[0])
        else:
            await self._work(kind, *rest)

    async def _work(self, kind: str, release: str, actor: str) -> None:
        node = self._nodes.get(release)
        if node is None:
            return
        if kind == "open":
            await self._enter(release, actor)
        elif kind == "commit":
            await self._commit(release, actor)
        elif not any(held == actor for _, held in self._open):
            try:
                async with node.activate("Wallet", actor, wait_seconds=0) as activation:
                    await self._act(kind, release, actor, activation)
                self.done[kind] += 1
            except REFUSED:
                self.done["refused"] += 1

    async def _act(self, kind: str, release: str, actor: str, activation: Activation) -> None:
        state = activation.state()
        if kind == "only load":
            if await state.load() is None:
                return
        else:
            await state.migrate_and_load(default=self._default(release))
        if kind in {"save", "only load"}:
            await self._save(release, actor, activation)
        elif kind == "other":
            other = activation.state("other")
            self._number += 1
            await other.migrate_and_load(default=0)
            other.value = self._number
            await other.persist()
        elif kind == "clear":
            await state.clear()
            self._amounts[actor] = None
        elif kind == "crash":
            await self._crash(release, activation)

    async def _crash(self, release: str, activation: Activation) -> None:
        """Forget the node while it holds the wallet; what it would store then is not stored."""
        self._set(activation.state().value, -1)
        await self._store.forget(self._nodes[release].node_id)
        try:
            await activation.persist()
        except errors.LeaseLostError:
            return
        raise AssertionError("a forgotten node has stored something")

    async def _save(self, release: str, actor: str, activation: Activation) -> None:
        value = activation.state().value
        self._number += 1
        self._set(value, self._number)
        await activation.persist()
        self._amounts[actor] = self._number

    async def _enter(self, release: str, actor: str) -> None:
        if any(held == actor for _, held in self._open):
            return
        stack = AsyncExitStack()
        try:
            activation = await stack.enter_async_context(self._nodes[release].activate("Wallet", actor, wait_seconds=0))
            await activation.state().migrate_and_load(default=self._default(release))
        except REFUSED:
            await stack.aclose()
            return
        self._open[release, actor] = stack, activation
        self.done["open"] += 1

    async def _commit(self, release: str, actor: str) -> None:
        held = self._open.get((release, actor))
        if held is None:
            return
        try:
            await self._save(release, actor, held[1])
            self.done["commit"] += 1
        except (*REFUSED, errors.LeaseLostError):
            self.done["refused"] += 1
        await self._leave(release, actor)

    async def _leave(self, release: str, actor: str) -> None:
        stack, _ = self._open.pop((release, actor))
        await stack.aclose()

    async def _start(self, release: str) -> None:
        node = Node(self._store, [self._suites[release]], label=release, drain_on_sigterm=False)
        try:
            await node.__aenter__()
        except UNSTARTED:
            self.done["not started"] += 1
            return
        self._nodes[release] = node

    async def _stop(self, release: str) -> None:
        for key in [key for key in self._open if key[0] == release]:
            await self._leave(*key)
        node = self._nodes.pop(release, None)
        if node is not None:
            await node.__aexit__(None, None, None)

    def _default(self, release: str) -> Any:
        value: dict[str, Any] = {"name": "new"}
        if release.startswith("2"):
            value["money"] = {"amount": 0, "currency": "EUR"}
        else:
            value["amount"] = 0
        return value if release != "2.1.0" else {**value, "notes": ["new"]}

    def _set(self, value: Any, amount: int) -> None:
        if "money" in value:
            value["money"]["amount"] = amount
        else:
            value["amount"] = amount

    # --- what must hold -------------------------------------------------------------------------------------------

    async def _check(self, touched: Sequence[str]) -> None:
        actors = await self._store.scan("Wallet")
        await self._check_census(actors)
        for actor in actors:
            if actor.key.id in touched and not any(held == actor.key.id for _, held in self._open):
                for release in RELEASES:
                    await self._check_reading(release, actor)

    async def _check_census(self, actors: Sequence[StoredActor]) -> None:
        left = [actor for actor in actors if actor.states or actor.base]
        counted = Counter(unpack(0 if actor.stamp is None else actor.stamp.applied.highest) for actor in left)
        census = await rollout.census(self._store, "Wallet")
        assert Counter(census.versions) == counted, f"census {census.versions}, recount {counted}"

    async def _check_reading(self, release: str, actor: StoredActor) -> None:
        """Let a release read a wallet: it does if the stamp promises it, and finds what was stored last."""
        node = self._nodes.get(release)
        expected = self._amounts[actor.key.id]
        if node is None or not actor.states:
            return
        stored = (await self._store.read(ActorKey("Wallet", actor.key.id))) or actor
        promised = stored.stamp is None or not is_newer_major(stored.stamp.applied.highest, pack(parse(release)))
        try:
            async with node.activate("Wallet", actor.key.id, wait_seconds=0) as activation:
                value = await activation.state().load() if promised else await activation.state().migrate_and_load()
                self._check_shape(release, stored.stamp.applied if stored.stamp else None, value, expected)
                value = await activation.state().migrate_and_load()
        except errors.NewerStateError as error:
            if promised and not self._is_excused(error, stored, release):
                raise
            return
        assert promised, f"{release} read {stored}"
        if value is not None:
            self._check_shape(release, None, value, expected)

    def _is_excused(self, error: errors.NewerStateError, stored: StoredActor, release: str) -> bool:
        """Tell whether a refusal is one of those that rollout.md names: below the write version, or a newer base."""
        has_newer_base = stored.base is not None and is_newer_major(stored.base.applied.highest, pack(parse(release)))
        return "written at" in str(error) or has_newer_base

    def _check_shape(self, release: str, applied: AppliedSet | None, value: Any, expected: int | None) -> None:
        """Check a value that a release reads; as stored it has the shape of its stamp."""
        if value is None:
            return
        is_new = release.startswith("2") if applied is None else applied.highest >= pack(parse("2.0.0"))
        assert ("money" in value) == is_new, f"{release} reads {value}"
        amount = value["money"]["amount"] if is_new else value["amount"]
        assert expected is None or amount == expected, f"{release} reads {value} instead of {expected}"
