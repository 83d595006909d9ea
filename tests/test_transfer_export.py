from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from lazymig import ActorKey, Node, Suite, open_store
from lazymig.errors import CorruptStateError
from lazymig.transfer import MAX_BATCH_BYTES, export_states, import_states, to_json_line
from tests.cli_project import damage

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig.store import Store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


async def _fill(database: Path, count: int) -> None:
    async with open_store(f"sqlite:///{database}") as store:
        await import_states(store, "Vehicle", ((f"car-{number:04}", number) for number in range(count)))


async def test_all_pages_are_exported_once_and_in_order(store: Store) -> None:
    await import_states(store, "Vehicle", ((f"car-{number:05}", number) for number in reversed(range(2_345))))
    await import_states(store, "Wehicle", [("another type", 1)])
    ids = [record.key.id async for record in export_states(store, "Vehicle")]
    assert ids == [f"car-{number:05}" for number in range(2_345)]


async def test_large_actors_are_exported_in_small_pages(store: Store) -> None:
    pairs = ((f"car-{number:02}", str(number) * (MAX_BATCH_BYTES // 5)) for number in range(10, 40))
    await import_states(store, "Vehicle", pairs)
    lengths = [len(record.states["state"]) async for record in export_states(store, "Vehicle")]
    assert lengths == [2 * (MAX_BATCH_BYTES // 5)] * 30


async def test_of_an_unknown_type_there_are_no_actors(store: Store) -> None:
    assert [record async for record in export_states(store, "Nothing")] == []


@pytest.mark.parametrize("place", [0, 7, 8, 300, 1_199])
async def test_one_unreadable_stamp_is_reported_and_the_rest_exported(database: Path, place: int) -> None:
    await _fill(database, 1_200)
    damage(database, "UPDATE actor SET lineage = 999 WHERE id = ?", f"car-{place:04}")
    found: list[CorruptStateError] = []
    async with open_store(f"sqlite:///{database}") as store:
        ids = [record.key.id async for record in export_states(store, "Vehicle", on_corrupt=found.append)]
    assert [error.key for error in found] == [ActorKey("Vehicle", f"car-{place:04}")]
    assert ids == [f"car-{number:04}" for number in range(1_200) if number != place]


async def test_unreadable_values_are_reported_and_the_rest_exported(database: Path) -> None:
    await _fill(database, 20)
    damage(database, "UPDATE state SET value = X'FF' WHERE id = 'car-0003'")
    damage(database, "UPDATE state SET value = 7 WHERE id = 'car-0011'")
    found: list[CorruptStateError] = []
    async with open_store(f"sqlite:///{database}") as store:
        ids = [record.key.id async for record in export_states(store, "Vehicle", on_corrupt=found.append)]
    assert [error.key.id for error in found if error.key] == ["car-0003", "car-0011"]
    assert len(ids) == 18


async def test_without_a_callback_an_unreadable_actor_ends_the_export_after_those_before_it(database: Path) -> None:
    await _fill(database, 20)
    damage(database, "UPDATE actor SET lineage = 999 WHERE id = 'car-0003'")
    damage(database, "UPDATE state SET value = X'FF' WHERE id = 'car-0002'")
    seen: list[str] = []
    async with open_store(f"sqlite:///{database}") as store:
        with pytest.raises(CorruptStateError, match="'car-0002' can't be read"):
            seen.extend([record.key.id async for record in export_states(store, "Vehicle")])
        damage(database, "UPDATE state SET value = '1' WHERE id = 'car-0002'")
        export = export_states(store, "Vehicle")
        seen = [(await anext(export)).key.id for _ in range(3)]
        with pytest.raises(CorruptStateError, match="'car-0003' can't be read: its migration-info names"):
            await anext(export)
    assert seen == ["car-0000", "car-0001", "car-0002"]


# --- lines out -------------------------------------------------------------------------------------------------------


async def test_a_line_has_sorted_keys_and_the_migration_info(store: Store) -> None:
    suite = Suite("fleet")
    vehicle = suite.actor_type("Vehicle", state="vehicle", baseline="1.0.0")

    @vehicle.migration("1.1.0")
    def nothing(state: Any, context: object) -> None:
        """Change nothing."""

    async with Node(store, [suite]) as node, node.activate("Vehicle", "💥") as activation:
        await activation.state("vehicle").migrate_and_load(default={"z": 1, "a": {"y": 1, "b": 2}})
        await activation.state("logins").migrate_and_load(default=[3])
        await activation.persist()
    (line,) = [to_json_line(record) async for record in export_states(store, "Vehicle")]
    assert line.endswith(b"\n")
    assert line == orjson.dumps(orjson.loads(line), None, orjson.OPT_SORT_KEYS) + b"\n"
    assert orjson.loads(line) == {
        "type": "Vehicle",
        "id": "💥",
        "info": {
            "version": "1.1.0",
            "applied": ["1.0.0", "1.1.0"],
            "floor": "1.0.0",
            "written_by": "1.1.0",
            "migrated_at": None,
        },
        "states": {"logins": [3], "vehicle": {"a": {"b": 2, "y": 1}, "z": 1}},
    }


async def test_the_deepest_value_that_is_stored_is_exported(store: Store) -> None:
    value: Any = 1
    for _ in range(250):
        value = [value]
    await import_states(store, "Vehicle", [("deep", value)])

    (line,) = [to_json_line(record) async for record in export_states(store, "Vehicle")]

    assert orjson.loads(line)["states"]["state"] == value


async def test_equal_actors_give_equal_lines(store: Store) -> None:
    await import_states(store, "A", [("x", {"b": 1, "a": 2})])
    await import_states(store, "B", [("x", {"a": 2, "b": 1})])
    lines = [
        to_json_line(record) for kind in "AB" for record in [record async for record in export_states(store, kind)]
    ]
    assert lines[0].replace(b'"A"', b'"B"') == lines[1]
