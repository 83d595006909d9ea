"""The gates as operators ask them, and the changes of a write version."""

from __future__ import annotations

import re
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


_OF_ACTORS = re.compile("(an actor|the oldest entry of an actor) of type ")
"""How stores begin to say what is wrong with actors; else it is a row that all actors of the type share."""


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
    asked = _asked(question, name, version)
    make = partial(ruling, asked, _JUDGES[question], is_change=is_change)
    try:
        gate: Gate = await store.rule(make, is_change=is_change)
    except StoreError as error:
        is_unknown = is_change and not error.is_unchanged
        return _not_asked(asked, f"{error}{unknown_change(name) * is_unknown}")
    except CorruptStateError as error:
        unchanged = " Nothing was changed." * is_change
        return asked.gate([Reason("corrupt", f"{unreadable(name, error)}{unchanged}")])
    return gate


def _asked(question: Question, name: str, version: str | Version | None) -> Asked:
    return Asked(question, name, None if question == "unpin" else _version.pack(_version.parse(version)))


def not_asked(question: Question, actor_type: str, version: str | None, why: str) -> Gate:
    """Return the answer where a store could not be opened.

    Raises:
        DefinitionError: The version is none.
        InvalidKeyError: The type is none.
    """
    check_text("an actor type", actor_type, MAX_NAME_BYTES)
    return _not_asked(_asked(question, actor_type, version), why)


def _not_asked(asked: Asked, why: str) -> Gate:
    return asked.gate([Reason("store_failed", f"the store could not be asked: {why}")])


def unknown_change(actor_type: str) -> str:
    """Return what to say where a change of the write version may have been made."""
    return f" Whether it was changed is unknown: '{command('rollout', 'status', actor_type)}' shows it."


def unreadable(actor_type: str, error: CorruptStateError) -> str:
    """Return what of a type can't be read, for people, and the cure."""
    reason = error.reason.replace("its migration-info is", "a set of versions, in the table release or lineage, is", 1)
    found = f"what is stored of {actor_type} can't be read: {reason}."
    if error.key is not None or _OF_ACTORS.match(error.reason):
        return f"{found} '{command('export', actor_type)}' names each actor that can't be read; put it right."
    return f"{found} It belongs to no actor; put that row right, or restore the store from a backup."


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
