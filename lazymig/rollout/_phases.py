"""Where a deploy is, and what is safe to do next: pure, from what the store says and the gates answer.

1. New code reads both, writes old. 2. Every node runs it. 3. Writes flipped. 4. Swept, old migrations retired.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from lazymig import _version
from lazymig.rollout._fleet import named, releases, serving
from lazymig.rollout._gates import Asked
from lazymig.rollout._verdict import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazymig._records import AppliedSet
    from lazymig._rulings import TypeFacts
    from lazymig.rollout._fleet import Serving
    from lazymig.rollout._verdict import Gate, Question


class Step(NamedTuple):
    """What to do next.

    Attributes:
        text: Why, and what it does, for people.
        command: The line for a shell; None if it is nothing that lazymig does.
    """

    text: str
    command: str | None = None


class Deploy:
    """A type's deploy, as a store's facts show it.

    Attributes:
        type: The actor type.
        facts: Of it.
        nodes: Those that serve it.
        target: The highest version that a node supports, or a release did if there is no node; packed.
    """

    def __init__(self, actor_type: str, facts: TypeFacts) -> None:
        self.type = actor_type
        self.facts = facts
        self.nodes = serving(facts, actor_type)
        self._releases = releases(facts, actor_type)
        self._newest = [one.offer.registered for one in self.nodes] or list(self._releases)
        self.target = max((applied.highest for applied in self._newest), default=0)

    @cached_property
    def previous(self) -> int | None:
        """The highest version of the releases below the target, packed; None without one."""
        return max((one.highest for one in self._releases if one.highest < self.target), default=None)

    @property
    def behind(self) -> list[Serving]:
        """The nodes of older releases."""
        return [one for one in self.nodes if one.supported < self.target]

    @cached_property
    def phase(self) -> int:
        """From 1 to 4."""
        written = self.facts.policy.version
        if self.behind or self.facts.unreadable or (written is not None and written > self.target):
            return 1
        if written is not None and written < self.target:
            return 2 if self.nodes else 1
        return 4 if self._is_swept() else 3

    def _is_swept(self) -> bool:
        """Tell whether all that is stored has all that the newest release has."""
        newest = [applied for applied in self._newest if applied.highest == self.target]
        oldest = self.facts.oldest
        return (
            all(applied is not None and _has_all(applied, newest) for applied in self.facts.actors)
            and (oldest is None or oldest >= self.target)
            and not any(based.base.highest <= self.target for based in self.facts.bases)
        )

    @property
    def pin_version(self) -> int | None:
        """The version that a pin makes sense to, packed; None without one."""
        written = self.facts.policy.version
        lowest = min((one.supported for one in self.behind), default=None)
        if written is not None and written > self.target:
            return self.target
        found = self.previous if lowest is None else lowest
        return found if written is None or (found is not None and found < written) else None

    def questions(self) -> Iterator[Asked]:
        """Yield what to ask the gates."""
        written = self.facts.policy.version
        if self.pin_version is not None:
            yield Asked("pin", self.type, self.pin_version)
        if written is not None and written < self.target:
            yield Asked("flip", self.type, self.target)
        if written is not None:
            yield Asked("unpin", self.type)
        if self.target:
            yield Asked("retire", self.type, self.target)
        if self.previous is not None:
            yield Asked("roll_back", self.type, self.previous)

    def next_step(self, gates: Mapping[Question, Gate]) -> Step:
        """Return the next safe step, by what the gates of `questions` answered."""
        if self.facts.unreadable:
            forget = command("nodes", "forget", min(self.facts.unreadable))
            return Step("Its row can't be read: stop its process first.", forget)
        if silent := [one for one in self.nodes if not one.node.is_alive]:
            forget = command("nodes", "forget", silent[0].node.node_id)
            return Step(f"{named(silent[:1])} is silent; nothing it may yet try to store is stored then.", forget)
        if not self.nodes:
            return Step(f"No node serves {self.type}: start one.")
        if self.phase <= 2:
            return self._first_step(gates) if self.phase == 1 else self._second_step(gates)
        return self._third_step() if self.phase == 3 else self._fourth_step()

    def _first_step(self, gates: Mapping[Question, Gate]) -> Step:
        written = self.facts.policy.version
        stored = self.target if written is None else written
        if not all(one.offer.can_read(stored) for one in self.nodes) or stored > self.target:
            text = f"Nodes can't read what is stored at {_version.unpack(stored)}; a pin keeps it readable for all."
            return _if_allowed(gates["pin"], text)
        if working := [one for one in self.behind if not one.node.is_draining]:
            drain = command("nodes", "drain", working[0].node.node_id)
            return Step(f"Then stop {named(working[:1])}, and start the new release in its place.", drain)
        return Step(f"Wait until {named(self.behind)} has ended.")

    def _second_step(self, gates: Mapping[Question, Gate]) -> Step:
        return _if_allowed(
            gates["flip"], f"Every node supports {_version.unpack(self.target)}; then they write it, too."
        )

    def _third_step(self) -> Step:
        text = "Actors are brought up when they are next used; this names those that are not yet."
        return Step(text, command("census", self.type, "--below", _version.unpack(self.target)))

    def _fourth_step(self) -> Step:
        if not any(applied.packed for applied in self._newest):
            return Step("Nothing: all is brought up, and no old migration is left.")
        target = _version.unpack(self.target)
        text = f"All is brought up. Migrations up to {target} may go, for baseline={str(target)!r}, if this says yes."
        return Step(text, command("gate", "retire", self.type, target))


def _if_allowed(gate: Gate, text: str) -> Step:
    if gate.allowed:
        return Step(text, command("rollout", gate.question, gate.type, gate.version))
    why = f"The gate says no to a {gate.question}: {gate.reasons[0].text}"
    return Step(why, command("gate", gate.question, gate.type, gate.version))


def _has_all(applied: AppliedSet, newest: list[AppliedSet]) -> bool:
    return all(one.floor <= applied.highest and all(applied.has(number) for number in one.packed) for one in newest)
