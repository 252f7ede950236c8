"""Conversation lock: one turn at a time on a conversation; a second one queues or is rejected."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias
from weakref import WeakValueDictionary

import msgspec

from antiphon.core.turns import ConversationRecord, TurnRequest
from antiphon.errors import (
    AntiphonError,
    ConversationLockedError,
    HistoryBranchedError,
    NotFoundError,
)
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.store_protocols import ConversationStore

#: A tenant, and the id of a conversation.
_ConversationKey: TypeAlias = tuple[str, str]

#: Reads a conversation as it is now: the conversation, and the request with its head.
ReadConversation: TypeAlias = Callable[[], Awaitable[tuple[ConversationRecord | None, TurnRequest]]]

#: Seconds between two looks at a conversation that another process is busy with. Between
#: half and all of it, so that processes which wait for each other fall out of step.
_POLL_INTERVAL = 0.05
#: How often something may be erased from a history while one turn is being prepared.
_MAX_HISTORY_CHANGES = 10


class ConversationLocks:
    """A lock per conversation, and the head of the conversation under it."""

    def __init__(self, store: ConversationStore | None, check_open: Callable[[], None]) -> None:
        """``check_open`` raises once no turn may begin any more."""
        self._store = store
        self._check_open = check_open
        #: Who waits for a conversation gets it in turn. By tenant too: that somebody else
        #: is busy with it must not show that it is there.
        self._locks: WeakValueDictionary[_ConversationKey, asyncio.Lock] = WeakValueDictionary()
        #: The newest turn that was begun here on a conversation, while it runs.
        self._active_turns: WeakValueDictionary[_ConversationKey, RunningTurn] = (
            WeakValueDictionary()
        )

    @asynccontextmanager
    async def acquire(self, request: TurnRequest) -> AsyncIterator[ReadConversation]:
        """Reserve the conversation that a request names; gives the way to read it.

        While this is entered nobody else in this process takes it; a turn that was begun
        must be set as its active turn (``set_active_turn``) before the exit. Where another process
        was faster, read it again. Reading raises ``NotFoundError``, and ``ConversationLockedError``
        where another turn runs on it and the request does not queue.
        """
        name = request.conversation
        if name is None or not request.store:

            async def read() -> tuple[None, TurnRequest]:
                # An unstored turn reads a conversation and leaves it as it is.
                return None, await self.resolve_head(request)

            yield read
            return
        key = (request.tenant, name)
        lock = self._locks.setdefault(key, asyncio.Lock())
        queues = request.on_busy == "queue"
        # A turn that runs is asked first: behind it others may wait for a lock that is free
        # for a moment.
        if not queues and (lock.locked() or self._is_running(key)):
            raise conversation_locked(name)
        async with lock:

            async def read_locked() -> tuple[ConversationRecord, TurnRequest]:
                found = await (self._wait_until_free(key) if queues else self._idle(key))
                return found, _with_head(request, found)

            yield read_locked

    async def resolve_head(self, request: TurnRequest) -> TurnRequest:
        """The request with its conversation's head as the previous response."""
        if request.conversation is None:
            return request
        found = await self._get(request.tenant, request.conversation)
        return msgspec.structs.replace(_with_head(request, found), conversation=None)

    def set_active_turn(self, tenant: str, conversation_id: str, turn: RunningTurn) -> None:
        """A turn was begun on a conversation; the store may not know yet."""
        self._active_turns[tenant, conversation_id] = turn

    async def _idle(self, key: _ConversationKey) -> ConversationRecord:
        """The conversation, on which nothing may run."""
        conversation = await self._get(*key)
        if conversation.active_response_id is not None or self._is_running(key):
            raise conversation_locked(conversation.id)
        return conversation

    async def _wait_until_free(self, key: _ConversationKey) -> ConversationRecord:
        """The conversation, once nothing runs on it."""
        while True:
            # Nobody is left waiting by a server that ends.
            self._check_open()
            conversation = await self._get(*key)
            turn = self._active_turns.get(key)
            if turn is None or turn.done():
                if conversation.active_response_id is None:
                    return conversation
                await asyncio.sleep(_POLL_INTERVAL * random.uniform(0.5, 1))  # noqa: S311
                continue
            try:
                await turn.result()
            except AntiphonError:
                # It is over all the same.
                continue

    def _is_running(self, key: _ConversationKey) -> bool:
        turn = self._active_turns.get(key)
        return turn is not None and not turn.done()

    async def _get(self, tenant: str, name: str) -> ConversationRecord:
        found = await self._store.get(tenant, name) if self._store else None
        if found is None:
            raise conversation_not_found(name)
        return found


class TurnRetries:
    """How often a turn is tried that the store refuses."""

    def __init__(self, request: TurnRequest) -> None:
        self._queues = request.on_busy == "queue"
        self._changes = 0
        #: What the store has said continues the history, besides what was seen.
        self.unseen: frozenset[str] = frozenset()

    def raise_if_last(self, error: AntiphonError) -> None:
        """Take note of an error. Raises it where that was the last try."""
        if isinstance(error, ConversationLockedError):
            if not self._queues:
                raise error
            return
        if isinstance(error, HistoryBranchedError):
            self.unseen |= error.response_ids
        self._changes += 1
        if self._changes == _MAX_HISTORY_CHANGES:
            raise error


async def wait_until_accepted(turn: RunningTurn) -> None:
    """Wait until the store has taken a turn. Raises its error alone."""
    try:
        await turn.wait_until_stored()
    except AntiphonError:
        if turn.is_rejected:
            raise


def _with_head(request: TurnRequest, conversation: ConversationRecord) -> TurnRequest:
    return msgspec.structs.replace(request, previous_response_id=conversation.head)


def conversation_not_found(conversation_id: str) -> NotFoundError:
    """The error for an id that is nobody's, somebody else's, or no id at all."""
    return NotFoundError(
        f"No conversation found with id '{conversation_id}'.",
        code="conversation_not_found",
        param="conversation",
    )


def conversation_locked(conversation_id: str) -> ConversationLockedError:
    """The error for a conversation on which another turn runs."""
    return ConversationLockedError(
        f"Another turn is running on conversation '{conversation_id}': wait for its end.",
        param="conversation",
    )
