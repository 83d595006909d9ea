from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Node, Suite
from lazymig.errors import InvalidKeyError
from lazymig.transfer import (
    MAX_BATCH_ACTORS,
    MAX_BATCH_BYTES,
    MAX_KEPT_REJECTIONS,
    ImportReport,
    Rejection,
    export_states,
    import_json_lines,
    import_states,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lazymig.store import Store

AWKWARD_IDS = ["a", "A", "a/b", 'it\'s "quoted"', "💥🚗", "é", "e\u0301", "\uffff", "%00", "..", " ", "x" * 1_000]


async def exported(store: Store) -> dict[str, Any]:
    return {record.key.id: dict(record.states) async for record in export_states(store, "Vehicle")}


# --- import_states ---------------------------------------------------------------------------------------------------


async def test_imported_values_are_stored_without_migration_info(store: Store) -> None:
    report = await import_states(
        store, "Vehicle", [("car-1", {"velocity": 36.0}), ("car-2", [1, None])], state="vehicle"
    )
    assert report == ImportReport(imported=2)
    records = [record async for record in export_states(store, "Vehicle")]
    assert [(record.key, record.info, record.owner) for record in records] == [
        (ActorKey("Vehicle", "car-1"), None, None),
        (ActorKey("Vehicle", "car-2"), None, None),
    ]
    assert [record.states for record in records] == [{"vehicle": {"velocity": 36.0}}, {"vehicle": [1, None]}]


async def test_state_is_the_main_one_of_a_type_and_state_for_a_name(store: Store) -> None:
    vehicle = Suite("fleet").actor_type("Vehicle", state="vehicle")
    await import_states(store, vehicle, [("car-1", 1)])
    await import_states(store, vehicle, [("car-2", 2)], state="other")
    await import_states(store, "Vehicle", [("car-3", 3)])
    assert await exported(store) == {"car-1": {"vehicle": 1}, "car-2": {"other": 2}, "car-3": {"state": 3}}


async def test_imported_actors_are_migrated_when_they_are_first_touched(store: Store) -> None:
    vehicle = Suite("fleet").actor_type("Vehicle", state="vehicle")
    suite = Suite("fleet")
    migrated = suite.actor_type("Vehicle", state="vehicle")

    @migrated.migration("1.0.0")
    def metres_per_second(state: Any, context: object) -> None:
        state["velocity"] /= 3.6

    await import_states(store, vehicle, [("car-1", {"velocity": 36.0})])
    async with Node(store, [suite]) as node, node.activate("Vehicle", "car-1") as activation:
        assert await activation.state().migrate_and_load() == {"velocity": 10.0}


async def test_pairs_may_come_from_an_async_iterable(store: Store) -> None:
    async def pairs() -> AsyncIterator[tuple[str, int]]:
        for number in range(3):
            yield f"car-{number}", number

    assert (await import_states(store, "Vehicle", pairs())).imported == 3


async def test_nothing_to_import_is_no_error(store: Store) -> None:
    assert await import_states(store, "Vehicle", []) == ImportReport()


async def test_existing_actors_are_skipped_and_left_alone(store: Store) -> None:
    await import_states(store, "Vehicle", [("car-1", "old")])
    assert await import_states(store, "Vehicle", [("car-1", "new"), ("car-2", "new")]) == ImportReport(1, 1)
    assert await exported(store) == {"car-1": {"state": "old"}, "car-2": {"state": "new"}}


async def test_existing_actors_are_rejected_on_demand_and_the_rest_imported(store: Store) -> None:
    await import_states(store, "Vehicle", [("car-1", "old")])
    report = await import_states(store, "Vehicle", [("car-1", "new"), ("car-2", "new")], existing="error")
    assert (report.imported, report.skipped, report.rejected) == (1, 0, 1)
    assert report.rejections[0].position == 1
    assert "'car-1' exists already" in report.rejections[0].reason
    assert await exported(store) == {"car-1": {"state": "old"}, "car-2": {"state": "new"}}


@pytest.mark.parametrize("between", [0, MAX_BATCH_ACTORS])
async def test_of_rows_with_one_id_the_first_is_stored(store: Store, between: int) -> None:
    others = [(f"car-{number}", number) for number in range(between)]
    pairs = [("twin", "z first"), *others, ("twin", "a later")]
    report = await import_states(store, "Vehicle", pairs)
    assert (report.imported, report.skipped) == (between + 1, 1)
    assert (await exported(store))["twin"] == {"state": "z first"}


async def test_rows_that_cannot_be_stored_are_reported_and_the_rest_imported(store: Store) -> None:
    found: list[Rejection] = []
    pairs: list[Any] = [
        ("", 1),
        ("nul\0", 1),
        ("x" * 1_001, 1),
        (7, 1),
        ("nan", {"velocity": math.nan}),
        ("big", 2**64),
        ("tuple", [(1, 2)]),
        ("keys", {1: 2}),
        ("good", {"velocity": 1}),
    ]
    report = await import_states(store, "Vehicle", pairs, on_rejected=found.append)
    assert (report.imported, report.rejected) == (1, 8)
    assert report.rejections == tuple(found)
    assert [rejection.position for rejection in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "$.velocity is nan" in found[4].reason
    assert await exported(store) == {"good": {"state": {"velocity": 1}}}


async def test_a_report_keeps_a_bounded_number_of_rejections(store: Store) -> None:
    report = await import_states(store, "Vehicle", (("", number) for number in range(MAX_KEPT_REJECTIONS + 5)))
    assert report.rejected == MAX_KEPT_REJECTIONS + 5
    assert len(report.rejections) == MAX_KEPT_REJECTIONS


async def test_names_that_cannot_be_stored_are_refused_before_anything_is_read(store: Store) -> None:
    def pairs() -> Iterator[tuple[str, Any]]:
        pytest.fail("was read")
        yield "car-1", 1

    with pytest.raises(InvalidKeyError, match="an actor type"):
        await import_states(store, "", pairs())
    with pytest.raises(InvalidKeyError, match="a state name"):
        await import_states(store, "Vehicle", pairs(), state="")
    with pytest.raises(ValueError, match="existing is 'skip' or 'error', not 'replace'"):
        await import_states(store, "Vehicle", pairs(), existing="replace")  # type: ignore[arg-type]  # as untyped users


async def test_ids_of_any_kind_come_back_in_order_of_code_points(store: Store) -> None:
    await import_states(store, "Vehicle", [(actor_id, actor_id) for actor_id in AWKWARD_IDS])
    assert [(actor_id, states["state"]) for actor_id, states in (await exported(store)).items()] == [
        (actor_id, actor_id) for actor_id in sorted(AWKWARD_IDS)
    ]


async def test_an_import_reads_no_further_ahead_than_a_batch(store: Store) -> None:
    read = 0
    seen: list[ImportReport] = []

    def pairs() -> Iterator[tuple[str, int]]:
        nonlocal read
        for read in range(1, 3 * MAX_BATCH_ACTORS + 2):
            yield f"car-{read:06}", read

    def progress(report: ImportReport) -> None:
        seen.append(report)
        assert read - report.imported <= MAX_BATCH_ACTORS

    report = await import_states(store, "Vehicle", pairs(), progress=progress)
    assert [done.imported for done in seen] == [500, 1_000, 1_500, 1_501]
    assert seen[-1] == report


async def test_a_batch_of_large_values_is_smaller(store: Store) -> None:
    value = "x" * (MAX_BATCH_BYTES // 3)
    seen: list[int] = []
    pairs = ((f"car-{number}", value) for number in range(5))
    await import_states(store, "Vehicle", pairs, progress=lambda report: seen.append(report.imported))
    assert seen == [2, 4, 5]
    huge = [("huge", "x" * (MAX_BATCH_BYTES + 1))]
    assert (await import_states(store, "Vehicle", huge)).imported == 1
    assert len(await exported(store)) == 6


@pytest.mark.parametrize("crash_after", [0, 1, 499, 500, 501, 1_300])
async def test_an_import_that_broke_off_can_be_run_again(store: Store, crash_after: int) -> None:
    everything = {f"car-{number:06}": {"velocity": number} for number in range(1_400)}

    async def breaking() -> AsyncIterator[tuple[str, Any]]:
        for number, pair in enumerate(everything.items()):
            if number == crash_after:
                raise ConnectionResetError
            yield pair

    with pytest.raises(ConnectionResetError):
        await import_states(store, "Vehicle", breaking())
    stored = crash_after // MAX_BATCH_ACTORS * MAX_BATCH_ACTORS
    assert len(await exported(store)) == stored
    assert await import_states(store, "Vehicle", everything.items()) == ImportReport(1_400 - stored, stored)
    assert await exported(store) == {actor_id: {"state": value} for actor_id, value in everything.items()}


async def test_two_imports_at_once_store_each_actor_once(store: Store) -> None:
    pairs = [(f"car-{number}", number) for number in range(1_200)]
    reports = await asyncio.gather(*(import_states(store, "Vehicle", pairs) for _ in range(2)))
    assert sum(report.imported for report in reports) == sum(report.skipped for report in reports) == 1_200
    assert len(await exported(store)) == 1_200


# --- import_json_lines -----------------------------------------------------------------------------------------------


async def test_lines_become_actors_with_the_id_left_in_the_value(store: Store) -> None:
    lines = [b'\xef\xbb\xbf{"plate": "car-1", "velocity": 36.0}\r\n', b"\n", b"  \r\n", b'{"plate": "car-2"}']
    assert await import_json_lines(store, "Vehicle", lines, id_field="plate") == ImportReport(2)
    assert await exported(store) == {
        "car-1": {"state": {"plate": "car-1", "velocity": 36.0}},
        "car-2": {"state": {"plate": "car-2"}},
    }


async def test_a_value_field_is_the_whole_state(store: Store) -> None:
    lines = [b'{"plate": "car-1", "doc": {"v": 1}}', b'{"plate": "car-2", "doc": null}']
    await import_json_lines(store, "Vehicle", lines, id_field="plate", value_field="doc", state="vehicle")
    assert await exported(store) == {"car-1": {"vehicle": {"v": 1}}, "car-2": {"vehicle": None}}


async def test_an_integer_id_is_written_in_decimal_digits(store: Store) -> None:
    await import_json_lines(store, "Vehicle", [b'{"id": 42}', b'{"id": -7}', b'{"id": "42"}'], id_field="id")
    assert await exported(store) == {"42": {"state": {"id": 42}}, "-7": {"state": {"id": -7}}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nope", "the line is no JSON (invalid literal, expected 'null'). Write one JSON object a line, in UTF-8."),
        (b'{"id": "a"', "the line is no JSON (unexpected end of data at column 11)."),
        (b'{"id": "\xff"}', "the line is no JSON (str is not valid UTF-8)."),
        ('{"id": "a"}'.encode("utf-16"), "the line is no JSON"),
        (b'{"id": "a", "v": NaN}', "the line is no JSON"),
        (
            b'["a"]',
            "the line is an array, not an object. Write one JSON object a line (jq -c '.[]' does for an array).",
        ),
        (b'"a"', "the line is a string, not an object."),
        (b"7", "the line is a number, not an object."),
        (b"null", "the line is null, not an object."),
        (b'{"ID": "a"}', "the line has no field 'id' for the id. Add it, or name another field."),
        (b'{"id": null}', "the id field 'id' is null. Make it a string or an integer."),
        (b'{"id": true}', "the id field 'id' is a boolean."),
        (b'{"id": 1.5}', "the id field 'id' is a number."),
        (b'{"id": {}}', "the id field 'id' is an object."),
        (b'{"id": ""}', "'' can't be an actor id: it is empty."),
        (b'{"id": "a\\u0000"}', "can't be an actor id: it contains NUL."),
        (b'{"id": "a", "v": 18446744073709551616}', "beyond 64 bits"),
        (b'{"id": "a", "v": 1e999}', "infinity"),
        (b'{"id": "a", "v": ' + b"[" * 300 + b"]" * 300 + b"}", "is nested deeper than 250 levels"),
        (b'{"id": "a", "v": ' + b"[" * 1_000 + b"9" * 20 + b"]" * 1_000 + b"}", "is nested deeper than 250 levels"),
        (b'{"id": "a", "id": "b"}', "an object in it has the key 'id' twice. Keep one of them."),
    ],
)
async def test_a_bad_line_is_reported_with_its_number_and_the_rest_imported(
    store: Store, line: bytes, reason: str
) -> None:
    lines = [b'{"id": "first"}\n', b"\n", line + b"\n", b'{"id": "last"}\n']
    report = await import_json_lines(store, "Vehicle", lines, id_field="id")
    assert (report.imported, report.rejected, report.rejections[0].position) == (2, 1, 3)
    assert reason in report.rejections[0].reason
    assert list(await exported(store)) == ["first", "last"]


async def test_a_line_without_the_value_field_is_rejected(store: Store) -> None:
    report = await import_json_lines(store, "Vehicle", [b'{"id": "a"}'], id_field="id", value_field="doc")
    assert report.rejections == (
        Rejection(1, "the line has no field 'doc' for the state. Add it, or name another field."),
    )


async def test_existing_actors_are_reported_by_line_number(store: Store) -> None:
    lines = [b"\n", b'{"id": "a"}', b"nope", b'{"id": "a"}', b'{"id": "b"}']
    await import_json_lines(store, "Vehicle", [b'{"id": "b"}'], id_field="id")
    report = await import_json_lines(store, "Vehicle", lines, id_field="id", existing="error")
    assert sorted(rejection.position for rejection in report.rejections) == [3, 4, 5]
    assert report.imported == 1


async def test_no_reason_shows_the_value(store: Store) -> None:
    secret = b"hunter2"
    lines = [
        b'{"id": "a", "password": "hunter2", "n": 99999999999999999999}',
        b'{"password": "hunter2"}',
        b'{"id": {"password": "hunter2"}}',
        b'{"id": "a", "password": "hunter2"',
    ]
    report = await import_json_lines(store, "Vehicle", lines, id_field="id")
    assert report.rejected == 4
    assert not any(secret.decode() in rejection.reason for rejection in report.rejections)
