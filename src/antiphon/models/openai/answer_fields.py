"""Answer fields: deltas of what chat completions hold besides words and calls. Pure.

Reasoning comes under several names, and next to it or to a call stand fields that the model wants
back (``core.provider_fields``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from antiphon.core.deltas import Delta, ProviderFieldsDelta, ReasoningSummaryDelta
from antiphon.core.provider_fields import (
    ProviderFields,
    entry_text,
    joined_text,
    select_call_fields,
    select_message_fields,
)

_DETAILS = "reasoning_details"
#: What nearly all calls have, and nothing else.
_CALL_NAMES = frozenset(("index", "id", "type", "function"))
_FUNCTION_NAMES = frozenset(("name", "arguments"))


class AnswerFields:
    """Makes the deltas of one answer; ``origin`` is the model that gives it."""

    def __init__(self, origin: str | None) -> None:
        self._origin = origin
        self._by_name: dict[str, ProviderFields] = {}
        self._has_text = False
        #: What ``reasoning_details`` have told.
        self._details_text = ""

    def text_delta(self, name: str, text: str) -> ReasoningSummaryDelta:
        """More reasoning that came as text, under this name."""
        self._has_text = True
        fields = self._by_name.get(name)
        if fields is None:
            fields = self._by_name[name] = ProviderFields(self._origin, text_field=name)
        return ReasoningSummaryDelta(text, fields)

    def field_deltas(self, fields: Mapping[str, Any], *, whole: bool) -> Iterator[Delta]:
        """The fields of a message, or of a chunk of one if it is not ``whole``.

        What only ``reasoning_details`` tell is shown, too.
        """
        details = fields.get(_DETAILS)
        if not self._has_text and isinstance(details, list):
            for text in map(entry_text, details):
                joined = joined_text(self._details_text, text)
                if text := joined[len(self._details_text) :]:
                    yield ReasoningSummaryDelta(text)
                self._details_text = joined
        if isinstance(details, list) and not whole:
            # Pieces of one entry may come together: joined, one by one, they are that entry.
            for entry in details:
                if chosen := select_message_fields({_DETAILS: [entry]}):
                    yield self._fields_delta(chosen)
            fields = {name: value for name, value in fields.items() if name != _DETAILS}
        if fields := select_message_fields(fields):
            yield self._fields_delta(fields)

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
