"""``McpSource``: the tools of MCP servers in one turn, and what answers their calls.

Names: what the tools of MCP servers are called where models see them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from antiphon.core.items import FunctionCall, McpListTools
from antiphon.core.mcp_servers import (
    NAME_SEPARATOR,
    ApprovalPolicy,
    McpServerRequest,
    tool_name_without_label,
)
from antiphon.core.turns import FunctionTool
from antiphon.tools.mcp.connection import Peer
from antiphon.tools.mcp.errors import Gone, Refused
from antiphon.tools.tool_outputs import ArgumentsInvalid, failed, read, short
from antiphon.turn.protocols import ToolErrorOutput

_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")
#: What models take.
_MOST = 64


def prefix_of(label: str) -> str:
    """How all names of a server's tools begin: as long as the label and ``__``."""
    return _STRANGE.sub("_", label) + NAME_SEPARATOR


def name_of(label: str, tool: str, taken: Container[str] = ()) -> str:
    """``<label>__<tool>``, of at most 64 letters of a-z, A-Z, 0-9, _ and -.

    A tool whose own name had to be changed, or is ``taken``, is told apart by a hash of
    what it is called. So a name means the same tool tomorrow, whatever else the server
    lists then: a person may have agreed to a call by its name.
    """
    plain = prefix_of(label) + _STRANGE.sub("_", tool)
    if len(plain) <= _MOST and plain == f"{label}{NAME_SEPARATOR}{tool}" and plain not in taken:
        return plain
    mark = "_" + hashlib.sha256(f"{label}\0{tool}".encode("utf-8", "replace")).hexdigest()[:8]
    return plain[: _MOST - len(mark)] + mark


if TYPE_CHECKING:
    from antiphon.tools.mcp.session import Offer

_log = logging.getLogger("antiphon.tools")


class Lender(msgspec.Struct, frozen=True):
    """A server in one turn: what was asked of it, and what it offers for that."""

    ask: McpServerRequest
    peer: Peer
    offers: tuple[Offer, ...]
    #: Whether its session ends with the turn.
    owned: bool

    def needs_approval(self, tool: str) -> bool:
        """The configuration's rule holds for everybody; a request may only add to it."""
        mine, asked = self.peer.server.require_approval, self.ask.require_approval
        if mine is not None and _covers(mine, tool):
            return True
        if asked is None:
            return mine is None and tool not in self.ask.exempt
        return _covers(asked, tool) and tool not in self.ask.exempt

    @property
    def needs_always(self) -> bool:
        """Whether no tool could be without: one that is not there is none."""
        mine, asked = self.peer.server.require_approval, self.ask.require_approval
        if mine == "always":
            return True
        by_request = asked == "always" or (asked is None and mine is None)
        return by_request and not self.ask.exempt


class _Tool(msgspec.Struct, frozen=True):
    lender: Lender
    name: str


class McpSource:
    """The ``ToolExecutor`` of a turn's MCP servers; made by ``McpGateway.source``.

    ``taken`` are the names of other functions of the turn: their calls are left to others.
    ``dismiss`` ends what was opened for this turn only.
    """

    def __init__(
        self,
        lenders: Sequence[Lender],
        taken: frozenset[str],
        dismiss: Callable[[Peer], Awaitable[None]],
    ) -> None:
        self._lenders = lenders
        self._taken = taken
        self._used = set(taken)
        self._dismiss = dismiss
        self._tools: dict[str, _Tool] = {}
        functions: list[FunctionTool] = []
        for lender in lenders:
            functions += self._add(lender)
        self.functions = tuple(functions)
        #: By label; tools are called there as in the names that models see.
        self.approvals = {lender.ask.label: self._approval(lender) for lender in lenders}
        self.listed = tuple(
            McpListTools(lender.ask.label, tuple(map(_shown, lender.offers))) for lender in lenders
        )

    def server_of(self, name: str) -> str | None:
        """The label of the server that a call by this name goes to; None: it is none of ours.

        A name that only looks like one of a server's tools is that server's, too: it has to
        be told that there is no such tool.
        """
        if name in self._taken:
            return None
        if (tool := self._tools.get(name)) is not None:
            return tool.lender.ask.label
        labels = (lender.ask.label for lender in self._lenders)
        return next((label for label in labels if name.startswith(prefix_of(label))), None)

    async def answer(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        """The call's output for the model, whatever happened; None: for somebody else to answer.

        What went wrong is a ``ToolErrorOutput``. Never raises. Cancelling it tells the server that nobody
        waits any more.
        """
        label = self.server_of(call.name)
        if label is None:
            return None
        tool = self._tools.get(call.name)
        rule = self.approvals[label]
        if not approved and _covers(rule, tool_name_without_label(label, call.name)):
            return None
        # What a person has agreed to is a tool of that server, not another of the same name.
        if tool is None or call.server not in (None, label):
            there = ", ".join(list(self._tools)[:20]) or "none"
            return _fault(f"There is no tool named '{short(call.name, 100)}'. The tools: {there}.")
        try:
            arguments = read(call.arguments)
        except ArgumentsInvalid as error:
            return _fault(str(error))
        return await _run(call.name, tool, arguments)

    async def aclose(self) -> None:
        """End the sessions that were opened for this turn. Never raises; safe to call twice."""
        await asyncio.gather(*(self._dismiss(one.peer) for one in self._lenders if one.owned))

    def _add(self, lender: Lender) -> Iterable[FunctionTool]:
        label = lender.ask.label
        for offer in lender.offers:
            name = name_of(label, offer.name, self._used)
            if name in self._used:
                # Somebody has chosen the very name that would have told it apart.
                continue
            self._used.add(name)
            self._tools[name] = _Tool(lender, offer.name)
            yield FunctionTool(name, offer.description, offer.schema)

    def _approval(self, lender: Lender) -> ApprovalPolicy:
        if lender.needs_always:
            return "always"
        label = lender.ask.label
        return (
            tuple(
                tool_name_without_label(label, name)
                for name, tool in self._tools.items()
                if tool.lender is lender and lender.needs_approval(tool.name)
            )
            or "never"
        )


async def _run(name: str, tool: _Tool, arguments: dict[str, Any]) -> str:
    server = tool.lender.peer.server
    label = tool.lender.ask.label
    try:
        async with asyncio.timeout(server.timeout):
            return await tool.lender.peer.call(tool.name, arguments)
    except TimeoutError:
        _log.warning("Tool %s did not finish within %g s.", name, server.timeout)
        return _fault(f"{name} did not finish within {server.timeout:g} s.")
    except Gone as gone:
        effect = "" if gone.unsent else " Whether the call had an effect is not known."
        return _fault(f"The MCP server '{label}' is not available: {gone}.{effect}")
    except Refused as refused:
        return _fault(f"{name} failed: {refused}")
    except Exception as error:  # noqa: BLE001 - its kind is told, its words may hold a key
        _log.error("Tool %s failed unexpectedly: %s.", name, type(error).__name__)
        return _fault(f"{name} failed.")


def _fault(message: str) -> ToolErrorOutput:
    return ToolErrorOutput(failed(message))


def _covers(rule: ApprovalPolicy, tool: str) -> bool:
    return rule == "always" or (rule != "never" and tool in rule)


def _shown(offer: Offer) -> dict[str, Any]:
    return {
        "name": offer.name,
        "description": offer.description,
        "input_schema": offer.schema,
        "annotations": offer.annotations,
    }
