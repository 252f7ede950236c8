"""A turn's events as the Responses API streams them. Pure: events in, bytes out.

Some clients reset their parser at each network read, so every event is made in one
piece, and all that belong to one batch are joined before they are written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from antiphon.api.http.wire import item_body, response_body
from antiphon.core import events
from antiphon.core.ids import item_id
from antiphon.core.items import FunctionCall, Item, Message, Reasoning, Refusal, item_kind
from antiphon.core.turns import End, Response, TurnError
from antiphon.errors import AntiphonError

_encode = msgspec.json.Encoder().encode

#: After the last event of a stream.
DONE = b"data: [DONE]\n\n"

_TERMINAL = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    # The specification has no event of its own for this; the response says it.
    "cancelled": "response.incomplete",
}

_DELTAS: dict[type, tuple[str, str]] = {
    events.TextDelta: ("response.output_text.delta", '"content_index":0,"logprobs":[],'),
    events.RefusalDelta: ("response.refusal.delta", '"content_index":0,'),
    events.ReasoningDelta: ("response.reasoning_summary_text.delta", '"summary_index":0,'),
    events.ArgumentsDelta: ("response.function_call_arguments.delta", ""),
}


class EventEncoder:
    """Encodes one turn's events from the first; numbers them as it goes."""

    def __init__(self, opening: Response) -> None:
        self._id = opening.id
        self._first = len(opening.input)
        self._number = 0
        self._frames: dict[tuple[type, int], tuple[bytes, bytes]] = {}
        self._opening = opening
        self._whole: dict[int, Item] = {}

    def encode(self, batch: Iterable[events.Event]) -> bytes:
        """The bytes of events that leave together."""
        out: list[bytes] = []
        for event in batch:
            match event:
                case (
                    events.TextDelta()
                    | events.RefusalDelta()
                    | events.ReasoningDelta()
                    | events.ArgumentsDelta()
                ):
                    head, middle = self._frame(type(event), event.index)
                    out += (head, b"%d" % self._number, middle, _encode(event.text), b"}\n\n")
                    self._number += 1
                case events.ItemAdded(index=index, item=item):
                    self._added(index, item, out)
                case events.ItemDone(index=index, item=item):
                    self._done(index, item, out)
                case events.Created(response=response):
                    body = response_body(response)
                    self._put("response.created", {"response": body}, out)
                    self._put("response.in_progress", {"response": body}, out)
                case events.Ended(response=response):
                    kind = _TERMINAL[response.status]
                    self._put(kind, {"response": response_body(response)}, out)
        return b"".join(out)

    def failed(self, error: AntiphonError) -> bytes:
        """The last event of a turn whose end could not be kept, with what has arrived."""
        end = End("failed", time.time(), None, TurnError(error.code, error.message))
        output = tuple(item for _, item in sorted(self._whole.items()))
        response = msgspec.structs.replace(self._opening, output=output, end=end)
        return self.encode([events.Ended(response)])

    def _put(self, kind: str, fields: dict[str, Any], out: list[bytes]) -> None:
        body = _encode({"type": kind, "sequence_number": self._number, **fields})
        out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))
        self._number += 1

    def _frame(self, kind: type, index: int) -> tuple[bytes, bytes]:
        """What stands around a delta's number and text: made once for each item."""
        frame = self._frames.get((kind, index))
        if frame is None:
            name, part = _DELTAS[kind]
            place = item_id(self._id, _KINDS[kind], self._first + index)
            head = f'event: {name}\ndata: {{"type":"{name}","sequence_number":'
            middle = f',"item_id":"{place}","output_index":{index},{part}"delta":'
            frame = self._frames[kind, index] = (head.encode(), middle.encode())
        return frame

    def _added(self, index: int, item: Item, out: list[bytes]) -> None:
        name = item_id(self._id, item_kind(item), self._first + index)
        body = item_body(item, name, "in_progress")
        part = _part_of(item)
        if part is not None:
            body["summary" if isinstance(item, Reasoning) else "content"] = []
        self._put("response.output_item.added", {"output_index": index, "item": body}, out)
        if part is not None:
            kind, at = _part_event(item)
            place = {"item_id": name, "output_index": index, at: 0, "part": part}
            self._put(f"{kind}.added", place, out)

    def _done(self, index: int, item: Item, out: list[bytes]) -> None:
        self._whole[index] = item
        name = item_id(self._id, item_kind(item), self._first + index)
        place: dict[str, Any] = {"item_id": name, "output_index": index}
        part = _part_of(item)
        if isinstance(item, FunctionCall):
            fields = {**place, "name": item.name, "arguments": item.arguments}
            self._put("response.function_call_arguments.done", fields, out)
        elif part is not None:
            kind, at = _part_event(item)
            text, field = _text_event(item)
            extra: dict[str, Any] = {"logprobs": []} if text == "response.output_text" else {}
            said = part["refusal" if field == "refusal" else "text"]
            self._put(f"{text}.done", {**place, at: 0, field: said, **extra}, out)
            self._put(f"{kind}.done", {**place, at: 0, "part": part}, out)
        body = item_body(item, name)
        self._put("response.output_item.done", {"output_index": index, "item": body}, out)


_KINDS: dict[type, str] = {
    events.TextDelta: "message",
    events.RefusalDelta: "message",
    events.ReasoningDelta: "reasoning",
    events.ArgumentsDelta: "function_call",
}


def _part_of(item: Item) -> dict[str, Any] | None:
    """The one part of a prose item, as it is shown."""
    shown = item_body(item, "")
    parts = shown.get("summary") if isinstance(item, Reasoning) else shown.get("content")
    return parts[0] if parts else None


def _part_event(item: Item) -> tuple[str, str]:
    if isinstance(item, Reasoning):
        return "response.reasoning_summary_part", "summary_index"
    return "response.content_part", "content_index"


def _text_event(item: Item) -> tuple[str, str]:
    if isinstance(item, Reasoning):
        return "response.reasoning_summary_text", "text"
    if isinstance(item, Message) and not isinstance(item.content, str):
        return ("response.refusal", "refusal") if isinstance(item.content[0], Refusal) else _TEXT
    return _TEXT


_TEXT = ("response.output_text", "text")
