"""The gates as operators ask them, and the changes of a write version."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig import _version
from lazymig._options import check_store
from lazymig._records import MAX_NAME_BYTES, check_text
from lazymig.errors import CorruptStateError, StoreError
from lazymig.rollout import _gates, _stored_gates
from lazymig.rollout._gates import Asked, ruling
from lazymig.rollout._verdict import Reason, command
from lazymig.suite import name_of

if TYPE_CHECKING:
    from semver import Version

    from lazymig.rollout._verdict import Gate, Question
    from lazymig.store import Store
    from lazymig.suite import ActorType

_JUDGES = {
    "pin": _gates.pin,
    "flip": _gates.flip,
    "unpin": _gates.unpin,
    "retire": _stored_gates.retire,
    "roll_back": _stored_gates.roll_back,
}


async def pin(store: Store, actor_type: ActorType[Any] | str, version: str | Version) -> Gate:
    """Let a type be written at a version not above the one it is written at now, if the gate says yes.

    Once this has returned with yes, no commit that was made for another write version takes effect. A repeated pin is
    allowed, and changes nothing.

    Args:
        store: An open store.
        actor_type: The type, or its name; nobody need have registered it yet.
        version: The version, "0.0.0" included; likewise.

    Returns:
        The gate's answer; nothing was changed if it is no. If the store failed, whether something was is unknown.

    Raises:
        DefinitionError: The version is none, or the store is none.
        InvalidKeyError: The type is none.
    """
    return await ask(store, "pin", actor_type, version, is_change=True)


async def flip(store: Store, actor_type: ActorType[Any] | str, version: str | Version) -> Gate:
    """Let a type be written at a version not below the one it is written at now; see `pin`."""
    return await ask(store, "flip", actor_type, version, is_change=True)


async def unpin(store: Store, actor_type: ActorType[Any] | str) -> Gate:
    """Let each node store what it supports; see `pin`."""
    return await ask(store, "unpin", actor_type, is_change=True)


async def gate_pin(store: Store, actor_type: ActorType[Any] | str, version: str | Version) -> Gate:
    """Tell whether `pin` would be carried out.

    Like all gates it reads only, and says no, with the code "store_failed" or "corrupt", if the store can't be asked.

    Raises:
        DefinitionError: The version is none, or the store is none.
        InvalidKeyError: The type is none.
    """
    return await ask(store, "pin", actor_type, version)


async def gate_flip(store: Store, actor_type: ActorType[Any] | str, version: str | Version) -> Gate:
    """Tell whether `flip` would be carried out; see `gate_pin`."""
    return await ask(store, "flip", actor_type, version)


async def gate_unpin(store: Store, actor_type: ActorType[Any] | str) -> Gate:
    """Tell whether `unpin` would be carried out; see `gate_pin`."""
    return await ask(store, "unpin", actor_type)


async def gate_retire(store: Store, actor_type: ActorType[Any] | str, version: str | Version) -> Gate:
    """Tell whether a migration may be removed from the source, for a baseline there; see `gate_pin`."""
    return await ask(store, "retire", actor_type, version)


async def gate_roll_back(store: Store, actor_type: ActorType[Any] | str, version: str | Version) -> Gate:
    """Tell whether the release whose highest version this is could take over again; see `gate_pin`.

    Where several releases end at the version, all of them must be able to.
    """
    return await ask(store, "roll_back", actor_type, version)


async def forget(store: Store, node_id: str) -> bool:
    """Remove a node for good: once this returns, nothing it may yet try to store is stored.

    One that is alive registers anew when it notices; until then it may begin actions that only read.

    Returns:
        False if it is unknown.

    Raises:
        StoreError: The store's fault; whether it was removed is unknown.
    """
    check_store(store)
    check_text("a node id", node_id, MAX_NAME_BYTES)
    return await store.forget(node_id)


async def ask(
    store: Store,
    question: Question,
    actor_type: ActorType[Any] | str,
    version: str | Version | None = None,
    *,
    is_change: bool = False,
) -> Gate:
    """Ask a gate, and carry out what it allows if it is a change.

    Args:
        store: An open store.
        question: Which gate.
        actor_type: The type, or its name.
        version: None for "unpin" only.
        is_change: Whether to change the write version if it says yes.
    """
    name = checked_name(store, actor_type)
    asked = Asked(question, name, None if question == "unpin" else _version.pack(_version.parse(version)))
    make = partial(ruling, asked, _JUDGES[question], is_change=is_change)
    try:
        gate: Gate = await store.rule(make, is_change=is_change)
    except StoreError as error:
        unknown = f" Whether it was changed is unknown: '{command('rollout', 'status', name)}' shows it." * (
            is_change and not error.is_unchanged
        )
        return asked.gate([Reason("store_failed", f"the store could not be asked: {error}{unknown}")])
    except CorruptStateError as error:
        unchanged = " Nothing was changed." * is_change
        cure = f"Put it right: '{command('export', name)}' names each actor that can't be read."
        return asked.gate([Reason("corrupt", f"what is stored of {name} can't be read: {error}{unchanged} {cure}")])
    return gate


def checked_name(store: Store, actor_type: ActorType[Any] | str) -> str:
    """Return the name of a type that a store may have.

    Raises:
        DefinitionError: The store is none.
        InvalidKeyError: The type is none.
    """
    check_store(store)
    name = name_of(actor_type)
    check_text("an actor type", name, MAX_NAME_BYTES)
    return name
