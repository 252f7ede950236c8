"""Chat completions codec: turns as completions and as chunks. Pure.

Requests are decoded in ``chat_completion_requests``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from antiphon.core import events
from antiphon.core.ids import completion_id_of
from antiphon.core.items import FunctionCall, Item, Message, OutputText, Reasoning, Refusal, text_of
from antiphon.core.provider_fields import (
    REASONING_TEXT_FIELDS,
    ProviderFields,
    add_call_fields,
    group_by_origin,
)
from antiphon.core.turns import Response, Usage
from antiphon.errors import AntiphonError

_encode = msgspec.json.Encoder().encode
#: The name of reasoning that came without one.
_REASONING_FIELD = "reasoning_content"


def encode_completion(response: Response, *, legacy_functions: bool = False) -> bytes:
    """A finished turn as one completion."""
    return _encode(completion_body(response, legacy_functions=legacy_functions))


def completion_body(response: Response, *, legacy_functions: bool = False) -> dict[str, Any]:
    """A finished turn as it is shown; ``legacy_functions``: its call as ``function_call``."""
    message = message_body(response.output, legacy_functions=legacy_functions)
    end = response.end
    return {
        "id": completion_id_of(response.id),
        "object": "chat.completion",
        "created": int(response.created_at),
        "model": response.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": _finish_reason(response, legacy_functions),
                "logprobs": _logprobs_body(_logprobs_of(response)),
            }
        ],
        "usage": _usage_body(end.usage if end and end.usage else Usage()),
    }


def message_body(items: Sequence[Item], *, legacy_functions: bool = False) -> dict[str, Any]:
    """An assistant's items as one message."""
    if len(items) == 1 and (words := _plain_words(items[0])) is not None:
        return {"role": "assistant", "content": words, "refusal": None, "annotations": []}
    text, refusal, calls = _collect_output(items)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
        "annotations": [],
    }
    message |= _provider_fields(items)
    if calls and legacy_functions:
        message["function_call"] = _legacy_call_body(calls[0])
    elif calls:
        message["tool_calls"] = [_call_body(call) for call in calls]
    return message


def _plain_words(item: Item) -> str | None:
    """The words of a message that has nothing else, as nearly all have; else None."""
    if isinstance(item, Message) and isinstance(item.content, str) and not item.provider_fields:
        return item.content
    return None


def _logprobs_of(response: Response) -> list[Any]:
    return [
        logprob
        for item in response.output
        if isinstance(item, Message) and not isinstance(item.content, str)
        for part in item.content
        if isinstance(part, OutputText)
        for logprob in part.logprobs
    ]


def _logprobs_body(logprobs: Sequence[Any]) -> dict[str, Any] | None:
    return {"content": logprobs, "refusal": None} if logprobs else None


def _collect_output(items: Sequence[Item]) -> tuple[str, str, list[FunctionCall]]:
    text, refusal = "", ""
    calls: list[FunctionCall] = []
    for item in items:
        match item:
            case Message(content=content):
                text += text_of(content)
                if not isinstance(content, str):
                    refusal += "".join(p.refusal for p in content if isinstance(p, Refusal))
            case FunctionCall():
                calls.append(item)
    return text, refusal, calls


def _provider_fields(items: Sequence[Item]) -> dict[str, Any]:
    """Reasoning under the name by which it came, and what else its model wants back."""
    parts: list[tuple[ProviderFields | None, str]] = []
    for item in items:
        if isinstance(item, Reasoning):
            given = item.provider_fields or ProviderFields()
            named = msgspec.structs.replace(given, text_field=_shown_field(given.text_field))
            parts.append((named, item.text))
        elif isinstance(item, Message):
            parts.append((item.provider_fields, ""))
    shown: dict[str, Any] = {}
    for fields in group_by_origin(parts, with_text=True).values():
        shown |= fields
    return shown


def _shown_field(name: str | None) -> str:
    """The name under which a client finds reasoning."""
    return name if name in REASONING_TEXT_FIELDS else _REASONING_FIELD


def _call_body(call: FunctionCall) -> dict[str, Any]:
    if call.is_custom:
        custom = {"name": call.name, "input": call.arguments}
        return {"id": call.call_id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": call.arguments}
    body = {"id": call.call_id, "type": "function", "function": function}
    return add_call_fields(body, call.provider_fields.fields) if call.provider_fields else body


def _legacy_call_body(call: FunctionCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


def _finish_reason(response: Response, legacy_functions: bool) -> str:
    if response.end and response.end.reason == "max_output_tokens":
        return "length"
    if response.end and response.end.reason == "content_filter":
        return "content_filter"
    if FunctionCall not in map(type, response.output):
        return "stop"
    return "function_call" if legacy_functions else "tool_calls"


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

    def __init__(
        self,
        initial_response: Response,
        *,
        include_usage: bool = False,
        legacy_functions: bool = False,
    ) -> None:
        self._include_usage = include_usage
        self._set_base(initial_response)
        self._text = self._head + b'{"content":'
        self._calls = 0
        self._has_role = False
        #: The names of reasoning, by the index of its item.
        self._reasoning_fields: dict[int, str] = {}
        self._legacy_functions = legacy_functions

    def _set_base(self, response: Response) -> None:
        """Make what every chunk begins with."""
        base = {
            "id": completion_id_of(response.id),
            "object": "chat.completion.chunk",
            "created": int(response.created_at),
            "model": response.model,
        }
        self._base = _encode(base)[:-1]
        # Where the last chunk has the usage, the others say that they have none.
        usage = b',"usage":null' if self._include_usage else b""
        self._head = b"data: " + self._base + usage + b',"choices":[{"index":0,"delta":'

    def encode(self, batch: Iterable[events.Event]) -> bytes:
        """The bytes of events that leave together."""
        out: list[bytes] = []
        for event in batch:
            if type(event) is events.TextDelta and not event.logprobs:
                # Nearly all are.
                out += (self._text, _encode(event.text), b"}", _CHUNK_END)
                continue
            match event:
                case events.TextDelta(text=text, logprobs=logprobs):
                    out += (self._text, _encode(text), b"}", *_chunk_end(logprobs))
                case events.ReasoningDelta(index, text) | events.RawReasoningDelta(index, text):
                    name = self._reasoning_fields.get(index, _REASONING_FIELD)
                    out += self._encode_delta({name: text})
                case events.RefusalDelta(text=text):
                    out += self._encode_delta({"refusal": text})
                case events.ItemAdded(
                    index, Reasoning(provider_fields=ProviderFields(text_field=str(name)))
                ):
                    self._reasoning_fields[index] = _shown_field(name)
                case events.ItemDone(item=FunctionCall() as call):
                    out += self._encode_call(call)
                case events.Created() if not self._has_role:
                    out.append(self.encode_keep_alive())
                case events.ItemDone(
                    item=Reasoning(provider_fields=ProviderFields(fields=fields))
                    | Message(provider_fields=ProviderFields(fields=fields))
                ) if fields:
                    out += self._encode_delta(fields)
                case events.Ended(response=response):
                    out += self._encode_end(response)
        return b"".join(out)

    def encode_keep_alive(self) -> bytes:
        """A chunk without words. Simple readers do not know comments, but they know chunks."""
        delta = {"content": ""} if self._has_role else {"role": "assistant", "content": ""}
        self._has_role = True
        return b"".join(self._encode_delta(delta))

    def _encode_delta(self, delta: dict[str, Any]) -> tuple[bytes, ...]:
        return (self._head, _encode(delta), _CHUNK_END)

    def _encode_call(self, call: FunctionCall) -> tuple[bytes, ...]:
        index, self._calls = self._calls, self._calls + 1
        if not self._legacy_functions:
            return self._encode_delta({"tool_calls": [{"index": index, **_call_body(call)}]})
        # There is room for one.
        return () if index else self._encode_delta({"function_call": _legacy_call_body(call)})

    def _encode_end(self, response: Response) -> list[bytes]:
        if response.model != response.header.model:
            self._set_base(response)
        reason = _finish_reason(response, self._legacy_functions).encode()
        out = [self._head, b'{},"logprobs":null,"finish_reason":"', reason, b'"}]}\n\n']
        if self._include_usage:
            usage = response.end.usage if response.end else None
            out += [b"data: ", self._base, b',"choices":[],"usage":']
            out += [_encode(_usage_body(usage or Usage())), b"}\n\n"]
        return out


_CHUNK_END = b',"logprobs":null,"finish_reason":null}]}\n\n'
#: The end of a chunk without words, and of no other: words have no quotes that are not escaped.
KEEP_ALIVE_CHUNK_END: Final = b'"delta":{"content":""}' + _CHUNK_END


def _chunk_end(logprobs: Sequence[Any]) -> tuple[bytes, ...]:
    if not logprobs:
        return (_CHUNK_END,)
    return (b',"logprobs":', _encode(_logprobs_body(logprobs)), b',"finish_reason":null}]}\n\n')


def encode_stream_error(error: AntiphonError) -> bytes:
    """What ends a chat completions stream that has begun and failed."""
    from_tree = {"message": error.message, "type": error.type, "code": error.code}
    return b"data: " + _encode({"error": {**from_tree, "param": error.param}}) + b"\n\n"
