"""PgBouncer in transaction mode before the tests' server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
server_login_retry = 0.1
logfile = {folder}/log
"""
"""Few connections to the server, so that transactions of one client get different ones.

After one failed login PgBouncer refuses everybody for `server_login_retry`: by default for 15 seconds, which is longer
than a lease."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pgbouncer() -> Iterator[str]:
    """Yield the URL of a server's database through a pooler."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer here: apt-get install pgbouncer")
    server = postgres.server_to_break()
    given = conninfo_to_dict(server.url)
    with tempfile.TemporaryDirectory(prefix="lm-pb-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        port = _free_port()
        (folder / "ini").write_text(
            CONFIGURATION.format(host=given["host"], port=5432, user="postgres", listen=port, folder=folder)
        )
        user = server.user if os.geteuid() == 0 else None
        process = subprocess.Popen([program, "-q", str(folder / "ini")], user=user, stderr=subprocess.DEVNULL)
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        try:
            _wait_for(url)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
