"""The Responses API's JSON: requests in, responses and items out. Pure functions.

Every key of a response is always there, and numbers are never null: clients check.
Shapes are those of the Open Responses specification, 2026-04-24.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from antiphon.api.http.body import UNDECODABLE, check_depth, invalid, present
from antiphon.core.ids import item_id
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Reasoning,
    item_kind,
)
from antiphon.core.turns import FunctionTool, Options, Response, TurnRequest, Usage
from antiphon.errors import InvalidRequest

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Metadata = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
    msgspec.Meta(max_length=16),
]

Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Tool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _NamedChoice(msgspec.Struct, frozen=True):
    type: Literal["function"]
    name: Name


class PlainFormat(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """Answers in prose."""


class JsonFormat(msgspec.Struct, frozen=True, tag="json_object", tag_field="type"):
    """Answers in some JSON."""


class Schema(msgspec.Struct, frozen=True):
    """The JSON that an answer shall be."""

    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class _SchemaFormat(Schema, frozen=True, tag="json_schema", tag_field="type"):
    pass


class _Text(msgspec.Struct, frozen=True):
    format: PlainFormat | JsonFormat | _SchemaFormat | None = None


class _Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None


class _Request(msgspec.Struct, frozen=True):
    """What ``POST /v1/responses`` takes. Fields not named here are ignored."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    store: bool | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    max_output_tokens: Positive | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    metadata: Metadata | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    background: bool | None = None
    conversation: Any = None


_request = msgspec.json.Decoder(_Request)
_encode = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> TurnRequest:
    """A body as a turn's request. Raises ``InvalidRequest`` naming the field at fault."""
    try:
        asked = _request.decode(body)
    except UNDECODABLE as error:
        raise invalid(error) from error
    if asked.background or asked.conversation is not None:
        field = "background" if asked.background else "conversation"
        raise InvalidRequest(
            f"This server does not know '{field}' yet.", code="unsupported_parameter", param=field
        )
    return TurnRequest(
        input=_input(asked.input),
        model=asked.model,
        previous_response_id=asked.previous_response_id,
        instructions=asked.instructions,
        options=_options(asked),
        store=asked.store is not False,
        stream=bool(asked.stream),
    )


def _options(asked: _Request) -> Options:
    choice = asked.tool_choice or "auto"
    for place, tool in enumerate(asked.tools or ()):
        check_depth(tool.parameters, f"tools[{place}].parameters")
    return Options(
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_output_tokens=asked.max_output_tokens,
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        tools=tuple(
            FunctionTool(tool.name, tool.description, tool.parameters, tool.strict)
            for tool in asked.tools or ()
        ),
        tool_choice=choice if isinstance(choice, str) else f"function:{choice.name}",
        parallel_tool_calls=asked.parallel_tool_calls is not False,
        text_format=(
            format_fields(asked.text.format, "text.format")
            if asked.text and asked.text.format
            else None
        ),
        reasoning_effort=asked.reasoning.effort if asked.reasoning else None,
        truncation=asked.truncation or "disabled",
        metadata=asked.metadata or {},
        user=asked.user,
    )


def format_fields(given: msgspec.Struct, at: str) -> dict[str, Any]:
    """A format as ``Options`` keeps it; ``at`` is its place in the body."""
    fields: dict[str, Any] = present(msgspec.to_builtins(given))
    check_depth(fields, at)
    return fields


def _input(given: str | list[dict[str, Any]]) -> tuple[Item, ...]:
    if isinstance(given, str):
        return (Message("user", given),)
    return tuple(decode_item(item, f"input[{place}]") for place, item in enumerate(given))


def decode_item(given: dict[str, Any], at: str) -> Item:
    """One input item; ``at`` is its place in the body, for the error."""
    fields = {
        name: [present(part) if isinstance(part, dict) else part for part in value]
        if isinstance(value, list)
        else value
        for name, value in present(given).items()
    }
    fields.setdefault("type", "message")
    if fields.get("status") == "in_progress":
        del fields["status"]
    try:
        item: Item = msgspec.convert(fields, Item)
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid(error, at) from error
    match item:
        case Compaction():
            raise InvalidRequest(
                f"{at}: a compaction cannot be sent; go on from the response that holds it.",
                code="unsupported_item",
                param=at,
            )
        case Message(content=content):
            return msgspec.structs.replace(item, content=_plain(content, f"{at}.content"))
        case FunctionCallOutput(output=output):
            return msgspec.structs.replace(item, output=_plain(output, f"{at}.output"))
    return item


def _plain(content: str | tuple[Part, ...], at: str) -> str | tuple[Part, ...]:
    """One plain text part becomes its text: it says the same in fewer bytes."""
    for place, part in enumerate(() if isinstance(content, str) else content):
        if isinstance(part, OutputText):
            check_depth((part.annotations, part.logprobs), f"{at}[{place}]")
    if all(part == InputText("") for part in content):
        return ""
    match content:
        case (InputText(text=text),) | (OutputText(text=text, annotations=(), logprobs=()),):
            return str(text)
    return content


def encode_response(response: Response) -> bytes:
    """A response as JSON."""
    return _encode(response_body(response))


def response_body(response: Response) -> dict[str, Any]:
    """A response as it is shown, every key present."""
    header, end, options = response.header, response.end, response.header.options
    ended = end.ended_at if end else None
    return {
        "id": response.id,
        "object": "response",
        "created_at": int(response.created_at),
        "completed_at": int(ended) if ended and response.status == "completed" else None,
        "status": response.status,
        "incomplete_details": {"reason": end.reason} if end and end.reason else None,
        "model": header.model,
        "previous_response_id": response.previous_response_id,
        "instructions": header.instructions,
        "output": output_items(response) if response.output else [],
        "error": (
            {"code": end.error.code, "message": end.error.message} if end and end.error else None
        ),
        "tools": [_tool(tool) for tool in options.tools],
        "tool_choice": _choice(options.tool_choice),
        "truncation": options.truncation,
        "parallel_tool_calls": options.parallel_tool_calls,
        "text": {"format": _format(options.text_format)},
        "top_p": 1.0 if options.top_p is None else options.top_p,
        "presence_penalty": options.presence_penalty or 0.0,
        "frequency_penalty": options.frequency_penalty or 0.0,
        "top_logprobs": 0,
        "temperature": 1.0 if options.temperature is None else options.temperature,
        "reasoning": (
            {"effort": options.reasoning_effort, "summary": None}
            if options.reasoning_effort
            else None
        ),
        "usage": _usage(end.usage) if end and end.usage else None,
        "max_output_tokens": options.max_output_tokens,
        "max_tool_calls": None,
        "store": response.store,
        "background": False,
        "service_tier": "default",
        "metadata": options.metadata,
        "safety_identifier": None,
        "prompt_cache_key": None,
        "user": options.user,
    }


def output_items(response: Response) -> list[dict[str, Any]]:
    """The output items as they are shown."""
    return encode_items(response.id, response.output, len(response.input))


def input_items(response: Response) -> list[dict[str, Any]]:
    """The input items as they are shown, oldest first."""
    return encode_items(response.id, response.input, 0)


def encode_items(response_id: str, items: Sequence[Item], first: int) -> list[dict[str, Any]]:
    """Items in full shape; ``first`` is the position of the first in its turn."""
    return [
        item_body(item, item_id(response_id, item_kind(item), place))
        for place, item in enumerate(items, first)
    ]


def item_body(item: Item, name: str, status: str | None = None) -> dict[str, Any]:
    """One item in full shape; ``status`` overrides the item's own."""
    match item:
        case Message():
            return {
                "id": name,
                "type": "message",
                "status": status or item.status,
                "role": item.role,
                "content": _parts(item.role, item.content),
            }
        case FunctionCall():
            return {
                "id": name,
                "type": "function_call",
                "status": status or item.status,
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutput(output=output):
            return {
                "id": name,
                "type": "function_call_output",
                "status": status or item.status,
                "call_id": item.call_id,
                "output": output if isinstance(output, str) else _parts("user", output),
            }
        case Reasoning():
            body: dict[str, Any] = {
                "id": name,
                "type": "reasoning",
                "status": status or item.status,
                "summary": [{"type": "summary_text", "text": part.text} for part in item.summary],
            }
            if item.encrypted_content is not None:
                body["encrypted_content"] = item.encrypted_content
            return body
        case Compaction():
            return {"id": name, "type": "compaction", "encrypted_content": item.summary}


def _parts(role: str, content: str | tuple[Part, ...]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        if role == "assistant":
            return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
        return [{"type": "input_text", "text": content}]
    return [_part(part) for part in content]


def _part(part: Part) -> dict[str, Any]:
    body: dict[str, Any] = {"type": part.__struct_config__.tag}
    for field in part.__struct_fields__:
        body[field] = getattr(part, field)
    return body


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _format(kept: dict[str, Any] | None) -> dict[str, Any]:
    if kept is None:
        return {"type": "text"}
    if kept["type"] == "json_schema":
        return {"description": None, "strict": False, **kept}
    return kept


def _choice(choice: str) -> str | dict[str, str]:
    kind, _, name = choice.partition(":")
    return {"type": "function", "name": name} if name else kind


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            # No model here says what it writes to a cache; the official client wants a number.
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
