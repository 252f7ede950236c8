"""Answer fields: deltas of what chat completions hold besides words and calls. Pure.

Reasoning comes under several names, and next to it or to a call stand fields that the model wants
back (``core.provider_fields``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from antiphon.core.deltas import Delta, ProviderFieldsDelta, ReasoningSummaryDelta
from antiphon.core.provider_fields import (
    REASONING_LIST_FIELDS,
    ProviderFields,
    entry_text,
    joined_text,
    select_call_fields,
    select_message_fields,
)

#: What nearly all calls have, and nothing else.
_CALL_NAMES = frozenset(("index", "id", "type", "function"))
_FUNCTION_NAMES = frozenset(("name", "arguments"))


class AnswerFields:
    """Makes the deltas of one answer; ``origin`` is the model that gives it."""

    def __init__(self, origin: str | None) -> None:
        self._origin = origin
        self._by_name: dict[str, ProviderFields] = {}
        self._has_text = False
        #: The list whose reasoning is shown, and its text so far.
        self._shown_list: str | None = None
        self._entries_text = ""

    def text_delta(self, name: str, text: str) -> ReasoningSummaryDelta:
        """More reasoning that came as text, under this name."""
        self._has_text = True
        fields = self._by_name.get(name)
        if fields is None:
            fields = self._by_name[name] = ProviderFields(self._origin, text_field=name)
        return ReasoningSummaryDelta(text, fields)

    def field_deltas(self, fields: Mapping[str, Any], *, whole: bool) -> Iterator[Delta]:
        """The fields of a message, or of a chunk of one if it is not ``whole``.

        Reasoning that comes in lists alone is shown, too.
        """
        for name in REASONING_LIST_FIELDS:
            given = fields.get(name)
            entries = [given] if isinstance(given, dict) else given
            if not isinstance(entries, list):
                continue
            if not self._has_text and self._shown_list in (None, name):
                yield from self._show_entries(name, entries)
            if not whole:
                # Pieces of one entry may come together: joined, one by one, they are that entry.
                for entry in entries:
                    if chosen := select_message_fields({name: [entry]}):
                        yield self._fields_delta(chosen)
                fields = {it: value for it, value in fields.items() if it != name}
        if fields := select_message_fields(fields):
            yield self._fields_delta(fields)

    def _show_entries(self, name: str, entries: list[Any]) -> Iterator[Delta]:
        for text in map(entry_text, entries):
            joined = joined_text(self._entries_text, text)
            if text := joined[len(self._entries_text) :]:
                self._shown_list = name
                yield ReasoningSummaryDelta(text)
            self._entries_text = joined

    def call_fields(self, call: Mapping[str, Any]) -> ProviderFields | None:
        """What stands beside a call, None: nothing."""
        function = call.get("function")
        if (
            call.keys() <= _CALL_NAMES
            and isinstance(function, dict)
            and function.keys() <= _FUNCTION_NAMES
        ):
            return None
        fields = select_call_fields(call)
        return ProviderFields(self._origin, fields) if fields else None

    def _fields_delta(self, fields: Mapping[str, Any]) -> ProviderFieldsDelta:
        return ProviderFieldsDelta(ProviderFields(self._origin, dict(fields)))
