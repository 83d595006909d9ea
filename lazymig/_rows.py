"""What the rows of a SQL store say, checked: a damaged file may hand out anything from any column.

Every function here takes what an engine gave and returns what lazymig stored there, or raises CorruptStateError. Text
that is no UTF-8 comes with its bytes as lone surrogates, so that it is refused here, where it is known whose it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from lazymig import _version
from lazymig._bases import NO_POLICY, Base, Kept, WritePolicy
from lazymig._fleet_records import NodeStatus, Offer
from lazymig._records import MAX_ID_BYTES, MAX_NAME_BYTES, NO_MARKS, ActorKey, AppliedSet, Marks, check_text
from lazymig._rulings import Release
from lazymig.errors import CorruptStateError, InvalidKeyError, InvalidVersionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FLOOR_MARK = "<="
"""Before the first version of a stored applied set: it counts as every version up to it."""


def read_key(actor_type: str, actor_id: Any) -> ActorKey:
    """Return the key of an actor that was found by its type."""
    try:
        return ActorKey(actor_type, actor_id)
    except InvalidKeyError as error:
        raise CorruptStateError(None, f"an actor of type {actor_type} has an id that is none ({error})") from None


def read_type(actor_type: Any) -> str:
    """Return the type of some actor."""
    if not _is_name(actor_type):
        raise CorruptStateError(None, f"an actor has the type {actor_type!r}")
    return str(actor_type)


def read_owner(key: ActorKey, owner: Any) -> str | None:
    """Return the node that has an actor's lock, if one has it."""
    return None if owner is None else read_holder(key, owner)


def read_holder(key: ActorKey, holder: Any) -> str:
    """Return the node that has an actor's lock."""
    if not is_incarnation(holder):
        raise CorruptStateError(key, f"its lock is held by {holder!r}")
    return str(holder)


def read_nodes(rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Return the registered nodes. A row that names none is passed over: no node lives by it, and others must start."""
    return [node for (node,) in rows if is_incarnation(node)]


@lru_cache(maxsize=1024, typed=True)
def is_incarnation(value: object) -> bool:
    """Tell whether it can name a node, and so a file in a folder of lock files: never one anywhere else."""
    return _is_name(value) and value not in {".", ".."} and not {"/", "\\"} & set(str(value))


def write_offer(offer: Offer) -> list[Any]:
    """Return what a node can do for a type, as JSON values."""
    late = [str(_version.unpack(number)) for number in offer.late]
    one_way = [[str(_version.unpack(number)), what] for number, what in offer.one_way]
    return [offer.type, _names(offer.registered), list(offer.actions), late, one_way]


def read_statuses(rows: Iterable[tuple[Any, ...]]) -> list[NodeStatus]:
    """Return the registered nodes in order. A row that can't be read is passed over, as in `read_nodes`."""
    return read_fleet(rows)[0]


def read_fleet(rows: Iterable[tuple[Any, ...]]) -> tuple[list[NodeStatus], list[str]]:
    """Return the registered nodes in order, and the ids of those whose rows can't be read.

    A row that names no node is passed over, see `read_nodes`.
    """
    found, unreadable = [], []
    for node_id, *rest in rows:
        if not is_incarnation(node_id):
            continue
        try:
            found.append(_read_status(node_id, *rest))
        except (CorruptStateError, InvalidVersionError, ValueError, TypeError, OverflowError):
            unreadable.append(node_id)
    return sorted(found, key=lambda node: (node.label, node.node_id)), sorted(unreadable)


def _read_status(  # noqa: PLR0913, PLR0917  (a row)
    node_id: str, label: Any, build: Any, age: Any, lease: Any, draining: Any, active: Any, offers: Any
) -> NodeStatus:
    read = sorted((_read_offer(*_list(offer)) for offer in _list(orjson.loads(offers))), key=lambda offer: offer.type)
    if len({offer.type for offer in read}) < len(read):
        raise ValueError("a type is offered twice")
    is_alive = 0 <= age < lease
    return NodeStatus(
        node_id,
        str(label),
        _or_none(build),
        float(age),
        float(lease),
        is_alive,
        bool(draining),
        int(active),
        tuple(read),
    )


def _read_offer(actor_type: Any, registered: Any, actions: Any, late: Any, one_way: Any) -> Offer:
    return Offer(
        read_type(actor_type),
        read_set(None, orjson.dumps(registered)),
        tuple(map(_text, _list(actions))),
        tuple(_version.pack(_version.parse(version)) for version in _list(late)),
        tuple((_version.pack(_version.parse(version)), _text(what)) for version, what in map(_list, _list(one_way))),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} instead of a list")
    return value


def _or_none(build: Any) -> str | None:
    """Return the name of a build, which nothing depends on."""
    return build if isinstance(build, str) else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} instead of text")
    return value


def read_states(key: ActorKey, revision: int, rows: Iterable[tuple[Any, ...]]) -> dict[str, bytes]:
    """Return an actor's states: name to encoded value. An actor that was never stored has none."""
    states: dict[str, bytes] = {}
    for name, data in rows:
        if not _is_name(name):
            raise CorruptStateError(key, f"one of its states has the name {name!r}")
        states[name] = data if isinstance(data, bytes) else _read_bytes(key, f"state {name!r}", data)
    if states and not revision:
        raise CorruptStateError(key, "it has states, but the revision 0 of an actor that was never stored")
    return states


def _read_bytes(key: ActorKey, what: str, data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    if not isinstance(data, str):
        raise CorruptStateError(key, f"its {what} is stored as {type(data).__name__} instead of bytes")
    try:
        return data.encode()
    except UnicodeEncodeError:
        raise CorruptStateError(key, f"its {what} is no text in UTF-8") from None


def read_entries(
    key: ActorKey, table: str, rows: Sequence[tuple[Any, ...]]
) -> tuple[list[str], list[bytes], list[Any]]:
    """Return keys, encoded values and lineages of entries, as they are stored but for text in place of bytes.

    All of them are looked at together: one by one only if something is wrong.
    """
    if not rows:
        return [], [], []
    keys, data, numbers = map(list, zip(*rows, strict=True))
    try:
        text = "".join(keys)
        text.encode()
        is_sound = "" not in keys and "\0" not in text and {*map(type, data)} == {bytes}
    except (TypeError, UnicodeEncodeError):
        is_sound = False
    if not is_sound:
        keys = [_read_entry_key(key, table, name) for name in keys]
        data = [
            _read_bytes(key, f"entry {name!r} of table {table!r}", one) for name, one in zip(keys, data, strict=True)
        ]
    return keys, data, numbers


def _read_entry_key(key: ActorKey, table: str, name: Any) -> str:
    try:
        check_text("an entry key", name, MAX_ID_BYTES)
    except InvalidKeyError:
        raise CorruptStateError(key, f"an entry of its table {table!r} has the key {name!r}") from None
    return str(name)


def read_table(key: ActorKey, name: Any) -> str:
    """Return the name of one of an actor's tables."""
    if not _is_name(name):
        raise CorruptStateError(key, f"one of its tables has the name {name!r}")
    return str(name)


def read_marks(key: ActorKey, revision: int, converting: Any, oldest: Any) -> Marks:
    """Return what an actor's row says of its entries. An actor that was never stored has none.

    A claim says 0 of the oldest if there are entries, or a base, but the actor's row is lost.
    """
    if converting == 0 and oldest is None:
        return NO_MARKS
    for what, value in {"mark of a conversion": converting, "oldest entry": oldest}.items():
        if not ((value is None and what == "oldest entry") or (isinstance(value, int) and 0 <= value < 1 << 63)):
            raise CorruptStateError(key, f"its {what} is {value!r}")
    if not revision:
        raise CorruptStateError(
            key,
            "it has entries or a base, but the revision 0 of an actor that was never stored. (If it was copied in part "
            "only, run 'lazymig copy' again)",
        )
    return Marks(converting, oldest)


def read_base(
    key: ActorKey, revision: int, applied: AppliedSet | None, columns: Sequence[Any], rows: Iterable[tuple[Any, Any]]
) -> Base | None:
    """Return what newer software last stored of an actor; one that was never stored has none.

    Args:
        key: The actor.
        revision: The actor's.
        applied: What is applied to it, None if the row names none.
        columns: Its revision and its digest.
        rows: Names and values.
    """
    of_base, digest = columns
    if applied is None and of_base is None and digest is None:
        return None
    if applied is None or not revision:
        raise CorruptStateError(key, "something is kept of newer software for it, but not of which")
    if not isinstance(of_base, int) or not 0 <= of_base <= revision:
        raise CorruptStateError(key, f"the revision of its base is {of_base!r}, its own is {revision}")
    if not isinstance(digest, int):
        raise CorruptStateError(key, f"the digest of its base is {digest!r}")
    states = {}
    for name, data in rows:
        if not _is_name(name):
            raise CorruptStateError(key, f"one of the states of its base has the name {name!r}")
        states[name] = Kept(None if data is None else _read_bytes(key, f"base of state {name!r}", data))
    return Base(applied, of_base, digest, states)


def read_policy(key: ActorKey | None, actor_type: str, version: Any, epoch: Any) -> WritePolicy:
    """Return a type's write policy; both are None without one."""
    if version is None and epoch is None:
        return NO_POLICY
    is_version = version is None or (isinstance(version, int) and 0 <= version < 1 << 63)
    if not is_version or not isinstance(epoch, int) or epoch < 1:
        raise CorruptStateError(key, f"the write policy of {actor_type} is ({version!r}, epoch {epoch!r})")
    return WritePolicy(version, epoch)


def read_count(key: ActorKey, what: str, value: Any) -> int:
    """Return an actor's revision, or the number of its lock."""
    if not isinstance(value, int) or value < 0:
        raise CorruptStateError(key, f"its {what} is {value!r}")
    return value


def read_time(key: ActorKey, microseconds: Any) -> datetime | None:
    """Return when an actor was last migrated."""
    return None if microseconds is None else read_moment(key, "its time of migration", microseconds)


def read_moment(key: ActorKey | None, what: str, microseconds: Any) -> datetime:
    """Return the moment that `write_time` wrote."""
    try:
        if isinstance(microseconds, int):
            return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        pass
    raise CorruptStateError(key, f"{what} is {microseconds!r}")


def write_time(time: datetime) -> int:
    """Return a moment as microseconds."""
    return (time - EPOCH) // _MICROSECOND


def write_release(release: Release) -> dict[str, Any]:
    """Return the columns of a release that is seen now: ``applied``, ``checksums``, ``build`` and ``seen_at``."""
    sums = {str(_version.unpack(version)): checksum for version, checksum in sorted(release.checksums.items())}
    return {
        "applied": write_set(release.applied),
        "checksums": orjson.dumps(sums).decode(),
        "build": release.build,
        "seen_at": write_time(datetime.now(UTC)),
    }


def read_release(actor_type: str, applied: Any, checksums: Any, build: Any, seen_at: Any) -> Release:
    """Return a release that `write_release` wrote; of one whose set can be read, what can't be is unknown.

    The set alone decides whether a node may start.
    """
    try:
        seen = read_set(None, applied)
    except CorruptStateError as error:
        raise CorruptStateError(None, f"a release of {actor_type} is unreadable: {error.reason}") from error
    try:
        sums = {_version.pack(_version.parse(name)): checksum for name, checksum in orjson.loads(checksums).items()}
        if not {*map(type, sums.values())} <= {int}:
            raise TypeError("a checksum is no integer")
    except (ValueError, TypeError, AttributeError, InvalidVersionError):
        sums = {}
    try:
        moment = read_moment(None, "when it was seen", seen_at)
    except CorruptStateError:
        moment = EPOCH
    return Release(seen, sums, _or_none(build), moment)


def write_set(applied: AppliedSet) -> str:
    """Return an applied set as text: a JSON list of versions, with a mark before the floor."""
    return orjson.dumps(_names(applied)).decode()


def read_set(key: ActorKey | None, text: Any) -> AppliedSet:
    """Return the applied set that `write_set` wrote; versions out of order, or 0.0.0, are none."""
    try:
        names = orjson.loads(text)
        if not isinstance(names, list):
            raise TypeError(f"a {type(names).__name__} instead of a list")
        versions = list(names)
        floor = 0
        if versions and versions[0].startswith(_FLOOR_MARK):
            floor = _version.pack(_version.parse(versions.pop(0).removeprefix(_FLOOR_MARK)))
        applied = AppliedSet((_version.pack(_version.parse(version)) for version in versions), floor)
        if _names(applied) != names:
            raise ValueError("the versions are out of order")
    except (ValueError, TypeError, AttributeError, InvalidVersionError) as error:
        raise CorruptStateError(key, f"its migration-info is unreadable ({error})") from error
    return applied


def _names(applied: AppliedSet) -> list[str]:
    names = [str(version) for version in applied.versions]
    if applied.floor:
        names[0] = _FLOOR_MARK + names[0]
    return names


@lru_cache(maxsize=1024, typed=True)
def _is_name(value: object) -> bool:
    """Tell whether it can be a name; a process meets few of them, and each in many rows."""
    try:
        check_text("a name", value, MAX_NAME_BYTES)
    except InvalidKeyError:
        return False
    return True
