"""Ranges, order and pages of entries as tests; `lazymig.testing.entry_suite` inherits them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from lazymig._entries import Entry, Range, after_prefix
from lazymig._records import Claim, Commit, Fence, Marks
from lazymig.testing.store_bench import StoreBench
from lazymig.testing.store_suite import FIRST, KEY, SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig._entries import Page
    from lazymig._records import ActorKey
    from lazymig.store import Store

MARKS = Marks(oldest=1)
"""What an actor says that has entries of some version, and no conversion under way."""

PAGE = 3
"""Entries a page, where a test walks through many."""

NAMES = (
    "\x01", " ", "%", "'", "10", "9", "A", "A b", "Ab", "B", "_", "a", "a\x01", "a/", "a/b", "a0", "ab", "z", "\x7f",
    "é", "e\u0301", "\u2028", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f697", "\U0001f697a", "\U0010ffff",
    "\U0010ffff\x01", "\U0010ffff\U0010ffff",
)  # fmt: skip
"""Keys that another order than that of code points, or a collation, would mix up."""

EDGES = ("", "\x01", "A", "a", "a\x01", "a/", "a0", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff")


class EntryPageSuite(StoreBench):
    """Inherit it and give it `open`."""

    async def test_entries_go_by_code_point_forward_and_reverse(self, store: Store) -> None:
        await fill(store, {("log", name): entry(name) for name in NAMES})

        found = await found_in(store, Range("log"))
        assert list(found.items()) == [(name, entry(name)) for name in sorted(NAMES)]
        assert list(await found_in(store, Range("log", is_reverse=True))) == sorted(NAMES, reverse=True)

    @pytest.mark.parametrize("is_reverse", [False, True])
    async def test_a_range_has_its_start_and_not_its_end(self, store: Store, *, is_reverse: bool) -> None:
        await fill(store, {("log", name): entry(name) for name in NAMES})

        for start in EDGES:
            for end in (*EDGES, Range("log").end):
                of = Range("log", start, end, is_reverse)
                expected = sorted(filter(of.has, NAMES), reverse=is_reverse)
                page = await store.entries(KEY, of, 100, 1_000_000)
                assert (list(page.keys), page.is_last) == (expected, True), of
                assert await store.count_entries(KEY, of) == len(expected), of

    @pytest.mark.parametrize("is_reverse", [False, True])
    async def test_what_is_after_a_key_begins_with_the_next_one(self, store: Store, *, is_reverse: bool) -> None:
        await fill(store, {("log", name): entry(name) for name in NAMES})

        whole = Range("log", is_reverse=is_reverse)
        for key, following in pairwise(sorted(NAMES, reverse=is_reverse)):
            page = await store.entries(KEY, whole.after(key), 1, 1_000_000)
            assert list(page.keys) == [following], key

    @pytest.mark.parametrize(
        "prefix", ["a", "a/", "A", "\x7f", "\ud7ff", "\uffff", "\U0001f697", "\U0010ffff", "a\U0010ffff", "none"]
    )
    async def test_a_range_of_a_prefix_has_all_that_begin_with_it(self, store: Store, prefix: str) -> None:
        names = {*NAMES, *(f"{prefix}{tail}" for tail in ("", "\x01", "\ue000", "\U0010ffff", "\U0010ffff" * 9))}
        await fill(store, {("log", name): entry(name) for name in names})

        found = await found_in(store, Range("log", prefix, after_prefix(prefix)))
        assert list(found) == sorted(name for name in names if name.startswith(prefix))

    @pytest.mark.parametrize("is_reverse", [False, True])
    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7])
    async def test_pages_by_number_have_every_entry_once(self, store: Store, limit: int, *, is_reverse: bool) -> None:
        names = sorted("abcdef", reverse=is_reverse)
        await fill(store, {("log", name): entry(name) for name in names})

        pages = await walk(store, Range("log", is_reverse=is_reverse), limit, 1_000_000)
        assert [list(page.keys) for page in pages] == [names[first : first + limit] for first in range(0, 6, limit)]
        assert [page.is_last for page in pages] == [*[False] * (len(pages) - 1), True]

    @pytest.mark.parametrize("is_reverse", [False, True])
    @pytest.mark.parametrize("limit", [2, 5, 6, 100])
    @pytest.mark.parametrize("max_bytes", [1, 10, 11, 29, 30, 31, 60, 100])
    async def test_a_page_ends_with_the_entry_that_fills_it(
        self, store: Store, limit: int, max_bytes: int, *, is_reverse: bool
    ) -> None:
        names = sorted("abcdef", reverse=is_reverse)
        await fill(store, {("log", name): Entry(name.encode() * 10, FIRST.applied) for name in names})

        count = min(limit, -(-max_bytes // 10))
        pages = await walk(store, Range("log", is_reverse=is_reverse), limit, max_bytes)
        assert [list(page.keys) for page in pages] == [names[first : first + count] for first in range(0, 6, count)]
        assert [page.is_last for page in pages] == [*[False] * (len(pages) - 1), True]

    async def test_an_entry_larger_than_a_page_is_its_last(self, store: Store) -> None:
        sizes = {"a": 0, "b": 0, "c": 5, "d": 200_000, "e": 0, "f": 200_000, "g": 200_000, "h": 0}
        await fill(store, {("log", name): Entry(b"\xff" * size, FIRST.applied) for name, size in sizes.items()})

        pages = await walk(store, Range("log"), 100, 1_000)
        assert ["".join(page.keys) for page in pages] == ["abcd", "ef", "g", "h"]
        backwards = await walk(store, Range("log", is_reverse=True), 100, 1_000)
        assert ["".join(page.keys) for page in backwards] == ["hg", "f", "ed", "cba"]

    async def test_empty_values_fill_no_page(self, store: Store) -> None:
        await fill(store, {("log", name): Entry(b"", FIRST.applied) for name in "abc"})

        (page,) = await walk(store, Range("log"), 100, 1)
        assert (list(page.keys), list(page.data)) == (["a", "b", "c"], [b"", b"", b""])

    @pytest.mark.parametrize(("start", "end"), [("b", "b"), ("c", "b"), ("bb", "c"), ("x", "z"), ("", "\x01")])
    @pytest.mark.parametrize("is_reverse", [False, True])
    async def test_an_empty_range_is_one_empty_page(
        self, store: Store, start: str, end: str, *, is_reverse: bool
    ) -> None:
        await fill(store, {("log", name): entry(name) for name in "abc"} | {("other", "y"): entry("y")})

        page = await store.entries(KEY, Range("log", start, end, is_reverse), 1, 1)
        assert (list(page.keys), list(page.data), list(page.applied), page.is_last) == ([], [], [], True)
        assert await store.count_entries(KEY, Range("log", start, end, is_reverse)) == 0

    async def test_entries_beyond_the_range_do_not_count_as_more(self, store: Store) -> None:
        await fill(store, {("log", name): entry(name) for name in "abcde"})

        for of in (Range("log", "b", "d"), Range("log", "b", "d", is_reverse=True)):
            assert (await store.entries(KEY, of, 2, 1_000)).is_last
            assert (await store.entries(KEY, of, 100, 2)).is_last
            assert not (await store.entries(KEY, of, 1, 1_000)).is_last
            assert not (await store.entries(KEY, of, 100, 1)).is_last

    async def test_many_entries_of_one_commit_are_walked_through(self, store: Store) -> None:
        names = [f"{number:05}" for number in range(1_500)]
        stamps = (FIRST.applied, SECOND.applied)
        await fill(store, {("log", name): Entry(name.encode(), stamps[int(name) % 2]) for name in reversed(names)})

        pages = await walk(store, Range("log"), 500, 1_000_000)
        assert [name for page in pages for name in page.keys] == names
        assert [data.decode() for page in pages for data in page.data] == names
        assert [stamp for page in pages for stamp in page.applied] == [*stamps] * 750
        assert (len(pages), await store.count_entries(KEY, Range("log"))) == (3, 1_500)


def entry(text: str) -> Entry:
    """Return an entry whose value shows what it is."""
    return Entry(text.encode(), FIRST.applied)


async def fill(store: Store, entries: Mapping[tuple[str, str], Entry | None], marks: Marks = MARKS) -> None:
    """Claim `KEY` for node "n1" and store entries in its first commit."""
    assert isinstance(await store.claim(KEY, Fence("n1", 1)), Claim)
    await store.commit(Commit(KEY, Fence("n1", 1), 0, FIRST, {}, entries=entries, marks=marks))


async def walk(store: Store, of: Range, limit: int, max_bytes: int, key: ActorKey = KEY) -> list[Page]:
    """Return all pages of a range."""
    pages = [await store.entries(key, of, limit, max_bytes)]
    while not pages[-1].is_last:
        of = of.after(pages[-1].keys[-1])
        pages.append(await store.entries(key, of, limit, max_bytes))
    return pages


async def found_in(store: Store, of: Range, key: ActorKey = KEY) -> dict[str, Entry]:
    """Return the entries of a range, page by page; none may come twice."""
    found: dict[str, Entry] = {}
    for page in await walk(store, of, PAGE, 1_000_000, key):
        assert not found.keys() & {*page.keys}
        found |= zip(page.keys, map(Entry, page.data, page.applied), strict=True)
    return found


async def all_of(store: Store, table: str, key: ActorKey = KEY) -> dict[str, Entry]:
    """Return the entries of a table; each way of reading says the same."""
    found = await found_in(store, Range(table), key)
    assert await store.count_entries(key, Range(table)) == len(found)
    assert list(reversed(await found_in(store, Range(table, is_reverse=True), key))) == list(found)
    assert sum(count.entries for count in await store.tables(key) if count.table == table) == len(found)
    return found
