"""``Toolbox``: the tools of a conversation, and what answers their calls."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

from antiphon.core.items import FunctionCall
from antiphon.core.turns import FunctionTool
from antiphon.errors import ConfigError
from antiphon.tools.execution import CapturedError, capture_exceptions, is_async, run_in_thread
from antiphon.tools.function_tool import Tool, as_tool, check_timeout
from antiphon.tools.tool_context import ToolContext
from antiphon.tools.tool_outputs import (
    InvalidArgumentsError,
    ResultEncodingError,
    declined_output,
    encode_output,
    error_output,
    shorten,
)

#: Asks a person. True: agreed. False, or a text that says why: declined.
Approver: TypeAlias = Callable[[FunctionCall], bool | str | Awaitable[bool | str]]

#: Seconds that a tool gets where nobody says otherwise.
DEFAULT_TIMEOUT = 60.0

_log = logging.getLogger("antiphon.tools")


class Toolbox:
    """Tools that run in this process: the ``ToolExecutor`` of a conversation in Python.

    ``tools`` are tools, or functions with type hints. ``deps`` is what they find in
    ``ToolContext.deps``. ``approve`` is asked about calls of tools with ``needs_approval``,
    one at a time unless it is async, for as long as it takes; without it those calls stay
    open. ``timeout`` is in seconds, for tools without one of their own; None: no limit.

    Raises ``ConfigError`` for what cannot be a tool, and for two of one name.
    """

    def __init__(
        self,
        tools: Iterable[Any] = (),
        *,
        deps: Any = None,
        approve: Approver | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> None:
        if isinstance(tools, str | bytes | dict) or not isinstance(tools, Iterable):
            raise ConfigError("tools is a list of functions and tools.")
        if approve is not None and not callable(approve):
            raise ConfigError("approve is a function that takes a call.")
        check_timeout("tools", timeout)
        self.deps = deps
        self._approve = approve
        self._timeout = timeout
        self._tools: dict[str, Tool[..., Any]] = {}
        self._specs: tuple[FunctionTool, ...] = ()
        self._approval_lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        for one in tools:
            self.add(one)

    @property
    def specs(self) -> tuple[FunctionTool, ...]:
        """What the model is shown, in the order in which the tools were given."""
        return self._specs

    def add(self, given: Any) -> Tool[..., Any]:
        """One more tool, from the next call of the model on. Raises ``ConfigError``."""
        tool = as_tool(given)
        if tool.name in self._tools:
            raise ConfigError(f"Two tools are named '{tool.name}'; name one by @tool(name=...).")
        self._specs = (*self._specs, tool.spec)
        self._tools[tool.name] = tool
        return tool

    def copy(self) -> Toolbox:
        """Another one with the same tools, to which others can be added."""
        twin = copy.copy(self)
        twin._tools = dict(self._tools)
        return twin

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        """The call's output for the model, whatever happened; None: a person has to agree.

        Never raises. Cancelling it cancels an async tool; a blocking one goes on unheard.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            there = ", ".join(self._tools) or "none"
            return error_output(
                f"There is no tool named '{shorten(call.name, 100)}'. The tools: {there}."
            )
        try:
            arguments = tool.argument_spec.decode(call.arguments)
        except InvalidArgumentsError as error:
            return error_output(str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told and logged
            # A validator of the tool's own, or a schema without an end.
            return _tool_error_output(tool, error)
        if not approved and _needs_approval(tool, arguments):
            if self._approve is None:
                return None
            refusal = await self._request_approval(self._approve, call)
            if refusal is not None:
                return refusal
        return await self._run(tool, call, arguments)

    async def _request_approval(self, approve: Approver, call: FunctionCall) -> str | None:
        """Ask a person; None: agreed, else the output that says so."""
        try:
            decision = await capture_exceptions(self._call_approver(approve, call))
        except CapturedError as raised:
            _log.warning("approve failed for a call of %s.", call.name, exc_info=raised.error)
            return error_output("Nobody could be asked to agree to this call, so it was not run.")
        if decision is True:
            return None
        return declined_output(decision if isinstance(decision, str) else None)

    async def _call_approver(self, approve: Approver, call: FunctionCall) -> Any:
        decision: Any
        if is_async(approve):
            decision = approve(call)
        else:
            # One at a time: it may be talking to a person in a terminal.
            async with self._get_approval_lock():
                decision = await run_in_thread(partial(approve, call), "antiphon-approve")
        return await decision if inspect.isawaitable(decision) else decision

    def _get_approval_lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._approval_lock is None or self._approval_lock[0] is not loop:
            self._approval_lock = (loop, asyncio.Lock())
        return self._approval_lock[1]

    async def _run(
        self, tool: Tool[..., Any], call: FunctionCall, arguments: dict[str, Any]
    ) -> str:
        context = ToolContext(self.deps, call.call_id, tool.name)
        given = arguments | dict.fromkeys(tool.argument_spec.context_parameters, context)
        seconds = self._timeout if tool.timeout is ... else tool.timeout
        try:
            async with asyncio.timeout(seconds):
                return await capture_exceptions(_call_function(tool, given))
        except TimeoutError:
            _log.warning("Tool %s did not finish within %g s.", tool.name, seconds)
            return error_output(f"{tool.name} did not finish within {seconds:g} s.")
        except CapturedError as raised:
            return _tool_error_output(tool, raised.error)


async def _call_function(tool: Tool[..., Any], given: dict[str, Any]) -> str:
    if is_async(tool.function):
        return encode_output(await tool.function(**given))

    def work() -> Any:
        result = tool.function(**given)
        # Encoded here, too: a big result takes a while.
        return result if inspect.isawaitable(result) else encode_output(result)

    done = await run_in_thread(work, f"antiphon-tool-{tool.name}")
    return encode_output(await done) if inspect.isawaitable(done) else str(done)


def _needs_approval(tool: Tool[..., Any], arguments: dict[str, Any]) -> bool:
    rule = tool.needs_approval
    if not callable(rule):
        return bool(rule)
    try:
        return bool(rule(**{**tool.argument_spec.defaults, **arguments}))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - logged, and a person decides
        _log.warning("needs_approval of tool %s failed.", tool.name, exc_info=error)
        return True


def _tool_error_output(tool: Tool[..., Any], error: BaseException) -> str:
    """The output of a call that failed for a reason that is the tool's own."""
    _log.warning("Tool %s failed.", tool.name, exc_info=error)
    if isinstance(error, ResultEncodingError):
        return error_output(f"{tool.name} gave a result that is not JSON: {error}")
    message = shorten(error)
    kind = type(error).__name__
    return error_output(
        f"{tool.name} failed: {kind}: {message}" if message else f"{tool.name} failed: {kind}"
    )
