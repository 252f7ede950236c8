"""What an upstream of the Responses API sends: its events as bytes, and its items.

Every part of an event can be odd: scenarios say what servers leave out, repeat and misname.
"""

from __future__ import annotations

from typing import Any

from support.scenario import data

Json = dict[str, Any]

HELLO = "Hello there."


def event(name: str, **fields: Any) -> bytes:
    """An event of the dialect, with its name."""
    kind = f"response.{name}"
    return b"event: " + kind.encode() + b"\n" + data({"type": kind, **fields})


def message(text: Any = HELLO, name: Any = "msg_1", **fields: Any) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    fields = {"content": content, "status": "completed", **fields}
    return {"type": "message", "id": name, "role": "assistant", **fields}


def shell(item: Json) -> Json:
    """An item as it begins."""
    empty: Json = {"content": [], "arguments": "", "summary": [], "status": "in_progress"}
    return {**item, **{name: value for name, value in empty.items() if name in item}}


def call(
    name: Any = "lookup", arguments: Any = '{"c":1}', call_id: Any = "call_1", **fields: Any
) -> Json:
    given = {"id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "function_call", "status": "completed", **given, **fields}


def thought(text: str = "Hm.", name: str = "rs_1", **fields: Any) -> Json:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": name, "summary": summary, **fields}


def added(item: Any, index: Any = 0, **fields: Any) -> bytes:
    item = shell(item) if isinstance(item, dict) else item
    return event("output_item.added", item=item, **at(index), **fields)


def item_done(item: Any, index: Any = 0, **fields: Any) -> bytes:
    return event("output_item.done", item=item, **at(index), **fields)


def at(index: Any) -> Json:
    return {} if index is None else {"output_index": index}


def text(words: Any, name: Any = "msg_1", index: Any = 0, **fields: Any) -> bytes:
    place = at(index) | ({} if name is None else {"item_id": name})
    return event("output_text.delta", delta=words, **{"content_index": 0, **place, **fields})


def text_done(words: Any, name: Any = "msg_1", index: Any = 0, **fields: Any) -> bytes:
    return event("output_text.done", text=words, **at(index), item_id=name, **fields)


def arguments(piece: Any, name: Any = "fc_call_1", index: Any = 0) -> bytes:
    place = at(index) | ({} if name is None else {"item_id": name})
    return event("function_call_arguments.delta", delta=piece, **place)


def arguments_done(whole: Any, name: Any = "fc_call_1", index: Any = 0, **fields: Any) -> bytes:
    return event("function_call_arguments.done", arguments=whole, item_id=name, **at(index)) + b""


def response(*items: Any, status: Any = "completed", **fields: Any) -> Json:
    return {"id": "resp_u", "object": "response", "status": status, "output": list(items), **fields}


def end(*items: Any, name: str = "completed", **fields: Any) -> bytes:
    return event(name, response=response(*items, **fields))


CREATED = event("created", response=response(status="in_progress"))
WORDS = text("Hello") + text(" there.")
#: A message as most servers stream it.
SAID = added(message()) + WORDS + text_done(HELLO) + item_done(message())
