"""Responses API upstream: the model, its request encoder, and messages as input items.

Nothing is stored upstream: the whole context goes with each call, and with it the model's
encrypted reasoning, so that it does not have to reason again. A message's reasoning
(``core.reasoning_sidecar``) becomes reasoning items for the model that made it; other reasoning
is left out. Tools that the upstream runs itself, and their items, are sent as they are. The codec
does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from antiphon.core.extra_fields import add_extra_fields
from antiphon.core.function_schemas import complete_parameters
from antiphon.core.tool_rules import HOSTED_PREFIX, is_tool_allowed
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, INCLUDE_LOGPROBS, FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.openai.chat_completions import (
    decode_fields,
)
from antiphon.models.openai.logprobs_citations import wants_logprobs
from antiphon.models.openai.responses_input import InputEncoder
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
        self._input = InputEncoder()

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
        given = self._input.encode(call, origin, frozenset(custom_names))
        return b'{"model":%b,"input":[%b],%b' % (name, b",".join(given), rest[1:])


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
        tool_names = [tool.name for tool in call.options.tools]
        return ResponsesParser(self._encoder.origin(call), tool_names)
