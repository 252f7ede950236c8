"""Loose values: brings the values of a body's fields into the kinds that its fields have. Pure.

Languages without a type for an empty object send ``[]`` for it, and an object with numbered keys
for a list with gaps; forms send ``""`` for what was left empty, and JSON as a text. What has no
one meaning is left as it is, for the decoder to refuse by name.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import inspect

_KINDS: Final[dict[type[inspect.Type], frozenset[type]]] = {
    inspect.StrType: frozenset({str}),
    inspect.LiteralType: frozenset({str}),
    inspect.ListType: frozenset({list}),
    inspect.TupleType: frozenset({list}),
    inspect.VarTupleType: frozenset({list}),
    inspect.DictType: frozenset({dict}),
    inspect.StructType: frozenset({dict}),
    inspect.AnyType: frozenset({str, list, dict}),
}
_DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class FieldKinds:
    """Which of texts, lists and objects each field of a body takes."""

    def __init__(self, body: type[msgspec.Struct]) -> None:
        info = inspect.type_info(body)
        assert isinstance(info, inspect.StructType)
        self._kinds = {one.encode_name: _kinds_of(one.type) for one in info.fields}

    def normalize(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields, those that are empty in another way than theirs as empty in theirs."""
        return {
            name: _normalize_value(value, self._kinds[name]) if name in self._kinds else value
            for name, value in fields.items()
        }


def _kinds_of(given: inspect.Type) -> frozenset[type]:
    if isinstance(given, inspect.Metadata):
        return _kinds_of(given.type)
    if isinstance(given, inspect.UnionType):
        return frozenset().union(*map(_kinds_of, given.types))
    return _KINDS.get(type(given), frozenset())


def _normalize_value(value: Any, kinds: frozenset[type]) -> Any:
    kind = type(value)
    if kind is str and str not in kinds:
        value = decode_json_text(value.strip())
        kind = type(value)
    if kind is dict and list in kinds:
        value = list_of_numbered(value)
        kind = type(value)
    if value or kind in kinds:
        return value
    # Where a field takes one of the two, the other says nothing when it is empty.
    other = dict if dict in kinds else list if list in kinds else None
    if kind in (list, dict) and other is not None:
        return other()
    return None if kind is str or (kind is bool and other is not None) else value


def decode_json_text(text: str) -> Any:
    """The object or the list that a text is the JSON of; the text itself where it is none."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return msgspec.json.decode(text)
    except _DECODE_ERRORS:
        return text


def list_of_numbered(value: Any) -> Any:
    """The list that came as an object whose keys are numbers; anything else as it is."""
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return value
