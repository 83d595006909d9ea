"""Greeters: logic that changes while it is used, one release after another and without downtime.

States are migrated; logic is deployed, one process after the other. Meanwhile an actor is active on a process of either
release, and whoever calls it runs either one, too. lazymig takes a call to the process where its actor is active, and
if that one's release lacks the action, moves the actor to a process that has it. The rest is up to the authors:

1. **Objects instead of primitives.** An action takes one object and returns one, so that either can gain a field.
2. **An additional parameter** has a default. The release before passes over it: it answers as it always did.
3. **An additional result field.** The release before leaves it out: read it with ``get`` until the deploy is over.
4. **A changed meaning gets a name of its own.** ``greet_v1`` stands beside ``greet``, and each keeps what it promises.
   An actor type of another name would be wrong: it is another actor, with another lock and another state.
5. **A service actor shields the actors behind it.** The application calls `Reception` only, which knows which action
   of which actor to call: names behind it can change without a change before it.

Six releases of the software. Each is deployed when all processes run the one before:

======= ====================================== ========================================================================
Release `Greeter`                              `Reception` calls
======= ====================================== ========================================================================
1       ``greet`` one name                     ``greet``
2       ``greet`` in a language, and counts    ``greet``: it passes the objects on, so nothing changes in it
3       ``greet_v1`` beside it: many names     ``greet_v1``, and can welcome many itself
4       ``greet`` means what ``greet_v1`` does ``greet_v1``: processes of release 3 have the old ``greet``
5       the same                               ``greet``: no process has the old one any more
6       ``greet`` alone                        ``greet``: no process calls ``greet_v1`` any more
======= ====================================== ========================================================================

An action is removed one release after its last call: a process that stops takes nothing any more, so what its actors
still call must be there on the others. The second half of the way, back to the good name, can wait for as long as one
likes. In one's own software each of the classes below is the same class, at another release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

from lazymig import Activation, Actor, Suite, action

if TYPE_CHECKING:
    from lazymig import Node

HELLO = {"en": "Hello", "nl": "Hallo", "pt": "Olá"}


class GreetOptions(TypedDict):
    """What ``greet`` takes. Since release 2 there is a ``language``, "en" if it is left out."""

    name: str
    language: NotRequired[str]


class GreetResult(TypedDict):
    """What ``greet`` returns. Since release 2 there is ``times``: how often this greeter has greeted."""

    text: str
    times: NotRequired[int]


class GreetManyOptions(TypedDict):
    """What ``greet_v1`` takes, and ``greet`` since release 4."""

    names: list[str]
    language: NotRequired[str]


class GreetManyResult(TypedDict):
    """What ``greet_v1`` returns, and ``greet`` since release 4: a text for each name."""

    texts: list[str]
    times: int


# --- the actors behind the service -----------------------------------------------------------------------------------


class Greeter1(Actor):
    """Release 1: greets one at a time, and counts for itself."""

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Bring the state up: the same in all releases."""
        await self.state.migrate_and_load(default={"times": 0})

    @action
    async def greet(self, options: GreetOptions) -> GreetResult:
        """Greet somebody."""
        await self.count(1)
        return {"text": greeting(options["name"])}

    async def count(self, number: int) -> int:
        """Count greetings; return how many there were."""
        self.state.value["times"] += number
        await self.state.persist()
        times: int = self.state.value["times"]
        return times


class Greeter2(Greeter1):
    """Release 2: an additional parameter, with a default, and an additional result field."""

    @action
    async def greet(self, options: GreetOptions) -> GreetResult:
        """Greet somebody in a language."""
        times = await self.count(1)
        return {"text": greeting(options["name"], options.get("language", "en")), "times": times}


class Greeter3(Greeter2):
    """Release 3: a changed meaning beside the old one, under a name of its own."""

    @action
    async def greet_v1(self, options: GreetManyOptions) -> GreetManyResult:
        """Greet everybody, in a language."""
        return await greet_many(self, options)


class Greeter4(Greeter1):
    """Releases 4 and 5: both names for the new meaning. Nobody called ``greet`` any more when it changed."""

    @action
    async def greet(self, options: GreetManyOptions) -> GreetManyResult:  # type: ignore[override]  # meant: see above
        """Greet everybody, in a language."""
        return await greet_many(self, options)

    @action
    async def greet_v1(self, options: GreetManyOptions) -> GreetManyResult:
        """Do the same, for callers of releases 3 and 4."""
        return await greet_many(self, options)


class Greeter6(Greeter1):
    """Release 6: one action again, under the good name."""

    @action
    async def greet(self, options: GreetManyOptions) -> GreetManyResult:  # type: ignore[override]  # as in release 4
        """Greet everybody, in a language."""
        return await greet_many(self, options)


async def greet_many(greeter: Greeter1, options: GreetManyOptions) -> GreetManyResult:
    """Greet everybody."""
    names, language = options["names"], options.get("language", "en")
    return {"texts": [greeting(name, language) for name in names], "times": await greeter.count(len(names))}


def greeting(name: str, language: str = "en") -> str:
    """Return the text for one name."""
    return f"{HELLO[language]}, {name}!"


# --- the service -----------------------------------------------------------------------------------------------------


class Switchboard:
    """The context of a `Reception`: how it reaches the actors behind it. The process sets ``node`` when it has one."""

    node: Node


class Reception1(Actor):
    """Releases 1 and 2: calls the greeter of its own id. It has no state, so its actions may run beside each other."""

    def __init__(self, activation: Activation) -> None:
        self.actor_id = activation.key.id
        self.switchboard: Switchboard = activation.context

    @action(shared=True)
    async def welcome(self, options: GreetOptions) -> GreetResult:
        """Welcome somebody. Objects are passed on whole: release 2 changes nothing here."""
        result: GreetResult = await self.switchboard.node.call("Greeter", self.actor_id, "greet", options)
        return result


class Reception3(Actor):
    """Releases 3 and 4: its old action keeps its promise by the greeter's new one; a new action offers more."""

    greeter_action = "greet_v1"

    def __init__(self, activation: Activation) -> None:
        self.actor_id = activation.key.id
        self.switchboard: Switchboard = activation.context

    @action(shared=True)
    async def welcome(self, options: GreetOptions) -> GreetResult:
        """Welcome somebody."""
        result = await self.greet({"names": [options["name"]], "language": options.get("language", "en")})
        return {"text": result["texts"][0], "times": result["times"]}

    @action(shared=True)
    async def welcome_all(self, options: GreetManyOptions) -> GreetManyResult:
        """Welcome everybody."""
        return await self.greet(options)

    async def greet(self, options: GreetManyOptions) -> GreetManyResult:
        """Call the greeter, by the action that all processes understand alike."""
        node = self.switchboard.node
        result: GreetManyResult = await node.call("Greeter", self.actor_id, self.greeter_action, options)
        return result


class Reception5(Reception3):
    """Releases 5 and 6: the same by the good name."""

    greeter_action = "greet"


# --- the releases ----------------------------------------------------------------------------------------------------

RELEASES: dict[int, tuple[type[Greeter1], type[Actor]]] = {
    1: (Greeter1, Reception1),
    2: (Greeter2, Reception1),
    3: (Greeter3, Reception3),
    4: (Greeter4, Reception3),
    5: (Greeter4, Reception5),
    6: (Greeter6, Reception5),
}
"""Classes of `Greeter` and `Reception` by release."""


def software(release: int, switchboard: Switchboard) -> Suite:
    """Return the suite of a release, for one process: the actor types have the same names in all of them."""
    greeter_class, reception_class = RELEASES[release]
    suite = Suite("greeter")
    suite.actor_type("Greeter", greeter_class)
    suite.actor_type("Reception", reception_class, context=switchboard)
    return suite
