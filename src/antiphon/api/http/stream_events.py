"""A turn's events as the Responses API streams them. Pure: events in, bytes out.

Some clients reset their parser at each network read, so every event is made in one
piece, and all that belong to one batch are joined before they are written.

What of an item is streamed piece by piece, and how events call it. Pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from antiphon.api.http.includes import shows_sealed
from antiphon.api.http.item_bodies import Pairs, mcp_call_body, part_body
from antiphon.api.http.response_body import response_body
from antiphon.core import events
from antiphon.core.ids import item_id
from antiphon.core.items import (
    ErasedItem,
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


class Strand(msgspec.Struct, frozen=True):
    """One growing text of an item, and the part that holds it.

    ``event`` and ``part_event`` are the events' names without their last word, ``at`` the
    field that holds ``place``, ``field`` the part's and the last event's key of the text.
    """

    event: str
    part_event: str
    at: str
    place: int
    field: str
    part: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.part[self.field])

    @property
    def empty(self) -> dict[str, Any]:
        """The part before it grew."""
        blank = {**self.part, self.field: ""}
        for extra in ("annotations", "logprobs"):
            if extra in blank:
                blank[extra] = []
        return blank


def strands_of(item: Item) -> list[Strand]:
    """An item's texts, in the order they are told. Nothing for items that have none."""
    match item:
        case Message(content=str(text)):
            return [_content("response.output_text", 0, part_body(OutputText(text)))]
        case Message(content=parts):
            return [
                _content(
                    "response.refusal" if isinstance(part, Refusal) else "response.output_text",
                    place,
                    part_body(part),
                )
                for place, part in enumerate(parts)
                if isinstance(part, OutputText | Refusal)
            ]
        case Reasoning(summary=summary, content=content):
            return [
                Strand(
                    "response.reasoning_summary_text",
                    "response.reasoning_summary_part",
                    "summary_index",
                    place,
                    "text",
                    {"type": "summary_text", "text": one.text},
                )
                for place, one in enumerate(summary)
            ] + [
                _content("response.reasoning", place, {"type": "reasoning_text", "text": one.text})
                for place, one in enumerate(content)
            ]
    return []


def _content(event: str, place: int, part: dict[str, Any]) -> Strand:
    field = "refusal" if event == "response.refusal" else "text"
    return Strand(event, "response.content_part", "content_index", place, field, part)


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

_NO_LOGPROBS = b'"logprobs":[]'
_DELTAS: dict[type, tuple[str, str]] = {
    events.TextDelta: ("response.output_text.delta", '"content_index":0,"logprobs":[],'),
    events.RefusalDelta: ("response.refusal.delta", '"content_index":0,'),
    events.ReasoningDelta: ("response.reasoning_summary_text.delta", '"summary_index":0,'),
    events.RawReasoningDelta: ("response.reasoning.delta", '"content_index":0,'),
    events.ArgumentsDelta: ("response.function_call_arguments.delta", ""),
}
_MCP_DELTA = ("response.mcp_call_arguments.delta", "")

#: The frame of deltas that are not shown.
_HIDDEN = (b"", b"")


class _Spot(msgspec.Struct):
    """Where an item is shown: its place in the output as clients count, id and type.

    ``told`` is how many of its strands have begun.
    """

    index: int
    name: str
    kind: str
    told: int = 0

    @property
    def place(self) -> dict[str, Any]:
        return {"item_id": self.name, "output_index": self.index}


class EventEncoder:
    """Encodes one turn's events from the first; numbers them as it goes.

    ``include`` is what its reader asks for besides what the turn's maker asked for.
    """

    def __init__(self, opening: Response, include: Sequence[str] = ()) -> None:
        options = opening.header.options
        servers = options.mcp_servers
        self._id = opening.id
        self._first = len(opening.input)
        self._number = 0
        self._frames: dict[tuple[type, int], tuple[bytes, bytes]] = {}
        self._opening = opening
        self._include = include
        #: By the core's index: what is shown, and what is whole.
        self._spots: dict[int, _Spot] = {}
        self._whole: dict[int, Item] = {}
        self._pairs = Pairs(
            opening.id,
            lambda call: needs_approval(servers, call),
            sealed=shows_sealed(options, include),
        )
        #: The spots of server calls whose outputs have not come, by call id.
        self._calls: dict[str, _Spot] = {}

    def encode(self, batch: Iterable[events.Event]) -> bytes:
        """The bytes of events that leave together."""
        out: list[bytes] = []
        for event in batch:
            match event:
                case (
                    events.TextDelta()
                    | events.RefusalDelta()
                    | events.ReasoningDelta()
                    | events.RawReasoningDelta()
                    | events.ArgumentsDelta()
                ):
                    key = (type(event), event.index)
                    frame = self._frames.get(key) or self._frame(*key)
                    if frame is not _HIDDEN:
                        head, middle = frame
                        if type(event) is events.TextDelta and event.logprobs:
                            told = b'"logprobs":' + _encode(event.logprobs)
                            middle = middle.replace(_NO_LOGPROBS, told)
                        out += (head, b"%d" % self._number, middle, _encode(event.text), b"}\n\n")
                        self._number += 1
                case events.ItemAdded(index=index, item=item):
                    self._added(index, item, out)
                case events.ItemDone(index=index, item=item):
                    self._done(index, item, out)
                case events.Created(response=response):
                    self._created(response, out)
                case events.Ended(response=response):
                    self._close(out)
                    self._put_response(_TERMINAL[response.status], response, out)
        return b"".join(out)

    def failed(self, error: AntiphonError) -> bytes:
        """The last event of a turn whose end could not be kept, with what has arrived."""
        end = End("failed", time.time(), None, TurnError(error.code, error.message))
        # An item that is still open leaves its place empty: ids go by places.
        size = max(self._whole, default=-1) + 1
        output = tuple(self._whole.get(index, ErasedItem()) for index in range(size))
        response = msgspec.structs.replace(self._opening, output=output, end=end)
        return self.encode([events.Ended(response)])

    def error(self, error: AntiphonError) -> bytes:
        """An ``error`` event: the specification's shape, and OpenAI's flat one in the same."""
        fields = {"code": error.code, "message": error.message, "param": error.param}
        out: list[bytes] = []
        self._put("error", {"error": {"type": error.type, **fields}, **fields}, out)
        return b"".join(out)

    def _put(self, kind: str, fields: dict[str, Any], out: list[bytes]) -> None:
        body = _encode({"type": kind, "sequence_number": self._number, **fields})
        out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))
        self._number += 1

    def _put_response(
        self, kind: str, response: Response, out: list[bytes], *, queued: bool = False
    ) -> None:
        body = response_body(response, queued=queued, include=self._include)
        self._put(kind, {"response": body}, out)

    def _created(self, response: Response, out: list[bytes]) -> None:
        queued = response.header.background
        self._put_response("response.created", response, out, queued=queued)
        if queued:
            self._put_response("response.queued", response, out, queued=True)
        self._put_response("response.in_progress", response, out)

    def _frame(self, kind: type, index: int) -> tuple[bytes, bytes]:
        """What stands around a delta's number and text: made once for each item."""
        spot = self._spots[index]
        frame = _HIDDEN
        if spot.kind != "mcp_approval_request":
            name, part = _MCP_DELTA if spot.kind == "mcp_call" else _DELTAS[kind]
            head = f'event: {name}\ndata: {{"type":"{name}","sequence_number":'
            place = f'"item_id":"{spot.name}","output_index":{spot.index}'
            frame = (head.encode(), f',{place},{part}"delta":'.encode())
        self._frames[kind, index] = frame
        return frame

    def _added(self, index: int, item: Item, out: list[bytes]) -> None:
        kind = self._pairs.kind(item)
        if kind is None:
            return
        spot = _Spot(len(self._spots), item_id(self._id, kind, self._first + index), kind)
        self._spots[index] = spot
        body = self._pairs.body(item, kind, spot.name)
        strands = strands_of(item)
        if "status" in body:
            body["status"] = "in_progress"
        if strands:
            for field in ("content", "summary"):
                if field in body:
                    body[field] = []
        if isinstance(item, FunctionCallOutput) and kind == "mcp_call":
            body |= {"output": None, "error": None}
        elif isinstance(item, McpListTools):
            body |= {"tools": [], "error": None}
        self._put("response.output_item.added", {"output_index": spot.index, "item": body}, out)
        if kind in ("mcp_call", "mcp_list_tools"):
            self._put(f"response.{kind}.in_progress", spot.place, out)
        for strand in strands[:1]:
            self._begin(spot, strand, out)

    def _begin(self, spot: _Spot, strand: Strand, out: list[bytes]) -> None:
        spot.told += 1
        fields = {**spot.place, strand.at: strand.place, "part": strand.empty}
        self._put(f"{strand.part_event}.added", fields, out)

    def _done(self, index: int, item: Item, out: list[bytes]) -> None:
        self._whole[index] = item
        spot = self._spots.get(index)
        if spot is None:
            if isinstance(item, FunctionCallOutput):
                self._answer(item, out)
            return
        body = self._pairs.body(item, spot.kind, spot.name)
        match item:
            case FunctionCall():
                if not self._end_call(spot, item, body, out):
                    return
            case FunctionCallOutput() if spot.kind == "mcp_call":
                arguments = {"arguments": body["arguments"]}
                self._put("response.mcp_call_arguments.done", {**spot.place, **arguments}, out)
                self._end_mcp(spot, out, failed=item.is_error)
            case McpListTools():
                self._end_mcp(spot, out, failed=item.error is not None)
            case _:
                for number, strand in enumerate(strands_of(item)):
                    self._end_strand(spot, strand, out, begun=number < spot.told)
        self._put_done(spot, body, out)

    def _put_done(self, spot: _Spot, body: dict[str, Any], out: list[bytes]) -> None:
        self._put("response.output_item.done", {"output_index": spot.index, "item": body}, out)

    def _end_strand(self, spot: _Spot, strand: Strand, out: list[bytes], *, begun: bool) -> None:
        place = {**spot.place, strand.at: strand.place}
        logprobs = {"logprobs": strand.part["logprobs"]} if "logprobs" in strand.part else {}
        if not begun:
            self._begin(spot, strand, out)
            self._put(f"{strand.event}.delta", {**place, "delta": strand.text, **logprobs}, out)
        for number, annotation in enumerate(strand.part.get("annotations", ())):
            fields = {**place, "annotation_index": number, "annotation": annotation}
            self._put(f"{strand.event}.annotation.added", fields, out)
        self._put(f"{strand.event}.done", {**place, strand.field: strand.text, **logprobs}, out)
        self._put(f"{strand.part_event}.done", {**place, "part": strand.part}, out)

    def _end_call(
        self, spot: _Spot, call: FunctionCall, body: dict[str, Any], out: list[bytes]
    ) -> bool:
        """A call's arguments are whole. False: its item is not, before its output comes."""
        if spot.kind == "mcp_approval_request":
            self._pairs.request(call, spot.name)
            return True
        fields = {**spot.place, "arguments": call.arguments}
        if spot.kind == "mcp_call":
            self._put("response.mcp_call_arguments.done", fields, out)
            self._pairs.open(call, body)
            self._calls[call.call_id] = spot
            return False
        fields["name"] = call.name
        self._put("response.function_call_arguments.done", fields, out)
        return True

    def _answer(self, output: FunctionCallOutput, out: list[bytes]) -> None:
        """The output of a call that is shown already."""
        call, _ = self._pairs.answered(output.call_id)
        spot = self._calls.pop(output.call_id)
        self._end_mcp(spot, out, failed=output.is_error)
        self._put_done(spot, mcp_call_body(call, spot.name, output), out)

    def _end_mcp(self, spot: _Spot, out: list[bytes], *, failed: bool) -> None:
        state = "failed" if failed else "completed"
        self._put(f"response.{spot.kind}.{state}", spot.place, out)

    def _close(self, out: list[bytes]) -> None:
        """Calls whose outputs never came are done before the turn is."""
        for call_id, spot in self._calls.items():
            self._put_done(spot, self._pairs.waiting[call_id][1], out)
        self._calls.clear()
