"""Rulings as the contract tests make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazymig._records import ActorKey, Claim, Commit, Fence
from lazymig._rulings import AskType, Ruled, TypeFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazymig._bases import BaseWrite
    from lazymig._records import Stamp
    from lazymig._rulings import Question, Ruling
    from lazymig.store import Store


def answers(*questions: Question, **ruled: Any) -> Callable[[], Ruling]:
    """Return what makes a ruling that returns the answers to its questions; more of what it decides is named."""

    def ruling() -> Ruling:
        found = []
        for question in questions:
            found += [(yield question)]
        return Ruled(found, **ruled)

    return ruling


async def ask(store: Store, question: Question) -> Any:
    """Return the answer to one question."""
    (answer,) = await store.rule(answers(question))
    return answer


async def facts(store: Store, actor_type: str = "Car") -> TypeFacts:
    """Return what the store knows of a type."""
    found = await ask(store, AskType(actor_type))
    assert isinstance(found, TypeFacts)
    return found


async def pin(store: Store, version: int | None, actor_type: str = "Car") -> None:
    """Set a type's write version, or none."""
    await store.rule(answers(policies={actor_type: version}), is_change=True)


async def put(
    store: Store,
    actor_id: str,
    stamp: Stamp | None,
    base: BaseWrite | None = None,
    *,
    actor_type: str = "Car",
    **fields: Any,
) -> None:
    """Store an actor once more, under a claim of its own."""
    key = ActorKey(actor_type, actor_id)
    claim = await store.claim(key, Fence("n1", 1))
    assert isinstance(claim, Claim)
    commit = Commit(key, claim.fence, claim.actor.revision, stamp, {"main": b"1"}, release=True, base=base)
    assert isinstance(await store.commit(commit._replace(epoch=claim.policy.epoch, **fields)), int)
