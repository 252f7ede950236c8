"""Search erasure: what is indexed of turns goes in the transaction that erases their words.

Both functions first wait for whoever is indexing a turn, and then delete what was indexed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import read_queries

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

SEARCH_SQL: Final = read_queries("search/search.sql")


async def forget_turns(connection: Connection, tenant: str, turns: Sequence[TurnKey]) -> None:
    """Erase what is indexed of turns that are erased."""
    if turns:
        await connection.execute(SEARCH_SQL["delete_pending"], tenant, *columns_of(turns))
        await _delete_terms(connection, tenant, turns)


async def reindex_turns(connection: Connection, tenant: str, turns: Sequence[TurnKey]) -> None:
    """Have turns indexed anew, of which something was erased."""
    if turns:
        await connection.execute(SEARCH_SQL["add_pending"], tenant, *columns_of(turns))
        await _delete_terms(connection, tenant, turns)


async def _delete_terms(connection: Connection, tenant: str, turns: Sequence[TurnKey]) -> None:
    rows = await connection.fetch(SEARCH_SQL["delete_terms"], tenant, *columns_of(turns))
    if rows:
        words = sum(row[0] for row in rows)
        await add_totals(connection, {tenant: (-len(rows), -words)})


async def add_totals(connection: Connection, totals: dict[str, tuple[int, int]]) -> None:
    """Add to how many turns and words are indexed, by tenant."""
    if totals:
        turns, words = zip(*totals.values(), strict=True)
        ids = [new_total_id() for _ in totals]
        await connection.execute(SEARCH_SQL["add_totals"], list(totals), ids, turns, words)


def new_total_id() -> int:
    """An id for a row of sums."""
    return secrets.randbits(62)


def columns_of(turns: Sequence[TurnKey]) -> tuple[list[int], list[int], list[int]]:
    """The columns of keys: trees, threads and depths."""
    return [one[0] for one in turns], [one[1] for one in turns], [one[2] for one in turns]
