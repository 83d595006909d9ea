"""A user's project in a folder of its own, and the command line run in it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import orjson
from click.testing import CliRunner

from lazymig import Node, open_store
from lazymig.cli import main
from suites import vehicles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest
    from click.testing import Result

PYPROJECT = '[tool.lazymig]\nsuites = ["suites.vehicles:suite"]\n'


class Project:
    """A folder with pyproject.toml, and a store that is named by LAZYMIG_STORE and not made yet."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.database = folder / "fleet.db"
        self.url = f"sqlite:///{self.database}"
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LAZYMIG_STORE", self.url)
        monkeypatch.setattr(sys, "path", sys.path.copy())
        self.configure(PYPROJECT)

    def configure(self, text: str) -> Path:
        """Write pyproject.toml."""
        return self.write("pyproject.toml", text)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file."""
        file = self.folder / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def run(self, *arguments: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(main, arguments)

    def document(self, *arguments: str, status: int = 0) -> Any:
        """Run a command with --json, and return the one document on stdout."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    def refused(self, *arguments: str, status: int) -> str:
        """Run a command that fails, and return its one line; the same error must come as a document."""
        result = self.run(*arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr
        line = result.stderr.strip().removeprefix("lazymig: ")
        error = self.document(*arguments, status=status)
        assert error["error"]["message"] == line
        assert sorted(error) == ["error", "schema"]
        return line

    def store(self, values: Mapping[str, Any]) -> None:
        """Store vehicles without migration-info."""
        asyncio.run(self._store(values))

    async def _store(self, values: Mapping[str, Any]) -> None:
        rows = [(actor_id, orjson.dumps(value)) for actor_id, value in values.items()]
        async with open_store(self.url) as store:
            await store.insert("Vehicle", "vehicle", rows)

    def migrate(self, *actor_ids: str) -> None:
        """Bring vehicles up to the suite's version."""
        asyncio.run(self._migrate(actor_ids))

    async def _migrate(self, actor_ids: tuple[str, ...]) -> None:
        async with open_store(self.url) as store, Node(store, [vehicles.suite]) as node:
            for actor_id in actor_ids:
                await node.actor(vehicles.vehicle, actor_id).velocity()

    def damage(self, statement: str, *parameters: object) -> None:
        """Change the database behind lazymig's back."""
        damage(self.database, statement, *parameters)

    def damage_schema(self, statement: str) -> None:
        """Change the database's tables behind lazymig's back."""
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute(statement)


def damage(database: Path, statement: str, *parameters: object) -> None:
    """Change a database behind lazymig's back."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        assert connection.execute(statement, parameters).rowcount == 1


def shape(value: Any) -> Any:
    """Return a document with its values replaced by the names of their types; of an array, the first one's shape."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__
