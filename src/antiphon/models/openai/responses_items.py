"""Responses items: assembles an answer's items from what a stream says of them. No I/O.

Streams say everything up to four times: in deltas, in the end of a part, in the end of an item,
and in the whole response. Servers leave out any of these, and number or name items wrongly. So
each delta is emitted as it comes, and what later events add or correct follows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    ForeignItemDelta,
    ItemEnd,
    OutputTextDelta,
    ProviderFieldsDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    TextCorrection,
    ToolCallDelta,
)
from antiphon.core.items import Phase
from antiphon.core.provider_fields import ProviderFields, select_call_fields
from antiphon.models.openai.argument_mending import is_object, normalize_arguments
from antiphon.models.openai.growing_call import breaks_off, lacks_brace
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
    best_match,
    is_repetition,
    match_output,
    message_parts,
    texts_of,
    type_of,
)
from antiphon.models.openai.responses_item_writer import ItemWriter
from antiphon.models.openai.tool_call_fragments import arguments_text, is_blank
from antiphon.models.openai.tool_names import known_name

#: Which type of item a text belongs to.
ITEM_TYPES: dict[TextKind, str] = {
    OutputTextDelta: MESSAGE,
    RefusalTextDelta: MESSAGE,
    ReasoningSummaryDelta: REASONING,
    ReasoningTextDelta: REASONING,
}
_PHASES: tuple[str, ...] = get_args(Phase)


class ItemAssembler:
    """Assembles the items of one answer: every method appends the deltas to ``out``.

    ``origin`` is the model, ``tool_names`` are those of its functions.
    """

    def __init__(self, origin: str, tool_names: Collection[str] = ()) -> None:
        self._origin, self._tool_names = origin, tool_names
        self.has_calls = False
        #: The arguments of a call that has no name.
        self.nameless_arguments = ""
        #: The name of a call whose arguments break off.
        self.cut_call: str | None = None
        self._items: list[KnownItem] = []
        self._by_id: dict[tuple[str, str], KnownItem] = {}
        self._by_index: dict[tuple[str, int], KnownItem] = {}
        self._last: dict[str, KnownItem] = {}
        self._writer = ItemWriter()
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
        self._writer.emit_text(item, kind, piece, out, part=part, logprobs=logprobs)

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
            self._writer.emit_text(item, kind, text[len(written) :], out, part=part)

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
                self._writer.pause(out)
                out.append(ForeignItemDelta(body))
        item.is_done = True
        if item.type == REASONING and is_ended and body.get("encrypted_content"):
            self._writer.switch_to(item, out)
            content = name_of_value(body["encrypted_content"])
            out.append(EncryptedReasoning(content, self._origin))
            item.is_ended = True
        elif item.slot is not None and is_ended:
            self._writer.switch_to(item, out)
            if item.type == REASONING and item.text(ReasoningTextDelta):
                # It goes back as it came.
                out.append(ProviderFieldsDelta(ProviderFields(self._origin)))
            out.append(ItemEnd())
            item.is_ended = True

    def _complete_message(self, item: KnownItem, body: Json, out: list[Delta]) -> None:
        parts = message_parts(body)
        if not item.texts:
            for number, (kind, text, logprobs) in enumerate(parts):
                self._writer.emit_text(item, kind, text, out, part=number, logprobs=logprobs)
        for kind in (OutputTextDelta, RefusalTextDelta):
            target = "".join(text for one, text, _ in parts if one is kind)
            self._writer.finish_kind(item, kind, target, body, out)
        if item.phase is not None and not item.has_phase and item.texts:
            self._writer.switch_to(item, out)
            self._writer.emit_phase(item, item.phase, out)
        sources = [one for part in _dicts(body.get("content")) for one in _annotations(part)]
        annotations = [one for one in sources or item.annotations if isinstance(one, dict)]
        if annotations and item.texts:
            self._writer.switch_to(item, out)
            out += [AnnotationDelta(one) for one in annotations]

    def _complete_reasoning(self, item: KnownItem, body: Json, out: list[Delta]) -> None:
        summary = texts_of(body.get("summary"))
        content = "".join(texts_of(body.get("content")))
        for kind, target in (
            (ReasoningSummaryDelta, PARAGRAPH.join(summary)),
            (ReasoningTextDelta, content),
        ):
            self._writer.finish_kind(item, kind, target, body, out)

    def _complete_call(
        self, item: KnownItem, body: Json, out: list[Delta], *, is_whole: bool
    ) -> None:
        item.call_id = item.call_id or name_of_value(body.get("id")) or item.item_id
        given = body.get("arguments")
        final = arguments_text(given)
        if not final.strip():
            given = final = item.final_arguments
        written = "".join((*item.arguments, *item.held_arguments))
        if not item.name:
            # A stub, where nothing is called; or else nobody knows what is.
            self.nameless_arguments = self.nameless_arguments or (written + final).strip()
            return
        if final != written and _is_better(given, final, written):
            written = self._replace_arguments(item, written, final, out)
        if is_whole and lacks_brace(written):
            written = self._replace_arguments(item, written, written + "}", out)
        if is_whole and (whole := normalize_arguments(written)) != written:
            written = self._replace_arguments(item, written, whole, out)
        if is_whole and breaks_off(written):
            self.cut_call = self.cut_call or item.name
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
            self._writer.pause(out)
            out.append(ToolCallDelta(item.number, arguments=text))
        item.held_arguments.clear()

    def _start_call(self, item: KnownItem, out: list[Delta]) -> None:
        if not item.is_started:
            item.is_started = self.has_calls = True
            self._writer.pause(out)
            out.append(ToolCallDelta(item.number, item.call_id or None, item.name or None))


def _annotations(part: Json) -> list[Any]:
    given = part.get("annotations")
    return given if isinstance(given, list) else []


def _dicts(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _is_better(given: Any, final: str, written: str) -> bool:
    """Whether a call's arguments at its end, ``final``, say more than those that came in pieces."""
    if is_blank(written) or not is_object(written):
        return bool(final.strip())
    # They are whole: an end that is no string, or empty, says less.
    return isinstance(given, str) and not is_blank(final) and is_object(final)
