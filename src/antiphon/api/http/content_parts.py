"""What of an item is streamed piece by piece, and how events call it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.api.http.item_bodies import part_body
from antiphon.core.items import Item, Message, OutputText, Reasoning, Refusal


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
