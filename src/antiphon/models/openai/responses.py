"""Responses API upstream: the model, its request encoder, and messages as input items.

Nothing is stored upstream: the whole context goes with each call, and with it the model's
encrypted reasoning, so that it does not have to reason again. A message's reasoning
(``core.reasoning_sidecar``) becomes reasoning items for the model that made it; other reasoning
is left out. Tools that the upstream runs itself, and their items, are sent as they are. The codec
does no I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import msgspec

from antiphon.core.custom_tool_input import input_of
from antiphon.core.extra_fields import add_extra_fields
from antiphon.core.function_schemas import complete_parameters
from antiphon.core.reasoning_sidecar import ReasoningSidecar
from antiphon.core.tool_rules import HOSTED_PREFIX, is_tool_allowed
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, INCLUDE_LOGPROBS, FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.openai.chat_completions import (
    ChatMessage,
    MessageFile,
    MessagePart,
    MessageToolCall,
    decode_fields,
    decode_messages,
)
from antiphon.models.openai.logprobs_citations import wants_logprobs
from antiphon.models.openai.responses_stream import ResponsesParser
from antiphon.models.openai.tool_encoding import ToolEncoder
from antiphon.models.openai.upstream_model import UpstreamModel
from antiphon.turn.protocols import ModelCall

_encode = msgspec.json.Encoder().encode
_DEFAULTS = Options()
#: What is asked for by other means; the rest of ``include`` is about hosted tools.
_OWN_INCLUDES = (INCLUDE_ENCRYPTED_REASONING, INCLUDE_LOGPROBS)


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of the request's body but ``model`` and ``input``.

    Fields without a default are always sent, since upstreams have defaults of their own.
    """

    store: bool
    truncation: str
    stream: bool = False
    include: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    tools: msgspec.Raw | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    top_logprobs: int | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None


class ResponsesEncoder:
    """Writes request bodies for one endpoint, which ``host`` names.

    ``extra`` are fields of every request.
    """

    def __init__(
        self, *, upstream_name: str | None, host: str, extra: Mapping[str, Any] | None = None
    ) -> None:
        self._name = upstream_name
        self._extra = extra or {}
        self._host = host
        self._tools = ToolEncoder(_tool)

    def origin(self, call: ModelCall) -> str:
        """The model behind a call, as reasoning items name it."""
        return f"{self._host}/{self._name or call.model}"

    def encode(self, call: ModelCall) -> bytes:
        """The request's JSON. Raises ``InvalidRequestError`` for unsupported options."""
        options, origin = call.options, self.origin(call)
        if options.stop:
            raise InvalidRequestError(
                "This model's API knows no stop sequences.",
                code="unsupported_parameter",
                param="stop",
            )
        name = _encode(self._name or call.model)
        tools = self._tools.encode(options.tools, options.hosted_tools)
        rest = _encode(
            _build_body(options, tools, (INCLUDE_ENCRYPTED_REASONING,), stream=call.stream)
        )
        if self._extra or options.extra:
            rest = _encode(add_extra_fields(decode_fields(rest), self._extra, options.extra))
        custom_names = {tool.name for tool in options.tools if tool.is_custom}
        given = to_input_items(call.messages, origin, custom_names)
        return b"".join((b'{"model":', name, b',"input":', given, b",", rest[1:]))


def _build_body(
    options: Options, tools: msgspec.Raw | None, include: tuple[str, ...], *, stream: bool
) -> _Body:
    if options == _DEFAULTS:
        return _Body(store=False, truncation="disabled", stream=stream, include=include)
    logprobs = wants_logprobs(options)
    if options.hosted_tools:
        include += tuple(one for one in options.include if one not in _OWN_INCLUDES)
    return _Body(
        store=False,
        # Trimming is done here, where the history is stored.
        truncation="disabled",
        stream=stream,
        include=(*include, INCLUDE_LOGPROBS) if logprobs else include,
        temperature=options.temperature,
        top_p=options.top_p,
        max_output_tokens=options.max_output_tokens,
        # OpenAI's own API rejects penalties, so 0 is not sent.
        frequency_penalty=options.frequency_penalty or None,
        presence_penalty=options.presence_penalty or None,
        tools=tools,
        tool_choice=_tool_choice(options) if tools else None,
        parallel_tool_calls=False if tools and not options.parallel_tool_calls else None,
        max_tool_calls=options.max_tool_calls if options.hosted_tools else None,
        text=_without_none(format=options.text_format, verbosity=options.verbosity),
        reasoning=_without_none(effort=options.reasoning_effort, summary=options.reasoning_summary),
        top_logprobs=options.top_logprobs if logprobs else None,
        service_tier=options.service_tier,
        prompt_cache_key=options.prompt_cache_key,
        safety_identifier=options.safety_identifier,
        user=options.user,
    )


def _tool(tool: FunctionTool) -> dict[str, Any]:
    """A tool with explicit schema and strictness: this API's default is strict."""
    body = _tool_name(tool)
    if tool.description is not None:
        body["description"] = tool.description
    if tool.is_custom:
        return body if tool.format is None else {**body, "format": tool.format}
    body["parameters"] = complete_parameters(tool.parameters)
    body["strict"] = bool(tool.strict)
    return body


def _tool_name(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "custom" if tool.is_custom else "function", "name": tool.name}


def _tool_choice(options: Options) -> str | dict[str, Any] | None:
    kind, _, name = options.tool_choice.partition(":")
    if kind == "hosted":
        return {"type": name}
    if kind == "function":
        chosen = [tool for tool in options.tools if tool.name == name]
        return _tool_name(chosen[0]) if chosen else {"type": "function", "name": name}
    allowed = [_tool_name(one) for one in options.tools if is_tool_allowed(options, one.name)]
    allowed += [
        {"type": one["type"]}
        for one in options.hosted_tools
        if is_tool_allowed(options, HOSTED_PREFIX + one["type"])
    ]
    if kind == "none" or not allowed:
        return "none"
    if len(allowed) < len(options.tools) + len(options.hosted_tools):
        return {"type": "allowed_tools", "mode": kind, "tools": allowed}
    return None if kind == "auto" else kind


def _without_none(**fields: Any) -> dict[str, Any] | None:
    return {name: value for name, value in fields.items() if value is not None} or None


class ResponsesModel(UpstreamModel):
    """One endpoint that speaks the Responses API; see ``UpstreamModel`` for its arguments.

    Encrypted reasoning is requested with each call. If a model rejects that, the request is
    repeated without, for all later calls too. If a model cannot read its own old reasoning,
    the request is repeated without that.
    """

    path = "/responses"
    runs_hosted_tools = True

    @cached_property
    def _encoder(self) -> ResponsesEncoder:
        return ResponsesEncoder(
            upstream_name=self._upstream_name, host=self._url.authority, extra=self._extra
        )

    def _request_body(self, call: ModelCall) -> bytes:
        return self._encoder.encode(call)

    def _create_parser(self, call: ModelCall) -> ResponsesParser:
        return ResponsesParser(self._encoder.origin(call))


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
    ids = _CallIds(custom_names)
    return _encode(
        [item for one in decode_messages(messages) for item in _message_items(one, origin, ids)]
    )


class _CallIds:
    """Makes call ids valid for the API: at most 64 characters, and unique.

    Other dialects' models make longer ids, or reuse the same ones in each answer.
    """

    def __init__(self, custom_names: Collection[str] = ()) -> None:
        self.custom_names = custom_names
        #: The calls of custom tools, by the ids that they were given first.
        self.custom_ids: set[str] = set()
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
