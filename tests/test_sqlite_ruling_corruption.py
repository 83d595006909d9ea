"""Bases, policies, releases and nodes of a SQLite file that can't be read: told as such, never taken for none."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite
from lazymig._bases import Base, BaseWrite, Kept
from lazymig._records import ActorKey, Claim, Commit, Fence, NodeRecord
from lazymig._rows import EPOCH
from lazymig._rulings import AskActors, AskBases, AskConverting, AskEntries, AskSeen, AskType
from lazymig.errors import CorruptStateError
from lazymig.hooks import NodeStarted
from lazymig.sqlite import open_sqlite
from lazymig.testing.ruling_bench import answers, ask, facts
from lazymig.testing.ruling_suite import RELEASE
from lazymig.testing.store_suite import FIRST
from tests.test_sqlite_corruption import A, B, everything_in

if TYPE_CHECKING:
    from pathlib import Path

    from lazymig._rulings import Question
    from lazymig.hooks import Event
    from lazymig.store import Store

OTHER = ActorKey("Box", "c")
BASE = Base(FIRST.applied, 1, 7, {"main": Kept(b"1")})

BASE_CORRUPTIONS = {
    "no lineage of a base": "UPDATE actor SET base_lineage = NULL WHERE id = 'a'",
    "no revision of a base": "UPDATE actor SET base_revision = NULL WHERE id = 'a'",
    "no digest of a base": "UPDATE actor SET base_digest = NULL WHERE id = 'a'",
    "an unknown lineage of a base": "UPDATE actor SET base_lineage = 99 WHERE id = 'a'",
    "text for a lineage of a base": "UPDATE actor SET base_lineage = 'x' WHERE id = 'a'",
    "no UTF-8 for a lineage of a base": "UPDATE actor SET base_lineage = CAST(x'ff' AS TEXT) WHERE id = 'a'",
    "text for a revision of a base": "UPDATE actor SET base_revision = 'x' WHERE id = 'a'",
    "a fraction for a revision of a base": "UPDATE actor SET base_revision = 0.5 WHERE id = 'a'",
    "a revision of a base below zero": "UPDATE actor SET base_revision = -1 WHERE id = 'a'",
    "a revision of a base above the actor's": "UPDATE actor SET base_revision = 2 WHERE id = 'a'",
    "text for a digest": "UPDATE actor SET base_digest = 'x' WHERE id = 'a'",
    "a fraction for a digest": "UPDATE actor SET base_digest = 1.5 WHERE id = 'a'",
    "a base of an actor that was never stored": "UPDATE actor SET revision = 0 WHERE id = 'a'",
    "a number for a state of a base": "UPDATE base SET value = 5 WHERE id = 'a'",
    "text that is no UTF-8 for a state of a base": "UPDATE base SET value = CAST(x'ff' AS TEXT) WHERE id = 'a'",
    "bytes for the name of a state of a base": "UPDATE base SET name = x'00' WHERE id = 'a'",
    "no name for a state of a base": "UPDATE base SET name = '' WHERE id = 'a'",
    "a name that is no UTF-8 of a state of a base": "UPDATE base SET name = CAST(x'ff' AS TEXT) WHERE id = 'a'",
}


async def store_bases(path: Path, statement: str) -> None:
    """Store two actors with a base and one without, no states in them, and damage the file."""
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        for number, key in enumerate((A, B, OTHER)):
            await store.claim(key, Fence("mine", number))
            base = BaseWrite(BASE.applied, BASE.digest, is_current=True, states=BASE.states)
            commit = Commit(key, Fence("mine", number), 0, FIRST, {}, base=None if key == OTHER else base)
            await store.commit(commit._replace(release=True))
    damage(path, statement)


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def claimed(store: Store, key: ActorKey) -> Claim:
    await store.register(NodeRecord("other", "other", None, 1000.0))
    claim = await store.claim(key, Fence("other", 1))
    assert isinstance(claim, Claim)
    return claim


@pytest.mark.parametrize("what", BASE_CORRUPTIONS)
async def test_corrupted_base_is_refused_and_the_lock_not_taken(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    await store_bases(path, BASE_CORRUPTIONS[what])
    before = everything_in(path)
    async with open_sqlite(path) as store:
        assert (await claimed(store, B)).actor.base == BASE
        for use in (partial(store.claim, A, Fence("other", 2)), partial(store.read, A), partial(store.scan, "Box")):
            with pytest.raises(CorruptStateError) as refused:
                await use()
            assert refused.value.key == A
        assert await store.insert("Box", "state", [("a", b"1")]) == frozenset()
    assert everything_in(path) == before
    with closing(sqlite3.connect(path)) as connection:
        owners = connection.execute("SELECT owner FROM actor ORDER BY id").fetchall()
    assert owners == [(None,), ("other",), (None,)]


async def test_a_base_whose_actor_is_lost_is_not_taken_for_a_new_actors(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await store_bases(path, "DELETE FROM actor WHERE id = 'a'")
    before = everything_in(path)
    async with open_sqlite(path) as store:
        for _ in range(2):
            with pytest.raises(CorruptStateError) as refused:
                await claimed(store, A)
            assert refused.value.key == A
            await store.unregister("other")
        assert await store.insert("Box", "state", [("a", b"1")]) == frozenset()
    assert everything_in(path) == before


POLICY_CORRUPTIONS = {
    "text for a write version": "UPDATE policy SET version = 'x'",
    "a fraction for a write version": "UPDATE policy SET version = 1.5",
    "a write version below zero": "UPDATE policy SET version = -1",
    "bytes for a write version": "UPDATE policy SET version = x'ff'",
    "text for an epoch": "UPDATE policy SET epoch = 'x'",
    "text that is no UTF-8 for an epoch": "UPDATE policy SET epoch = CAST(x'ff' AS TEXT)",
    "a fraction for an epoch": "UPDATE policy SET epoch = 1.5",
    "the epoch of no policy": "UPDATE policy SET epoch = 0",
}


@pytest.mark.parametrize("what", POLICY_CORRUPTIONS)
async def test_corrupted_policy_is_refused_and_nothing_is_stored(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        await store.register(NodeRecord("mine", "mine", None, 1000.0))
        await store.rule(answers(policies={"Box": 5, "Bus": 6}), is_change=True)
        held = await store.claim(B, Fence("mine", 1))
        assert isinstance(held, Claim)
        damage(path, f"{POLICY_CORRUPTIONS[what]} WHERE type = 'Box'")
        for _ in range(2):
            with pytest.raises(CorruptStateError) as refused:
                await store.claim(A, Fence("mine", 2))
            assert refused.value.key == A
        with pytest.raises(CorruptStateError):
            await facts(store, "Box")
        if "epoch" in what:
            with pytest.raises(CorruptStateError) as refused:
                await store.commit(Commit(B, held.fence, 0, FIRST, {"main": b"1"}, epoch=held.policy.epoch))
            assert refused.value.key == B
            assert await store.read(B) is None
        assert (await facts(store, "Bus")).policy == (6, 1)


RELEASE_CORRUPTIONS = {
    "no object for checksums": "UPDATE release SET checksums = '[]'",
    "no JSON for checksums": "UPDATE release SET checksums = x'ff'",
    "text for a checksum": """UPDATE release SET checksums = '{"1.0.0": "x"}'""",
    "a truth for a checksum": """UPDATE release SET checksums = '{"1.0.0": true}'""",
    "half a version": """UPDATE release SET checksums = '{"1.0": 1}'""",
    "bytes for a build": "UPDATE release SET build = x'ff'",
    "a fraction for a time": "UPDATE release SET seen_at = 1.5",
    "a time beyond the calendar": "UPDATE release SET seen_at = 9223372036854775807",
}


@pytest.mark.parametrize("what", RELEASE_CORRUPTIONS)
async def test_of_a_corrupted_release_the_set_still_counts(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        await store.rule(answers(releases=[("Box", RELEASE)]), is_change=True)
        (before,) = (await facts(store, "Box")).releases
        damage(path, RELEASE_CORRUPTIONS[what])
        unknown: dict[str, Any] = {"seen_at": EPOCH} if "time" in what else {"checksums": {}}
        (found,) = (await facts(store, "Box")).releases
        assert found == before._replace(**{"build": None} if "build" in what else unknown)


async def test_a_corrupted_set_of_a_release_is_told_and_never_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        await store.rule(answers(releases=[("Box", RELEASE)]), is_change=True)
        damage(path, "UPDATE release SET applied = '{}'")
        for question in (AskType("Box"), AskSeen("Box")):
            with pytest.raises(CorruptStateError, match="a release of Box is unreadable"):
                await ask(store, question)


@pytest.mark.parametrize("damaged", ["checksums = 'x'", "build = 5", "seen_at = 'x'"])
async def test_no_node_is_kept_from_starting_by_what_does_not_decide_it(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "store.db"
    suite = Suite("suite")
    suite.actor_type("Box", state="box").migration("1.0.0")(nothing)
    async with open_sqlite(path) as store:
        for _ in range(2):
            async with Node(store, [suite]):
                damage(path, f"UPDATE release SET {damaged}")


def nothing(state: Any, context: Any) -> None:
    pass


async def test_housekeeping_outlives_a_row_that_can_not_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.db"
    suite, started = Suite("suite"), asyncio.Event()
    suite.actor_type("Box", state="box").migration("1.0.0")(nothing)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeStarted) and event.replaces:
            started.set()

    async with open_sqlite(path) as store, Node(store, [suite], lease_seconds=0.4, hooks=[on_event]) as node:
        first = node.node_id
        damage(path, "UPDATE release SET applied = 'x'")
        await store.forget(first)
        async with asyncio.timeout(20):
            while caplog.text.count("a release of Box is unreadable") < 2:  # noqa: ASYNC110  (a log has no event)
                await asyncio.sleep(0.01)
            assert await store.nodes() == []
            damage(path, "DELETE FROM release")
            await started.wait()
        assert [status.node_id for status in await store.nodes()] == [node.node_id] != [first]


@pytest.mark.parametrize(
    "change",
    [
        "node SET offers = 'x'",
        "node SET offers = '[1]'",
        "node SET offers = '{}'",
        "node SET offers = 'null'",
        "node SET offers = '\"\"'",
        """node SET offers = '[{"Box": 1}]'""",
        """node SET offers = '[["Box", ["1.0.0"], "abc", [], []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [1], [], []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], {}, []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], "", []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], [], {}]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], [], [["1.0.0", 1]]]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], [], []], ["Box", ["2.0.0"], [], [], []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], []]]'""",
        """node SET offers = '[["Box", ["1.0"], [], [], []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], ["x"], []]]'""",
        """node SET offers = '[["Box", ["1.0.0"], [], [], ["1.0.0"]]]'""",
        "heartbeat SET at = 'x'",
        "heartbeat SET lease = x'00'",
        "heartbeat SET incarnation = 'lost'",
        "heartbeat SET active = 9e999",
        "heartbeat SET active = 'x'",
    ],
)
async def test_a_node_that_can_not_be_read_is_unknown_to_a_ruling_not_absent(tmp_path: Path, change: str) -> None:
    path = tmp_path / "store.db"
    async with open_sqlite(path) as store:
        for node_id in ("mine", "other"):
            await store.register(NodeRecord(node_id, node_id, None, 1000.0))
        damage(path, f"UPDATE {change} WHERE incarnation = 'mine'")
        found = await facts(store, "Box")
        assert ([node.node_id for node in found.nodes], list(found.unreadable)) == (["other"], ["mine"])
        assert [node.node_id for node in await store.nodes()] == ["other"]
        await store.forget("mine")
        assert (await facts(store, "Box")).unreadable == []


@pytest.mark.parametrize(
    ("change", "question"),
    [
        ("actor SET lineage = 99", AskType("Box")),
        ("actor SET lineage = 'x'", AskActors("Box", frozenset({FIRST.applied}))),
        ("actor SET written_by = 99", AskType("Box")),
        ("actor SET written_by = NULL", AskBases("Box", frozenset())),
        ("actor SET base_lineage = 99", AskType("Box")),
        ("actor SET base_lineage = x'00'", AskBases("Box", frozenset())),
        ("actor SET oldest = 'x'", AskType("Box")),
        ("actor SET converting = 9, id = x'00'", AskConverting("Box", 5)),
        ("lineage SET applied = 'x'", AskType("Box")),
        ("lineage SET applied = 'x'", AskEntries("Box", frozenset({FIRST.applied}))),
    ],
)
async def test_what_a_question_can_not_be_answered_from_is_told(
    tmp_path: Path, change: str, question: Question
) -> None:
    path = tmp_path / "store.db"
    await store_bases(path, f"UPDATE {change} WHERE id = 'b'" if "actor" in change else f"UPDATE {change}")
    async with open_sqlite(path) as store:
        with pytest.raises(CorruptStateError):
            await ask(store, question)


async def test_a_straggler_whose_id_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await store_bases(path, "UPDATE actor SET id = x'00' WHERE id = 'b'")
    stragglers: Any
    async with open_sqlite(path) as store:
        stragglers = partial(store.stragglers, "Box", frozenset({FIRST.applied}))
        with pytest.raises(CorruptStateError):
            await stragglers()
        assert await stragglers(limit=1) == ["a"]
