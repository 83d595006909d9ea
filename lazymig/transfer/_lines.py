"""Data in and out: actors from pairs or JSON lines, and actors as JSON lines.

Rules:

1. An import writes only actors that don't exist, each whole, without migration-info: their first activation migrates
   them. So it may be stopped anywhere and run again: what is stored already counts as existing.
2. One faulty row never stops the others: it is reported with its place, and counted.
3. Memory is bounded by a batch, however long the data is: `MAX_BATCH_ACTORS` or `MAX_BATCH_BYTES`.
4. An export reads page by page beside the locks: each actor is whole, the set of them is no snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import orjson

from lazymig import codec
from lazymig._inspection import as_record
from lazymig._records import MAX_NAME_BYTES, ActorKey, ActorRecord, check_text
from lazymig.errors import CorruptStateError, InvalidKeyError, InvalidValueError
from lazymig.suite import ActorType, name_of

if TYPE_CHECKING:
    from lazymig.store import Store

T = TypeVar("T")

Existing = Literal["skip", "error"]
"""What an actor that exists already is: to be skipped, or a fault of its row. It is left alone either way."""

MAX_BATCH_ACTORS = 500
"""Actors in one transaction: the cost of one sync to disk is spread over enough of them."""

MAX_BATCH_BYTES = 4_000_000
"""Bytes of values in one transaction or page, unless a single actor has more."""

MAX_KEPT_REJECTIONS = 1_000
"""Rejections that a report keeps, so that a file of nothing but faults doesn't fill the memory."""

_FIRST_PAGE = 8
"""Actors in the first page of an export; the next ones grow to a batch unless the actors are large."""

_BOM = b"\xef\xbb\xbf"
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was not imported.

    Attributes:
        position: Its place among the pairs, or its line number; counted from 1.
        reason: What is wrong with it, and the cure; never the value.
    """

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, or has done so far.

    Attributes:
        imported: Actors stored.
        skipped: Rows whose actor existed already, with ``existing="skip"``.
        rejected: Rows that were not imported for a fault of theirs.
        rejections: The first 1,000 of them, in order of discovery.
    """

    imported: int = 0
    skipped: int = 0
    rejected: int = 0
    rejections: tuple[Rejection, ...] = ()


async def import_states(  # noqa: PLR0913  (the contract's options)
    store: Store,
    actor_type: ActorType[Any] | str,
    pairs: Iterable[tuple[str, Any]] | AsyncIterable[tuple[str, Any]],
    *,
    state: str | None = None,
    existing: Existing = "skip",
    on_rejected: Callable[[Rejection], object] | None = None,
    progress: Callable[[ImportReport], object] | None = None,
) -> ImportReport:
    """Store actors that don't exist yet, without migration-info, in batches of one transaction each.

    A row whose id or value can't be stored is rejected and the rest imported. Of rows with the same id the first is
    stored and the later ones count as existing.

    Args:
        store: Where to.
        actor_type: The type, or its name.
        pairs: ``(id, value)``; read no further ahead than a batch.
        state: Which state the values are; by default the type's main state, ``"state"`` if only a name is given.
        existing: With ``"error"`` a row whose actor exists is rejected instead of skipped; the actor is left alone.
        on_rejected: Called with each rejection as it is found.
        progress: Called with what was done so far after each batch.

    Raises:
        InvalidKeyError: The type's or the state's name can't be stored; nothing was imported.
        StoreError: The store's fault. As with anything that ``pairs`` raises, the batches before stay imported and no
            actor is half stored; run the same import again.
    """
    importer = _Importer(store, actor_type, state, existing=existing, on_rejected=on_rejected, progress=progress)
    position = 0
    async for actor_id, value in _each(pairs):
        position += 1
        await importer.add(position, actor_id, value)
    return await importer.finish()


async def import_json_lines(  # noqa: PLR0913  (those of import_states, and two fields)
    store: Store,
    actor_type: ActorType[Any] | str,
    lines: Iterable[bytes] | AsyncIterable[bytes],
    *,
    id_field: str,
    value_field: str | None = None,
    state: str | None = None,
    existing: Existing = "skip",
    on_rejected: Callable[[Rejection], object] | None = None,
    progress: Callable[[ImportReport], object] | None = None,
) -> ImportReport:
    """Import JSON lines, as `import_states` does; positions are line numbers.

    A line is one JSON object in UTF-8. A byte order mark before the first is passed over, and so are blank lines. What
    can't be kept is rejected: a number beyond 64 bits, a key twice, and whatever is no object, has no id or no value.

    Args:
        store: Where to.
        actor_type: The type, or its name.
        lines: Each with or without its line end.
        id_field: Names the field that is the actor's id: a string, or an integer, which is written as decimal digits.
            It stays in the value.
        value_field: Names the field that is the state; without it the whole object is.
        state: See `import_states`.
        existing: See `import_states`.
        on_rejected: See `import_states`.
        progress: See `import_states`.

    Raises:
        InvalidKeyError: See `import_states`.
        StoreError: See `import_states`.
    """
    importer = _Importer(store, actor_type, state, existing=existing, on_rejected=on_rejected, progress=progress)
    number = 0
    async for line in _each(lines):
        number += 1
        text = (line.removeprefix(_BOM) if number == 1 else line).rstrip()
        if not text:
            continue
        try:
            actor_id, value = _read_line(text, id_field, value_field)
        except ValueError as error:
            importer.reject(number, _reason(error))
        else:
            await importer.add(number, actor_id, value)
    return await importer.finish()


async def export_states(
    store: Store,
    actor_type: ActorType[Any] | str,
    *,
    on_corrupt: Callable[[CorruptStateError], object] | None = None,
) -> AsyncGenerator[ActorRecord, None]:
    """Yield all stored actors of a type in order of their ids (by code point), unmigrated, beside their locks.

    A store refuses a page with an actor that can't be read. Then the page is read one by one, so that exactly that
    actor is reported, and pages grow again after it.

    Args:
        store: Where from.
        actor_type: The type, or its name; of an unknown one there are no actors.
        on_corrupt: Called with the error of each actor that can't be read, which is then left out. Without it the first
            such actor ends the export, after all those before it.

    Raises:
        CorruptStateError: An actor can't be read, and there is no ``on_corrupt``.
        StoreError: The store's fault.
    """
    name = name_of(actor_type)
    after, limit = "", _FIRST_PAGE
    while True:
        try:
            page = await store.scan(name, after=after, limit=limit)
        except CorruptStateError as error:
            if limit > 1:
                limit = 1
                continue
            if on_corrupt is None or error.key is None:
                raise
            on_corrupt(error)
            after = error.key.id
            continue
        if not page:
            return
        for found in page:
            try:
                record = as_record(found)
            except CorruptStateError as error:
                if on_corrupt is None:
                    raise
                on_corrupt(error)
            else:
                yield record
        after = page[-1].key.id
        size = sum(len(data) for found in page for data in found.states.values())
        limit = min(limit * 2, MAX_BATCH_ACTORS) if size < MAX_BATCH_BYTES // 2 else max(limit // 2, 1)


def to_json_line(record: ActorRecord) -> bytes:
    """Return an actor as a JSON line, with its line end; equal actors give equal bytes.

    Keys, sorted at every level: ``id``, ``info`` (as `MigrationInfo.to_json`, or null), ``states`` (name to value),
    ``type``.
    """
    info = None if record.info is None else record.info.to_json()
    line = {"type": record.key.type, "id": record.key.id, "info": info, "states": dict(record.states)}
    return orjson.dumps(line, None, orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


class _Importer:
    """Collects rows into batches and counts what becomes of them."""

    def __init__(  # noqa: PLR0913  (the options of import_states)
        self,
        store: Store,
        actor_type: ActorType[Any] | str,
        state: str | None,
        *,
        existing: Existing,
        on_rejected: Callable[[Rejection], object] | None,
        progress: Callable[[ImportReport], object] | None,
    ) -> None:
        if existing not in get_args(Existing):
            raise ValueError(f"existing is 'skip' or 'error', not {existing!r}")
        self._store = store
        self._type = name_of(actor_type)
        main_state = actor_type.state if isinstance(actor_type, ActorType) else "state"
        self._state = main_state if state is None else state
        check_text("an actor type", self._type, MAX_NAME_BYTES)
        check_text("a state name", self._state, MAX_NAME_BYTES)
        self._is_existing_error = existing == "error"
        self._on_rejected = on_rejected
        self._progress = progress
        self._batch: dict[str, tuple[int, bytes]] = {}
        self._batch_bytes = 0
        self._imported = self._skipped = self._rejected = 0
        self._rejections: list[Rejection] = []

    async def add(self, position: int, actor_id: str, value: Any) -> None:
        """Take a row; store the batch if it is full."""
        try:
            key = ActorKey(self._type, actor_id)
            data = codec.encode(value, f"the value of {key}")
        except (InvalidKeyError, InvalidValueError) as error:
            self.reject(position, str(error))
            return
        if actor_id in self._batch:
            self._count_existing(position, actor_id)
            return
        if self._batch and self._batch_bytes + len(data) > MAX_BATCH_BYTES:
            await self._store_batch()
        self._batch[actor_id] = (position, data)
        self._batch_bytes += len(data)
        if len(self._batch) == MAX_BATCH_ACTORS:
            await self._store_batch()

    def reject(self, position: int, reason: str) -> None:
        """Count a row that can't be imported."""
        rejection = Rejection(position, reason)
        self._rejected += 1
        if len(self._rejections) < MAX_KEPT_REJECTIONS:
            self._rejections.append(rejection)
        if self._on_rejected is not None:
            self._on_rejected(rejection)

    async def finish(self) -> ImportReport:
        """Store what is left."""
        if self._batch:
            await self._store_batch()
        return self._report()

    async def _store_batch(self) -> None:
        rows = [(actor_id, data) for actor_id, (_, data) in self._batch.items()]
        stored = await self._store.insert(self._type, self._state, rows)
        self._imported += len(stored)
        for actor_id, (position, _) in self._batch.items():
            if actor_id not in stored:
                self._count_existing(position, actor_id)
        self._batch.clear()
        self._batch_bytes = 0
        if self._progress is not None:
            self._progress(self._report())

    def _count_existing(self, position: int, actor_id: str) -> None:
        if self._is_existing_error:
            key = ActorKey(self._type, actor_id)
            self.reject(position, f"{key} exists already, and was left as it is. Leave the row out, or skip such rows.")
        else:
            self._skipped += 1

    def _report(self) -> ImportReport:
        return ImportReport(self._imported, self._skipped, self._rejected, tuple(self._rejections))


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _read_line(text: bytes, id_field: str, value_field: str | None) -> tuple[str, Any]:
    row = codec.decode(text)
    if not isinstance(row, dict):
        raise ValueError(  # noqa: TRY004  (a fault of the data, not of a caller)
            f"the line is {_kind(row)}, not an object. Write one JSON object a line (jq -c '.[]' does for an array)."
        )
    for field, role in ((id_field, "id"), (value_field, "state")):
        if field is not None and field not in row:
            raise ValueError(f"the line has no field {field!r} for the {role}. Add it, or name another field.")
    return _read_id(row[id_field], id_field), row if value_field is None else row[value_field]


def _read_id(value: Any, id_field: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"the id field {id_field!r} is {_kind(value)}. Make it a string or an integer.")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")


def _reason(error: ValueError) -> str:
    if not isinstance(error, JSONDecodeError):
        return str(error)
    fault = error.msg.partition(":")[0]
    place = f" at column {error.colno}" if error.colno > 1 else ""
    return f"the line is no JSON ({fault}{place}). Write one JSON object a line, in UTF-8."
