"""Typed states: JSON values to a user's type and back, keeping what the type doesn't declare.

msgspec converts dataclasses, Structs, attrs classes and TypedDicts; pydantic its own models. Whatever the type declares
comes from the value alone, its dicts and lists included. A field that it doesn't declare (newer software's) is carried
by the object it was decoded with, and by the state itself for the outermost one, which may be replaced.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, is_dataclass
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lazymig.errors import CorruptStateError, DefinitionError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lazymig._records import ActorKey

T = TypeVar("T")


@dataclass(slots=True)
class Carried:
    """Undeclared fields of one decoded value.

    Attributes:
        root: Those of the outermost object.
        others: Of the objects in it, by identity; holding the objects keeps their identities theirs.
    """

    root: dict[str, Any] = field(default_factory=dict)
    others: dict[int, tuple[object, dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Engine:
    """How one library converts one type.

    Attributes:
        load: JSON value to typed one.
        dump: The other way.
        errors: What they raise.
        describe: An error without state values, if the library offers that.
    """

    load: Callable[[Any], Any]
    dump: Callable[[Any], Any]
    errors: tuple[type[Exception], ...]
    describe: Callable[[Exception], str] = str


class Typed(Generic[T]):
    """Converts the values of one type."""

    def __init__(self, form: Any) -> None:
        self._name = getattr(form, "__name__", repr(form))
        self._engine = _pydantic(form) if hasattr(form, "__pydantic_validator__") else _msgspec(form)

    def decode(self, value: Any, key: ActorKey, state: str) -> tuple[T, Carried]:
        """Return the typed value, and what it doesn't declare.

        Raises:
            CorruptStateError: The value doesn't fit the type.
        """
        try:
            typed = self._engine.load(value)
        except self._engine.errors as error:
            reason = f"its state {state!r} doesn't fit {self._name} ({self._engine.describe(error)})"
            raise CorruptStateError(key, reason) from None
        carried = Carried()
        _collect(typed, value, carried, is_root=True)
        return typed, carried

    def encode(self, value: Any, carried: Carried | None, subject: object) -> Any:
        """Return the JSON value, with the undeclared fields it carries; msgspec leaves tuples in it.

        Raises:
            InvalidValueError: It doesn't fit the type, so it could not be loaded again.
        """
        try:
            plain = self._engine.dump(value)
            self._engine.load(plain)
        except self._engine.errors as error:
            reason = f"doesn't fit {self._name} ({self._engine.describe(error)})"
            raise InvalidValueError(str(subject), "$", reason, f"Correct the value, or {self._name}.") from None
        if carried is not None:
            _restore(value, plain, carried, carried.root)
        return plain

    def copy(self, default: Any, key: ActorKey, state: str) -> T:
        """Return a typed value that shares nothing with ``default``, which may also be plain JSON.

        Raises:
            InvalidValueError: It doesn't fit the type.
        """
        if isinstance(default, dict):
            try:
                return self.decode(deepcopy(default), key, state)[0]
            except CorruptStateError as error:
                subject = f"the default of state {state!r} of {key}"
                raise InvalidValueError(subject, "$", error.reason, f"Correct the default, or {self._name}.") from None
        copied: T = deepcopy(default)
        return copied


@lru_cache(maxsize=256)
def typed(form: Any) -> Typed[Any]:
    """Return the converter of a type.

    Raises:
        DefinitionError: The type can't be converted, or the library for it isn't installed.
    """
    return Typed(form)


def _msgspec(form: Any) -> _Engine:
    try:
        import msgspec  # noqa: PLC0415  (an extra)
    except ImportError:
        raise DefinitionError("typed states need msgspec. Run: pip install 'lazymig[typed]'") from None
    try:
        msgspec.json.Decoder(form)
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"type={form!r} is no type for a state ({error}). Give a dataclass, msgspec.Struct, attrs class, TypedDict "
            f"or pydantic model."
        ) from error
    return _Engine(
        load=lambda value: msgspec.convert(value, form),
        dump=lambda value: msgspec.to_builtins(value, str_keys=True),
        errors=(msgspec.ValidationError, TypeError, ValueError),
    )


def _pydantic(form: Any) -> _Engine:
    import orjson  # noqa: PLC0415
    import pydantic  # noqa: PLC0415  (whoever gives a model has it)

    adapter = pydantic.TypeAdapter(form)

    def describe(error: Exception) -> str:
        if not isinstance(error, pydantic.ValidationError):
            return str(error)
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, one['loc'])) or '$'}: {one['msg']}" for one in found)

    return _Engine(
        load=lambda value: adapter.validate_json(orjson.dumps(value)),  # JSON mode: dates and the like come from text
        dump=lambda value: adapter.dump_python(value, mode="json", by_alias=True, warnings="error"),
        errors=(pydantic.ValidationError, TypeError, ValueError),
        describe=describe,
    )


def _collect(value: Any, raw: Any, carried: Carried, *, is_root: bool = False) -> None:
    """Note the fields of ``raw`` that ``value``, decoded from it, doesn't have."""
    if isinstance(raw, list) and isinstance(value, (list, tuple)):
        for item, raw_item in zip(value, raw, strict=False):
            _collect(item, raw_item, carried)
        return
    if not isinstance(raw, dict):
        return
    inner = _members(value)
    if inner is None:
        return
    undeclared = {name: item for name, item in raw.items() if name not in inner}
    if is_root:
        carried.root = undeclared
    elif undeclared:
        carried.others[id(value)] = (value, undeclared)
    for name, item in inner.items():
        if name in raw:
            _collect(item, raw[name], carried)


def _restore(value: Any, plain: Any, carried: Carried, undeclared: Mapping[str, Any] | None = None) -> None:
    """Put back into ``plain``, made of ``value``, what its objects carry."""
    if isinstance(plain, (list, tuple)) and isinstance(value, (list, tuple)):
        for item, plain_item in zip(value, plain, strict=False):
            _restore(item, plain_item, carried)
        return
    inner = _members(value) if isinstance(plain, dict) else None
    if inner is None:
        return
    for name, item in inner.items():
        if name in plain:
            _restore(item, plain[name], carried)
    if undeclared is None:
        _, undeclared = carried.others.get(id(value), (None, {}))
    for name, item in undeclared.items():
        plain.setdefault(name, item)


def _members(value: Any) -> dict[str, Any] | None:
    """Return encoded name to member of a decoded object; None if it is not one that can carry undeclared fields."""
    if isinstance(value, dict):
        return value if all(isinstance(name, str) for name in value) else None
    if hasattr(value, "__struct_fields__"):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        return {encoded: getattr(value, name) for name, encoded in names}
    if hasattr(type(value), "model_fields"):
        return _members_of_model(value)
    if hasattr(type(value), "__attrs_attrs__"):
        return {attribute.name: getattr(value, attribute.name) for attribute in type(value).__attrs_attrs__}
    if is_dataclass(value):
        return {member.name: getattr(value, member.name) for member in dataclass_fields(value)}
    return None


def _members_of_model(value: Any) -> dict[str, Any] | None:
    if value.model_config.get("extra") == "allow":
        return None  # it carries undeclared fields itself
    return {
        described.serialization_alias or described.alias or name: getattr(value, name)
        for name, described in type(value).model_fields.items()
    }
