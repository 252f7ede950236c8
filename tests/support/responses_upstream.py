"""What an upstream says that speaks the Responses API, for ``MisbehavingUpstream``.

    upstream.then(replied(thought("gAAA"), called("c1", "f")), streamed(message("Hello.")))

An item is told as OpenAI tells it: it begins, comes in deltas of a few characters, and ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias

from antiphon.models.openai.responses import ResponsesModel
from antiphon.turn.protocols import ModelInfo
from support.chat_completions_upstream import KEY
from support.chat_completions_upstream import ChatCompletionsUpstream as ChatUpstream
from support.misbehaving_upstream import Behaviour, Request, Signal, answer, events, stream

Json: TypeAlias = dict[str, Any]

TOKENS = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 7,
}


def message(text: str = "Hello.", **part: Any) -> Json:
    """An answer; ``part`` are further fields of its text."""
    content = [{"type": "output_text", "text": text, "annotations": [], **part}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content}


def refusal(text: str) -> Json:
    return {**message(), "content": [{"type": "refusal", "refusal": text}]}


def reasoning_item(encrypted: str | None = None, *summary: str, raw: str = "") -> Json:
    return {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        **({"content": [{"type": "reasoning_text", "text": raw}]} if raw else {}),
        "encrypted_content": encrypted,
    }


def function_call_item(call_id: str = "call_1", name: str = "f", arguments: str = "{}") -> Json:
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def body(*items: Json, status: str = "completed", **fields: Any) -> Json:
    """A response resource, as far as anybody looks at it."""
    return {
        "id": "resp_upstream",
        "object": "response",
        "status": status,
        "error": None,
        "incomplete_details": None,
        "output": list(items),
        "usage": TOKENS,
        **fields,
    }


def json_response(*items: Json, **fields: Any) -> Behaviour:
    """An answer in one piece."""
    return answer(json.dumps(body(*items, **fields)).encode())


def stream_events(*items: Json, **fields: Any) -> Iterator[Json]:
    """The events of a stream, from the first to the last; ``fields`` as in ``body``."""
    yield {"type": "response.created", "response": body(status="in_progress")}
    yield {"type": "response.in_progress", "response": body(status="in_progress")}
    for index, item in enumerate(items):
        place = {"item_id": item["id"], "output_index": index}
        shell = {key: [] if isinstance(value, list) else value for key, value in item.items()}
        shell |= {"arguments": ""} if "arguments" in item else {}
        yield {"type": "response.output_item.added", "output_index": index, "item": shell}
        yield from ({**place, **event} for event in _deltas(item))
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    status = fields.get("status", "completed")
    yield {"type": f"response.{status}", "response": body(*items, **fields)}


def _deltas(item: Json) -> Iterator[Json]:
    for place, part in enumerate(item.get("summary", ())):
        at = {"summary_index": place}
        yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
        yield from _pieces("response.reasoning_summary_text", part["text"], at)
    for place, part in enumerate(item.get("content", ())):
        at = {"content_index": place}
        if part["type"] == "refusal":
            yield from _pieces("response.refusal", part["refusal"], at)
        elif part["type"] == "reasoning_text":
            yield from _pieces("response.reasoning_text", part["text"], at)
        else:
            yield from _pieces("response.output_text", part["text"], at)
            for number, source in enumerate(part["annotations"]):
                frames = {"annotation_index": number, "annotation": source}
                yield {"type": "response.output_text.annotation.added", **at, **frames}
    if "arguments" in item:
        yield from _pieces("response.function_call_arguments", item["arguments"], {})


def _pieces(event: str, text: str, at: Json) -> Iterator[Json]:
    for start in range(0, len(text), 3):
        yield {"type": f"{event}.delta", **at, "delta": text[start : start + 3]}
    yield {"type": f"{event}.done", **at, "text": text}


def sse_frames(*frames: Json) -> list[bytes]:
    """Events as this API frames them, with their names."""
    return [
        b"event: " + one["type"].encode() + b"\n" + data
        for one, data in zip(frames, events(*frames), strict=True)
    ]


def event_stream(*items: Json, end: Signal | None = None, **fields: Any) -> Behaviour:
    """A whole stream, in one write."""
    return stream(b"".join(sse_frames(*stream_events(*items, **fields))), end=end)


def default_response(request: Request) -> Behaviour:
    """A good answer, in the form that was asked for."""
    return event_stream(message()) if request.json.get("stream") else json_response(message())


class ResponsesUpstream(ChatUpstream):
    """An upstream that speaks the Responses API, with models that talk to it."""

    def __init__(self) -> None:
        super().__init__()
        self.default_answer = default_response

    def responses(self, **options: Any) -> ResponsesModel:
        options = {"api_key": KEY, "clock": lambda: self.now, "sleep": self._sleep, **options}
        return ResponsesModel(ModelInfo("m"), options.pop("url", self.base_url), **options)


def run_with_upstream(
    work: Callable[[ResponsesUpstream, ResponsesModel], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Run ``work`` with an upstream and a model; nothing may be left open after it."""

    async def main() -> None:
        async with ResponsesUpstream() as upstream:
            model = upstream.responses(**options)
            try:
                await work(upstream, model)
            finally:
                await model.close()

    asyncio.run(asyncio.wait_for(main(), 20))
