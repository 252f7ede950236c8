"""Conflict errors: what every store raises where another write came first, or nothing is there."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.errors import (
    ConflictError,
    ConversationLockedError,
    HistoryBranchedError,
    NotFoundError,
    StoreError,
)
from antiphon.turn.store_protocols import ApiKey, Continuations


def conversation_not_found(conversation_id: str, param: str) -> NotFoundError:
    """The error for an id that the tenant has no conversation of; ``param`` names it."""
    message = f"No conversation found with id '{conversation_id}'."
    return NotFoundError(message, code="conversation_not_found", param=param)


def conversation_moved(conversation_id: str) -> ConversationLockedError:
    """The error for a turn that another one preceded."""
    message = f"Another turn was begun on conversation '{conversation_id}': wait for its end."
    return ConversationLockedError(message, param="conversation")


def refuse_unseen(seen: Iterable[Continuations], found: Iterable[str]) -> None:
    """Raise ``HistoryBranchedError`` for responses that the maker of a turn has not seen. Pure."""
    unseen = frozenset(found).difference(*(one.response_ids for one in seen))
    if unseen:
        raise HistoryBranchedError(response_ids=unseen)


def reservation_lost() -> ConflictError:
    """The error for a request whose reservation timed out and went to another."""
    return ConflictError(
        "Another request with this Idempotency-Key was started meanwhile: ask again.",
        code="idempotency_key_in_progress",
        param="Idempotency-Key",
    )


def expires_at_once() -> ConflictError:
    """The error for a chat that only lives because it is permanent, and shall not be that."""
    return ConflictError(
        "The chat would expire at once: erase it, or continue it first.",
        code="chat_would_expire",
        param="permanent",
    )


def duplicate_key(key: ApiKey) -> StoreError:
    """The error for an API key that is stored already."""
    return StoreError(f"There is a key with the id {key.id!r} or the same hash already.")
