"""Whole chats: chats with all their branches, in the form that is written to a store. Pure.

Chats of other programs and chat documents become the same. A turn is known again by its digest.
"""

from __future__ import annotations

import time

import msgspec

from antiphon.core.items import FunctionCall, FunctionCallOutput, Item
from antiphon.core.turns import End, Header
from antiphon.transfer.source_chat import Source, SourceChat
from antiphon.transfer.turn_tree import SourceTurn, build_turns
from antiphon.turn.transfer_protocols import ConversationImport

#: The model of turns whose program did not say which one answered.
_UNKNOWN_MODEL = "unknown"


class WholeTurn(msgspec.Struct, frozen=True):
    """A turn with its end. ``parent`` is the position of the turn that it continues.

    ``response_id`` is the id that it shall have if nothing else has it. ``is_of_words``: the digest
    is a hash of what was said. Images are ``data:`` URLs.
    """

    digest: bytes
    parent: int | None
    created_at: float
    header: Header
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    end: End
    response_id: str | None = None
    is_of_words: bool = False


class WholeChat(msgspec.Struct, frozen=True):
    """A chat that was read from a file. ``skipped``: what of it was not taken over, and why."""

    source: Source
    title: str | None
    turns: tuple[WholeTurn, ...]
    skipped: tuple[str, ...] = ()
    created_at: float | None = None
    pinned: bool = False
    metadata: dict[str, str] = {}
    conversation: ConversationImport | None = None


def whole_chat_of(chat: SourceChat, now: float | None = None) -> WholeChat:
    """A chat of another program. ``now`` is the time of turns that have none and no earlier one."""
    now = time.time() if now is None else now
    has_ids = chat.has_ids
    turns: list[WholeTurn] = []
    for turn in build_turns(chat):
        before = turns[turn.parent].end.ended_at if turn.parent is not None else chat.created_at
        created_at = turn.created_at or before or chat.updated_at or now
        turns.append(_whole_turn(chat, turn, created_at, has_ids=has_ids))
    return WholeChat(
        source=chat.source,
        title=chat.title,
        turns=tuple(turns),
        skipped=chat.skipped,
        created_at=chat.created_at,
        pinned=chat.pinned,
    )


def _whole_turn(
    chat: SourceChat, turn: SourceTurn, created_at: float, *, has_ids: bool
) -> WholeTurn:
    items = (*turn.input, *turn.output)
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    is_open = any(isinstance(item, FunctionCall) and item.call_id not in answered for item in items)
    ended_at = max(created_at, turn.ended_at or created_at)
    return WholeTurn(
        digest=turn.digest,
        parent=turn.parent,
        created_at=created_at,
        header=Header(turn.model or _UNKNOWN_MODEL, chat.instructions),
        input=turn.input,
        output=turn.output,
        # Its open calls will never get their outputs.
        end=End("incomplete" if is_open else "completed", ended_at),
        is_of_words=not has_ids,
    )
