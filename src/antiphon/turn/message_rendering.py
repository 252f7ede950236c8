"""From history to context: what the model is shown. Pure rules, no I/O.

The messages dialect of chat completions is the common form. A turn's part of it is
rendered once, into a ``Segment``; a context is those bytes joined, so what has been
said is never encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from antiphon.core.items import (
    Compaction,
    Erased,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputVideo,
    Item,
    McpListTools,
    Message,
    Part,
    Phase,
    Reasoning,
    Refusal,
    words_of,
)
from antiphon.core.reasoning_sidecar import Carried, carrying
from antiphon.errors import InvalidRequest

#: What a model reads where a call never got its output.
INTERRUPTED = "The call was interrupted before it gave a result."

#: How a summary is told to the model: in a system message, which stays.
SUMMARY = "Previous conversation summary: "

_SYSTEM = ("system", "developer")

#: Parts that are more than text.
_SHOWN = (InputImage, InputFile, InputVideo)

#: What an image weighs, in bytes of text that take as many tokens: its own bytes say nothing.
_IMAGE_WEIGHT = 4096

#: In place of a summary that was erased: no history has turns for it to stand for.
_NO_SUMMARY: Final = Compaction("", replaced=-1)


class Segment(msgspec.Struct, frozen=True):
    """One turn as the model is shown it.

    ``messages`` and ``system`` are JSON objects, comma-separated without brackets;
    ``system`` holds those that stay when the turn itself has to go. ``calls`` are
    the ids of tool calls that the turn leaves open; ``answers`` are the messages
    with outputs that it brings for an earlier turn's calls, by call id: they are
    shown only behind those calls. ``completed`` False: the turn failed, was
    cancelled or cut, and nobody owes its calls an output.

    ``count`` is its messages, without system ones, with an output for each open call.
    ``bulk`` is how many bytes of images are more than an image should weigh, and what
    messages carry besides (``core.reasoning_sidecar``); ``system_bulk`` is that of its system messages
    alone. ``tokens`` is what models reported of it, None: nothing. ``turns`` is how many turns
    it stands for; of a compaction, ``kept`` is how many turns before it stay in view.
    """

    messages: bytes
    system: bytes = b""
    calls: tuple[str, ...] = ()
    answers: dict[str, bytes] = {}
    completed: bool = True
    count: int = 0
    bulk: int = 0
    system_bulk: int = 0
    tokens: int | None = None
    turns: int = 1
    kept: int | None = None
    #: The MCP servers whose tools are listed in it.
    listed: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of it that a model may be shown."""
        return len(self.messages) + sum(map(len, self.answers.values()))

    @property
    def weight(self) -> int:
        """Its size, with images as heavy as the tokens they take."""
        return self.size - self.bulk

    @property
    def staying(self) -> int:
        """The weight of its system messages."""
        return len(self.system) - self.system_bulk


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
    compaction: Compaction | None = None
    for place, item in enumerate(items):
        if isinstance(item, Message):
            page.add_message(item)
        elif isinstance(item, FunctionCall):
            page.add_call(item, outputs.get(place))
        elif isinstance(item, FunctionCallOutput):
            # Calls that come after an output were not made together with those before.
            page.end_calls()
        elif isinstance(item, Reasoning):
            page.add_reasoning(item)
        elif isinstance(item, Erased):
            page.forget_reasoning()
            compaction = _NO_SUMMARY if item.summary else compaction
        elif isinstance(item, Compaction):
            # One that replaces nothing here is words like any others, which stay.
            compaction = item if item.replaced else compaction
            page.add_message(Message("system", SUMMARY + item.summary))
    page.close()
    return Segment(
        messages=b",".join(page.messages),
        system=b",".join(page.system),
        calls=tuple(one.call.call_id for one in page.waiting),
        answers=answers,
        completed=completed,
        count=len(page.messages) - len(page.system) + len(page.waiting),
        bulk=sum(map(_bulk, items)) + page.carried,
        system_bulk=sum(map(_bulk, filter(_stays, items))),
        turns=compaction.replaced if compaction else 1,
        kept=compaction.kept if compaction else None,
        listed=tuple(one.server_label for one in items if isinstance(one, McpListTools)),
    )


def _prose(items: Sequence[Item], completed: bool) -> Segment:
    """Most turns are messages only: there is nothing to pair."""
    messages: list[bytes] = []
    system: list[bytes] = []
    bulk = system_bulk = 0
    for item in items:
        if isinstance(item, Message):
            messages.append(_encode(_plain_message(item)))
            bulk += _bulk(item)
            if item.role in _SYSTEM:
                system.append(messages[-1])
                system_bulk += _bulk(item)
            elif item.phase is not None:
                plain = messages[-1]
                messages[-1] = carrying(plain, (), _phase(item))
                bulk += len(messages[-1]) - len(plain)
    return Segment(
        b",".join(messages),
        b",".join(system),
        completed=completed,
        count=len(messages) - len(system),
        bulk=bulk,
        system_bulk=system_bulk,
    )


class _Made(msgspec.Struct, frozen=True):
    """A call and the reasoning that led to it."""

    call: FunctionCall
    reasoning: tuple[Reasoning, ...] = ()


class _Page:
    """A turn's messages as they are written down, one after another."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.system: list[bytes] = []
        #: Calls without an output.
        self.waiting: list[_Made] = []
        #: How many bytes of the messages are reasoning that they carry.
        self.carried = 0
        #: The assistant's message that is not written yet: calls may still join it.
        self._said: Message | None = None
        self._calls: list[_Made] = []
        self._outputs: list[FunctionCallOutput] = []
        #: Reasoning that led to the message, and that of which nothing has come yet.
        self._before: tuple[Reasoning, ...] = ()
        self._reasoning: tuple[Reasoning, ...] = ()

    def add_message(self, item: Message) -> None:
        self._flush()
        reasoning, self._reasoning = self._reasoning, ()
        if item.role == "assistant":
            self._said, self._before = item, reasoning
            return
        self.messages.append(_encode(_plain_message(item)))
        if item.role in _SYSTEM:
            self.system.append(self.messages[-1])

    def add_call(self, call: FunctionCall, output: FunctionCallOutput | None) -> None:
        made, self._reasoning = _Made(call, self._reasoning), ()
        if output is None:
            self.waiting.append(made)
        else:
            self._calls.append(made)
            self._outputs.append(output)

    def add_reasoning(self, item: Reasoning) -> None:
        if item.encrypted_content is not None:
            self._reasoning += (item,)

    def forget_reasoning(self) -> None:
        """What it led to is gone: models refuse reasoning that leads to nothing."""
        self._reasoning = ()

    def end_calls(self) -> None:
        if self._calls:
            self._flush()

    def close(self) -> None:
        self.end_calls()
        self._calls = self.waiting
        self._flush()

    def _flush(self) -> None:
        if self._said is not None or self._calls:
            calls = [made.call for made in self._calls]
            message = _encode(_assistant_message(self._said, calls))
            self.messages.append(carrying(message, self._to_carry(), _phase(self._said)))
            self.carried += len(self.messages[-1]) - len(message)
            self.messages.extend(_encode(_tool_message(output)) for output in self._outputs)
            self._said, self._calls, self._outputs, self._before = None, [], [], ()

    def _to_carry(self) -> list[Carried]:
        led_to = (self._before, *(made.reasoning for made in self._calls))
        return [
            Carried(item.encrypted_content or "", item.origin, item.summary, place)
            for place, reasoning in enumerate(led_to)
            for item in reasoning
        ]


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


def check_calls(
    parent: Segment | None, items: Iterable[Item], approved: Iterable[FunctionCall] = ()
) -> None:
    """Refuse input whose tool outputs and calls do not pair up.

    Every output needs a call that still waits for one, and a completed turn's calls
    need their outputs before the conversation goes on. ``approved`` calls get theirs
    in the turn itself.
    """
    ledger = _Ledger(parent)
    for item in items:
        if isinstance(item, FunctionCall):
            ledger.open(item.call_id)
        elif isinstance(item, FunctionCallOutput):
            ledger.settle(item.call_id)
    for call in approved:
        ledger.settle(call.call_id)
    if ledger.owed:
        names = ", ".join(f"'{call_id}'" for call_id in ledger.owed)
        raise InvalidRequest(
            f"No tool output found for the tool calls {names}: send one for each of them.",
            code="tool_output_missing",
            param="input",
        )


class _Ledger:
    """Which calls wait for an output, and which must get one now."""

    def __init__(self, parent: Segment | None) -> None:
        self._waiting = set(parent.calls) if parent else set()
        self.owed = dict.fromkeys(parent.calls) if parent and parent.completed else {}
        self._made: set[str] = set()

    def open(self, call_id: str) -> None:
        if call_id in self._made:
            raise InvalidRequest(
                f"Two tool calls with the id '{call_id}' wait for an output at once.",
                code="tool_call_duplicate",
                param="input",
            )
        self._made.add(call_id)
        self._waiting.add(call_id)
        self.owed[call_id] = None

    def settle(self, call_id: str) -> None:
        if call_id not in self._waiting:
            raise InvalidRequest(
                f"No tool call with id '{call_id}' is waiting for an output.",
                code="tool_call_not_found",
                param="input",
            )
        self._waiting.discard(call_id)
        self._made.discard(call_id)
        self.owed.pop(call_id, None)


def assemble(
    segments: Sequence[Segment], *, instructions: str | None = None, primer: bytes = b""
) -> bytes:
    """The messages array, as JSON, of turns from oldest to newest.

    Calls that the newest turn leaves open stay open: their outputs come next. Only if it
    did not complete, none will come.
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
    if segments and not segments[-1].completed:
        parts.extend(map(_interrupted, waiting))
    return b"[" + b",".join(parts) + b"]"


def _assistant_message(said: Message | None, calls: list[FunctionCall]) -> _ChatMessage:
    return _ChatMessage(
        "assistant",
        _content(said.content) if said else "",
        said.name if said else None,
        [_Call(call.call_id, "function", _Function(call.name, call.arguments)) for call in calls]
        or None,
    )


def _phase(said: Message | None) -> Phase | None:
    """Nobody but a model's own is told what its messages were."""
    return said.phase if said and said.role == "assistant" else None


def _plain_message(item: Message) -> _ChatMessage:
    role = "system" if item.role in _SYSTEM else item.role
    return _ChatMessage(role, _content(item.content), item.name)


def _tool_message(item: FunctionCallOutput) -> _ChatMessage:
    return _ChatMessage("tool", _content(item.output), tool_call_id=item.call_id)


def _interrupted(call_id: str) -> bytes:
    return _encode(_ChatMessage("tool", INTERRUPTED, tool_call_id=call_id))


def _content(content: str | tuple[Part, ...]) -> str | list[dict[str, Any]]:
    """Text alone becomes a string, which every upstream takes; pictures need parts."""
    if not isinstance(content, str) and any(isinstance(part, _SHOWN) for part in content):
        return [_part(part) for part in content]
    return words_of(content)


def _bulk(item: Item) -> int:
    """How much heavier an item's images are in bytes than in tokens."""
    match item:
        case Message(content=content) | FunctionCallOutput(output=content):
            # Of a plain text every character would be looked at.
            parts = () if isinstance(content, str) else content
            images = [part.image_url for part in parts if isinstance(part, InputImage)]
            return sum(map(len, images)) - _IMAGE_WEIGHT * len(images)
    return 0


def _stays(item: Item) -> bool:
    return isinstance(item, Message) and item.role in _SYSTEM


def _part(part: Part) -> dict[str, Any]:
    match part:
        case InputImage(image_url=url, detail=detail):
            image = {"url": url} if detail == "auto" else {"url": url, "detail": detail}
            return {"type": "image_url", "image_url": image}
        case InputFile():
            fields = msgspec.structs.asdict(part)
            return {"type": "file", "file": {name: it for name, it in fields.items() if it}}
        case InputVideo(video_url=url):
            return {"type": "video_url", "video_url": {"url": url}}
        case Refusal(refusal=text):
            return {"type": "text", "text": text}
    return {"type": "text", "text": part.text}
