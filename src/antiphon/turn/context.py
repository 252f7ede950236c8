"""From history to context: what the model is shown. Pure rules, no I/O.

The messages dialect of chat completions is the common form. A turn's part of it is
rendered once, into a ``Segment``; a context is those bytes joined, so what has been
said is never encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    Item,
    Message,
    Part,
    Refusal,
    words_of,
)
from antiphon.errors import InvalidRequest

#: What a model reads where a call never got its output.
INTERRUPTED = "The call was interrupted before it gave a result."

_SYSTEM = ("system", "developer")

#: After an overflow, aim this far below the limit: sizes in bytes only approximate tokens.
_HEADROOM = 0.9


class Segment(msgspec.Struct, frozen=True):
    """One turn as the model is shown it.

    ``messages`` and ``system`` are JSON objects, comma-separated without brackets;
    ``system`` holds those that stay when the turn itself has to go. ``calls`` are
    the ids of tool calls that the turn leaves open; ``answers`` are the messages
    with outputs that it brings for an earlier turn's calls, by call id: they are
    shown only behind those calls. ``completed`` False: the turn failed, was
    cancelled or cut, and nobody owes its calls an output.
    """

    messages: bytes
    system: bytes = b""
    calls: tuple[str, ...] = ()
    answers: dict[str, bytes] = {}
    completed: bool = True

    @property
    def size(self) -> int:
        """Bytes of it that a model may be shown."""
        return len(self.messages) + sum(map(len, self.answers.values()))


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    type: str
    function: _Function


class _ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    #: Never null: some upstreams refuse a message without content.
    content: str | list[dict[str, Any]]
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


_encode = msgspec.json.Encoder().encode


def render(items: Sequence[Item], *, completed: bool = True) -> Segment:
    """Render one turn's items, input and output.

    Outputs are moved to where the dialect wants them: right behind the message that
    made the calls, or into ``answers`` if the calls are an earlier turn's. Calls that
    the turn leaves open are moved to its end, where the next turn's outputs follow.
    """
    if all(type(item) is Message for item in items):
        return _prose(items, completed)
    outputs, answers = _paired(items)
    page = _Page()
    for place, item in enumerate(items):
        if isinstance(item, Message):
            page.add_message(item)
        elif isinstance(item, FunctionCall):
            page.add_call(item, outputs.get(place))
        elif isinstance(item, FunctionCallOutput):
            # Calls that come after an output were not made together with those before.
            page.end_calls()
    page.close()
    return Segment(
        messages=b",".join(page.messages),
        system=b",".join(page.system),
        calls=tuple(call.call_id for call in page.waiting),
        answers=answers,
        completed=completed,
    )


def _prose(items: Sequence[Item], completed: bool) -> Segment:
    """Most turns are messages only: there is nothing to pair."""
    messages: list[bytes] = []
    system: list[bytes] = []
    for item in items:
        if isinstance(item, Message):
            messages.append(_encode(_plain_message(item)))
            if item.role in _SYSTEM:
                system.append(messages[-1])
    return Segment(b",".join(messages), b",".join(system), completed=completed)


class _Page:
    """A turn's messages as they are written down, one after another."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.system: list[bytes] = []
        #: Calls without an output.
        self.waiting: list[FunctionCall] = []
        #: The assistant's message that is not written yet: calls may still join it.
        self._said: Message | None = None
        self._calls: list[FunctionCall] = []
        self._outputs: list[FunctionCallOutput] = []

    def add_message(self, item: Message) -> None:
        self._flush()
        if item.role == "assistant":
            self._said = item
            return
        self.messages.append(_encode(_plain_message(item)))
        if item.role in _SYSTEM:
            self.system.append(self.messages[-1])

    def add_call(self, call: FunctionCall, output: FunctionCallOutput | None) -> None:
        if output is None:
            self.waiting.append(call)
        else:
            self._calls.append(call)
            self._outputs.append(output)

    def end_calls(self) -> None:
        if self._calls:
            self._flush()

    def close(self) -> None:
        self.end_calls()
        self._calls = self.waiting
        self._flush()

    def _flush(self) -> None:
        if self._said is not None or self._calls:
            self.messages.append(_encode(_assistant_message(self._said, self._calls)))
            self.messages.extend(_encode(_tool_message(output)) for output in self._outputs)
            self._said, self._calls, self._outputs = None, [], []


def _paired(
    items: Sequence[Item],
) -> tuple[dict[int, FunctionCallOutput], dict[str, bytes]]:
    """Outputs by the place of their call, and those for an earlier turn's calls by id.

    An output belongs to the call before it: some models use an id again and again.
    """
    outputs: dict[int, FunctionCallOutput] = {}
    answers: dict[str, bytes] = {}
    made: dict[str, int] = {}
    for place, item in enumerate(items):
        if isinstance(item, FunctionCall):
            made[item.call_id] = place
        elif isinstance(item, FunctionCallOutput):
            call = made.pop(item.call_id, None)
            if call is None:
                answers[item.call_id] = _encode(_tool_message(item))
            else:
                outputs[call] = item
    return outputs, answers


def check_calls(parent: Segment | None, items: Iterable[Item]) -> None:
    """Refuse input whose tool outputs and calls do not pair up.

    Every output needs a call that still waits for one, and a completed turn's calls
    need their outputs before the conversation goes on.
    """
    known = set(parent.calls) if parent else set()
    owed = dict.fromkeys(parent.calls) if parent and parent.completed else {}
    made: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCall):
            if item.call_id in made:
                raise InvalidRequest(
                    f"Two tool calls with the id '{item.call_id}' wait for an output at once.",
                    code="tool_call_duplicate",
                    param="input",
                )
            made.add(item.call_id)
            known.add(item.call_id)
            owed[item.call_id] = None
        elif isinstance(item, FunctionCallOutput):
            if item.call_id not in known:
                raise InvalidRequest(
                    f"No tool call with id '{item.call_id}' is waiting for an output.",
                    code="tool_call_not_found",
                    param="input",
                )
            known.discard(item.call_id)
            made.discard(item.call_id)
            owed.pop(item.call_id, None)
    if owed:
        names = ", ".join(f"'{call_id}'" for call_id in owed)
        raise InvalidRequest(
            f"No tool output found for the tool calls {names}: send one for each of them.",
            code="tool_output_missing",
            param="input",
        )


def assemble(
    segments: Sequence[Segment], *, instructions: str | None = None, primer: bytes = b""
) -> bytes:
    """The messages array, as JSON, of turns from oldest to newest.

    Calls that the newest turn leaves open stay open: their outputs come next.
    """
    parts: list[bytes] = []
    if instructions:
        parts.append(_encode(_ChatMessage("system", instructions)))
    if primer:
        parts.append(primer)
    waiting: tuple[str, ...] = ()
    for segment in segments:
        for call_id in waiting:
            parts.append(segment.answers.get(call_id) or _interrupted(call_id))
        if segment.messages:
            parts.append(segment.messages)
        waiting = segment.calls
    return b"[" + b",".join(parts) + b"]"


def shorten(segments: Sequence[Segment], used: int | None, limit: int | None) -> list[Segment]:
    """Let the oldest turns go after a model found the context too long.

    ``used`` and ``limit`` are the tokens it counted and can see; without them half
    of the bytes go. The newest turn stays, system messages stay, and a call is
    never parted from its output: turns so linked go or stay together. With nothing
    to let go, the same turns come back.
    """
    share = 0.5
    if used and limit:
        # Less than the limit can be too much where the answer needs room as well.
        share = _HEADROOM * min(1.0, limit / used)
    excess = sum(one.size for one in segments) * (1 - share)
    kept: list[Segment] = []
    units = _linked(segments)
    for place, unit in enumerate(units):
        loss = sum(one.size - len(one.system) for one in unit)
        if excess <= 0 or loss == 0 or place == len(units) - 1:
            kept += unit
        else:
            excess -= loss
            kept += [Segment(one.system, one.system) for one in unit]
    return kept


def _linked(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Turns in groups, each group tied together by calls and their outputs."""
    units: list[list[Segment]] = []
    for segment in segments:
        if segment.answers and units:
            units[-1].append(segment)
        else:
            units.append([segment])
    return units


def _assistant_message(said: Message | None, calls: list[FunctionCall]) -> _ChatMessage:
    return _ChatMessage(
        "assistant",
        _content(said.content) if said else "",
        said.name if said else None,
        [_Call(call.call_id, "function", _Function(call.name, call.arguments)) for call in calls]
        or None,
    )


def _plain_message(item: Message) -> _ChatMessage:
    role = "system" if item.role in _SYSTEM else item.role
    return _ChatMessage(role, _content(item.content), item.name)


def _tool_message(item: FunctionCallOutput) -> _ChatMessage:
    return _ChatMessage("tool", _content(item.output), tool_call_id=item.call_id)


def _interrupted(call_id: str) -> bytes:
    return _encode(_ChatMessage("tool", INTERRUPTED, tool_call_id=call_id))


def _content(content: str | tuple[Part, ...]) -> str | list[dict[str, Any]]:
    """Text alone becomes a string, which every upstream takes; pictures need parts."""
    if not isinstance(content, str) and any(isinstance(part, InputImage) for part in content):
        return [_part(part) for part in content]
    return words_of(content)


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, InputImage):
        image = {"url": part.image_url}
        if part.detail != "auto":
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    return {"type": "text", "text": part.refusal if isinstance(part, Refusal) else part.text}
