"""The contract of stores as far as records of failures go, as tests: what is noted of a migration that failed.

A store joins with one more class beside its `StoreSuite`, with the same `open`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from lazymig._bases import NO_BASE, BaseWrite, Kept
from lazymig._entries import Entry
from lazymig._quarantine import MAX_TEXT, Failure, failed
from lazymig._records import ActorKey, Claim, Commit, Fence, Marks
from lazymig._rulings import NOBODY, AskFailing, Counted
from lazymig.errors import LeaseLostError
from lazymig.testing.ruling_bench import ask, put
from lazymig.testing.store_bench import StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND, applied, claimed, commit

if TYPE_CHECKING:
    from lazymig.store import Store

FENCE = Fence("n1", 1)
AT = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)
NEW = applied("1.0.0", "2.0.0")


def failure(number: int = 1) -> Failure:
    """Return some record; each number gives another one."""
    found = failed(None, NEW.highest, f"name {number}", "ValueError: no", at=AT, node="web-1", checksum=2**62)
    return found._replace(attempts=number, retry_at=AT + timedelta(seconds=number))


class FailureSuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_a_record_comes_back_from_claim_read_scan_and_page(self, store: Store) -> None:
        await stored(store)
        await expect_failure(store, None)
        await store.failures.note(KEY, FENCE, failure(1))
        await expect_failure(store, failure(1))
        await store.failures.note(KEY, (await claimed(store, 2)).fence, failure(2))
        await expect_failure(store, failure(2))

    async def test_nothing_else_of_the_actor_changes(self, store: Store) -> None:
        await stored(store)
        entries = {("log", "a"): Entry(b"1", NEW)}
        change = Commit(KEY, FENCE, 1, SECOND, {"other": b"2"}, entries=entries, marks=Marks(NEW.highest, 0))
        await store.commit(change._replace(base=BaseWrite(NEW, 7, is_current=True, states={"main": Kept(b"new")})))
        before = await store.read(KEY)
        await store.failures.note(KEY, FENCE, failure())

        assert before is not None
        assert await store.read(KEY) == before._replace(failure=failure())
        assert await store.commit(Commit(KEY, FENCE, 2, SECOND, {})) == 3

    @pytest.mark.parametrize("wrong", [Fence("n1", 2), Fence("n2", 1), Fence("stranger", 1)])
    async def test_a_record_needs_the_valid_fence(self, store: Store, wrong: Fence) -> None:
        await stored(store)
        await store.failures.note(KEY, FENCE, failure(1))
        with pytest.raises(LeaseLostError):
            await store.failures.note(KEY, wrong, failure(2))

        await expect_failure(store, failure(1))

    async def test_a_record_needs_a_registered_node(self, store: Store) -> None:
        await stored(store)
        await store.unregister("n1")
        with pytest.raises(LeaseLostError):
            await store.failures.note(KEY, FENCE, failure())

        assert await store.failures.page() == []

    async def test_of_an_actor_of_which_nothing_is_stored_nothing_is_recorded(self, store: Store) -> None:
        await claimed(store, 1)
        with pytest.raises(LeaseLostError):
            await store.failures.note(KEY, FENCE, failure())
        await store.commit(commit(FENCE, 0, FIRST, main=b"1"))
        await store.commit(commit(FENCE, 1, FIRST, main=None))
        with pytest.raises(LeaseLostError):
            await store.failures.note(KEY, FENCE, failure())

        assert await store.failures.page() == []

    async def test_an_imported_actor_has_one_like_any_other(self, store: Store) -> None:
        await store.insert("Car", "main", [("a", b"1")])
        await claimed(store, 1)
        await store.failures.note(KEY, FENCE, failure())

        await expect_failure(store, failure())

    async def test_a_commit_leaves_it_unless_it_says_so(self, store: Store) -> None:
        await stored(store)
        await store.failures.note(KEY, FENCE, failure())
        await store.commit(commit(FENCE, 1, SECOND, main=b"2"))
        await expect_failure(store, failure())
        await store.commit(commit(FENCE, 2, SECOND, main=b"3")._replace(clears_failure=True))
        await expect_failure(store, None)
        await store.commit(commit(FENCE, 3, SECOND, main=b"4")._replace(clears_failure=True))
        await expect_failure(store, None)

    @pytest.mark.parametrize("what", ["states", "entries", "base"])
    async def test_whatever_a_commit_stores_it_can_remove_the_record(self, store: Store, what: str) -> None:
        await stored(store)
        await store.failures.note(KEY, FENCE, failure())
        change = commit(FENCE, 1, SECOND, main=b"2")._replace(clears_failure=True, release=True)
        if what == "entries":
            change = change._replace(entries={("log", "a"): Entry(b"1", NEW)}, marks=Marks(0, NEW.highest))
        if what == "base":
            change = change._replace(base=BaseWrite(NEW, states={"main": Kept(b"new")}))
        await store.commit(change)

        await expect_failure(store, None)

    async def test_a_commit_that_is_refused_leaves_it(self, store: Store) -> None:
        await stored(store)
        await store.failures.note(KEY, FENCE, failure())
        with pytest.raises(LeaseLostError):
            await store.commit(commit(FENCE, 7, SECOND, main=b"2")._replace(clears_failure=True))
        assert not isinstance(await store.commit(commit(FENCE, 1)._replace(clears_failure=True, epoch=9)), int)

        await expect_failure(store, failure())

    async def test_it_goes_when_nothing_is_left_of_the_actor(self, store: Store) -> None:
        await stored(store)
        await store.failures.note(KEY, FENCE, failure())
        entries = {("log", "a"): Entry(b"1", NEW)}
        change = commit(FENCE, 1, FIRST, main=None)
        base = BaseWrite(NEW, states={"main": Kept(b"new")})
        await store.commit(change._replace(entries=entries, marks=Marks(0, NEW.highest), base=base))
        await expect_failure(store, failure())
        change = commit(FENCE, 2, FIRST)._replace(entries={("log", "a"): None}, marks=Marks())
        await store.commit(change)
        await expect_failure(store, failure())
        await store.commit(commit(FENCE, 3, FIRST)._replace(base=NO_BASE))
        await expect_failure(store, None)
        await store.commit(commit(FENCE, 4, FIRST, main=b"anew"))
        await expect_failure(store, None)

    async def test_records_are_paged_in_order_of_their_actors(self, store: Store) -> None:
        keys = [ActorKey(kind, name) for kind in ("Bus", "Car", "bus") for name in ("B", "_", "a", "é", "\U0001f697")]
        for number, key in enumerate(reversed(keys), 1):
            await put(store, key.id, FIRST, actor_type=key.type)
            await note(store, key, failure(number))
        await put(store, "none", FIRST)
        found = [(key, failure(len(keys) - number)) for number, key in enumerate(keys)]

        assert list(await store.failures.page()) == found
        assert list(await store.failures.page(limit=4)) == found[:4]
        assert list(await store.failures.page(after=found[3][0], limit=4)) == found[4:8]
        assert list(await store.failures.page(after=found[-1][0])) == []
        assert list(await store.failures.page("Car")) == found[5:10]
        assert list(await store.failures.page("Car", limit=2)) == found[5:7]
        assert list(await store.failures.page("Car", after=found[6][0])) == found[7:10]
        assert list(await store.failures.page("Car", after=found[1][0])) == found[5:10]
        assert list(await store.failures.page("Car", after=found[-2][0])) == []
        assert list(await store.failures.page("Ca")) == []

    async def test_a_retry_lets_the_next_try_come_at_once_and_keeps_the_rest(self, store: Store) -> None:
        keys = [ActorKey("Bus", "a"), ActorKey("Car", "a"), ActorKey("Car", "b")]
        for number, key in enumerate(keys, 1):
            await put(store, key.id, FIRST, actor_type=key.type)
            await note(store, key, failure(number))

        assert await store.failures.retry("Car", "a") == 1
        now = {key: failure(number)._replace(retry_at=AT) for number, key in enumerate(keys, 1)}
        later = {key: failure(number) for number, key in enumerate(keys, 1)}
        assert dict(await store.failures.page()) == {**later, keys[1]: now[keys[1]]}
        assert await store.failures.retry("Car") == 2
        assert dict(await store.failures.page()) == {**now, keys[0]: later[keys[0]]}
        assert await store.failures.retry("Car", "c") == 0
        assert await store.failures.retry("none") == 0

    async def test_a_retry_needs_no_lock_and_the_holder_sees_it_at_its_next_claim(self, store: Store) -> None:
        await stored(store)
        await store.failures.note(KEY, FENCE, failure())
        assert await store.failures.retry("Car", "a") == 1

        assert (await claimed(store, 2)).actor.failure == failure()._replace(retry_at=AT)
        assert await store.commit(commit(Fence("n1", 2), 1, FIRST, main=b"2")) == 2

    async def test_those_with_a_record_are_counted_and_named_for_rulings(self, store: Store) -> None:
        assert await ask(store, AskFailing("Car")) == NOBODY
        for number, actor_id in enumerate("fedcbaxyz", 1):
            await put(store, actor_id, SECOND if actor_id == "a" else FIRST)
            if actor_id < "x":
                await note(store, ActorKey("Car", actor_id), failure(number))
        await store.insert("Car", "main", [("imported", b"1")])
        await note(store, ActorKey("Car", "imported"), failure())

        assert await ask(store, AskFailing("Car")) == Counted(7, tuple("abcde"))
        assert await ask(store, AskFailing("Car", frozenset([FIRST.applied]))) == Counted(5, tuple("bcdef"))
        assert await ask(store, AskFailing("Car", frozenset([SECOND.applied, None]))) == Counted(2, ("a", "imported"))
        assert await ask(store, AskFailing("Car", frozenset([None]))) == Counted(1, ("imported",))
        assert await ask(store, AskFailing("Car", frozenset([NEW]))) == NOBODY
        assert await ask(store, AskFailing("Car", frozenset())) == NOBODY
        assert await ask(store, AskFailing("Bus")) == NOBODY

    async def test_texts_of_any_kind_come_back_as_far_as_they_can_be_text(self, store: Store) -> None:
        await stored(store)
        odd = failed(None, 1, "<lambda>", "KeyError: '\0\ud800\U0001f697'" + "x" * 3_000, at=AT, node="é", checksum=0)
        await store.failures.note(KEY, FENCE, odd)

        await expect_failure(store, odd)
        assert odd.error.startswith("KeyError: '\0?\U0001f697'x")
        assert len(odd.error) == MAX_TEXT

    async def test_concurrent_records_are_each_their_own(self, store: Store) -> None:
        keys = [ActorKey("Car", f"{number:02}") for number in range(20)]
        for key in keys:
            await put(store, key.id, FIRST)
        await asyncio.gather(*(note(store, key, failure(number)) for number, key in enumerate(keys, 1)))

        assert [found.attempts for _, found in await store.failures.page()] == [*range(1, 21)]
        await asyncio.gather(store.failures.retry("Car"), *(note(store, key, failure(9)) for key in keys))
        assert {found.attempts for _, found in await store.failures.page()} == {9}


async def stored(store: Store) -> None:
    """Store `KEY` under `FENCE`."""
    await claimed(store, 1)
    await store.commit(commit(FENCE, 0, FIRST, main=b"1"))


async def note(store: Store, key: ActorKey, of: Failure) -> None:
    """Record a failure under a claim of its own."""
    claim = await store.claim(key, FENCE)
    assert isinstance(claim, Claim)
    await store.failures.note(key, claim.fence, of)
    await store.release([(key, claim.fence)])


async def expect_failure(store: Store, of: Failure | None) -> None:
    """Check what is recorded of `KEY`, however it is read; it is claimed once more by that."""
    found = await store.read(KEY)
    assert found is not None
    assert found.failure == of
    assert [actor.failure for actor in await store.scan("Car")] == [of]
    assert [one for _, one in await store.failures.page()] == [of] * (of is not None)
    assert (await claimed(store, found.number or 1)).actor.failure == of
