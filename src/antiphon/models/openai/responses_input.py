"""From a messages array to the Responses API's input items. Pure.

What a message carries (``core.reasoning_sidecar``) becomes reasoning items, where the model that is
asked is the one that made them; all other reasoning stays behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from antiphon.core.reasoning_sidecar import ReasoningSidecar
from antiphon.models.message_array import ChatMessage, MessageFile, MessagePart, decode_messages

#: The longest id of a call that the API takes.
_MAX_ID_LENGTH = 64

_Item: TypeAlias = dict[str, Any]


_encode = msgspec.json.Encoder().encode


def to_input_items(messages: bytes, origin: str | None) -> bytes:
    """The items' JSON array; ``origin`` is the model that is asked, None: no reasoning at all."""
    ids = _CallIds()
    return _encode(
        [item for one in decode_messages(messages) for item in _message_items(one, origin, ids)]
    )


class _CallIds:
    """Names calls as the API takes them: in no more than 64 characters, and none twice.

    Other dialects' models make longer ids, or begin with the same again at each answer.
    """

    def __init__(self) -> None:
        self._use_counts: dict[str, int] = {}

    def call_id(self, given: str) -> str:
        """The next call with this id."""
        self._use_counts[given] = self._use_counts.get(given, 0) + 1
        return self.output_id(given)

    def output_id(self, given: str) -> str:
        """An output for the last call with this id."""
        use = self._use_counts.get(given, 1)
        if use == 1 and 0 < len(given) <= _MAX_ID_LENGTH:
            return given
        return "call_" + hashlib.sha256(f"{use} {given}".encode()).hexdigest()[:32]


def _message_items(message: ChatMessage, origin: str | None, ids: _CallIds) -> Iterator[_Item]:
    match message.role:
        case "assistant":
            yield from _assistant_items(message, origin, ids)
        case "tool":
            call_id = ids.output_id(message.tool_call_id or "")
            output = _content(message.content or "")
            yield {"type": "function_call_output", "call_id": call_id, "output": output}
        case role:
            yield {"type": "message", "role": role, "content": _content(message.content or "")}


def _assistant_items(message: ChatMessage, origin: str | None, ids: _CallIds) -> Iterator[_Item]:
    """What a model said and called, each behind the reasoning that led to it."""
    thoughts = [one for one in message.reasoning if origin and one.origin in (None, origin)]
    text = _text(message.content or "")
    if text:
        yield from _reasoning_items(thoughts, 0)
        part = {"type": "output_text", "text": text}
        said: _Item = {"type": "message", "role": "assistant", "content": [part]}
        yield said if message.phase is None else {**said, "phase": message.phase}
    for place, call in enumerate(message.tool_calls or (), 1):
        yield from _reasoning_items(thoughts, place)
        yield {
            "type": "function_call",
            "call_id": ids.call_id(call.id),
            "name": call.function.name,
            "arguments": call.function.arguments,
        }


def _reasoning_items(thoughts: Sequence[ReasoningSidecar], target: int) -> Iterator[_Item]:
    for one in thoughts:
        if one.target == target:
            yield {
                "type": "reasoning",
                "summary": one.summary,
                "encrypted_content": one.encrypted_content,
            }


def _content(content: str | list[MessagePart]) -> str | list[_Item]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _text(content: str | list[MessagePart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _part(part: MessagePart) -> _Item:
    if part.image_url is not None:
        image = part.image_url
        return {"type": "input_image", "image_url": image.url, "detail": image.detail}
    if part.file is not None:
        return {"type": "input_file", **_without_none(part.file)}
    if part.video_url is not None:
        return {"type": "input_video", "video_url": part.video_url.url}
    return {"type": "input_text", "text": part.text}


def _without_none(file: MessageFile) -> _Item:
    return {name: it for name, it in msgspec.structs.asdict(file).items() if it is not None}
