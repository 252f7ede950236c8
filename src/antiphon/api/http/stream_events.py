"""Stream events: encodes a turn's events as the Responses API's server-sent events (SSE). Pure.

Some clients reset their parser at each network read, so every event is made in one piece, and
all events of a batch are joined before they are written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from antiphon.api.http.item_bodies import (
    McpCallPairing,
    mcp_call_body,
    part_body,
    shows_encrypted_reasoning,
)
from antiphon.api.http.responses_codec import encode_response
from antiphon.core import events
from antiphon.core.ids import item_id
from antiphon.core.items import (
    ErasedItem,
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpListTools,
    Message,
    OutputText,
    Reasoning,
    Refusal,
)
from antiphon.core.tool_rules import needs_approval
from antiphon.core.turns import End, Response, TurnError
from antiphon.errors import AntiphonError


class ContentPart(msgspec.Struct, frozen=True):
    """Content part: one growing text of an item, and its part.

    ``event`` and ``part_event`` are the events' names without their last word, ``index_field``
    the field for ``index``, ``text_field`` the part's and the last event's field for the text.
    """

    event: str
    part_event: str
    index_field: str
    index: int
    text_field: str
    part: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.part[self.text_field])

    @property
    def empty_part(self) -> dict[str, Any]:
        """The part before it grew."""
        blank = {**self.part, self.text_field: ""}
        for extra in ("annotations", "logprobs"):
            if extra in blank:
                blank[extra] = []
        return blank


def content_parts(item: Item) -> list[ContentPart]:
    """An item's texts, in the order of their events. Empty for items without text."""
    match item:
        case Message(content=str(text)):
            return [_content_part("response.output_text", 0, part_body(OutputText(text)))]
        case Message(content=parts):
            return [
                _content_part(
                    "response.refusal" if isinstance(part, Refusal) else "response.output_text",
                    position,
                    part_body(part),
                )
                for position, part in enumerate(parts)
                if isinstance(part, OutputText | Refusal)
            ]
        case Reasoning(summary=summary, content=content):
            return [
                ContentPart(
                    "response.reasoning_summary_text",
                    "response.reasoning_summary_part",
                    "summary_index",
                    position,
                    "text",
                    {"type": "summary_text", "text": one.text},
                )
                for position, one in enumerate(summary)
            ] + [
                _content_part(
                    "response.reasoning", position, {"type": "reasoning_text", "text": one.text}
                )
                for position, one in enumerate(content)
            ]
    return []


def _content_part(event: str, index: int, part: dict[str, Any]) -> ContentPart:
    field = "refusal" if event == "response.refusal" else "text"
    return ContentPart(event, "response.content_part", "content_index", index, field, part)


_encode = msgspec.json.Encoder().encode

#: After the last event of a stream.
DONE = b"data: [DONE]\n\n"

_TERMINAL_EVENTS = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    # The specification has no event of its own for this; the response says it.
    "cancelled": "response.incomplete",
}

#: What is said of a call that an upstream ran, between its beginning and its end.
_PROGRESS_EVENTS = {
    "web_search_call": ("in_progress", "searching", "completed"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
}

_NO_LOGPROBS = b'"logprobs":[]'
_DELTA_EVENTS: dict[type, tuple[str, str]] = {
    events.TextDelta: ("response.output_text.delta", '"content_index":0,"logprobs":[],'),
    events.RefusalDelta: ("response.refusal.delta", '"content_index":0,'),
    events.ReasoningDelta: ("response.reasoning_summary_text.delta", '"summary_index":0,'),
    events.RawReasoningDelta: ("response.reasoning.delta", '"content_index":0,'),
    events.ArgumentsDelta: ("response.function_call_arguments.delta", ""),
}
#: The events of a call's arguments by its type, where it is not a plain function's.
_CALL_DELTA_EVENTS = {
    "mcp_call": ("response.mcp_call_arguments.delta", ""),
    "custom_tool_call": ("response.custom_tool_call_input.delta", ""),
}

#: The frame of deltas that are not shown.
_HIDDEN_FRAME = (b"", b"")


class _OutputItem(msgspec.Struct):
    """An output item as clients see it: its index, id and type.

    ``parts_started`` is how many of its content parts have begun.
    """

    index: int
    item_id: str
    item_type: str
    parts_started: int = 0

    @property
    def event_fields(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "output_index": self.index}


class EventEncoder:
    """Encodes one turn's events from the first; numbers them as it goes.

    ``include`` is what its reader asks for besides what the turn's maker asked for.
    """

    def __init__(self, initial_response: Response, include: Sequence[str] = ()) -> None:
        options = initial_response.header.options
        servers = options.mcp_servers
        self._id = initial_response.id
        self._input_count = len(initial_response.input)
        self._sequence_number = 0
        self._delta_frames: dict[tuple[type, int], tuple[bytes, bytes]] = {}
        self._text_frames: dict[int, bytes] = {}
        self._initial_response = initial_response
        self._include = include
        #: By the core's index: what is shown, and what is whole.
        self._output_items: dict[int, _OutputItem] = {}
        self._done_items: dict[int, Item] = {}
        self._mcp_pairing = McpCallPairing(
            initial_response.id,
            lambda call: needs_approval(servers, call),
            include_encrypted=shows_encrypted_reasoning(options, include),
        )
        #: Of a queued turn: what it was when it began to wait.
        self._queued_response: Response | None = None
        #: The items of MCP calls without an output yet, by call id.
        self._pending_mcp_calls: dict[str, _OutputItem] = {}

    def encode(self, batch: Iterable[events.Event]) -> bytes:
        """The bytes of events that leave together."""
        out: list[bytes] = []
        index, text_frame = -1, b""
        for event in batch:
            if type(event) is events.TextDelta and not event.logprobs:
                # Nearly all are.
                if event.index != index:
                    index = event.index
                    text_frame = self._text_frames.get(index) or self._text_frame(index)
                out.append(text_frame % (self._sequence_number, _encode(event.text)))
                self._sequence_number += 1
                continue
            match event:
                case (
                    events.TextDelta()
                    | events.RefusalDelta()
                    | events.ReasoningDelta()
                    | events.RawReasoningDelta()
                    | events.ArgumentsDelta()
                ):
                    key = (type(event), event.index)
                    frame = self._delta_frames.get(key) or self._delta_frame(*key)
                    if frame is not _HIDDEN_FRAME:
                        head, middle = frame
                        if type(event) is events.TextDelta and event.logprobs:
                            logprobs = b'"logprobs":' + _encode(event.logprobs)
                            middle = middle.replace(_NO_LOGPROBS, logprobs)
                        out += (
                            head,
                            b"%d" % self._sequence_number,
                            middle,
                            _encode(event.text),
                            b"}\n\n",
                        )
                        self._sequence_number += 1
                case events.ItemAdded():
                    self._append_item_added(event.index, event.item, out)
                case events.ItemDone():
                    self._finish_item(event.index, event.item, out)
                case events.Created(response=response):
                    self._append_created(response, out)
                case events.Ended(response=response):
                    if self._queued_response is not None:
                        self._append_begun(self._queued_response, out)
                    self._finish_pending_calls(out)
                    self._append_response_event(_TERMINAL_EVENTS[response.status], response, out)
        return b"".join(out)

    def encode_failure(self, error: AntiphonError) -> bytes:
        """The last event of a turn whose end could not be kept, with what has arrived."""
        end = End("failed", time.time(), None, TurnError(error.code, error.message))
        # An item that is still open leaves its place empty: ids go by places.
        size = max(self._done_items, default=-1) + 1
        output = tuple(self._done_items.get(index, ErasedItem()) for index in range(size))
        response = msgspec.structs.replace(self._initial_response, output=output, end=end)
        return self.encode([events.Ended(response)])

    def encode_error(self, error: AntiphonError) -> bytes:
        """An ``error`` event: the specification's shape, and OpenAI's flat one in the same."""
        fields = {"code": error.code, "message": error.message, "param": error.param}
        out: list[bytes] = []
        self._append_event("error", {"error": {"type": error.type, **fields}, **fields}, out)
        return b"".join(out)

    def _append_event(self, kind: str, fields: dict[str, Any], out: list[bytes]) -> None:
        body = _encode({"type": kind, "sequence_number": self._sequence_number, **fields})
        out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))
        self._sequence_number += 1

    def _append_response_event(
        self, kind: str, response: Response, out: list[bytes], *, queued: bool = False
    ) -> None:
        body = encode_response(response, queued=queued, include=self._include)
        self._append_encoded(kind, body, out)

    def _append_encoded(self, kind: str, response: bytes, out: list[bytes]) -> None:
        out.append(
            b'event: %b\ndata: {"type":"%b","sequence_number":%d,"response":%b}\n\n'
            % (kind.encode(), kind.encode(), self._sequence_number, response)
        )
        self._sequence_number += 1

    def _append_created(self, response: Response, out: list[bytes]) -> None:
        if self._queued_response is not None:
            self._append_begun(response, out)
            return
        if response.header.background:
            self._append_response_event("response.created", response, out, queued=True)
            self._append_response_event("response.queued", response, out, queued=True)
            if response.is_queued:
                self._queued_response = response
            else:
                self._append_response_event("response.in_progress", response, out)
            return
        body = encode_response(response, include=self._include)
        self._append_encoded("response.created", body, out)
        self._append_encoded("response.in_progress", body, out)

    def _append_begun(self, response: Response, out: list[bytes]) -> None:
        """A queued turn waits no more. Every reader of it counts this event, begun or not."""
        self._queued_response = None
        begun = msgspec.structs.replace(response, is_queued=False)
        self._append_response_event("response.in_progress", begun, out)

    def _delta_frame(self, kind: type, index: int) -> tuple[bytes, bytes]:
        """What stands around a delta's number and text: made once for each item."""
        output_item = self._output_items[index]
        frame = _HIDDEN_FRAME
        if output_item.item_type != "mcp_approval_request":
            name, part = _CALL_DELTA_EVENTS.get(output_item.item_type) or _DELTA_EVENTS[kind]
            head = f'event: {name}\ndata: {{"type":"{name}","sequence_number":'
            location = f'"item_id":"{output_item.item_id}","output_index":{output_item.index}'
            frame = (head.encode(), f',{location},{part}"delta":'.encode())
        self._delta_frames[kind, index] = frame
        return frame

    def _text_frame(self, index: int) -> bytes:
        """An answer's delta with places for its number and its text."""
        head, middle = self._delta_frame(events.TextDelta, index)
        frame = head.replace(b"%", b"%%") + b"%d" + middle.replace(b"%", b"%%") + b"%b}\n\n"
        self._text_frames[index] = frame
        return frame

    def _append_item_added(self, index: int, item: Item, out: list[bytes]) -> None:
        kind = self._mcp_pairing.item_type(item)
        if kind is None:
            return
        output_item = _OutputItem(
            len(self._output_items), item_id(self._id, kind, self._input_count + index), kind
        )
        self._output_items[index] = output_item
        body = self._mcp_pairing.body_of(item, kind, output_item.item_id)
        parts = content_parts(item)
        if "status" in body:
            body["status"] = "in_progress"
        if parts:
            for field in ("content", "summary"):
                if field in body:
                    body[field] = []
        if isinstance(item, FunctionCallOutput) and kind == "mcp_call":
            body |= {"output": None, "error": None}
        elif isinstance(item, McpListTools):
            body |= {"tools": [], "error": None}
        self._append_event(
            "response.output_item.added", {"output_index": output_item.index, "item": body}, out
        )
        if kind in ("mcp_call", "mcp_list_tools"):
            self._append_event(f"response.{kind}.in_progress", output_item.event_fields, out)
        for content_part in parts[:1]:
            self._start_part(output_item, content_part, out)

    def _start_part(
        self, output_item: _OutputItem, content_part: ContentPart, out: list[bytes]
    ) -> None:
        output_item.parts_started += 1
        fields = {
            **output_item.event_fields,
            content_part.index_field: content_part.index,
            "part": content_part.empty_part,
        }
        self._append_event(f"{content_part.part_event}.added", fields, out)

    def _finish_item(self, index: int, item: Item, out: list[bytes]) -> None:
        self._done_items[index] = item
        output_item = self._output_items.get(index)
        if output_item is None:
            if isinstance(item, FunctionCallOutput):
                self._append_mcp_output(item, out)
            return
        body = self._mcp_pairing.body_of(item, output_item.item_type, output_item.item_id)
        match item:
            case FunctionCall():
                if not self._finish_call(output_item, item, body, out):
                    return
            case FunctionCallOutput() if output_item.item_type == "mcp_call":
                arguments = {"arguments": body["arguments"]}
                self._append_event(
                    "response.mcp_call_arguments.done",
                    {**output_item.event_fields, **arguments},
                    out,
                )
                self._append_mcp_end(output_item, out, failed=item.is_error)
            case McpListTools():
                self._append_mcp_end(output_item, out, failed=item.error is not None)
            case ForeignItem():
                self._append_progress(output_item, item, out)
            case _:
                for number, content_part in enumerate(content_parts(item)):
                    self._finish_part(
                        output_item, content_part, out, started=number < output_item.parts_started
                    )
        self._append_item_done(output_item, body, out)

    def _append_item_done(
        self, output_item: _OutputItem, body: dict[str, Any], out: list[bytes]
    ) -> None:
        self._append_event(
            "response.output_item.done", {"output_index": output_item.index, "item": body}, out
        )

    def _finish_part(
        self,
        output_item: _OutputItem,
        content_part: ContentPart,
        out: list[bytes],
        *,
        started: bool,
    ) -> None:
        location = {**output_item.event_fields, content_part.index_field: content_part.index}
        logprobs = (
            {"logprobs": content_part.part["logprobs"]} if "logprobs" in content_part.part else {}
        )
        if not started:
            self._start_part(output_item, content_part, out)
            self._append_event(
                f"{content_part.event}.delta",
                {**location, "delta": content_part.text, **logprobs},
                out,
            )
        for number, annotation in enumerate(content_part.part.get("annotations", ())):
            fields = {**location, "annotation_index": number, "annotation": annotation}
            self._append_event(f"{content_part.event}.annotation.added", fields, out)
        self._append_event(
            f"{content_part.event}.done",
            {**location, content_part.text_field: content_part.text, **logprobs},
            out,
        )
        self._append_event(
            f"{content_part.part_event}.done", {**location, "part": content_part.part}, out
        )

    def _finish_call(
        self, output_item: _OutputItem, call: FunctionCall, body: dict[str, Any], out: list[bytes]
    ) -> bool:
        """A call's arguments are whole. False: its item is not, before its output comes."""
        if output_item.item_type == "mcp_approval_request":
            self._mcp_pairing.add_approval_request(call, output_item.item_id)
            return True
        if call.is_custom:
            fields = {**output_item.event_fields, "input": call.arguments}
            self._append_event("response.custom_tool_call_input.done", fields, out)
            return True
        fields = {**output_item.event_fields, "arguments": call.arguments}
        if output_item.item_type == "mcp_call":
            self._append_event("response.mcp_call_arguments.done", fields, out)
            self._mcp_pairing.open_call(call, body)
            self._pending_mcp_calls[call.call_id] = output_item
            return False
        fields["name"] = call.name
        self._append_event("response.function_call_arguments.done", fields, out)
        return True

    def _append_progress(
        self, output_item: _OutputItem, item: ForeignItem, out: list[bytes]
    ) -> None:
        """The steps of a call that an upstream ran: it came whole, with its end."""
        kind, fields = output_item.item_type, output_item.event_fields
        is_cut = item.body.get("status") in ("failed", "incomplete")
        for step in _PROGRESS_EVENTS.get(kind, ()):
            if is_cut and step == "completed":
                break
            self._append_event(f"response.{kind}.{step}", fields, out)
            code = item.body.get("code")
            if kind == "code_interpreter_call" and step == "in_progress" and isinstance(code, str):
                self._append_event(f"response.{kind}_code.delta", {**fields, "delta": code}, out)
                self._append_event(f"response.{kind}_code.done", {**fields, "code": code}, out)

    def _append_mcp_output(self, output: FunctionCallOutput, out: list[bytes]) -> None:
        """The output of a call that is shown already."""
        call, _ = self._mcp_pairing.close_call(output.call_id)
        output_item = self._pending_mcp_calls.pop(output.call_id)
        self._append_mcp_end(output_item, out, failed=output.is_error)
        self._append_item_done(output_item, mcp_call_body(call, output_item.item_id, output), out)

    def _append_mcp_end(self, output_item: _OutputItem, out: list[bytes], *, failed: bool) -> None:
        state = "failed" if failed else "completed"
        self._append_event(
            f"response.{output_item.item_type}.{state}", output_item.event_fields, out
        )

    def _finish_pending_calls(self, out: list[bytes]) -> None:
        """Calls whose outputs never came are done before the turn is."""
        for call_id, output_item in self._pending_mcp_calls.items():
            self._append_item_done(output_item, self._mcp_pairing.open_calls[call_id][1], out)
        self._pending_mcp_calls.clear()
