"""Imported conversations: what every store does with the conversation of a chat. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.core.turns import ConversationRecord, Header
from antiphon.turn.transfer_protocols import ChatImport, ConversationImport, TurnImport


def header_in(turn: TurnImport, conversation_id: str | None) -> Header:
    """A turn's header with the id that its conversation has here, where it is of one."""
    if turn.header.conversation is None:
        return turn.header
    return msgspec.structs.replace(turn.header, conversation=conversation_id)


def record_of(conversation: ConversationImport, conversation_id: str) -> ConversationRecord:
    """A conversation as it is created, by the id that it has here."""
    return ConversationRecord(conversation_id, conversation.created_at, dict(conversation.metadata))


def new_head_of(
    chat: ChatImport, response_ids: Sequence[str], current: ConversationRecord
) -> str | None:
    """The response that the head of a conversation moves on to; None: it stays.

    That is only where the chat's head continues it: turns that were begun here count.
    ``response_ids`` are those of the turns of ``chat``.
    """
    position = chat.conversation.head if chat.conversation is not None else None
    if position is None or current.active_response_id is not None:
        return None
    head = response_ids[position]
    if head == current.head:
        return None
    while position is not None:
        if current.head in (None, response_ids[position]):
            return head
        position = chat.turns[position].parent
    return None
