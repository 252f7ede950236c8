"""xAI request fields: sets further fields of a request, as JSON, where the API has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format

from antiphon.core.extra_fields import select_extra_fields
from antiphon.protos.xai import Proto

#: What of a request antiphon decides.
_OWN_FIELDS: Final = frozenset({"store_messages", "use_encrypted_content"})


def add_extra_fields(request: Proto, extra: Mapping[str, Any]) -> list[str]:
    """Set further fields of a request; those that it has set stay.

    Returns the names of those that the API does not have, or of another type.
    """
    unpassed: list[str] = []
    for name, value in select_extra_fields(extra).items():
        field = request.DESCRIPTOR.fields_by_name.get(name)
        if field is None or name in _OWN_FIELDS:
            unpassed.append(name)
            continue
        if field.has_presence and request.HasField(name):
            continue
        try:
            json_format.ParseDict({name: value}, request)
        except (json_format.ParseError, ValueError, TypeError):
            unpassed.append(name)
    return unpassed
