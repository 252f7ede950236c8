"""Chat documents: a chat with all its branches as JSON that loses nothing. Pure.

    {"format": "antiphon.chat", "version": 1, "chat": {...}, "turns": [...], "blobs": {...}}

Turns come after those that they continue. Items are as they are stored, an image as ``blob:`` and
the SHA-256 of its bytes, which are in ``blobs``.
"""

from __future__ import annotations

import hashlib
from binascii import a2b_base64, b2a_base64
from typing import Any, Final, Literal

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.images import image_type, restore_blobs
from antiphon.core.items import (
    Compaction,
    ErasedItem,
    FunctionCallOutput,
    InputImage,
    Item,
    Message,
    Part,
    decode_item,
    has_image,
)
from antiphon.core.turns import (
    ConversationRecord,
    End,
    Header,
    Options,
    TurnError,
    TurnStatus,
    Usage,
)
from antiphon.errors import AntiphonError
from antiphon.transfer.json_fields import parse_time
from antiphon.transfer.whole_chat import WholeChat, WholeTurn
from antiphon.turn.store_protocols import StoredTurn
from antiphon.turn.transfer_protocols import ConversationImport

FORMAT: Final = "antiphon.chat"
VERSION: Final = 1
_encode = msgspec.json.Encoder().encode


class ChatFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a document says of the chat itself. Times are in seconds since 1970."""

    title: str | None = None
    created_at: float | None = None
    pinned: bool = False
    metadata: dict[str, str] = {}


class DocumentConversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The conversation of a document's chat. ``head`` is the id of a turn."""

    id: str
    created_at: float
    metadata: dict[str, str] = {}
    head: str | None = None


class DocumentTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn of a document: its request, what it brought and answered, and how it ended.

    ``in_conversation``: it was begun on the conversation of the document.
    """

    id: str
    created_at: float
    model: str
    status: TurnStatus
    parent: str | None = None
    instructions: str | None = None
    input: tuple[msgspec.Raw, ...] = ()
    output: tuple[msgspec.Raw, ...] = ()
    ended_at: float | None = None
    usage: Usage | None = None
    error: TurnError | None = None
    incomplete_reason: str | None = None
    answered_by: str | None = None
    options: Options = Options()
    background: bool = False
    chat_completion: bool = False
    tokens: int | None = None
    trace: tuple[int, ...] = ()
    logprob_counts: tuple[int, ...] = ()
    context_turns: int | None = None
    cost: float | None = None
    approvals: tuple[str, ...] = ()
    rhythm: tuple[int, ...] = ()
    in_conversation: bool = False


class _Document(msgspec.Struct, frozen=True):
    format: Literal["antiphon.chat"]
    version: int
    turns: tuple[msgspec.Raw, ...]
    chat: ChatFields = ChatFields()
    conversation: DocumentConversation | None = None
    blobs: dict[str, str] = {}


_decoder = msgspec.json.Decoder(_Document)
_turn_decoder = msgspec.json.Decoder(DocumentTurn)


# ---- writing


def document_turn(
    turn: StoredTurn, parent: str | None, conversation: ConversationRecord | None = None
) -> bytes:
    """A stored turn as the JSON of a document. One that still runs is written as interrupted, and
    one that waits in a queue as that: whoever reads it again has its words, and nothing is asked.

    ``conversation`` is that of the document.
    """
    header = turn.header
    reason = "queued" if turn.is_queued else "interrupted"
    end = turn.end or End("incomplete", turn.created_at, reason=reason)
    return _encode(
        DocumentTurn(
            id=turn.response_id,
            parent=parent,
            created_at=turn.created_at,
            model=header.model,
            status=end.status,
            instructions=header.instructions,
            input=tuple(map(msgspec.Raw, turn.input)),
            output=tuple(map(msgspec.Raw, turn.output)),
            ended_at=end.ended_at,
            usage=end.usage,
            error=end.error,
            incomplete_reason=end.reason,
            answered_by=end.model,
            options=header.options,
            background=header.background,
            chat_completion=header.chat_completion,
            tokens=end.tokens,
            trace=end.trace,
            logprob_counts=end.logprob_counts,
            context_turns=end.context_turns,
            cost=end.cost,
            approvals=end.approvals,
            rhythm=end.rhythm,
            in_conversation=conversation is not None and header.conversation == conversation.id,
        )
    )


def document_head(chat: ChatFields, conversation: ConversationRecord | None = None) -> bytes:
    """A document up to its first turn. Turns follow, divided by commas, then ``blobs_head``."""
    fields: dict[str, Any] = {"format": FORMAT, "version": VERSION, "chat": chat}
    if conversation is not None:
        fields["conversation"] = DocumentConversation(
            conversation.id, conversation.created_at, conversation.metadata, conversation.head
        )
    head = _encode(fields)
    return head[:-1] + b',"turns":['


def blobs_head() -> bytes:
    """What comes between the turns and the images, which are divided by commas too."""
    return b'],"blobs":{'


def document_blob(sha256: str, data: bytes) -> bytes:
    """An image as an entry of a document's blobs."""
    return b'"%b":"%b"' % (sha256.encode(), b2a_base64(data, newline=False))


DOCUMENT_END: Final = b"}}"


# ---- reading


def is_chat_document(raw: bytes) -> bool:
    """Whether a value is a chat document, by how it begins. It is decoded once only."""
    return b'"antiphon.chat"' in raw[:200]


def read_chat_document(raw: bytes) -> WholeChat:
    """A chat document as a chat. Raises ``ValueError``, which says what is wrong with it."""
    try:
        document = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no chat document: {error}") from error
    if document.version != VERSION:
        raise ValueError(f"it has version {document.version}, and version {VERSION} can be read")
    return _DocumentReader(document).chat()


class _DocumentReader:
    def __init__(self, document: _Document) -> None:
        self._document = document
        self._skipped: list[str] = []
        self._blobs: dict[str, bytes] = {}
        self._positions: dict[str, int] = {}
        self._depths: list[int] = []
        self._turns: list[WholeTurn] = []

    def chat(self) -> WholeChat:
        for name, text in self._document.blobs.items():
            self._add_blob(name, text)
        for raw in self._document.turns:
            try:
                turn = _turn_decoder.decode(raw)
                self._add_turn(turn)
            except (
                msgspec.MsgspecError,
                AntiphonError,
                RecursionError,
                UnicodeDecodeError,
            ) as error:
                self._skipped.append(f"a turn that cannot be read: {str(error)[:200]}")
        fields = self._document.chat
        conversation = self._conversation()
        return WholeChat(
            source="antiphon",
            title=fields.title,
            turns=tuple(self._turns),
            skipped=tuple(self._skipped),
            created_at=parse_time(fields.created_at),
            pinned=fields.pinned,
            metadata=fields.metadata,
            conversation=conversation,
        )

    def _conversation(self) -> ConversationImport | None:
        one = self._document.conversation
        if one is None:
            return None
        head = None if one.head is None else self._positions.get(one.head)
        if one.head is not None and head is None:
            self._skipped.append("the head of a conversation, which is not there")
        return ConversationImport(one.id, self._time(one.created_at, None), one.metadata, head)

    def _add_blob(self, name: str, text: str) -> None:
        try:
            data = a2b_base64(text, strict_mode=True)
            image_type(data)
        except (ValueError, AntiphonError):
            self._skipped.append("an image that cannot be read")
            return
        if hashlib.sha256(data).hexdigest() == name:
            self._blobs[name] = data
        else:
            self._skipped.append("an image whose bytes are not those of its name")

    def _add_turn(self, turn: DocumentTurn) -> None:
        parent = self._positions.get(turn.parent) if turn.parent is not None else None
        if turn.parent is not None and parent is None:
            self._skipped.append("the place of a turn whose parent is not there")
        depth = self._depths[parent] + 1 if parent is not None else 0
        given = [self._item(one, depth) for one in turn.input]
        output = [self._item(one, depth) for one in turn.output]
        if turn.id in self._positions:
            self._skipped.append("a turn whose id another one has")
            return
        created_at = self._time(turn.created_at, parent)
        self._positions[turn.id] = len(self._turns)
        self._depths.append(depth)
        self._turns.append(
            WholeTurn(
                digest=hashlib.sha256(b"antiphon document\0" + turn.id.encode()).digest(),
                parent=parent,
                created_at=created_at,
                header=Header(
                    turn.model,
                    turn.instructions,
                    turn.options,
                    self._document.conversation.id
                    if turn.in_conversation and self._document.conversation is not None
                    else None,
                    background=turn.background,
                    chat_completion=turn.chat_completion,
                ),
                input=tuple(given),
                output=tuple(output),
                end=_end_of(turn, parse_time(turn.ended_at) or created_at),
                response_id=turn.id if response_key(turn.id) else None,
            )
        )

    def _time(self, given: float, parent: int | None) -> float:
        """A time that can be shown, in seconds; of one that is none, the best that is known."""
        before = None if parent is None else self._turns[parent].created_at
        return parse_time(given) or before or parse_time(self._document.chat.created_at) or 1.0

    def _item(self, raw: msgspec.Raw, depth: int) -> Item:
        """An item with its images. Raises ``StoreError`` where it is none."""
        item = restore_blobs(self._without_missing_images(decode_item(bytes(raw))), self._blobs)
        if isinstance(item, Compaction) and not (
            0 <= item.replaced_turns <= depth and 0 <= item.retained_turns <= depth
        ):
            # It would stand for turns that are not there.
            self._skipped.append("a summary of turns that are not there")
            return ErasedItem(is_summary=True)
        return item

    def _without_missing_images(self, item: Item) -> Item:
        """The item without images whose bytes are not there: its words stay."""
        if not has_image(item):
            return item
        if isinstance(item, Message):
            return msgspec.structs.replace(item, content=self._present_parts(item.content))
        assert isinstance(item, FunctionCallOutput), "only these have images"
        return msgspec.structs.replace(item, output=self._present_parts(item.output))

    def _present_parts(self, content: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
        if isinstance(content, str):
            return content
        present = tuple(part for part in content if not self._is_missing(part))
        if len(present) < len(content):
            self._skipped.append("an image whose bytes are not in the document")
        return present

    def _is_missing(self, part: Part) -> bool:
        if not isinstance(part, InputImage) or not part.image_url.startswith("blob:"):
            return False
        return part.image_url.removeprefix("blob:") not in self._blobs


def _end_of(turn: DocumentTurn, ended_at: float) -> End:
    status: TurnStatus = "incomplete" if turn.status == "in_progress" else turn.status
    return End(
        status,
        ended_at,
        turn.usage,
        turn.error,
        turn.incomplete_reason,
        turn.tokens,
        turn.trace,
        turn.logprob_counts,
        turn.context_turns,
        turn.answered_by,
        turn.cost,
        turn.approvals,
        turn.rhythm,
    )
