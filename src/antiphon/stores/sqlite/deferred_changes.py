"""Deferred changes: what commits change of chats, of the sums of usage and of the turns that wait
for the index, written later and for many commits at once.

These tables lie in seven pages, and each page that a commit changes is written to the log. A turn
that runs alone would write as much for them as for itself. So its commit stores what is to be
changed with its row of ``changes``, in a page that it writes anyway. Every 32nd commit applies what
is there, and so does whoever reads these tables, or erases something, before it does: nobody sees
them as they were. A process that dies leaves nothing to mend, as any other one applies
the rest.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

import msgspec

from antiphon.stores.sqlite.chat_changes import ChatChanges
from antiphon.stores.sqlite.sql_files import read_queries

log = logging.getLogger("antiphon.store")

_SQL: Final = read_queries("changes.sql")
#: A commit whose row of ``changes`` has a multiple of this as its id applies what is deferred.
DEFERRED_COMMITS: Final = 32


def has_deferred(connection: sqlite3.Connection) -> bool:
    """Whether there is anything to apply."""
    return bool(connection.execute(_SQL["has_deferred"], (DEFERRED_COMMITS,)).fetchall())


def apply_deferred(connection: sqlite3.Connection) -> None:
    """Apply what is deferred, in a transaction."""
    rows = connection.execute(_SQL["deferred"], (DEFERRED_COMMITS,)).fetchall()
    if not rows:
        return
    changes = ChatChanges()
    for (body,) in rows:
        try:
            changes.add_encoded(body)
        except msgspec.MsgspecError as error:
            # Nobody could write any more if this were final. Chats and sums lack some turns.
            log.error("the database has a damaged row in the table changes: %s", error)
    changes.apply(connection)
    connection.execute(_SQL["clear_deferred"], (DEFERRED_COMMITS,))
