"""Rules of tool calls: which a model may make, and which wait for a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, McpApproval
from antiphon.core.mcp_servers import NAME_SEPARATOR, tool_name_without_label
from antiphon.core.turns import McpTool, Options
from antiphon.errors import InvalidRequestError

#: What a model reads where a person said no.
DENIED_OUTPUT = "The user did not approve this call."
#: The output of a call whose turn ended before the tool had given one.
INTERRUPTED_OUTPUT = "The call was interrupted before it gave a result."
#: How ``Options`` names a tool that the upstream runs: by its type, behind this.
HOSTED_PREFIX = "hosted:"
#: In place of a tool's name: all tools of a server.
ALL_TOOLS = "*"


def qualified_name(server_label: str, tool: str) -> str:
    """What models call a server's tool; with ``ALL_TOOLS``, what ``Options.allowed_tools`` has."""
    return f"{server_label}{NAME_SEPARATOR}{tool}"


def unqualified_name(call: FunctionCall) -> str:
    """What the call's own server calls the tool; a plain function's name as it is."""
    return call.name if call.server is None else tool_name_without_label(call.server, call.name)


def needs_approval(servers: Iterable[McpTool], call: FunctionCall) -> bool:
    """Whether a person has to agree to the call first. False for a plain function."""
    if call.server is None:
        return False
    server = next((one for one in servers if one.server_label == call.server), None)
    if server is None:
        return False
    name = unqualified_name(call)
    if name in server.exempt:
        return False
    policy = server.require_approval
    return name in policy if isinstance(policy, tuple) else policy == "always"


def calls_to_approve(
    items: Sequence[Item], servers: Iterable[McpTool], *, has_own_tools: bool
) -> tuple[str, ...]:
    """The ids of calls of a turn's output that a person has to agree to.

    ``has_own_tools``: whoever runs the turn runs its functions too, and has left open only what
    waits for a person.
    """
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    return tuple(
        item.call_id
        for item in items
        if isinstance(item, FunctionCall)
        and item.call_id not in answered
        and (has_own_tools if item.server is None else needs_approval(servers, item))
    )


def is_tool_allowed(options: Options, name: str) -> bool:
    """Whether a model may call a tool, by the name that it is shown."""
    allowed = options.allowed_tools
    if allowed is None or name in allowed:
        return True
    every = NAME_SEPARATOR + ALL_TOOLS
    return any(one.endswith(every) and name.startswith(one[: -len(ALL_TOOLS)]) for one in allowed)


def hosted_choice_error(choice: str) -> InvalidRequestError:
    """The error for a choice of a tool that the model's upstream cannot run."""
    kind = choice.removeprefix(HOSTED_PREFIX)[:64]
    return InvalidRequestError(
        f"This model has no tool '{kind}'.", code="unsupported_value", param="tool_choice"
    )


def denied_output(decision: McpApproval) -> str:
    """The output of a call that a person did not agree to, for the model to read."""
    return f"{DENIED_OUTPUT} {decision.reason}" if decision.reason else DENIED_OUTPUT
