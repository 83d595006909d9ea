"""The Copies Protocol: what an engine promises, so that actors can be copied from one store to another.

A copy has whole actors only. One that is larger than a batch is put in pages, as a *draft*, and becomes an actor at
once with its last step: until then nobody can claim it, and neither `read` nor `scan` nor a census has it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lazymig._bases import WritePolicy
    from lazymig._records import ActorKey, AppliedSet, Previous, StoredActor
    from lazymig._rulings import Release

VALUE_BYTES = 100
"""What `Outline.size` adds for each value: names, keys and stamps of many small ones are no less than they are."""


class Outline(NamedTuple):
    """What a store has of an actor, in short.

    Attributes:
        id: The actor's.
        revision: The actor's.
        size: Bytes of all its values together (states, base, entries, what is kept from before), and `VALUE_BYTES` for
            each.
    """

    id: str
    revision: int
    size: int


class CopiedEntry(NamedTuple):
    """An entry with its place.

    Attributes:
        table: Its table.
        key: Its key.
        data: The encoded value.
        applied: What was applied to it.
    """

    table: str
    key: str
    data: bytes
    applied: AppliedSet


class Whole(NamedTuple):
    """All that is kept of an actor, and copied. Its lock is not.

    Attributes:
        actor: The actor.
        entries: Of all its tables, ordered by table and key.
        previous: See `Store.previous`.
    """

    actor: StoredActor
    entries: Sequence[CopiedEntry] = ()
    previous: Previous | None = None


class TypeSettings(NamedTuple):
    """What is kept of an actor type, and copied.

    Attributes:
        policy: What its actors are stored as.
        releases: All that were ever registered, in no order.
    """

    policy: WritePolicy
    releases: Sequence[Release]


class Put(Enum):
    """What became of an actor that was to be put."""

    STORED = "stored"
    NOT_OLDER = "not older"
    """The store's own has the same revision, or a higher one; it was left as it is."""
    HELD = "held"
    """A living node has its lock, or another copy its draft; it was left as it is."""


class Copies(Protocol):
    """Hands out whole actors, and takes them. Every operation is atomic."""

    async def types(self) -> Sequence[str]:
        """Return the types of which there are actors, releases or a write policy, in order."""
        ...

    async def settings(self, actor_type: str) -> TypeSettings:
        """Return what is kept of a type.

        Raises:
            CorruptStateError: It can't be read.
        """
        ...

    async def outlines(self, actor_type: str, *, after: str = "", limit: int = 500) -> Sequence[Outline]:
        """Return up to ``limit`` actors of a type whose id is above ``after``, in order: those that `Store.scan` has.

        Raises:
            CorruptStateError: An id, or a revision, can't be read.
        """
        ...

    async def read(self, actor_type: str, ids: Sequence[str]) -> Sequence[Whole]:
        """Return those of these actors that are stored, in order of their ids, each as of one moment.

        Raises:
            CorruptStateError: One can't be read; names it.
        """
        ...

    async def note(self, actor_type: str, settings: TypeSettings) -> None:
        """Store a type's policy with its epoch if the store's own epoch is lower, and releases not seen later.

        Must let no commit of an earlier epoch take effect once this has returned, as `Store.rule`.
        """
        ...

    async def put(self, actor_type: str, wholes: Sequence[Whole]) -> Sequence[Put]:
        """Store actors of a type with their revisions, each in place of all that is stored of it.

        Must leave actors alone that are not of a lower revision, or are held.

        Returns:
            What became of each.
        """
        ...

    async def begin(self, key: ActorKey, revision: int, draft: str, entries: Sequence[CopiedEntry]) -> Put:
        """Begin a draft with its first entries, at least one, in place of all that is stored of the actor.

        Must leave the actor alone if it is not of a lower revision, or is held. Until the draft is finished, a claim
        of the actor must raise CorruptStateError. Only `Store.entries` and what counts entries may show it.

        Args:
            key: The actor.
            revision: That it will have.
            draft: Drawn by the caller, never used twice; takes the place of another draft of the actor.
            entries: In any order.
        """
        ...

    async def add(self, key: ActorKey, draft: str, entries: Sequence[CopiedEntry]) -> bool:
        """Add entries to a draft.

        Returns:
            False if there is no such draft any more; nothing was stored.
        """
        ...

    async def finish(self, whole: Whole, draft: str) -> Put:
        """Make an actor of a draft: its entries become the actor's, all at once with what is given here.

        Args:
            whole: The actor, without entries.
            draft: The draft.

        Returns:
            `Put.HELD` if there is no such draft any more; nothing was stored.
        """
        ...

    async def backup(self, file: Path, progress: Callable[[float], object]) -> None:
        """Write a copy of the whole store, as of one moment, into a new file that is a store; writers go on.

        Must leave nothing under the file's name before it is complete and synced. Locks, nodes and travelling calls
        are not in it.

        Args:
            file: Made by this.
            progress: Called now and then with the share that is done, from another thread; what it raises ends it.

        Raises:
            StoreError: The file is there already, or can't be written; or the engine has tools of its own for it,
                which are named.
        """
        ...
