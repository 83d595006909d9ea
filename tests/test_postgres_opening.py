"""Opening a PostgreSQL store: URLs, credentials, rights, layouts, many at once."""

from __future__ import annotations

import asyncio
import pickle
import re
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors as driver_errors

from lazymig import open_store
from lazymig._entries import END
from lazymig._postgres_dealing import dialect
from lazymig._postgres_errors import translate
from lazymig._postgres_failure_sql import failure_dialect
from lazymig._postgres_functions import FUNCTIONS
from lazymig._postgres_ruling_sql import ruling_dialect
from lazymig._postgres_sql import LAYOUTS, LOCK_POLICIES, LOCK_SOON, STATEMENTS, in_schema
from lazymig._records import ActorKey, Fence, NodeRecord
from lazymig.errors import (
    InvalidStoreUrlError,
    StoreError,
    StoreLayoutError,
    StoreMissingError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from lazymig.postgres import Place
from lazymig.stores import _read_postgres_url
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema_url() as url:
        yield url


def tables(schema: str) -> list[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p') ORDER BY 1"
    with postgres.connect() as beside:
        return [name for (name,) in beside.execute(query, (schema,))]


async def opens(url: str, **options: Any) -> None:
    async with open_store(url, **options) as store:
        await store.types()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://h/d?schema=Upper", "the schema 'Upper'"),
        ('postgresql://h/d?schema="', "the schema"),
        ("postgresql://h/d?schema=", "the schema ''"),
        ("postgresql://h/d?schema=pg_mine", "pg_"),
        (f"postgresql://h/d?schema={'x' * 64}", "63"),
        ("postgresql://h/d?partitions=0", "partitions is a number from 1 to 1024"),
        ("postgresql://h/d?partitions=1025", "partitions is a number from 1 to 1024"),
        ("postgresql://h/d?pool=x", "pool is a number from 1 to 1000, not 'x'"),
        ("postgresql://h/d?pool=²", "pool is a number"),
        ("postgresql://h/d?colour=red", "colour"),
        ("postgresql://h/d?Schema=mine", "unknown option 'Schema'"),
        ("postgresql://h/d?schema=a&schema=b", "schema is given twice"),
        (f"postgresql://h/d?pool={'9' * 5_000}", "pool is a number"),
        ("postgresql://127.0.0.1:1/d?sslmode=bogus", "invalid sslmode value"),
        ("postgresql://127.0.0.1:1/d?target_session_attrs=x", "invalid target_session_attrs value"),
        ("postgresql://127.0.0.1:1/d?connect_timeout=soon", "bad value for connect_timeout"),
        ("postgresql://127.0.0.1:99999/d", "invalid port number"),
        ("postgresql://127.0.0.1:1/d?service=nope", "definition of service"),
        ("postgresql://127.0.0.1:1/d?keepalives_idle=x", "invalid integer value"),
        ("postgresql:d", "two slashes"),
    ],
)
async def test_a_wrong_url_is_refused_by_its_reason(url: str, reason: str) -> None:
    with pytest.raises(InvalidStoreUrlError, match=reason):
        await opens(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@127.0.0.1:1/d",
        "postgresql://u@127.0.0.1:1/d?password=secret&connect_timeout=2",
        "postgres://u:sec@ret@127.0.0.1:1/d",
        "postgresql://u:secret@127.0.0.1:1/d?schema=Wrong",
        "postgresql://u:secret%zz@127.0.0.1:1/d",
        "postgresql://u:sec/ret@127.0.0.1:1/d",
        "postgresql://u:sec?ret@127.0.0.1:1/d",
        "postgresql://u:sec:ret@127.0.0.1:1/d",
        "postgresql://u@127.0.0.1:1/d?pass%77ord=secret",
        "postgresql://u@127.0.0.1:1/d?sslPassword=secret",
    ],
)
async def test_no_error_tells_the_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        await opens(url)

    assert "***" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not {"ret@", "sec", "ret"} & set(re.split(r"[^\w@]+", str(caught.value)))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_all_but_our_options_are_libpqs_as_they_are_written() -> None:
    place = _read_postgres_url(
        "postgresql://u:p%20w@h1:1,h2:2/d?sslmode=require&schema=mine&application_name=a%20b+c&pool=7&partitions=8"
    )

    assert (place.schema, place.pool, place.partitions) == ("mine", 7, 8)
    given = psycopg.conninfo.conninfo_to_dict(place.conninfo)
    assert (
        given
        | {
            "user": "u",
            "password": "p w",
            "host": "h1,h2",
            "port": "1,2",
            "dbname": "d",
            "sslmode": "require",
            "application_name": "a b+c",
        }
        == given
    )
    assert (given["connect_timeout"], given["client_encoding"]) == ("5", "utf8")


async def test_a_schema_with_functions_of_another_program_is_refused_and_left_alone() -> None:
    with postgres.schema_url() as url, postgres.connect() as beside:
        schema = postgres.schema_of(url)
        beside.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        arguments = "text, text, text, int8, float8, text"
        beside.execute(f"CREATE FUNCTION {schema}.claim({arguments}) RETURNS text LANGUAGE sql AS $$ SELECT 'ours' $$")
        with pytest.raises(StoreLayoutError, match=r"choose a schema by \?schema="):
            async with open_store(url):
                pass
        assert beside.execute(f"SELECT {schema}.claim('', '', '', 1, 1, '')").fetchone() == ("ours",)
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
        assert beside.execute(tables, [schema]).fetchone() == (0,)


def test_a_schema_is_put_into_every_statement_and_nothing_else_is() -> None:
    statements = asdict(dialect("mine"))
    statements |= vars(statements.pop("dealing"))
    sweeping = statements.pop("sweeping")
    for text in (*vars(sweeping.pop("dealing")).values(), *sweeping.values()):
        assert "lazymig." not in text
        assert '"mine".' in text
    assert statements.pop("end") == END
    for name in ("_commit", "_commit_entries", "_commit_base"):
        for (keeps, blanks, clears), text in statements.pop(name).items():
            statements[f"{name} {keeps} {blanks} {clears}"] = text
            assert ('"mine".blank(' in text, '"mine".clear_failure(' in text) == (blanks, clears)
            assert ('"mine".previous(' in text, '"mine".keep(' in text) == (keeps is True, keeps is not None)
    readings = ["entries", "entries_backwards", "read", "scan"]
    apart = ["blank", "clear_failure", "note_failure", "previous", "keep"]
    assert len(statements) == len(STATEMENTS) + len(FUNCTIONS) - len(apart) + len(readings) + 3 * 11
    of_failures = asdict(failure_dialect("mine"))
    statements |= {"note_failure": of_failures.pop("note").args[0], **of_failures}
    of_rulings = asdict(ruling_dialect("mine"))
    ((straggling, _),) = of_rulings.pop("stragglers")({}, [])
    assert of_rulings.pop("numbers") is list
    statements["stragglers"] = straggling
    assert of_rulings.pop("lock_policies") == (LOCK_SOON, in_schema(LOCK_POLICIES, "mine"))
    for name, found in of_rulings.items():
        statements |= {name: found} if isinstance(found, str) else {f"{name} {text[:12]}": text for text in found}
    for text in statements.values():
        assert "lazymig." not in text
        assert '"mine".' in text


def test_without_the_extra_the_command_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lazymig.postgres", "lazymig._postgres_driver", "psycopg", "psycopg_pool"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match=r"pip install 'lazymig\[postgres\]'"):
        asyncio.run(opens("postgresql://h/d"))


async def test_the_driver_is_imported_only_when_it_is_used() -> None:
    code = "import sys, lazymig, lazymig.stores, lazymig.cli; print({'psycopg', 'psycopg_pool'} & set(sys.modules))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    assert said.strip() == b"set()"


async def test_nobody_listening_is_told_at_once() -> None:
    with pytest.raises(StoreUnavailableError, match=r"can't be reached.*refused.*Check host and port"):
        await opens("postgresql://u@127.0.0.1:1/d")


async def test_a_wrong_password_is_told_at_once(url: str) -> None:
    postgres.server_to_break()
    role = postgres.GUARDED
    with postgres.connect() as beside:
        beside.execute(f"DROP ROLE IF EXISTS {role}")
        beside.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    wrong = url.replace("postgres@", f"{role}:wrong@")
    with pytest.raises(StoreError, match=r"password authentication failed.*Check user, password") as caught:
        await opens(wrong)
    assert not caught.value.retryable
    with pytest.raises(StoreError, match=r"no password supplied.*Check user, password"):
        await opens(url.replace("postgres@", f"{role}@"))
    with pytest.raises(StoreError, match="Check user, password"):
        await opens(url.replace("postgres@", "nobody@"))


async def test_a_missing_database_is_told_at_once(url: str) -> None:
    with pytest.raises(StoreMissingError, match=r'"absent" does not exist.*CREATE DATABASE'):
        await opens(url.replace("/postgres?", "/absent?"))


@pytest.fixture
def poor(url: str) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """Return the URL of a role without rights, and a connection that can give it some."""
    role = f"r_{postgres.draw_schema()}"
    with postgres.connect() as beside:
        beside.execute(f"CREATE ROLE {role} LOGIN")
        yield url.replace("postgres@", f"{role}@"), beside
        beside.execute(f"DROP OWNED BY {role}")
        beside.execute(f"DROP ROLE {role}")


async def test_a_role_without_rights_is_told_the_grant_and_with_it_it_works(
    url: str, poor: tuple[str, psycopg.Connection[Any]]
) -> None:
    theirs, beside = poor
    role = theirs.partition("://")[2].partition("@")[0]
    schema = postgres.schema_of(url)
    with pytest.raises(StoreError, match="GRANT CREATE ON DATABASE"):
        await opens(theirs)
    assert tables(schema) == []

    await opens(url)
    with pytest.raises(StoreError, match=f"GRANT USAGE ON SCHEMA {schema}"):
        await opens(theirs)
    beside.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    beside.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
    with pytest.raises(StoreError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
        await opens(theirs)
    beside.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
    async with open_store(theirs) as store:
        await store.register(NodeRecord("n1", "", None, 1.0))
        await store.claim(ActorKey("Car", "a"), Fence("n1", 1))
        beside.execute(f"REVOKE DELETE ON ALL TABLES IN SCHEMA {schema} FROM {role}")
        with pytest.raises(StoreError, match=r"Nothing was stored.*GRANT"):
            await store.unregister("n1")


async def test_a_schema_that_an_administrator_made_is_laid_out(
    url: str, poor: tuple[str, psycopg.Connection[Any]]
) -> None:
    theirs, beside = poor
    role = theirs.partition("://")[2].partition("@")[0]
    beside.execute(f"CREATE SCHEMA {postgres.schema_of(url)} AUTHORIZATION {role}")
    await opens(theirs)


async def test_a_missing_store_is_not_made_if_it_is_not_to_be(url: str) -> None:
    with pytest.raises(StoreMissingError, match="holds no store"):
        await opens(url, create=False)
    assert tables(postgres.schema_of(url)) == []

    await opens(url)
    await opens(url, create=False)


async def test_a_newer_layout_is_left_untouched(url: str) -> None:
    await opens(url)
    with postgres.connect() as beside:
        beside.execute(f"UPDATE {postgres.schema_of(url)}.layout SET version = {len(LAYOUTS) + 1}")
        with pytest.raises(StoreLayoutError, match=f"has layout {len(LAYOUTS) + 1}.*not touched"):
            await opens(url)
        found = beside.execute(f"SELECT version FROM {postgres.schema_of(url)}.layout").fetchall()
    assert found == [(len(LAYOUTS) + 1,)]


@pytest.mark.parametrize("table", ["state (x int)", "layout (version int, partitions int)"])
async def test_tables_of_another_program_are_left_untouched(url: str, table: str) -> None:
    schema = postgres.schema_of(url)
    with postgres.connect() as beside:
        beside.execute(f"CREATE SCHEMA {schema}")
        beside.execute(f"CREATE TABLE {schema}.{table}")
    with pytest.raises(StoreLayoutError, match=r"another program.*\?schema="):
        await opens(url)
    assert tables(schema) == [table.split(maxsplit=1)[0]]


async def test_a_layout_table_of_another_program_is_left_untouched(url: str) -> None:
    schema = postgres.schema_of(url)
    with postgres.connect() as beside:
        beside.execute(f"CREATE SCHEMA {schema}")
        beside.execute(f"CREATE TABLE {schema}.layout (page text)")
    with pytest.raises(StoreLayoutError):
        await opens(url)
    assert tables(schema) == ["layout"]


async def test_partitions_are_made_with_the_layout_and_stay(url: str) -> None:
    schema = postgres.schema_of(url)
    await opens(postgres.with_options(url, partitions=4))

    assert [name for name in tables(schema) if name.startswith("actor")] == ["actor", *(f"actor_{n}" for n in range(4))]
    await opens(url)
    await opens(postgres.with_options(url, partitions=4))
    with pytest.raises(StoreLayoutError, match=r"with 4 partitions.*changed to 1"):
        await opens(postgres.with_options(url, partitions=1))


@pytest.mark.parametrize("table", ["actor", "state", "heartbeat"])
async def test_tables_that_change_often_leave_room_for_it(url: str, table: str) -> None:
    await opens(url)
    with postgres.connect() as beside:
        found = beside.execute(
            "SELECT reloptions FROM pg_class WHERE oid = %s::regclass", (f"{postgres.schema_of(url)}.{table}",)
        )
        assert found.fetchone() == (["fillfactor=50", "autovacuum_vacuum_scale_factor=0.02"],)


async def test_twenty_that_open_an_empty_database_at_once_all_succeed(url: str) -> None:
    await asyncio.gather(*(opens(postgres.with_options(url, partitions=2)) for _ in range(20)))


async def test_processes_that_open_an_empty_database_at_once_all_succeed(url: str) -> None:
    code = (
        "import asyncio, sys; from lazymig import open_store\n"
        "async def main():\n    async with open_store(sys.argv[1]) as store: await store.types()\n"
        "asyncio.run(main())"
    )
    started = [await asyncio.create_subprocess_exec(sys.executable, "-c", code, url) for _ in range(4)]
    assert [await process.wait() for process in started] == [0] * 4


async def test_a_read_only_server_is_refused(url: str) -> None:
    with pytest.raises(StoreReadOnlyError, match="primary"):
        await opens(f"{url}&options=-c%20default_transaction_read_only%3Don")
    assert tables(postgres.schema_of(url)) == []


async def test_another_isolation_is_refused_with_the_cure(url: str) -> None:
    with pytest.raises(StoreError, match=r"'serializable'.*ALTER ROLE"):
        await opens(f"{url}&options=-c%20default_transaction_isolation%3Dserializable")


async def test_a_database_in_another_encoding_is_refused_with_the_cure(url: str) -> None:
    name = postgres.draw_schema()
    with postgres.connect() as beside:
        beside.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            with pytest.raises(StoreError, match=r"LATIN1.*ENCODING 'UTF8'"):
                await opens(url.replace("/postgres?", f"/{name}?"))
        finally:
            beside.execute(f"DROP DATABASE {name}")


async def test_what_is_ordered_by_is_ordered_by_code_point_in_a_database_of_any_locale(url: str) -> None:
    await opens(url)
    with postgres.connect() as beside:
        found = beside.execute(
            """
            SELECT relname, attname, collname FROM pg_index
            JOIN pg_class ON pg_class.oid = indrelid JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
            JOIN pg_collation ON pg_collation.oid = attcollation
            WHERE indisprimary AND relnamespace = %s::regnamespace AND relname IN ('actor', 'state', 'entry')
            """,
            [postgres.schema_of(url)],
        ).fetchall()
    assert sorted(column for table, column, _ in found if table == "entry") == ["id", "key", "name", "type"]
    assert {collation for _, _, collation in found} == {"C"}


async def test_two_schemas_of_a_database_know_nothing_of_each_other(url: str) -> None:
    with postgres.schema_url() as other:
        async with open_store(url) as store, open_store(other) as second:
            await store.insert("Car", "main", [("a", b"1")])
            assert list(await second.types()) == []


def test_every_error_of_the_server_means_something_to_a_user() -> None:
    for state, kind in vars(driver_errors)["_sqlcodes"].items():
        found = translate(kind("a message"), "postgresql://h/d", "mine", "Nothing was stored. ")

        assert isinstance(found, StoreError)
        assert "Nothing was stored" in str(found)
        may_pass = kind.sqlstate[:2] in {"08", "40", "53", "57", "58"} or kind.sqlstate == "55P03"
        assert found.retryable is (may_pass and kind.sqlstate != "57P04"), f"{state}: {found}"


def test_a_value_that_the_driver_refuses_is_told() -> None:
    found = translate(psycopg.DataError("text with NUL"), "x", "mine", "")
    assert "NUL" in str(found)


def test_a_place_is_no_place_for_a_password_in_sight() -> None:
    place = _read_postgres_url("postgresql://u:secret@h/d")
    assert isinstance(place, Place)
    assert "secret" not in repr(place)
