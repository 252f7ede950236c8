"""Turn accumulator: the state machine from a model's deltas to items and events. No I/O, no clock.

Prose (answer, refusal, reasoning) is one open item at a time: a change of kind ends
it, unless the model switches between several. Tool calls may grow side by side, told apart
by their index, and all end with the answer. Items keep the order in which they began. A turn
has rounds: where tools ran, their outputs follow the calls, and the model is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from antiphon.core import deltas, events
from antiphon.core.custom_tool_input import CustomInputDecoder
from antiphon.core.foreign_items import function_views, search_call
from antiphon.core.ids import new_call_id
from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    Item,
    ItemStatus,
    Message,
    OutputText,
    Phase,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from antiphon.core.provider_fields import ProviderFields, join_provider_fields
from antiphon.core.tool_definitions import tool_finder
from antiphon.core.turns import FunctionTool, TurnStatus, Usage

_Words = deltas.OutputTextDelta
_Prose = (
    deltas.OutputTextDelta
    | deltas.ReasoningSummaryDelta
    | deltas.ReasoningTextDelta
    | deltas.RefusalTextDelta
)
_REASONING_DELTAS = (deltas.ReasoningSummaryDelta, deltas.ReasoningTextDelta)
_ANSWER_DELTAS = (deltas.OutputTextDelta, deltas.RefusalTextDelta)
_PROSE_DELTAS = (*_ANSWER_DELTAS, *_REASONING_DELTAS)


class TurnOutcome(msgspec.Struct, frozen=True):
    """How the model's part ended, in the words of ``core.turns.End``."""

    status: TurnStatus
    reason: str | None = None


_OUTCOMES: dict[deltas.FinishReason, TurnOutcome] = {
    "stop": TurnOutcome("completed"),
    "tool_calls": TurnOutcome("completed"),
    "length": TurnOutcome("incomplete", "max_output_tokens"),
    "content_filter": TurnOutcome("incomplete", "content_filter"),
}


class _OpenItem(msgspec.Struct):
    """An item that still grows. ``annotations`` and ``logprobs`` are an answer's."""

    index: int
    kind: type
    pieces: list[str]
    call_id: str = ""
    name: str = ""
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()
    #: Whether events of its beginning, and of arguments of its call, were emitted.
    is_started: bool = True
    has_arguments: bool = False
    phase: Phase | None = None
    #: What the model will want back of its reasoning.
    encrypted_reasoning: deltas.EncryptedReasoning | None = None
    provider_fields: ProviderFields | None = None
    #: The tool that a call is of, where it is not a plain function or not known.
    tool: FunctionTool | None = None
    #: Reads a custom tool's text out of the arguments of its call.
    input_decoder: CustomInputDecoder | None = None


class TurnAccumulator:
    """One turn's state. Feed it deltas, then ``close`` it once.

    ``finish_reason`` is the reason the model gave for stopping, None until it gives one.
    ``usage`` is what all rounds took, ``last_usage`` those of the last one.
    ``server_of`` gives the label of the MCP server that a tool belongs to, by the name the model
    calls it. ``tools`` are those that the model is offered.
    ``call_id`` is for its calls, in place of its own.
    """

    def __init__(
        self,
        server_of: Callable[[str], str | None] | None = None,
        tools: Sequence[FunctionTool] = (),
        call_id: str | None = None,
    ) -> None:
        self._server_of = server_of
        self._find_tool = tool_finder(tools)
        self._call_id = call_id
        self.finish_reason: deltas.FinishReason | None = None
        self.last_usage: Usage | None = None
        #: The model that answers in place of the requested one.
        self.answering_model: str | None = None
        #: Whether the model asked for tools more often than it may.
        self.tool_limit_reached = False
        self._earlier_usage: Usage | None = None
        self._round_start = 0
        self._items: list[Item | None] = []
        self._prose: _OpenItem | None = None
        self._slot = 0
        #: Prose that is paused, by its slot.
        self._paused: dict[int, _OpenItem] = {}
        #: What the next answer is to the turn.
        self._next_phase: Phase | None = None
        #: Fields of the next item.
        self._next_fields: ProviderFields | None = None
        self._calls: dict[int, _OpenItem] = {}
        self._context: Sequence[bytes] = ()
        self._popped_count = 0
        #: Whether items have become whole since they were last taken.
        self.has_completed_items = False

    @property
    def output(self) -> tuple[Item, ...]:
        """The items that are whole so far."""
        return tuple([item for item in self._items if item is not None])

    @property
    def usage(self) -> Usage | None:
        """Tokens of all rounds together, None while no model has said."""
        if self._earlier_usage is None or self.last_usage is None:
            return self.last_usage or self._earlier_usage
        return self._earlier_usage + self.last_usage

    @property
    def returns_thoughts(self) -> bool:
        """Whether the next request repeats what the model thought in this round."""
        made = self._items[self._round_start :]
        return any(isinstance(item, FunctionCall) for item in made) and any(
            isinstance(item, Reasoning) and item.provider_fields is not None for item in made
        )

    @property
    def is_round_empty(self) -> bool:
        """Whether the model has said nothing yet in this round."""
        return len(self._items) == self._round_start and not self._calls

    def feed(self, batch: Iterable[deltas.Delta]) -> list[events.Event]:
        """Take what arrived together; give what follows from it."""
        out: list[events.Event] = []
        for delta in batch:
            prose = self._prose
            if type(delta) is _Words and prose and prose.kind is _Words and not delta.logprobs:
                # More words of an answer, as nearly all of a stream are.
                if text := delta.text:
                    prose.pieces.append(text)
                    out.append(events.TextDelta(prose.index, text))
            elif isinstance(delta, _PROSE_DELTAS):
                if delta.text:
                    self._feed_prose(delta, out)
            elif isinstance(delta, deltas.ToolCallDelta):
                self._feed_call(delta, out)
            elif isinstance(delta, deltas.UsageUpdate):
                self.last_usage = delta.usage
            elif isinstance(delta, deltas.Finish):
                self.finish_reason = delta.reason
            elif isinstance(delta, deltas.AnsweringModel):
                self.answering_model = delta.name
            else:
                self._feed_other(delta, out)
        return out

    def close(self, *, is_complete: bool) -> list[events.Event]:
        """End every open item: complete if the model finished (``is_complete``), else as a
        fragment.
        """
        cut = self.finish_reason in ("length", "content_filter")
        status: ItemStatus = "completed" if is_complete and not cut else "incomplete"
        out: list[events.Event] = []
        if not (self._calls or self._paused or self._next_fields):
            # Words alone, as nearly always.
            self._end_prose(out, status)
            self._slot, self._next_phase = 0, None
            return out
        self._begin_fields_item(out)
        self._switch_prose(0)
        still_open = [*self._calls.values(), *self._paused.values()]
        still_open += [self._prose] if self._prose else []
        for item in sorted(still_open, key=lambda one: (not one.is_started, one.index)):
            self._end_item(item, status, out)
        self._calls.clear()
        self._paused.clear()
        self._prose = self._next_phase = None
        return out

    def end_round(self) -> tuple[list[FunctionCall], list[events.Event]]:
        """The model is done for now: the calls it made, and the events that end its items.

        An answer that was cut makes no calls: their arguments may lack an end.
        """
        if self.finish_reason in ("length", "content_filter") or not self._calls:
            return [], []
        out = self.close(is_complete=True)
        made = [item for item in self._items[self._round_start :] if item is not None]
        return [item for item in function_views(made) if isinstance(item, FunctionCall)], out

    def start_round(self) -> None:
        """The model is asked (again), now that tools have run."""
        self.finish_reason = self.answering_model = None
        self._earlier_usage, self.last_usage = self.usage, None
        self._round_start = len(self._items)

    def add_usage(self, usage: Usage | None) -> None:
        """Count tokens of a call beside the rounds; before the first of them."""
        if usage is not None:
            self._earlier_usage = self._earlier_usage + usage if self._earlier_usage else usage

    def set_context(self, pieces: Sequence[bytes]) -> None:
        """What the model is shown, as chat messages' JSON: no new call gets the id of one in it."""
        self._context = pieces

    def add_item(self, item: Item) -> list[events.Event]:
        """An item that comes in one piece, from elsewhere than the model."""
        index = len(self._items)
        self._items.append(item)
        self.has_completed_items = True
        return [events.ItemAdded(index, item), events.ItemDone(index, item)]

    def outcome(self) -> TurnOutcome:
        """What the model's finish reason means for the turn."""
        if self.tool_limit_reached:
            return TurnOutcome("incomplete", "max_tool_calls")
        return _OUTCOMES[self.finish_reason or "stop"]

    def pop_completed_items(self) -> list[Item]:
        """The whole items not taken before, without overtaking one that still grows."""
        start = self._popped_count
        self.has_completed_items = False
        while self._popped_count < len(self._items) and self._items[self._popped_count] is not None:
            self._popped_count += 1
        return [item for item in self._items[start : self._popped_count] if item is not None]

    def _feed_prose(self, delta: _Prose, out: list[events.Event]) -> None:
        kind, prose = type(delta), self._prose
        if prose is None or prose.kind is not kind:
            prose = self._begin_prose(kind, out, getattr(delta, "provider_fields", None))
        prose.pieces.append(delta.text)
        if isinstance(delta, _Words) and delta.logprobs:
            prose.logprobs += delta.logprobs
            out.append(events.TextDelta(prose.index, delta.text, delta.logprobs))
        else:
            out.append(_PROSE_EVENTS[kind](prose.index, delta.text))

    def _begin_prose(
        self, kind: type, out: list[events.Event], provider_fields: ProviderFields | None = None
    ) -> _OpenItem:
        self._end_prose(out)
        prose = self._prose = _OpenItem(len(self._items), kind, [])
        if kind in _ANSWER_DELTAS:
            prose.phase, self._next_phase = self._next_phase, None
        self._items.append(None)
        empty = _prose_item(kind, "", "completed", prose.phase)
        if provider_fields is not None and provider_fields.text_field is not None:
            # Who shows the text as it comes has to know its name.
            text_field = ProviderFields(text_field=provider_fields.text_field)
            empty = msgspec.structs.replace(empty, provider_fields=text_field)
        prose.provider_fields = join_provider_fields(provider_fields, self._next_fields)
        self._next_fields = None
        out.append(events.ItemAdded(prose.index, empty))
        return prose

    def _end_prose(self, out: list[events.Event], status: ItemStatus = "completed") -> None:
        if self._prose is not None:
            self._end_item(self._prose, status, out)
            self._prose = None

    def _switch_prose(self, slot: int) -> None:
        if self._prose is not None:
            self._paused[self._slot] = self._prose
        self._slot, self._prose = slot, self._paused.pop(slot, None)

    def _correct_text(self, delta: deltas.TextCorrection) -> None:
        """Nothing is shown of it before the item's end: deltas only add."""
        index = delta.call_index
        item = self._prose if index is None else self._calls.get(index)
        if item is None:
            return
        item.pieces[:] = [delta.text]
        if item.input_decoder is not None:
            item.input_decoder = CustomInputDecoder()
            item.pieces[:] = [item.input_decoder.feed(delta.text)]

    def _feed_other(
        self,
        delta: deltas.ItemEnd
        | deltas.EncryptedReasoning
        | deltas.ForeignItemDelta
        | deltas.ItemSwitch
        | deltas.TextCorrection
        | deltas.ProviderFieldsDelta
        | deltas.AnnotationDelta
        | deltas.PhaseDelta,
        out: list[events.Event],
    ) -> None:
        match delta:
            case deltas.ItemEnd() | deltas.EncryptedReasoning() | deltas.ForeignItemDelta():
                self._feed_boundary(delta, out)
            case deltas.ProviderFieldsDelta():
                self._feed_provider_fields(delta.provider_fields)
            case deltas.ItemSwitch(slot=slot):
                self._switch_prose(slot)
            case deltas.TextCorrection():
                self._correct_text(delta)
            case _:
                self._feed_metadata(delta)

    def _feed_provider_fields(self, fields: ProviderFields) -> None:
        if self._prose is not None:
            self._prose.provider_fields = join_provider_fields(self._prose.provider_fields, fields)
        else:
            self._next_fields = join_provider_fields(self._next_fields, fields)

    def _begin_fields_item(self, out: list[events.Event]) -> None:
        """Fields of a message that has no words are an item: they are its model's reasoning."""
        if self._next_fields is not None:
            self._begin_prose(Reasoning, out)

    def _feed_metadata(self, delta: deltas.AnnotationDelta | deltas.PhaseDelta) -> None:
        """Fields of an answer become fields of its item, which the item's end shows."""
        answer = self._prose if self._prose and self._prose.kind in _ANSWER_DELTAS else None
        if isinstance(delta, deltas.PhaseDelta):
            if answer is None:
                self._next_phase = delta.phase
            elif answer.phase is None:
                answer.phase = delta.phase
        elif answer is not None and answer.kind is deltas.OutputTextDelta:
            # Without an answer it cites nothing.
            answer.annotations += (delta.annotation,)

    def _feed_boundary(
        self,
        delta: deltas.ItemEnd | deltas.EncryptedReasoning | deltas.ForeignItemDelta,
        out: list[events.Event],
    ) -> None:
        if isinstance(delta, deltas.EncryptedReasoning):
            prose = self._prose
            if prose is None or prose.kind not in _REASONING_DELTAS:
                # Reasoning of which nothing was shown is an item too.
                prose = self._begin_prose(Reasoning, out)
            prose.encrypted_reasoning = delta
        elif isinstance(delta, deltas.ItemEnd):
            # It may have been an answer of no words.
            self._next_phase = None
        self._end_prose(out)
        if isinstance(delta, deltas.ForeignItemDelta):
            out += self.add_item(ForeignItem(delta.body))

    def _feed_call(self, delta: deltas.ToolCallDelta, out: list[events.Event]) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._begin_fields_item(out)
        self._end_prose(out)
        if call is None:
            call = _OpenItem(-1, FunctionCall, [], self._unique_call_id(delta), is_started=False)
            self._calls[delta.index] = call
        if delta.provider_fields is not None:
            call.provider_fields = join_provider_fields(call.provider_fields, delta.provider_fields)
        if not call.name and delta.name:
            call.name = delta.name
        text = delta.arguments
        if call.input_decoder is not None:
            text = call.input_decoder.feed(text)
        if text:
            call.pieces.append(text)
        if call.is_started:
            self._emit_arguments(call, text, out)
        elif call.name:
            # Which kind of item it is depends on the name.
            self._emit_call_start(call, out)

    def _emit_call_start(self, call: _OpenItem, out: list[events.Event]) -> None:
        """The beginning of a call, and what has come of it so far."""
        call.tool = self._find_tool(call.name)
        if call.tool is not None and call.tool.is_search:
            # Its item has no deltas: it comes in one piece.
            return
        call.is_started = True
        call.index = len(self._items)
        self._items.append(None)
        if call.tool is not None and call.tool.is_custom:
            call.input_decoder = CustomInputDecoder()
            call.pieces = [call.input_decoder.feed("".join(call.pieces))]
        out.append(events.ItemAdded(call.index, self._build_call(call, "", "completed")))
        self._emit_arguments(call, "".join(call.pieces), out)

    def _emit_arguments(self, call: _OpenItem, text: str, out: list[events.Event]) -> None:
        """A piece of a call's arguments; white space waits, since it may be all there is."""
        if not call.has_arguments:
            if not text or (text.isspace() and call.input_decoder is None):
                return
            call.has_arguments = True
            text = "".join(call.pieces)
        if text:
            out.append(events.ArgumentsDelta(call.index, text))

    def _build_call(self, call: _OpenItem, arguments: str, status: ItemStatus) -> FunctionCall:
        server = self._server_of(call.name) if self._server_of else None
        tool = call.tool
        return FunctionCall(
            call.call_id,
            call.name if tool is None else tool.local_name or tool.name,
            arguments,
            status,
            server,
            namespace=None if tool is None else tool.namespace,
            is_custom=call.input_decoder is not None,
        )

    def _unique_call_id(self, delta: deltas.ToolCallDelta) -> str:
        """The model's id, with a number behind it where another call that it is shown has it."""
        given = self._call_id or delta.call_id
        if not given:
            return new_call_id()
        # Some models count anew in each answer. What takes the place of an id is computed: the
        # same turn gets the same context wherever it runs.
        call_id, number = given, 1
        while self._is_call_id_taken(call_id):
            number += 1
            call_id = f"{given}_{number}"
        return call_id

    def _is_call_id_taken(self, call_id: str) -> bool:
        field = b'"id":' + msgspec.json.encode(call_id)
        is_of_answer = any(call.call_id == call_id for call in self._calls.values())
        return is_of_answer or any(field in piece for piece in self._context)

    def _end_item(self, item: _OpenItem, status: ItemStatus, out: list[events.Event]) -> None:
        done: Item
        if item.kind is FunctionCall:
            if not item.is_started:
                self._emit_call_start(item, out)
            if item.tool is not None and item.tool.is_search:
                search = search_call(item.call_id, "".join(item.pieces), status)
                out += self.add_item(search)
                return
            if item.input_decoder is not None and (rest := item.input_decoder.finish()):
                item.pieces.append(rest)
                self._emit_arguments(item, rest, out)
        text = "".join(item.pieces)
        if item.kind is FunctionCall:
            if not item.has_arguments and item.input_decoder is None:
                text = ""
                if status == "completed":
                    # A function without parameters is called with an empty object.
                    text = "{}"
                    out.append(events.ArgumentsDelta(item.index, text))
            done = self._build_call(item, text, status)
        elif item.annotations or item.logprobs:
            part = OutputText(text, item.annotations, item.logprobs)
            done = Message("assistant", (part,), status=status, phase=item.phase)
        else:
            done = _prose_item(item.kind, text, status, item.phase)
            if item.encrypted_reasoning is not None:
                done = msgspec.structs.replace(
                    done, **msgspec.structs.asdict(item.encrypted_reasoning)
                )
        if item.provider_fields is not None:
            done = msgspec.structs.replace(done, provider_fields=item.provider_fields)
        self._items[item.index] = done
        self.has_completed_items = True
        out.append(events.ItemDone(item.index, done))


_PROSE_EVENTS: dict[
    type,
    type[events.TextDelta | events.ReasoningDelta | events.RawReasoningDelta | events.RefusalDelta],
] = {
    deltas.OutputTextDelta: events.TextDelta,
    deltas.ReasoningSummaryDelta: events.ReasoningDelta,
    deltas.ReasoningTextDelta: events.RawReasoningDelta,
    deltas.RefusalTextDelta: events.RefusalDelta,
}


def _prose_item(kind: type, text: str, status: ItemStatus, phase: Phase | None = None) -> Item:
    if kind is deltas.OutputTextDelta:
        return Message("assistant", text, status=status, phase=phase)
    if kind is deltas.RefusalTextDelta:
        return Message("assistant", (Refusal(text),), status=status, phase=phase)
    if kind is Reasoning:
        return Reasoning(status=status)
    if kind is deltas.ReasoningTextDelta:
        return Reasoning(content=(ReasoningText(text),), status=status)
    return Reasoning((SummaryText(text),), status=status)
