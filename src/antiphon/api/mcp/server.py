"""MCP server: the official SDK's server with antiphon's tools, resources and prompt."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import mcp_types as types
import msgspec
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from antiphon.api.mcp import tool_schemas as about
from antiphon.api.mcp.request_context import McpCaller, RequestInfo, Roots, RootsRequired
from antiphon.api.mcp.resources import JSON_URI_TEMPLATE, URI_TEMPLATE, ConversationResources
from antiphon.api.mcp.streamable_http import ActiveCalls
from antiphon.api.mcp.tool_results import ToolResult, error_hint, result_body
from antiphon.api.mcp.tool_schemas import (
    decode_arguments,
    input_schema,
    output_schema,
    replace_surrogates,
)
from antiphon.api.mcp.tools import ToolDefinition, ToolHandlers, tool_definitions
from antiphon.errors import AntiphonError, InvalidRequestError, NotFoundError
from antiphon.turn.conversations import ConversationService
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import unknown_cursor

T = TypeVar("T")
Context: TypeAlias = ServerRequestContext[Any, Any]

log = logging.getLogger("antiphon.mcp")
# Its lines hold what people said. What goes wrong, we say ourselves.
logging.getLogger("mcp").setLevel(logging.CRITICAL)

_ROOTS: Final = "roots"


class McpServer:
    """Answers one kind of callers: those of this machine's pipes, or those of HTTP.

    ``roots`` are folders that local callers may name images in; None: callers come by HTTP.
    ``active_calls`` tracks the turns of their calls, for cancellation.
    """

    def __init__(
        self,
        service: TurnService,
        roots: Sequence[Path] | None = None,
        active_calls: ActiveCalls | None = None,
    ) -> None:
        self._roots = roots
        self._active_calls = active_calls or ActiveCalls()
        stores = service.stores
        conversations = (
            ConversationService(service, stores.conversations, stores.search) if stores else None
        )
        self._tools = tool_definitions(
            ToolHandlers(service, conversations), local=roots is not None
        )
        self._resources = ConversationResources(
            service, conversations, stores.chats if stores else None
        )
        self._tool_list = types.ListToolsResult(
            tools=[_sdk_tool(tool) for tool in self._tools.values()]
        )
        self.sdk: Server[Any] = Server(
            "antiphon",
            version=version("antiphon"),
            title="antiphon",
            instructions=about.INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
        )

    async def serve_stdio(self) -> None:
        """Answer on this program's pipes until its standard input ends.

        Meanwhile whatever else is printed goes to standard error: the output is the protocol's.
        """
        try:
            async with stdio_server() as (incoming, outgoing):
                options = self.sdk.create_initialization_options()
                await self.sdk.run(incoming, outgoing, options)
        except* BrokenPipeError:
            # The client is gone. So is what it would have read.
            pass

    def _caller(
        self, context: Context, params: types.CallToolRequestParams | None = None
    ) -> McpCaller:
        remote = RequestInfo(context)
        if self._roots is None:
            waiting = partial(self._active_calls.track, remote.call_key())
            return McpCaller(
                remote.tenant(),
                remote.key_id(),
                remote.progress_fn(),
                concurrency_slot=remote.concurrency_slot,
                track_turn=waiting,
            )
        answers = params.input_responses if params else None
        folders = Roots(context, self._roots, (answers or {}).get(_ROOTS)).folders
        return McpCaller(report_progress=remote.progress_fn(), folders=folders)

    async def _list_tools(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        _check_cursor(params)
        return self._tool_list

    async def _call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        try:
            result = await self._run_tool(self._caller(context, params), params)
        except RootsRequired:
            return types.InputRequiredResult(input_requests={_ROOTS: types.ListRootsRequest()})
        except AntiphonError as error:
            return _error_result(error_hint(error))
        except Exception:
            log.exception("the tool %s failed", replace_surrogates(params.name)[:80])
            return _error_result("The server failed on this call. Tell the person.")
        body = result_body(result)
        text = msgspec.json.encode(body).decode()
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=body)

    async def _run_tool(self, caller: McpCaller, params: types.CallToolRequestParams) -> ToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            raise InvalidRequestError(
                f"There is no tool '{params.name}'; there are {', '.join(self._tools)}."
            )
        arguments, unknown_names = decode_arguments(tool.arguments_type, params.arguments or {})
        result = await tool.run(caller, arguments)
        if unknown_names:
            names = ", ".join(replace_surrogates(name) for name in unknown_names)
            known = ", ".join(tool.arguments_type.__struct_fields__) or "nothing"
            warning = f"Unknown arguments were ignored: {names}. {tool.name} takes {known}."
            result = msgspec.structs.replace(result, warnings=(*result.warnings, warning))
        return result

    async def _list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        _check_cursor(params)
        threads = await _translate_errors(self._resources.list_latest(self._caller(context).tenant))
        return types.ListResourcesResult(
            resources=[
                types.Resource(
                    uri=one.uri,
                    name=one.id,
                    title=one.title,
                    description=one.description,
                    mime_type="text/markdown",
                )
                for one in threads
            ]
        )

    async def _list_templates(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        _check_cursor(params)
        return types.ListResourceTemplatesResult(resource_templates=_RESOURCE_TEMPLATES)

    async def _read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        read = await _translate_errors(self._resources.read(self._caller(context).tenant, uri))
        return types.ReadResourceResult(
            contents=[
                types.TextResourceContents(uri=uri, mime_type=read.media_type, text=read.text)
            ]
        )

    async def _list_prompts(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        _check_cursor(params)
        return types.ListPromptsResult(prompts=[_PROMPT])

    async def _get_prompt(
        self, context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        if params.name != _PROMPT.name:
            raise _mcp_error(
                NotFoundError(f"There is no prompt '{params.name}'; there is {_PROMPT.name}.")
            )
        words = (params.arguments or {}).get("about", "")
        text = await _translate_errors(
            self._resources.continue_prompt(self._caller(context).tenant, words)
        )
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(description=_PROMPT.description, messages=[message])


_RESOURCE_TEMPLATES: Final = [
    types.ResourceTemplate(
        uri_template=URI_TEMPLATE,
        name="conversation",
        title="A conversation",
        description="All that was said up to a response (resp_...), or in a named conversation"
        " (conv_...), as Markdown.",
        mime_type="text/markdown",
    ),
    types.ResourceTemplate(
        uri_template=JSON_URI_TEMPLATE,
        name="conversation_messages",
        title="A conversation's messages",
        description="The same as an array of messages, as chat models take it.",
        mime_type="application/json",
    ),
]
_PROMPT: Final = types.Prompt(
    name=about.CONTINUE_NAME,
    title=about.CONTINUE_TITLE,
    description=about.CONTINUE,
    arguments=[types.PromptArgument(name="about", description=about.CONTINUE_ABOUT)],
)


def _sdk_tool(tool: ToolDefinition) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=input_schema(tool.arguments_type),
        output_schema=output_schema(tool.result_type),
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.read_only,
            destructive_hint=tool.destructive,
            idempotent_hint=tool.read_only or tool.destructive,
            open_world_hint=tool.open_world,
        ),
    )


def _check_cursor(params: types.PaginatedRequestParams | None) -> None:
    """Every list is one page, so no cursor was ever given out. Raises ``MCPError``."""
    if params is not None and params.cursor is not None:
        raise _mcp_error(unknown_cursor(params.cursor))


def _error_result(sentence: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=sentence)], is_error=True)


async def _translate_errors(work: Awaitable[T]) -> T:
    """What ``work`` gives; its errors as the protocol's."""
    try:
        return await work
    except AntiphonError as error:
        raise _mcp_error(error) from error
    except Exception as error:
        log.exception("a request failed")
        raise MCPError(types.INTERNAL_ERROR, "The server failed on this request.") from error


def _mcp_error(error: AntiphonError) -> MCPError:
    mine = isinstance(error, InvalidRequestError | NotFoundError)
    return MCPError(types.INVALID_PARAMS if mine else types.INTERNAL_ERROR, error_hint(error))
