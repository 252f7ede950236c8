"""Tool call assembly: joins the fragments of streamed tool calls and numbers the calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from antiphon.core.deltas import ToolCallDelta
from antiphon.core.provider_fields import ProviderFields
from antiphon.models.openai.upstream_errors import DECODE_ERRORS

_decode_string = msgspec.json.Decoder(str).decode
_CallKey: TypeAlias = int | str


class FunctionFragment(msgspec.Struct, gc=False):
    """A call's function, or a fragment of it."""

    name: str | None = None
    #: A string by the specification, but servers send objects and null too.
    arguments: msgspec.Raw = msgspec.Raw(b"null")


class ToolCallFragment(msgspec.Struct, gc=False):
    """One entry of ``tool_calls``."""

    index: int | None = None
    id: str | None = None
    function: FunctionFragment | None = None


class ToolCallAssembler:
    """Assigns the fragments of one answer to tool calls, numbered from 0.

    A fragment belongs to the call with its index, or with its id where there is no
    index, or else to the last one. A new id under an old index is a new call, and so
    is a name after a call that is already whole.
    """

    def __init__(self) -> None:
        self._index_by_key: dict[_CallKey, int] = {}
        self._ids: list[str | None] = []
        self._names: list[str | None] = []
        #: The last call's arguments so far: without an index, complete JSON is its only end.
        self._arguments = ""

    @property
    def has_calls(self) -> bool:
        return bool(self._ids)

    def feed(
        self, calls: list[ToolCallFragment], fields: Sequence[ProviderFields | None] = ()
    ) -> list[ToolCallDelta]:
        """The deltas of the fragments in one message or chunk, with the ``fields`` beside each."""
        out: list[ToolCallDelta] = []
        for position, call in enumerate(calls):
            function = call.function or FunctionFragment()
            arguments = _arguments_text(function.arguments)
            call_id, name = call.id or None, function.name or None
            number = self._index_of(call.index, call_id, name, together=bool(out))
            if call_id is not None and self._ids[number] is None:
                self._ids[number] = call_id
            else:
                call_id = None
            if name is not None and self._names[number] is None:
                self._names[number] = name
            else:
                name = None
            if call.index is None:
                self._arguments += arguments
            beside = fields[position] if position < len(fields) else None
            out.append(ToolCallDelta(number, call_id, name, arguments, beside))
        return out

    def _index_of(
        self, index: int | None, call_id: str | None, name: str | None, *, together: bool
    ) -> int:
        key: _CallKey | None = call_id if index is None else index
        if key is not None:
            number = self._index_by_key.get(key)
            if number is None or (call_id and self._ids[number] not in (None, call_id)):
                return self._start_call(key)
            return number
        if not self._ids or (name is not None and (together or self._starts_call(name))):
            return self._start_call(None)
        return len(self._ids) - 1

    def _starts_call(self, name: str) -> bool:
        return name != self._names[-1] or _is_json(self._arguments)

    def _start_call(self, key: _CallKey | None) -> int:
        number = len(self._ids)
        if key is not None:
            self._index_by_key[key] = number
        self._ids.append(None)
        self._names.append(None)
        self._arguments = ""
        return number


def _arguments_text(raw: msgspec.Raw) -> str:
    text = bytes(raw)
    if text == b"null":
        return ""
    return _decode_string(text) if text.startswith(b'"') else text.decode()


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except DECODE_ERRORS:
        return False
    return True
