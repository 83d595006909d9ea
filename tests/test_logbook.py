"""Logbooks behave as they say on every store, whichever release wrote their lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Node, Suite, rollout
from lazymig._version import unpack
from lazymig.errors import MigrationFailedError, NewerStateError
from lazymig.hooks import EntriesConverted
from lazymig.testing import release
from lazymig.transfer import import_states
from suites import logbook as suite_of
from suites.logbook import LEVELS, join_entry, key_of, logbook, number_level, split_entry

if TYPE_CHECKING:
    from lazymig import Activation
    from lazymig.store import Store

KEY = ActorKey("Logbook", "engine")
LEGACY = {
    "title": "Engine room",
    "lines": [
        "2024-03-01T08:00:00Z error: pump 2: no pressure",
        "2024-03-01T08:00:00Z WARN: pump 1 is hot",
        "2024-03-02T09:30:00Z watch changed",
        "2024-04-01T00:00:00Z Note to self: order oil",
    ],
}
KEYS = [key_of(line.partition(" ")[0], number) for number, line in enumerate(LEGACY["lines"], 1)]
AT_HEAD = [
    {"severity": LEVELS.index("error"), "text": "pump 2: no pressure", "origin": None},
    {"severity": LEVELS.index("warning"), "text": "pump 1 is hot", "origin": None},
    {"severity": LEVELS.index("notice"), "text": "watch changed", "origin": None},
    {"severity": LEVELS.index("notice"), "text": "Note to self: order oil", "origin": None},
]


async def import_legacy(store: Store) -> None:
    await import_states(store, logbook, [(KEY.id, LEGACY)])


async def opened(activation: Activation) -> Any:
    return await activation.state().migrate_and_load(default={})


async def visit(store: Store, suite: Suite, *, puts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Open the logbook with a release, add entries of its shape, and return all it reads."""
    async with Node(store, [suite], hand_over_seconds=0) as node, node.activate(KEY.type, KEY.id) as activation:
        await opened(activation)
        log = activation.table("log")
        for key, value in (puts or {}).items():
            await log.put(key, value)
        await activation.persist()
        return {key: value async for key, value in log.scan()}


async def versions(store: Store) -> dict[str, int]:
    """Return how many entries are stored at which version."""
    counts = await store.tables(KEY)
    return {str(unpack(count.applied.highest)): count.entries for count in counts}


# --- what it does -----------------------------------------------------------------------------------------------------


async def test_lines_are_found_by_time_and_by_level_and_the_latest_come_first(store: Store) -> None:
    async with Node(store, [suite_of.suite]) as node:
        engine = node.actor(logbook, KEY.id)
        await engine.append("2024-03-01T08:00:00Z", "info", "pump 1 started")
        await engine.append("2024-03-02T08:00:00Z", "error", "pump 1 is hot", "sensor 7")
        key = await engine.append("2024-03-02T08:00:00Z", "warning", "pump 1 stopped")
        await engine.append("2024-04-01T08:00:00Z", "notice", "pump 1 mended")

        assert [line["text"] for line in await engine.latest(2)] == ["pump 1 mended", "pump 1 stopped"]
        assert [line["text"] for line in await engine.search("2024-03-02")] == ["pump 1 is hot", "pump 1 stopped"]
        assert await engine.search("2024-03", "error") == [
            {
                "key": "2024-03-02T08:00:00Z 00000002",
                "level": "error",
                "text": "pump 1 is hot",
                "origin": "sensor 7",
            }
        ]
        assert [line["key"] for line in await engine.search("2024-03", "warning", limit=1)] < [key]
        assert (await engine.count(), await engine.count("2024-03")) == (4, 3)


async def test_trimming_removes_lines_before_a_time_and_the_worst_is_remembered(store: Store) -> None:
    async with Node(store, [suite_of.suite]) as node:
        engine = node.actor(logbook, KEY.id)
        assert await engine.worst() is None
        await engine.append("2024-03-01T08:00:00Z", "alert", "fire")
        await engine.append("2024-03-02T08:00:00Z", "info", "no fire")

        assert await engine.trim("2024-03-02") == 1
        assert [line["text"] for line in await engine.latest()] == ["no fire"]
        assert await engine.worst() == "alert"


async def test_an_amended_line_keeps_what_else_is_known_of_it(store: Store) -> None:
    async with Node(store, [suite_of.suite]) as node:
        engine = node.actor(logbook, KEY.id)
        key = await engine.append("2024-03-01T08:00:00Z", "alert", "fire", "sensor 1")
        await engine.amend(key, "a toast")

        assert await engine.latest() == [{"key": key, "level": "alert", "text": "a toast", "origin": "sensor 1"}]


async def test_a_line_of_no_known_level_leaves_no_trace(store: Store) -> None:
    async with Node(store, [suite_of.suite]) as node:
        engine = node.actor(logbook, KEY.id)
        await engine.append("2024-03-01T08:00:00Z", "info", "well")
        with pytest.raises(ValueError, match="'loud' is no level"):
            await engine.append("2024-03-01T08:00:01Z", "loud", "bang")

        assert (await engine.count(), await engine.worst()) == (1, "info")
        assert (await engine.append("2024-03-01T08:00:02Z", "info", "well")).endswith(" 00000002")


# --- from release to release -----------------------------------------------------------------------------------------


async def test_legacy_lines_become_entries_of_todays_shape_in_one_commit(store: Store) -> None:
    await import_legacy(store)
    before = await store.read(KEY)
    assert await visit(store, suite_of.suite) == dict(zip(KEYS, AT_HEAD, strict=True))

    after = await store.read(KEY)
    assert before is not None
    assert after is not None
    assert after.revision == before.revision + 1
    async with Node(store, [suite_of.suite]) as node:
        record = await node.inspect(KEY.type, KEY.id)
        assert record is not None
        assert record.states == {
            "logbook": {"title": "Engine room", "appended": 4, "worst": LEVELS.index("error")},
        }
    assert await versions(store) == {"3.0.0": 4}


WRITTEN = {
    "1.0.0": {"message": "error: no oil"},
    "1.1.0": {"message": "error: no oil", "origin": "sensor 7"},
    "2.0.0": {"level": "error", "text": "no oil", "origin": "sensor 7"},
    "3.0.0": {"severity": 3, "text": "no oil", "origin": "sensor 7"},
}
"""An entry as each release stored it, forever: like the golden states."""


def test_every_release_has_an_entry_here() -> None:
    assert list(WRITTEN) == [str(migration.version) for migration in logbook.migrations]


@pytest.mark.parametrize("version", WRITTEN)
async def test_what_any_release_wrote_is_read_today(store: Store, version: str) -> None:
    await import_legacy(store)
    await visit(store, release(suite_of.suite, version), puts={"2024-05-01T00:00:00Z 00000005": WRITTEN[version]})

    read = await visit(store, suite_of.suite)

    assert [read[key] for key in KEYS] == AT_HEAD
    origin = None if version == "1.0.0" else "sensor 7"
    assert read["2024-05-01T00:00:00Z 00000005"] == {"severity": 3, "text": "no oil", "origin": origin}


@pytest.mark.parametrize("version", WRITTEN)
async def test_each_release_after_the_other_comes_to_the_same(store: Store, version: str) -> None:
    await import_legacy(store)
    for each in WRITTEN:
        await visit(store, release(suite_of.suite, each))
        if each == version:
            break

    assert await visit(store, suite_of.suite) == dict(zip(KEYS, AT_HEAD, strict=True))


async def test_old_software_of_the_same_major_keeps_origins_and_what_it_puts_gets_one_when_it_is_read(
    store: Store,
) -> None:
    newer, older = release(suite_of.suite, "1.1.0"), release(suite_of.suite, "1.0.0")
    await import_legacy(store)
    await visit(store, newer, puts={"2024-05-01 5": {"message": "info: on", "origin": "bridge"}})
    async with Node(store, [older]) as node, node.activate(KEY.type, KEY.id) as activation:
        await opened(activation)
        log = activation.table("log")
        await log.update("2024-05-01 5", lambda entry: {**entry, "message": "info: off"})
        await log.put("2024-05-01 6", {"message": "info: on"})
        await activation.persist()
    assert await versions(store) == {"1.1.0": 5, "1.0.0": 1}

    read = await visit(store, newer)

    assert read["2024-05-01 5"] == {"message": "info: off", "origin": "bridge"}
    assert read["2024-05-01 6"] == {"message": "info: on", "origin": None}


async def test_the_release_before_is_kept_out_of_a_logbook_with_levels(store: Store) -> None:
    await import_legacy(store)
    before = await visit(store, release(suite_of.suite, "2.0.0"))
    with pytest.raises(NewerStateError, match=r"2\.0\.0"):
        await visit(store, release(suite_of.suite, "1.1.0"), puts={KEYS[0]: {"message": "lost"}})

    assert await visit(store, release(suite_of.suite, "2.0.0")) == before


async def test_opening_a_logbook_at_release_2_leaves_its_lines_and_reading_converts_them(store: Store) -> None:
    await import_legacy(store)
    await visit(store, release(suite_of.suite, "1.1.0"))
    async with Node(store, [release(suite_of.suite, "2.0.0")]) as node, node.activate(KEY.type, KEY.id) as activation:
        await opened(activation)
        assert await versions(store) == {"1.1.0": 4}

        log = activation.table("log")
        assert (await log.get(KEYS[0]))["level"] == "error"
        assert await versions(store) == {"1.1.0": 4}

        await log.put("2024-05-01 5", {"level": "info", "text": "on", "origin": None})
        await activation.persist()
        assert await versions(store) == {"1.1.0": 3, "2.0.0": 2}  # what was read rides on the commit


async def test_release_3_converts_all_lines_before_a_logbook_opens(store: Store) -> None:
    await import_legacy(store)
    await visit(store, release(suite_of.suite, "1.0.0"))
    seen: list[tuple[str, str, int]] = []

    def note(event: object) -> None:
        if isinstance(event, EntriesConverted):
            seen.append((event.table, str(event.version), event.entries))

    async with Node(store, [suite_of.suite], hooks=[note]) as node:
        assert await node.actor(logbook, KEY.id).worst() == "error"
        assert await versions(store) == {"3.0.0": 4}
    assert seen == [("log", "3.0.0", 4)]


async def test_a_line_that_can_not_be_converted_is_named_and_those_before_it_are_kept(store: Store) -> None:
    await import_legacy(store)
    await visit(store, release(suite_of.suite, "1.1.0"), puts={KEYS[2]: {"said": "nothing"}})
    for _ in range(2):  # it does not get further, nor does it begin anew
        await rollout.retry(store, KEY.type)
        async with Node(store, [suite_of.suite]) as node:
            with pytest.raises(MigrationFailedError, match=r"2\.0\.0 \(split_entry\).*00000003.*log.*message"):
                await node.actor(logbook, KEY.id).worst()
            record = await node.inspect(KEY.type, KEY.id)
            assert record is not None
            assert (str(record.info.version if record.info else ""), str(record.converting)) == ("1.1.0", "3.0.0")
        assert await versions(store) == {"1.1.0": 2, "3.0.0": 2}

    with pytest.raises(NewerStateError, match=r"3\.0\.0"):  # by the mark: half of the lines are not its own any more
        await visit(store, release(suite_of.suite, "2.0.0"))


# --- its functions by themselves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["error: no oil", "no oil", "error: pump 2: no oil", "", ": ", "a:b", "error: "])
def test_a_message_survives_the_way_up_and_down(message: str) -> None:
    assert join_entry(split_entry({"message": message, "origin": 1}, None), None) == {"message": message, "origin": 1}


@pytest.mark.parametrize(
    ("said", "level", "text"),
    [
        ("Warn", "warning", "hot"),
        ("debug", "debug", "hot"),
        (None, "notice", "hot"),
        ("Pump 1", "notice", "Pump 1: hot"),
    ],
)
def test_levels_get_numbers_and_what_is_none_stays_text(said: str | None, level: str, text: str) -> None:
    entry: dict[str, Any] = {"level": said, "text": "hot"}
    number_level(entry, None)
    assert entry == {"severity": LEVELS.index(level), "text": text}
