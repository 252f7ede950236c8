"""Databases of the tests' PostgreSQL server: empty for each test, and cheap to have."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from antiphon.stores.postgres.store import PostgresStore
from support.postgres_server import NoPostgresError, shared_uri

#: The tables that hold rows of a store, each with its partitions.
_TABLES = """
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'p') AND NOT relispartition AND relname NOT LIKE '%migrations'
AND nspname NOT IN ('pg_catalog', 'information_schema')
"""
#: A binary value in the text of a row.
_BINARY = re.compile(r"\\\\x((?:[0-9a-f]{2})+)")
#: The folders of the tests that have a database, by the database's name.
_folders: dict[str, Path] = {}
#: The statements that empty each database.
_deletions: dict[str, str] = {}
#: The numbers of databases that are leased, and of all leases until now.
_leased: set[int] = set()
_lease_numbers = count()


async def end_lease(store: PostgresStore) -> None:
    """Have others take a store's process for dead, whose lease is over and renewed no more."""
    lease = store._database.lease
    await lease.stop()
    query = "UPDATE nodes SET lease_until = now() - interval '1 second' WHERE id = $1"
    await store._database.read(lambda connection: connection.execute(query, lease.node))


def empty_database(folder: Path, name: str = "") -> str:
    """The URI of a database that is the given folder's: empty when it is first asked for.

    There is one per worker, and name; a test that asks for it takes it from the test before. The
    schema stays, so that it is not made for each test. Skips the test where there is no PostgreSQL.
    """
    try:
        server = shared_uri()
    except NoPostgresError as error:
        pytest.skip(str(error))
    worker = os.environ.get("PYTEST_XDIST_WORKER", str(os.getpid()))
    database = "_".join(part for part in ("antiphon_test", worker, name) if part)
    uri = urlunsplit(urlsplit(server)._replace(path=f"/{database}"))
    if _folders.get(database) != folder:
        # There may be a loop in this thread.
        with ThreadPoolExecutor(1) as thread:
            is_new = database not in _folders
            thread.submit(
                asyncio.run, _create(server, database) if is_new else _empty(uri)
            ).result()
        _folders[database] = folder
    return uri


@contextmanager
def leased_database() -> Iterator[str]:
    """The URI of an empty database that nothing else uses until the block ends."""
    number = next(number for number in count(1) if number not in _leased)
    _leased.add(number)
    try:
        yield empty_database(Path(f"lease-{next(_lease_numbers)}"), f"s{number}")
    finally:
        _leased.discard(number)


async def _create(server: str, database: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{database}" (FORCE)')
        await connection.execute(f'CREATE DATABASE "{database}" TEMPLATE template0')
    finally:
        await connection.close()


async def _empty(uri: str) -> None:
    connection = await asyncpg.connect(uri)
    try:
        if uri not in _deletions:
            tables = [row[0] for row in await connection.fetch(_TABLES)]
            # Of tables with few rows quicker than TRUNCATE, which makes a new file for each.
            deletions = [f"DELETE FROM {table}" for table in tables]
            # One transaction, also behind a pooler that takes no setting of a connection.
            _deletions[uri] = ";".join(["SET LOCAL lock_timeout = '20s'", *deletions])
        await connection.execute(_deletions[uri])
    finally:
        await connection.close()


def all_rows(uri: str) -> bytes:
    """Every row of every table: as text, and once more with its binary values as they are."""

    async def read() -> bytes:
        connection = await asyncpg.connect(uri)
        try:
            found = []
            for (table,) in await connection.fetch(_TABLES):
                found += [
                    row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} t")
                ]
        finally:
            await connection.close()
        binary = [bytes.fromhex(one) for text in found for one in _BINARY.findall(text)]
        return b"\0".join([text.encode() for text in found] + binary)

    # There may be a loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, read()).result()


async def changes_are_settled(uri: str) -> None:
    """Wait until no transaction runs that began before those that have ended."""
    connection = await asyncpg.connect(uri)
    try:
        last = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        oldest = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        async with asyncio.timeout(30):
            while await connection.fetchval(oldest) <= last:
                await connection.execute("SELECT pg_sleep(0.001)")
    finally:
        await connection.close()
