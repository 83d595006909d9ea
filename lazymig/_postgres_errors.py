"""What the errors of PostgreSQL and of its driver mean to a user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from lazymig.errors import (
    StoreError,
    StoreLayoutError,
    StoreMissingError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSES: Mapping[str, tuple[type[StoreError], str]] = {
    "0A000": (StoreReadOnlyError, "A standby has no heartbeats, which are not logged: ask the primary server."),
    "25006": (StoreReadOnlyError, "Connect to the primary server (target_session_attrs=read-write)."),
    "28": (StoreError, "Check user, password and the server's pg_hba.conf."),
    "3D000": (StoreMissingError, "Make the database (CREATE DATABASE), or check its name in the URL."),
    "3F000": (StoreLayoutError, "Its schema is gone: open the store anew, which lays it out again."),
    "42723": (StoreLayoutError, "Another program has functions of these names there: choose a schema by ?schema=…."),
    "42883": (StoreLayoutError, "Its functions are not as they were laid out: put a backup in their place."),
    "42P01": (StoreLayoutError, "One of its tables is gone: put a backup in its place."),
    "42703": (StoreLayoutError, "Its tables are not as they were laid out: put a backup in their place."),
    "54": (StoreError, "Something is too large for PostgreSQL: split the state."),
    "57014": (StoreUnavailableError, "Try again; if it is always too slow, raise the role's statement_timeout."),
    "53300": (StoreUnavailableError, "Too many connections: lower ?pool=, or put PgBouncer in between; try again."),
    "53": (StoreUnavailableError, "Check the server's disk and memory, and try again."),
    "40": (StoreUnavailableError, "Others were in the way; try again."),
    "55P03": (StoreUnavailableError, "Others were in the way; try again."),
    "57P04": (StoreMissingError, "The database was dropped: put a backup in its place."),
    "57": (StoreUnavailableError, "The server is stopping or starting; try again."),
    "58": (StoreUnavailableError, "Look at the server's log, and try again."),
    "08": (StoreUnavailableError, "Check host and port, and try again."),
}
"""SQLSTATE, or its class, to the error and the cure; the longest match counts."""

_WITHOUT_STATE = {
    "password authentication failed": "28",
    "no password supplied": "28",
    "no pg_hba.conf entry": "28",
    "role ": "28",
    "database ": "3D000",
}
"""What libpq says of a refused connection, whose SQLSTATE it keeps to itself."""


IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
"""Others had what was asked for: the transaction was rolled back."""


def in_use(error: StoreError, name: str, schema: str, seconds: float) -> StoreError:
    """Return what it means that the table of policies could not be locked for so long; other errors as they are."""
    table = f"{schema}.policy"
    if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
        return error
    said = " ".join(str(error.__cause__).split())
    told = StoreUnavailableError(
        f"{name}: others used the table {table} for {seconds:g} s ({said}), so nothing was changed. A dump reads it "
        f"until its end, for example: wait and try again (pg_stat_activity shows who it is), or leave the table out "
        f"(pg_dump --exclude-table={table}) and dump it by itself, which is brief."
    )
    told.is_unchanged = True
    return told


def translate(error: psycopg.Error, name: str, schema: str, stored: str) -> StoreError:
    """Return what a driver's error means to a user.

    Args:
        error: The driver's.
        name: The store's.
        schema: Of its tables.
        stored: What is known of what was to be stored, "" if nothing was.
    """
    state = error.sqlstate or _guess_state(str(error))
    said = " ".join(str(error).split())
    if state == "42501":
        return StoreError(
            f"{name} does not allow this ({said}). {stored}As its owner: GRANT USAGE ON SCHEMA {schema} TO …; "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO …; "
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO …; and to lay it out: "
            f"GRANT CREATE ON DATABASE … TO …. (To read only, USAGE and SELECT are enough.)"
        )
    for length in (5, 2):
        if found := _CLASSES.get(state[:length]):
            kind, cure = found
            told = kind(f"{name} refused ({said}). {stored}{cure}")
            told.is_unchanged = isinstance(error, IN_THE_WAY)
            return told
    if not state and isinstance(error, psycopg.OperationalError):
        return StoreUnavailableError(f"{name} can't be reached ({said}). {stored}Check host and port, and try again.")
    if isinstance(error, psycopg.DataError):
        return StoreError(f"{name} can't keep this value ({said}). {stored}Change it.")
    return StoreError(f"{name} failed ({state}: {said}). {stored}This is a fault of lazymig or of the layout.")


def _guess_state(said: str) -> str:
    _, is_fatal, reason = said.partition("FATAL: ")
    if not is_fatal:
        return "28" if "no password supplied" in said else ""
    return next((state for start, state in _WITHOUT_STATE.items() if reason.strip().startswith(start)), "")
