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
from antiphon.models.message_array import ChatMessage, File, Part, decode_messages

#: The longest id of a call that the API takes.
_LONGEST_ID = 64

_Item: TypeAlias = dict[str, Any]


_encode = msgspec.json.Encoder().encode


def input_of(messages: bytes, origin: str | None) -> bytes:
    """The items' JSON array; ``origin`` is the model that is asked, None: no reasoning at all."""
    ids = _Ids()
    return _encode([item for one in decode_messages(messages) for item in _items(one, origin, ids)])


class _Ids:
    """Names calls as the API takes them: in no more than 64 characters, and none twice.

    Other dialects' models make longer ids, or begin with the same again at each answer.
    """

    def __init__(self) -> None:
        self._uses: dict[str, int] = {}

    def call(self, given: str) -> str:
        """The next call with this id."""
        self._uses[given] = self._uses.get(given, 0) + 1
        return self.output(given)

    def output(self, given: str) -> str:
        """An output for the last call with this id."""
        use = self._uses.get(given, 1)
        if use == 1 and 0 < len(given) <= _LONGEST_ID:
            return given
        return "call_" + hashlib.sha256(f"{use} {given}".encode()).hexdigest()[:32]


def _items(message: ChatMessage, origin: str | None, ids: _Ids) -> Iterator[_Item]:
    match message.role:
        case "assistant":
            yield from _made(message, origin, ids)
        case "tool":
            call_id = ids.output(message.tool_call_id or "")
            output = _content(message.content or "")
            yield {"type": "function_call_output", "call_id": call_id, "output": output}
        case role:
            yield {"type": "message", "role": role, "content": _content(message.content or "")}


def _made(message: ChatMessage, origin: str | None, ids: _Ids) -> Iterator[_Item]:
    """What a model said and called, each behind the reasoning that led to it."""
    thoughts = [one for one in message.carried if origin and one.origin in (None, origin)]
    text = _text(message.content or "")
    if text:
        yield from _reasoning(thoughts, 0)
        part = {"type": "output_text", "text": text}
        said: _Item = {"type": "message", "role": "assistant", "content": [part]}
        yield said if message.phase is None else {**said, "phase": message.phase}
    for place, call in enumerate(message.tool_calls or (), 1):
        yield from _reasoning(thoughts, place)
        yield {
            "type": "function_call",
            "call_id": ids.call(call.id),
            "name": call.function.name,
            "arguments": call.function.arguments,
        }


def _reasoning(thoughts: Sequence[ReasoningSidecar], place: int) -> Iterator[_Item]:
    for one in thoughts:
        if one.target == place:
            yield {
                "type": "reasoning",
                "summary": one.summary,
                "encrypted_content": one.encrypted_content,
            }


def _content(content: str | list[Part]) -> str | list[_Item]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _text(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _part(part: Part) -> _Item:
    if part.image_url is not None:
        image = part.image_url
        return {"type": "input_image", "image_url": image.url, "detail": image.detail}
    if part.file is not None:
        return {"type": "input_file", **_present(part.file)}
    if part.video_url is not None:
        return {"type": "input_video", "video_url": part.video_url.url}
    return {"type": "input_text", "text": part.text}


def _present(file: File) -> _Item:
    return {name: it for name, it in msgspec.structs.asdict(file).items() if it is not None}
