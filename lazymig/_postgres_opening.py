"""Opening a schema of PostgreSQL: what is looked at and laid out before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from lazymig import _postgres_sql as sql
from lazymig._postgres_functions import FUNCTIONS
from lazymig._postgres_sweeping_sql import FUNCTIONS as SWEEP_FUNCTIONS
from lazymig.errors import StoreError, StoreLayoutError, StoreMissingError, StoreReadOnlyError

if TYPE_CHECKING:
    from lazymig.postgres import Place

OLDEST_SERVER = 14
"""The oldest release of PostgreSQL that is used; the statements need 13."""

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def check_server(connection: _Connection, place: Place, *, read_only: bool) -> None:
    """Refuse a server that can't be used.

    Raises:
        StoreReadOnlyError: It only reads, and is not only to.
        StoreError: It is too old, or set up in another way than is needed.
    """
    found = await (await connection.execute(sql.SERVER)).fetchone()
    assert found is not None  # noqa: S101  (a SELECT without FROM)
    version, encoding, isolation, is_read_only = found
    if version < OLDEST_SERVER * 10_000:
        raise StoreError(
            f"{place.name} is PostgreSQL {version // 10_000}. Upgrade the server to {OLDEST_SERVER} or later."
        )
    if encoding != "UTF8":
        raise StoreError(f"{place.name} is encoded in {encoding}. Make the database with ENCODING 'UTF8'.")
    if isolation != "read committed":
        raise StoreError(
            f"{place.name} isolates transactions by {isolation!r}: every conflict would fail instead of waiting. "
            f"ALTER ROLE … SET default_transaction_isolation = 'read committed'."
        )
    if is_read_only and not read_only:
        raise StoreReadOnlyError(
            f"{place.name} can't be written: it is a standby, or read-only by setting. Connect to the primary server "
            f"(target_session_attrs=read-write)."
        )


async def lay_out(connection: _Connection, place: Place, *, create: bool = True) -> None:
    """Bring the schema to this release's layout in one transaction, or refuse it untouched.

    Raises:
        StoreLayoutError: It holds other tables of these names, or is of a newer layout or of other partitions.
        StoreMissingError: It is not laid out, and was not to be.
    """
    version = await _layout_of(connection, place)
    if version == len(sql.LAYOUTS):
        return
    if not version and not create:
        raise _missing(place)
    async with connection.transaction():
        await connection.execute(sql.LOCK_LAYOUT, {"schema": place.schema})
        version = await _layout_of(connection, place)
        if not version:
            await _add_schema(connection, place)
        partitions = place.partitions or 1
        for number in range(version, len(sql.LAYOUTS)):
            for statement in sql.script(number, place.schema, partitions):
                await connection.execute(statement)
        for function in (*FUNCTIONS, *SWEEP_FUNCTIONS) if version < len(sql.LAYOUTS) else ():
            await connection.execute(sql.in_schema(function, place.schema))
        set_layout = sql.in_schema(sql.SET_LAYOUT if version else sql.ADD_LAYOUT, place.schema)
        await connection.execute(set_layout, {"version": len(sql.LAYOUTS), "partitions": partitions})


async def check_readable(connection: _Connection, place: Place) -> None:
    """Refuse what is no store of this release; the right to read is enough.

    Raises:
        StoreLayoutError: It holds other tables of these names, or is of another layout or of other partitions.
        StoreMissingError: It is not laid out.
    """
    version = await _layout_of(connection, place, writes=False)
    if not version:
        raise _missing(place)
    if version < len(sql.LAYOUTS):
        raise StoreLayoutError(
            f"{place.name} has layout {version}, this release reads {len(sql.LAYOUTS)}; it was not touched. Open it "
            f"once to be written, as a Node does: that brings it to this layout."
        )


def _missing(place: Place) -> StoreMissingError:
    return StoreMissingError(
        f"{place.name} holds no store in schema {place.schema}. Check the URL; 'lazymig import' or a Node makes it."
    )


async def _add_schema(connection: _Connection, place: Place) -> None:
    """Make the schema if an administrator didn't: IF NOT EXISTS would ask for the right to even if it is there."""
    found = await (await connection.execute(sql.HAS_SCHEMA, {"schema": place.schema})).fetchone()
    if found != (True,):
        await connection.execute(sql.ADD_SCHEMA.format(schema=place.schema))


async def _layout_of(connection: _Connection, place: Place, *, writes: bool = True) -> int:
    """Return the layout's version, 0 for none; refuse what can't be used."""
    wanted = {"schema": place.schema, "tables": list(sql.TABLES), "writes": writes}
    found: dict[str, bool] = dict(await (await connection.execute(sql.LAID_OUT, wanted)).fetchall())
    if not found:
        return 0
    row = None
    if found.get("layout"):
        row = await (await connection.execute(sql.in_schema(sql.LAYOUT, place.schema))).fetchone()
    elif "layout" in found:
        raise psycopg.errors.InsufficientPrivilege("permission denied for table layout")
    if row is None:
        raise StoreLayoutError(
            f"{place.name} holds tables of another program in schema {place.schema} ({', '.join(sorted(found))}). "
            f"Give lazymig a schema of its own: ?schema=…."
        )
    version, partitions = row
    return _check_layout(place, version, partitions, [name for name, may in found.items() if not may])


def _check_layout(place: Place, version: int, partitions: int, denied: list[str]) -> int:
    if version > len(sql.LAYOUTS):
        raise StoreLayoutError(
            f"{place.name} has layout {version}, this release reads up to {len(sql.LAYOUTS)}; it was not touched. "
            f"Use the release of lazymig that wrote it, or a newer one."
        )
    if place.partitions not in {None, partitions}:
        raise StoreLayoutError(
            f"{place.name} was laid out with {partitions} partitions, which can't be changed to {place.partitions}. "
            f"Leave ?partitions= away, or copy the actors into another schema by 'lazymig export' and 'import'."
        )
    if denied:
        raise psycopg.errors.InsufficientPrivilege(f"permission denied for table {', '.join(sorted(denied))}")
    return version
