"""Input items, from the Responses API's JSON into ours. Pure.

Clients send back what they were shown, so ids, statuses and nulls that mean nothing here are
dropped. An item that is only named, and approvals, come out beside the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from antiphon.api.common.body import check_depth, invalid, present
from antiphon.core.ids import new_call_id
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputText,
    Item,
    McpApproval,
    McpListTools,
    Message,
    OutputText,
    Part,
    Reasoning,
)
from antiphon.core.tool_rules import denied_output, qualified_name
from antiphon.core.turns import ItemReference
from antiphon.errors import InvalidRequestError

MAX_ITEMS = 4096
_UNFINISHED = "The call was interrupted before it gave a result."


class Intake(msgspec.Struct, frozen=True):
    """What an input holds.

    ``approved`` are those of its own calls that it approves. Approvals of earlier turns'
    calls are among the items, with no call that has their id.
    """

    items: tuple[Item, ...]
    references: tuple[ItemReference, ...] = ()
    approved: tuple[FunctionCall, ...] = ()


def decode_items(given: Sequence[dict[str, Any]], at: str) -> Intake:
    """Items as they were sent; ``at`` is their field in the body.

    Raises ``InvalidRequestError`` naming the field at fault.
    """
    if len(given) > MAX_ITEMS:
        raise InvalidRequestError(
            f"Send at most {MAX_ITEMS} items at once.", code="too_many_items", param=at
        )
    items: list[Item] = []
    special: _Special | None = None
    for place, fields in enumerate(given):
        where = f"{at}[{place}]"
        clean = _clean(fields)
        kind = clean["type"]
        if isinstance(kind, str) and kind in _PLAIN:
            items.append(_plain_item(clean, where))
        else:
            special = special or _Special(items)
            special.take(kind, clean, where)
    if special is None:
        return Intake(tuple(items))
    return Intake(tuple(items), tuple(special.references), special.approved())


def _clean(fields: dict[str, Any]) -> dict[str, Any]:
    """Without nulls, without a status that says nothing here, and with a type."""
    clean = {
        name: [present(part) if isinstance(part, dict) else part for part in value]
        if isinstance(value, list)
        else value
        for name, value in fields.items()
        if value is not None
    }
    if "type" not in clean:
        named = "id" in clean and "role" not in clean and "content" not in clean
        clean["type"] = "item_reference" if named else "message"
    return clean


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


class _Compaction(msgspec.Struct, frozen=True):
    encrypted_content: str


class _Reference(msgspec.Struct, frozen=True):
    id: str


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
_PLAIN: dict[str, tuple[Any, tuple[str, ...]]] = {
    "message": (Message, ()),
    "function_call": (FunctionCall, ("server",)),
    "function_call_output": (FunctionCallOutput, ("failed", "approved")),
    "reasoning": (Reasoning, ("origin",)),
}


def _plain_item(clean: dict[str, Any], at: str) -> Item:
    kind, ours = _PLAIN[clean["type"]]
    for field in ours:
        clean.pop(field, None)
    if clean.get("status") == "in_progress":
        del clean["status"]
    if kind is Reasoning:
        _rename_thoughts(clean.get("content"))
    item: Item = _converted(clean, kind, at)
    match item:
        case Message(role=role, content=content):
            # What people say has no phase.
            phase = item.phase if role == "assistant" else None
            content = _plain(content, f"{at}.content")
            return msgspec.structs.replace(item, content=content, phase=phase)
        case FunctionCallOutput(output=output):
            return msgspec.structs.replace(item, output=_plain(output, f"{at}.output"))
    return item


def _rename_thoughts(parts: Any) -> None:
    """Raw reasoning has three names in the wild."""
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") in ("output_text", "text"):
            part["type"] = "reasoning_text"


def _plain(content: str | tuple[Part, ...], at: str) -> str | tuple[Part, ...]:
    """One plain text part becomes its text: it says the same in fewer bytes."""
    for place, part in enumerate(() if isinstance(content, str) else content):
        if isinstance(part, OutputText):
            check_depth((part.annotations, part.logprobs), f"{at}[{place}]")
        elif isinstance(part, InputFile) and part.file_data is None and part.file_url is None:
            raise InvalidRequestError(
                "A file has to come with its data or a URL: this server keeps no files.",
                param=f"{at}[{place}].file_data",
            )
    if all(part == InputText("") for part in content):
        return ""
    match content:
        case (InputText(text=text),) | (OutputText(text=text, annotations=(), logprobs=()),):
            return str(text)
    return content


class _Special:
    """Items that become others, or none: those around MCP servers, references, compactions.

    It adds to the ``items`` it is given.
    """

    def __init__(self, items: list[Item]) -> None:
        self.references: list[ItemReference] = []
        self._items = items
        #: Calls that wait for a person, by the id of their request.
        self._requests: dict[str, FunctionCall] = {}
        self._approved: dict[str, FunctionCall] = {}

    def approved(self) -> tuple[FunctionCall, ...]:
        return tuple(self._approved.values())

    def take(self, kind: object, fields: dict[str, Any], at: str) -> None:
        match kind:
            case "compaction":
                given = _converted(fields, _Compaction, at)
                self._items.append(Compaction(given.encrypted_content))
            case "item_reference":
                named = _converted(fields, _Reference, at)
                self.references.append(ItemReference(named.id, len(self._items), at))
            case "mcp_list_tools":
                check_depth(fields.get("tools"), f"{at}.tools")
                self._items.append(_listed(_converted(fields, _ListTools, at)))
            case "mcp_call":
                self._call(_converted(fields, _McpCall, at))
            case "mcp_approval_request":
                asked = _converted(fields, _ApprovalRequest, at)
                call = _function_call(asked, asked.id)
                self._requests[asked.id] = call
                self._items.append(call)
            case "mcp_approval_response":
                self._decide(_converted(fields, McpApproval, at))
            case str():
                raise InvalidRequestError(
                    f"There are no items of the type '{kind[:64]}' here.", param=f"{at}.type"
                )
            case _:
                raise InvalidRequestError(
                    "An item's type is a string.", code="invalid_type", param=f"{at}.type"
                )

    def _call(self, given: _McpCall) -> None:
        call = self._requests.pop(given.approval_request_id or "", None)
        if call is None:
            call = _function_call(given, given.id or new_call_id())
            self._items.append(call)
        self._approved.pop(call.call_id, None)
        failed = given.error is not None or given.output is None
        text = given.output or ""
        if failed:
            text = _UNFINISHED if given.error is None else _error_text(given.error)
        self._items.append(FunctionCallOutput(call.call_id, text, is_error=failed))

    def _decide(self, decision: McpApproval) -> None:
        request_id = decision.approval_request_id
        call = self._requests.get(request_id)
        if call is not None and decision.approve:
            self._approved[request_id] = call
        elif call is not None:
            del self._requests[request_id]
            self._approved.pop(request_id, None)
            self._items.append(FunctionCallOutput(request_id, denied_output(decision)))
        self._items.append(decision)


def _function_call(given: _McpCall | _ApprovalRequest, call_id: str) -> FunctionCall:
    name = qualified_name(given.server_label, given.name)
    return FunctionCall(call_id, name, given.arguments, server=given.server_label)


def _listed(given: _ListTools) -> McpListTools:
    tools = tuple(present(msgspec.structs.asdict(tool)) for tool in given.tools)
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


def _converted(fields: dict[str, Any], kind: Any, at: str) -> Any:
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid(error, at) from error
