"""What is stored of an actor, as users see it; nothing is checked, run or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig import _version, codec
from lazymig._records import ActorRecord
from lazymig.errors import CorruptStateError

if TYPE_CHECKING:
    from lazymig._records import ActorKey, StoredActor
    from lazymig.store import Store


async def inspect(store: Store, key: ActorKey) -> ActorRecord | None:
    """Return what a store has of an actor, None if it was never stored.

    Raises:
        CorruptStateError: It can't be read.
    """
    found = await store.read(key)
    return None if found is None else as_record(found)


def as_record(found: StoredActor) -> ActorRecord:
    """Return a stored actor as users see it.

    Raises:
        CorruptStateError: A state can't be read.
    """
    states = {name: decode_state(found.key, name, data) for name, data in sorted(found.states.items())}
    info = None if found.stamp is None else found.stamp.info
    converting = _version.unpack(found.marks.converting) if found.marks.converting else None
    return ActorRecord(found.key, info, states, found.owner, found.revision, converting)


def decode_state(key: ActorKey, name: str, data: bytes) -> Any:
    """Return a stored state's JSON value.

    Raises:
        CorruptStateError: The bytes are no JSON.
    """
    try:
        return codec.decode(data)
    except ValueError as error:
        raise CorruptStateError(key, f"its state {name!r} is no JSON ({error})") from None
