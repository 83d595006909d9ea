"""Actors whose migration failed: which they are, and trying them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig._options import check_store
from lazymig._quarantine import Quarantine
from lazymig._records import MAX_ID_BYTES, check_text
from lazymig.rollout._asking import checked_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazymig.store import Store
    from lazymig.suite import ActorType

PAGE_RECORDS = 500
"""How many records are read at once."""


def quarantined(store: Store, actor_type: ActorType[Any] | str | None = None) -> AsyncIterator[Quarantine]:
    """Read the records of actors whose migration failed, page by page, in order of type and id.

    An actor has one until its migration is applied, however long its next try has been due.

    Args:
        store: An open store.
        actor_type: The type, or its name; None for all.

    Raises:
        DefinitionError: The store is none.
        InvalidKeyError: The type is none.
        StoreError: The store can't be asked; raised when they are read, as is CorruptStateError.
    """
    check_store(store)
    return _read(store, None if actor_type is None else checked_name(store, actor_type))


async def _read(store: Store, actor_type: str | None) -> AsyncIterator[Quarantine]:
    after = None
    while True:
        page = await store.failures.page(actor_type, after=after, limit=PAGE_RECORDS)
        for key, failure in page:
            yield Quarantine.of(key, failure)
        if len(page) < PAGE_RECORDS:
            return
        after = page[-1][0]


async def retry(store: Store, actor_type: ActorType[Any] | str, actor_id: str | None = None) -> int:
    """Let quarantined actors be tried again at their next activation; the number of attempts stays.

    A node that holds an actor's lock may refuse once more.

    Args:
        store: An open store.
        actor_type: The type, or its name.
        actor_id: One actor; None for all of the type.

    Returns:
        How many there are.

    Raises:
        DefinitionError: The store is none.
        InvalidKeyError: The type is none, or the id is.
        StoreError: The store's fault; whether it was done is unknown.
    """
    name = checked_name(store, actor_type)
    if actor_id is not None:
        check_text("an actor id", actor_id, MAX_ID_BYTES)
    return await store.failures.retry(name, actor_id)
