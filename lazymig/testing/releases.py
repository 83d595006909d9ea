"""The same suite as an older release, so that old and new software can be tested beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig.suite import ActorType, Suite

if TYPE_CHECKING:
    from semver import Version


def release(suite: Suite, upto: str | Version) -> Suite:
    """Return a copy of ``suite`` with only the migrations up to a version.

    Its actor types have the same names, classes and contexts, so that a node of it is a node of that older release;
    and the same write version where that release supports it.

    Args:
        suite: The suite at its newest; it is not changed.
        upto: Highest version of the copy; "0.0.0" for software without migrations.
    """
    older = Suite(suite.name)
    for actor_type in suite.actor_types.values():
        _copy(actor_type, older, _version.parse(upto))
    return older


def _copy(actor_type: ActorType[Any], suite: Suite, upto: Version) -> None:
    actor_class: Any = actor_type.actor_class
    copied = suite.actor_type(
        actor_type.name,
        actor_class,
        state=actor_type.state,
        context=actor_type._context,  # noqa: SLF001  (no option to read: a suite is made once)
        context_factory=actor_type._context_factory,  # noqa: SLF001
        infer_version=actor_type._infer_version,  # noqa: SLF001
        baseline=actor_type.baseline,
        keep_previous=actor_type.keeps_previous,
    )
    for migration in actor_type.migrations:
        if migration.version <= upto:
            added = copied.migration(migration.version, late=migration.late)(migration.function)
            added.downgrade, added.reconciler = migration.downgrade, migration.reconciler
            for table, old in migration.conversions.items():
                register = added.entries(table, eager=old.is_eager, concurrency=old.concurrency)
                register(old.function).downgrade = old.downgrade
    if actor_type.write_version is not None and actor_type.write_version <= copied.supported:
        copied.write_version = actor_type.write_version
