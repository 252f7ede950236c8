"""Log rows: adds rows to the log, with their texts behind all others."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from random import getrandbits
from typing import Final

from antiphon.stores.sqlite.multi_row_insert import insert_rows
from antiphon.stores.sqlite.rows import END, END_POSITION, Row
from antiphon.stores.sqlite.sql_files import TURN_SQL

_ADD_TEXT: Final = TURN_SQL["add_text"]
_ADD_ROW: Final = TURN_SQL["add_row"]


def write_log_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Add rows to the log. Returns the turns that end with them, each with a revision, for those
    that wait for the index.
    """
    texts = [(None, text) for _, _, _, text in rows if text is not None]
    # SQLite numbers them in a row, behind all others.
    text_id = insert_rows(connection, _ADD_TEXT, texts) - len(texts)
    placed: list[tuple[int, int, bytes | None, int | None]] = []
    ended: list[int] = []
    for row_id, kind, key, text in rows:
        if text is None:
            placed.append((row_id, kind, key, None))
        else:
            text_id += 1
            placed.append((row_id, kind, key, text_id))
        if kind == END:
            ended.append(row_id - END_POSITION)
    insert_rows(connection, _ADD_ROW, placed)
    if not ended:
        return []
    # A revision is the time, in milliseconds, and random bits.
    now = int(time.time() * 1000) << 20
    return [(row_id, now + getrandbits(20)) for row_id in ended]
