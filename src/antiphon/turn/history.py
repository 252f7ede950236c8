"""Histories of hot conversations, as bytes that are ready for the model.

The cache holds content only. Whether a response still exists, and whose it is, the
store has said before anyone asks here (``Head``); the head's epoch tells whether
what lies here is still what may be shown.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from antiphon.core.items import decode_item
from antiphon.turn.context import Segment, render
from antiphon.turn.ports import Head, Store, StoredTurn

Segments = tuple[Segment, ...]

#: Bytes of messages that the cache may hold.
_CAPACITY = 32 * 1024 * 1024


class _Entry(msgspec.Struct, frozen=True):
    epoch: int
    segments: Segments
    size: int


class History:
    """A least-recently-used cache of chains over a store.

    An entry moves on with its conversation: the turn that continues it takes it
    away and leaves a longer one under its own id. So memory holds one entry for
    each living end, however long the chain; a branch off an old turn reads the store.
    """

    def __init__(self, store: Store, capacity: int = _CAPACITY) -> None:
        self._store = store
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._capacity = capacity
        self._held = 0

    async def segments(self, head: Head) -> Segments:
        """The chain up to and including ``head``, oldest first."""
        entry = self._entries.get(head.response_id)
        if entry is not None and entry.epoch == head.epoch:
            self._entries.move_to_end(head.response_id)
            return entry.segments
        segments = tuple(segment_of(turn) for turn in await self._store.chain(head))
        self.keep(head.response_id, head.epoch, segments)
        return segments

    def keep(
        self, response_id: str, epoch: int, segments: Segments, parent: str | None = None
    ) -> None:
        """Remember a chain under its newest response, in place of its parent's entry."""
        old = self._pop(parent) if parent else None
        if old is not None and len(old.segments) == len(segments) - 1:
            # The same turns and one more: no need to add up a long chain again.
            size = old.size + segments[-1].size
        else:
            size = sum(segment.size for segment in segments)
        self._put(response_id, _Entry(epoch, segments, size))

    def _pop(self, response_id: str) -> _Entry | None:
        entry = self._entries.pop(response_id, None)
        if entry is not None:
            self._held -= entry.size
        return entry

    def _put(self, response_id: str, entry: _Entry) -> None:
        # Two turns from one response may both have read it.
        self._pop(response_id)
        if entry.size > self._capacity:
            return
        self._entries[response_id] = entry
        self._held += entry.size
        while self._held > self._capacity:
            _, oldest = self._entries.popitem(last=False)
            self._held -= oldest.size


def segment_of(turn: StoredTurn) -> Segment:
    """Render a stored turn."""
    items = [decode_item(data) for data in (*turn.input, *turn.output)]
    return render(items, completed=turn.end is not None and turn.end.status == "completed")
