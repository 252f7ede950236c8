"""Chat preparation: a chat that was read from a file, encoded as it is written to a store. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import new_response_id
from antiphon.core.images import extract_blobs
from antiphon.core.items import encode_item
from antiphon.errors import AntiphonError
from antiphon.transfer.chat_file import ReadChat, UnreadableChat
from antiphon.transfer.source_chat import Source
from antiphon.transfer.whole_chat import WholeChat, WholeTurn
from antiphon.turn.message_rendering import render_turn
from antiphon.turn.transfer_protocols import ChatImport, TurnImport

_MAX_TITLE: Final = 500
#: What keeps a chat from being encoded.
ENCODING_ERRORS: Final = (AntiphonError, ValueError, TypeError, OverflowError, RecursionError)


class PreparedChat(msgspec.Struct, frozen=True, tag=True):
    """A chat that is ready to be written. ``skipped``: what of it was not taken over, and why."""

    request: ChatImport
    source: Source
    images: int
    skipped: tuple[str, ...] = ()


class RefusedChat(msgspec.Struct, frozen=True, tag=True):
    """A chat of which nothing can be written, and why."""

    title: str | None
    source: Source | None
    reasons: tuple[str, ...]


ReadyChat: TypeAlias = PreparedChat | RefusedChat


def prepare_chat(tenant: str, chat: ReadChat) -> ReadyChat:
    """A chat as a tenant's store is given it."""
    if isinstance(chat, UnreadableChat):
        return RefusedChat(_title(chat.title), None, (chat.reason,))
    if not chat.turns:
        return refused(chat, chat.skipped or ("there are no messages in it",))
    try:
        turns = [_encoded(turn) for turn in chat.turns]
    except ENCODING_ERRORS as error:
        return refused(chat, (*chat.skipped, f"it cannot be stored: {error}"))
    first = min(turn.created_at for turn in chat.turns)
    request = ChatImport(
        tenant,
        turns,
        created_at=first if chat.created_at is None else chat.created_at,
        updated_at=max(turn.end.ended_at for turn in chat.turns),
        title=_title(chat.title),
        is_pinned=chat.pinned,
        metadata=chat.metadata,
        conversation=chat.conversation,
    )
    images = len({blob.hash for turn in turns for blob in turn.blobs})
    return PreparedChat(request, chat.source, images, chat.skipped)


def refused(chat: WholeChat, reasons: Sequence[str]) -> RefusedChat:
    """A chat that was read, and cannot be written."""
    return RefusedChat(_title(chat.title), chat.source, tuple(reasons))


def _encoded(turn: WholeTurn) -> TurnImport:
    """A turn as it is stored. Raises what keeps it from that."""
    shown, stored, blobs = extract_blobs((*turn.input, *turn.output))
    # What a model could not be shown is refused now, not when the chat goes on.
    render_turn(shown)
    given = len(turn.input)
    return TurnImport(
        response_id=turn.response_id or new_response_id(),
        created_at=turn.created_at,
        header=turn.header,
        input=[encode_item(item) for item in stored[:given]],
        output=[encode_item(item) for item in stored[given:]],
        end=turn.end,
        digest=turn.digest,
        parent=turn.parent,
        blobs=blobs,
        is_of_words=turn.is_of_words,
    )


def _title(title: str | None) -> str | None:
    """A title on one line, without control characters."""
    if title is None:
        return None
    shown = "".join(one if one.isprintable() else " " for one in title)
    return " ".join(shown.split())[:_MAX_TITLE] or None
