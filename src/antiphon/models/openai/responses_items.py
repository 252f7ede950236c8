"""Responses items: assembles an answer's items from what a stream says of them. No I/O.

Streams say everything up to four times: in deltas, in the end of a part, in the end of an item,
and in the whole response. Servers leave out any of these, and number or name items wrongly. So
each delta is emitted as it comes, and what later events add or correct follows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

import msgspec

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    ForeignItemDelta,
    ItemEnd,
    ItemSwitch,
    OutputTextDelta,
    PhaseDelta,
    ProviderFieldsDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    TextCorrection,
    ToolCallDelta,
)
from antiphon.core.items import Phase
from antiphon.core.provider_fields import ProviderFields, select_call_fields
from antiphon.models.openai.argument_mending import normalize_arguments
from antiphon.models.openai.lenient_json import name_of_value
from antiphon.models.openai.logprobs_citations import normalize_logprobs
from antiphon.models.openai.responses_item_matching import (
    FUNCTION_CALL,
    MESSAGE,
    PARAGRAPH,
    REASONING,
    Json,
    KnownItem,
    TextKind,
    agreement,
    arguments_text,
    best_match,
    has_plain_text,
    is_repetition,
    match_output,
    message_parts,
    texts_of,
    type_of,
)
from antiphon.models.openai.tool_names import known_name

#: Which type of item a text belongs to.
ITEM_TYPES: dict[TextKind, str] = {
    OutputTextDelta: MESSAGE,
    RefusalTextDelta: MESSAGE,
    ReasoningSummaryDelta: REASONING,
    ReasoningTextDelta: REASONING,
}
_PHASES: tuple[str, ...] = get_args(Phase)

_decode = msgspec.json.Decoder().decode


class ItemAssembler:
    """Assembles the items of one answer: every method appends the deltas to ``out``.

    ``origin`` is the model, ``tool_names`` are those of its functions.
    """

    def __init__(self, origin: str, tool_names: Collection[str] = ()) -> None:
        self._origin, self._tool_names = origin, tool_names
        self.has_calls = False
        #: The arguments of a call that has no name.
        self.nameless_arguments = ""
        self._items: list[KnownItem] = []
        self._by_id: dict[tuple[str, str], KnownItem] = {}
        self._by_index: dict[tuple[str, int], KnownItem] = {}
        self._last: dict[str, KnownItem] = {}
        self._slot = 0
        self._slots: dict[int, KnownItem | None] = {}
        #: The last delta's kind, item id, index and part, while more of that is all that comes,
        #: and the pieces of that part.
        self._recent: tuple[TextKind, str | None, int | None, int | None] | None = None
        self._recent_pieces: list[str] = []

    @property
    def has_items(self) -> bool:
        return bool(self._items)

    @property
    def has_words(self) -> bool:
        """Whether a text or a call has come."""
        return self.has_calls or any(item.texts for item in self._items)

    @property
    def are_all_done(self) -> bool:
        """Whether each item has had its end, and there is one."""
        return self.has_items and all(item.is_done for item in self._items)

    def find(self, item_type: str, item_id: str, index: int | None) -> KnownItem:
        """The item that an event of this type belongs to: by id, else by index, else the last."""
        item = self._by_id.get((item_type, item_id)) if item_id else None
        if item is not None:
            item.is_named = item.is_named or item_id == item.item_id
            return item
        last = self._last.get(item_type)
        if index is not None:
            item = self._by_index.get((item_type, index))
            if item is not None and item.is_done and agreement(item_id, item.item_id, 0, -1):
                item = None
            elif item is None and last is not None and last.index is None and not last.is_done:
                item = last
        elif last is not None and not last.is_done and not (item_id and last.is_named):
            item = last
        if item is None:
            item = self._create(item_type, index, item_id)
            item.is_named = bool(item_id)
        elif item_id:
            # Some servers name an item differently in each event.
            self._by_id[item_type, item_id] = item
            item.item_id = item.item_id or item_id
        return item

    def add_text(  # noqa: PLR0913
        self,
        kind: TextKind,
        piece: str,
        out: list[Delta],
        *,
        item_id: str | None,
        index: int | None,
        part: int | None,
        logprobs: Any = None,
    ) -> None:
        """A delta of a text."""
        recent = (kind, item_id, index, part)
        if recent != self._recent or not piece:
            item = self.find(ITEM_TYPES[kind], item_id or "", index)
            self._add_text(item, kind, piece, out, part=part or 0, logprobs=logprobs)
            item_part = (kind, part or 0)
            self._recent = recent if item.last_part == item_part and not item.is_done else None
            self._recent_pieces = item.texts.get(item_part, [])
            return
        # Nearly every event is more of the same.
        self._recent_pieces.append(piece)
        if logprobs and kind is OutputTextDelta:
            out.append(OutputTextDelta(piece, normalize_logprobs(logprobs)))
        else:
            out.append(kind(piece))

    def _add_text(  # noqa: PLR0913
        self,
        item: KnownItem,
        kind: TextKind,
        piece: str,
        out: list[Delta],
        *,
        part: int = 0,
        logprobs: Any = None,
    ) -> None:
        if item.is_done:
            if piece in item.words:
                return
            item = self._create(item.type, item.index, item.item_id)
        self._emit_text(item, kind, piece, out, part=part, logprobs=logprobs)

    def finish_text(  # noqa: PLR0913
        self,
        item: KnownItem,
        kind: TextKind,
        part: int,
        text: str,
        out: list[Delta],
        *,
        is_plain: bool,
    ) -> None:
        """A part of an item's text is whole; not ``is_plain``: it was of an odd type."""
        self._recent = None
        if not text or item.is_done:
            return
        if is_plain:
            item.finals[kind, part] = text
        written = "".join(item.texts.get((kind, part), ()))
        if (not written or item.last_part == (kind, part)) and text.startswith(written):
            self._emit_text(item, kind, text[len(written) :], out, part=part)

    def add_annotation(self, item: KnownItem, annotation: Any) -> None:
        """A source of an item's text."""
        item.annotations.append(annotation)

    def add_arguments(self, item: KnownItem, piece: str, out: list[Delta]) -> None:
        """A delta of a call's arguments."""
        self._recent = None
        if item.is_done:
            return
        if piece:
            item.held_arguments.append(piece)
            self._emit_arguments(item, out)

    def finish_arguments(
        self, item: KnownItem, arguments: Any, name: Any, out: list[Delta]
    ) -> None:
        """A call's arguments are whole."""
        self._recent = None
        if item.is_done:
            return
        item.name = item.name or name_of_value(name).strip()
        item.final_arguments = arguments_text(arguments) or item.final_arguments
        self._emit_arguments(item, out)

    def add(self, body: Json, index: int | None, out: list[Delta]) -> None:
        """An item begins."""
        self._recent = None
        item_type, item_id = type_of(body), name_of_value(body.get("id"))
        call_id = name_of_value(body.get("call_id"))
        item = self._by_id.get((item_type, item_id)) if item_id else None
        if item is None and index is not None:
            item = self._by_index.get((item_type, index))
            is_new = item is None or item.added is not None or bool(item_id and item.item_id)
        else:
            is_new = (
                item is None
                or agreement(call_id, item.call_id, 0, -1) < 0
                or (None not in (index, item.index) and index != item.index)
            )
        if item is None or item.is_done or is_new:
            item = self._create(item_type, index, item_id)
        elif index is not None:
            item.index = index
            self._by_index[item_type, index] = item
        item.added = body
        self._read_header(item, body)
        if item_type == FUNCTION_CALL:
            self._emit_arguments(item, out)

    def complete(self, body: Json, index: int | None, out: list[Delta]) -> None:
        """An item is whole."""
        self._recent = None
        if any(is_repetition(body, index, item) for item in self._items if item.is_done):
            return
        known = [item for item in self._items if not item.is_done]
        item, _ = best_match(body, index, known, self._last)
        if item is None:
            item = self._create(type_of(body), index, name_of_value(body.get("id")))
        self._complete(item, body, out, is_whole=True)

    def end(
        self, output: Sequence[Json], out: list[Delta], *, is_whole: bool, is_failed: bool = False
    ) -> None:
        """The answer is over, and these are its items; ``is_whole`` False: it was cut."""
        self._recent = None
        matches = match_output(output, self._items, self._last)
        for body, match in zip(output, matches, strict=True):
            item = match or self._create(type_of(body), None, name_of_value(body.get("id")))
            if not item.is_done:
                self._complete(item, body, out, is_whole=is_whole, is_ended=not is_failed)
        for item in self._items:
            if not item.is_done:
                self._complete(item, item.added or {}, out, is_whole=is_whole, is_ended=False)

    def _create(self, item_type: str, index: int | None, item_id: str) -> KnownItem:
        item = KnownItem(item_type, len(self._items), index, item_id)
        self._items.append(item)
        self._last[item_type] = item
        if item_id:
            self._by_id[item_type, item_id] = item
        if index is not None:
            self._by_index[item_type, index] = item
        return item

    def _read_header(self, item: KnownItem, body: Json) -> None:
        if item.type == MESSAGE and body.get("phase") in _PHASES:
            item.phase = item.phase or body["phase"]
        elif item.type == FUNCTION_CALL:
            item.name = item.name or known_name(name_of_value(body.get("name")), self._tool_names)
            item.call_id = item.call_id or name_of_value(body.get("call_id"))

    def _complete(
        self,
        item: KnownItem,
        body: Json,
        out: list[Delta],
        *,
        is_whole: bool,
        is_ended: bool = True,
    ) -> None:
        """Emit the rest of an item; ``is_ended``: and its end, so that no text can follow."""
        self._read_header(item, body)
        item.item_id = item.item_id or name_of_value(body.get("id"))
        is_cut = body.get("status") == "incomplete"
        is_ended = is_ended and not is_cut
        match item.type:
            case "message":
                self._complete_message(item, body, out)
            case "reasoning":
                self._complete_reasoning(item, body, out)
            case "function_call":
                self._complete_call(item, body, out, is_whole=is_whole and not is_cut)
            case _ if body and (is_whole or is_ended):
                self._pause(out)
                out.append(ForeignItemDelta(body))
        item.is_done = True
        if item.type == REASONING and is_ended and body.get("encrypted_content"):
            self._write(item, out)
            content = name_of_value(body["encrypted_content"])
            out.append(EncryptedReasoning(content, self._origin))
            item.is_ended = True
        elif item.slot is not None and is_ended:
            self._write(item, out)
            if item.type == REASONING and item.text(ReasoningTextDelta):
                # It goes back as it came.
                out.append(ProviderFieldsDelta(ProviderFields(self._origin)))
            out.append(ItemEnd())
            item.is_ended = True

    def _complete_message(self, item: KnownItem, body: Json, out: list[Delta]) -> None:
        parts = message_parts(body)
        if not item.texts:
            for number, (kind, text, logprobs) in enumerate(parts):
                self._emit_text(item, kind, text, out, part=number, logprobs=logprobs)
        for kind in (OutputTextDelta, RefusalTextDelta):
            target = "".join(text for one, text, _ in parts if one is kind)
            self._finish_kind(item, kind, target, body, out)
        if item.phase is not None and not item.has_phase and item.texts:
            self._write(item, out)
            self._emit_phase(item, item.phase, out)
        sources = [one for part in _dicts(body.get("content")) for one in _annotations(part)]
        annotations = [one for one in sources or item.annotations if isinstance(one, dict)]
        if annotations and item.texts:
            self._write(item, out)
            out += [AnnotationDelta(one) for one in annotations]

    def _complete_reasoning(self, item: KnownItem, body: Json, out: list[Delta]) -> None:
        summary = texts_of(body.get("summary"))
        content = "".join(texts_of(body.get("content")))
        for kind, target in (
            (ReasoningSummaryDelta, PARAGRAPH.join(summary)),
            (ReasoningTextDelta, content),
        ):
            self._finish_kind(item, kind, target, body, out)

    def _complete_call(
        self, item: KnownItem, body: Json, out: list[Delta], *, is_whole: bool
    ) -> None:
        item.call_id = item.call_id or name_of_value(body.get("id")) or item.item_id
        final = arguments_text(body.get("arguments"))
        final = final if final.strip() else item.final_arguments
        written = "".join((*item.arguments, *item.held_arguments))
        if not item.name:
            # A stub, where nothing is called; or else nobody knows what is.
            self.nameless_arguments = self.nameless_arguments or (written + final).strip()
            return
        if final.strip() and final != written and (_is_object(final) or not _is_object(written)):
            written = self._replace_arguments(item, written, final, out)
        if is_whole and (whole := normalize_arguments(written)) != written:
            self._replace_arguments(item, written, whole, out)
        self._start_call(item, out)
        self._flush_arguments(item, out)
        given = select_call_fields(body)
        fields = {name: it for name, it in given.items() if isinstance(it, dict)}
        if fields:
            beside = ProviderFields(self._origin, fields)
            out.append(ToolCallDelta(item.number, provider_fields=beside))

    def _replace_arguments(
        self, item: KnownItem, written: str, final: str, out: list[Delta]
    ) -> str:
        emitted = "".join(item.arguments)
        if final.startswith(emitted):
            item.held_arguments[:] = [final[len(emitted) :]]
        else:
            item.held_arguments.clear()
            item.arguments[:] = [final]
            out.append(TextCorrection(final, item.number))
        return final

    def _emit_arguments(self, item: KnownItem, out: list[Delta]) -> None:
        """Start a call as soon as it is known, and emit its arguments but for leading space."""
        if not (item.name and item.call_id):
            return
        self._start_call(item, out)
        if item.arguments or "".join(item.held_arguments).strip():
            self._flush_arguments(item, out)

    def _flush_arguments(self, item: KnownItem, out: list[Delta]) -> None:
        if text := "".join(item.held_arguments):
            item.arguments.append(text)
            self._pause(out)
            out.append(ToolCallDelta(item.number, arguments=text))
        item.held_arguments.clear()

    def _start_call(self, item: KnownItem, out: list[Delta]) -> None:
        if not item.is_started:
            item.is_started = self.has_calls = True
            self._pause(out)
            out.append(ToolCallDelta(item.number, item.call_id or None, item.name or None))

    def _finish_kind(
        self, item: KnownItem, kind: TextKind, target: str, body: Json, out: list[Delta]
    ) -> None:
        """Emit what a final text has more than what was emitted, or the text itself.

        A text of an odd type adds to what was emitted, but does not replace it.
        """
        final, is_plain = (
            (target, has_plain_text(body)) if target else (_final_text(item, kind), True)
        )
        written = item.text(kind)
        part = item.last_part[1] if item.last_part and item.last_part[0] is kind else 0
        if not final or written.startswith(final):
            return
        if final.startswith(written):
            self._emit_text(item, kind, final[len(written) :], out, part=part)
        elif is_plain and all(one is kind for one, _ in item.texts):
            self._write(item, out)
            item.texts = {(kind, part): [final]}
            out.append(TextCorrection(final))

    def _emit_text(  # noqa: PLR0913
        self,
        item: KnownItem,
        kind: TextKind,
        text: str,
        out: list[Delta],
        *,
        part: int = 0,
        logprobs: Any = None,
    ) -> None:
        if not text:
            return
        self._write(item, out)
        if item.phase is not None and not item.has_phase:
            self._emit_phase(item, item.phase, out)
        if item.last_part != (kind, part):
            is_paragraph = kind is ReasoningSummaryDelta and any(
                one is kind and number != part for one, number in item.texts
            )
            item.last_part = (kind, part)
            pieces = item.texts.setdefault(item.last_part, [])
            if is_paragraph and not pieces:
                text = PARAGRAPH + text
        else:
            pieces = item.texts[kind, part]
        pieces.append(text)
        if kind is OutputTextDelta and logprobs:
            out.append(OutputTextDelta(text, normalize_logprobs(logprobs)))
        else:
            out.append(kind(text))

    def _emit_phase(self, item: KnownItem, phase: Phase, out: list[Delta]) -> None:
        item.has_phase = True
        out.append(PhaseDelta(phase))

    def _write(self, item: KnownItem, out: list[Delta]) -> None:
        """Make an item the one whose text is written."""
        if item.slot is None:
            occupant = self._slots.get(self._slot)
            is_free = occupant is None or occupant.is_ended
            item.slot = self._slot if is_free else max(self._slots) + 1
            self._slots[item.slot] = item
        if item.slot != self._slot:
            self._slot = item.slot
            out.append(ItemSwitch(item.slot))

    def _pause(self, out: list[Delta]) -> None:
        """Let no item be written, so that one of another type does not end it."""
        occupant = self._slots.get(self._slot)
        if occupant is not None and not occupant.is_ended:
            self._slot = max(self._slots) + 1
            self._slots[self._slot] = None
            out.append(ItemSwitch(self._slot))


def _final_text(item: KnownItem, kind: TextKind) -> str:
    """What the ends of an item's parts said, if they said it of each part that has text."""
    finals = {part: text for (one, part), text in item.finals.items() if one is kind}
    if any(part not in finals for one, part in item.texts if one is kind):
        return ""
    separator = PARAGRAPH if kind is ReasoningSummaryDelta else ""
    return separator.join(finals[part] for part in sorted(finals))


def _annotations(part: Json) -> list[Any]:
    given = part.get("annotations")
    return given if isinstance(given, list) else []


def _dicts(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _is_object(text: str) -> bool:
    try:
        return isinstance(_decode(text), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
