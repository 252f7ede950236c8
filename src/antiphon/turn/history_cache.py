"""History cache: an LRU cache of rendered histories, by their newest response.

It holds content only. The store is asked first whether a response exists, and whose it is
(``Head``); the head's epoch shows whether the cached history is still valid.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from antiphon.core.images import restore_blobs
from antiphon.core.items import (
    COMPACTION_PREFIX,
    ERASED_SUMMARY_ITEM,
    Item,
    decode_item,
    replaces_turns,
)
from antiphon.core.turns import FunctionTool
from antiphon.errors import HistoryChangedError
from antiphon.turn.joined_turns import NONE_JOINED, JoinedTurns, join_oldest
from antiphon.turn.message_encoding import message_in_stored
from antiphon.turn.message_rendering import RenderedTurn, render_turn
from antiphon.turn.store_protocols import Head, HistoryTurn, Store, StoredTurn, Window
from antiphon.turn.trimming import apply_summaries, tokens_of

P = ParamSpec("P")
S = TypeVar("S", StoredTurn, HistoryTurn)
T = TypeVar("T")

RenderedTurns = tuple[RenderedTurn, ...]

#: Bytes of memory that the cache may take.
_CAPACITY = 32 * 1024 * 1024

#: Histories of more turns or bytes are rendered in a thread.
_MAX_INLINE_TURNS = 64
_MAX_INLINE_BYTES = 128 * 1024
#: So many turns of other processes are added to a chain in memory; of more the chain is read whole,
#: and a chain that is shorter: that costs less.
_MAX_TURNS_BEHIND = 4
_MIN_EXTENDED_LENGTH = 16

#: What objects take besides the bytes of messages, by ``tracemalloc`` on 64-bit CPython 3.11, over
#: chains of 1 to 50 turns: 340 bytes an entry (itself, ``History``, response id, place in the dict)
#: and 267 a segment (itself, the headers of its bytes, places in tuples). A call or an answer is
#: an id of some 30 characters, and the latter a place in a dict.
_ENTRY_BYTES = 340
_SEGMENT_BYTES = 270
_CALL_BYTES = 200

_SUMMARY_PREFIXES = (COMPACTION_PREFIX, ERASED_SUMMARY_ITEM)


class History(msgspec.Struct, frozen=True):
    """A chain as it is shown, oldest first, and about how many tokens it takes.

    ``joined`` are the oldest of its turns, in the form that a call needs. ``added_tools`` are the
    tools that its items add to those of a request.
    """

    turns: RenderedTurns = ()
    tokens: int = 0
    joined: JoinedTurns = NONE_JOINED
    added_tools: tuple[FunctionTool, ...] = ()

    def extended(self, new: RenderedTurns) -> History:
        """The same turns and some more: no need to add up or to join a long chain again."""
        turns = (*self.turns, *new)
        tokens = self.tokens + sum(map(tokens_of, new))
        added_tools = (*self.added_tools, *_tools_added_by(new))
        return History(turns, tokens, join_oldest(turns, self.joined), added_tools)


class ResolvedHistory(msgspec.Struct, frozen=True):
    """The history that a turn continues, and where it was read from.

    ``head`` is the stored response that the turn continues; None: the chain is new, or its
    newest turns are unstored. ``stored_head`` is the response that the stored part of
    ``history`` ends with: the head, or the one that ``unstored_turns`` follow. ``is_current``:
    the store was asked for the head, and nothing was awaited since.
    """

    history: History = History()
    head: Head | None = None
    stored_head: Head | None = None
    unstored_turns: RenderedTurns = ()
    is_current: bool = False

    def with_stored_history(self, history: History, stored_head: Head) -> ResolvedHistory:
        """The same with its stored part read again."""
        history = history.extended(self.unstored_turns)
        return ResolvedHistory(history, self.head, stored_head, self.unstored_turns)


#: What a turn continues that begins a conversation.
NO_HISTORY = ResolvedHistory(is_current=True)


class UnstoredHistory:
    """The chain of one client's unstored turns, in memory for as long as the client is there."""

    def __init__(self) -> None:
        self._response_id: str | None = None
        self._chain = ResolvedHistory()

    def get(self, response_id: str) -> ResolvedHistory | None:
        """The chain up to that response, None if that is not its newest one."""
        return self._chain if response_id == self._response_id else None

    def update(self, response_id: str, chain: ResolvedHistory) -> None:
        """Replace the chain by one that ends with that response."""
        self._response_id, self._chain = response_id, chain

    def clear(self) -> None:
        """Remove the chain."""
        self._response_id, self._chain = None, ResolvedHistory()


class _Entry(msgspec.Struct, frozen=True):
    """A chain in memory; ``tree`` is its family's, 0 where that is not known yet."""

    epoch: int
    history: History
    size: int
    tree: int = 0


class HistoryCache:
    """A least-recently-used cache of chains over a store.

    An entry moves on with its conversation: the turn that continues it takes it
    away and leaves a longer one under its own id. So memory holds one entry for
    each living end, however long the chain; a branch off an old turn reads the store.
    Where another process went on, what it added is read, and not the whole chain again.
    """

    def __init__(
        self,
        store: Store,
        capacity: int = _CAPACITY,
        *,
        min_extended_length: int = _MIN_EXTENDED_LENGTH,
    ) -> None:
        self.store = store
        self._min_extended_length = min_extended_length
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        #: How many entries there are by their tree.
        self._trees: Counter[int] = Counter()
        self._capacity = capacity
        self._size = 0

    async def get(self, head: Head) -> History:
        """The chain up to and including ``head``, summaries in place of what they replace.

        Raises ``HistoryChangedError`` where it was erased since it was found.
        """
        history, _ = await self.read(head)
        return history

    async def read(self, head: Head) -> tuple[History, bool]:
        """The same, and whether the store has just said that nothing was erased since."""
        found = self.find(head)
        if found is not None:
            return found, False
        if head.seq >= self._min_extended_length and head.tree in self._trees:
            newest = await self.store.window(head, Window(limit=_MAX_TURNS_BEHIND))
            entry = self._join(head, newest)
            if entry is not None:
                self._put(head.response_id, entry)
                return entry.history, False
        turns = await self._turns(head)
        entry = await run_unless_short(_read_entry, turns, head)
        self._put(head.response_id, entry)
        # Images are read by themselves.
        return entry.history, is_short(turns) and not any(turn.blobs for turn in turns)

    async def find_head(
        self, tenant: str, response_id: str
    ) -> tuple[Head | None, Iterable[HistoryTurn]]:
        """Where a response lies, and turns for ``join`` if its chain is not in memory."""
        if response_id in self._entries:
            return await self.store.head(tenant, response_id), ()
        return await self.store.head_with_turns(tenant, response_id)

    def join(self, head: Head, turns: Iterable[HistoryTurn]) -> History | None:
        """What ``get`` gives where it is in memory, or so but for these newest turns; else None."""
        found = self.find(head)
        if found is not None:
            return found
        entry = self._join(head, turns)
        if entry is None:
            return None
        self._put(head.response_id, entry)
        return entry.history

    def find(self, head: Head) -> History | None:
        """The same where it is in memory; else None."""
        entry = self._entries.get(head.response_id)
        if entry is None or entry.epoch != head.epoch:
            return None
        self._entries.move_to_end(head.response_id)
        return entry.history

    async def get_before(self, head: Head) -> History:
        """The same without ``head`` itself, for a turn that runs: nothing is remembered.

        A summary that the turn itself has made counts.
        """
        segments = await run_unless_short(render_chain, await self._turns(head))
        return _history_of(segments[:-1])

    async def is_unchanged(self, *heads: Head | None) -> bool:
        """Whether all of these are there, and nothing was erased from their families since."""
        for head in heads:
            now = await self.store.head(head.tenant, head.response_id) if head else None
            if head is not None and (now is None or now.epoch != head.epoch):
                return False
        return True

    async def require_unchanged(self, *heads: Head | None) -> None:
        """Raise ``HistoryChangedError`` where that is not so."""
        if not await self.is_unchanged(*heads):
            raise HistoryChangedError()

    def extend(
        self,
        response_id: str,
        history: History,
        new: RenderedTurn,
        parent: Head | None,
        *,
        stored_head: Head | None = None,
    ) -> None:
        """Remember a chain and one turn more, in place of its parent's entry.

        ``stored_head`` is the one that ``history`` was read from, by default the parent.
        """
        source = stored_head or parent
        epoch, tree = (source.epoch, source.tree) if source else (0, 0)
        if parent is not None:
            old = self._entries.get(parent.response_id)
            if old is not None and old.history is history and old.tree == tree:
                longer = _longer_entry(old, (new,), epoch, tree)
                self._replace(parent.response_id, old, response_id, longer)
                return
            self._pop(parent.response_id)
        self._put(response_id, _new_entry(epoch, history.extended((new,)), tree))

    def replace(self, head: Head, history: History) -> None:
        """Remember a chain that was just summed up."""
        self._put(head.response_id, _new_entry(head.epoch, history, head.tree))

    def _join(self, head: Head, turns: Iterable[StoredTurn | HistoryTurn]) -> _Entry | None:
        """The chain by its newest turns, the newest first, if they reach back far enough.

        To its first turn, or to one whose entry is in memory, which the chain replaces. None: they
        do not, or a turn in between needs those before it to be rendered.
        """
        newer: list[StoredTurn | HistoryTurn] = []
        size = 0
        for turn in turns:
            wanted = newer[-1].previous_response_id if newer else head.response_id
            if turn.response_id != wanted or turn.end is None:
                # Something was erased in between.
                return None
            newer.append(turn)
            size += _item_bytes((turn,))
            if size > _MAX_INLINE_BYTES:
                return None
            previous = turn.previous_response_id
            if previous is None:
                return _read_entry(newer[::-1], head)
            ancestor = self._entries.get(previous)
            if ancestor is not None and ancestor.epoch == head.epoch:
                return self._join_ancestor(head, previous, newer[::-1])
        return None

    def _join_ancestor(
        self, head: Head, ancestor_id: str, turns: Sequence[StoredTurn | HistoryTurn]
    ) -> _Entry | None:
        segments = tuple(map(render_stored_turn, turns))
        if any(map(_looks_back, turns, segments)):
            return None
        ancestor = self._pop(ancestor_id)
        return ancestor and _longer_entry(ancestor, segments, head.epoch, head.tree)

    async def _turns(self, head: Head) -> list[HistoryTurn]:
        turns = await self.store.history(head)
        if not turns or turns[-1].response_id != head.response_id:
            raise HistoryChangedError()
        return turns

    def _pop(self, response_id: str) -> _Entry | None:
        entry = self._entries.pop(response_id, None)
        if entry is not None:
            self._forget(entry)
        return entry

    def _forget(self, entry: _Entry) -> None:
        self._size -= entry.size
        self._trees[entry.tree] -= 1
        if not self._trees[entry.tree]:
            del self._trees[entry.tree]

    def _put(self, response_id: str, entry: _Entry) -> None:
        # Two turns from one response may both have read it.
        self._pop(response_id)
        if entry.size > self._capacity:
            return
        self._entries[response_id] = entry
        self._size += entry.size
        self._trees[entry.tree] += 1
        self._drop_oldest()

    def _replace(self, old_id: str, old: _Entry, response_id: str, entry: _Entry) -> None:
        """Put an entry in place of an older one of the same tree."""
        if entry.size > self._capacity:
            self._pop(old_id)
            return
        del self._entries[old_id]
        self._entries[response_id] = entry
        self._size += entry.size - old.size
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Drop the entries used least lately, as many as are too many."""
        while self._size > self._capacity:
            self._forget(self._entries.popitem(last=False)[1])


async def run_unless_short(
    function: Callable[Concatenate[Sequence[S], P], T],
    turns: Sequence[S],
    *arguments: P.args,
    **options: P.kwargs,
) -> T:
    """The result of a function of a chain's turns, which runs in a thread unless they are few.

    It would take milliseconds otherwise, which other turns must not wait for.
    """
    if is_short(turns):
        return function(turns, *arguments, **options)
    return await asyncio.to_thread(function, turns, *arguments, **options)


def is_short(turns: Sequence[StoredTurn | HistoryTurn]) -> bool:
    """Whether a chain is made something of within less than a millisecond or so."""
    return len(turns) <= _MAX_INLINE_TURNS and _item_bytes(turns) <= _MAX_INLINE_BYTES


def _item_bytes(turns: Sequence[StoredTurn | HistoryTurn]) -> int:
    return sum([len(item) for turn in turns for item in (*turn.input, *turn.output)])


def _read_entry(turns: Sequence[StoredTurn | HistoryTurn], head: Head) -> _Entry:
    return _new_entry(head.epoch, history_of(turns), head.tree)


def _new_entry(epoch: int, history: History, tree: int) -> _Entry:
    size = _ENTRY_BYTES + sum(map(_memory_of, history.turns)) + history.joined.size
    return _Entry(epoch, history, size, tree)


def _longer_entry(old: _Entry, new: RenderedTurns, epoch: int, tree: int) -> _Entry:
    longer, joined = old.history.extended(new), old.history.joined
    size = old.size + sum(map(_memory_of, new))
    if longer.joined is not joined:
        size += longer.joined.size - joined.size
    return _Entry(epoch, longer, size, tree)


def _looks_back(turn: StoredTurn | HistoryTurn, segment: RenderedTurn) -> bool:
    """Whether how a chain is shown up to a turn depends on more than what was shown before it.

    So it does with a summary, and with outputs for the calls of a turn that may be erased.
    """
    return bool(segment.outputs or segment.retained_turns is not None or _summaries_of(turn))


def _memory_of(segment: RenderedTurn) -> int:
    """About how many bytes of memory a segment takes."""
    calls = _CALL_BYTES * (len(segment.open_calls) + len(segment.outputs))
    return _SEGMENT_BYTES + segment.size + len(segment.system) + calls


def history_of(turns: Sequence[StoredTurn | HistoryTurn]) -> History:
    """A chain as it is shown."""
    return _history_of(render_chain(turns))


def _history_of(segments: Sequence[RenderedTurn]) -> History:
    shown = tuple(apply_summaries(segments))
    tokens, added_tools = sum(map(tokens_of, shown)), _tools_added_by(shown)
    return History(shown, tokens, join_oldest(shown), added_tools)


def _tools_added_by(turns: RenderedTurns) -> tuple[FunctionTool, ...]:
    return tuple([tool for turn in turns for tool in turn.added_tools])


def render_chain(turns: Sequence[StoredTurn | HistoryTurn]) -> list[RenderedTurn]:
    """Render a chain. The summary that a turn was begun with comes right before that turn.

    Outputs for calls of a turn that was erased are left out: some models use an id again
    and again, and the turn before that may have left a call of the same id open.
    """
    segments: list[RenderedTurn] = []
    before: str | None = None
    torn = False
    for turn in turns:
        torn = torn or turn.previous_response_id != before
        segment = render_stored_turn(turn)
        if segment.retained_turns is None:
            segments += [render_turn([it]) for it in _summaries_of(turn)]
        if torn and segment.outputs:
            segment = msgspec.structs.replace(segment, outputs={})
        segments.append(segment)
        before = turn.response_id
        # A summary stands between a call and its output, and does not part them.
        torn = torn and segment.retained_turns is not None
    return segments


def render_stored_turn(turn: StoredTurn | HistoryTurn) -> RenderedTurn:
    """Render a stored turn."""
    stored = (*turn.input, *turn.output)
    completed = turn.end is not None and turn.end.status == "completed"
    tokens = turn.end.tokens if turn.end else None
    texts = [text for text in map(message_in_stored, stored) if text is not None]
    if len(texts) == len(stored):
        count = len(texts)
        return RenderedTurn(
            b",".join(texts), completed=completed, message_count=count, tokens=tokens
        )
    items = [restore_blobs(decode_item(data), turn.blobs) for data in stored]
    segment = render_turn(items, completed=completed)
    return segment if tokens is None else msgspec.structs.replace(segment, tokens=tokens)


def _summaries_of(turn: StoredTurn | HistoryTurn) -> list[Item]:
    """The output items of a turn that stand for older turns, or did until they were erased."""
    items = [decode_item(data) for data in turn.output if data.startswith(_SUMMARY_PREFIXES)]
    return list(filter(replaces_turns, items))
