"""From a messages array to the messages of xAI's SDK. Pure.

What a message carries (``core.carried``) goes back to the model that made it; all other
reasoning stays behind.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from antiphon.core.carried import KEY, Carried
from antiphon.errors import InvalidRequest
from antiphon.models.xai_protos import Proto, chat_pb2, image_pb2

_ROLES = {
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "tool": chat_pb2.ROLE_TOOL,
}
_DETAILS = {
    "auto": image_pb2.DETAIL_AUTO,
    "low": image_pb2.DETAIL_LOW,
    "high": image_pb2.DETAIL_HIGH,
}


class _Image(msgspec.Struct, frozen=True):
    url: str
    detail: str = "auto"


class _File(msgspec.Struct, frozen=True):
    filename: str = ""
    file_data: str = ""
    file_url: str = ""


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
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    carried: tuple[Carried, ...] = ()


_decode = msgspec.json.Decoder(list[_Message]).decode


def messages_of(messages: bytes, origin: str) -> list[Proto]:
    """The SDK's messages; ``origin`` is the model that is asked.

    Raises ``InvalidRequest`` for content that the API has no place for.
    """
    return [_message(one, origin) for one in _decode(messages)]


def _message(given: _Message, origin: str) -> Proto:
    message = chat_pb2.Message(
        role=_ROLES[given.role],
        content=_content(given.content),
        name=given.name or "",
        tool_calls=[_call(call) for call in given.tool_calls or ()],
        tool_call_id=given.tool_call_id,
    )
    thought = _thought(given.carried, origin)
    if thought is not None:
        message.encrypted_content = thought.encrypted_content
        message.reasoning_content = "".join(part.text for part in thought.summary)
    return message


def _thought(carried: Sequence[Carried], origin: str) -> Carried | None:
    """What a message may say of the reasoning behind it: there is one for a message."""
    return next((one for one in carried if one.origin in (None, origin)), None)


def _call(call: _Call) -> Proto:
    return chat_pb2.ToolCall(
        id=call.id,
        type=chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL,
        status=chat_pb2.TOOL_CALL_STATUS_COMPLETED,
        function=chat_pb2.FunctionCall(name=call.function.name, arguments=call.function.arguments),
    )


def _content(content: str | list[_Part] | None) -> list[Proto]:
    # A message without any content is refused, one with an empty text is not.
    parts = [_part(part) for part in content] if isinstance(content, list) else []
    return parts or [chat_pb2.Content(text=content if isinstance(content, str) else "")]


def _part(part: _Part) -> Proto:
    if part.image_url is not None:
        image = part.image_url
        return chat_pb2.Content(
            image_url=image_pb2.ImageUrlContent(
                image_url=image.url, detail=_DETAILS.get(image.detail, image_pb2.DETAIL_AUTO)
            )
        )
    if part.file is not None:
        return chat_pb2.Content(file=_file(part.file))
    if part.video_url is not None:
        raise InvalidRequest(
            "This model takes no videos.", code="unsupported_parameter", param="input"
        )
    return chat_pb2.Content(text=part.text)


def _file(file: _File) -> Proto:
    """A document: where it is, or its bytes out of a ``data:`` URL or base64."""
    if file.file_url:
        return chat_pb2.FileContent(filename=file.filename, url=file.file_url)
    kind, data = "", file.file_data
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        kind = head.removeprefix("data:").partition(";")[0]
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("The file's data is not base64.", param="input") from error
    return chat_pb2.FileContent(filename=file.filename, data=content, mime_type=kind)
