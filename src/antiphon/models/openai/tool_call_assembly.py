"""Tool calls in a chat completions answer, told apart and numbered. Pure."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from antiphon.core.deltas import ToolCallDelta
from antiphon.models.openai.upstream_errors import UNREADABLE

_decode_string = msgspec.json.Decoder(str).decode
_CallKey: TypeAlias = int | str


class Function(msgspec.Struct, gc=False):
    """What a call names, or a fragment of it."""

    name: str | None = None
    #: A string by the book, but objects and null occur.
    arguments: msgspec.Raw = msgspec.Raw(b"null")


class Call(msgspec.Struct, gc=False):
    """One entry of ``tool_calls``."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Calls:
    """Tells the calls of one answer apart and numbers them from 0, however they are marked.

    A piece belongs to the call with its index, or with its id where there is no
    index, or else to the last one. A new id under an old index is a new call, and so
    is a name after a call that is already whole.
    """

    def __init__(self) -> None:
        self._numbers: dict[_CallKey, int] = {}
        self._ids: list[str | None] = []
        self._names: list[str | None] = []
        #: The arguments so far of the last call, where only they tell that it is over.
        self._arguments = ""

    @property
    def any(self) -> bool:
        return bool(self._ids)

    def pieces(self, calls: list[Call]) -> list[ToolCallDelta]:
        """The fragments that came together in one message or chunk."""
        out: list[ToolCallDelta] = []
        for call in calls:
            function = call.function or Function()
            arguments = _arguments(function.arguments)
            call_id, name = call.id or None, function.name or None
            number = self._number(call.index, call_id, name, together=bool(out))
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
            out.append(ToolCallDelta(number, call_id, name, arguments))
        return out

    def _number(
        self, index: int | None, call_id: str | None, name: str | None, *, together: bool
    ) -> int:
        key: _CallKey | None = call_id if index is None else index
        if key is not None:
            number = self._numbers.get(key)
            if number is None or (call_id and self._ids[number] not in (None, call_id)):
                return self._begin(key)
            return number
        if not self._ids or (name is not None and (together or self._is_new(name))):
            return self._begin(None)
        return len(self._ids) - 1

    def _is_new(self, name: str) -> bool:
        return name != self._names[-1] or _is_json(self._arguments)

    def _begin(self, key: _CallKey | None) -> int:
        number = len(self._ids)
        if key is not None:
            self._numbers[key] = number
        self._ids.append(None)
        self._names.append(None)
        self._arguments = ""
        return number


def _arguments(raw: msgspec.Raw) -> str:
    text = bytes(raw)
    if text == b"null":
        return ""
    return _decode_string(text) if text.startswith(b'"') else text.decode()


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except UNREADABLE:
        return False
    return True
