"""Queries of the PostgreSQL store: every one is used, and none reads a whole table."""

from __future__ import annotations

import re
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.stores.postgres.connection import connect
from antiphon.stores.postgres.sql_files import migrate
from antiphon.stores.sql_queries import parse_queries
from support.postgres_database import empty_database

PACKAGE = Path(str(resources.files("antiphon.stores.postgres")))
QUERIES = {
    f"{path.relative_to(PACKAGE)}: {name}": query
    for path in sorted(PACKAGE.rglob("*.sql"))
    if path.parent.name != "migrations"
    for name, query in parse_queries(path.read_text()).items()
}
#: Tables that grow with what is stored.
LARGE = (
    *("log", "threads", "responses", "chats", "conversations", "blobs", "blob_uses"),
    *("chain_fingerprints", "imported_turns", "search_terms", "search_pending", "shares"),
    *("idempotency_records", "usage_sums"),
)
#: What is done once, for everything there is.
WHOLE = {"family_copy.sql"}
#: A batch of what there is, in no order.
BATCHES = {
    f"search/search.sql: {name}"
    for name in ("pending_of_all", "pending_of_node", "count_pending_of_all")
}
#: Not one statement with values.
UNEXPLAINED = {"turns.sql: begin", "changes.sql: notify"}


async def test_no_query_reads_a_whole_table(tmp_path: Path) -> None:
    connection = await connect(empty_database(tmp_path))
    found = []
    try:
        await migrate(connection)
        for name, query in QUERIES.items():
            if name in UNEXPLAINED | BATCHES or name.partition(":")[0] in WHOLE:
                continue
            # Planned without values, as the store has it.
            await connection.execute(f"PREPARE looked_at AS {query}")
            count = max([int(one) for one in re.findall(r"\$(\d+)", query)], default=0)
            values = f"({', '.join(['NULL'] * count)})" if count else ""
            lines = await connection.fetch(f"EXPLAIN EXECUTE looked_at{values}")
            await connection.execute("DEALLOCATE looked_at")
            plan = "\n".join(line[0] for line in lines)
            found += [
                f"{name}: {scan[1]}"
                for scan in re.finditer(r"Seq Scan on (\w+)", plan)
                if scan[1] in LARGE
            ]
    finally:
        await connection.close()
    assert not found, "\n".join(found)


async def test_search_visits_each_match_a_few_times_only(tmp_path: Path) -> None:
    connection = await connect(empty_database(tmp_path))
    count = 300
    try:
        await migrate(connection)
        await connection.execute(
            "INSERT INTO search_terms (tenant, tree, thread, seq, created_at, words, terms)"
            " SELECT 't', n, n, 0, n, 1, 'abc:1A'::tsvector FROM generate_series(1, $1::int) AS n",
            count,
        )
        # As the store has it: planned without the values.
        query = QUERIES["search/search.sql: best"]
        await connection.execute(f"PREPARE best AS {query}")
        for cursor, each_chat_once in product(("NULL, NULL, NULL", "7, 7, 0"), ("false", "true")):
            values = f"'t', ARRAY['abc'], ARRAY[1.0], 1, 1, {cursor}, 10, 0, NULL, {each_chat_once}"
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE best({values})"
            (plan,) = msgspec.json.decode(await connection.fetchval(explain))
            assert visited_rows(plan["Plan"]) <= 15 * count
    finally:
        await connection.execute("DELETE FROM search_terms")
        await connection.close()


def visited_rows(node: dict[str, Any]) -> float:
    """The rows that the parts of a plan went through."""
    rows = [value for name, value in node.items() if name.startswith("Rows Removed")]
    own = (node["Actual Rows"] + sum(rows)) * node["Actual Loops"]
    return float(own + sum(map(visited_rows, node.get("Plans", ()))))


@pytest.mark.parametrize("file", sorted({name.partition(":")[0] for name in QUERIES}))
def test_every_query_is_used(file: str) -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    names = [name.partition(": ")[2] for name in QUERIES if name.startswith(f"{file}:")]
    prefixes = tuple(re.findall(r'f"(\w+)\{', source))
    unused = [one for one in names if f'"{one}"' not in source and not one.startswith(prefixes)]
    assert not unused
