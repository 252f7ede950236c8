"""Responses input: messages as input items of the Responses API. Pure.

A context's pieces are converted once each. Only where a history uses an id of a call twice, which
is then replaced by another, the whole of it is converted for each call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from antiphon.core.custom_tool_input import input_of
from antiphon.core.reasoning_sidecar import ReasoningSidecar
from antiphon.models.openai.chat_completions import (
    ChatMessage,
    MessageFile,
    MessagePart,
    MessageToolCall,
    decode_messages,
)
from antiphon.models.piece_cache import CAPACITY, PieceCache
from antiphon.turn.protocols import ModelCall

_encode = msgspec.json.Encoder().encode
#: The longest id of a call that the API takes.
_MAX_ID_LENGTH = 64

_InputItem: TypeAlias = dict[str, Any]


def to_input_items(
    messages: bytes, origin: str | None, custom_names: Collection[str] = ()
) -> bytes:
    """The items' JSON array.

    ``origin`` is the model that is called, None: no reasoning. ``custom_names`` are those of
    the custom tools that it is offered.
    """
    return _encode(_to_items(messages, origin, _CallIds(custom_names)))


def _to_items(messages: bytes, origin: str | None, ids: _CallIds) -> list[_InputItem]:
    return [item for one in decode_messages(messages) for item in _message_items(one, origin, ids)]


class _PieceKey(NamedTuple):
    """What the items of a piece depend on besides it.

    ``custom_ids`` are the calls of custom tools before it whose outputs it holds.
    """

    origin: str
    custom_names: frozenset[str]
    custom_ids: frozenset[str] = frozenset()


class _PieceItems(msgspec.Struct, frozen=True, eq=False):
    """The items of a piece, comma-separated without brackets.

    ``repeats_ids``: they depend on what is before them, since ids of calls come twice.
    """

    encoded: bytes
    call_ids: tuple[str, ...] = ()
    #: Whose outputs it holds, though not them.
    earlier_ids: frozenset[str] = frozenset()
    #: Those of ``call_ids`` that are calls of custom tools.
    custom_ids: frozenset[str] = frozenset()
    repeats_ids: bool = False


def _make_piece_items(piece: bytes, key: _PieceKey) -> _PieceItems:
    ids = _CallIds(key.custom_names, key.custom_ids)
    encoded = _encode(_to_items(b"[" + piece + b"]", key.origin, ids))[1:-1]
    return _PieceItems(
        encoded,
        tuple(ids.use_counts),
        frozenset(ids.earlier_ids),
        frozenset(ids.custom_ids & ids.use_counts.keys()),
        repeats_ids=any(count > 1 for count in ids.use_counts.values()),
    )


class InputEncoder:
    """Writes the input items of calls, each piece of a context once."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._pieces = PieceCache(_make_piece_items, lambda items: len(items.encoded), capacity)

    def encode(self, call: ModelCall, origin: str, custom_names: frozenset[str]) -> list[bytes]:
        """The items of a call's messages, comma-separated, in parts between which commas belong.

        ``to_input_items`` gives the same.
        """
        key = _PieceKey(origin, custom_names)
        call_ids: set[str] = set()
        custom_ids: set[str] = set()
        parts: list[bytes] = []
        for piece, items in zip(call.pieces, self._pieces.get_all(call.pieces, key), strict=True):
            known = items
            if items.call_ids:
                if items.repeats_ids or not call_ids.isdisjoint(items.call_ids):
                    return [to_input_items(call.messages, origin, custom_names)[1:-1]]
                call_ids.update(items.call_ids)
            if custom_ids and not custom_ids.isdisjoint(items.earlier_ids):
                answered = frozenset(custom_ids & items.earlier_ids)
                known = self._pieces.get(piece, key._replace(custom_ids=answered))
            custom_ids |= items.custom_ids
            if known.encoded:
                parts.append(known.encoded)
        return parts


class _CallIds:
    """Makes call ids valid for the API: at most 64 characters, and unique.

    Other dialects' models make longer ids, or reuse the same ones in each answer.
    """

    def __init__(
        self, custom_names: Collection[str] = (), custom_ids: Collection[str] = ()
    ) -> None:
        self.custom_names = custom_names
        #: The calls of custom tools, by the ids that they were given first.
        self.custom_ids = set(custom_ids)
        self.use_counts: dict[str, int] = {}
        #: Of outputs without a call before them.
        self.earlier_ids: set[str] = set()

    def call_id(self, given: str) -> str:
        """The next call with this id."""
        self.use_counts[given] = self.use_counts.get(given, 0) + 1
        return self._valid_id(given)

    def output_id(self, given: str) -> str:
        """An output for the last call with this id."""
        if given not in self.use_counts:
            self.earlier_ids.add(given)
        return self._valid_id(given)

    def _valid_id(self, given: str) -> str:
        use = self.use_counts.get(given, 1)
        if use == 1 and 0 < len(given) <= _MAX_ID_LENGTH:
            return given
        return "call_" + hashlib.sha256(f"{use} {given}".encode()).hexdigest()[:32]


def _message_items(message: ChatMessage, origin: str | None, ids: _CallIds) -> Iterator[_InputItem]:
    match message.role:
        case "assistant":
            yield from _assistant_items(message, origin, ids)
        case "tool" if message.native_item is not None:
            # It is a part of its call's item.
            pass
        case "tool":
            given = message.tool_call_id or ""
            kind = "custom_tool_call" if given in ids.custom_ids else "function_call"
            output = _content(message.content or "")
            call_id = ids.output_id(given)
            yield {"type": f"{kind}_output", "call_id": call_id, "output": output}
        case role:
            yield {"type": "message", "role": role, "content": _content(message.content or "")}
    yield from message.items_behind


def _assistant_items(
    message: ChatMessage, origin: str | None, ids: _CallIds
) -> Iterator[_InputItem]:
    """A model's message and calls, each behind the reasoning that led to it."""
    reasoning = [
        one for one in message.reasoning if one.item or (origin and one.origin in (None, origin))
    ]
    text = _text(message.content or "")
    yield from _reasoning_items([one for one in reasoning if text or one.item], 0)
    if text:
        part = {"type": "output_text", "text": text}
        item: _InputItem = {"type": "message", "role": "assistant", "content": [part]}
        yield item if message.phase is None else {**item, "phase": message.phase}
    for position, call in enumerate(message.tool_calls or (), 1):
        yield from _reasoning_items(reasoning, position)
        if call.native_item is not None:
            yield call.native_item
            continue
        yield {**_call_fields(call, origin), **_call_item(call, ids)}


def _call_fields(call: MessageToolCall, origin: str | None) -> _InputItem:
    """What stood beside a call, if it was a call of this model."""
    given = call.provider_fields
    if given is None or given.origin not in (None, origin):
        return {}
    return {name: value for name, value in given.fields.items() if name != "function"}


def _call_item(call: MessageToolCall, ids: _CallIds) -> _InputItem:
    head = {"call_id": ids.call_id(call.id), "name": call.function.name}
    ids.custom_ids.discard(call.id)
    if call.function.name not in ids.custom_names:
        return {"type": "function_call", **head, "arguments": call.function.arguments}
    ids.custom_ids.add(call.id)
    return {"type": "custom_tool_call", **head, "input": input_of(call.function.arguments)}


def _reasoning_items(reasoning: Sequence[ReasoningSidecar], target: int) -> Iterator[_InputItem]:
    for one in reasoning:
        if one.target == target and one.item is not None:
            yield one.item
        elif one.target == target and one.content:
            # Servers that show thoughts as they are want an id, and do not look it up.
            digest = hashlib.sha256(_encode(one.content)).hexdigest()[:32]
            item = {"type": "reasoning", "id": f"rs_{digest}", "summary": one.summary}
            yield {**item, "content": one.content}
        elif one.target == target:
            yield {
                "type": "reasoning",
                "summary": one.summary,
                "encrypted_content": one.encrypted_content,
            }


def _content(content: str | list[MessagePart]) -> str | list[_InputItem]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _text(content: str | list[MessagePart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _part(part: MessagePart) -> _InputItem:
    if part.image_url is not None:
        image = part.image_url
        return {"type": "input_image", "image_url": image.url, "detail": image.detail}
    if part.file is not None:
        return {"type": "input_file", **_file_fields(part.file)}
    if part.video_url is not None:
        return {"type": "input_video", "video_url": part.video_url.url}
    if part.input_audio is not None:
        return {"type": "input_audio", "input_audio": part.input_audio}
    return {"type": "input_text", "text": part.text}


def _file_fields(file: MessageFile) -> _InputItem:
    return {name: it for name, it in msgspec.structs.asdict(file).items() if it is not None}
