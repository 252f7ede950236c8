"""xAI hosted tools: the tools that xAI runs itself as protobuf messages, and their calls. Pure.

A request names them as the Responses API does, and their calls become that API's items.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from google.protobuf import json_format

from antiphon.errors import InvalidRequestError
from antiphon.protos.xai import Proto, chat_pb2

#: The field of ``chat_pb2.Tool`` for each type, without dates in its name.
_FIELDS: Final = {
    "web_search": "web_search",
    "web_search_preview": "web_search",
    "x_search": "x_search",
    "code_execution": "code_execution",
    "code_interpreter": "code_execution",
    "file_search": "collections_search",
    "collections_search": "collections_search",
    "image_generation": "image_generation",
}
#: Fields of a definition that the API has by another name.
_RENAMED: Final = {"vector_store_ids": "collection_ids", "max_num_results": "limit"}
_DATES: Final = ("from_date", "to_date")
#: The item of each type of call.
_ITEM_TYPES: Final = {
    chat_pb2.TOOL_CALL_TYPE_WEB_SEARCH_TOOL: "web_search_call",
    chat_pb2.TOOL_CALL_TYPE_X_SEARCH_TOOL: "x_search_call",
    chat_pb2.TOOL_CALL_TYPE_CODE_EXECUTION_TOOL: "code_interpreter_call",
    chat_pb2.TOOL_CALL_TYPE_COLLECTIONS_SEARCH_TOOL: "file_search_call",
    chat_pb2.TOOL_CALL_TYPE_ATTACHMENT_SEARCH_TOOL: "file_search_call",
    chat_pb2.TOOL_CALL_TYPE_IMAGE_GENERATION_TOOL: "image_generation_call",
}


def hosted_tool_protos(definitions: Iterable[dict[str, Any]]) -> list[Proto]:
    """The tools that xAI has; others are left out. Raises ``InvalidRequestError``."""
    protos = []
    for definition in definitions:
        field = _FIELDS.get(str(definition.get("type")).partition("_2")[0])
        if field is not None:
            protos.append(_tool_proto(field, definition))
    return protos


def _tool_proto(field: str, definition: dict[str, Any]) -> Proto:
    filters = definition.get("filters")
    fields = {**definition, **(filters if isinstance(filters, dict) else {})}
    known = {_RENAMED.get(name, name): value for name, value in fields.items()}
    for name in _DATES:
        date = known.get(name)
        if isinstance(date, str) and "T" not in date:
            known[name] = f"{date}T00:00:00Z"
    try:
        tool = json_format.ParseDict({field: {}}, chat_pb2.Tool(), ignore_unknown_fields=True)
        json_format.ParseDict(known, getattr(tool, field), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise InvalidRequestError(
            f"The tool '{definition['type']}': {error}", param="tools"
        ) from None
    return tool


def hosted_call_item(call: Proto) -> dict[str, Any] | None:
    """A call as an item of the Responses API; None: it is no call of such a tool."""
    kind = _ITEM_TYPES.get(call.type)
    if kind is None:
        return None
    arguments = _arguments(call.function.arguments)
    item: dict[str, Any] = {"type": kind, "id": call.id, "status": "completed"}
    query = arguments.get("query")
    match kind:
        case "web_search_call":
            item["action"] = {"type": "search", "query": query if isinstance(query, str) else ""}
        case "file_search_call":
            item |= {"queries": [query] if isinstance(query, str) else [], "results": None}
        case "code_interpreter_call":
            item |= {"code": arguments.get("code"), "container_id": "", "outputs": None}
        case "image_generation_call":
            item["result"] = None
        case _:
            item |= {"name": call.function.name, "arguments": call.function.arguments}
    return item


def _arguments(text: str) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}
