"""From a messages array to the Responses API's input items. Pure.

What a message carries (``core.carried``) becomes reasoning items, where the model that is
asked is the one that made them; all other reasoning stays behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from antiphon.core.carried import KEY, Carried

#: The longest id of a call that the API takes.
_LONGEST_ID = 64

_Item: TypeAlias = dict[str, Any]


class _Image(msgspec.Struct, frozen=True):
    url: str
    detail: str = "auto"


class _File(msgspec.Struct, frozen=True, omit_defaults=True):
    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class _Video(msgspec.Struct, frozen=True):
    url: str


class _Part(msgspec.Struct, frozen=True):
    text: str = ""
    image_url: _Image | None = None
    file: _File | None = None
    video_url: _Video | None = None


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    function: _Function


class _Message(msgspec.Struct, frozen=True, rename={"carried": KEY}):
    role: str
    content: str | list[_Part] = ""
    tool_calls: list[_Call] | None = None
    tool_call_id: str = ""
    carried: tuple[Carried, ...] = ()


_decode = msgspec.json.Decoder(list[_Message]).decode
_encode = msgspec.json.Encoder().encode


def input_of(messages: bytes, origin: str) -> bytes:
    """The items' JSON array; ``origin`` is the model that is asked."""
    ids = _Ids()
    return _encode([item for one in _decode(messages) for item in _items(one, origin, ids)])


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


def _items(message: _Message, origin: str, ids: _Ids) -> Iterator[_Item]:
    match message.role:
        case "assistant":
            yield from _made(message, origin, ids)
        case "tool":
            call_id = ids.output(message.tool_call_id)
            output = _content(message.content)
            yield {"type": "function_call_output", "call_id": call_id, "output": output}
        case role:
            yield {"type": "message", "role": role, "content": _content(message.content)}


def _made(message: _Message, origin: str, ids: _Ids) -> Iterator[_Item]:
    """What a model said and called, each behind the reasoning that led to it."""
    thoughts = [one for one in message.carried if one.origin in (None, origin)]
    text = _text(message.content)
    if text:
        yield from _reasoning(thoughts, 0)
        part = {"type": "output_text", "text": text}
        yield {"type": "message", "role": "assistant", "content": [part]}
    for place, call in enumerate(message.tool_calls or (), 1):
        yield from _reasoning(thoughts, place)
        yield {
            "type": "function_call",
            "call_id": ids.call(call.id),
            "name": call.function.name,
            "arguments": call.function.arguments,
        }


def _reasoning(thoughts: Sequence[Carried], place: int) -> Iterator[_Item]:
    for one in thoughts:
        if one.place == place:
            yield {
                "type": "reasoning",
                "summary": one.summary,
                "encrypted_content": one.encrypted_content,
            }


def _content(content: str | list[_Part]) -> str | list[_Item]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _text(content: str | list[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _part(part: _Part) -> _Item:
    if part.image_url is not None:
        image = part.image_url
        return {"type": "input_image", "image_url": image.url, "detail": image.detail}
    if part.file is not None:
        return {"type": "input_file", **_present(part.file)}
    if part.video_url is not None:
        return {"type": "input_video", "video_url": part.video_url.url}
    return {"type": "input_text", "text": part.text}


def _present(file: _File) -> _Item:
    return {name: it for name, it in msgspec.structs.asdict(file).items() if it is not None}
