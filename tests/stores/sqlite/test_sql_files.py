import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import antiphon.stores.sqlite
from antiphon.stores.sql_queries import parse_queries
from antiphon.stores.sqlite.sql_files import migrate, read_sql

FOLDER = Path(antiphon.stores.sqlite.__path__[0])
FILES = sorted(path.name for path in FOLDER.glob("*.sql"))


def null_parameters(query: str) -> Mapping[str, None] | Sequence[None]:
    """NULL for each parameter of a query."""
    names = dict.fromkeys(re.findall(r":(\w+)", query))
    return names or [None] * query.count("?")


def test_parse_queries_returns_names_without_comments() -> None:
    text = "-- a file\n-- name: one\nSELECT 1\n  -- why\n  FROM t\n\n-- name: two\nSELECT 2\n"
    assert parse_queries(text) == {"one": "SELECT 1\n  FROM t", "two": "SELECT 2"}


def test_duplicate_query_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'one'"):
        parse_queries("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n")


def test_query_files_are_found() -> None:
    assert {"turns.sql", "conversations.sql", "search.sql"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_query_compiles_against_the_schema(file: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    for query in parse_queries(read_sql(file)).values():
        assert connection.execute(f"EXPLAIN {query}", null_parameters(query)).fetchone() is not None
    connection.close()


@pytest.mark.parametrize("file", FILES)
def test_query_parameters_are_positional_or_named(file: str) -> None:
    for query in parse_queries(read_sql(file)).values():
        # Python 3.12.0 to 3.12.3 warn about numbered parameters.
        assert not re.search(r"\?\d", query), query
        assert "?" not in query or not re.search(r":\w", query), query


@pytest.mark.parametrize("file", FILES)
def test_every_query_is_used(file: str) -> None:
    source = "".join(path.read_text() for path in FOLDER.rglob("*.py"))
    unused = [name for name in parse_queries(read_sql(file)) if f'"{name}"' not in source]
    assert unused == []


@pytest.mark.parametrize("file", FILES)
def test_no_query_scans_a_large_table(file: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    for query in parse_queries(read_sql(file)).values():
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", null_parameters(query)).fetchall()
        scans = " ".join(step[3] for step in plan if step[3].startswith("SCAN"))
        for table in ("threads", "epochs", "responses", "log", "conversations", "blobs"):
            assert not re.search(rf"\b{table}\b", scans), query
    connection.close()
