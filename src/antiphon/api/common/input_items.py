"""Input items: decodes and sanitizes the Responses API's input items into ours. Pure.

Clients send items back as they received them: ids, statuses and nulls that mean nothing in an
input are dropped. Item references and approvals are returned beside the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from antiphon.api.common.body import check_depth, convert_value, drop_nulls
from antiphon.api.common.call_ids import distinguish_calls, find_open_call
from antiphon.api.common.item_shapes import join_lone_parts, normalize_item
from antiphon.api.common.tool_requests import decode_tools, parse_tools
from antiphon.core.foreign_items import is_foreign_type
from antiphon.core.ids import new_call_id
from antiphon.core.items import (
    Compaction,
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputText,
    Item,
    ItemStatus,
    McpApproval,
    McpListTools,
    Message,
    OutputText,
    Part,
    Reasoning,
)
from antiphon.core.provider_fields import (
    EXTRA_FIELDS,
    ProviderFields,
    select_call_fields,
)
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT, denied_output, qualified_name
from antiphon.core.turns import ItemReference
from antiphon.errors import InvalidRequestError

MAX_ITEMS = 4096


class DecodedInput(msgspec.Struct, frozen=True):
    """The decoded input.

    ``item_ids`` are the ids that its items came with. ``approved_calls`` are those of its own calls
    that it approves. Approvals of earlier turns'
    calls are among the items, with no call that has their id.
    """

    items: tuple[Item, ...]
    references: tuple[ItemReference, ...] = ()
    item_ids: tuple[ItemReference, ...] = ()
    approved_calls: tuple[FunctionCall, ...] = ()


def decode_items(given: Sequence[dict[str, Any] | str], path: str) -> DecodedInput:
    """Decode items; ``path`` is their field in the body.

    Raises ``InvalidRequestError`` naming the invalid field.
    """
    if len(given) > MAX_ITEMS:
        raise InvalidRequestError(
            f"Send at most {MAX_ITEMS} items at once.", code="too_many_items", param=path
        )
    items: list[Item] = []
    item_ids: list[ItemReference] = []
    special: _SpecialItemDecoder | None = None
    for index, fields in enumerate(join_lone_parts(given)):
        item_path = f"{path}[{index}]"
        begin = len(items)
        for clean in normalize_item(fields):
            kind = clean["type"]
            if isinstance(kind, str) and kind in _PLAIN_ITEM_TYPES:
                if kind in _CALL_TYPES and not clean.get("call_id"):
                    _set_call_id(clean, items, index)
                items.append(_decode_plain_item(clean, item_path))
            else:
                special = special or _SpecialItemDecoder(items)
                special.add(kind, clean, item_path)
        if isinstance(fields, dict) and "id" in fields and len(items) > begin:
            item_ids.append(ItemReference(str(fields["id"]), begin, item_path))
    distinct = tuple(distinguish_calls(items))
    if special is None:
        return DecodedInput(distinct, item_ids=tuple(item_ids))
    references = tuple(special.references)
    return DecodedInput(distinct, references, tuple(item_ids), special.approved_calls())


_CALL_TYPES = ("function_call", "function_call_output")


def _set_call_id(clean: dict[str, Any], items: list[Item], index: int) -> None:
    """Give a call an id, and an output that of its call, if one is waiting."""
    if clean["type"] == "function_call":
        clean.setdefault("call_id", f"call_{index}_{len(items)}")
        return
    call_id = find_open_call(items, clean.get("name"))
    if call_id is not None:
        clean["call_id"] = call_id


class _McpCall(msgspec.Struct, frozen=True):
    name: str
    server_label: str
    arguments: str
    id: str | None = None
    output: str | None = None
    error: Any = None
    approval_request_id: str | None = None


class _ApprovalRequest(msgspec.Struct, frozen=True):
    id: str
    name: str
    server_label: str
    arguments: str


class _CustomCall(msgspec.Struct, frozen=True):
    call_id: str
    name: str
    input: str
    status: ItemStatus = "completed"
    namespace: str | None = None


class _Compaction(msgspec.Struct, frozen=True):
    encrypted_content: str


class _ItemReference(msgspec.Struct, frozen=True):
    id: str


class _AdditionalTools(msgspec.Struct, frozen=True):
    tools: list[dict[str, Any]]


class _ListedTool(msgspec.Struct, frozen=True):
    name: str
    input_schema: Any
    description: str | None = None
    annotations: Any = None


class _ListTools(msgspec.Struct, frozen=True):
    server_label: str
    tools: tuple[_ListedTool, ...]
    error: str | None = None


#: Ours by the same names. What they have besides is not for a client to say.
_PLAIN_ITEM_TYPES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "message": (Message, ("provider_fields",)),
    "function_call": (FunctionCall, ("server", "is_custom", "provider_fields")),
    "function_call_output": (FunctionCallOutput, ("is_error", "approved_call", "is_custom")),
    "reasoning": (Reasoning, ("origin", "provider_fields")),
}


def _decode_plain_item(clean: dict[str, Any], path: str) -> Item:
    kind, ours = _PLAIN_ITEM_TYPES[clean["type"]]
    for field in ours:
        clean.pop(field, None)
    item: Item = convert_value(clean, kind, path)
    match item:
        case Message(role=role, content=content):
            # What people say has no phase.
            phase = item.phase if role == "assistant" else None
            content = _simplify_content(content, f"{path}.content")
            return msgspec.structs.replace(item, content=content, phase=phase)
        case FunctionCallOutput(output=output):
            return msgspec.structs.replace(item, output=_simplify_content(output, f"{path}.output"))
        case Reasoning():
            return item.unsealed()
        case FunctionCall():
            # What else stands there may be the client's own.
            fields = {
                name: it for name, it in select_call_fields(clean).items() if name in EXTRA_FIELDS
            }
            if fields:
                return msgspec.structs.replace(item, provider_fields=ProviderFields(fields=fields))
    return item


def _simplify_content(content: str | tuple[Part, ...], path: str) -> str | tuple[Part, ...]:
    """One plain text part becomes its text: it says the same in fewer bytes."""
    for index, part in enumerate(() if isinstance(content, str) else content):
        if isinstance(part, OutputText):
            check_depth((part.annotations, part.logprobs), f"{path}[{index}]")
        elif isinstance(part, InputFile) and part.file_data is None and part.file_url is None:
            raise InvalidRequestError(
                "A file has to come with its data or a URL: this server keeps no files.",
                param=f"{path}[{index}].file_data",
            )
    if all(part == InputText("") for part in content):
        return ""
    match content:
        case (InputText(text=text),) | (OutputText(text=text, annotations=(), logprobs=()),):
            return str(text)
    return content


class _SpecialItemDecoder:
    """Items that become others, or none: those around MCP servers, references, compactions.

    It adds to the ``items`` it is given.
    """

    def __init__(self, items: list[Item]) -> None:
        self.references: list[ItemReference] = []
        self._items = items
        #: Calls that wait for a person, by the id of their request.
        self._approval_requests: dict[str, FunctionCall] = {}
        self._approved_calls: dict[str, FunctionCall] = {}

    def approved_calls(self) -> tuple[FunctionCall, ...]:
        return tuple(self._approved_calls.values())

    def add(self, kind: object, fields: dict[str, Any], path: str) -> None:
        match kind:
            case "compaction":
                given = convert_value(fields, _Compaction, path)
                self._items.append(Compaction(given.encrypted_content))
            case "item_reference":
                named = convert_value(fields, _ItemReference, path)
                self.references.append(ItemReference(named.id, len(self._items), path))
            case "mcp_list_tools":
                check_depth(fields.get("tools"), f"{path}.tools")
                self._items.append(_mcp_list_tools(convert_value(fields, _ListTools, path)))
            case "mcp_call":
                self._add_mcp_call(convert_value(fields, _McpCall, path))
            case "mcp_approval_request":
                request = convert_value(fields, _ApprovalRequest, path)
                call = _function_call(request, request.id)
                self._approval_requests[request.id] = call
                self._items.append(call)
            case "mcp_approval_response":
                self._add_approval(convert_value(fields, McpApproval, path))
            case "custom_tool_call":
                made = convert_value(fields, _CustomCall, path)
                self._items.append(
                    FunctionCall(
                        made.call_id,
                        made.name,
                        made.input,
                        made.status,
                        namespace=made.namespace,
                        is_custom=True,
                    )
                )
            case "custom_tool_call_output":
                fields = {**fields, "type": "function_call_output"}
                output = _decode_plain_item(fields, path)
                self._items.append(msgspec.structs.replace(output, is_custom=True))
            case str():
                self._items.append(_foreign_item(kind, fields, path))
            case _:
                raise InvalidRequestError(
                    "An item's type is a string.", code="invalid_type", param=f"{path}.type"
                )

    def _add_mcp_call(self, given: _McpCall) -> None:
        call = self._approval_requests.pop(given.approval_request_id or "", None)
        if call is None:
            call = _function_call(given, given.id or new_call_id())
            self._items.append(call)
        self._approved_calls.pop(call.call_id, None)
        failed = given.error is not None or given.output is None
        text = given.output or ""
        if failed:
            text = INTERRUPTED_OUTPUT if given.error is None else _error_text(given.error)
        self._items.append(FunctionCallOutput(call.call_id, text, is_error=failed))

    def _add_approval(self, decision: McpApproval) -> None:
        request_id = decision.approval_request_id
        call = self._approval_requests.get(request_id)
        if call is not None and decision.approve:
            self._approved_calls[request_id] = call
        elif call is not None:
            del self._approval_requests[request_id]
            self._approved_calls.pop(request_id, None)
            self._items.append(FunctionCallOutput(request_id, denied_output(decision)))
        self._items.append(decision)


def _foreign_item(kind: str, fields: dict[str, Any], path: str) -> ForeignItem:
    """An item that only another server understands, kept as it came."""
    if not is_foreign_type(kind):
        raise InvalidRequestError(
            f"There are no items of the type '{kind[:64]}' here.", param=f"{path}.type"
        )
    check_depth(fields, path)
    if kind == "additional_tools":
        tools = convert_value(fields, _AdditionalTools, path).tools
        decode_tools(parse_tools(tools, f"{path}.tools"), None)
    return ForeignItem(fields)


def _function_call(given: _McpCall | _ApprovalRequest, call_id: str) -> FunctionCall:
    name = qualified_name(given.server_label, given.name)
    return FunctionCall(call_id, name, given.arguments, server=given.server_label)


def _mcp_list_tools(given: _ListTools) -> McpListTools:
    tools = tuple(drop_nulls(msgspec.structs.asdict(tool)) for tool in given.tools)
    return McpListTools(given.server_label, tools, given.error)


def _error_text(error: Any) -> str:
    """The words of an error, whatever shape it has."""
    if isinstance(error, str):
        return error
    if isinstance(error, dict):
        if isinstance(error.get("message"), str):
            return str(error["message"])
        content = error.get("content")
        parts = content if isinstance(content, list) else ()
        return "".join(
            part["text"]
            for part in parts
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return "The tool failed."
