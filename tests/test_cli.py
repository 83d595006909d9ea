from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from lazymig.cli._output import code_of, describe
from lazymig.errors import StoreUnavailableError
from suites import vehicles
from tests.cli_project import PYPROJECT, Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


# --- the tool --------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_with_its_summary(project: Project) -> None:
    result = project.run("--help")
    assert result.exit_code == 0
    for name in ("census", "config", "export", "gate", "import", "inspect", "migrations", "nodes", "rollout"):
        assert f"\n  {name} " in result.stdout
        assert project.run(name, "--help").exit_code == 0


def test_the_version_is_the_package_s(project: Project) -> None:
    assert project.run("--version").stdout.startswith("lazymig, version ")


def test_without_a_command_the_help_is_shown_as_an_error(project: Project) -> None:
    result = project.run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspct", "Vehicle", "1"], "there is no command 'inspct'. Did you mean 'inspect'? See 'lazymig --help'."),
        (["frobnicate"], "there is no command 'frobnicate'. See 'lazymig --help'."),
        (["inspect", "Vehicle"], "Missing argument 'ID'. See 'lazymig inspect --help'."),
        (["inspect", "a", "b", "c"], "Got unexpected extra argument (c) See 'lazymig inspect --help'."),
        (["import", "Vehicle", "x"], "Missing option '--id-field'. See 'lazymig import --help'."),
    ],
)
def test_a_wrong_command_line_is_one_line_with_its_cure(project: Project, arguments: list[str], message: str) -> None:
    assert project.refused(*arguments, status=2) == message


def test_a_wrong_option_is_suggested(project: Project) -> None:
    assert "--store" in project.refused("config", "--stor3", status=2)


def test_debug_adds_the_traceback(project: Project) -> None:
    result = project.run("inspect", "Vehicle", "car-1", "--debug")
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("lazymig: ")
    assert result.exit_code == 2


def test_a_flag_after_two_dashes_is_an_argument(project: Project) -> None:
    project.store({"--json": 1})
    assert project.run("inspect", "--", "Vehicle", "--json").stdout.startswith("Vehicle '--json'\n")


def test_an_unforeseen_error_asks_for_a_report() -> None:
    code, message, status = describe(RuntimeError("two\nlines"))
    assert (code, status) == ("internal", 2)
    assert message == "RuntimeError: two lines. This is a fault of lazymig: report it with --debug's output."


def test_an_error_s_code_is_its_class() -> None:
    assert code_of(StoreUnavailableError("x")) == "store_unavailable"


# --- configuration ---------------------------------------------------------------------------------------------------


def test_config_names_each_value_and_its_source(project: Project) -> None:
    assert project.document("config") == {
        "schema": 1,
        "file": str(project.folder / "pyproject.toml"),
        "store": {"value": project.url, "source": "LAZYMIG_STORE"},
        "suites": {"value": ["suites.vehicles:suite"], "source": str(project.folder / "pyproject.toml")},
    }
    assert project.run("config").stdout.splitlines() == [
        f"file    {project.folder}/pyproject.toml",
        f"store   {project.url}  (from LAZYMIG_STORE)",
        f"suites  suites.vehicles:suite  (from {project.folder}/pyproject.toml)",
    ]


def test_a_flag_comes_before_the_environment_and_that_before_the_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure(PYPROJECT + 'store = "sqlite:////in/file.db"\n')
    store = project.document("config", "--store", "sqlite:////in/flag.db")["store"]
    assert store == {"value": "sqlite:////in/flag.db", "source": "--store"}
    before_the_command = project.run("--json", "--store", "sqlite:////in/flag.db", "config")
    assert json.loads(before_the_command.stdout)["store"] == store
    assert project.document("config")["store"]["source"] == "LAZYMIG_STORE"
    monkeypatch.setenv("LAZYMIG_STORE", "")
    store = project.document("config")["store"]
    assert store == {"value": "sqlite:////in/file.db", "source": str(project.folder / "pyproject.toml")}


def test_config_says_what_is_not_set(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAZYMIG_STORE")
    project.configure("[tool.lazymig]\n")
    document = project.document("config")
    assert document["store"] == {"value": None, "source": None}
    assert document["suites"] == {"value": [], "source": None}
    assert "store   not set (give --store URL, or set LAZYMIG_STORE)" in project.run("config").stdout


def test_config_hides_passrows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYMIG_STORE", "postgresql://ada:hunter2@db/fleet?sslpassword=hunter2")
    for arguments in (["config"], ["config", "--json"], ["inspect", "Vehicle", "1"], ["migrations", "--json"]):
        result = project.run(*arguments)
        assert "hunter2" not in result.output
        assert "postgresql://ada:***@db/fleet" in result.output


def test_the_nearest_pyproject_upwards_that_speaks_of_lazymig_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = project.folder / "packages" / "inner"
    inner.mkdir(parents=True)
    project.write("packages/pyproject.toml", "[project]\nname = 'inner'\n")
    monkeypatch.chdir(inner)
    assert project.document("config")["file"] == str(project.folder / "pyproject.toml")


def test_a_relative_store_in_the_file_is_beside_the_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project.folder / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    monkeypatch.delenv("LAZYMIG_STORE")
    project.store({"car-1": 1})
    project.configure(PYPROJECT + 'store = "sqlite:///fleet.db"\n')
    assert project.document("inspect", "Vehicle", "car-1")["states"] == {"vehicle": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.lazymig]\nsuite = []", "[tool.lazymig] has no setting 'suite'. Did you mean 'suites'?"),
        ("[tool.lazymig]\nfrob = 1", "has no setting 'frob'. Remove it; there are store and suites."),
        ("[tool]\nlazymig = 1", "lazymig under [tool] is no table. Write [tool.lazymig]."),
        ("[tool.lazymig", "pyproject.toml can't be read: "),
        ('[tool.lazymig]\nsuites = "a:b"', 'suites is no list of strings. Write suites = ["package.module:suite"].'),
        ("[tool.lazymig]\nsuites = [1]", "suites is no list of strings."),
        ('[tool.lazymig]\nsuites = ["a.b"]', "'a.b' names no suite. Write it as \"package.module:suite\"."),
        ("[tool.lazymig]\nstore = 1", "store is of type int. Write a URL in quotes."),
        (
            '[tool.lazymig]\nstore = "postgresql://ada:hunter2@db/x"',
            "store holds a password, which would be published with the source. Take it out, and set LAZYMIG_STORE",
        ),
        ('[tool.lazymig]\nstore = "postgresql://db/x?password=hunter2"', "store holds a password"),
    ],
)
def test_a_wrong_setting_is_one_line_with_file_and_cure(project: Project, text: str, message: str) -> None:
    file = project.configure(text)
    refusal = project.refused("config", status=2)
    assert message in refusal
    assert str(file) in refusal
    assert "hunter2" not in refusal


def test_config_opens_and_imports_nothing(project: Project) -> None:
    project.configure('[tool.lazymig]\nsuites = ["no.such:suite"]\n')
    assert project.run("config").exit_code == 0
    assert not project.database.exists()


# --- stores and suites -----------------------------------------------------------------------------------------------

READING = [["inspect", "Vehicle", "car-1"], ["export", "Vehicle"], ["export", "Vehicle", "out.jsonl"], ["migrations"]]
READING += [["nodes"], ["nodes", "drain", "web-1"], ["nodes", "forget", "web-1"]]
WRITING = ["import", "Vehicle", "in.jsonl", "--id-field", "id"]


@pytest.mark.parametrize("arguments", READING)
def test_reading_never_makes_a_database(project: Project, arguments: list[str]) -> None:
    message = project.refused(*arguments, status=2)
    assert message == f"{project.url} does not exist. Check the path; 'lazymig import' or a Node makes it."
    assert [file.name for file in project.folder.iterdir()] == ["pyproject.toml"]


@pytest.mark.parametrize("arguments", [*READING[:3], WRITING])
def test_without_a_store_the_flag_and_the_variable_are_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    project.write("in.jsonl", "")
    monkeypatch.delenv("LAZYMIG_STORE")
    message = project.refused(*arguments, status=2)
    assert message == "no store is configured. Give --store URL, or set LAZYMIG_STORE."


@pytest.mark.parametrize("arguments", [*READING, WRITING])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://db/x", "'mysql' is no kind of store. Use memory:, sqlite:///relative.db or sqlite:////absolute.db"),
        ("sqlite://fleet.db", "a file comes after three slashes, an absolute path after four"),
        ("sqlite:///nowhere/fleet.db", "the folder nowhere does not exist. Make it first."),
        ("sqlite:////", "it names no file"),
        ("memory:", "memory: ends with the command. Give --store sqlite:///"),
    ],
)
def test_a_wrong_store_is_one_line_with_its_cure(
    project: Project, arguments: list[str], url: str, message: str
) -> None:
    project.write("in.jsonl", "")
    assert message in project.refused(*arguments, "--store", url, status=2)


@pytest.mark.parametrize("arguments", [*READING, WRITING])
def test_a_file_that_is_no_store_is_no_wrong_usage(project: Project, arguments: list[str]) -> None:
    project.write("in.jsonl", "")
    message = project.refused(*arguments, "--store", "sqlite:///pyproject.toml", status=1)
    assert "is no SQLite database" in message


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("no_such_module:suite", "can't be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        ("broken_suite:suite", "can't be imported (ZeroDivisionError: division by zero)"),
        ("leaving_suite:suite", "can't be imported (SystemExit: bye)"),
        ("suites.vehicles:suit", "does not exist: module 'suites.vehicles' has no 'suit'"),
        ("suites.vehicles:vehicle", "is of type ActorType, not a lazymig.Suite"),
        ("suites.vehicles:suite", "has the actor type 'Vehicle', as another suite has"),
    ],
)
def test_a_suite_that_cannot_be_used_is_one_line_with_its_cure(project: Project, suite: str, message: str) -> None:
    project.write("broken_suite.py", "1 / 0\n")
    project.write("leaving_suite.py", "raise SystemExit('bye')\n")
    file = project.configure(f'[tool.lazymig]\nsuites = ["suites.vehicles:suite", "{suite}"]\n')
    refusal = project.refused("migrations", status=2)
    assert refusal == f"the suite {suite!r} of {file} {message}. Put it right; --debug shows more."


def test_debug_shows_where_the_suite_failed(project: Project) -> None:
    project.write("another_broken_suite.py", "1 / 0\n")
    project.configure('[tool.lazymig]\nsuites = ["another_broken_suite:suite"]\n')
    result = project.run("migrations", "--debug")
    assert 'another_broken_suite.py", line 1' in result.stderr


def test_a_suite_beside_pyproject_is_found_from_a_folder_below(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("talking_suite.py", "from lazymig import Suite\nprint('hello')\nmine = Suite('mine')\n")
    project.configure('[tool.lazymig]\nsuites = ["talking_suite:mine"]\n')
    inner = project.folder / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    monkeypatch.delenv("LAZYMIG_STORE")
    monkeypatch.delitem(sys.modules, "talking_suite", raising=False)
    result = project.run("migrations", "--json")
    assert result.stdout == '{"schema":1,"store":null,"types":[]}\n'
    assert "hello" in result.stderr


def test_a_tool_that_uses_a_suite_freezes_it(project: Project) -> None:
    project.store({"car-1": 1})
    project.run("migrations")
    assert vehicles.vehicle.chain.is_frozen


@pytest.mark.parametrize("arguments", [["inspect", "Vehicel", "car-1"], ["export", "Vehicel"]])
def test_an_unknown_type_is_refused_with_a_suggestion(project: Project, arguments: list[str]) -> None:
    project.configure("[tool.lazymig]\n")
    project.store({"car-1": 1})
    assert project.refused(*arguments, status=2) == (
        "neither a suite nor the store has an actor type 'Vehicel'; known: Vehicle. Did you mean 'Vehicle'?"
    )


def test_an_unknown_type_is_refused_with_a_cure(project: Project) -> None:
    project.configure("[tool.lazymig]\n")
    project.store({})
    assert project.refused("export", "Vehicle", status=2) == (
        "neither a suite nor the store has an actor type 'Vehicle'; known: none. "
        "Correct the name, or add its suite to [tool.lazymig] in pyproject.toml."
    )
