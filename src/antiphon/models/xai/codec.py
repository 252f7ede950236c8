"""xAI codec: encodes a call as a request of xAI's SDK, decodes its answers to deltas. Pure.

Nothing is stored upstream: the whole context goes with each call, and with it the model's
encrypted reasoning, so that it does not have to reason again. A message's reasoning
(``core.reasoning_sidecar``) goes back to the model that made it; other reasoning is left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf import json_format

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    Finish,
    FinishReason,
    ForeignItemDelta,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.extra_fields import select_extra_fields
from antiphon.core.reasoning_sidecar import ReasoningSidecar
from antiphon.core.tool_rules import HOSTED_PREFIX, hosted_choice_error
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import InvalidRequestError
from antiphon.models.openai.chat_completions import (
    ChatMessage,
    MessageFile,
    MessagePart,
    MessageToolCall,
    decode_messages,
)
from antiphon.models.openai.logprobs_citations import (
    normalize_citation,
    normalize_logprobs,
    wants_logprobs,
)
from antiphon.models.xai.hosted_tools import hosted_call_item, hosted_tool_protos
from antiphon.protos.xai import (
    REASONING_EFFORTS,
    ROLES,
    SERVICE_TIERS,
    Proto,
    chat_pb2,
    choice_proto,
    format_proto,
    image_pb2,
    sample_pb2,
    tool_proto,
    usage_pb2,
)
from antiphon.turn.protocols import ModelCall

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


#: What of a request antiphon decides.
_OWN_FIELDS = frozenset({"store_messages", "use_encrypted_content"})
_TIERS: dict[Any, int] = {
    None: usage_pb2.SERVICE_TIER_UNSPECIFIED,
    "auto": usage_pb2.SERVICE_TIER_UNSPECIFIED,
    **SERVICE_TIERS,
}
#: The API requires parameters of every function.
_NO_PARAMETERS = {"type": "object", "properties": {}}


def build_request(call: ModelCall, name: str, origin: str) -> Proto:
    """A ``GetCompletionsRequest`` to the model ``name``, ``origin`` in reasoning items.

    Raises ``InvalidRequestError`` for options that the API does not support, with the field.
    """
    messages = to_xai_messages(call.messages, origin)
    try:
        request = _request(call.options)
        request.model = name
        request.messages.extend(messages)
    except ValueError as error:
        # A number that is too big for its field.
        raise InvalidRequestError(f"The model cannot be asked that: {error}") from error
    return request


def add_extra_fields(request: Proto, extra: Mapping[str, Any]) -> list[str]:
    """Set further fields of a request, as JSON; those that it has set stay.

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


def without_reasoning(request: Proto) -> Proto | None:
    """A copy that neither holds nor requests encrypted reasoning; None: it does neither."""
    if not request.use_encrypted_content:
        return None
    other = chat_pb2.GetCompletionsRequest()
    other.CopyFrom(request)
    other.use_encrypted_content = False
    for message in other.messages:
        message.ClearField("encrypted_content")
        message.ClearField("reasoning_content")
    return other


def _request(options: Options) -> Proto:
    if options.tool_choice.startswith(HOSTED_PREFIX):
        raise hosted_choice_error(options.tool_choice)
    tools = [*map(_tool, options.tools), *hosted_tool_protos(options.hosted_tools)]
    logprobs = wants_logprobs(options)
    return chat_pb2.GetCompletionsRequest(
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


_FINISH_REASONS: dict[int, FinishReason] = {
    sample_pb2.REASON_STOP: "stop",
    sample_pb2.REASON_MAX_LEN: "length",
    sample_pb2.REASON_MAX_CONTEXT: "length",
    sample_pb2.REASON_TIME_LIMIT: "length",
    sample_pb2.REASON_TOOL_CALLS: "tool_calls",
}
#: Tool calls that the client runs; others run upstream.
_CLIENT_TOOL_TYPES = {chat_pb2.TOOL_CALL_TYPE_INVALID, chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL}


class XaiParser:
    """Reads one answer: call ``feed`` with each chunk or the whole completion, then ``finish``.

    ``origin`` is the model, as reasoning items name it. ``has_finish_reason``: the answer is
    complete; one that ends without it was cut off.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._encrypted_reasoning: list[str] = []
        self._calls: dict[str, int] = {}
        #: The ids of calls that ran upstream.
        self._hosted_calls: set[str] = set()
        self._finish_reason = 0
        self._usage: Proto | None = None
        self._annotations: list[dict[str, Any]] = []
        self._citation_urls: list[str] = []
        #: Logprobs of tokens without text yet: a token may be half a character.
        self._logprobs: tuple[dict[str, Any], ...] = ()

    @property
    def has_finish_reason(self) -> bool:
        return self._finish_reason in _FINISH_REASONS

    def feed(self, answer: Proto) -> list[Delta]:
        """The deltas of a ``GetChatCompletionChunk`` or a ``GetChatCompletionResponse``."""
        out: list[Delta] = []
        for output in answer.outputs:
            message = output.delta if hasattr(output, "delta") else output.message
            # The output of a tool that ran upstream is not the model's text.
            if message.role != chat_pb2.ROLE_TOOL:
                if output.logprobs.content:
                    self._logprobs += _to_logprobs(output.logprobs)
                self._add_message(message, out)
            self._finish_reason = output.finish_reason or self._finish_reason
        if answer.HasField("usage"):
            self._usage = answer.usage
        self._citation_urls += answer.citations
        return out

    def finish(self) -> list[Delta]:
        """The final deltas; only where ``has_finish_reason``."""
        out: list[Delta] = []
        if not self._annotations:
            # Without positions, where the model only lists its sources.
            self._add_annotations(({"url": url} for url in self._citation_urls), out)
        self._flush_reasoning(out)
        if self._usage is not None:
            out.append(UsageUpdate(_to_usage(self._usage)))
        reason = _FINISH_REASONS[self._finish_reason]
        out.append(Finish("tool_calls" if reason == "stop" and self._calls else reason))
        return out

    def _add_message(self, message: Proto, out: list[Delta]) -> None:
        if message.reasoning_content:
            out.append(ReasoningSummaryDelta(message.reasoning_content))
        if message.encrypted_content:
            # It may arrive in pieces.
            self._encrypted_reasoning.append(message.encrypted_content)
        if message.content or message.tool_calls:
            self._flush_reasoning(out)
        if message.content:
            out.append(OutputTextDelta(message.content, self._logprobs))
            self._logprobs = ()
        self._add_annotations((_citation_fields(one) for one in message.citations), out)
        for call in message.tool_calls:
            if call.type in _CLIENT_TOOL_TYPES:
                out.append(self._tool_call_delta(call))
            elif call.id not in self._hosted_calls and (item := hosted_call_item(call)):
                self._hosted_calls.add(call.id)
                out.append(ForeignItemDelta(item))

    def _flush_reasoning(self, out: list[Delta]) -> None:
        if self._encrypted_reasoning:
            out.append(EncryptedReasoning("".join(self._encrypted_reasoning), self._origin))
            self._encrypted_reasoning = []

    def _add_annotations(self, sources: Iterable[dict[str, Any]], out: list[Delta]) -> None:
        for source in sources:
            annotation = normalize_citation(source)
            if annotation is not None and annotation not in self._annotations:
                self._annotations.append(annotation)
                out.append(AnnotationDelta(annotation))

    def _tool_call_delta(self, call: Proto) -> ToolCallDelta:
        """A call, or more of one: a later piece has the first one's id."""
        key = call.id or f"#{len(self._calls)}"
        arguments = call.function.arguments
        if key in self._calls:
            return ToolCallDelta(self._calls[key], arguments=arguments)
        self._calls[key] = index = len(self._calls)
        return ToolCallDelta(index, call.id or None, call.function.name, arguments)


def _citation_fields(citation: Proto) -> dict[str, Any]:
    kind = citation.WhichOneof("citation")
    return {
        "url": getattr(getattr(citation, kind), "url", None) if kind else None,
        "start_index": citation.start_index,
        "end_index": citation.end_index,
    }


def _to_logprobs(logprobs: Proto) -> tuple[dict[str, Any], ...]:
    return normalize_logprobs(
        [
            {**_to_logprob(one), "top_logprobs": [_to_logprob(other) for other in one.top_logprobs]}
            for one in logprobs.content
        ]
    )


def _to_logprob(one: Proto) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.bytes)}


def _to_usage(usage: Proto) -> Usage:
    prompt, completion, reasoning = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
    )
    if usage.total_tokens == prompt + completion + reasoning:
        # xAI counts reasoning apart from the completion, we within it.
        completion += reasoning
    return Usage(prompt, completion, usage.cached_prompt_text_tokens, reasoning)
