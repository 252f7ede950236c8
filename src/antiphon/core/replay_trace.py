"""Replay trace: how a turn's text was divided into deltas, so that a replay is the same.

A trace is a list of small integers, read in order:

    n > 0             a delta of the current item: its next n characters
    0                 the current item is whole
    odd n < 0         item (-n - 1) / 2 begins, and is the current one
    even n < 0        item (-n - 2) / 2 is the current one again; said of an item right after
                      its beginning: it began without its phase

The words themselves are those of the items, so a trace costs two or three bytes a delta. A
turn's rhythm is noted some twenty times a second only, as pairs: how many more events there were,
and how many hundredths of a second had passed since the note before.
Where a model told the logprobs of its tokens, a second list says how many of them came with each
delta of an answer's text: the logprobs themselves are the items', too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from antiphon.core.events import (
    ArgumentsDelta,
    Created,
    Ended,
    Event,
    ItemAdded,
    ItemDone,
    RawReasoningDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from antiphon.core.items import (
    FunctionCall,
    Item,
    Message,
    OutputText,
    Part,
    Reasoning,
    Refusal,
    message_text,
)
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.turns import Response

_DELTA_EVENTS = TextDelta | RefusalDelta | ReasoningDelta | RawReasoningDelta | ArgumentsDelta


def trace_of(events: Iterable[Event]) -> tuple[int, ...]:
    """The trace of a turn's events."""
    trace: list[int] = []
    current = -1
    #: Where messages begin that have no phase then, and where such as have one in the end.
    begun: dict[int, int] = {}
    bare: list[int] = []
    for event in events:
        if type(event) is TextDelta and event.index == current:
            # Nearly all are.
            trace.append(len(event.text))
            continue
        if isinstance(event, Created | Ended):
            continue
        if isinstance(event, ItemAdded):
            trace.append(-2 * event.index - 1)
            if isinstance(event.item, Message) and event.item.phase is None:
                begun[event.index] = len(trace)
        elif event.index != current:
            trace.append(-2 * event.index - 2)
        current = event.index
        if isinstance(event, _DELTA_EVENTS):
            trace.append(len(event.text))
        elif isinstance(event, ItemDone):
            trace.append(0)
            if isinstance(event.item, Message) and event.item.phase and event.index in begun:
                bare.append(begun[event.index])
    for position in sorted(bare, reverse=True):
        trace.insert(position, trace[position - 1] - 1)
    return tuple(trace)


def logprob_counts(events: Iterable[Event], output: Iterable[Item]) -> tuple[int, ...]:
    """How many logprobs came with each delta of text; nothing where no item of ``output`` has
    any.
    """
    if not any(map(_logprobs_of, output)):
        return ()
    return tuple(len(event.logprobs) for event in events if isinstance(event, TextDelta))


class RhythmRecorder:
    """Records when the events of a turn come, which began at ``began`` on the clock of ``note``."""

    #: Seconds between two notes.
    BEAT: Final = 0.05

    def __init__(self, began: float) -> None:
        self._began = began
        self._next_beat = began
        self._last = self._before = 0
        self._rhythm: list[int] = []

    def note(self, moment: float, count: int) -> None:
        """Events come now, and there were so many before."""
        if moment >= self._next_beat:
            at = max(self._last, round((moment - self._began) * 100))
            self._rhythm += (count - self._before, at - self._last)
            self._last, self._before = at, count
            self._next_beat = moment + self.BEAT

    @property
    def rhythm(self) -> tuple[int, ...]:
        """Of each beat: the events since the one before, and the hundredths of a second."""
        return tuple(self._rhythm)


class Rhythm(msgspec.Struct, frozen=True):
    """When the text of a streamed turn came: in each beat, seconds from its beginning, and how
    many pieces of text were there before; and when its answer's first word came, if it had one.
    """

    beats: Sequence[tuple[float, int]] = ()
    first_word_after: float | None = None


def read_rhythm(response: Response) -> Rhythm:
    """The rhythm of a stored turn; an empty one, where it is not known."""
    end = response.end
    if end is None or not end.rhythm or not is_trace_of(end.trace, response.output):
        return Rhythm()
    texts = [isinstance(event, TextDelta) for event in replay_events(response)]
    before = (0, *accumulate(map(int, texts)))
    seconds, counts = accumulate(end.rhythm[1::2]), accumulate(end.rhythm[::2])
    # A rhythm may be imported, and say anything.
    last = len(texts)
    beats = [
        (at / 100, before[max(0, min(count, last))])
        for at, count in zip(seconds, counts, strict=True)
    ]
    # The last note at which there was nothing yet: the first piece came then.
    silent = [at for at, before in beats if not before]
    return Rhythm(beats, max(silent) if silent and any(texts) else None)


def replay_events(response: Response) -> Iterator[Event]:
    """The events of a turn that has ended, as its first reader saw them.

    A turn without a trace (nobody read along, or its process died) comes an item at a time.
    """
    trace, logprobs = (
        (response.end.trace, response.end.logprob_counts) if response.end else ((), ())
    )
    if not is_trace_of(trace, response.output):
        trace, logprobs = _whole_item_trace(response.output)
    yield Created(msgspec.structs.replace(response, output=(), end=None))
    shown = [0] * len(response.output)
    tell = _LogprobReader(logprobs)
    index = 0
    for position, step in enumerate(trace):
        if step < 0:
            index = -(step + 1) // 2
        item = response.output[index]
        if step == 0:
            yield ItemDone(index, item)
        elif step > 0:
            start = shown[index]
            shown[index] = start + step
            delta = _delta_event(index, item, _streamed_text(item)[start : start + step])
            yield tell.with_logprobs(delta, item) if isinstance(delta, TextDelta) else delta
        elif step % 2:
            shell = empty_item(item)
            if isinstance(shell, Message) and trace[position + 1 : position + 2] == (step - 1,):
                shell = msgspec.structs.replace(shell, phase=None)
            yield ItemAdded(index, shell)
    yield Ended(response)


class _LogprobReader:
    """Deals out the logprobs of a turn's items to their deltas."""

    def __init__(self, counts: Iterable[int]) -> None:
        self._counts = iter(counts)
        self._offsets: dict[int, int] = {}

    def with_logprobs(self, delta: TextDelta, item: Item) -> TextDelta:
        """The next delta of text, which is the item's, with the logprobs that came with it."""
        count = next(self._counts, 0)
        if not count:
            return delta
        start = self._offsets.get(delta.index, 0)
        self._offsets[delta.index] = start + count
        logprobs = _logprobs_of(item)[start : start + count]
        return msgspec.structs.replace(delta, logprobs=logprobs)


def is_trace_of(trace: Sequence[int], output: Sequence[Item]) -> bool:
    """Whether a trace tells of just these items: one may have been erased since."""
    lengths: dict[int, int] = {}
    index = 0
    for step in trace:
        if step < 0:
            index = -(step + 1) // 2
        lengths[index] = lengths.get(index, 0) + max(0, step)
    return bool(trace) and lengths == {
        index: len(_streamed_text(item)) for index, item in enumerate(output)
    }


def empty_item(item: Item) -> Item:
    """An item as it begins: without its words, but for one that comes in one piece."""
    match item:
        case FunctionCall():
            return msgspec.structs.replace(
                item, arguments="", status="completed", provider_fields=None
            )
        case Message(content=content) if _is_streamable(item):
            empty = "" if isinstance(content, str) else (_empty_part(content[0]),)
            return msgspec.structs.replace(
                item, content=empty, status="completed", provider_fields=None
            )
        case Reasoning(summary=(part,), content=()):
            empty_part = msgspec.structs.replace(part, text="")
            return Reasoning((empty_part,), provider_fields=_text_field_of(item))
        case Reasoning(summary=(), content=()):
            return Reasoning()
        case Reasoning(summary=(), content=(thought,)):
            return Reasoning(content=(msgspec.structs.replace(thought, text=""),))
    return item


def _text_field_of(item: Reasoning) -> ProviderFields | None:
    """How a reasoning item's text comes, which is known from its beginning."""
    field = item.provider_fields.text_field if item.provider_fields else None
    return ProviderFields(text_field=field) if field is not None else None


def _is_streamable(item: Message) -> bool:
    """Whether it is prose as models stream it: one text, or one refusal."""
    return isinstance(item.content, str) or len(item.content) == 1


def _empty_part(part: Part) -> Part:
    return Refusal("") if isinstance(part, Refusal) else OutputText("")


def _streamed_text(item: Item) -> str:
    """What of an item comes in deltas."""
    match item:
        case FunctionCall(arguments=text):
            return text
        case Message():
            return message_text(item) if _is_streamable(item) else ""
        case Reasoning(summary=(part,)):
            return part.text
        case Reasoning(content=(thought,)):
            return thought.text
    return ""


def _logprobs_of(item: Item) -> tuple[Any, ...]:
    """The logprobs of what of an item comes as text."""
    match item:
        case Message(content=(OutputText(logprobs=logprobs),)):
            return logprobs
    return ()


def _whole_item_trace(output: Sequence[Item]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The trace of items that each come in one piece, and the number of logprobs of each text."""
    trace: list[int] = []
    logprobs: list[int] = []
    for index, item in enumerate(output):
        words = len(_streamed_text(item))
        trace += (-2 * index - 1, words, 0) if words else (-2 * index - 1, 0)
        if words and isinstance(_delta_event(index, item, ""), TextDelta):
            logprobs.append(len(_logprobs_of(item)))
    return tuple(trace), tuple(logprobs)


def _delta_event(index: int, item: Item, text: str) -> Event:
    match item:
        case FunctionCall():
            return ArgumentsDelta(index, text)
        case Reasoning(summary=()):
            return RawReasoningDelta(index, text)
        case Reasoning():
            return ReasoningDelta(index, text)
        case Message(content=(Refusal(),)):
            return RefusalDelta(index, text)
    return TextDelta(index, text)
