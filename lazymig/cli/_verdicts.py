"""What the commands of gates and changes share: asking, who knows the type, and how an answer is shown."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from lazymig.cli._access import Unopened, known_types, opened, run, unknown_type
from lazymig.cli._output import FINE, FOUND, INTERRUPTED, Refusal, code_of, plain, suggest
from lazymig.cli._settings import read_settings
from lazymig.errors import CorruptStateError, LazymigError, StoreError
from lazymig.rollout._asking import ask, not_asked, unknown_change, unreadable
from lazymig.rollout._status import is_known, read_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazymig.cli._output import Output
    from lazymig.cli._settings import Settings
    from lazymig.rollout import Gate
    from lazymig.rollout._verdict import Question
    from lazymig.store import Store

_UNKNOWN = {"unknown_version", "unknown_release"}


def answer(  # noqa: PLR0913  (what a command was given)
    output: Output,
    question: Question,
    actor_type: str,
    version: str | None,
    store: str | None,
    *,
    is_change: bool = False,
) -> int:
    """Ask a gate, carry the change out if it is one, show the answer, and return the exit status."""
    settings = read_settings(store)
    try:
        gate = run(partial(_ask, output, settings, question, actor_type, version, is_change=is_change))
    except KeyboardInterrupt:
        if not is_change:
            raise
        raise Refusal("interrupted", f"interrupted.{unknown_change(actor_type)}", INTERRUPTED) from None
    except Unopened as error:
        gate = not_asked(question, actor_type, version, str(error))
    document = {"store": settings.shown_store, **as_document(gate)}
    output.answer(document, "\n".join(_lines(gate, is_change=is_change)))
    return FINE if gate.allowed else FOUND


async def _ask(  # noqa: PLR0913  (likewise)
    output: Output, settings: Settings, question: Question, actor_type: str, version: str | None, *, is_change: bool
) -> Gate:
    async with opened(settings) as store:
        gate = await ask(store, question, actor_type, version, is_change=is_change)
        if question == "pin":
            with suppress(Refusal, LazymigError):  # the answer stands, whatever becomes of the hint
                await _hint(output, store, actor_type, settings)
        elif _may_be_misspelt(gate):
            with suppress(StoreError, CorruptStateError):  # likewise
                await require_known(store, actor_type, settings)
        return gate


def _may_be_misspelt(gate: Gate) -> bool:
    """Tell whether the type may be one that nobody has."""
    if gate.question == "unpin":
        return gate.allowed and not gate.is_changed
    return not _UNKNOWN.isdisjoint(reason.code for reason in gate.reasons)


async def _hint(output: Output, store: Store, actor_type: str, settings: Settings) -> None:
    """Say that a type pinned before it is deployed is new to the store: it may be a mistake."""
    known = await known_types(store, settings)
    if actor_type not in known:
        hint = suggest(actor_type, known) or " That is fine before the first deploy."
        output.note(plain(f"nobody has an actor type {actor_type!r} yet.{hint}"))


async def require_known(store: Store, actor_type: str, settings: Settings) -> None:
    """Refuse a type that neither the store, nor a node, nor a suite has.

    Raises:
        Refusal: It is unknown.
    """
    if is_known(await read_facts(store, actor_type), actor_type):
        return
    known = await known_types(store, settings)
    if actor_type not in known:
        raise unknown_type(actor_type, sorted(known), FOUND)


@contextmanager
def readable(actor_type: str) -> Iterator[None]:
    """Say of what is read of a type as a whole whose fault it is if it can't be.

    Raises:
        Refusal: It can't be read.
    """
    try:
        yield
    except CorruptStateError as error:
        raise Refusal(code_of(error), unreadable(actor_type, error), FOUND) from error


def as_document(gate: Gate) -> dict[str, Any]:
    """Return a gate as a document has it."""
    return {
        "question": gate.question,
        "type": gate.type,
        "version": None if gate.version is None else str(gate.version),
        "allowed": gate.allowed,
        "changed": gate.is_changed,
        "reasons": [
            {
                "code": reason.code,
                "text": reason.text,
                "nodes": list(reason.nodes),
                "count": reason.count,
                "actors": list(reason.actors),
            }
            for reason in gate.reasons
        ],
        "notes": list(gate.notes),
    }


def _lines(gate: Gate, *, is_change: bool) -> Iterator[str]:
    """Yield an answer for people."""
    yield plain(_headline(gate, is_change=is_change))
    for reason in gate.reasons:
        yield plain(f"  {reason.code}: {reason.text}")
    for note in gate.notes:
        yield plain(f"  note: {note}")


def _headline(gate: Gate, *, is_change: bool) -> str:
    if not gate.allowed:
        return f"no: {gate.title}"
    if not is_change:
        return f"yes: {gate.title}"
    if not gate.is_changed:
        return "nothing to change"
    if gate.version is None:
        return f"done: {gate.type} has no write version any more"
    return f"done: {gate.type} is written at {gate.version}"
