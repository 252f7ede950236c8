"""Rules of tool calls: which a model may make, and which wait for a person."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.core.items import FunctionCall, McpApproval
from antiphon.core.mcp_servers import JOINT, tool_of
from antiphon.core.turns import McpTool, Options

#: What a model reads where a person said no.
DENIED = "The user did not approve this call."
#: In place of a tool's name: all tools of a server.
ANY = "*"


def full_name(server_label: str, tool: str) -> str:
    """What models call a server's tool; with ``ANY``, what ``Options.allowed_tools`` has."""
    return f"{server_label}{JOINT}{tool}"


def own_name(call: FunctionCall) -> str:
    """What the call's own server calls the tool; a plain function's name as it is."""
    return call.name if call.server is None else tool_of(call.server, call.name)


def needs_approval(servers: Iterable[McpTool], call: FunctionCall) -> bool:
    """Whether a person has to agree to the call first. False for a plain function."""
    if call.server is None:
        return False
    server = next((one for one in servers if one.server_label == call.server), None)
    if server is None:
        return False
    name = own_name(call)
    if name in server.exempt:
        return False
    asked = server.require_approval
    return name in asked if isinstance(asked, tuple) else asked == "always"


def may_call(options: Options, name: str) -> bool:
    """Whether a model may call a tool, by the name that it is shown."""
    allowed = options.allowed_tools
    if allowed is None or name in allowed:
        return True
    every = JOINT + ANY
    return any(one.endswith(every) and name.startswith(one[: -len(ANY)]) for one in allowed)


def denial(decision: McpApproval) -> str:
    """The output of a call that a person did not agree to, for the model to read."""
    return f"{DENIED} {decision.reason}" if decision.reason else DENIED
