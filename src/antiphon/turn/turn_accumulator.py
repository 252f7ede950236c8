"""The rules of a turn: fold what a model says into items and events. No I/O, no clock.

Prose (answer, refusal, reasoning) is one open item at a time: a change of kind ends
it. Tool calls may grow side by side, told apart by their index, and all end with
the answer. Items keep the order in which they began. A turn has rounds: where tools
ran, their outputs follow the calls, and the model is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from antiphon.core import deltas, events
from antiphon.core.ids import new_call_id
from antiphon.core.items import (
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
from antiphon.core.turns import TurnStatus, Usage

_Prose = deltas.Text | deltas.Thought | deltas.RawThought | deltas.Refused
_THOUGHTS = (deltas.Thought, deltas.RawThought)
_ANSWERS = (deltas.Text, deltas.Refused)


class Verdict(msgspec.Struct, frozen=True):
    """How the model's part ended, in the words of ``core.turns.End``."""

    status: TurnStatus
    reason: str | None = None


_VERDICTS: dict[deltas.FinishReason, Verdict] = {
    "stop": Verdict("completed"),
    "tool_calls": Verdict("completed"),
    "length": Verdict("incomplete", "max_output_tokens"),
    "content_filter": Verdict("incomplete", "content_filter"),
}


class _Open(msgspec.Struct):
    """An item that still grows. ``annotations`` and ``logprobs`` are an answer's."""

    index: int
    kind: type
    pieces: list[str]
    call_id: str = ""
    name: str = ""
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()
    #: Whether its beginning was told.
    told: bool = True
    phase: Phase | None = None
    #: What the model will want back of its reasoning.
    sealed: deltas.Sealed | None = None


class Machine:
    """One turn's state. Feed it deltas, then ``close`` it once.

    ``finish`` is the reason the model gave for stopping, None until it gives one.
    ``usage`` is what all rounds took, ``last`` what the model reported of the last one.
    ``server_of`` tells the MCP server that lends a tool, by the name the model calls it.
    """

    def __init__(self, server_of: Callable[[str], str | None] | None = None) -> None:
        self._server_of = server_of
        self.finish: deltas.FinishReason | None = None
        self.last: Usage | None = None
        #: Whether the model asked for tools more often than it may.
        self.exhausted = False
        self._before: Usage | None = None
        self._round = 0
        self._items: list[Item | None] = []
        self._prose: _Open | None = None
        #: What the next answer is to the turn.
        self._phase: Phase | None = None
        self._calls: dict[int, _Open] = {}
        self._taken = 0

    @property
    def output(self) -> tuple[Item, ...]:
        """The items that are whole so far."""
        return tuple(item for item in self._items if item is not None)

    @property
    def usage(self) -> Usage | None:
        """Tokens of all rounds together, None while no model has said."""
        if self._before is None or self.last is None:
            return self.last or self._before
        return added(self._before, self.last)

    @property
    def silent(self) -> bool:
        """Whether the model has said nothing yet in this round."""
        return len(self._items) == self._round and not self._calls

    def feed(self, batch: Iterable[deltas.Delta]) -> list[events.Event]:
        """Take what arrived together; give what follows from it."""
        out: list[events.Event] = []
        for delta in batch:
            kind = type(delta)
            if isinstance(delta, _Prose):
                if not delta.text:
                    continue
                prose = self._prose
                if prose is None or prose.kind is not kind:
                    prose = self._begin_prose(kind, out)
                prose.pieces.append(delta.text)
                if isinstance(delta, deltas.Text) and delta.logprobs:
                    prose.logprobs += delta.logprobs
                    out.append(events.TextDelta(prose.index, delta.text, delta.logprobs))
                else:
                    out.append(_PROSE_EVENTS[kind](prose.index, delta.text))
            elif isinstance(delta, deltas.CallPiece):
                self._feed_call(delta, out)
            elif isinstance(delta, deltas.Used):
                self.last = delta.usage
            elif isinstance(delta, deltas.Finish):
                self.finish = delta.reason
            elif isinstance(delta, deltas.Over | deltas.Sealed):
                self._set_apart(delta, out)
            else:
                self._describe(delta)
        return out

    def close(self, *, whole: bool) -> list[events.Event]:
        """End every open item: ``whole`` if the model finished, else as a fragment."""
        cut = self.finish in ("length", "content_filter")
        status: ItemStatus = "completed" if whole and not cut else "incomplete"
        out: list[events.Event] = []
        still_open = [*self._calls.values(), *([self._prose] if self._prose else [])]
        for item in sorted(still_open, key=lambda one: (not one.told, one.index)):
            self._end(item, status, out)
        self._calls.clear()
        self._prose = self._phase = None
        return out

    def end_round(self) -> tuple[list[FunctionCall], list[events.Event]]:
        """The model is done for now: the calls it made, and the events that end its items.

        An answer that was cut makes no calls: their arguments may lack an end.
        """
        if self.finish in ("length", "content_filter") or not self._calls:
            return [], []
        out = self.close(whole=True)
        made = self._items[self._round :]
        return [item for item in made if isinstance(item, FunctionCall)], out

    def next_round(self) -> None:
        """The model is asked (again), now that tools have run."""
        self.finish = None
        self._before, self.last = self.usage, None
        self._round = len(self._items)

    def add(self, item: Item) -> list[events.Event]:
        """An item that comes in one piece, from elsewhere than the model."""
        index = len(self._items)
        self._items.append(item)
        return [events.ItemAdded(index, item), events.ItemDone(index, item)]

    def verdict(self) -> Verdict:
        """What the model's finish reason means for the turn."""
        if self.exhausted:
            return Verdict("incomplete", "max_tool_calls")
        return _VERDICTS[self.finish or "stop"]

    def take_finished(self) -> list[Item]:
        """The whole items not taken before, without overtaking one that still grows."""
        start = self._taken
        while self._taken < len(self._items) and self._items[self._taken] is not None:
            self._taken += 1
        return [item for item in self._items[start : self._taken] if item is not None]

    def _begin_prose(self, kind: type, out: list[events.Event]) -> _Open:
        self._end_prose(out)
        self._prose = _Open(len(self._items), kind, [])
        if kind in _ANSWERS:
            self._prose.phase, self._phase = self._phase, None
        self._items.append(None)
        out.append(
            events.ItemAdded(
                self._prose.index, _prose_item(kind, "", "completed", self._prose.phase)
            )
        )
        return self._prose

    def _end_prose(self, out: list[events.Event]) -> None:
        if self._prose is not None:
            self._end(self._prose, "completed", out)
            self._prose = None

    def _describe(self, told: deltas.Cited | deltas.Phased) -> None:
        """What is told of an answer goes into its item, and so is told with its end."""
        answer = self._prose if self._prose and self._prose.kind in _ANSWERS else None
        if isinstance(told, deltas.Phased):
            if answer is None:
                self._phase = told.phase
            elif answer.phase is None:
                answer.phase = told.phase
        elif answer is not None and answer.kind is deltas.Text:
            # Without an answer it cites nothing.
            answer.annotations += (told.annotation,)

    def _set_apart(self, mark: deltas.Over | deltas.Sealed, out: list[events.Event]) -> None:
        if isinstance(mark, deltas.Sealed):
            prose = self._prose
            if prose is None or prose.kind not in _THOUGHTS:
                # Reasoning of which nothing was shown is an item too.
                prose = self._begin_prose(Reasoning, out)
            prose.sealed = mark
        else:
            # It may have been an answer of no words.
            self._phase = None
        self._end_prose(out)

    def _feed_call(self, piece: deltas.CallPiece, out: list[events.Event]) -> None:
        self._end_prose(out)
        call = self._calls.get(piece.index)
        if call is None:
            call = _Open(-1, FunctionCall, [], self._call_id(piece), told=False)
            self._calls[piece.index] = call
        if not call.name and piece.name:
            call.name = piece.name
        if piece.arguments:
            call.pieces.append(piece.arguments)
        if call.told:
            if piece.arguments:
                out.append(events.ArgumentsDelta(call.index, piece.arguments))
        elif call.name:
            # Which kind of item it is depends on the name.
            self._tell(call, out)

    def _tell(self, call: _Open, out: list[events.Event]) -> None:
        """The beginning of a call, and what has come of it so far."""
        call.told = True
        call.index = len(self._items)
        self._items.append(None)
        out.append(events.ItemAdded(call.index, self._made(call, "", "completed")))
        if text := "".join(call.pieces):
            out.append(events.ArgumentsDelta(call.index, text))

    def _made(self, call: _Open, arguments: str, status: ItemStatus) -> FunctionCall:
        server = self._server_of(call.name) if self._server_of else None
        return FunctionCall(call.call_id, call.name, arguments, status, server)

    def _call_id(self, piece: deltas.CallPiece) -> str:
        """The model's id, if it gave one and did not give it to two calls."""
        taken = any(call.call_id == piece.call_id for call in self._calls.values())
        return piece.call_id if piece.call_id and not taken else new_call_id()

    def _end(self, item: _Open, status: ItemStatus, out: list[events.Event]) -> None:
        text = "".join(item.pieces)
        done: Item
        if item.kind is FunctionCall:
            if not item.told:
                self._tell(item, out)
            done = self._made(item, text, status)
        elif item.annotations or item.logprobs:
            part = OutputText(text, item.annotations, item.logprobs)
            done = Message("assistant", (part,), status=status, phase=item.phase)
        else:
            done = _prose_item(item.kind, text, status, item.phase)
            if item.sealed is not None:
                done = msgspec.structs.replace(done, **msgspec.structs.asdict(item.sealed))
        self._items[item.index] = done
        out.append(events.ItemDone(item.index, done))


_PROSE_EVENTS: dict[
    type,
    type[events.TextDelta | events.ReasoningDelta | events.RawReasoningDelta | events.RefusalDelta],
] = {
    deltas.Text: events.TextDelta,
    deltas.Thought: events.ReasoningDelta,
    deltas.RawThought: events.RawReasoningDelta,
    deltas.Refused: events.RefusalDelta,
}


def _prose_item(kind: type, text: str, status: ItemStatus, phase: Phase | None = None) -> Item:
    if kind is deltas.Text:
        return Message("assistant", text, status=status, phase=phase)
    if kind is deltas.Refused:
        return Message("assistant", (Refusal(text),), status=status, phase=phase)
    if kind is Reasoning:
        return Reasoning(status=status)
    if kind is deltas.RawThought:
        return Reasoning(content=(ReasoningText(text),), status=status)
    return Reasoning((SummaryText(text),), status=status)


def added(one: Usage, other: Usage) -> Usage:
    """Two calls' tokens together."""
    return Usage(
        *(getattr(one, field) + getattr(other, field) for field in Usage.__struct_fields__)
    )
