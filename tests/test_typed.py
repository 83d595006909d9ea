from __future__ import annotations

import datetime as dt
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from lazymig import Node, Suite, errors

if TYPE_CHECKING:
    from lazymig.store import Store

STORED = (
    b'{"owner":"ann","velocity":3.5,"since":"2026-01-02T03:04:05Z","tags":{"a":1,"b":2},'
    b'"items":[{"name":"x","gift":true},{"name":"y"}],"home":{"city":"Ulm","geo":[1,2]},"newer":{"field":[1]}}'
)


@dataclass
class ItemData:
    name: str


@dataclass
class HomeData:
    city: str


@dataclass
class CarData:
    owner: str
    velocity: float
    since: dt.datetime
    tags: dict[str, int]
    items: list[ItemData]
    home: HomeData
    note: str | None = "call me"


class ItemStruct(msgspec.Struct):
    name: str


class HomeStruct(msgspec.Struct, rename={"town": "city"}):
    town: str


class CarStruct(msgspec.Struct, omit_defaults=True):
    owner: str
    velocity: float
    since: dt.datetime
    tags: dict[str, int]
    items: list[ItemStruct]
    home: HomeStruct
    note: str | None = "call me"


@attrs.define
class ItemAttrs:
    name: str


@attrs.define
class HomeAttrs:
    city: str


@attrs.define
class CarAttrs:
    owner: str
    velocity: float
    since: dt.datetime
    tags: dict[str, int]
    items: list[ItemAttrs]
    home: HomeAttrs
    note: str | None = "call me"


class ItemModel(pydantic.BaseModel):
    name: str


class HomeModel(pydantic.BaseModel):
    town: str = pydantic.Field(alias="city")


class CarModel(pydantic.BaseModel):
    owner: str
    velocity: float
    since: dt.datetime
    tags: dict[str, int]
    items: list[ItemModel]
    home: HomeModel
    note: str | None = "call me"


class ItemDict(TypedDict):
    name: str


class HomeDict(TypedDict):
    city: str


class CarDict(TypedDict):
    owner: str
    velocity: float
    since: str
    tags: dict[str, int]
    items: list[ItemDict]
    home: HomeDict
    note: NotRequired[str | None]


OBJECTS = [CarData, CarStruct, CarAttrs, CarModel]

suite = Suite("typed")
suite.actor_type("Car")


async def change(store: Store, form: Any, function: Any) -> tuple[Any, bytes]:
    """Load the stored car as a type, change it, persist it; return what the function made, and the bytes."""
    await store.insert("Car", "state", [("a", STORED)])
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        state = activation.state(type=form)
        await state.migrate_and_load()
        made = function(state)
        await state.persist()
    return made, (await store.scan("Car"))[0].states["state"]


@pytest.mark.parametrize("form", [*OBJECTS, CarDict])
async def test_an_unchanged_value_keeps_everything(store: Store, form: Any) -> None:
    value, stored = await change(store, form, lambda state: state.value)

    found = msgspec.json.decode(stored)
    assert found.pop("note", "call me") == "call me"  # some write defaults, some leave them out
    assert found == msgspec.json.decode(STORED)
    if form is not CarDict:
        assert isinstance(value, form)
        assert value.since == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@attrs.define
class Path:
    points: tuple[tuple[float, float], ...] = ()
    items: tuple[ItemData, ...] = ()


async def test_tuples_are_stored_as_lists(store: Store) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        state = activation.state(type=Path)
        await state.migrate_and_load(default=Path(((1.0, 2.0),), (ItemData("x"),)))
        await state.persist()
        assert await state.load() == Path(((1.0, 2.0),), (ItemData("x"),))
    stored = (await store.scan("Car"))[0].states["state"]
    assert msgspec.json.decode(stored) == {"points": [[1.0, 2.0]], "items": [{"name": "x"}]}


async def test_objects_in_tuples_keep_their_undeclared_fields(store: Store) -> None:
    raw = b'{"points":[],"items":[{"name":"x","gift":true},{"name":"y"}],"newer":1}'
    await store.insert("Car", "state", [("a", raw)])
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        state = activation.state(type=Path)
        path = await state.migrate_and_load()
        assert path is not None
        state.value = replace_items(path)
        await state.persist()
    stored = (await store.scan("Car"))[0].states["state"]
    assert msgspec.json.decode(stored) == {
        "points": [[0.5, 1.0]],
        "items": [{"name": "y"}, {"name": "x", "gift": True}],
        "newer": 1,
    }


def replace_items(path: Path) -> Path:
    return attrs.evolve(path, points=((0.5, 1.0),), items=path.items[::-1])


async def test_number_that_json_cannot_hold_is_named_behind_tuples(store: Store) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        state = activation.state(type=Path)
        await state.migrate_and_load(default=Path(((1.0, 2.0),)))
        state.value.points = ((1.0, 2.0), (3.0, float("nan")))
        with pytest.raises(errors.InvalidValueError, match=r"\$\.points\[1\]\[1\]"):
            await state.persist()


@pytest.mark.parametrize("form", OBJECTS)
async def test_declared_fields_come_from_the_value_alone(store: Store, form: Any) -> None:
    def edit(state: Any) -> None:
        state.value.owner = "bob"
        del state.value.tags["a"]
        state.value.items.pop(0)
        state.value.note = None

    _, data = await change(store, form, edit)
    stored = msgspec.json.decode(data)
    assert (stored["owner"], stored["tags"], stored["items"]) == ("bob", {"b": 2}, [{"name": "y"}])
    assert stored["note"] is None
    assert (stored["newer"], stored["home"]) == ({"field": [1]}, {"city": "Ulm", "geo": [1, 2]})


@pytest.mark.parametrize("form", OBJECTS)
async def test_an_object_carries_its_undeclared_fields_wherever_it_goes(store: Store, form: Any) -> None:
    _, data = await change(store, form, lambda state: state.value.items.reverse())

    assert msgspec.json.decode(data)["items"] == [{"name": "y"}, {"name": "x", "gift": True}]


@pytest.mark.parametrize(
    ("form", "copied"),
    [
        (CarData, lambda value: replace(value, owner="bob")),
        (CarStruct, lambda value: msgspec.structs.replace(value, owner="bob")),
        (CarAttrs, lambda value: attrs.evolve(value, owner="bob")),
        (CarModel, lambda value: value.model_copy(update={"owner": "bob"})),
        (CarDict, lambda value: {**value, "owner": "bob"}),
    ],
)
async def test_a_value_that_was_replaced_keeps_what_its_type_does_not_declare(
    store: Store, form: Any, copied: Any
) -> None:
    def assign(state: Any) -> None:
        state.value = copied(state.value)

    _, data = await change(store, form, assign)
    stored = msgspec.json.decode(data)
    assert (stored["owner"], stored["newer"], stored["home"]["geo"]) == ("bob", {"field": [1]}, [1, 2])


async def test_a_typed_dict_drops_what_was_deleted(store: Store) -> None:
    _, data = await change(store, CarDict, lambda state: state.value["tags"].clear())

    assert msgspec.json.decode(data)["tags"] == {}


@pytest.mark.parametrize("form", [*OBJECTS, CarDict])
async def test_a_value_of_the_wrong_type_is_refused_before_it_is_stored(store: Store, form: Any) -> None:
    def spoil(state: Any) -> None:
        if form is CarDict:
            state.value["velocity"] = "fast"
        else:
            state.value.velocity = "fast"

    with pytest.raises(errors.InvalidValueError, match=f"doesn't fit {form.__name__}"):
        await change(store, form, spoil)
    assert (await store.scan("Car"))[0].states["state"] == STORED


@pytest.mark.parametrize("form", [*OBJECTS, CarDict])
async def test_a_stored_value_that_does_not_fit_is_corrupt_and_stays(store: Store, form: Any) -> None:
    bad = STORED.replace(b"3.5", b'"secret"')
    await store.insert("Car", "state", [("a", bad)])
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        state = activation.state(type=form)
        with pytest.raises(errors.CorruptStateError, match=f"doesn't fit {form.__name__}") as caught:
            await state.migrate_and_load()
        with pytest.raises(errors.NotLoadedError):
            _ = state.value
    assert "velocity" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (await store.scan("Car"))[0].states["state"] == bad


@pytest.mark.parametrize(
    ("form", "default"),
    [
        (CarData, CarData("ann", 0.0, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), {}, [ItemData("x")], HomeData("Ulm"))),
        (
            CarStruct,
            CarStruct("ann", 0.0, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), {}, [ItemStruct("x")], HomeStruct("Ulm")),
        ),
        (CarModel, CarModel.model_validate_json(STORED)),
        (CarData, msgspec.json.decode(STORED)),
        (CarDict, msgspec.json.decode(STORED)),
    ],
)
async def test_a_default_is_copied_typed_or_plain(store: Store, form: Any, default: Any) -> None:
    before = deepcopy(default)
    async with Node(store, [suite]) as node:
        async with node.activate("Car", "new") as activation:
            value: Any = await activation.state(type=form).migrate_and_load(default=default)
            items = value["items"] if form is CarDict else value.items
            items.clear()
            await activation.persist()
        async with node.activate("Car", "new") as activation:
            plain: Any = await activation.state().load()
    assert default == before
    assert plain["items"] == []


async def test_a_model_that_allows_extra_fields_carries_them_itself(store: Store) -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        owner: str

    def edit(state: Any) -> None:
        del state.value.newer
        state.value.owner = "bob"

    _, data = await change(store, Open, edit)
    stored = msgspec.json.decode(data)
    assert "newer" not in stored
    assert (stored["owner"], stored["home"]) == ("bob", {"city": "Ulm", "geo": [1, 2]})


async def test_a_handle_has_one_type(store: Store) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        state = activation.state(type=CarData)
        assert activation.state(type=CarData) is state
        assert activation.state() is state
        with pytest.raises(errors.DefinitionError, match="a type already"):
            activation.state(type=CarStruct)
        await activation.state("other").load()
        with pytest.raises(errors.DefinitionError, match="loaded already"):
            activation.state("other", type=CarData)


@pytest.mark.parametrize("form", [3, "Car"])
async def test_what_is_no_type_for_a_state_is_refused(store: Store, form: Any) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", "a") as activation:
        with pytest.raises(errors.DefinitionError, match="is no type for a state"):
            activation.state(type=form)


async def test_migrations_work_on_plain_json_whatever_the_type(store: Store) -> None:
    @dataclass
    class Person:
        name: str
        born: dt.date | None = None
        tags: list[str] = field(default_factory=list)

    people = Suite("people")
    person = people.actor_type("Person", state="main", context_factory=lambda a: a)
    seen: list[Any] = []

    @person.migration("1.0.0")
    async def add_birthday(state: Any, context: Any) -> None:
        seen.append(deepcopy(state))
        seen.append(await context.state("other", type=Person).migrate_and_load(default=Person("bob")))
        seen.append(await context.state("old", type=Person).migrate_and_load(default={"fits": "no more"}))
        state["born"] = "2000-01-02"

    await store.insert("Person", "main", [("a", b'{"name":"ann"}')])
    async with Node(store, [people]) as node, node.activate("Person", "a") as activation:
        value = await activation.state(type=Person).migrate_and_load()
        assert value == Person("ann", dt.date(2000, 1, 2))
        assert await activation.state("other", type=Person).load() == Person("bob")
    assert seen == [{"name": "ann"}, {"name": "bob", "born": None, "tags": []}, {"fits": "no more"}]


@pytest.mark.parametrize("form", OBJECTS)
async def test_a_plain_default_that_does_not_fit_is_the_caller_s_fault(store: Store, form: Any) -> None:
    async with Node(store, [suite]) as node, node.activate("Car", "new") as activation:
        with pytest.raises(errors.InvalidValueError, match="the default of state 'state' of Car 'new'"):
            await activation.state(type=form).migrate_and_load(default={"owner": 1})
