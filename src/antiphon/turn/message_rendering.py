"""Message rendering: items as chat messages, rendered to bytes once per turn. Pure, no I/O.

The messages dialect of chat completions is the common form. A turn's part of it is
rendered once, into a ``RenderedTurn``; a context is those bytes joined, so what has been
said is never encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from antiphon.core.foreign_items import function_views, is_history, result_view
from antiphon.core.items import (
    Compaction,
    ErasedItem,
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    Item,
    McpListTools,
    Message,
    Phase,
    Reasoning,
    replaces_turns,
)
from antiphon.core.provider_fields import ProviderFields, group_by_origin, text_only
from antiphon.core.reasoning_sidecar import (
    ReasoningSidecar,
    attach_fields,
    attach_items,
    attach_native_item,
    attach_sidecars,
)
from antiphon.core.tool_definitions import added_tools
from antiphon.core.turns import FunctionTool, Response
from antiphon.turn.message_encoding import (
    SYSTEM_ROLES,
    content_value,
    encode_answer,
    encode_instructions,
    encode_interrupted_output,
    encode_message,
    encode_output,
)

#: How a summary is told to the model: in a system message, which stays.
SUMMARY_PREFIX = "Previous conversation summary: "

#: What an image weighs, in bytes of text that take as many tokens: its own bytes say nothing.
_IMAGE_WEIGHT = 4096

_MESSAGE_ALONE: Final = frozenset({Message})
#: In place of a summary that was erased: no history has turns for it to stand for.
_ERASED_SUMMARY: Final = Compaction("", replaced_turns=-1)


class RenderedTurn(msgspec.Struct, frozen=True):
    """One turn as the model is shown it.

    ``messages`` and ``system`` are JSON objects, comma-separated without brackets;
    ``system`` holds those that stay when the turn itself has to go. ``open_calls`` are
    the ids of tool calls that the turn leaves open; ``outputs`` are the messages
    with outputs that it brings for an earlier turn's calls, by call id: they are
    shown only behind those calls. ``completed`` False: the turn failed, was
    cancelled or cut, and nobody owes its calls an output.

    ``message_count`` is its messages, without system ones, with an output for each open call.
    ``excess_bytes`` is how many bytes of images are more than an image should weigh, and what
    messages carry besides (``core.reasoning_sidecar``); ``system_excess_bytes`` is that of its
    system messages alone. ``tokens`` is what models reported of it, None: nothing. ``turns`` is how
    many turns it stands for; of a compaction, ``retained_turns`` is how many turns before it stay
    in the context.
    """

    messages: bytes
    system: bytes = b""
    open_calls: tuple[str, ...] = ()
    outputs: dict[str, bytes] = {}
    completed: bool = True
    message_count: int = 0
    excess_bytes: int = 0
    system_excess_bytes: int = 0
    tokens: int | None = None
    turns: int = 1
    retained_turns: int | None = None
    #: The MCP servers whose tools are listed in it.
    listed_servers: tuple[str, ...] = ()
    #: The tools that its items add to those of the request, from then on.
    added_tools: tuple[FunctionTool, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of it that a model may be shown."""
        return len(self.messages) + sum(map(len, self.outputs.values()))

    @property
    def weight(self) -> int:
        """Its size, with images as heavy as the tokens they take."""
        return self.size - self.excess_bytes

    @property
    def system_weight(self) -> int:
        """The weight of its system messages."""
        return len(self.system) - self.system_excess_bytes


def render_turn(items: Sequence[Item], *, completed: bool = True) -> RenderedTurn:
    """Render one turn's items, input and output.

    Outputs are moved to where the dialect wants them: right behind the message that
    made the calls, or into ``outputs`` if the calls are an earlier turn's. Calls that
    the turn leaves open are moved to its end, where the next turn's outputs follow.
    """
    if are_messages(items):
        return _render_messages_only(items, completed)
    # A summary beside other items is not of this turn, but of those before it.
    items = [item for item in items if not replaces_turns(item)] or items
    items = shown_items(items)
    given, items = items, function_views(items)
    outputs, answers = _pair_outputs(items)
    page = _MessageBuilder(answers)
    compaction: Compaction | None = None
    for position, item in enumerate(items):
        if isinstance(item, Message):
            page.add_message(item)
        elif isinstance(item, FunctionCall):
            page.add_call(item, outputs.get(position))
        elif isinstance(item, FunctionCallOutput):
            # Calls that come after an output were not made together with those before.
            page.flush_calls()
        elif isinstance(item, Reasoning):
            page.add_reasoning(item)
        elif isinstance(item, ForeignItem):
            page.add_foreign_item(item)
        elif isinstance(item, ErasedItem):
            page.drop_reasoning()
            compaction = _ERASED_SUMMARY if item.is_summary else compaction
        elif isinstance(item, Compaction):
            # One that replaces nothing here is words like any others, which stay.
            compaction = item if item.replaced_turns else compaction
            page.add_message(Message("system", SUMMARY_PREFIX + item.summary))
    page.close()
    return RenderedTurn(
        messages=b",".join(page.messages),
        system=b",".join(page.system),
        open_calls=tuple(one.call.call_id for one in page.open_calls),
        outputs=answers,
        completed=completed,
        message_count=len(page.messages) - len(page.system) + len(page.open_calls),
        excess_bytes=sum(map(_excess_bytes, items)) + page.sidecar_bytes,
        system_excess_bytes=sum(map(_excess_bytes, filter(is_system_message, items))),
        turns=compaction.replaced_turns if compaction else 1,
        retained_turns=compaction.retained_turns if compaction else None,
        listed_servers=tuple(one.server_label for one in items if isinstance(one, McpListTools)),
        added_tools=added_tools(given),
    )


def shown_items(items: Sequence[Item]) -> Sequence[Item]:
    """A turn's items without those that a summary among them stands for: system messages stay."""
    for position in range(len(items) - 1, -1, -1):
        item = items[position]
        if isinstance(item, Compaction) and item.replaced_items:
            covered, others = items[: item.replaced_items], items[item.replaced_items : position]
            summary = msgspec.structs.replace(item, replaced_items=0)
            systems = filter(is_system_message, covered)
            return [*systems, summary, *others, *items[position + 1 :]]
    return items


def render_response(response: Response, given: RenderedTurn | None = None) -> RenderedTurn:
    """A turn that is over, as the next one shows it.

    ``given`` is its input, where that is rendered already. Of messages it need not be done again.
    """
    end = response.end
    completed = end is not None and end.status == "completed"
    tokens = end.tokens if end else None
    items = (*response.input, *response.output)
    if given is not None and are_messages(items):
        answer = _render_messages_only(response.output, completed)
        return RenderedTurn(
            b",".join(filter(None, (given.messages, answer.messages))),
            b",".join(filter(None, (given.system, answer.system))),
            completed=completed,
            message_count=given.message_count + answer.message_count,
            excess_bytes=given.excess_bytes + answer.excess_bytes,
            system_excess_bytes=given.system_excess_bytes + answer.system_excess_bytes,
            tokens=tokens,
        )
    segment = render_turn(items, completed=completed)
    return segment if tokens is None else msgspec.structs.replace(segment, tokens=tokens)


def are_messages(items: Sequence[Item]) -> bool:
    """Whether these are messages only, as nearly always."""
    return {*map(type, items)} <= _MESSAGE_ALONE


def _render_messages_only(items: Sequence[Item], completed: bool) -> RenderedTurn:
    """Most turns are messages only: there is nothing to pair."""
    messages: list[bytes] = []
    system: list[bytes] = []
    bulk = system_bulk = 0
    for item in items:
        if isinstance(item, Message) and not _is_empty_answer(item):
            messages.append(encode_message(item))
            bulk += _excess_bytes(item)
            if item.role in SYSTEM_ROLES:
                system.append(messages[-1])
                system_bulk += _excess_bytes(item)
            elif item.phase is not None or item.provider_fields is not None:
                plain = messages[-1]
                fields = group_by_origin([(item.provider_fields, "")], with_text=False)
                messages[-1] = attach_fields(
                    attach_sidecars(plain, (), _assistant_phase(item)), fields
                )
                bulk += len(messages[-1]) - len(plain)
    return RenderedTurn(
        b",".join(messages),
        b",".join(system),
        completed=completed,
        message_count=len(messages) - len(system),
        excess_bytes=bulk,
        system_excess_bytes=system_bulk,
    )


class _CallWithReasoning(msgspec.Struct, frozen=True):
    """A call and the reasoning that led to it. ``native``: the item that it is a view of."""

    call: FunctionCall
    reasoning: tuple[Reasoning | ForeignItem, ...] = ()
    native: ForeignItem | None = None


class _MessageBuilder:
    """A turn's messages as they are written down, one after another.

    ``answers`` are the messages with outputs for an earlier turn's calls, which come before.
    """

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers
        self.messages: list[bytes] = []
        self.system: list[bytes] = []
        #: Calls without an output.
        self.open_calls: list[_CallWithReasoning] = []
        #: How many bytes of the messages are reasoning that they carry.
        self.sidecar_bytes = 0
        #: The assistant's message that is not written yet: calls may still join it.
        self._assistant_message: Message | None = None
        self._calls: list[_CallWithReasoning] = []
        self._outputs: list[FunctionCallOutput] = []
        #: Reasoning that led to the message, and that of which nothing has come yet; with the
        #: foreign items among it.
        self._message_reasoning: tuple[Reasoning | ForeignItem, ...] = ()
        self._pending_reasoning: tuple[Reasoning | ForeignItem, ...] = ()
        #: Of an answer some of whose calls are open: they become a message of their own, and
        #: models want thoughts in each.
        self._round_thoughts: list[tuple[ProviderFields | None, str]] = []

    def add_message(self, item: Message) -> None:
        if item.role == "assistant":
            reasoning, self._pending_reasoning = self._pending_reasoning, ()
            self._flush()
            self._assistant_message, self._message_reasoning = item, reasoning
            return
        self._flush()
        self.messages.append(encode_message(item))
        if item.role in SYSTEM_ROLES:
            self.system.append(self.messages[-1])

    def add_call(
        self,
        call: FunctionCall,
        output: FunctionCallOutput | None,
        native: ForeignItem | None = None,
    ) -> None:
        made = _CallWithReasoning(call, self._pending_reasoning, native)
        self._pending_reasoning = ()
        if output is None:
            self.open_calls.append(made)
        else:
            self._calls.append(made)
            self._outputs.append(output)

    def add_reasoning(self, item: Reasoning) -> None:
        if item.encrypted_content is not None or item.provider_fields is not None:
            self._pending_reasoning += (item,)

    def add_foreign_item(self, item: ForeignItem) -> None:
        if not is_history(item):
            return
        view = result_view(item)
        if view is not None:
            self.add_call(*view, item)
        else:
            self._pending_reasoning += (item,)

    def drop_reasoning(self) -> None:
        """What it led to is gone: models refuse reasoning that leads to nothing."""
        self._pending_reasoning = ()

    def flush_calls(self) -> None:
        if self._calls:
            self._flush()

    def close(self) -> None:
        self.flush_calls()
        self._calls = self.open_calls
        self._flush()

    def _flush(self) -> None:
        """Write the assistant's message. What the model thought after it is a part of it."""
        pending, self._pending_reasoning = self._pending_reasoning, ()
        behind = [item.body for item in pending if isinstance(item, ForeignItem)]
        if self._assistant_message is None and not self._calls:
            self._attach_behind(behind)
            return
        given = self._assistant_message
        calls = [made.call for made in self._calls]
        natives = [made.native for made in self._calls]
        plain = encode_answer(given, calls, natives)
        reasoning = [*self._message_reasoning, *(r for c in self._calls for r in c.reasoning)]
        parts = [
            (item.provider_fields, item.text)
            for item in (*reasoning, *pending)
            if isinstance(item, Reasoning)
        ]
        parts, self._round_thoughts = parts or self._round_thoughts, []
        if self.open_calls:
            self._round_thoughts = [(text_only(fields), text) for fields, text in parts]
        parts = [*parts, (given.provider_fields if given else None, "")]
        # Thoughts that led to a call are a part of it. Of others models want the signed or
        # encrypted form, and some refuse their words.
        fields = group_by_origin(parts, with_text=bool(calls))
        if given is not None and not (calls or fields) and _is_empty_answer(given):
            foreign = [one.body for one in reasoning if isinstance(one, ForeignItem)]
            self._assistant_message, self._message_reasoning = None, ()
            self._attach_behind([*foreign, *behind])
            return
        message = attach_sidecars(plain, self._sidecars(), _assistant_phase(given))
        self.messages.append(attach_fields(message, fields))
        has_call_fields = any(call.provider_fields for call in calls) or any(natives)
        bare = encode_answer(given, calls, bare=True) if has_call_fields else plain
        self.sidecar_bytes += len(self.messages[-1]) - len(bare)
        for output, native in zip(self._outputs, natives, strict=False):
            encoded = encode_output(output)
            self.messages.append(attach_native_item(encoded, {}) if native else encoded)
        self._attach_behind(behind)
        self._assistant_message, self._calls, self._outputs = None, [], []
        self._message_reasoning = ()

    def _attach_behind(self, bodies: Sequence[dict[str, Any]]) -> None:
        """Attach foreign items to the last message: nothing of the turn comes behind them."""
        if not bodies:
            return
        if self.messages:
            size = len(self.messages[-1])
            self.messages[-1] = attach_items(self.messages[-1], bodies)
            self.sidecar_bytes += len(self.messages[-1]) - size
        elif self._answers:
            last = next(reversed(self._answers))
            self._answers[last] = attach_items(self._answers[last], bodies)

    def _sidecars(self) -> list[ReasoningSidecar]:
        led_to = (self._message_reasoning, *(made.reasoning for made in self._calls))
        return [
            sidecar
            for position, reasoning in enumerate(led_to)
            for item in reasoning
            if (sidecar := _sidecar(item, position, has_calls=bool(self._calls))) is not None
        ]


def _sidecar(
    item: Reasoning | ForeignItem, position: int, *, has_calls: bool
) -> ReasoningSidecar | None:
    if isinstance(item, ForeignItem):
        return ReasoningSidecar(target=position, item=item.body)
    if item.encrypted_content is not None:
        return ReasoningSidecar(item.encrypted_content, item.origin, item.summary, position)
    origin = item.provider_fields.origin if item.provider_fields else None
    # As with thoughts in fields, those that led to no call are not told again.
    if not has_calls or origin is None or not item.content:
        return None
    return ReasoningSidecar("", origin, item.summary, position, content=item.content)


def _pair_outputs(
    items: Sequence[Item],
) -> tuple[dict[int, FunctionCallOutput], dict[str, bytes]]:
    """Outputs by the place of their call, and those for an earlier turn's calls by id.

    An output belongs to the call before it: some models use an id again and again.
    """
    outputs: dict[int, FunctionCallOutput] = {}
    answers: dict[str, bytes] = {}
    made: dict[str, int] = {}
    for position, item in enumerate(items):
        if isinstance(item, FunctionCall):
            made[item.call_id] = position
        elif isinstance(item, FunctionCallOutput):
            call = made.pop(item.call_id, None)
            if call is None:
                answers[item.call_id] = encode_output(item)
            else:
                outputs[call] = item
    return outputs, answers


def build_messages(
    turns: Sequence[RenderedTurn], *, instructions: str | None = None, few_shot: bytes = b""
) -> bytes:
    """The messages array, as JSON; see ``message_pieces``."""
    return join_pieces(message_pieces(turns, instructions=instructions, few_shot=few_shot))


def join_pieces(pieces: Sequence[bytes]) -> bytes:
    """The messages array, as JSON, of its pieces."""
    if not pieces:
        return b"[]"
    # Copied once: a long history is megabytes, and each copy is new pages of memory.
    bracketed = [*pieces]
    bracketed[0] = b"[" + bracketed[0]
    bracketed[-1] += b"]"
    return b",".join(bracketed)


_open_calls_of: Final = attrgetter("open_calls")


def message_pieces(
    turns: Sequence[RenderedTurn],
    *,
    instructions: str | None = None,
    few_shot: bytes = b"",
    older: Sequence[bytes] = (),
) -> tuple[bytes, ...]:
    """The messages, as JSON objects, of turns from oldest to newest: a piece or two a turn.

    ``older`` are those of still older turns, of which the last leaves no call open.
    Calls that the newest turn leaves open stay open: their outputs come next. Only if it
    did not complete, none will come.
    """
    parts: list[bytes] = []
    if instructions:
        parts.append(encode_instructions(instructions))
    if few_shot:
        parts.append(few_shot)
    parts += older
    if not any(map(_open_calls_of, turns)):
        # Nearly always, and much quicker where there are thousands.
        parts += [segment.messages for segment in turns if segment.messages]
        return tuple(parts)
    waiting: tuple[str, ...] = ()
    for segment in turns:
        for call_id in waiting:
            parts.append(segment.outputs.get(call_id) or encode_interrupted_output(call_id))
        if segment.messages:
            parts.append(segment.messages)
        waiting = segment.open_calls
    if turns and not turns[-1].completed:
        parts.extend(map(encode_interrupted_output, waiting))
    return tuple(parts)


def _is_empty_answer(item: Message) -> bool:
    """Whether nothing is in a model's message: some upstreams refuse to be shown that."""
    return item.role == "assistant" and not item.provider_fields and not content_value(item.content)


def _assistant_phase(message: Message | None) -> Phase | None:
    """Nobody but a model's own is told what its messages were."""
    return message.phase if message and message.role == "assistant" else None


def _excess_bytes(item: Item) -> int:
    """How much heavier an item's images are in bytes than in tokens."""
    content: object = ""
    if isinstance(item, Message):
        content = item.content
    elif isinstance(item, FunctionCallOutput):
        content = item.output
    if not isinstance(content, tuple):
        return 0
    images = [part.image_url for part in content if isinstance(part, InputImage)]
    return sum(map(len, images)) - _IMAGE_WEIGHT * len(images)


def is_system_message(item: Item) -> bool:
    """Whether an item stays where the rest of its turn goes."""
    return isinstance(item, Message) and item.role in SYSTEM_ROLES
