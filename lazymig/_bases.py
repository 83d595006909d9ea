"""Frozen values of rolling deploys: what a type is to be stored as, and what newer software kept beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._records import AppliedSet


class WritePolicy(NamedTuple):
    """What the actors of a type are stored as.

    Attributes:
        version: The write version, packed; None: each node stores what it supports.
        epoch: Raised by every change of it; 0 until somebody sets one.
    """

    version: int | None = None
    epoch: int = 0


NO_POLICY = WritePolicy()


class Kept(NamedTuple):
    """A state as newer software last stored it.

    Attributes:
        data: The encoded value; None: there was none.
    """

    data: bytes | None


class Base(NamedTuple):
    """What newer software last stored of an actor, kept because older software can't.

    Attributes:
        applied: What was applied to it.
        revision: The actor's when it was made: it is current as long as nobody stored since. 0 if it was kept when
            older software stored: that one is never current.
        digest: Of the migrations that made it of what was stored beside it.
        states: Name to value; a state that is not in it is as newer software left it.
    """

    applied: AppliedSet
    revision: int
    digest: int
    states: Mapping[str, Kept]


class BaseWrite(NamedTuple):
    """How a commit changes an actor's base.

    Attributes:
        applied: What is applied to it afterwards; None: no base is left, and none of its states.
        digest: Afterwards.
        is_current: Its revision becomes the actor's new one; else it stays what it is, or is 0 if there was no base.
        states: Name to what is kept from now on; None: nothing any more. The others stay.
    """

    applied: AppliedSet | None
    digest: int = 0
    is_current: bool = False
    states: Mapping[str, Kept | None] = {}


def base_after(before: Base | None, write: BaseWrite, revision: int) -> Base | None:
    """Return an actor's base after a commit.

    Args:
        before: The base before it.
        write: How it changes.
        revision: The actor's after the commit.
    """
    if write.applied is None:
        return None
    states = {} if before is None else dict(before.states)
    for name, kept in write.states.items():
        if kept is None:
            states.pop(name, None)
        else:
            states[name] = kept
    if not write.is_current:
        revision = 0 if before is None else before.revision
    return Base(write.applied, revision, write.digest, states)


NO_BASE = BaseWrite(None)
"""Removes an actor's base."""
