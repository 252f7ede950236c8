"""What one transaction of the SQLite store does, job after job.

Jobs only collect rows as far as they can; ``flush`` writes them table by table, which
costs less than row by row; a new image is large enough to be written by itself. Nothing
here commits, and the record of running turns it was given stays as it is: ``changed``
says what is new once the commit has worked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.images import Blob
from antiphon.core.turns import End
from antiphon.errors import StoreError
from antiphon.stores.place import (
    MAX_ITEMS,
    MAX_SEQ,
    MAX_THREAD,
    TURN,
    last_of_thread,
    last_of_turn,
    place_of,
    thread_of,
)
from antiphon.stores.queries import named, read_sql
from antiphon.stores.rows import (
    END,
    HEADER,
    INPUT,
    OUTPUT,
    USE,
    Row,
    decode_use,
    encode_end,
    encode_header,
    encode_use,
)
from antiphon.turn.ports import NewTurn

SQL: Final = named(read_sql("sqlite.sql"))
_LAST_THREAD = SQL["last_thread"]
_TAKEN = SQL["taken"]
_KNOWN = SQL["known"]
_OWNER = SQL["owner"]
_OWNED = SQL["owned"]
_END_RUNNING = SQL["end_running"]
_ADD_THREAD = SQL["add_thread"]
_ADD_RESPONSE = SQL["add_response"]
_ADD_ROW = SQL["add_row"]
_ADD_RUNNING = SQL["add_running"]


class Open(msgspec.Struct, frozen=True):
    """A turn that this store runs: its place, and that of its next item."""

    place: int
    next: int


class Batch:
    """The work of one transaction on ``connection``, which has begun it.

    ``open_turns`` are the turns this store runs, by response id, as of the last commit.
    """

    def __init__(
        self, connection: sqlite3.Connection, owner: int, open_turns: Mapping[str, Open]
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._open_turns = open_turns
        #: Turns begun, moved on, or (None) over.
        self.changed: dict[str, Open | None] = {}
        #: Whether something was erased, whose words the write-ahead log still holds.
        self.erased = False
        self._next_thread: int | None = None
        self._taken: set[int] = set()
        self._threads: list[tuple[int, str, int, int | None]] = []
        self._responses: list[tuple[bytes, str, int, float]] = []
        self._rows: list[Row] = []
        self._running: dict[int, int] = {}

    def begin(self, turn: NewTurn) -> None:
        key = response_key(turn.response_id)
        if key is None:
            raise StoreError(f"{turn.response_id!r} is not a response id.")
        if len(turn.input) + len(turn.blobs) > MAX_ITEMS:
            raise StoreError(f"A turn holds at most {MAX_ITEMS} items.")
        top = encode_header(key, turn.created_at, turn.header)
        place = self._place(turn)
        self._responses.append((key, turn.tenant, place, turn.created_at))
        self._rows.append((place, HEADER, top))
        first = place + 1
        if turn.blobs:
            uses = [encode_use(self._keep(turn.tenant, blob)) for blob in turn.blobs]
            self._rows += [(spot, USE, use) for spot, use in enumerate(uses, first)]
            first += len(uses)
        for spot, item in enumerate(turn.input, first):
            self._rows.append((spot, INPUT, item))
        self._running[place] = self._owner
        self.changed[turn.response_id] = Open(place, first + len(turn.input))

    def write(self, response_id: str, items: Sequence[bytes], end: End | None) -> None:
        turn = self._open_turn(response_id)
        if turn is None:
            return
        after = turn.next + len(items)
        if after > last_of_turn(turn.place):
            raise StoreError(f"A turn holds at most {MAX_ITEMS} items.")
        if not self._still_runs(turn.place, ends=end is not None):
            self.changed[response_id] = None
            return
        for spot, item in enumerate(items, turn.next):
            self._rows.append((spot, OUTPUT, item))
        if end is None:
            self.changed[response_id] = Open(turn.place, after)
        else:
            self._rows.append((last_of_turn(turn.place), END, encode_end(end)))
            self.changed[response_id] = None

    def delete(self, tenant: str, response_id: str, cascade: bool) -> bool:
        self.flush()
        found = self._one(SQL["place"], (response_key(response_id), tenant))
        if found is None:
            return False
        place: int = found
        tree = self._one(SQL["tree"], (thread_of(place),))
        uses = self._erase(place, last_of_turn(place))
        if cascade:
            uses |= self._erase_descendants(place)
        # Only now: turns that go together may share a blob.
        self._connection.executemany(SQL["forget_blob"], [(decode_use(use), use) for use in uses])
        self._connection.execute(SQL["bump_epoch"], (tree,))
        self.erased = True
        return True

    def reap(self, owner: int, end: End) -> None:
        """End all turns of a store that is no more."""
        self.flush()
        body = encode_end(end)
        for (place,) in self._connection.execute(_OWNED, (owner,)).fetchall():
            self._connection.execute(_END_RUNNING, (place,))
            self._rows.append((last_of_turn(place), END, body))

    def flush(self) -> None:
        """Write the rows collected so far."""
        many = self._connection.executemany
        if self._threads:
            many(_ADD_THREAD, self._threads)
            self._threads = []
        if self._responses:
            many(_ADD_RESPONSE, self._responses)
            self._responses = []
        if self._rows:
            many(_ADD_ROW, self._rows)
            self._rows = []
        if self._running:
            many(_ADD_RUNNING, self._running.items())
            self._running = {}

    def _one(self, query: str, values: tuple[object, ...]) -> int | None:
        rows = self._connection.execute(query, values).fetchall()
        return rows[0][0] if rows else None

    def _place(self, turn: NewTurn) -> int:
        """Right after the parent if nothing is there yet, else at the start of a new thread."""
        parent = turn.parent
        if parent is None:
            thread = self._new_thread()
            self._threads.append((thread, turn.tenant, thread, None))
            return place_of(thread, 0)
        if parent.tenant != turn.tenant:
            raise StoreError("A turn cannot continue another tenant's response.")
        if parent.seq >= MAX_SEQ:
            raise StoreError(f"A chain holds at most {MAX_SEQ + 1} turns.")
        at = place_of(parent.thread, parent.seq)
        place = at + TURN
        if place in self._taken or self._one(_TAKEN, (place,)) is not None:
            thread = self._new_thread()
            self._threads.append((thread, turn.tenant, parent.tree, at))
            place = place_of(thread, parent.seq + 1)
        self._taken.add(place)
        return place

    def _new_thread(self) -> int:
        if self._next_thread is None:
            self._next_thread = (self._one(_LAST_THREAD, ()) or 0) + 1
        thread = self._next_thread
        if thread > MAX_THREAD:
            raise StoreError("This database has no room for another conversation.")
        self._next_thread = thread + 1
        return thread

    def _open_turn(self, response_id: str) -> Open | None:
        """None: the turn has ended or was erased. StoreError: it never began."""
        if response_id in self.changed:
            return self.changed[response_id]
        turn = self._open_turns.get(response_id)
        if turn is None and self._one(_KNOWN, (response_key(response_id),)) is None:
            raise StoreError("This turn's beginning was not stored, so the rest cannot be.")
        return turn

    def _keep(self, tenant: str, blob: Blob) -> int:
        """The number of the blob's row, which is written if the tenant has none yet."""
        key = bytes.fromhex(blob.hash)
        known = self._one(SQL["blob_id"], (tenant, key))
        if known is not None:
            return known
        number = self._connection.execute(SQL["add_blob"], (tenant, key, blob.data)).lastrowid
        assert number is not None
        return number

    def _still_runs(self, place: int, *, ends: bool) -> bool:
        """False: someone ended or erased it. With ``ends``, it does not run from now on."""
        if place in self._running:
            if ends:
                del self._running[place]
            return True
        if ends:
            return self._connection.execute(_END_RUNNING, (place,)).rowcount == 1
        return self._one(_OWNER, (place,)) is not None

    def _erase(self, first: int, last: int) -> set[bytes]:
        """Erase turns, and say which blobs they used."""
        uses = {use for (use,) in self._connection.execute(SQL["uses"], (first, last))}
        for step in ("forget_responses", "forget_running", "forget_items", "forget_headers"):
            self._connection.execute(SQL[step], (first, last))
        return uses

    def _erase_descendants(self, place: int) -> set[bytes]:
        uses = self._erase(place + TURN, last_of_thread(place))
        origins = [(place, last_of_thread(place))]
        while origins:
            for (thread,) in self._connection.execute(SQL["branches"], origins.pop()).fetchall():
                first = place_of(thread, 0)
                whole = (first, last_of_thread(first))
                uses |= self._erase(*whole)
                origins.append(whole)
        return uses
