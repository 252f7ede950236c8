"""xAI request encoding: calls as requests of xAI's SDK, in protobuf's bytes. Pure.

Nothing is stored upstream: the whole context goes with each call, and with it the model's
encrypted reasoning, so that it does not have to reason again. A message's reasoning
(``core.reasoning_sidecar``) goes back to the model that made it; other reasoning is left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from google.protobuf import json_format

from antiphon.core.extra_fields import select_extra_fields
from antiphon.core.reasoning_sidecar import ReasoningSidecar
from antiphon.core.tool_rules import HOSTED_PREFIX, hosted_choice_error
from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.openai.chat_completions import (
    ChatMessage,
    MessageFile,
    MessagePart,
    MessageToolCall,
    decode_messages,
)
from antiphon.models.openai.logprobs_citations import (
    wants_logprobs,
)
from antiphon.models.piece_cache import CAPACITY, PieceCache
from antiphon.models.xai.hosted_tools import hosted_tool_protos
from antiphon.protos.xai import (
    REASONING_EFFORTS,
    ROLES,
    SERVICE_TIERS,
    Proto,
    chat_pb2,
    choice_proto,
    format_proto,
    image_pb2,
    tool_proto,
    usage_pb2,
)
from antiphon.turn.protocols import ModelCall

#: What of a request antiphon decides.
_OWN_FIELDS: Final = frozenset({"store_messages", "use_encrypted_content"})

_encode = msgspec.json.Encoder().encode
_decode_options = msgspec.json.Decoder(Options).decode

_ROLES: dict[Any, int] = {
    **ROLES,
    "tool": chat_pb2.ROLE_TOOL,
}
_DETAILS = {
    "auto": image_pb2.DETAIL_AUTO,
    "low": image_pb2.DETAIL_LOW,
    "high": image_pb2.DETAIL_HIGH,
    "original": image_pb2.DETAIL_HIGH,
}


def to_xai_messages(messages: bytes, origin: str) -> list[Proto]:
    """The SDK's messages; ``origin`` is the model that is called.

    Raises ``InvalidRequestError`` for content that the API does not support.
    """
    return [_message(one, origin) for one in decode_messages(messages)]


def _message(given: ChatMessage, origin: str) -> Proto:
    message = chat_pb2.Message(
        role=_ROLES[given.role],
        content=_content(given.content),
        name=given.name or "",
        tool_calls=[_call(call) for call in given.tool_calls or ()],
        tool_call_id=given.tool_call_id,
    )
    reasoning = _own_reasoning(given.reasoning, origin)
    if reasoning is not None:
        message.encrypted_content = reasoning.encrypted_content
        message.reasoning_content = "".join(part.text for part in reasoning.summary)
    return message


def _own_reasoning(reasoning: Sequence[ReasoningSidecar], origin: str) -> ReasoningSidecar | None:
    """The reasoning of a message that this model made: the API takes one per message."""
    own = (one for one in reasoning if one.encrypted_content and one.origin in (None, origin))
    return next(own, None)


def _call(call: MessageToolCall) -> Proto:
    return chat_pb2.ToolCall(
        id=call.id,
        type=chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL,
        status=chat_pb2.TOOL_CALL_STATUS_COMPLETED,
        function=chat_pb2.FunctionCall(name=call.function.name, arguments=call.function.arguments),
    )


def _content(content: str | list[MessagePart] | None) -> list[Proto]:
    # A message without any content is refused, one with an empty text is not.
    parts = [_part(part) for part in content] if isinstance(content, list) else []
    return parts or [chat_pb2.Content(text=content if isinstance(content, str) else "")]


def _part(part: MessagePart) -> Proto:
    if part.image_url is not None:
        image = part.image_url
        return chat_pb2.Content(
            image_url=image_pb2.ImageUrlContent(
                image_url=image.url, detail=_DETAILS.get(image.detail, image_pb2.DETAIL_AUTO)
            )
        )
    if part.file is not None:
        return chat_pb2.Content(file=_file(part.file))
    if part.video_url is not None or part.input_audio is not None:
        kind = "videos" if part.video_url is not None else "audio"
        raise InvalidRequestError(
            f"This model takes no {kind}.", code="unsupported_parameter", param="input"
        )
    return chat_pb2.Content(text=part.text)


def _file(file: MessageFile) -> Proto:
    """A document: where it is, or its bytes out of a ``data:`` URL or base64."""
    if file.file_url:
        return chat_pb2.FileContent(filename=file.filename or "", url=file.file_url)
    kind, data = "", file.file_data or ""
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        kind = head.removeprefix("data:").partition(";")[0]
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("The file's data is not base64.", param="input") from error
    return chat_pb2.FileContent(filename=file.filename or "", data=content, mime_type=kind)


_TIERS: dict[Any, int] = {
    None: usage_pb2.SERVICE_TIER_UNSPECIFIED,
    "auto": usage_pb2.SERVICE_TIER_UNSPECIFIED,
    **SERVICE_TIERS,
}
#: The API requires parameters of every function.
_NO_PARAMETERS = {"type": "object", "properties": {}}


class XaiRequestEncoder:
    """Writes the requests of one model, as bytes: each piece of a context, and tools, once.

    The concatenation of two messages' bytes is a message with the fields of both.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._messages = PieceCache(_encode_piece, len, capacity)
        self._options = PieceCache(_encode_options, len, capacity)

    def encode(self, call: ModelCall, name: str, origin: str) -> bytes:
        """A ``GetCompletionsRequest`` to the model ``name``, ``origin`` in reasoning items.

        Raises ``InvalidRequestError`` for what the API does not support, with the field.
        """
        try:
            messages = self._messages.get_all(call.pieces, origin)
            if call.options.tools:
                rest = self._options.get(_encode(call.options), name)
            else:
                rest = _request(call.options, name).SerializeToString()
        except ValueError as error:
            # A number that is too big for its field.
            raise InvalidRequestError(f"The model cannot be asked that: {error}") from error
        return b"".join((rest, *messages))


def _encode_piece(piece: bytes, origin: str) -> bytes:
    messages = to_xai_messages(b"[" + piece + b"]", origin)
    encoded: bytes = chat_pb2.GetCompletionsRequest(messages=messages).SerializeToString()
    return encoded


def _encode_options(options: bytes, name: str) -> bytes:
    encoded: bytes = _request(_decode_options(options), name).SerializeToString()
    return encoded


def without_reasoning(request: bytes) -> bytes | None:
    """A request that neither holds nor asks for encrypted reasoning; None: it does neither."""
    other = chat_pb2.GetCompletionsRequest.FromString(request)
    if not other.use_encrypted_content:
        return None
    other.use_encrypted_content = False
    for message in other.messages:
        message.ClearField("encrypted_content")
        message.ClearField("reasoning_content")
    encoded: bytes = other.SerializeToString()
    return encoded


def _request(options: Options, name: str) -> Proto:
    if options.tool_choice.startswith(HOSTED_PREFIX):
        raise hosted_choice_error(options.tool_choice)
    tools = [*map(_tool, options.tools), *hosted_tool_protos(options.hosted_tools)]
    logprobs = wants_logprobs(options)
    request = chat_pb2.GetCompletionsRequest(
        model=name,
        user=options.user,
        max_tokens=options.max_output_tokens,
        seed=options.seed,
        stop=options.stop,
        temperature=options.temperature,
        top_p=options.top_p,
        logprobs=logprobs,
        top_logprobs=options.top_logprobs if logprobs else None,
        tools=tools,
        tool_choice=choice_proto(options.tool_choice) if tools else None,
        parallel_tool_calls=options.parallel_tool_calls if tools else None,
        response_format=format_proto(options.text_format),
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        reasoning_effort=_effort(options.reasoning_effort),
        service_tier=_tier(options.service_tier),
        safety_identifier=options.safety_identifier,
        store_messages=False,
        use_encrypted_content=True,
    )
    add_extra_fields(request, options.extra)
    return request


def add_extra_fields(request: Proto, extra: Mapping[str, Any]) -> list[str]:
    """Set further fields of a request; those that it has set stay.

    Returns the names of those that the API does not have, or of another type.
    """
    unpassed: list[str] = []
    for name, value in select_extra_fields(extra).items():
        field = request.DESCRIPTOR.fields_by_name.get(name)
        if field is None or name in _OWN_FIELDS:
            unpassed.append(name)
            continue
        if field.has_presence and request.HasField(name):
            continue
        try:
            json_format.ParseDict({name: value}, request)
        except (json_format.ParseError, ValueError, TypeError):
            unpassed.append(name)
    return unpassed


def _tool(tool: FunctionTool) -> Proto:
    if tool.parameters is None:
        tool = msgspec.structs.replace(tool, parameters=_NO_PARAMETERS)
    return tool_proto(tool)


def _effort(effort: str | None) -> int | None:
    if effort is not None and effort not in REASONING_EFFORTS:
        raise InvalidRequestError(
            f"This model knows no effort '{effort}': it has {', '.join(REASONING_EFFORTS)}.",
            code="unsupported_value",
            param="reasoning.effort",
        )
    return None if effort is None else int(REASONING_EFFORTS[effort])


def _tier(tier: str | None) -> int:
    if tier not in _TIERS:
        raise InvalidRequestError(
            f"This model has no service tier '{tier}'.",
            code="unsupported_value",
            param="service_tier",
        )
    return int(_TIERS[tier])
