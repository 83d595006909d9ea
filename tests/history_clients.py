"""The processes of a recorded history: nodes on one SQLite file, and clients that note what they ask and are told.

A client's record of an invocation is written before the call, that of its completion after it, each by one `os.write`
to a file that is appended to: what is written outlives the process.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any, cast

import orjson

from lazymig import Activation, Actor, Node, Suite, action, open_store
from lazymig.errors import (
    ActivationClosedError,
    ActorLockedError,
    CallLostError,
    CallNotTakenError,
    LeaseLostError,
    NewerStateError,
    NodeStoppedError,
    StoreUnavailableError,
)
from lazymig.testing import release

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from lazymig.post import Post
    from lazymig.store import Store
    from tests.processes import Line

INITIAL = 0
"""Value of every counter and register that nobody wrote."""

CLIENTS = 8
"""In a process; two of them share a quarter of the keys, so that four processes have eight on a key."""

QUARTERS = 4

LEASE_SECONDS = 0.5

LOST_ANSWERS = 0.003
"""Share of store calls whose answer is lost, half of them after the call has taken effect."""

FAILED = (ActorLockedError, CallNotTakenError, NewerStateError, NodeStoppedError, LeaseLostError)
"""They promise that an action did not run, or stored nothing; every action stores once."""

UNKNOWN = (StoreUnavailableError, CallLostError)
"""It may have run."""


LEGACY: dict[str, Any] = {"Counter": {"n": INITIAL}, "Register": {"cell": {"value": INITIAL}}}
"""How half of the actors are stored before the history begins, without migration-info."""

DEFAULTS: dict[str, Any] = {"Counter": {"total": INITIAL}, "Register": {"value": INITIAL}}
"""How the others begin."""


# --- the actors ----------------------------------------------------------------------------------------------------


class Counter(Actor):
    """Adds up; stores something when it is let go, as careless code does."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=DEFAULTS["Counter"])

    async def deactivate(self) -> None:
        self.state.value["left"] = self.state.value.get("left", 0) + 1
        await self.state.persist()

    @action
    async def add(self, number: int) -> int:
        total: int = change(self.state.value, "add", number)
        await self.state.persist()
        return total

    @action(shared=True)
    async def read(self) -> int:
        total: int = self.state.value["total"]
        return total


class Register(Actor):
    """Holds a value."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        await self.state.migrate_and_load(default=DEFAULTS["Register"])

    @action
    async def write(self, value: str) -> bool:
        change(self.state.value, "write", value)
        await self.state.persist()
        return True

    @action
    async def cas(self, expected: Any, value: str) -> bool:
        if not change(self.state.value, "cas", [expected, value]):
            return False
        await self.state.persist()
        return True

    @action(shared=True)
    async def read(self) -> Any:
        return value_of(self.state.value)


def cell(state: Any) -> Any:
    """Return the part of a register's state that has its value, in the shape of any release."""
    return state.get("content", state.get("cell", state))


def value_of(state: Any) -> Any:
    """Return a counter's or register's value, from its state in the shape of any release."""
    if "n" in state or "total" in state:
        return state.get("n", state.get("total"))
    return cell(state)["value"]


def change(state: Any, f: str, argument: Any) -> Any:
    """Apply an operation to a migrated state; return its answer."""
    if f == "add":
        state["total"] += argument
        return state["total"]
    if f == "cas":
        expected, argument = argument
        if cell(state)["value"] != expected:
            return False
    cell(state)["value"] = argument
    return True


suite = Suite("histories")
counter = suite.actor_type("Counter", Counter)
register = suite.actor_type("Register", Register)


@counter.migration("1.0.0")
def total_instead_of_n(state: Any, context: object) -> None:
    state["total"] = state.pop("n")  # raises when it is applied twice


@counter.migration("1.1.0")
def with_a_unit(state: Any, context: object) -> None:
    assert "unit" not in state
    state["unit"] = "pieces"


@register.migration("1.0.0")
def flat(state: Any, context: object) -> None:
    state.update(state.pop("cell"))


@register.migration("2.0.0")
def content(state: Any, context: object) -> None:
    state["content"] = {"value": state.pop("value")}


RELEASES = {"old": release(suite, upto="1.0.0"), "new": suite}


def key_of(number: int) -> tuple[str, str]:
    """Return type and id of the n-th actor."""
    return ("Register" if number % 2 else "Counter"), f"{number:06}"


# --- a process -----------------------------------------------------------------------------------------------------


class Log:
    """Where a process notes its operations."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._number = 0

    def invoke(self, client: int, key: tuple[str, str], f: str, argument: Any) -> int:
        """Note an operation that is about to begin; return its number."""
        self._number += 1
        self._write(["invoked", self._number, client, key, f, argument, time.monotonic_ns()])
        return self._number

    def complete(self, number: int, status: str, output: Any) -> None:
        """Note how one ended: ok, fail, or info for an unknown outcome."""
        self._write(["ended", number, status, output, time.monotonic_ns()])

    def _write(self, record: list[Any]) -> None:
        os.write(self._file, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


LOSSY = {"claim", "commit", "release", "read", "send", "take", "taken", "answer", "forward", "cancel", "lose"}


class Lossy:
    """A store, or its post, that sometimes does not answer: it did what was asked, or it did not."""

    def __init__(self, store: Store | Post, chance: random.Random) -> None:
        self._store = store
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name == "post":
            return Lossy(method, self._chance)
        if name not in LOSSY:
            return method

        async def ask(*arguments: Any, **named: Any) -> Any:
            draw = self._chance.random()
            if draw < LOST_ANSWERS / 2:
                raise StoreUnavailableError(f"{name} was lost on its way, as planned")
            answer = await method(*arguments, **named)
            if draw > 1 - LOST_ANSWERS / 2:
                raise StoreUnavailableError(f"the answer of {name} was lost, as planned")
            return answer

        return ask


class Clients:
    """The clients of one process.

    Args:
        node: Where they call.
        log: Where they note it.
        name: Of the process; makes what they write unique.
        window: The first of the keys in use: when the history began, in seconds, how many keys follow each second,
            and how many are in use at a time.
    """

    def __init__(self, node: Node, log: Log, name: str, window: tuple[float, float, int]) -> None:
        self.is_ending = False
        self._node = node
        self._log = log
        self._name = name
        self._window = window
        self._chance = random.Random(name)
        self._written = 0

    async def run(self, client: int) -> None:
        """Visit one actor after the other."""
        visits = [self._call_often, self._call_often, self._hold, self._look]
        while not self.is_ending:
            await self._chance.choice(visits)(client, self._pick(client))
            await asyncio.sleep(self._chance.choice([0, 0, 0.002, 0.01]))

    def _pick(self, client: int) -> tuple[str, str]:
        began, pace, width = self._window
        first = int((time.monotonic() - began) * pace)
        fitting = [n for n in range(first, first + width) if n // 2 % QUARTERS == client % QUARTERS]
        return key_of(self._chance.choice(fitting))

    def _draw(self, kind: str, seen: Any) -> tuple[str, Any]:
        """Return what to do next: half of it only reads."""
        if self._chance.random() < 0.5:
            return "read", None
        if kind == "Counter":
            return "add", self._chance.randrange(1, 10)
        self._written += 1
        value = f"{self._name}-{self._written}"
        return self._chance.choice([("write", value), ("cas", [seen, value])])

    async def _note(self, client: int, key: tuple[str, str], what: tuple[str, Any], does: Awaitable[Any]) -> Any:
        """Await an operation between its two records; return its output, or the error."""
        number = self._log.invoke(client, key, *what)
        try:
            output = await does
        except FAILED as error:
            self._log.complete(number, "fail", type(error).__name__)
            return error
        except UNKNOWN as error:
            self._log.complete(number, "info", type(error).__name__)
            return error
        self._log.complete(number, "ok", output)
        return output

    async def _call_often(self, client: int, key: tuple[str, str]) -> None:
        seen: Any = INITIAL
        for _ in range(self._chance.randrange(2, 25)):
            f, argument = what = self._draw(key[0], seen)
            arguments = [] if argument is None else argument if f == "cas" else [argument]
            output = await self._note(client, key, what, self._node.call(*key, f, *arguments))
            if isinstance(output, FAILED) or self.is_ending:
                return
            if f == "read" and not isinstance(output, Exception):
                seen = output
            if self._chance.random() < 0.2:  # a stop while clients think leaves actors in memory that nobody waits for
                await asyncio.sleep(self._chance.uniform(0, 0.01))

    async def _look(self, client: int, key: tuple[str, str]) -> None:
        async def look() -> Any:
            record = await self._node.inspect(*key)
            return INITIAL if record is None else value_of(record.states["state"])

        await self._note(client, key, ("read", None), look())

    async def _hold(self, client: int, key: tuple[str, str]) -> None:
        seen: Any = INITIAL
        try:
            async with self._node.activate(*key) as activation:
                await activation.state().migrate_and_load(default=DEFAULTS[key[0]])
                for left in reversed(range(self._chance.randrange(1, 8))):
                    f, argument = what = self._draw(key[0], seen)
                    does = self._change(activation, f, argument, release=not left)
                    output = await self._note(client, key, what, does)
                    if isinstance(output, FAILED) or self.is_ending:
                        return
                    if f == "read" and not isinstance(output, Exception):
                        seen = output
        except (*FAILED, *UNKNOWN):
            return  # the actor was not got, and nothing was asked of it

    async def _change(self, activation: Activation, f: str, argument: Any, *, release: bool) -> Any:
        """Do an operation within a block; what only reads asks the lease first, a bare look at `value` would not."""
        state = activation.state()
        if f in {"read", "cas"}:
            await state.migrate_and_load(default=DEFAULTS[activation.key.type])
        if f == "read":
            return value_of(state.value)
        answer = change(state.value, f, argument)
        if answer is not False:
            await activation.persist(release=release)
        return answer


async def serve(line: Line, url: str, log: Path, release_name: str, window: tuple[float, float, int]) -> None:
    """Be a process of the history until told to end."""
    loop = asyncio.get_running_loop()
    unexpected: list[BaseException] = []

    def on_exception(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, (*FAILED, *UNKNOWN, ActivationClosedError)):
            unexpected.append(error or RuntimeError(context["message"]))

    loop.set_exception_handler(on_exception)
    async with open_store(url) as store:
        lossy = cast("Store", Lossy(store, random.Random(log.stem)))
        async with Node(
            lossy,
            [RELEASES[release_name]],
            label=log.stem,
            lease_seconds=LEASE_SECONDS,
            hand_over_seconds=0.4,
            idle_seconds=0.05,
        ) as node:
            clients = Clients(node, Log(log), log.stem, window)
            line.tell("serving")
            async with asyncio.TaskGroup() as group:
                for client in range(CLIENTS):
                    group.create_task(clients.run(client))
                await line.hear()
                clients.is_ending = True
    assert not unexpected, unexpected
