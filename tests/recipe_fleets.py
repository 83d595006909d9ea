"""The releases of a recipe on one store, beside each other, and what each of them has to read there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from lazymig import Node, rollout
from lazymig.actor import actions_of
from lazymig.transfer import import_states
from suites import recipes
from suites._recipes_add import city_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lazymig import Actor
    from lazymig.rollout import Gate
    from lazymig.store import Store
    from suites._recipes_releases import Recipe

Truth = dict[str, Any]
"""What was last stored of an actor, as no release has it: each sees a part of it."""

LEGACY: dict[str, tuple[Any, Truth]] = {
    "Customer": ({"address": "Gracht 1, Delft"}, {"address": "Gracht 1, Delft", "city": "Delft", "orders": 0}),
    "Contact": ({"name": "Ada", "fax": "+31 15"}, {"name": "Ada", "fax": "+31 15"}),
    "Product": ({"price": "12.50"}, {"cents": 1250, "currency": "EUR"}),
}
"""An actor from before release 1."""

NEW: dict[str, Truth] = {
    "Customer": {"address": "", "city": "", "orders": 0},
    "Contact": {"name": "", "fax": None},
    "Product": {"cents": 0, "currency": "EUR"},
}
"""An actor that was just made, by any release."""

READS: dict[str, Callable[[Truth], Any]] = {
    "address": lambda truth: truth["address"],
    "city": lambda truth: truth["city"],
    "name": lambda truth: truth["name"],
    "fax": lambda truth: truth["fax"],
    "price": lambda truth: truth["cents"] / 100,
    "amount": lambda truth: {"cents": truth["cents"], "currency": truth["currency"]},
}
"""What actions return."""

CHANGES: dict[str, Callable[[Truth, int], tuple[tuple[Any, ...], Truth]]] = {
    "move": lambda _, n: ((f"Road {n}, City{n}",), {"address": f"Road {n}, City{n}", "city": city_of(f", City{n}")}),
    "order": lambda truth, _: ((), {"orders": truth["orders"] + 1}),
    "correct_city": lambda _, n: ((f"Town{n}",), {"city": f"Town{n}"}),
    "rename": lambda _, n: ((f"Name {n}",), {"name": f"Name {n}"}),
    "set_fax": lambda _, n: ((f"+{n}",), {"fax": f"+{n}"}),
    "set_price": lambda _, n: ((n + 0.25,), {"cents": n * 100 + 25}),
    "set_amount": lambda _, n: ((n * 100 + 7, f"C{n}"), {"cents": n * 100 + 7, "currency": f"C{n}"}),
}
"""What actions are called with in turn n, and what they change."""


class Answer(NamedTuple):
    """What an operator is told.

    Attributes:
        allowed: Whether the step was safe.
        codes: Of the reasons why not.
        nodes: Those that the first reason names.
    """

    allowed: bool
    codes: tuple[str, ...]
    nodes: tuple[str, ...] = ()


class Operator:
    """Asks and acts by the functions of `lazymig.rollout`."""

    def __init__(self, store: Store, actor_type: str) -> None:
        self._store = store
        self._type = actor_type

    async def __call__(self, what: str, *version: str) -> Answer:
        """Do as ``lazymig rollout …`` or, for "gate flip" and the like, ``lazymig gate …`` does."""
        name = what.replace("gate rollback", "gate_roll_back").replace(" ", "_")
        gate: Gate = await getattr(rollout, name)(self._store, self._type, *version)
        assert all(reason.text for reason in gate.reasons)
        nodes = gate.reasons[0].nodes if gate.reasons else ()
        return Answer(gate.allowed, tuple(reason.code for reason in gate.reasons), nodes)


class Typist(Operator):
    """Types commands instead."""

    def __init__(self, url: str, actor_type: str) -> None:
        self._url = url
        self._type = actor_type

    async def __call__(self, what: str, *version: str) -> Answer:
        """Run the command in a process of its own."""
        words = what.split() if what.startswith("gate ") else ["rollout", *what.split()]
        done = subprocess.run(  # noqa: ASYNC221  (the nodes may wait; their heartbeats have threads)
            [sys.executable, "-m", "lazymig.cli", *words, self._type, *version, "--json", "--store", self._url],
            cwd=Path(recipes.__file__).parent.parent,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        document = json.loads(done.stdout)
        assert done.returncode == (0 if document["allowed"] else 1), done.stderr
        reasons = document["reasons"]
        nodes = tuple(reasons[0]["nodes"]) if reasons else ()
        return Answer(document["allowed"], tuple(reason["code"] for reason in reasons), nodes)


class Fleet:
    """A node for each release that runs, and what was last stored of each actor.

    Args:
        store: Where all of them are.
        recipe: Whose releases they are, counted from 1.
    """

    def __init__(self, store: Store, recipe: Recipe) -> None:
        self.recipe = recipe
        self.truths: dict[str, Truth] = {}
        self.nodes: dict[int, Node] = {}
        self._store = store
        self._stacks: dict[int, AsyncExitStack] = {}
        self._turns = count(1)

    async def __aenter__(self) -> Self:
        """Begin with one legacy actor and no node."""
        state, truth = LEGACY[self.recipe.type]
        (actor_type,) = self.recipe.releases[0].actor_types.values()
        await import_states(self._store, actor_type, [("legacy", state)])
        self.truths["legacy"] = dict(truth)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop what runs."""
        for release in list(self.nodes):
            await self.stop(release)

    async def start(self, release: int) -> Node:
        """Start a node of a release."""
        stack = AsyncExitStack()
        suite = self.recipe.releases[release - 1]
        node = await stack.enter_async_context(Node(self._store, [suite], label=f"release {release}"))
        self.nodes[release], self._stacks[release] = node, stack
        return node

    async def stop(self, release: int) -> None:
        """Stop the node of a release."""
        del self.nodes[release]
        await self._stacks.pop(release).aclose()

    def actions(self, release: int) -> tuple[list[str], list[str]]:
        """Return the names of the actions of a release: those that read, and those that change something."""
        names = actions_of(self._class_of(release))
        return [name for name in names if name in READS], [name for name in names if name in CHANGES]

    async def change(self, release: int, actor_id: str, name: str) -> None:
        """Let the software of a release run an action that changes something, on its own node."""
        async with self.held(release, actor_id) as actor:
            await self.change_held(actor, actor_id, name)

    async def change_held(self, actor: Actor, actor_id: str, name: str) -> None:
        """Let an actor that is held run an action that changes something."""
        truth = self.truths.setdefault(actor_id, dict(NEW[self.recipe.type]))
        arguments, changes = CHANGES[name](truth, next(self._turns))
        truth.update(changes)
        await getattr(actor, name)(*arguments)

    @asynccontextmanager
    async def held(self, release: int, actor_id: str) -> AsyncIterator[Actor]:
        """Hold an actor on the node of a release, as its software has it."""
        async with self.nodes[release].activate(self.recipe.type, actor_id) as activation:
            actor = self._class_of(release)(activation)
            await actor.activate()
            yield actor

    async def read(self, release: int, actor_id: str) -> dict[str, Any]:
        """Let the software of a release read all it can, on its own node."""
        reads, _ = self.actions(release)
        async with self.held(release, actor_id) as actor:
            return {name: await getattr(actor, name)() for name in reads}

    async def check(self, release: int, actor_id: str) -> None:
        """Assert that the software of a release reads what was last stored."""
        reads, _ = self.actions(release)
        truth = self.truths[actor_id]
        assert await self.read(release, actor_id) == {name: READS[name](truth) for name in reads}, (release, actor_id)

    async def take_turns(self) -> None:
        """Let each running release change each actor and make one, and all read it after each change."""
        for release in self.nodes:
            self.truths.setdefault(f"made by {release} in turn {next(self._turns)}", dict(NEW[self.recipe.type]))
        for actor_id in self.truths:
            for release in (*self.nodes, *reversed(self.nodes)):
                for name in self.actions(release)[1]:
                    await self.change(release, actor_id, name)
                    for reader in self.nodes:
                        await self.check(reader, actor_id)

    async def change_all(self, release: int) -> None:
        """Let a release change each actor."""
        for actor_id in self.truths:
            await self.change(release, actor_id, self.actions(release)[1][0])

    async def check_all(self) -> None:
        """Assert that each running release reads what was last stored of each actor."""
        for actor_id in self.truths:
            for release in self.nodes:
                await self.check(release, actor_id)

    def _class_of(self, release: int) -> Callable[..., Actor]:
        (actor_type,) = self.recipe.releases[release - 1].actor_types.values()
        made = actor_type.actor_class
        assert made is not None
        actor_class: Callable[..., Actor] = made
        return actor_class
