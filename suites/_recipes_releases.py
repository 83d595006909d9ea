"""What a recipe is, and how its releases are made of one suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazymig import Suite
from lazymig.testing.releases import release

if TYPE_CHECKING:
    from lazymig import Actor


@dataclass(frozen=True)
class Recipe:
    """A change of a state's shape, release by release.

    Attributes:
        type: Name of the actor type.
        suite: All its migrations, with the class of the last release.
        releases: What is deployed, one after the other; the last one has retired all migrations.
    """

    type: str
    suite: Suite
    releases: tuple[Suite, ...]


def at(suite: Suite, upto: str, actor_class: type[Actor]) -> Suite:
    """Return the release of a suite with the migrations up to a version, and the class that it had."""
    older = release(suite, upto)
    (actor_type,) = older.actor_types.values()
    actor_type.actor_class = actor_class
    return older


def retired(suite: Suite, actor_class: type[Actor], baseline: str) -> Suite:
    """Return the release of a suite that has none of its migrations any more, but a baseline."""
    newest = Suite(suite.name)
    (actor_type,) = suite.actor_types.values()
    made: Any = newest.actor_type(actor_type.name, actor_class, state=actor_type.state, baseline=baseline)
    assert made.supported == actor_type.supported  # noqa: S101  (a slip in a recipe)
    return newest
