"""Chat completions: the upstream model, its request encoder, its messages array.

The encoder does no I/O. Messages go into the request as they are stored, with the fields that came
from the model that is called (``core.provider_fields``) and without the reasoning of others. The
answers' parser is in ``chat_completions_stream``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from antiphon.core.deltas import Delta
from antiphon.core.extra_fields import add_extra_fields
from antiphon.core.function_schemas import complete_parameters
from antiphon.core.items import AudioData, Phase
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.reasoning_sidecar import (
    FIELDS_KEY,
    ITEMS_KEY,
    NATIVE_KEY,
    PHASE_KEY,
    REASONING_KEY,
    ReasoningSidecar,
)
from antiphon.core.tool_rules import HOSTED_PREFIX, hosted_choice_error
from antiphon.core.turns import FunctionTool, Options
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.models.openai.logprobs_citations import wants_logprobs
from antiphon.models.openai.message_fitting import MessageFitter
from antiphon.models.openai.plain_answer import plain_answer_deltas
from antiphon.models.openai.tool_encoding import ToolEncoder
from antiphon.models.openai.upstream_model import UpstreamModel
from antiphon.turn.protocols import ModelCall


class MessageImage(msgspec.Struct, frozen=True):
    url: str
    detail: str = "auto"


class MessageFile(msgspec.Struct, frozen=True, omit_defaults=True):
    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class MessageVideo(msgspec.Struct, frozen=True):
    url: str


class MessagePart(msgspec.Struct, frozen=True):
    text: str = ""
    image_url: MessageImage | None = None
    file: MessageFile | None = None
    video_url: MessageVideo | None = None
    input_audio: AudioData | None = None


class MessageFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class MessageToolCall(
    msgspec.Struct,
    frozen=True,
    rename={"provider_fields": FIELDS_KEY, "native_item": NATIVE_KEY},
):
    id: str
    function: MessageFunction
    provider_fields: ProviderFields | None = None
    native_item: dict[str, Any] | None = None


class ChatMessage(
    msgspec.Struct,
    frozen=True,
    rename={
        "reasoning": REASONING_KEY,
        "phase": PHASE_KEY,
        "items_behind": ITEMS_KEY,
        "native_item": NATIVE_KEY,
    },
):
    role: str
    content: str | list[MessagePart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: tuple[ReasoningSidecar, ...] = ()
    items_behind: tuple[dict[str, Any], ...] = ()
    phase: Phase | None = None
    #: The item that it is a view of (``core.reasoning_sidecar``).
    native_item: dict[str, Any] | None = None


decode_messages = msgspec.json.Decoder(list[ChatMessage]).decode
decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


_encode = msgspec.json.Encoder().encode
_DEFAULTS = Options()
#: The names of the token limit.
_LIMITS = ("max_tokens", "max_completion_tokens")


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of the request's body but ``model`` and ``messages``."""

    stream: bool = False
    stream_options: dict[str, bool] | None = None
    store: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: msgspec.Raw | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None


class ChatCompletionsEncoder:
    """Writes request bodies for one endpoint, which ``host`` names.

    ``openai``: the endpoint is OpenAI's own. Then the token limit is sent as
    ``max_completion_tokens``, since its newer models reject ``max_tokens``, and ``store: false``
    is sent, since accounts may store by default. All others get ``max_tokens``, which every
    server supports, and no ``store``, which strict ones reject. ``extra`` are fields of every
    request.
    """

    def __init__(
        self,
        *,
        upstream_name: str | None,
        openai: bool,
        host: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = upstream_name
        self._extra = extra or {}
        self._host = host
        self._openai = openai
        self._tools = ToolEncoder(_tool)
        self._messages = MessageFitter()
        self._default_options = {
            stream: self._encode_options(_DEFAULTS, stream) for stream in (False, True)
        }

    def origin(self, call: ModelCall) -> str:
        """The model behind a call, as the fields of its answers name it."""
        return f"{self._host}/{self._name or call.model}"

    def encode(self, call: ModelCall) -> bytes:
        """The request's JSON."""
        options = call.options
        rest = (
            self._default_options[call.stream]
            if options == _DEFAULTS
            else self._encode_options(options, call.stream)
        )
        name = _encode(self._name or call.model)
        messages = self._messages.fit(call, self.origin(call))
        return b"".join((b'{"model":', name, b',"messages":', messages, rest))

    def _encode_options(self, options: Options, stream: bool) -> bytes:
        tools = bool(options.tools)
        limit = options.max_output_tokens
        logprobs = wants_logprobs(options)
        body = _Body(
            stream=stream,
            stream_options={"include_usage": True} if stream else None,
            store=False if self._openai else None,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=None if self._openai else limit,
            max_completion_tokens=limit if self._openai else None,
            frequency_penalty=options.frequency_penalty,
            presence_penalty=options.presence_penalty,
            seed=options.seed,
            stop=options.stop,
            tools=self._tools.encode(options.tools),
            tool_choice=_tool_choice(options),
            parallel_tool_calls=False if tools and not options.parallel_tool_calls else None,
            response_format=_response_format(options.text_format),
            reasoning_effort=options.reasoning_effort,
            verbosity=options.verbosity,
            logprobs=logprobs,
            top_logprobs=options.top_logprobs if logprobs else None,
            service_tier=options.service_tier,
            prompt_cache_key=options.prompt_cache_key,
            safety_identifier=options.safety_identifier,
            user=options.user,
        )
        fields = _encode(body)
        if self._extra or options.extra:
            given = decode_fields(fields)
            fields = _encode(add_extra_fields(given, self._extra, options.extra, limits=_LIMITS))
        fields = fields[1:]
        return fields if fields == b"}" else b"," + fields


def _tool(tool: FunctionTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = complete_parameters(tool.parameters)
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(options: Options) -> str | dict[str, Any] | None:
    choice = options.tool_choice
    if choice.startswith(HOSTED_PREFIX):
        raise hosted_choice_error(choice)
    if choice == "auto" or not options.tools:
        return None
    if choice.startswith("function:"):
        return {"type": "function", "function": {"name": choice.removeprefix("function:")}}
    return choice


def _response_format(text_format: dict[str, Any] | None) -> dict[str, Any] | None:
    if text_format is None or text_format.get("type") == "text":
        return None
    if text_format.get("type") != "json_schema":
        return text_format
    schema = {key: value for key, value in text_format.items() if key != "type"}
    return {"type": "json_schema", "json_schema": schema}


class ChatCompletionsModel(UpstreamModel):
    """One endpoint that speaks chat completions; see ``UpstreamModel`` for its arguments."""

    path = "/chat/completions"

    @cached_property
    def _encoder(self) -> ChatCompletionsEncoder:
        openai = _is_openai(self._url.host or "")
        return ChatCompletionsEncoder(
            upstream_name=self._upstream_name,
            openai=openai,
            host=self._url.authority,
            extra=self._extra,
        )

    def _request_body(self, call: ModelCall) -> bytes:
        return self._encoder.encode(call)

    def _parse_plain(self, body: bytes) -> list[Delta] | None:
        return plain_answer_deltas(body)

    def _create_parser(self, call: ModelCall) -> ChatCompletionsParser:
        tool_names = [tool.name for tool in call.options.tools]
        return ChatCompletionsParser(self._encoder.origin(call), tool_names)


def _is_openai(host: str) -> bool:
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
