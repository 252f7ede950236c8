"""Responses item matching: reads items of any shape, and finds which known item one is. Pure.

An item comes up to three times, and servers may name and number it differently each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from antiphon.core.deltas import (
    OutputTextDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
)
from antiphon.core.items import Phase
from antiphon.models.openai.lenient_json import is_plain_data, name_of_value, text_of_value
from antiphon.models.openai.tool_call_fragments import arguments_text

Json: TypeAlias = dict[str, Any]
TextKind: TypeAlias = (
    type[OutputTextDelta]
    | type[RefusalTextDelta]
    | type[ReasoningSummaryDelta]
    | type[ReasoningTextDelta]
)

MESSAGE = "message"
REASONING = "reasoning"
FUNCTION_CALL = "function_call"
#: The separator of a summary's parts, which are paragraphs with a heading each.
PARAGRAPH = "\n\n"
#: Parts of a message that some servers send in an item's place.
_PART_TYPES = ("output_text", "text", "input_text", "refusal")


class KnownItem(msgspec.Struct, eq=False):
    """What is known and emitted of one item. ``number`` counts the items of an answer."""

    type: str
    number: int
    index: int | None = None
    item_id: str = ""
    #: Whether its deltas name it as its beginning does.
    is_named: bool = False
    call_id: str = ""
    name: str = ""
    #: As it was when it began; None: nothing told of its beginning.
    added: Json | None = None
    is_done: bool = False
    #: Where its text is written, and whether it is over there.
    slot: int | None = None
    is_ended: bool = False
    #: What was emitted and what is final, by kind and part.
    texts: dict[tuple[TextKind, int], list[str]] = {}
    finals: dict[tuple[TextKind, int], str] = {}
    last_part: tuple[TextKind, int] | None = None
    #: Annotations that came before the end of their item, where most servers repeat them.
    annotations: list[Any] = []
    phase: Phase | None = None
    has_phase: bool = False
    #: A call's arguments, those not emitted yet, and those that are final.
    is_started: bool = False
    arguments: list[str] = []
    held_arguments: list[str] = []
    final_arguments: str = ""

    def text(self, kind: TextKind | None = None) -> str:
        """What was emitted of a kind of text, or of all."""
        return "".join(
            piece
            for (one, _), pieces in self.texts.items()
            if kind in (None, one)
            for piece in pieces
        )

    @property
    def words(self) -> str:
        """All text and arguments so far."""
        return self.text() + "".join((*self.arguments, *self.held_arguments))


def type_of(body: Json) -> str:
    """An item's type; where it is missing, by what the item holds."""
    given = body.get("type")
    if isinstance(given, str) and given:
        return MESSAGE if given in _PART_TYPES else given
    if "summary" in body:
        return REASONING
    if "arguments" in body:
        return FUNCTION_CALL
    return MESSAGE


def best_match(
    body: Json,
    index: int | None,
    items: Iterable[KnownItem],
    last: dict[str, KnownItem],
    *,
    is_ended: bool = False,
) -> tuple[KnownItem | None, int]:
    """The item that a whole item is, by most of what agrees, and how well; None: none of them.

    ``is_ended``: the item is one of a whole response, in which indices are positions.
    """
    item_type, item_id = type_of(body), name_of_value(body.get("id"))
    call_id = name_of_value(body.get("call_id"))
    best, most = None, 0
    for item in items:
        if item.type != item_type:
            continue
        score = agreement(item_id, item.item_id, 4, -1)
        score += agreement(call_id, item.call_id, 4, -3)
        if index is not None and item.index is not None:
            score += 3 if index == item.index else (-1 if is_ended else -2 if score > 0 else -4)
        elif item.is_named and not is_ended and agreement(item_id, item.item_id, 1, -1) < 0:
            continue
        score += 1 if item is last[item_type] else 0
        if item.item_id != item_id or not item_id:
            score += _agreement_of_words(_words_of(body, item_type), item.words)
        if score > most:
            best, most = item, score
    return best, most


def match_output(
    output: Sequence[Json], items: Iterable[KnownItem], last: dict[str, KnownItem]
) -> list[KnownItem | None]:
    """For each item of a whole response, the one that it is; ids are looked at first.

    An item's position there need not be the index that its stream gave it.
    """
    remaining = list(items)
    matches: list[KnownItem | None] = [None] * len(output)
    for threshold in (4, 1):
        for position, body in enumerate(output):
            if matches[position] is None and remaining:
                item, score = best_match(body, position, remaining, last, is_ended=True)
                if item is not None and score >= threshold:
                    matches[position] = item
                    remaining.remove(item)
    return matches


def is_repetition(body: Json, index: int | None, item: KnownItem) -> bool:
    """Whether a whole item is one that was whole before: nothing of it differs."""
    return (
        item.type == type_of(body)
        and item.item_id == name_of_value(body.get("id"))
        and item.index == index
        and item.call_id == (name_of_value(body.get("call_id")) or item.call_id)
        and item.words == _words_of(body, item.type)
        and (bool(item.item_id) or index is not None or bool(item.call_id))
    )


def agreement(one: str, other: str, reward: int, penalty: int) -> int:
    if not one or not other:
        return 0
    return reward if one == other else penalty


def _agreement_of_words(one: str, other: str) -> int:
    if not one or not other:
        return 0
    return 2 if one.startswith(other) or other.startswith(one) else -2


def _words_of(body: Json, item_type: str) -> str:
    match item_type:
        case "message":
            return "".join(text for _, text, _ in message_parts(body))
        case "function_call":
            return arguments_text(body.get("arguments"))
        case "reasoning":
            summary = PARAGRAPH.join(texts_of(body.get("summary")))
            return summary + "".join(texts_of(body.get("content")))
    return ""


def message_parts(body: Json) -> list[tuple[TextKind, str, Any]]:
    """A message's texts, each with its kind and logprobs."""
    content = body.get("content") if body.get("type") not in _PART_TYPES else [body]
    parts: list[tuple[TextKind, str, Any]] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict):
            refusal = part.get("refusal")
            if part.get("type") == "refusal":
                refusal = refusal or text_of_value(part)
            if isinstance(refusal, str) and refusal:
                parts.append((RefusalTextDelta, refusal, None))
            elif is_plain_data(part.get("text")):
                parts.append((OutputTextDelta, msgspec.json.encode(part["text"]).decode(), None))
            elif text := text_of_value(part):
                parts.append((OutputTextDelta, text, part.get("logprobs")))
        elif text := text_of_value(part):
            parts.append((OutputTextDelta, text, None))
    return parts


def has_plain_text(body: Json) -> bool:
    """Whether all text of an item has the shape that it should have."""
    parts = [*_list(body.get("content")), *_list(body.get("summary"))]
    return all(
        isinstance(part, dict) and isinstance(part.get("text", part.get("refusal")), str)
        for part in parts
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def texts_of(value: Any) -> list[str]:
    """The texts of a list of parts, or of what stands in its place."""
    texts = map(text_of_value, value if isinstance(value, list) else [value])
    return [text for text in texts if text]
