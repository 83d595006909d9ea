"""Which stored actors are not at the version that their type is written at; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lazymig import _plan
from lazymig._bases import NO_POLICY
from lazymig._records import Stamp
from lazymig._rulings import AskType, Ruled
from lazymig._version import is_newer_major

if TYPE_CHECKING:
    from lazymig._bases import WritePolicy
    from lazymig._records import AppliedSet
    from lazymig._rulings import Ruling, TypeFacts
    from lazymig.suite import ActorType


class Facts(NamedTuple):
    """What a pass begins with.

    Attributes:
        policy: What the type is written at.
        actors: The applied sets of its actors.
        known: All applied sets of the type, its entries' among them.
    """

    policy: WritePolicy = NO_POLICY
    actors: frozenset[AppliedSet | None] = frozenset()
    known: frozenset[AppliedSet] = frozenset()


def asking(actor_type: str) -> Ruling:
    """Ask for the facts of a type."""
    facts: TypeFacts = yield AskType(actor_type)
    return Ruled(Facts(facts.policy, facts.actors, facts.known))


class Targets:
    """Says which applied sets are not at the version that a type is written at.

    Args:
        actor_type: The type, as this software has it.
        policy: What it is written at.
    """

    def __init__(self, actor_type: ActorType[Any], policy: WritePolicy) -> None:
        self._chain = actor_type.chain
        self._infers_version = actor_type.infers_version
        self._written = policy.version

    @property
    def is_pinned(self) -> bool:
        """Whether the type is written below what this software supports."""
        return self._written is not None and self._written < self._chain.release.highest

    @property
    def version(self) -> int:
        """The version, packed."""
        highest = self._chain.release.highest
        return highest if self._written is None else min(highest, self._written)

    def is_newer(self, applied: AppliedSet | None) -> bool:
        """Tell whether this software can't read actors of a set."""
        return applied is not None and is_newer_major(applied.highest, self._chain.release.highest)

    def is_stale(self, applied: AppliedSet | None) -> bool:
        """Tell whether actors of a set are to be brought up, or down."""
        if applied is None:
            return bool(self._chain.migrations) or self._infers_version or self._chain.floor > 0
        if self.is_newer(applied):
            return False
        stamp = Stamp(applied, self._chain.release)
        found = _plan.Found(stamp, has_states=True, has_main=True, write_version=self._written)
        if _plan.has_to_lower(self._chain, found, applied):
            return True
        pending = self._chain.pending(applied)
        return any(step.packed <= self.version for step in pending) or applied.highest < self._chain.floor

    def is_stale_entry(self, applied: AppliedSet) -> bool:
        """Tell the same of entries."""
        if self.is_newer(applied):
            return False
        if self.is_pinned and applied.highest > self.version:
            return True
        return applied.union(self._chain.release_up_to(self.version)) != applied
