from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import open_store
from tests.cli_project import Project
from tests.quarantines import Yard, mended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SHOWN = {
    "type": "Ship",
    "id": "a",
    "version": "2.0.0",
    "name": "hoist",
    "error": "ValueError: no mast",
    "attempts": 1,
    "failed_at": "2026-05-04T03:02:01.123456+00:00",
    "retry_at": "2026-05-04T03:02:02.123456+00:00",
    "node": "web-1",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def in_yard(project: Project, work: Callable[[Yard], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with open_store(project.url) as store:
            return await work(Yard(store))

    return asyncio.run(run())


async def quarantine(yard: Yard) -> None:
    await yard.insert()
    await yard.timed.insert("Ship", "state", [("whole", b"{}")])
    await yard.outcome()


def lines(project: Project, *arguments: str, status: int = 0) -> list[str]:
    """Run a command, and return its lines with single spaces."""
    result = project.run(*arguments)
    assert result.exit_code == status, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_list_names_what_failed_and_exits_with_1_if_there_is_any(project: Project) -> None:
    in_yard(project, quarantine)
    for arguments in (["quarantine", "list"], ["quarantine", "list", "Ship"]):
        document = project.document(*arguments, status=1)
        assert document["quarantined"] == [SHOWN]
        assert lines(project, *arguments, status=1)[1] == (
            "Ship a 2.0.0 (hoist) 1 2026-05-04 03:02:01+00:00 2026-05-04 03:02:02+00:00 ValueError: no mast"
        )
    assert project.document("quarantine", "list", "Vehicle")["quarantined"] == []
    assert "Ship" in project.refused("quarantine", "list", "Shop", status=1)

    in_yard(project, lambda yard: yard.call(yard.suite(mended)))
    assert project.document("quarantine", "list")["quarantined"] == []
    assert lines(project, "quarantine", "list", "Ship") == ["no quarantined actors"]


def test_show_tells_all_that_is_recorded_of_an_actor(project: Project) -> None:
    in_yard(project, quarantine)
    document = project.document("quarantine", "show", "Ship", "a")
    assert {name: document[name] for name in SHOWN} == SHOWN
    assert lines(project, "quarantine", "show", "Ship", "a") == [
        "Ship 'a'",
        "migration 2.0.0 (hoist)",
        "error ValueError: no mast",
        "attempts 1",
        "failed at 2026-05-04 03:02:01+00:00 on node web-1",
        "next try 2026-05-04 03:02:02+00:00",
    ]
    assert "is not quarantined" in project.refused("quarantine", "show", "Ship", "whole", status=1)
    assert "is not stored" in project.refused("quarantine", "show", "Ship", "none", status=1)


def test_inspect_shows_the_record_beside_all_else(project: Project) -> None:
    in_yard(project, quarantine)
    assert project.document("inspect", "Ship", "a")["quarantine"] == SHOWN
    assert "error ValueError: no mast" in lines(project, "inspect", "Ship", "a")
    assert project.document("inspect", "Ship", "whole")["quarantine"] is None


def test_retry_lets_one_actor_or_all_of_a_type_be_tried_at_once(project: Project) -> None:
    in_yard(project, quarantine)
    assert lines(project, "quarantine", "retry", "Ship", "a") == [
        "1 actor of Ship will be tried again at the next activation"
    ]
    assert project.document("quarantine", "show", "Ship", "a")["retry_at"] == SHOWN["failed_at"]
    document = project.document("quarantine", "retry", "Ship")
    assert (document["type"], document["id"], document["actors"]) == ("Ship", None, 1)
    assert in_yard(project, Yard.outcome) == "MigrationFailedError"
    assert in_yard(project, Yard.outcome) == "QuarantinedError"
    assert project.document("quarantine", "show", "Ship", "a")["attempts"] == 2

    assert "is not quarantined" in project.refused("quarantine", "retry", "Ship", "whole", status=1)
    assert "is not stored" in project.refused("quarantine", "retry", "Ship", "none", status=1)
    assert "Did you mean 'Ship'" in project.refused("quarantine", "retry", "Shop", status=1)
    assert lines(project, "quarantine", "retry", "Vehicle") == [
        "0 actors of Vehicle will be tried again at the next activation"
    ]


def test_census_and_status_count_quarantined_actors_where_there_are_any(project: Project) -> None:
    in_yard(project, quarantine)
    (counted,) = project.document("census", "Ship")["types"]
    assert (counted["actors"], counted["quarantined"]) == (2, 1)
    assert "quarantined 1" in lines(project, "census", "Ship")
    assert "quarantined 1" in lines(project, "rollout", "status", "Ship")
    in_yard(project, lambda yard: yard.call(yard.suite(mended)))
    assert not any("quarantined" in line for line in lines(project, "rollout", "status", "Ship"))
