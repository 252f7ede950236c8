"""Chat completions codec: requests in, completions and chunks out. Pure functions.

The client sends the whole history, and nothing is stored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from antiphon.api.common.body import RequestDecoder, check_depth
from antiphon.api.http.chat_messages import MessageParam, message_items
from antiphon.api.http.responses_codec import (
    JsonObjectFormat,
    JsonSchema,
    Metadata,
    NonEmptyString,
    Penalty,
    PositiveInt,
    Probability,
    Temperature,
    TextFormat,
    format_fields,
)
from antiphon.core import events
from antiphon.core.items import (
    FunctionCall,
    Item,
    Message,
    Reasoning,
    Refusal,
    text_of,
)
from antiphon.core.turns import FunctionTool, Options, Response, TurnRequest, Usage
from antiphon.errors import AntiphonError, InvalidRequestError


class _Function(msgspec.Struct, frozen=True):
    name: NonEmptyString
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: _Function


class _ChosenFunction(msgspec.Struct, frozen=True):
    name: NonEmptyString


class _NamedChoice(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: _ChosenFunction


class _SchemaFormat(msgspec.Struct, frozen=True, tag="json_schema", tag_field="type"):
    json_schema: JsonSchema


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ChatCompletionCreate(msgspec.Struct, frozen=True):
    """What ``POST /v1/chat/completions`` takes. Other fields go on to the upstream."""

    messages: list[MessageParam]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    n: PositiveInt | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JsonObjectFormat | _SchemaFormat | None = None
    reasoning_effort: str | None = None
    metadata: Metadata | None = None
    user: str | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """A turn's request, and whether a stream's last chunk shall carry the usage."""

    turn: TurnRequest
    include_usage: bool


_request = RequestDecoder(ChatCompletionCreate)
_encode = msgspec.json.Encoder().encode


def decode_chat_request(body: bytes) -> ChatRequest:
    """A body as a turn's request. Raises ``InvalidRequestError`` naming the field at fault."""
    params, extra = _request.decode(body)
    if not params.messages:
        raise InvalidRequestError("There are no messages.", code="empty_input", param="messages")
    if params.n is not None and params.n > 1:
        raise InvalidRequestError("Only one choice is made: n is 1.", param="n")
    items: list[Item] = []
    for index, message in enumerate(params.messages):
        items += message_items(message, f"messages[{index}]")
    turn = TurnRequest(
        input=tuple(items),
        model=params.model,
        options=_options(params, extra),
        store=False,
        stream=bool(params.stream),
    )
    return ChatRequest(turn, bool(params.stream_options and params.stream_options.include_usage))


def _options(params: ChatCompletionCreate, extra: dict[str, Any]) -> Options:
    choice = params.tool_choice or "auto"
    stop = params.stop or ()
    for index, tool in enumerate(params.tools or ()):
        check_depth(tool.function.parameters, f"tools[{index}].function.parameters")
    return Options(
        temperature=params.temperature,
        top_p=params.top_p,
        max_output_tokens=params.max_completion_tokens or params.max_tokens,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        seed=params.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        tools=tuple(
            FunctionTool(one.name, one.description, one.parameters, one.strict)
            for one in (tool.function for tool in params.tools or ())
        ),
        tool_choice=choice if isinstance(choice, str) else f"function:{choice.function.name}",
        parallel_tool_calls=params.parallel_tool_calls is not False,
        text_format=_text_format(params.response_format),
        reasoning_effort=params.reasoning_effort,
        metadata=params.metadata or {},
        user=params.user,
        extra=extra,
    )


def _text_format(
    given: TextFormat | JsonObjectFormat | _SchemaFormat | None,
) -> dict[str, Any] | None:
    """``response_format`` as the Responses API's ``text.format``."""
    if given is None:
        return None
    if isinstance(given, _SchemaFormat):
        fields = format_fields(given.json_schema, "response_format.json_schema")
        return {"type": "json_schema", **fields}
    return format_fields(given, "response_format")


def _completion_id(response: Response) -> str:
    return "chatcmpl-" + response.id.removeprefix("resp_")


def encode_completion(response: Response) -> bytes:
    """A finished turn as one completion."""
    text, refusal, thoughts, calls = _collect_output(response)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
        "annotations": [],
    }
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = [_call_body(call) for call in calls]
    end = response.end
    return _encode(
        {
            "id": _completion_id(response),
            "object": "chat.completion",
            "created": int(response.created_at),
            "model": response.header.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": _finish_reason(response),
                    "logprobs": None,
                }
            ],
            "usage": _usage_body(end.usage if end and end.usage else Usage()),
        }
    )


def _collect_output(response: Response) -> tuple[str, str, str, list[FunctionCall]]:
    text, refusal, thoughts = "", "", ""
    calls: list[FunctionCall] = []
    for item in response.output:
        match item:
            case Message(content=content):
                text += text_of(content)
                if not isinstance(content, str):
                    refusal += "".join(p.refusal for p in content if isinstance(p, Refusal))
            case FunctionCall():
                calls.append(item)
            case Reasoning(summary=summary):
                thoughts += "".join(part.text for part in summary)
    return text, refusal, thoughts, calls


def _call_body(call: FunctionCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _finish_reason(response: Response) -> str:
    if response.end and response.end.reason == "max_output_tokens":
        return "length"
    if response.end and response.end.reason == "content_filter":
        return "content_filter"
    return "tool_calls" if any(isinstance(i, FunctionCall) for i in response.output) else "stop"


def _usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class ChatCompletionChunkEncoder:
    """Encodes one turn's events as chat completion chunks.

    A tool call leaves whole, in one chunk: simple clients take every entry of
    ``delta.tool_calls`` for a call of its own. For the same reason no chunk comes
    without a choice unless the client asked for the usage.
    """

    def __init__(self, initial_response: Response, *, include_usage: bool) -> None:
        base = _encode(
            {
                "id": _completion_id(initial_response),
                "object": "chat.completion.chunk",
                "created": int(initial_response.created_at),
                "model": initial_response.header.model,
            }
        )
        self._base = base[:-1]
        self._head = b"data: " + self._base + b',"choices":[{"index":0,"delta":'
        self._text = self._head + b'{"content":'
        self._calls = 0
        self._include_usage = include_usage

    def encode(self, batch: list[events.Event]) -> bytes:
        """The bytes of events that leave together."""
        out: list[bytes] = []
        for event in batch:
            match event:
                case events.TextDelta(text=text):
                    out += (self._text, _encode(text), _TEXT_CHUNK_END)
                case events.ReasoningDelta(text=text):
                    out += self._encode_delta({"reasoning_content": text})
                case events.RefusalDelta(text=text):
                    out += self._encode_delta({"refusal": text})
                case events.ItemDone(item=FunctionCall() as call):
                    out += self._encode_delta(
                        {"tool_calls": [{"index": self._calls, **_call_body(call)}]}
                    )
                    self._calls += 1
                case events.Created():
                    out += self._encode_delta({"role": "assistant", "content": ""})
                case events.Ended(response=response):
                    out += self._encode_end(response)
        return b"".join(out)

    def _encode_delta(self, delta: dict[str, Any]) -> tuple[bytes, ...]:
        return (self._head, _encode(delta), _CHUNK_END)

    def _encode_end(self, response: Response) -> list[bytes]:
        reason = _finish_reason(response).encode()
        out = [self._head, b'{},"logprobs":null,"finish_reason":"', reason, b'"}]}\n\n']
        if self._include_usage:
            usage = response.end.usage if response.end else None
            out += [b"data: ", self._base, b',"choices":[],"usage":']
            out += [_encode(_usage_body(usage or Usage())), b"}\n\n"]
        return out


_CHUNK_END = b',"logprobs":null,"finish_reason":null}]}\n\n'
_TEXT_CHUNK_END = b"}" + _CHUNK_END


def encode_stream_error(error: AntiphonError) -> bytes:
    """What ends a chat completions stream that has begun and failed."""
    from_tree = {"message": error.message, "type": error.type, "code": error.code}
    return b"data: " + _encode({"error": {**from_tree, "param": error.param}}) + b"\n\n"
