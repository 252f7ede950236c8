"""Item bodies: encodes items as the Responses API returns them, and parses ``include``. Pure.

A call of an MCP server's tool and its output are two items in the store, and one (``mcp_call``)
here, with the id of the call. A call that needs approval is an ``mcp_approval_request``; its output
is an ``mcp_call`` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from antiphon.core.ids import item_id
from antiphon.core.items import (
    ApprovedCall,
    Compaction,
    ErasedItem,
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    Item,
    McpApproval,
    McpListTools,
    Message,
    Part,
    Reasoning,
    item_kind,
    text_and_refusals_of,
)
from antiphon.core.tool_rules import needs_approval, unqualified_name
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, Options, Response
from antiphon.errors import InvalidRequestError

#: The specification's two, and those that OpenAI's clients know besides.
Includable: TypeAlias = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
INCLUDABLE: tuple[str, ...] = get_args(Includable)
#: Whether a call of an MCP server is one that a person has to agree to.
ApprovalCheck: TypeAlias = Callable[[FunctionCall], bool]


def output_items(response: Response, include: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The output items as they are shown; ``include`` is asked for besides (``includes``)."""
    if {*map(type, response.output)} <= {Message}:
        # Nothing to pair.
        first = len(response.input)
        return [
            item_body(item, item_id(response.id, "message", position))
            for position, item in enumerate(response.output, first)
        ]
    options = response.header.options
    servers = options.mcp_servers
    pairs = McpCallPairing(
        response.id,
        lambda call: needs_approval(servers, call),
        include_encrypted=shows_encrypted_reasoning(options, include),
    )
    running = response.end is None
    return item_bodies(pairs, response.output, len(response.input), running=running)


def input_items(response: Response, include: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The input items as they are shown, oldest first; ``include`` as in ``output_items``."""
    answered = {item.call_id for item in response.input if isinstance(item, FunctionCallOutput)}
    pairs = McpCallPairing(
        response.id,
        lambda call: call.call_id not in answered,
        include_encrypted=shows_encrypted_reasoning(response.header.options, include),
    )
    return item_bodies(pairs, response.input, 0)


def item_bodies(
    pairing: McpCallPairing, items: Sequence[Item], first: int, *, running: bool = False
) -> list[dict[str, Any]]:
    """Items in full shape, without those that were erased.

    ``first`` is the position of the first in its turn. ``running``: outputs may still come.
    """
    shown: list[dict[str, Any]] = []
    for position, item in enumerate(items, first):
        kind = pairing.item_type(item)
        if kind is None:
            if isinstance(item, FunctionCallOutput):
                call, body = pairing.close_call(item.call_id)
                body.update(mcp_call_body(call, body["id"], item))
            continue
        name = item_id(pairing.response_id, kind, position)
        body = pairing.body_of(item, kind, name)
        if kind == "mcp_call" and isinstance(item, FunctionCall):
            if running:
                body["status"] = "in_progress"
            pairing.open_call(item, body)
        elif kind == "mcp_approval_request" and isinstance(item, FunctionCall):
            pairing.add_approval_request(item, name)
        shown.append(body)
    return shown


class McpCallPairing:
    """Pairs MCP calls with their outputs while a turn's items are encoded in order.

    ``include_encrypted``: reasoning has its encrypted content.
    """

    def __init__(
        self, response_id: str, approval_check: ApprovalCheck, *, include_encrypted: bool = False
    ) -> None:
        self.response_id = response_id
        self._approval_check = approval_check
        self._include_encrypted = include_encrypted
        #: Calls whose output has not come, with what they are shown as.
        self.open_calls: dict[str, tuple[FunctionCall, dict[str, Any]]] = {}
        self._approval_requests: dict[str, ApprovedCall] = {}

    def item_type(self, item: Item) -> str | None:
        """The ``type`` that the next item is shown with. None: it is not one by itself."""
        match item:
            case FunctionCall(server=str()):
                return "mcp_approval_request" if self._approval_check(item) else "mcp_call"
            case FunctionCallOutput(call_id=call_id):
                if call_id in self.open_calls:
                    return None
                if item.approved_call or call_id in self._approval_requests:
                    return "mcp_call"
            case ErasedItem():
                return None
        return item_kind(item)

    def open_call(self, call: FunctionCall, body: dict[str, Any]) -> None:
        """A call is shown, and its output shall be in the same place."""
        self.open_calls[call.call_id] = (call, body)

    def add_approval_request(self, call: FunctionCall, name: str) -> None:
        """A call waits for a person, and is shown as ``name``."""
        self._approval_requests[call.call_id] = ApprovedCall(name, call)

    def close_call(self, call_id: str) -> tuple[FunctionCall, dict[str, Any]]:
        """The call that an output is for, and what it is shown as."""
        return self.open_calls.pop(call_id)

    def approval_of(self, output: FunctionCallOutput) -> ApprovedCall | None:
        """The call behind an output that is shown by itself, if a person agreed to it."""
        return output.approved_call or self._approval_requests.get(output.call_id)

    def body_of(self, item: Item, kind: str, name: str) -> dict[str, Any]:
        """An item in full shape, with the id ``name``."""
        if kind == "mcp_call" and isinstance(item, FunctionCallOutput):
            approved = self.approval_of(item)
            assert approved is not None
            return mcp_call_body(approved.call, name, item, approved.request_id)
        is_approval_request = kind == "mcp_approval_request"
        return item_body(
            item,
            name,
            as_approval_request=is_approval_request,
            include_encrypted=self._include_encrypted,
        )


def mcp_call_body(
    call: FunctionCall,
    name: str,
    output: FunctionCallOutput | None = None,
    request_id: str | None = None,
) -> dict[str, Any]:
    """An MCP server's tool call, with what came of it."""
    text = None if output is None else text_and_refusals_of(output.output)
    failed = output is not None and output.is_error
    return {
        "id": name,
        "type": "mcp_call",
        "status": "failed" if failed else "completed" if output else "incomplete",
        "server_label": call.server or "",
        "name": unqualified_name(call),
        "arguments": call.arguments,
        "output": None if failed else text,
        "error": (
            {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}
            if failed
            else None
        ),
        "approval_request_id": request_id,
    }


def item_body(
    item: Item,
    name: str,
    status: str | None = None,
    *,
    as_approval_request: bool = False,
    include_encrypted: bool = False,
) -> dict[str, Any]:
    """One item in full shape; ``status`` overrides the item's own.

    ``as_approval_request``: the item is a call that needs approval. ``include_encrypted``:
    reasoning has its encrypted content.
    """
    match item:
        case Message():
            body: dict[str, Any] = {
                "id": name,
                "type": "message",
                "status": status or item.status,
                "role": item.role,
                "content": _part_bodies(item.role, item.content),
            }
            # Only some models tell it, and null is no phase.
            return body if item.phase is None else {**body, "phase": item.phase}
        case FunctionCall():
            return _call_body(item, name, status, as_approval_request)
        case FunctionCallOutput(output=output):
            return {
                "id": name,
                "type": item_kind(item),
                "status": status or item.status,
                "call_id": item.call_id,
                "output": output if isinstance(output, str) else _part_bodies("user", output),
            }
        case Reasoning():
            return _reasoning_body(item, name, status or item.status, include_encrypted)
    return _other_item_body(item, name)


def _call_body(
    call: FunctionCall, name: str, status: str | None, as_approval_request: bool
) -> dict[str, Any]:
    if call.server is None:
        body = {
            "id": name,
            "type": item_kind(call),
            "status": status or call.status,
            "call_id": call.call_id,
            "name": call.name,
            "input" if call.is_custom else "arguments": call.arguments,
        }
        if call.provider_fields is not None:
            fields = call.provider_fields.fields
            body = {**{name: it for name, it in fields.items() if name != "function"}, **body}
        return body if call.namespace is None else {**body, "namespace": call.namespace}
    if not as_approval_request:
        return mcp_call_body(call, name) | ({"status": status} if status else {})
    return {
        "id": name,
        "type": "mcp_approval_request",
        "status": status or call.status,
        "server_label": call.server,
        "name": unqualified_name(call),
        "arguments": call.arguments,
    }


def _other_item_body(
    item: Compaction | McpListTools | McpApproval | ForeignItem | ErasedItem, name: str
) -> dict[str, Any]:
    """Items without a status of ours."""
    if isinstance(item, ForeignItem):
        return {**item.body, "type": item.type, "id": name}
    body: dict[str, Any] = {"id": name, "type": item_kind(item)}
    match item:
        case Compaction():
            body["encrypted_content"] = item.summary
        case McpListTools():
            body |= {"server_label": item.server_label, "tools": list(item.tools)}
            body["error"] = item.error
        case McpApproval():
            body |= {"approval_request_id": item.approval_request_id, "approve": item.approve}
            body["reason"] = item.reason
    return body


def _reasoning_body(
    item: Reasoning, name: str, status: str, include_encrypted: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": name,
        "type": "reasoning",
        "status": status,
        "summary": [{"type": "summary_text", "text": part.text} for part in item.summary],
    }
    if item.content:
        body["content"] = [{"type": "reasoning_text", "text": part.text} for part in item.content]
    if include_encrypted and (sealed := item.sealed) is not None:
        body["encrypted_content"] = sealed
    return body


def _part_bodies(role: str, content: str | tuple[Part, ...]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        if role == "assistant":
            return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
        return [{"type": "input_text", "text": content}]
    return [part_body(part) for part in content]


def part_body(part: Part) -> dict[str, Any]:
    """One part of a content."""
    body: dict[str, Any] = {"type": part.__struct_config__.tag}
    for field in part.__struct_fields__:
        value = getattr(part, field)
        # A file has only some of its fields, and none of them may be null.
        if value is not None or not isinstance(part, InputFile):
            body[field] = value
    return body


def parse_include(query: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The values of ``include=…`` or ``include[]=…``. Raises ``InvalidRequestError``."""
    include = (*query.get("include", ()), *query.get("include[]", ()))
    for one in include:
        if one not in INCLUDABLE:
            raise InvalidRequestError(
                f"There is nothing called '{one[:64]}' to include.", param="include"
            )
    return include


def shows_encrypted_reasoning(options: Options, include: Sequence[str] = ()) -> bool:
    """Whether a turn's reasoning is shown with its encrypted content.

    Either the request that created the turn or the one that reads it (``include``) may ask for it.
    """
    return INCLUDE_ENCRYPTED_REASONING in options.include or INCLUDE_ENCRYPTED_REASONING in include
