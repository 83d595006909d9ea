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
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from lazymig._rulings import TypeFacts
    from lazymig.rollout._fleet import Serving
    from lazymig.rollout._verdict import Gate, Question

_SWEPT = {"actors_lack", "entries_lack", "bases_lack", "actors_drifted"}
"""Codes of what a sweep puts right."""


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

    @property
    def newer(self) -> int | None:
        """The highest version of actors that no node can read, packed; None if there are none."""
        highest = max((applied.highest for applied in self.facts.actors if applied is not None), default=0)
        return highest if _version.is_newer_major(highest, self.target) else None

    def phase(self, gates: Sequence[Gate]) -> int:
        """Return the phase, from 1 to 4, by what the gates of `asking` answered."""
        written = self.facts.policy.version
        is_ahead = self.newer is not None or (written is not None and written > self.target)
        if self.behind or self.facts.unreadable or is_ahead:
            return 1
        if written is not None and written < self.target:
            return 2 if self.nodes else 1
        return 4 if _to_bring_up(gates) is None else 3

    @property
    def pin_version(self) -> int | None:
        """The version that a pin makes sense to, packed; None without one."""
        written = self.facts.policy.version
        lowest = min((one.supported for one in self.behind), default=None)
        if written is not None and written > self.target:
            return self.target
        found = self.previous if lowest is None else lowest
        return found if written is None or (found is not None and found < written) else None

    def asking(self) -> Generator[Asked, Gate, list[Gate]]:
        """Yield what to ask the gates, and be sent each answer; return those to show.

        Of the newest release all migrations are asked about; shown is the first one that may not go, and the last.
        """
        gates: list[Gate] = []
        written = self.facts.policy.version
        if self.pin_version is not None:
            gates.append((yield Asked("pin", self.type, self.pin_version)))
        if written is not None and written < self.target:
            gates.append((yield Asked("flip", self.type, self.target)))
        if written is not None:
            gates.append((yield Asked("unpin", self.type)))
        newest = {number for one in self._newest if one.highest == self.target for number in one.packed}
        for version in sorted(newest - {self.target}):
            gate = yield Asked("retire", self.type, version)
            if not gate.allowed:
                gates.append(gate)
                break
        if self.target:
            gates.append((yield Asked("retire", self.type, self.target)))
        if self.previous is not None:
            gates.append((yield Asked("roll_back", self.type, self.previous)))
        return gates

    def next_step(self, gates: Sequence[Gate]) -> Step:
        """Return the next safe step, by what the gates of `asking` answered."""
        if (step := self._before_all_else()) is not None:
            return step
        asked = {gate.question: gate for gate in gates}
        phase = self.phase(gates)
        if phase == 1:
            return self._first_step(asked)
        if phase == 2:
            text = f"Every node supports {_version.unpack(self.target)}; then they write it, too."
            return _if_allowed(asked["flip"], text)
        behind = _to_bring_up(gates)
        return self._last_step() if behind is None else _third_step(behind)

    def _before_all_else(self) -> Step | None:
        if self.facts.unreadable:
            forget = command("nodes", "forget", min(self.facts.unreadable))
            return Step("Its row can't be read: stop its process first.", forget)
        if silent := [one for one in self.nodes if not one.node.is_alive]:
            forget = command("nodes", "forget", silent[0].node.node_id)
            return Step(f"{named(silent[:1])} is silent; nothing it may yet try to store is stored then.", forget)
        if not self.nodes:
            return Step(f"No node serves {self.type}: start one.")
        if self.newer is not None:
            stored = f"Actors are stored at {_version.unpack(self.newer)}, which no node of {self.type} can read"
            return Step(f"{stored}: start the newer release.")
        return None

    def _first_step(self, gates: Mapping[Question, Gate]) -> Step:
        written = self.facts.policy.version
        stored = self.target if written is None else written
        if not all(one.offer.can_read(stored) for one in self.nodes):
            text = f"Nodes can't read what is stored at {_version.unpack(stored)}; a pin keeps it readable for all."
            return _if_allowed(gates["pin"], text)
        if stored > self.target:
            text = (
                f"Nodes that support {_version.unpack(self.target)} store nothing written at {_version.unpack(stored)}"
            )
            return _if_allowed(gates["pin"], f"{text}; a pin lets them store again.")
        working = [one for one in self.nodes if not one.node.is_draining]
        if not any(one.supported == self.target for one in working):
            return Step(f"Start a node of {_version.unpack(self.target)}: those that are there drain.")
        if old := [one for one in working if one.supported < self.target]:
            drain = command("nodes", "drain", old[0].node.node_id)
            return Step(f"Then stop {named(old[:1])}, and start the new release in its place.", drain)
        return Step(f"Wait until {named(self.behind)} has ended.")

    def _last_step(self) -> Step:
        if not any(applied.packed for applied in self._newest):
            return Step("Nothing: all is brought up, and no old migration is left.")
        target = _version.unpack(self.target)
        text = f"All is brought up. Migrations up to {target} may go, for baseline={str(target)!r}, if this says yes."
        return Step(text, command("gate", "retire", self.type, target))


def _to_bring_up(gates: Iterable[Gate]) -> Gate | None:
    """Return the first gate that says that a migration may not go, if one does."""
    return next((gate for gate in gates if gate.question == "retire" and not gate.allowed), None)


def _third_step(gate: Gate) -> Step:
    text = f"Not all is brought up: {gate.reasons[0].text}"
    if _SWEPT.issuperset(reason.code for reason in gate.reasons):
        return Step(f"{text} Or sweep them.", command("sweep", gate.type))
    return Step(text, command("gate", "retire", gate.type, gate.version))


def _if_allowed(gate: Gate, text: str) -> Step:
    if gate.allowed:
        return Step(text, command("rollout", gate.question, gate.type, gate.version))
    why = f"The gate says no to a {gate.question}: {gate.reasons[0].text}"
    return Step(why, command("gate", gate.question, gate.type, gate.version))
