"""``lazymig inspect`` shows tables: how many entries, and the entries themselves, page by page."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import Node, Suite, open_store
from lazymig.cli._entries import shell_word, table_lines
from lazymig.errors import MigrationFailedError
from lazymig.testing import release
from tests.cli_project import Project, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY_KEYS = ["a b", "it's", "-x", "*", "$HOME", "\x1b[31m", "a\\b'\n", "é💥", "~", "\u202e", "--"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path, monkeypatch)
    made.configure("[tool.lazymig]\n")
    return made


def suite_of_books(*, is_broken: bool = False) -> Suite:
    suite = Suite("books")
    book = suite.actor_type("Book")

    @book.migration("1.0.0")
    def first(state: Any, context: object) -> None:
        """As it was."""

    @book.migration("2.0.0")
    def second(state: Any, context: object) -> None:
        """Entries have a length."""

    @second.entries("log", eager=True)
    def length(entry: dict[str, Any], context: object) -> None:
        if is_broken and entry["text"] == "b-2":
            raise ValueError("b-2")
        entry["length"] = len(entry["text"])

    return suite


async def _fill(project: Project, suite: Suite, tables: Mapping[str, Mapping[str, Any]], book: str) -> None:
    async with open_store(project.url) as store, Node(store, [suite]) as node, node.activate("Book", book) as actor:
        await actor.state().migrate_and_load(default={"title": "T"})
        for table, entries in tables.items():
            for key, value in entries.items():
                await actor.table(table).put(key, value)
        await actor.persist()


def fill(
    project: Project, tables: Mapping[str, Mapping[str, Any]], *, version: str = "2.0.0", book: str = "b-1"
) -> None:
    """Put entries into a book's tables, with the release of a version."""
    asyncio.run(_fill(project, release(suite_of_books(), version), tables, book))


def numbered(count: int, prefix: str = "k") -> dict[str, Any]:
    return {f"{prefix}-{number:02}": {"text": f"{prefix}-{number}"} for number in range(count)}


def show(project: Project, *arguments: str) -> list[str]:
    result = project.run("inspect", "Book", "b-1", "--table", "log", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def pages(project: Project, *arguments: str) -> list[list[str]]:
    """Return the keys of all pages, each asked for behind the one before."""
    found: list[list[str]] = []
    after: list[str] = []
    while True:
        document = project.document("inspect", "Book", "b-1", "--table", "log", *arguments, *after)
        found.append([entry["key"] for entry in document["entries"]])
        if document["next"] is None:
            return found
        after = [f"--after={document['next']}"]


# --- pages -----------------------------------------------------------------------------------------------------------


def test_entries_are_shown_with_key_version_and_value(project: Project) -> None:
    fill(project, {"log": {"a": {"text": "x"}, "bcd": [1, None]}}, version="1.0.0")
    assert show(project) == [
        "Book 'b-1', table 'log'",
        "  key  version  value",
        '  a    1.0.0    {"text":"x"}',
        "  bcd  1.0.0    [1,null]",
    ]
    document = project.document("inspect", "Book", "b-1", "--table", "log")
    assert document == {
        "schema": 1,
        "type": "Book",
        "id": "b-1",
        "table": "log",
        "entries": [
            {"key": "a", "version": "1.0.0", "value": {"text": "x"}},
            {"key": "bcd", "version": "1.0.0", "value": [1, None]},
        ],
        "next": None,
    }


def test_the_first_twenty_are_shown_unless_a_limit_is_given(project: Project) -> None:
    fill(project, {"log": numbered(50)})
    assert [len(page) for page in pages(project)] == [20, 20, 10]
    assert [len(page) for page in pages(project, "--limit", "25")] == [25, 25]
    assert [len(page) for page in pages(project, "--limit", "1000")] == [50]


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_have_every_entry_of_the_prefix_once_in_order(project: Project, limit: int) -> None:
    fill(project, {"log": {**numbered(4, "a"), **numbered(7, "b"), **numbered(3, "c")}})
    for prefix, keys in {"": 14, "b": 7, "b-0": 7, "c-02": 1}.items():
        up = [key for page in pages(project, "--prefix", prefix, "--limit", str(limit)) for key in page]
        down = [key for page in pages(project, "--prefix", prefix, "--limit", str(limit), "--reverse") for key in page]
        assert up == sorted(up)
        assert down == up[::-1]
        assert len(up) == keys
        assert all(key.startswith(prefix) for key in up)


def test_after_a_key_that_is_not_there_or_outside_the_prefix_the_next_ones_follow(project: Project) -> None:
    fill(project, {"log": {**numbered(2, "a"), **numbered(2, "b")}})
    assert pages(project, "--after", "a-00x") == [["a-01", "b-00", "b-01"]]
    assert pages(project, "--prefix", "b", "--after", "a") == [["b-00", "b-01"]]
    assert pages(project, "--prefix", "a", "--after", "b") == [[]]
    assert pages(project, "--prefix", "a", "--after", "b", "--reverse") == [["a-01", "a-00"]]
    assert pages(project, "--prefix", "b", "--after", "a", "--reverse") == [[]]
    assert show(project, "--prefix", "nothing") == ["Book 'b-1', table 'log'", "  no entries there"]


def test_a_page_of_large_entries_is_read_in_pieces(project: Project) -> None:
    fill(project, {"log": {str(number): "x" * 400_000 for number in range(9)}})
    assert pages(project, "--limit", "8") == [list("01234567"), ["8"]]


@pytest.mark.parametrize("key", ANY_KEYS)
def test_the_command_for_the_next_page_is_one_a_shell_takes(project: Project, key: str) -> None:
    fill(project, {"log": {key: 1, f"{key}\x7f": 2, f"{key}\x7f\x7f": 3}}, book=key)
    result = project.run("inspect", "--table", "log", "--limit", "1", "--prefix", key, "--", "Book", key)
    assert all(char.isprintable() for char in result.stdout.replace("\n", ""))
    (command,) = [line for line in result.stdout.splitlines() if line.startswith("next page: ")]
    script = f'lazymig() {{ {sys.executable} -m lazymig.cli "$@"; }}; {command.removeprefix("next page: ")} --json'
    script = script if " -- " not in command else script.removesuffix(" --json")

    done = subprocess.run(["bash", "-euc", script], capture_output=True, encoding="utf-8", check=False)

    assert done.returncode == 0, done.stderr
    assert ('"value":2' in done.stdout) or done.stdout.splitlines()[2].endswith("  2")


def test_the_command_for_the_next_page_repeats_what_was_asked_for_and_a_store_without_its_password(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(project, {"log": numbered(3)})
    monkeypatch.delenv("LAZYMIG_STORE")
    lines = show(project, "--prefix", "k-", "--reverse", "--limit", "1", "--store", project.url)
    assert lines[-1] == (
        f"next page: lazymig inspect --table=log --after=k-02 --prefix=k- --reverse --limit=1 "
        f"--store={project.url} Book b-1"
    )
    assert show(project, "--limit", "3", "--store", project.url)[-1].endswith('{"text":"k-2"}')


# --- as stored -------------------------------------------------------------------------------------------------------


def test_entries_are_shown_as_stored_by_whatever_release(project: Project) -> None:
    fill(project, {"log": {"old": {"text": "x"}}}, version="1.0.0")
    before = project.document("inspect", "Book", "b-1")
    assert project.document("inspect", "Book", "b-1", "--table", "log")["entries"] == [
        {"key": "old", "version": "1.0.0", "value": {"text": "x"}}
    ]
    assert project.document("inspect", "Book", "b-1") == before
    assert before["tables"] == {"log": {"entries": 1, "versions": {"1.0.0": 1}}}


def test_values_and_keys_move_no_cursor(project: Project) -> None:
    fill(project, {"log": {"\x1b[2J\u202e": "\x1b]0;\x9b\u2028\x7f\r\n", "[b]": "[red]"}})
    lines = show(project)
    assert all(line.isprintable() for line in lines)
    assert lines[2].split() == ["\\x1b[2J\\u202e", "2.0.0", '"\\u001b]0;\\x9b\\u2028\\x7f\\r\\n"']
    assert lines[3].split() == ["[b]", "2.0.0", '"[red]"']


def test_lines_are_cut_to_the_width_of_a_terminal_in_its_cells() -> None:
    rows = [("key", "version", "value"), ("k", "1.0.0", "x" * 50), ("é💥", "1.0.0", "💥" * 50)]
    assert list(table_lines(rows, 24)) == [
        "  key  version  value",
        "  k    1.0.0    xxxxxxx…",
        "  é💥  1.0.0    💥💥💥 …",
    ]
    assert [len(line) for line in table_lines(rows, None)] == [21, 66, 65]


# --- what an actor has -----------------------------------------------------------------------------------------------


def test_inspect_has_a_line_for_each_table(project: Project) -> None:
    fill(project, {"log": numbered(3), "b\x1b": {"x": 1}}, version="1.0.0")
    fill(project, {"log": {"k-02": {"text": "y"}, "z": {"text": "z"}}}, version="2.0.0")
    document = project.document("inspect", "Book", "b-1")
    assert document["tables"] == {
        "b\x1b": {"entries": 1, "versions": {"1.0.0": 1}},
        "log": {"entries": 4, "versions": {"2.0.0": 4}},
    }
    assert document["converting"] is None
    lines = project.run("inspect", "Book", "b-1").stdout.splitlines()
    assert lines[7:9] == ["  table 'b\\x1b'  1 entry: 1 at 1.0.0", "  table 'log'  4 entries: 4 at 2.0.0"]
    assert not [line for line in lines if "converting" in line]


def test_inspect_of_an_actor_without_entries_has_no_table(project: Project) -> None:
    fill(project, {})
    assert project.document("inspect", "Book", "b-1")["tables"] == {}
    assert "table" not in project.run("inspect", "Book", "b-1").stdout


def test_inspect_tells_how_far_a_conversion_has_come(project: Project) -> None:
    fill(project, {"log": numbered(4, "b")}, version="1.0.0")
    with pytest.raises(MigrationFailedError, match="b-2"):
        asyncio.run(_fill(project, suite_of_books(is_broken=True), {}, "b-1"))
    document = project.document("inspect", "Book", "b-1")
    assert (document["info"]["version"], document["converting"]) == ("1.0.0", "2.0.0")
    assert document["tables"] == {"log": {"entries": 4, "versions": {"1.0.0": 2, "2.0.0": 2}}}
    lines = project.run("inspect", "Book", "b-1").stdout.splitlines()
    assert lines[12:14] == [
        "  converting to 2.0.0: 2 of 4 entries",
        "  table 'log'  4 entries: 2 at 1.0.0, 2 at 2.0.0",
    ]
    assert shape(project.document("inspect", "Book", "b-1", "--table", "log")["entries"]) == [
        {"key": "str", "version": "str", "value": {"text": "str", "length": "int"}}
    ]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--prefix", "a"], ["--after", "a"], ["--reverse"], ["--limit", "3"], ["--prefix", ""]]
)
def test_options_of_entries_without_a_table_are_refused(project: Project, arguments: list[str]) -> None:
    message = project.refused("inspect", "Book", "b-1", *arguments, status=2)
    assert message.startswith(f"{arguments[0]} without --table")


@pytest.mark.parametrize(
    "arguments",
    [["--limit", "0"], ["--limit", "1001"], ["--limit", "x"], ["--after", ""], ["--after", "x" * 1_001]],
)
def test_options_that_can_not_be_are_refused(project: Project, arguments: list[str]) -> None:
    fill(project, {"log": numbered(3)})
    project.refused("inspect", "Book", "b-1", "--table", "log", *arguments, status=2)


@pytest.mark.parametrize("table", ["", "x" * 201])
def test_what_can_be_no_table_is_refused(project: Project, table: str) -> None:
    fill(project, {"log": numbered(3)})
    assert "can't be a table's name" in project.refused("inspect", "Book", "b-1", "--table", table, status=2)


def test_an_unknown_table_answers_no_and_names_those_there_are(project: Project) -> None:
    fill(project, {"log": numbered(3), "index": {"a": 1}})
    message = project.refused("inspect", "Book", "b-1", "--table", "lgo", status=1)
    assert message == "Book 'b-1' has no table 'lgo'; it has 'index', 'log'. Did you mean 'log'?"
    fill(project, {}, book="b-2")
    message = project.refused("inspect", "Book", "b-2", "--table", "log", status=1)
    assert message == "Book 'b-2' has no table 'log'; it has none."


def test_a_table_of_an_unknown_actor_answers_no(project: Project) -> None:
    fill(project, {"log": numbered(3)})
    assert "Book 'b-9' is not stored" in project.refused("inspect", "Book", "b-9", "--table", "log", status=1)
    assert "actor type 'Bok'" in project.refused("inspect", "Bok", "b-1", "--table", "log", status=2)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE entry SET value = X'7B' WHERE key = 'k-01'", "it is no JSON"),
        ("UPDATE entry SET value = 17 WHERE key = 'k-01'", "is stored as int"),
        ("UPDATE entry SET lineage = 77 WHERE key = 'k-01'", "unknown lineage 77"),
    ],
)
def test_an_entry_that_can_not_be_read_is_named_and_can_be_passed_over(
    project: Project, statement: str, said: str
) -> None:
    fill(project, {"log": numbered(3)})
    project.damage(statement)
    message = project.refused("inspect", "Book", "b-1", "--table", "log", status=1)
    assert "'k-01'" in message
    assert said in message
    document = project.document("inspect", "Book", "b-1", "--table", "log", status=1)
    assert document["error"]["code"] == "corrupt_state"
    assert pages(project, "--after", "k-01") == [["k-02"]]


def test_entries_are_shown_of_an_actor_whose_states_can_not_be_read(project: Project) -> None:
    fill(project, {"log": numbered(1)})
    project.damage("UPDATE state SET value = X'FF' WHERE id = 'b-1'")
    assert pages(project) == [["k-00"]]


@pytest.mark.parametrize("text", [*ANY_KEYS, "", "plain"])
def test_a_word_comes_back_from_a_shell_as_it_was(text: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {shell_word(text)}"], capture_output=True, check=True)
    assert done.stdout.decode() == text


def test_help_names_the_options(project: Project) -> None:
    result = project.run("inspect", "--help")
    for option in ("--table NAME", "--prefix TEXT", "--after KEY", "--reverse", "--limit N"):
        assert option in result.stdout


def test_an_export_says_whose_entries_it_leaves_out(project: Project) -> None:
    fill(project, {"log": numbered(2)})
    fill(project, {}, book="b-2")
    project.configure("[tool.lazymig]\n")
    result = project.run("export", "Book")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)
    assert "The entries of 1 actors were not exported" in result.stderr
    assert project.document("export", "Book")["with_entries"] == 1
