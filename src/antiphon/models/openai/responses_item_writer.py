"""Responses item writer: emits the texts of an answer's items, one item after another. No I/O.

Items may come at the same time, and each has a slot. What is emitted belongs to the item whose slot
was chosen last.
"""

from __future__ import annotations

from typing import Any

from antiphon.core.deltas import (
    Delta,
    ItemSwitch,
    OutputTextDelta,
    PhaseDelta,
    ReasoningSummaryDelta,
    TextCorrection,
)
from antiphon.core.items import Phase
from antiphon.models.openai.logprobs_citations import normalize_logprobs
from antiphon.models.openai.responses_item_matching import (
    PARAGRAPH,
    Json,
    KnownItem,
    TextKind,
    has_plain_text,
)


class ItemWriter:
    """Writes the items of one answer: every method appends the deltas to ``out``."""

    def __init__(self) -> None:
        self._slot = 0
        #: Whose text is written in which slot; None: nobody's, see ``pause``.
        self._slots: dict[int, KnownItem | None] = {}

    def finish_kind(
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
            self.emit_text(item, kind, final[len(written) :], out, part=part)
        elif is_plain and all(one is kind for one, _ in item.texts):
            self.switch_to(item, out)
            item.texts = {(kind, part): [final]}
            out.append(TextCorrection(final))

    def emit_text(  # noqa: PLR0913
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
        self.switch_to(item, out)
        if item.phase is not None and not item.has_phase:
            self.emit_phase(item, item.phase, out)
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

    def emit_phase(self, item: KnownItem, phase: Phase, out: list[Delta]) -> None:
        item.has_phase = True
        out.append(PhaseDelta(phase))

    def switch_to(self, item: KnownItem, out: list[Delta]) -> None:
        """Make an item the one whose text is written."""
        if item.slot is None:
            occupant = self._slots.get(self._slot)
            is_free = occupant is None or occupant.is_ended
            item.slot = self._slot if is_free else max(self._slots) + 1
            self._slots[item.slot] = item
        if item.slot != self._slot:
            self._slot = item.slot
            out.append(ItemSwitch(item.slot))

    def pause(self, out: list[Delta]) -> None:
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
