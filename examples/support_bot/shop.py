"""``Shop``: the company's orders, tickets and refunds, in an SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("schema.sql")


class Shop:
    """Opens the database at ``path``; makes it, with a few sample orders, if it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as database:
            database.executescript(SCHEMA.read_text("utf-8"))

    def order(self, order_id: str) -> dict[str, Any] | None:
        """An order with its items; None if there is no such order."""
        with self._transaction() as database:
            row = database.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
            items = database.execute(
                "SELECT name, quantity, price_in_cents FROM order_items WHERE order_id = ?",
                (order_id,),
            )
            return {**row, "items": [dict(item) for item in items]} if row else None

    def file_ticket(self, call_id: str, name: str, issue: str) -> None:
        """Keep a ticket for the team, once for a call."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO tickets (call_id, name, issue) VALUES (?, ?, ?)",
                (call_id, name, issue),
            )

    def refund(self, call_id: str, order_id: str, amount_in_cents: int, reason: str) -> None:
        """Give money back, once for a call. Raises ``ValueError`` for more than was paid."""
        with self._transaction() as database:
            # Takes the write lock, so that two refunds at once cannot both be within the rest.
            database.execute("BEGIN IMMEDIATE")
            if database.execute(
                "SELECT 1 FROM refunds WHERE call_id = ? AND order_id = ?", (call_id, order_id)
            ).fetchone():
                return
            total = database.execute(
                "SELECT total_in_cents FROM orders WHERE id = ?", (order_id,)
            ).fetchone()
            if total is None:
                raise ValueError(f"there is no order {order_id}")
            (paid,) = database.execute(
                "SELECT COALESCE(SUM(amount_in_cents), 0) FROM refunds WHERE order_id = ?",
                (order_id,),
            ).fetchone()
            if not 0 < amount_in_cents <= total[0] - paid:
                raise ValueError(f"of {order_id}, {total[0] - paid} cents can be refunded")
            database.execute(
                "INSERT INTO refunds (call_id, order_id, amount_in_cents, reason)"
                " VALUES (?, ?, ?, ?)",
                (call_id, order_id, amount_in_cents, reason),
            )

    def last_conversation(self) -> str | None:
        """The id of the response to go on from."""
        with self._transaction() as database:
            row = database.execute("SELECT response_id FROM last_conversation").fetchone()
            return row[0] if row else None

    def remember_conversation(self, response_id: str) -> None:
        """Make this the response to go on from."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO last_conversation VALUES (1, ?)", (response_id,)
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own: tools run in parallel, each in a thread."""
        with closing(sqlite3.connect(self._path, timeout=10)) as database, database:
            database.row_factory = sqlite3.Row
            yield database
